//! Operations and results of the pipelined stream, to requests and from replies, and the other way round.

use ringfort_types::{Code, Failure, NodeId, Outcome, Reply, Request};

use crate::status::{TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS};
use crate::{unary, v1};
use v1::session_op::Request as Asked;
use v1::session_result::Result as Told;

/// What kind of answer an operation wants; put and delete have the same reply but not the same message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpKind {
    /// Wants a `GetResponse`.
    Get,
    /// Wants a `PutResponse`.
    Put,
    /// Wants a `DeleteResponse`.
    Delete,
}

/// The request that an operation makes, and the kind of answer it wants; nothing if it names none.
pub fn request_of(request: Option<Asked>) -> Option<(OpKind, Request)> {
    Some(match request? {
        Asked::Get(get) => (OpKind::Get, get.into()),
        Asked::Put(put) => (OpKind::Put, put.into()),
        Asked::Delete(delete) => (OpKind::Delete, delete.into()),
    })
}

/// The time-out that an operation asks for, as it will be kept.
pub fn timeout_ms(asked: u32) -> u32 {
    if asked == 0 { TIMEOUT_DEFAULT_MS } else { asked.min(TIMEOUT_MAX_MS) }
}

/// The operation for a request; nothing for those that a session does not carry (scans, digests, state).
pub fn op_of(id: u64, timeout_ms: u32, request: Request) -> Option<v1::SessionOp> {
    let request = match request {
        Request::Get { key, consistency } => {
            Asked::Get(v1::GetRequest { key, consistency: unary::consistency(consistency) })
        }
        Request::Put { key, value } => Asked::Put(v1::PutRequest { key, value }),
        Request::Delete { key } => Asked::Delete(v1::DeleteRequest { key }),
        _ => return None,
    };
    Some(v1::SessionOp { id, timeout_ms, request: Some(request) })
}

/// The result that carries a reply.
pub fn result_of(id: u64, kind: OpKind, leader: Option<NodeId>, reply: Reply) -> v1::SessionResult {
    let told = match (kind, reply) {
        (OpKind::Get, Reply::Value { row, at, revision }) => {
            Told::Get(unary::get_response(row, at, revision))
        }
        (OpKind::Put, Reply::Written(receipt)) => {
            Told::Put(v1::PutResponse { receipt: Some(receipt.into()) })
        }
        (OpKind::Delete, Reply::Written(receipt)) => {
            Told::Delete(v1::DeleteResponse { receipt: Some(receipt.into()) })
        }
        (_, Reply::Failed(failure)) => Told::Error(failure.into()),
        _ => Told::Error(
            Failure::unknown(Code::Unavailable, "the node's answer is of another kind than the question")
                .into(),
        ),
    };
    v1::SessionResult { id, leader_node: leader.map_or(0, |node| node.0), result: Some(told) }
}

/// The reply that a result carries, and the node to ask next time.
pub fn reply_of(result: v1::SessionResult) -> (u64, Option<NodeId>, Reply) {
    let reply = match result.result {
        Some(Told::Get(get)) => get.into(),
        Some(Told::Put(put)) => put.into(),
        Some(Told::Delete(delete)) => delete.into(),
        Some(Told::Error(error)) => Reply::Failed(error.into()),
        None => Reply::Failed(Failure::unknown(Code::Unavailable, "the node's answer is empty")),
    };
    (result.id, (result.leader_node != 0).then_some(NodeId(result.leader_node)), reply)
}

impl From<Failure> for v1::Error {
    fn from(failure: Failure) -> v1::Error {
        let code = match failure.code {
            Code::InvalidArgument => v1::ErrorCode::InvalidArgument,
            Code::ResourceExhausted => v1::ErrorCode::ResourceExhausted,
            Code::Unavailable | Code::NotLeader => v1::ErrorCode::Unavailable,
            Code::DeadlineExceeded => v1::ErrorCode::DeadlineExceeded,
            Code::FailedPrecondition => v1::ErrorCode::FailedPrecondition,
            Code::DataLoss => v1::ErrorCode::DataLoss,
            Code::Stopping => v1::ErrorCode::Stopping,
        };
        let outcome = match failure.outcome {
            Outcome::Rejected => v1::Outcome::Rejected,
            Outcome::Unknown => v1::Outcome::Unknown,
        };
        v1::Error { code: code.into(), outcome: outcome.into(), message: failure.message }
    }
}

impl From<v1::Error> for Failure {
    fn from(error: v1::Error) -> Failure {
        let code = match error.code() {
            v1::ErrorCode::InvalidArgument => Code::InvalidArgument,
            v1::ErrorCode::ResourceExhausted => Code::ResourceExhausted,
            v1::ErrorCode::Unavailable | v1::ErrorCode::Unspecified => Code::Unavailable,
            v1::ErrorCode::DeadlineExceeded => Code::DeadlineExceeded,
            v1::ErrorCode::FailedPrecondition => Code::FailedPrecondition,
            v1::ErrorCode::DataLoss => Code::DataLoss,
            v1::ErrorCode::Stopping => Code::Stopping,
        };
        let outcome =
            if error.outcome() == v1::Outcome::Rejected { Outcome::Rejected } else { Outcome::Unknown };
        Failure { outcome, code, message: error.message }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use prost::Message;
    use ringfort_types::{Consistency, Index, Receipt, Revision, ShardId, Term};

    use super::*;

    #[test]
    fn operations_round_trip_through_bytes() {
        let key = Bytes::from_static(b"name");
        let requests = [
            (OpKind::Get, Request::Get { key: key.clone(), consistency: Consistency::Stale }),
            (OpKind::Get, Request::Get { key: key.clone(), consistency: Consistency::Linearizable }),
            (OpKind::Put, Request::Put { key: key.clone(), value: Bytes::from_static(b"Ada") }),
            (OpKind::Delete, Request::Delete { key }),
        ];
        for (kind, request) in requests {
            let op = op_of(5, 250, request.clone()).unwrap();
            let op = v1::SessionOp::decode(Bytes::from(op.encode_to_vec())).unwrap();
            assert_eq!((op.id, timeout_ms(op.timeout_ms)), (5, 250));
            assert_eq!(request_of(op.request), Some((kind, request)));
        }
        assert_eq!(op_of(1, 1, Request::ClusterState), None);
        assert_eq!(request_of(None), None);
        assert_eq!((timeout_ms(0), timeout_ms(u32::MAX)), (TIMEOUT_DEFAULT_MS, TIMEOUT_MAX_MS));
    }

    #[test]
    fn results_round_trip_through_bytes() {
        let receipt =
            Receipt { shard: ShardId(3), term: Term(2), index: Index(9), revision: Revision(8), copies: 2 };
        let replies = [
            (OpKind::Get, Reply::Value { row: None, at: Index(1), revision: Revision(0) }),
            (OpKind::Put, Reply::Written(receipt)),
            (OpKind::Delete, Reply::Written(receipt)),
            (OpKind::Put, Reply::Failed(Failure::unknown(Code::Stopping, "stopping"))),
            (OpKind::Put, Reply::Failed(Failure::rejected(Code::ResourceExhausted, "full"))),
        ];
        for (kind, reply) in replies {
            for leader in [None, Some(NodeId(2))] {
                let result = result_of(77, kind, leader, reply.clone());
                let result = v1::SessionResult::decode(Bytes::from(result.encode_to_vec())).unwrap();
                assert_eq!(reply_of(result), (77, leader, reply.clone()));
            }
        }
    }

    #[test]
    fn an_error_that_says_nothing_is_unknown() {
        assert_eq!(Failure::from(v1::Error::default()).outcome, Outcome::Unknown);
        let (_, _, reply) = reply_of(v1::SessionResult::default());
        assert!(matches!(reply, Reply::Failed(Failure { outcome: Outcome::Unknown, .. })));
    }
}
