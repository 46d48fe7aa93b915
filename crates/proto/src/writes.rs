//! Conditions, parts of atomic writes, and stamps.

use ringfort_types::limits::WRITE_PARTS_MAX;
use ringfort_types::{
    Call, Change, Code, Condition, Copies, Failure, HybridClock, Index, NewValue, Part, Receipt, Reply,
    Request, Revision, Stamp,
};

use crate::v1;
use v1::condition::Must;
use v1::write_part::Change as Changes;

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

/// Versions are not of this protocol.
impl TryFrom<Condition> for v1::Condition {
    type Error = Failure;

    fn try_from(condition: Condition) -> Result<v1::Condition, Failure> {
        let must = match condition {
            Condition::Present => Must::Present(true),
            Condition::Absent => Must::Present(false),
            Condition::Revision(revision) => Must::Revision(revision.0),
            Condition::Value(value) => Must::Value(value),
            Condition::NotNewerThan(_) => return Err(no_versions()),
        };
        Ok(v1::Condition { must: Some(must) })
    }
}

fn no_versions() -> Failure {
    let why = "ringfort.v1 has no versions of its callers': use revisions, or the package kv";
    Failure::rejected(Code::InvalidArgument, why)
}

impl TryFrom<v1::WritePart> for Part {
    type Error = Failure;

    fn try_from(part: v1::WritePart) -> Result<Part, Failure> {
        let change = match part.change {
            Some(Changes::Put(value)) => Change::put(value),
            Some(Changes::Delete(true)) => Change::DELETE,
            Some(Changes::Add(by)) => Change::Add(by),
            Some(Changes::Delete(false)) => {
                let why = "a part with delete = false: set it to true, or leave it out to let the key be";
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
            None => Change::Keep,
        };
        Ok(Part { key: part.key, condition: part.condition.map(TryInto::try_into).transpose()?, change })
    }
}

impl TryFrom<Part> for v1::WritePart {
    type Error = Failure;

    fn try_from(part: Part) -> Result<v1::WritePart, Failure> {
        let change = match part.change {
            Change::Put(NewValue { value, version: None }) => Some(Changes::Put(value)),
            Change::Delete { version: None } => Some(Changes::Delete(true)),
            Change::Add(by) => Some(Changes::Add(by)),
            Change::Keep => None,
            Change::Put(_) | Change::Delete { .. } => return Err(no_versions()),
        };
        let condition = part.condition.map(TryInto::try_into).transpose()?;
        Ok(v1::WritePart { key: part.key, condition, change })
    }
}

impl TryFrom<v1::PutRequest> for Call {
    type Error = Failure;

    fn try_from(put: v1::PutRequest) -> Result<Call, Failure> {
        let v1::PutRequest { key, value, stamp, condition, copies } = put;
        let condition = condition.map(TryInto::try_into).transpose()?;
        Ok(call(vec![Part { key, condition, change: Change::put(value) }], stamp, copies))
    }
}

impl TryFrom<v1::DeleteRequest> for Call {
    type Error = Failure;

    fn try_from(delete: v1::DeleteRequest) -> Result<Call, Failure> {
        let v1::DeleteRequest { key, stamp, condition, copies } = delete;
        let condition = condition.map(TryInto::try_into).transpose()?;
        Ok(call(vec![Part { key, condition, change: Change::DELETE }], stamp, copies))
    }
}

impl TryFrom<v1::WriteRequest> for Call {
    type Error = Failure;

    fn try_from(write: v1::WriteRequest) -> Result<Call, Failure> {
        if write.surplus > 0 {
            let count = write.parts.len() + write.surplus;
            let why = format!("{count} parts in one atomic write: the limit is {WRITE_PARTS_MAX}");
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        let parts = write.parts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        Ok(call(parts, write.stamp, write.copies))
    }
}

impl From<v1::IncrementRequest> for Call {
    fn from(increment: v1::IncrementRequest) -> Call {
        let v1::IncrementRequest { key, by, stamp, copies } = increment;
        call(vec![Part::new(key, Change::Add(by))], stamp, copies)
    }
}

fn call(parts: Vec<Part>, stamp: Option<v1::SessionStamp>, copies: u32) -> Call {
    let durability = Copies::from(copies).into();
    Call { stamp: stamp.map(Into::into), durability, ..Request::Write { parts }.into() }
}

/// The message that a write travels in: the plainest that says all of it. A single increment must be one, since its answer
/// is another.
#[derive(Clone, Debug, PartialEq)]
pub enum WriteMessage {
    /// A put of one key.
    Put(v1::PutRequest),
    /// A delete of one key.
    Delete(v1::DeleteRequest),
    /// An increment of one key.
    Increment(v1::IncrementRequest),
    /// Anything else.
    Write(v1::WriteRequest),
}

/// The message for a write of these parts.
pub fn message_of(
    mut parts: Vec<Part>,
    stamp: Option<Stamp>,
    copies: Copies,
) -> Result<WriteMessage, Failure> {
    let stamp = stamp.map(Into::into);
    let copies = match copies {
        Copies::Majority => 0,
        Copies::AtLeast(copies) => copies,
        Copies::All => {
            let why = "ringfort.v1 can't ask for all copies: name a number";
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
    };
    if parts.len() != 1 {
        let parts = parts.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
        return Ok(WriteMessage::Write(v1::WriteRequest { parts, stamp, copies, surplus: 0 }));
    }
    let v1::WritePart { key, condition, change } = parts.remove(0).try_into()?;
    Ok(match change {
        Some(Changes::Put(value)) => {
            WriteMessage::Put(v1::PutRequest { key, value, stamp, condition, copies })
        }
        Some(Changes::Delete(_)) => WriteMessage::Delete(v1::DeleteRequest { key, stamp, condition, copies }),
        Some(Changes::Add(by)) if condition.is_none() => {
            WriteMessage::Increment(v1::IncrementRequest { key, by, stamp, copies })
        }
        change => {
            let parts = vec![v1::WritePart { key, condition, change }];
            WriteMessage::Write(v1::WriteRequest { parts, stamp, copies, surplus: 0 })
        }
    })
}

/// What answers a write that may have conditions: a receipt, or what was not met.
pub fn into_decision(reply: Reply) -> Result<(Option<v1::Receipt>, Option<v1::NotMet>), Failure> {
    match reply {
        Reply::Written(receipt) => Ok((Some(receipt.into()), None)),
        Reply::NotMet { part, key, revision, at } => {
            let revision = revision.map(|revision| revision.0);
            Ok((None, Some(v1::NotMet { part, key, revision, index: at.0 })))
        }
        other => Err(other.into_failure()),
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
        let mut reply = decision(write.receipt, write.not_met);
        if let Some(receipt) = reply.receipt_mut() {
            receipt.sums = write.sums;
        }
        reply
    }
}

impl From<v1::IncrementResponse> for Reply {
    fn from(increment: v1::IncrementResponse) -> Reply {
        let receipt: Receipt = increment.receipt.unwrap_or_default().into();
        Reply::Written(Receipt { sums: vec![increment.value], ..receipt })
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
pub fn into_write(mut reply: Reply) -> Result<v1::WriteResponse, Failure> {
    let sums = reply.receipt_mut().map_or_else(Vec::new, |receipt| std::mem::take(&mut receipt.sums));
    into_decision(reply).map(|(receipt, not_met)| v1::WriteResponse { receipt, not_met, sums })
}

/// The message that answers `Increment`.
pub fn into_increment(reply: Reply) -> Result<v1::IncrementResponse, Failure> {
    match reply {
        Reply::Written(receipt) if receipt.sums.len() == 1 => {
            Ok(v1::IncrementResponse { value: receipt.sums[0], receipt: Some(receipt.into()) })
        }
        other => Err(other.into_failure()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_types::NodeId;

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
            for change in [Change::put(Bytes::new()), Change::DELETE, Change::Add(-1), Change::Keep] {
                let part = Part { key: key.clone(), condition: condition.clone(), change };
                let sent = v1::WritePart::try_from(part.clone()).unwrap();
                assert_eq!(Part::try_from(sent), Ok(part));
            }
        }
        assert_eq!(Stamp::from(v1::SessionStamp::from(STAMP)), STAMP);
    }

    #[test]
    fn a_put_a_delete_and_an_increment_are_writes_of_one_part() {
        let key = Bytes::from_static(b"k");
        for condition in [None, Some(Condition::Absent)] {
            for change in [Change::put("v"), Change::DELETE, Change::Add(3), Change::Keep] {
                let parts = vec![Part { key: key.clone(), condition: condition.clone(), change }];
                let message = message_of(parts.clone(), Some(STAMP), Copies::AtLeast(3)).unwrap();
                let call = match message {
                    WriteMessage::Put(put) => Call::try_from(put).unwrap(),
                    WriteMessage::Delete(delete) => Call::try_from(delete).unwrap(),
                    WriteMessage::Increment(increment) => increment.into(),
                    WriteMessage::Write(write) => Call::try_from(write).unwrap(),
                };
                assert_eq!(call.request, Request::Write { parts });
                assert_eq!((call.stamp, call.durability.copies), (Some(STAMP), Copies::AtLeast(3)));
            }
        }
    }

    #[test]
    fn what_the_protocol_cannot_say_is_refused() {
        let version = Some(ringfort_types::Version(3));
        for part in [
            Part::new("k", Change::Delete { version }),
            Part::new("k", Change::Put(NewValue { value: Bytes::new(), version })),
            Part { condition: version.map(Condition::NotNewerThan), ..Part::new("k", Change::DELETE) },
        ] {
            assert!(message_of(vec![part], None, Copies::Majority).is_err());
        }
        assert!(message_of(vec![Part::new("k", Change::DELETE)], None, Copies::All).is_err());
    }

    #[test]
    fn what_says_nothing_is_refused() {
        let empty = Some(v1::Condition { must: None });
        let put = v1::PutRequest { condition: empty.clone(), ..v1::PutRequest::default() };
        assert_eq!(Call::try_from(put).unwrap_err().code, Code::InvalidArgument);
        let part = v1::WritePart { condition: empty, ..v1::WritePart::default() };
        let write = v1::WriteRequest { parts: vec![part], ..v1::WriteRequest::default() };
        assert_eq!(Call::try_from(write).unwrap_err().code, Code::InvalidArgument);
        let part = v1::WritePart { change: Some(Changes::Delete(false)), ..v1::WritePart::default() };
        assert_eq!(Part::try_from(part).unwrap_err().code, Code::InvalidArgument);
    }

    #[test]
    fn answers_round_trip() {
        let receipt = Receipt { revision: Revision(8), copies: 2, ..Receipt::default() };
        let key = Bytes::from_static(b"k");
        let not_met = |revision| Reply::NotMet { part: 3, key: key.clone(), revision, at: Index(7) };
        for reply in [Reply::Written(receipt.clone()), not_met(None), not_met(Some(Revision(2)))] {
            assert_eq!(Reply::from(into_put(reply.clone()).unwrap()), reply);
            assert_eq!(Reply::from(into_delete(reply.clone()).unwrap()), reply);
            assert_eq!(Reply::from(into_write(reply.clone()).unwrap()), reply);
        }
        let counted = Reply::Written(Receipt { sums: vec![i64::MIN], ..receipt.clone() });
        assert_eq!(Reply::from(into_increment(counted.clone()).unwrap()), counted);
        let summed = Reply::Written(Receipt { sums: vec![1, -2], lacking: vec![NodeId(3)], ..receipt });
        assert_eq!(Reply::from(into_write(summed.clone()).unwrap()), summed);
        assert!(into_increment(summed).is_err());
    }
}
