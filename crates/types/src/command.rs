//! What a Raft entry carries: a stamp and the commands of one turn. Drawn in `docs/formats/entry.md`.
//!
//! ```text
//! entry   = version u8 (1) | flags u8 (0) | hybrid clock u64 | count varint | command × count
//! command = kind u8 | flags u8 | stamp, if flag 1 is set | fields
//!   1 write      parts, as in `write`
//!   2 digest
//!   3 layout     a layout change, as in `layout_change`; to the meta group only
//! ```
//!
//! An unknown version, kind or flag is refused: a replica that does not know one must not guess.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::ENTRY_COMMANDS_MAX;
use crate::wire::{Malformed, Reader, put_varint};
use crate::write::{decode_parts, encode_parts, weight_of};
use crate::{HybridClock, LayoutChange, Part, Stamp};

const VERSION: u8 = 1;
const WRITE: u8 = 1;
const DIGEST: u8 = 2;
const LAYOUT: u8 = 3;
/// The flag of a command that has a stamp.
const STAMPED: u8 = 1;

/// One change (or, for `Digest`, one mark) in a shard's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Changes keys if all conditions are met: all of them or none. One revision, however many.
    Write {
        /// At least one, at most [`WRITE_PARTS_MAX`](crate::limits::WRITE_PARTS_MAX), and no key twice.
        parts: Vec<Part>,
    },
    /// Changes nothing: names an index at which every replica can be asked for a hash of its rows.
    Digest,
    /// To the meta group: what the layout should be. One revision and one epoch, if it is not so yet.
    Layout(LayoutChange),
}

impl Command {
    /// Its size for the purpose of bounds: keys and values, and a little for the rest.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 16;
        match self {
            Command::Write { parts } => weight_of(parts) + OVERHEAD,
            Command::Digest => OVERHEAD,
            Command::Layout(change) => change.weight() + OVERHEAD,
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Command::Write { .. } => WRITE,
            Command::Digest => DIGEST,
            Command::Layout(_) => LAYOUT,
        }
    }

    fn encode_fields(&self, out: &mut BytesMut) {
        match self {
            Command::Write { parts } => encode_parts(parts, out),
            Command::Digest => {}
            Command::Layout(change) => change.encode(out),
        }
    }

    fn decode_fields(kind: u8, reader: &mut Reader) -> Result<Command, Malformed> {
        Ok(match kind {
            WRITE => Command::Write { parts: decode_parts(reader)? },
            DIGEST => Command::Digest,
            LAYOUT => Command::Layout(LayoutChange::decode(reader)?),
            _ => return Err(Malformed("unknown kind of command")),
        })
    }
}

/// A command, and its place in its client's session if it has one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamped {
    /// Its place in a session.
    pub stamp: Option<Stamp>,
    /// The command.
    pub command: Command,
}

impl From<Command> for Stamped {
    fn from(command: Command) -> Stamped {
        Stamped { stamp: None, command }
    }
}

impl Stamped {
    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        self.command.weight() + self.stamp.map_or(0, |_| Stamp::WEIGHT)
    }

    fn encode(&self, out: &mut BytesMut) {
        out.put_slice(&[self.command.kind(), if self.stamp.is_some() { STAMPED } else { 0 }]);
        if let Some(stamp) = &self.stamp {
            stamp.encode(out);
        }
        self.command.encode_fields(out);
    }

    fn decode(reader: &mut Reader) -> Result<Stamped, Malformed> {
        let kind = reader.u8()?;
        let stamp = match reader.u8()? {
            0 => None,
            STAMPED => Some(Stamp::decode(reader)?),
            _ => return Err(Malformed("unknown flag on a command")),
        };
        Ok(Stamped { stamp, command: Command::decode_fields(kind, reader)? })
    }
}

/// The payload of one Raft entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The leader's stamp; rises strictly within a shard.
    pub clock: HybridClock,
    /// In order; later ones see the effects of earlier ones. At most [`ENTRY_COMMANDS_MAX`].
    pub commands: Vec<Stamped>,
}

impl Entry {
    /// The bytes that go into the log.
    pub fn encode(&self) -> Bytes {
        let weight: usize = self.commands.iter().map(Stamped::weight).sum();
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
            commands.push(Stamped::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(Entry { clock, commands })
    }
}
