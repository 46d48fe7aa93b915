//! Raft's own messages, which are opaque bytes here, and refusals.

use bytes::{BufMut, Bytes, BytesMut};

use super::Wire;
use crate::ShardId;
use crate::wire::{Malformed, Reader, put_bytes, put_varint};

/// Raft messages hold entries; one may be larger than a value by its framing.
const RAFT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest refusal.
const REASON_BYTES_MAX: usize = 4096;

/// A message between two replicas of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RaftMessage {
    /// Whose.
    pub shard: ShardId,
    /// In `consensus`' encoding.
    pub message: Bytes,
}

/// What a node is refused as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// It does not belong here, or was told otherwise.
    Stranger,
    /// It was a member, and is none any more.
    Removed,
    /// It must not go on: another process speaks as the same node, or another member has its address and is there.
    SecondProcess,
}

/// "I won't work with you, for this reason."
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// As what.
    pub kind: RefusalKind,
    /// One line for people: what is wrong and what to do.
    pub reason: String,
}

impl Wire for RaftMessage {
    const KIND: u8 = 3;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
        put_bytes(out, &self.message);
    }

    fn decode(reader: &mut Reader) -> Result<RaftMessage, Malformed> {
        Ok(RaftMessage { shard: ShardId(reader.varint()? as u32), message: reader.bytes(RAFT_BYTES_MAX)? })
    }

    fn weight(&self) -> usize {
        self.message.len()
    }
}

impl Wire for Refusal {
    const KIND: u8 = 2;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(match self.kind {
            RefusalKind::Stranger => 0,
            RefusalKind::Removed => 1,
            RefusalKind::SecondProcess => 2,
        });
        put_bytes(out, &self.reason.as_bytes()[..self.reason.floor_char_boundary(REASON_BYTES_MAX)]);
    }

    fn decode(reader: &mut Reader) -> Result<Refusal, Malformed> {
        let kind = match reader.u8()? {
            0 => RefusalKind::Stranger,
            1 => RefusalKind::Removed,
            2 => RefusalKind::SecondProcess,
            _ => return Err(Malformed("unknown kind of refusal")),
        };
        Ok(Refusal { kind, reason: reader.string(REASON_BYTES_MAX)? })
    }

    fn weight(&self) -> usize {
        self.reason.len()
    }
}
