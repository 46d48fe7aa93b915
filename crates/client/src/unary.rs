//! Single gRPC calls: what one-shot questions use, and any request under [`crate::Transport::Unary`].

use std::time::Instant;

use ringfort_proto::status::{leader, to_failure};
use ringfort_proto::v1;
use ringfort_proto::v1::cluster_client::ClusterClient;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_proto::writes::{WriteMessage, message_of};
use ringfort_types::limits::GRPC_MESSAGE_BYTES_MAX;
use ringfort_types::{Call, Code, Failure, Outcome, Reply, Request};
use tonic::{Response, Status};

use crate::credentials::Authorized;
use crate::link::Connection;
use crate::pending::{Answer, NO_ANSWER};
use ringfort_proto::reason::reason;

/// Makes one call and waits for its answer, not past the deadline.
pub(crate) async fn call(connection: &Connection, call: Call, deadline: Instant) -> Answer {
    let Call { stamp, durability, request, .. } = call;
    let write = request.is_write();
    let channel = &connection.channel;
    let mut kv = kv(channel);
    let cluster = || ClusterClient::new(channel.clone()).max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let told = match request {
        Request::Get { key, consistency } => {
            let consistency = ringfort_proto::unary::consistency(consistency);
            answer(kv.get(timed(v1::GetRequest { key, consistency }, deadline)).await)
        }
        Request::GetMany { keys, consistency } => {
            let consistency = ringfort_proto::unary::consistency(consistency);
            let many = v1::GetManyRequest { keys, consistency, ..v1::GetManyRequest::default() };
            answer(kv.get_many(timed(many, deadline)).await)
        }
        Request::Write { parts } => match message_of(parts, stamp, durability.copies) {
            Err(failure) => return Answer { leader: None, reply: Reply::Failed(failure) },
            Ok(WriteMessage::Put(put)) => answer(kv.put(timed(put, deadline)).await),
            Ok(WriteMessage::Delete(delete)) => answer(kv.delete(timed(delete, deadline)).await),
            Ok(WriteMessage::Increment(increment)) => answer(kv.increment(timed(increment, deadline)).await),
            Ok(WriteMessage::Write(write)) => answer(kv.write(timed(write, deadline)).await),
        },
        Request::OpenSession { shard } => {
            answer(kv.open_session(timed(v1::OpenSessionRequest { shard: shard.0 }, deadline)).await)
        }
        Request::Digest { shard } => {
            answer(cluster().digest(timed(v1::DigestRequest { shard: shard.0 }, deadline)).await)
        }
        Request::ChangeLayout(change) => {
            let Some(request) = ringfort_proto::unary::change_layout(&change) else {
                let failure = Failure::rejected(Code::InvalidArgument, "only nodes ask for that");
                return Answer { leader: None, reply: Reply::Failed(failure) };
            };
            answer(cluster().change_layout(timed(request, deadline)).await)
        }
        Request::Transfer { shard, to } => {
            let request = v1::TransferLeadershipRequest { shard: shard.0, node: to.0 };
            answer(cluster().transfer_leadership(timed(request, deadline)).await)
        }
        Request::DigestAt { node, shard, index } => {
            let request = v1::DigestAtRequest { node: node.0, shard: shard.0, index: index.0 };
            answer(cluster().digest_at(timed(request, deadline)).await)
        }
        Request::ClusterState => {
            let told = cluster().get_cluster_state(timed(v1::GetClusterStateRequest {}, deadline)).await;
            told.map(|response| Answer {
                leader: None,
                reply: Reply::Cluster(Box::new(response.into_inner().into())),
            })
        }
        Request::Users => answer(cluster().list_users(timed(v1::ListUsersRequest {}, deadline)).await),
        Request::Scan(_) => {
            let why = "scans are made by the nodes: use list";
            return Answer {
                leader: None,
                reply: Reply::Failed(Failure::rejected(Code::InvalidArgument, why)),
            };
        }
    };
    told.unwrap_or_else(|status| {
        let failure = failure(&status, write);
        // A status with a cause was made here, not by the node.
        if std::error::Error::source(&status).is_some() && failure.code != Code::DeadlineExceeded {
            connection.give_up();
        }
        Answer { leader: None, reply: Reply::Failed(failure) }
    })
}

/// A client of the `KV` service over this connection.
pub(crate) fn kv(channel: &Authorized) -> KvClient<Authorized> {
    KvClient::new(channel.clone())
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
}

/// What a failed call means for its request.
pub(crate) fn failure(status: &Status, write: bool) -> Failure {
    let mut failure = to_failure(status);
    let Some(source) = std::error::Error::source(status) else { return failure };
    failure.message = if failure.code == Code::DeadlineExceeded { NO_ANSWER.into() } else { reason(source) };
    if !write {
        failure.outcome = Outcome::Rejected;
    }
    failure
}

fn timed<T>(message: T, deadline: Instant) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(deadline.saturating_duration_since(Instant::now()));
    request
}

fn answer<T: Into<Reply>>(told: Result<Response<T>, Status>) -> Result<Answer, Status> {
    told.map(|response| Answer { leader: leader(response.metadata()), reply: response.into_inner().into() })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::credentials::Authorization;

    /// Whether there is a frame of HTTP/2 with a call's message (`DATA`) among these, behind the preface.
    fn has_call(said: &[u8]) -> bool {
        let mut frames = said.get(24..).unwrap_or_default();
        while let [a, b, c, kind, _flags, _, _, _, _, rest @ ..] = frames {
            if *kind == 0 {
                return true;
            }
            frames = rest.get(u32::from_be_bytes([0, *a, *b, *c]) as usize..).unwrap_or_default();
        }
        false
    }

    #[tokio::test]
    async fn of_a_cut_connection_it_is_said_that_it_broke() {
        let settings: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
        let half_a_frame: &[u8] = &[0, 0, 99, 1, 4, 0, 0];
        for last in [b"", half_a_frame] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let call = tokio::spawn(async move {
                let channel = Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
                kv(&Authorized::new(channel, &Authorization::default()))
                    .get(ringfort_proto::v1::GetRequest::default())
                    .await
            });
            let (mut socket, _) = listener.accept().await.unwrap();
            socket.write_all(settings).await.unwrap();
            let mut said = Vec::new();
            while !has_call(&said) {
                assert!(socket.read_buf(&mut said).await.unwrap() > 0);
            }
            socket.write_all(last).await.unwrap();
            // Not before all that was said is read, since the system would reset the connection then.
            socket.shutdown().await.unwrap();
            socket.read_to_end(&mut said).await.unwrap();
            let failure = failure(&call.await.unwrap().unwrap_err(), true);
            assert_eq!(failure.message, "the connection broke", "{last:?}");
            assert_eq!(failure.outcome, Outcome::Unknown);
        }
    }
}
