//! The services `KV` and `Cluster`: each call is a request to the node, and its reply a message.

use ringfort_proto::v1::cluster_server::Cluster;
use ringfort_proto::v1::kv_server::Kv;
use ringfort_proto::writes;
use ringfort_proto::{status, unary, users, v1};
use ringfort_types::{Call, Failure, Reply};
use tokio_stream::StreamExt;
use tonic::{Response, Status, Streaming};

use super::list;
use super::session::Session;
use crate::doors::authenticated::asked_by;
use crate::doors::frames::{self, Elsewhere};
use crate::doors::held::{self, response};
use crate::gate::{Answer, Gate};

/// Both public services.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) gate: Gate,
}

impl Service {
    /// Asks the node within the call's deadline, and makes the message of the reply.
    async fn call<RequestMessage, ResponseMessage>(
        &self,
        call: tonic::Request<RequestMessage>,
        into_message: impl FnOnce(Reply) -> Result<ResponseMessage, Failure>,
    ) -> Result<Response<ResponseMessage>, Status>
    where
        Call: TryFrom<RequestMessage>,
        Failure: From<<Call as TryFrom<RequestMessage>>::Error>,
    {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), status::timeout_ms(call.metadata()));
        let call =
            Call::try_from(call.into_inner()).map_err(|failure| status::from_failure(failure.into()))?;
        let may_come_twice = call.request.is_write() && call.stamp.is_none();
        let failed = if may_come_twice { status::from_write_failure } else { status::from_failure };
        let Answer { reply, leader, room } = gate.ask(call.within(timeout_ms)).await;
        let mut response = response(into_message(reply).map_err(failed)?, room);
        if let Some(leader) = leader {
            status::insert_leader(response.metadata_mut(), leader);
        }
        Ok(response)
    }
}

#[tonic::async_trait]
impl Kv for Service {
    type ListStream = Elsewhere<v1::ListResponse>;
    type SessionStream = Elsewhere<v1::SessionResponse>;

    async fn get(&self, call: tonic::Request<v1::GetRequest>) -> Result<Response<v1::GetResponse>, Status> {
        self.call(call, unary::into_get).await
    }

    async fn get_many(
        &self,
        call: tonic::Request<v1::GetManyRequest>,
    ) -> Result<Response<v1::GetManyResponse>, Status> {
        self.call(call, unary::into_get_many).await
    }

    async fn put(&self, call: tonic::Request<v1::PutRequest>) -> Result<Response<v1::PutResponse>, Status> {
        self.call(call, writes::into_put).await
    }

    async fn delete(
        &self,
        call: tonic::Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        self.call(call, writes::into_delete).await
    }

    async fn write(
        &self,
        call: tonic::Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        self.call(call, writes::into_write).await
    }

    async fn increment(
        &self,
        call: tonic::Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        self.call(call, writes::into_increment).await
    }

    async fn open_session(
        &self,
        call: tonic::Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.call(call, unary::into_open_session).await
    }

    async fn list(
        &self,
        call: tonic::Request<v1::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let within_ms = status::stream_timeout_ms(call.metadata());
        list::stream(&asked_by(&call, &self.gate), call.into_inner(), within_ms).map_err(status::from_failure)
    }

    async fn session(
        &self,
        call: tonic::Request<Streaming<v1::SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let answers = Session::new(&asked_by(&call, &self.gate), call.into_inner());
        Ok(held::stream(answers.map(|answers| Ok(frames::frame_of(&answers?)))))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_cluster_state(
        &self,
        call: tonic::Request<v1::GetClusterStateRequest>,
    ) -> Result<Response<v1::GetClusterStateResponse>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), status::timeout_ms(call.metadata()));
        let state = gate.cluster(timeout_ms).await.map_err(status::from_failure)?;
        Ok(Response::new(state.into()))
    }

    async fn digest(
        &self,
        call: tonic::Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestResponse>, Status> {
        let told = |reply| Ok(v1::DigestResponse { receipt: Some(unary::into_receipt(reply)?) });
        self.call(call, told).await
    }

    async fn digest_at(
        &self,
        call: tonic::Request<v1::DigestAtRequest>,
    ) -> Result<Response<v1::DigestAtResponse>, Status> {
        self.call(call, unary::into_digest_at).await
    }

    async fn change_layout(
        &self,
        call: tonic::Request<v1::ChangeLayoutRequest>,
    ) -> Result<Response<v1::ChangeLayoutResponse>, Status> {
        let told = |reply| Ok(v1::ChangeLayoutResponse { receipt: Some(unary::into_receipt(reply)?) });
        self.call(call, told).await
    }

    async fn list_users(
        &self,
        call: tonic::Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        self.call(call, users::into_list_users).await
    }

    async fn transfer_leadership(
        &self,
        call: tonic::Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.call(call, unary::into_transfer_leadership).await
    }

    async fn set_log_level(
        &self,
        call: tonic::Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        let gate = asked_by(&call, &self.gate);
        let before = gate.set_log_level(&call.into_inner().filter).await.map_err(status::from_failure)?;
        Ok(Response::new(v1::SetLogLevelResponse { before }))
    }
}
