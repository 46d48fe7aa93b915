//! Conditions, parts of atomic writes, and stamps.

use ringfort_types::{
    Change, Code, Condition, Failure, HybridClock, Index, Part, Receipt, Reply, Request, Revision, Stamp,
};

use crate::v1;
use v1::condition::Must;
use v1::write_part::Change as Changes;

/// A request, and its place in its client's session if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its place in a session.
    pub stamp: Option<Stamp>,
    /// How many replicas are to have it on disk before it is acknowledged; 0 for a majority.
    pub copies: u32,
    /// The request.
    pub request: Request,
}

impl From<Request> for Call {
    fn from(request: Request) -> Call {
        Call { stamp: None, copies: 0, request }
    }
}

impl From<v1::SessionStamp> for Stamp {
    fn from(stamp: v1::SessionStamp) -> Stamp {
        Stamp {
            client: u128::from(stamp.client_high) << 64 | u128::from(stamp.client_low),
            sequence: stamp.sequence,
            prev: stamp.prev,
            floor: stamp.floor,
            opened: HybridClock(stamp.opened),
        }
    }
}

impl From<Stamp> for v1::SessionStamp {
    fn from(stamp: Stamp) -> v1::SessionStamp {
        v1::SessionStamp {
            client_high: (stamp.client >> 64) as u64,
            client_low: stamp.client as u64,
            sequence: stamp.sequence,
            prev: stamp.prev,
            floor: stamp.floor,
            opened: stamp.opened.0,
        }
    }
}

impl TryFrom<v1::Condition> for Condition {
    type Error = Failure;

    fn try_from(condition: v1::Condition) -> Result<Condition, Failure> {
        Ok(match condition.must {
            Some(Must::Present(true)) => Condition::Present,
            Some(Must::Present(false)) => Condition::Absent,
            Some(Must::Revision(revision)) => Condition::Revision(Revision(revision)),
            Some(Must::Value(value)) => Condition::Value(value),
            None => {
                let why = "a condition that says nothing: set present, revision or value, or leave the condition out";
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
        })
    }
}

impl From<Condition> for v1::Condition {
    fn from(condition: Condition) -> v1::Condition {
        let must = match condition {
            Condition::Present => Must::Present(true),
            Condition::Absent => Must::Present(false),
            Condition::Revision(revision) => Must::Revision(revision.0),
            Condition::Value(value) => Must::Value(value),
        };
        v1::Condition { must: Some(must) }
    }
}

impl TryFrom<v1::WritePart> for Part {
    type Error = Failure;

    fn try_from(part: v1::WritePart) -> Result<Part, Failure> {
        let change = match part.change {
            Some(Changes::Put(value)) => Change::Put(value),
            Some(Changes::Delete(true)) => Change::Delete,
            Some(Changes::Delete(false)) => {
                let why = "a part with delete = false: set it to true, or leave it out to let the key be";
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
            None => Change::Keep,
        };
        Ok(Part { key: part.key, condition: part.condition.map(TryInto::try_into).transpose()?, change })
    }
}

impl From<Part> for v1::WritePart {
    fn from(part: Part) -> v1::WritePart {
        let change = match part.change {
            Change::Put(value) => Some(Changes::Put(value)),
            Change::Delete => Some(Changes::Delete(true)),
            Change::Keep => None,
        };
        v1::WritePart { key: part.key, condition: part.condition.map(Into::into), change }
    }
}

impl TryFrom<v1::PutRequest> for Call {
    type Error = Failure;

    fn try_from(put: v1::PutRequest) -> Result<Call, Failure> {
        let v1::PutRequest { key, value, stamp, condition, copies } = put;
        let request = match condition {
            None => Request::Put { key, value },
            Some(condition) => single(key, condition, Change::Put(value))?,
        };
        Ok(Call { stamp: stamp.map(Into::into), copies, request })
    }
}

impl TryFrom<v1::DeleteRequest> for Call {
    type Error = Failure;

    fn try_from(delete: v1::DeleteRequest) -> Result<Call, Failure> {
        let v1::DeleteRequest { key, stamp, condition, copies } = delete;
        let request = match condition {
            None => Request::Delete { key },
            Some(condition) => single(key, condition, Change::Delete)?,
        };
        Ok(Call { stamp: stamp.map(Into::into), copies, request })
    }
}

fn single(key: bytes::Bytes, condition: v1::Condition, change: Change) -> Result<Request, Failure> {
    let condition = Some(condition.try_into()?);
    Ok(Request::Write { parts: vec![Part { key, condition, change }] })
}

impl TryFrom<v1::WriteRequest> for Call {
    type Error = Failure;

    fn try_from(write: v1::WriteRequest) -> Result<Call, Failure> {
        let parts = write.parts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        let (stamp, copies) = (write.stamp.map(Into::into), write.copies);
        Ok(Call { stamp, copies, request: Request::Write { parts } })
    }
}

impl From<v1::IncrementRequest> for Call {
    fn from(increment: v1::IncrementRequest) -> Call {
        let v1::IncrementRequest { key, by, stamp, copies } = increment;
        Call { stamp: stamp.map(Into::into), copies, request: Request::Increment { key, by } }
    }
}

/// What answers a write that may have conditions: a receipt, or what was not met.
pub fn into_decision(reply: Reply) -> Result<(Option<v1::Receipt>, Option<v1::NotMet>), Failure> {
    match reply {
        Reply::Written(receipt) => Ok((Some(receipt.into()), None)),
        Reply::NotMet { part, key, revision, at } => {
            let revision = revision.map(|revision| revision.0);
            Ok((None, Some(v1::NotMet { part, key, revision, index: at.0 })))
        }
        other => Err(crate::unary::mismatched(other)),
    }
}

/// The reply that the answer to a write makes.
pub(crate) fn decision(receipt: Option<v1::Receipt>, not_met: Option<v1::NotMet>) -> Reply {
    match not_met {
        Some(v1::NotMet { part, key, revision, index }) => {
            Reply::NotMet { part, key, revision: revision.map(Revision), at: Index(index) }
        }
        None => Reply::Written(receipt.unwrap_or_default().into()),
    }
}

impl From<v1::PutResponse> for Reply {
    fn from(put: v1::PutResponse) -> Reply {
        decision(put.receipt, put.not_met)
    }
}

impl From<v1::DeleteResponse> for Reply {
    fn from(delete: v1::DeleteResponse) -> Reply {
        decision(delete.receipt, delete.not_met)
    }
}

impl From<v1::WriteResponse> for Reply {
    fn from(write: v1::WriteResponse) -> Reply {
        decision(write.receipt, write.not_met)
    }
}

impl From<v1::IncrementResponse> for Reply {
    fn from(increment: v1::IncrementResponse) -> Reply {
        let receipt: Receipt = increment.receipt.unwrap_or_default().into();
        Reply::Counted { value: increment.value, receipt }
    }
}

/// The message that answers `Put`.
pub fn into_put(reply: Reply) -> Result<v1::PutResponse, Failure> {
    into_decision(reply).map(|(receipt, not_met)| v1::PutResponse { receipt, not_met })
}

/// The message that answers `Delete`.
pub fn into_delete(reply: Reply) -> Result<v1::DeleteResponse, Failure> {
    into_decision(reply).map(|(receipt, not_met)| v1::DeleteResponse { receipt, not_met })
}

/// The message that answers `Write`.
pub fn into_write(reply: Reply) -> Result<v1::WriteResponse, Failure> {
    into_decision(reply).map(|(receipt, not_met)| v1::WriteResponse { receipt, not_met })
}

/// The message that answers `Increment`.
pub fn into_increment(reply: Reply) -> Result<v1::IncrementResponse, Failure> {
    match reply {
        Reply::Counted { value, receipt } => {
            Ok(v1::IncrementResponse { value, receipt: Some(receipt.into()) })
        }
        other => Err(crate::unary::mismatched(other)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const STAMP: Stamp =
        Stamp { client: 5 << 64 | 6, sequence: 4, prev: 3, floor: 2, opened: HybridClock(u64::MAX) };

    #[test]
    fn writes_with_conditions_and_stamps_round_trip() {
        let key = Bytes::from_static(b"k");
        let conditions = [
            None,
            Some(Condition::Absent),
            Some(Condition::Present),
            Some(Condition::Revision(Revision(3))),
            Some(Condition::Value(Bytes::new())),
        ];
        for condition in conditions {
            for change in [Change::Put(Bytes::new()), Change::Delete, Change::Keep] {
                let part = Part { key: key.clone(), condition: condition.clone(), change };
                assert_eq!(Part::try_from(v1::WritePart::from(part.clone())), Ok(part));
            }
        }
        assert_eq!(Stamp::from(v1::SessionStamp::from(STAMP)), STAMP);
    }

    #[test]
    fn a_single_write_with_a_condition_is_an_atomic_write_of_one_part() {
        let key = Bytes::from_static(b"k");
        let condition = Some(v1::Condition::from(Condition::Absent));
        let put = v1::PutRequest {
            key: key.clone(),
            value: Bytes::from_static(b"v"),
            stamp: Some(STAMP.into()),
            copies: 3,
            condition: condition.clone(),
        };
        let part = |change| Part { key: key.clone(), condition: Some(Condition::Absent), change };
        let call = Call::try_from(put.clone()).unwrap();
        let parts = vec![part(Change::Put(Bytes::from_static(b"v")))];
        assert_eq!(call, Call { stamp: Some(STAMP), copies: 3, request: Request::Write { parts } });
        let delete = v1::DeleteRequest { key: key.clone(), stamp: None, copies: 0, condition };
        let call = Call::try_from(delete).unwrap();
        assert_eq!(call, Request::Write { parts: vec![part(Change::Delete)] }.into());
        let plain = Call::try_from(v1::PutRequest { condition: None, ..put }).unwrap();
        assert_eq!(plain.request, Request::Put { key, value: Bytes::from_static(b"v") });
        assert_eq!(plain.stamp, Some(STAMP));
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let empty = Some(v1::Condition { must: None });
        let put = v1::PutRequest { condition: empty.clone(), ..v1::PutRequest::default() };
        assert_eq!(Call::try_from(put).unwrap_err().code, Code::InvalidArgument);
        let part = v1::WritePart { condition: empty, ..v1::WritePart::default() };
        let write = v1::WriteRequest { parts: vec![part], stamp: None, copies: 0 };
        assert_eq!(Call::try_from(write).unwrap_err().code, Code::InvalidArgument);
        let part = v1::WritePart { change: Some(Changes::Delete(false)), ..v1::WritePart::default() };
        assert_eq!(Part::try_from(part).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn answers_round_trip() {
        let receipt = Receipt { revision: Revision(8), copies: 2, ..Receipt::default() };
        let key = Bytes::from_static(b"k");
        let not_met = |revision| Reply::NotMet { part: 3, key: key.clone(), revision, at: Index(7) };
        for reply in [Reply::Written(receipt), not_met(None), not_met(Some(Revision(2)))] {
            assert_eq!(Reply::from(into_put(reply.clone()).unwrap()), reply);
            assert_eq!(Reply::from(into_delete(reply.clone()).unwrap()), reply);
            assert_eq!(Reply::from(into_write(reply.clone()).unwrap()), reply);
        }
        let counted = Reply::Counted { value: i64::MIN, receipt };
        assert_eq!(Reply::from(into_increment(counted.clone()).unwrap()), counted);
        assert!(into_write(counted).is_err());
    }
}
