//! The package `proto`: `KV` with Get, Put and Join.

use ringfort_proto::proto_kv::kv_server::Kv;
use ringfort_proto::proto_kv::{GetRequest, GetResponse, JoinRequest, JoinResponse, PutRequest, PutResponse};
use ringfort_proto::status::{from_failure, from_write_failure, refused, timeout_ms};
use ringfort_types::{Change, Copies, Part};
use tonic::{Code, Request, Response, Status};

use super::held::response;
use super::utf8::text;
use super::{JOIN, is_same_place, not_there};
use crate::gate::Gate;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
}

#[tonic::async_trait]
impl Kv for Service {
    async fn get(&self, call: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let timeout_ms = timeout_ms(call.metadata());
        let key = call.into_inner().key;
        let (row, room) = self.gate.get(key.clone(), timeout_ms).await.map_err(from_failure)?;
        let row = row.ok_or_else(|| not_there(&key))?;
        let value = text(key.as_bytes(), &row.value).map_err(from_failure)?;
        Ok(response(GetResponse { value }, room))
    }

    async fn put(&self, call: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let timeout_ms = timeout_ms(call.metadata());
        let PutRequest { key, value } = call.into_inner();
        let part = Part::new(key, Change::put(value));
        self.gate.write(part, Copies::Majority, timeout_ms).await.map_err(from_write_failure)?;
        Ok(Response::new(PutResponse {}))
    }

    /// For whoever is there already.
    async fn join(&self, call: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let JoinRequest { node_id, grpc_address, .. } = call.into_inner();
        let layout = self.gate.layout();
        let mut members = layout.iter().flat_map(|layout| &layout.members);
        if let Some(member) = members.find(|member| member.name == node_id)
            && is_same_place(&grpc_address, &member.address).await
        {
            return Ok(Response::new(JoinResponse {}));
        }
        Err(refused(Code::FailedPrecondition, JOIN))
    }
}
