//! What makes a write take effect once, however often it is sent: its place in its client's sequence.
//!
//! ```text
//! stamp = client u128 | sequence varint | prev varint | floor varint | opened u64
//! ```
//!
//! A session is one client's sequence of writes to one shard. The shard remembers what came of the last ones, so
//! that a write which comes again is told what came of it the first time. How long, and what it does when it no
//! longer can: `ringfort_shard`, `sessions`.

use bytes::{BufMut, BytesMut};

use crate::wire::{Malformed, Reader, put_varint};
use crate::{Code, Failure, HybridClock};

/// A write's place in its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Whose session; drawn at random by the client, never used by another.
    pub client: u128,
    /// The write's number, from 1. May skip numbers: a client can count over all shards.
    pub sequence: u64,
    /// The number of the client's write to this shard before this one; 0 for its first.
    pub prev: u64,
    /// The client knows what came of every write up to this number, so that the shard may forget it. Below
    /// `sequence`.
    pub floor: u64,
    /// What [`Request::OpenSession`](crate::Request::OpenSession) told the client before its first write here.
    pub opened: HybridClock,
}

impl Stamp {
    /// Its size for the purpose of bounds.
    pub const WEIGHT: usize = 16 + 8 + 4 * 8;

    /// Refuses numbers that no session has.
    pub fn validate(&self) -> Result<(), Failure> {
        let Stamp { sequence, prev, floor, .. } = *self;
        if sequence > prev && sequence > floor {
            return Ok(());
        }
        Err(Failure::rejected(
            Code::InvalidArgument,
            format!(
                "a session's sequence counts from 1, above the write before it and above what is answered; this one is \
                 {sequence}, after {prev}, with everything to {floor} answered"
            ),
        ))
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        out.put_u128_le(self.client);
        put_varint(out, self.sequence);
        put_varint(out, self.prev);
        put_varint(out, self.floor);
        out.put_u64_le(self.opened.0);
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Stamp, Malformed> {
        Ok(Stamp {
            client: reader.u128()?,
            sequence: reader.varint()?,
            prev: reader.varint()?,
            floor: reader.varint()?,
            opened: HybridClock(reader.u64()?),
        })
    }
}
