//! The package `proto`: `KV` with Get, Put and Join.

use ringfort_proto::proto_kv::kv_server::Kv;
use ringfort_proto::proto_kv::{GetRequest, GetResponse, JoinRequest, JoinResponse, PutRequest, PutResponse};
use ringfort_proto::status::{from_failure, from_write_failure, timeout_ms};
use ringfort_types::{Change, Copies, Part};
use tonic::{Request, Response, Status};

use super::authenticated::asked_by;
use super::held::response;
use super::utf8::text;
use super::{inviting_ms, not_there};
use crate::gate::Gate;
use crate::invite::invite;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
}

#[tonic::async_trait]
impl Kv for Service {
    async fn get(&self, call: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let key = call.into_inner().key;
        let (row, room) = gate.get(key.clone(), timeout_ms).await.map_err(from_failure)?;
        let row = row.ok_or_else(|| not_there(&key))?;
        let value = text(key.as_bytes(), &row.value).map_err(from_failure)?;
        Ok(response(GetResponse { value }, room))
    }

    async fn put(&self, call: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let PutRequest { key, value } = call.into_inner();
        let part = Part::new(key, Change::put(value));
        gate.write(part, Copies::Majority, timeout_ms).await.map_err(from_write_failure)?;
        Ok(Response::new(PutResponse {}))
    }

    async fn join(&self, call: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), inviting_ms(call.metadata()));
        // Where it would speak Raft is no other place than where it serves.
        let JoinRequest { node_id, grpc_address, .. } = call.into_inner();
        let invited = invite(&gate, Some(&node_id), &grpc_address, timeout_ms).await;
        invited.map(|()| Response::new(JoinResponse {})).map_err(from_failure)
    }
}
