//! The package `kv`: `KeyValue` with the caller's own versions, and `Cluster`, which tells of the cluster and changes
//! nothing.

use ringfort_proto::kv::cluster_server::Cluster;
use ringfort_proto::kv::key_value_server::KeyValue;
use ringfort_proto::kv::{
    DeleteRequest, DeleteResponse, GetClusterStateRequest, GetClusterStateResponse, GetRequest, GetResponse,
    HeartbeatRequest, HeartbeatResponse, ReplicateRequest, ReplicateResponse, RequestVoteRequest,
    RequestVoteResponse, SetRequest, SetResponse,
};
use ringfort_proto::status::{from_failure, from_write_failure, refused, timeout_ms};
use ringfort_types::{Change, ClusterState, Condition, Copies, NewValue, Part, ShardId, Version};
use tonic::{Request, Response, Status};

use super::authenticated::asked_by;
use super::held::response;
use crate::gate::Gate;

/// Both services.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
}

/// A version of the caller's, if the write has one.
fn version(version: i64) -> Result<Option<Version>, Status> {
    match u64::try_from(version) {
        Ok(0) => Ok(None),
        Ok(version) => Ok(Some(Version(version))),
        Err(_) => Err(refused(
            tonic::Code::InvalidArgument,
            format!(
                "version {version}: give one from 1 on, or 0 for a write without a place in your own order"
            ),
        )),
    }
}

impl Service {
    /// Whether it had an effect: an older version than the key has is ignored.
    async fn write(
        gate: &Gate,
        key: String,
        change: Change,
        version: Option<Version>,
        timeout_ms: u32,
    ) -> Result<bool, Status> {
        let part = Part { condition: version.map(Condition::NotNewerThan), ..Part::new(key, change) };
        let written = gate.write(part, Copies::Majority, timeout_ms).await;
        Ok(written.map_err(from_write_failure)?.is_some())
    }

    /// The term of the group that keeps the layout, and its leader's name.
    async fn state<M>(&self, call: &Request<M>) -> Result<(ClusterState, i64, String), Status> {
        let gate = asked_by(call, &self.gate);
        let state = gate.cluster(timeout_ms(call.metadata())).await.map_err(from_failure)?;
        let meta = state.shards.iter().find(|shard| shard.shard == ShardId::META);
        let term = meta.map_or(0, |meta| i64::try_from(meta.term.0).unwrap_or(i64::MAX));
        let leader = meta.and_then(|meta| meta.leader);
        let leader = state.nodes.iter().find(|node| Some(node.id) == leader);
        let leader = leader.map(|node| node.name.clone()).unwrap_or_default();
        Ok((state, term, leader))
    }
}

#[tonic::async_trait]
impl KeyValue for Service {
    async fn get(&self, call: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let (row, room) = gate.get(call.into_inner().key, timeout_ms).await.map_err(from_failure)?;
        let found = row.is_some();
        Ok(response(GetResponse { value: row.map(|row| row.value).unwrap_or_default(), found }, room))
    }

    async fn set(&self, call: Request<SetRequest>) -> Result<Response<SetResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let set = call.into_inner();
        let version = version(set.version)?;
        let change = Change::Put(NewValue { value: set.value, version });
        Service::write(&gate, set.key, change, version, timeout_ms).await?;
        Ok(Response::new(SetResponse { ok: true }))
    }

    async fn delete(&self, call: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let delete = call.into_inner();
        let version = version(delete.version)?;
        Service::write(&gate, delete.key, Change::Delete { version }, version, timeout_ms).await?;
        Ok(Response::new(DeleteResponse { ok: true }))
    }

    async fn replicate(
        &self,
        call: Request<ReplicateRequest>,
    ) -> Result<Response<ReplicateResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let ReplicateRequest { key, value, version: given, is_delete } = call.into_inner();
        let version = version(given)?;
        let change =
            if is_delete { Change::Delete { version } } else { Change::Put(NewValue { value, version }) };
        let ok = Service::write(&gate, key, change, version, timeout_ms).await?;
        Ok(Response::new(ReplicateResponse { ok }))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn heartbeat(
        &self,
        call: Request<HeartbeatRequest>,
    ) -> Result<Response<HeartbeatResponse>, Status> {
        let (_, term, _) = self.state(&call).await?;
        Ok(Response::new(HeartbeatResponse { term, accepted: false }))
    }

    async fn request_vote(
        &self,
        call: Request<RequestVoteRequest>,
    ) -> Result<Response<RequestVoteResponse>, Status> {
        let (_, term, _) = self.state(&call).await?;
        Ok(Response::new(RequestVoteResponse { term, vote_granted: false }))
    }

    async fn get_cluster_state(
        &self,
        call: Request<GetClusterStateRequest>,
    ) -> Result<Response<GetClusterStateResponse>, Status> {
        let (state, term, leader_id) = self.state(&call).await?;
        let (node_ids, addresses) = state.nodes.into_iter().map(|node| (node.name, node.address)).unzip();
        Ok(Response::new(GetClusterStateResponse { node_ids, addresses, leader_id, term }))
    }
}
