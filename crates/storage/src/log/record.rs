//! Records inside a batch. Drawn in `docs/formats/log.md`.
//!
//! ```text
//! record = kind u8 | shard varint | fields
//!   1 entry           index varint | term varint | payload bytes
//!   2 configuration   index varint | term varint | payload bytes
//!   3 hard state      term varint | vote varint | commit varint
//!   4 base            index varint | term varint | generation varint
//!   5 installed       index varint | term varint | generation varint
//!   6 first segment   segment varint                                  (its shard is 0, and means nothing)
//!   7 replica         peer varint
//!   8 lost            index varint
//!   9 gone            peer varint
//! ```
//!
//! An entry replaces every earlier one of its shard at its index and above; a hard state and a base replace the
//! earlier one; `installed` is a base that replaces all entries before it as well; the last `replica` says which peer of the
//! shard's group this node is, and without one it is the peer that the shard was born with. A `lost` after it says that the replica
//! has acknowledged entries up to that index which its log lacks, a `gone` that the node has no replica any more, and who the last one
//! was. The last `first segment` says
//! which segments the log needs. Whoever meets a kind that it does not know stops: it can't tell what the record would have changed.

use bytes::{BufMut, BytesMut};
use ringfort_types::wire::put_varint;
use ringfort_types::{Base, EntryKind, HardState, Index, PeerId, Record, ShardId, Term};

const ENTRY: u8 = 1;
const CONFIGURATION: u8 = 2;
const HARD_STATE: u8 = 3;
const BASE: u8 = 4;
const INSTALLED: u8 = 5;
const FIRST_SEGMENT: u8 = 6;
const REPLICA: u8 = 7;
const LOST: u8 = 8;
const GONE: u8 = 9;

/// Longest record beside its payload: a kind and four varints.
pub(super) const RECORD_OVERHEAD_MAX: usize = 41;

/// A record, still in its frame's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored<'a> {
    Entry { shard: ShardId, index: Index, term: Term, kind: EntryKind, payload: &'a [u8] },
    HardState(ShardId, HardState),
    Base(ShardId, Base),
    Installed(ShardId, Base),
    FirstSegment(u64),
    Replica(ShardId, PeerId),
    Lost(ShardId, Index),
    Gone(ShardId, PeerId),
}

/// Why records can't be read, though their checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordFault {
    Malformed,
    UnknownKind(u8),
}

pub(super) fn encode(record: &Record, out: &mut BytesMut) {
    match record {
        Record::Entry(shard, entry) => {
            out.put_u8(match entry.kind {
                EntryKind::Normal => ENTRY,
                EntryKind::Configuration => CONFIGURATION,
            });
            put_varint(out, shard.0.into());
            put_varint(out, entry.index.0);
            put_varint(out, entry.term.0);
            put_varint(out, entry.payload.len() as u64);
            out.put_slice(&entry.payload);
        }
        Record::HardState(shard, state) => {
            out.put_u8(HARD_STATE);
            put_varint(out, shard.0.into());
            put_varint(out, state.term.0);
            put_varint(out, state.vote.0);
            put_varint(out, state.commit.0);
        }
        Record::Base(shard, base) => put_base(BASE, *shard, *base, out),
        Record::Installed(shard, base) => put_base(INSTALLED, *shard, *base, out),
        Record::Replica(shard, peer) => put_peer(REPLICA, *shard, *peer, out),
        Record::Gone(shard, peer) => put_peer(GONE, *shard, *peer, out),
        Record::Lost(shard, index) => {
            out.put_u8(LOST);
            put_varint(out, shard.0.into());
            put_varint(out, index.0);
        }
    }
}

fn put_peer(kind: u8, shard: ShardId, peer: PeerId, out: &mut BytesMut) {
    out.put_u8(kind);
    put_varint(out, shard.0.into());
    put_varint(out, peer.0);
}

fn put_base(kind: u8, shard: ShardId, base: Base, out: &mut BytesMut) {
    out.put_u8(kind);
    put_varint(out, shard.0.into());
    put_varint(out, base.index.0);
    put_varint(out, base.term.0);
    put_varint(out, base.generation);
}

/// The log needs no segment before this one.
pub(super) fn encode_first_segment(segment: u64, out: &mut BytesMut) {
    out.put_slice(&[FIRST_SEGMENT, 0]);
    put_varint(out, segment);
}

/// Goes through the records of one batch.
#[derive(Debug)]
pub(super) struct Records<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Records<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Records<'a> {
        Records { bytes, at: 0 }
    }

    /// From a record's place in the batch on.
    pub(super) fn from(bytes: &'a [u8], at: u32) -> Records<'a> {
        Records { bytes, at: at as usize }
    }

    /// The next record and its place in the batch.
    pub(super) fn next(&mut self) -> Result<Option<(u32, Stored<'a>)>, RecordFault> {
        let place = self.at as u32;
        let Some(&kind) = self.bytes.get(self.at) else { return Ok(None) };
        self.at += 1;
        if !(ENTRY..=GONE).contains(&kind) {
            return Err(RecordFault::UnknownKind(kind));
        }
        let shard = ShardId(u32::try_from(self.varint()?).map_err(|_| RecordFault::Malformed)?);
        if kind == HARD_STATE {
            let (term, vote) = (Term(self.varint()?), PeerId(self.varint()?));
            let state = HardState { term, vote, commit: Index(self.varint()?) };
            return Ok(Some((place, Stored::HardState(shard, state))));
        }
        if kind == FIRST_SEGMENT {
            return Ok(Some((place, Stored::FirstSegment(self.varint()?))));
        }
        if kind == GONE {
            return Ok(Some((place, Stored::Gone(shard, PeerId(self.varint()?)))));
        }
        if kind == REPLICA {
            return Ok(Some((place, Stored::Replica(shard, PeerId(self.varint()?)))));
        }
        if kind == LOST {
            return Ok(Some((place, Stored::Lost(shard, Index(self.varint()?)))));
        }
        let (index, term) = (Index(self.varint()?), Term(self.varint()?));
        if kind == BASE || kind == INSTALLED {
            let base = Base { index, term, generation: self.varint()? };
            let is_base = kind == BASE;
            let stored = if is_base { Stored::Base(shard, base) } else { Stored::Installed(shard, base) };
            return Ok(Some((place, stored)));
        }
        let length = self.varint()?;
        let rest = &self.bytes[self.at..];
        if length > rest.len() as u64 {
            return Err(RecordFault::Malformed);
        }
        let payload = &rest[..length as usize];
        self.at += payload.len();
        let kind = if kind == ENTRY { EntryKind::Normal } else { EntryKind::Configuration };
        Ok(Some((place, Stored::Entry { shard, index, term, kind, payload })))
    }

    fn varint(&mut self) -> Result<u64, RecordFault> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let &byte = self.bytes.get(self.at).ok_or(RecordFault::Malformed)?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(RecordFault::Malformed);
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RecordFault::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use ringfort_types::LogEntry;

    use super::*;

    fn record() -> impl Strategy<Value = Record> {
        let entry = (any::<u32>(), any::<u64>(), any::<u64>(), any::<bool>(), any::<Vec<u8>>()).prop_map(
            |(shard, index, term, normal, payload)| {
                let kind = if normal { EntryKind::Normal } else { EntryKind::Configuration };
                let payload = Bytes::from(payload);
                Record::Entry(
                    ShardId(shard),
                    LogEntry { index: Index(index), term: Term(term), kind, payload },
                )
            },
        );
        let state = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(shard, t, v, c)| {
            Record::HardState(ShardId(shard), HardState { term: Term(t), vote: PeerId(v), commit: Index(c) })
        });
        let base = (any::<u32>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>());
        let base = base.prop_map(|(shard, index, term, generation, installed)| {
            let base = Base { index: Index(index), term: Term(term), generation };
            if installed {
                Record::Installed(ShardId(shard), base)
            } else {
                Record::Base(ShardId(shard), base)
            }
        });
        let replica = (any::<u32>(), any::<u64>());
        let replica = replica.prop_flat_map(|(shard, peer)| {
            let (shard, peer) = (ShardId(shard), PeerId(peer));
            prop_oneof![Just(Record::Replica(shard, peer)), Just(Record::Gone(shard, peer))]
        });
        let lost = (any::<u32>(), any::<u64>());
        let lost = lost.prop_map(|(shard, index)| Record::Lost(ShardId(shard), Index(index)));
        prop_oneof![entry, state, base, replica, lost]
    }

    fn decode(bytes: &[u8]) -> Result<Vec<Record>, RecordFault> {
        let mut records = Records::new(bytes);
        let mut found = Vec::new();
        while let Some((_, stored)) = records.next()? {
            let record = match stored {
                Stored::Entry { shard, index, term, kind, payload } => {
                    let payload = Bytes::copy_from_slice(payload);
                    Record::Entry(shard, LogEntry { index, term, kind, payload })
                }
                Stored::HardState(shard, state) => Record::HardState(shard, state),
                Stored::Base(shard, base) => Record::Base(shard, base),
                Stored::Installed(shard, base) => Record::Installed(shard, base),
                Stored::Replica(shard, peer) => Record::Replica(shard, peer),
                Stored::Gone(shard, peer) => Record::Gone(shard, peer),
                Stored::Lost(shard, index) => Record::Lost(shard, index),
                // Only the log itself writes one.
                Stored::FirstSegment(_) => continue,
            };
            found.push(record);
        }
        Ok(found)
    }

    proptest! {
        #[test]
        fn records_survive_their_bytes(records in proptest::collection::vec(record(), 0..8)) {
            let mut out = BytesMut::new();
            for record in &records {
                let before = out.len();
                encode(record, &mut out);
                let payload = match record { Record::Entry(_, entry) => entry.payload.len(), _ => 0 };
                prop_assert!(out.len() - before <= payload + RECORD_OVERHEAD_MAX);
            }
            prop_assert_eq!(decode(&out), Ok(records));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in any::<Vec<u8>>()) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn a_kind_of_later_versions_is_refused() {
        assert_eq!(decode(&[10, 1, 1]), Err(RecordFault::UnknownKind(10)));
    }
}
