//! A table on its way from one node to another.

use bytes::{BufMut, Bytes, BytesMut};

use super::Wire;
use crate::limits::{KEY_BYTES_MAX, SNAPSHOT_CHUNK_BYTES, VALUE_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Index, ShardId};

/// A chunk of a snapshot holds at least one row, whatever its size.
const CHUNK_BYTES_MAX: usize = SNAPSHOT_CHUNK_BYTES + VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024;

/// Part of a shard's table, for a replica whose log can't be brought up to date any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Whose.
    pub shard: ShardId,
    /// The sender's number for this snapshot, never used twice.
    pub transfer: u64,
    /// The index at which the table was read.
    pub index: Index,
    /// Its place, from 0.
    pub number: u64,
    /// No other follows.
    pub is_last: bool,
    /// In `storage`'s format.
    pub bytes: Bytes,
}

/// The answer to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotReply {
    /// Whose.
    pub shard: ShardId,
    /// As sent.
    pub transfer: u64,
    /// So many chunks are stored, from the first one on.
    pub stored: u64,
    /// What is to be done about it.
    pub verdict: SnapshotVerdict,
}

/// What the receiver of a snapshot wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotVerdict {
    /// The chunks that follow.
    More,
    /// Nothing: it has all of it.
    Complete,
    /// Nothing of this one: it could not be stored, or its beginning is not here (any more).
    Refused,
}

impl Wire for SnapshotChunk {
    const KIND: u8 = 9;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.is_last.into());
        put_varint(out, self.shard.0.into());
        put_varint(out, self.transfer);
        put_varint(out, self.index.0);
        put_varint(out, self.number);
        put_bytes(out, &self.bytes);
    }

    fn decode(reader: &mut Reader) -> Result<SnapshotChunk, Malformed> {
        let is_last = reader.u8()? != 0;
        Ok(SnapshotChunk {
            shard: ShardId(reader.varint()? as u32),
            transfer: reader.varint()?,
            index: Index(reader.varint()?),
            number: reader.varint()?,
            is_last,
            bytes: reader.bytes(CHUNK_BYTES_MAX)?,
        })
    }

    fn weight(&self) -> usize {
        32 + self.bytes.len()
    }
}

impl Wire for SnapshotReply {
    const KIND: u8 = 10;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(match self.verdict {
            SnapshotVerdict::More => 0,
            SnapshotVerdict::Complete => 1,
            SnapshotVerdict::Refused => 2,
        });
        put_varint(out, self.shard.0.into());
        put_varint(out, self.transfer);
        put_varint(out, self.stored);
    }

    fn decode(reader: &mut Reader) -> Result<SnapshotReply, Malformed> {
        let verdict = match reader.u8()? {
            0 => SnapshotVerdict::More,
            1 => SnapshotVerdict::Complete,
            2 => SnapshotVerdict::Refused,
            _ => return Err(Malformed("unknown verdict on a snapshot")),
        };
        Ok(SnapshotReply {
            shard: ShardId(reader.varint()? as u32),
            transfer: reader.varint()?,
            stored: reader.varint()?,
            verdict,
        })
    }

    fn weight(&self) -> usize {
        32
    }
}
