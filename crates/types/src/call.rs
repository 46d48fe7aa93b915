//! A call: what a door makes of a client's bytes, and what nodes pass on to each other.
//!
//! It has everything that whoever carries it out has to know: what is asked for, the write's place in its client's
//! session, how safe it has to be before it is acknowledged, how long the client waits, who asks, and at which door.
//!
//! ```text
//! call   = request | flags u8 | stamp, if flag 1 is set | copies | patience varint | timeout varint | who varint | door u8
//! copies = 0 a majority | 1, varint at least so many | 2 all         (each number a u8)
//! ```

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{CALL_TIMEOUT_DEFAULT_MS, CALL_TIMEOUT_MAX_MS};
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Code, Configuration, Failure, Request, Stamp};

/// The flag of a call that has a stamp.
const STAMPED: u8 = 1;

/// Who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Principal(pub u32);

impl Principal {
    /// Somebody who has not said who they are.
    pub const NOBODY: Principal = Principal(0);
    /// A node of the cluster, for what it does itself: it may do everything. No door gives a client this number; what another node passes on
    /// may have it.
    pub const NODE: Principal = Principal(u32::MAX);
    /// Somebody who has shown nothing where everybody has to show something, since there is TLS. It may do nothing, whether or not rights are
    /// enforced.
    pub const STRANGER: Principal = Principal(u32::MAX - 1);
}

/// Where a call came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Door {
    /// The gRPC package `ringfort.v1`.
    #[default]
    V1 = 0,
    /// The text protocol.
    Text = 1,
    /// The gRPC package `family`.
    Family = 2,
    /// The gRPC package `proto`.
    Proto = 3,
    /// The gRPC package `kvstore.v1`.
    KvStore = 4,
    /// The gRPC package `kv`.
    Kv = 5,
}

impl Door {
    fn decode(reader: &mut Reader) -> Result<Door, Malformed> {
        Ok(match reader.u8()? {
            0 => Door::V1,
            1 => Door::Text,
            2 => Door::Family,
            3 => Door::Proto,
            4 => Door::KvStore,
            5 => Door::Kv,
            _ => return Err(Malformed("unknown door")),
        })
    }
}

/// How many replicas are to have a write on disk before it is acknowledged. It is never fewer than a majority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Copies {
    /// A majority.
    #[default]
    Majority,
    /// So many, the leader's own among them.
    AtLeast(u32),
    /// All that the shard has when the write is committed.
    All,
}

impl Copies {
    /// The number that it comes to in this group.
    pub fn of(self, group: &Configuration) -> u32 {
        let fewest = group.least_quorum();
        match self {
            Copies::Majority => fewest,
            Copies::AtLeast(copies) => copies.max(fewest),
            Copies::All => group.deciding().count() as u32,
        }
    }
}

/// As the public protocol says it: 0 for a majority.
impl From<u32> for Copies {
    fn from(copies: u32) -> Copies {
        if copies == 0 { Copies::Majority } else { Copies::AtLeast(copies) }
    }
}

/// What an acknowledgement of a write waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Durability {
    /// So many replicas.
    pub copies: Copies,
    /// How long to wait for those beyond a majority once the write is committed, in milliseconds, within the call's own
    /// time. Then it is acknowledged with the copies that there are.
    pub patience_ms: u32,
}

impl Default for Durability {
    fn default() -> Durability {
        Copies::Majority.into()
    }
}

/// With as much patience as the call has time.
impl From<Copies> for Durability {
    fn from(copies: Copies) -> Durability {
        Durability { copies, patience_ms: u32::MAX }
    }
}

/// A request, with all that goes with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What is asked for.
    pub request: Request,
    /// A write's place in its client's session, if it has one.
    pub stamp: Option<Stamp>,
    /// What its acknowledgement waits for, if it is a write.
    pub durability: Durability,
    /// How long its sender waits, in milliseconds from now.
    pub timeout_ms: u32,
    /// Who asks.
    pub who: Principal,
    /// Where it came in.
    pub door: Door,
}

impl From<Request> for Call {
    fn from(request: Request) -> Call {
        Call {
            request,
            stamp: None,
            durability: Durability::default(),
            timeout_ms: CALL_TIMEOUT_DEFAULT_MS,
            who: Principal::NOBODY,
            door: Door::V1,
        }
    }
}

impl Call {
    /// The same, with so much time.
    #[must_use]
    pub fn within(self, timeout_ms: u32) -> Call {
        Call { timeout_ms, ..self }
    }

    /// The same in memory of its own. Keys and values are parts of the message that they came in, which may be far larger than
    /// they are, and would stay for as long as the call waits.
    #[must_use]
    pub fn detached(mut self) -> Call {
        let (mut parts, mut bytes) = (0, 0);
        self.request.each_bytes(&mut |part| {
            parts += 1;
            bytes += part.len();
        });
        if parts == 1 {
            self.request.each_bytes(&mut |part| *part = Bytes::copy_from_slice(part));
            return self;
        }
        let mut memory = BytesMut::with_capacity(bytes);
        self.request.each_bytes(&mut |part| {
            memory.put_slice(part);
            *part = memory.split().freeze();
        });
        self
    }

    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        self.request.weight()
    }

    /// Refuses what no node would take.
    pub fn validate(&self) -> Result<(), Failure> {
        self.request.validate()?;
        if let Some(stamp) = &self.stamp {
            stamp.validate()?;
        }
        if self.request.takes_stamp() {
            return Ok(());
        }
        let why = if self.stamp.is_some() {
            "only writes to keys have a place in a session: send this without a stamp"
        } else if self.durability.copies != Copies::Majority {
            "only writes to keys make copies: send this without"
        } else {
            return Ok(());
        };
        Err(Failure::rejected(Code::InvalidArgument, why))
    }

    /// Appends its bytes (between nodes only; not a stored format).
    pub fn encode(&self, out: &mut BytesMut) {
        self.request.encode(out);
        match &self.stamp {
            None => out.put_u8(0),
            Some(stamp) => {
                out.put_u8(STAMPED);
                stamp.encode(out);
            }
        }
        match self.durability.copies {
            Copies::Majority => out.put_u8(0),
            Copies::AtLeast(copies) => {
                out.put_u8(1);
                put_varint(out, copies.into());
            }
            Copies::All => out.put_u8(2),
        }
        put_varint(out, self.durability.patience_ms.into());
        put_varint(out, self.timeout_ms.into());
        put_varint(out, self.who.0.into());
        out.put_u8(self.door as u8);
    }

    /// Reads what [`Call::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Call, Malformed> {
        let request = Request::decode(reader)?;
        let stamp = match reader.u8()? {
            0 => None,
            STAMPED => Some(Stamp::decode(reader)?),
            _ => return Err(Malformed("unknown flag on a call")),
        };
        let copies = match reader.u8()? {
            0 => Copies::Majority,
            1 => Copies::AtLeast(reader.varint()? as u32),
            2 => Copies::All,
            _ => return Err(Malformed("unknown number of copies")),
        };
        let durability = Durability { copies, patience_ms: reader.varint()? as u32 };
        let timeout_ms = (reader.varint()? as u32).min(CALL_TIMEOUT_MAX_MS);
        let who = Principal(reader.varint()? as u32);
        Ok(Call { request, stamp, durability, timeout_ms, who, door: Door::decode(reader)? })
    }
}
