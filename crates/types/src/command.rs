//! What a Raft entry carries: a stamp and the commands of one turn. Drawn in `docs/formats/entry.md`.
//!
//! ```text
//! entry   = version u8 (1) | flags u8 (0) | hybrid clock u64 | count varint | command × count
//! command = kind u8 | flags u8 (0) | fields
//!   1 put     key bytes | value bytes
//!   2 delete  key bytes
//!   3 digest
//! ```
//!
//! An unknown version, kind or flag is refused: flags are where sessions and conditions will be announced,
//! and a replica that does not know one must not guess.

use bytes::{BufMut, Bytes, BytesMut};

use crate::HybridClock;
use crate::limits::{ENTRY_COMMANDS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};

const VERSION: u8 = 1;
const PUT: u8 = 1;
const DELETE: u8 = 2;
const DIGEST: u8 = 3;

/// One change (or, for `Digest`, one mark) in a shard's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Sets a key to a value, whatever it was.
    Put {
        /// 1 B to [`KEY_BYTES_MAX`].
        key: Bytes,
        /// At most [`VALUE_BYTES_MAX`].
        value: Bytes,
    },
    /// Removes a key, whether or not it is there.
    Delete {
        /// 1 B to [`KEY_BYTES_MAX`].
        key: Bytes,
    },
    /// Changes nothing: names an index at which every replica can be asked for a hash of its rows.
    Digest,
}

impl Command {
    /// Its size for the purpose of bounds: key and value, and a little for the rest.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 16;
        match self {
            Command::Put { key, value } => key.len() + value.len() + OVERHEAD,
            Command::Delete { key } => key.len() + OVERHEAD,
            Command::Digest => OVERHEAD,
        }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            Command::Put { key, value } => {
                out.put_slice(&[PUT, 0]);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Command::Delete { key } => {
                out.put_slice(&[DELETE, 0]);
                put_bytes(out, key);
            }
            Command::Digest => out.put_slice(&[DIGEST, 0]),
        }
    }

    fn decode(reader: &mut Reader) -> Result<Command, Malformed> {
        let kind = reader.u8()?;
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on a command"));
        }
        Ok(match kind {
            PUT => Command::Put { key: reader.bytes(KEY_BYTES_MAX)?, value: reader.bytes(VALUE_BYTES_MAX)? },
            DELETE => Command::Delete { key: reader.bytes(KEY_BYTES_MAX)? },
            DIGEST => Command::Digest,
            _ => return Err(Malformed("unknown kind of command")),
        })
    }
}

/// The payload of one Raft entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The leader's stamp; rises strictly within a shard.
    pub clock: HybridClock,
    /// In order; later ones see the effects of earlier ones. At most [`ENTRY_COMMANDS_MAX`].
    pub commands: Vec<Command>,
}

impl Entry {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        let weight: usize = self.commands.iter().map(Command::weight).sum();
        let mut out = BytesMut::with_capacity(weight + 16);
        out.put_slice(&[VERSION, 0]);
        out.put_u64_le(self.clock.0);
        put_varint(&mut out, self.commands.len() as u64);
        for command in &self.commands {
            command.encode(&mut out);
        }
        out.freeze()
    }

    /// The stamp of an encoded entry, without reading the rest.
    pub fn peek_clock(bytes: &[u8]) -> Option<HybridClock> {
        bytes.get(2..10)?.try_into().ok().map(|stamp| HybridClock(u64::from_le_bytes(stamp)))
    }

    /// Reads what [`Entry::encode`] wrote. Keys and values share `bytes`' buffer.
    pub fn decode(bytes: Bytes) -> Result<Entry, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of an entry"));
        }
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on an entry"));
        }
        let clock = HybridClock(reader.u64()?);
        let count = reader.count(2)?;
        if count > ENTRY_COMMANDS_MAX {
            return Err(Malformed("too many commands in an entry"));
        }
        let mut commands = Vec::with_capacity(count);
        for _ in 0..count {
            commands.push(Command::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Entry { clock, commands })
    }
}
