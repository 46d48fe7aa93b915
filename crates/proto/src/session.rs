//! Operations and results of the pipelined stream, to requests and from replies, and the other way round.

use ringfort_types::limits::{CALL_TIMEOUT_DEFAULT_MS, CALL_TIMEOUT_MAX_MS};
use ringfort_types::{Call, Code, Failure, NodeId, Outcome, Reply, Request};

use crate::writes::{self, WriteMessage};
use crate::{unary, v1};
use v1::session_op::Request as OpRequest;
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
    /// Wants a `WriteResponse`.
    Write,
    /// Wants an `IncrementResponse`.
    Increment,
    /// Wants a `GetManyResponse`.
    GetMany,
    /// Wants an `OpenSessionResponse`.
    OpenSession,
}

/// The call that an operation makes, and the kind of answer it wants. An operation without a request is refused.
pub fn call_of(request: Option<OpRequest>, timeout_ms: u32) -> Result<(OpKind, Call), Failure> {
    let timeout_ms =
        if timeout_ms == 0 { CALL_TIMEOUT_DEFAULT_MS } else { timeout_ms.min(CALL_TIMEOUT_MAX_MS) };
    let (kind, call): (_, Call) = match request {
        Some(OpRequest::Get(get)) => (OpKind::Get, get.try_into()?),
        Some(OpRequest::Put(put)) => (OpKind::Put, put.try_into()?),
        Some(OpRequest::Delete(delete)) => (OpKind::Delete, delete.try_into()?),
        Some(OpRequest::Write(write)) => (OpKind::Write, write.try_into()?),
        Some(OpRequest::Increment(increment)) => (OpKind::Increment, increment.into()),
        Some(OpRequest::GetMany(many)) => (OpKind::GetMany, many.try_into()?),
        Some(OpRequest::OpenSession(open)) => (OpKind::OpenSession, open.into()),
        None => {
            return Err(Failure::rejected(
                Code::InvalidArgument,
                "an operation without a request: set get, put, delete, write, increment, get_many or open_session",
            ));
        }
    };
    Ok((kind, call.within(timeout_ms)))
}

/// Whether a session carries such requests; it does not carry scans, digests and state.
pub fn carries(request: &Request) -> bool {
    !matches!(
        request,
        Request::Scan(_)
            | Request::Digest { .. }
            | Request::DigestAt { .. }
            | Request::ClusterState
            | Request::Users
            | Request::ChangeLayout(_)
            | Request::Transfer { .. }
    )
}

/// The operation for a call. Refuses what a session does not [carry](carries), and what the protocol can't say.
pub fn op_of(id: u64, call: Call) -> Result<v1::SessionOp, Failure> {
    let timeout_ms = call.timeout_ms;
    let request = match call.request {
        Request::Get { key, consistency } => {
            OpRequest::Get(v1::GetRequest { key, consistency: unary::consistency(consistency) })
        }
        Request::GetMany { keys, consistency } => OpRequest::GetMany(v1::GetManyRequest {
            keys,
            consistency: unary::consistency(consistency),
            surplus: 0,
        }),
        Request::Write { parts } => match writes::message_of(parts, call.stamp, call.durability.copies)? {
            WriteMessage::Put(put) => OpRequest::Put(put),
            WriteMessage::Delete(delete) => OpRequest::Delete(delete),
            WriteMessage::Increment(increment) => OpRequest::Increment(increment),
            WriteMessage::Write(write) => OpRequest::Write(write),
        },
        Request::OpenSession { shard } => OpRequest::OpenSession(v1::OpenSessionRequest { shard: shard.0 }),
        _ => {
            let why = "a session carries reads and writes of keys only: make a call of its own for this";
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
    };
    Ok(v1::SessionOp { id, timeout_ms, request: Some(request) })
}

/// The result that carries a reply.
pub fn result_of(id: u64, kind: OpKind, leader: Option<NodeId>, reply: Reply) -> v1::SessionResult {
    let told = match kind {
        OpKind::Get => unary::into_get(reply).map(Told::Get),
        OpKind::Put => writes::into_put(reply).map(Told::Put),
        OpKind::Delete => writes::into_delete(reply).map(Told::Delete),
        OpKind::Write => writes::into_write(reply).map(Told::Write),
        OpKind::Increment => writes::into_increment(reply).map(Told::Increment),
        OpKind::GetMany => unary::into_get_many(reply).map(Told::GetMany),
        OpKind::OpenSession => unary::into_open_session(reply).map(Told::OpenSession),
    };
    let told = told.unwrap_or_else(|failure| Told::Error(failure.into()));
    v1::SessionResult { id, leader_node: leader.map_or(0, |node| node.0), result: Some(told) }
}

/// The reply that a result carries, and the node to ask next time.
pub fn reply_of(result: v1::SessionResult) -> (u64, Option<NodeId>, Reply) {
    let reply = match result.result {
        Some(Told::Get(get)) => get.into(),
        Some(Told::Put(put)) => put.into(),
        Some(Told::Delete(delete)) => delete.into(),
        Some(Told::Write(write)) => write.into(),
        Some(Told::Increment(increment)) => increment.into(),
        Some(Told::GetMany(many)) => many.into(),
        Some(Told::OpenSession(opened)) => opened.into(),
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
            Code::SessionExpired => v1::ErrorCode::SessionExpired,
            Code::SessionGap => v1::ErrorCode::SessionGap,
            Code::OutOfRange => v1::ErrorCode::OutOfRange,
            Code::Unauthenticated => v1::ErrorCode::Unauthenticated,
            Code::PermissionDenied => v1::ErrorCode::PermissionDenied,
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
            v1::ErrorCode::SessionExpired => Code::SessionExpired,
            v1::ErrorCode::SessionGap => Code::SessionGap,
            v1::ErrorCode::OutOfRange => Code::OutOfRange,
            v1::ErrorCode::Unauthenticated => Code::Unauthenticated,
            v1::ErrorCode::PermissionDenied => Code::PermissionDenied,
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
    use ringfort_types::{
        Change, Condition, Consistency, Copies, HybridClock, Index, Part, Receipt, Revision, ShardId, Stamp,
        Term,
    };

    use super::*;

    #[test]
    fn operations_round_trip_through_bytes() {
        let key = Bytes::from_static(b"name");
        let part = Part { key: key.clone(), condition: Some(Condition::Absent), change: Change::Keep };
        let stamp = Stamp { client: 1, sequence: 2, prev: 1, floor: 0, opened: HybridClock(3) };
        let requests = [
            (OpKind::Get, Request::Get { key: key.clone(), consistency: Consistency::Stale }),
            (OpKind::Get, Request::Get { key: key.clone(), consistency: Consistency::Linearizable }),
            (OpKind::Put, Request::put(key.clone(), "Ada")),
            (OpKind::Delete, Request::delete(key.clone())),
            (OpKind::Write, Request::Write { parts: vec![part] }),
            (OpKind::Increment, Request::increment(key.clone(), i64::MIN)),
            (OpKind::GetMany, Request::GetMany { keys: vec![key], consistency: Consistency::Stale }),
            (OpKind::OpenSession, Request::OpenSession { shard: ShardId(7) }),
        ];
        for (kind, request) in requests {
            assert!(carries(&request));
            let mut call = Call::from(request).within(250);
            if call.request.takes_stamp() {
                (call.stamp, call.durability) = (Some(stamp), Copies::AtLeast(2).into());
            }
            let op = op_of(5, call.clone()).unwrap();
            let op = v1::SessionOp::decode(Bytes::from(op.encode_to_vec())).unwrap();
            assert_eq!(op.id, 5);
            assert_eq!(call_of(op.request, op.timeout_ms), Ok((kind, call)));
        }
        assert!(!carries(&Request::ClusterState) && !carries(&Request::Users));
        assert!(op_of(1, Request::ClusterState.into()).is_err());
        assert_eq!(call_of(None, 1).unwrap_err().code, Code::InvalidArgument);
        let get = || Some(OpRequest::Get(v1::GetRequest { key: Bytes::from_static(b"k"), consistency: 0 }));
        let kept = |asked| call_of(get(), asked).unwrap().1.timeout_ms;
        assert_eq!((kept(0), kept(u32::MAX)), (CALL_TIMEOUT_DEFAULT_MS, CALL_TIMEOUT_MAX_MS));
    }

    #[test]
    fn results_round_trip_through_bytes() {
        let receipt = Receipt {
            shard: ShardId(3),
            term: Term(2),
            index: Index(9),
            revision: Revision(8),
            copies: 2,
            ..Receipt::default()
        };
        let key = Bytes::from_static(b"name");
        let not_met = Reply::NotMet { part: 1, key, revision: Some(Revision(4)), at: Index(9) };
        let replies = [
            (OpKind::Get, Reply::Value { row: None, at: Index(1), revision: Revision(0) }),
            (OpKind::Put, Reply::Written(receipt.clone())),
            (OpKind::Delete, Reply::Written(receipt.clone())),
            (OpKind::Write, Reply::Written(receipt.clone())),
            (OpKind::Write, not_met.clone()),
            (OpKind::Put, not_met),
            (OpKind::Increment, Reply::Written(Receipt { sums: vec![-3], ..receipt })),
            (OpKind::GetMany, Reply::Values { rows: vec![None], at: Index(1), revision: Revision(0) }),
            (OpKind::OpenSession, Reply::Opened { clock: HybridClock(9) }),
            (OpKind::Increment, Reply::Failed(Failure::rejected(Code::OutOfRange, "too large"))),
            (OpKind::Write, Reply::Failed(Failure::rejected(Code::SessionExpired, "gone"))),
            (OpKind::Put, Reply::Failed(Failure::rejected(Code::SessionGap, "resend in order"))),
            (OpKind::Put, Reply::Failed(Failure::unknown(Code::Stopping, "stopping"))),
            (OpKind::Put, Reply::Failed(Failure::rejected(Code::ResourceExhausted, "full"))),
            (OpKind::Get, Reply::Failed(Failure::rejected(Code::Unauthenticated, "who?"))),
            (OpKind::Put, Reply::Failed(Failure::rejected(Code::PermissionDenied, "no"))),
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
