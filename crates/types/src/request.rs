//! What clients ask, in the form in which it travels inside and between nodes. What they are told: `reply`.

use bytes::{BufMut, Bytes, BytesMut};

use crate::key::{invalid, validate_key};
use crate::limits::{GET_MANY_BYTES_MAX, GET_MANY_KEYS_MAX, KEY_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::write::{decode_parts, encode_parts, validate_parts, weight_of};
use crate::{Change, Failure, Index, LayoutChange, NodeId, Part, ShardId, Slot, slot_of};

/// Names one request inside a node, from when it comes in until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The node whose client asked: this node, or the one that passed the request on.
    pub origin: NodeId,
    /// That node's number for it.
    pub id: u64,
}

impl Token {
    /// Nobody waits: an answer to this is dropped, and so to any other token of its origin.
    pub const NOBODY: Token = Token { origin: NodeId(0), id: 0 };
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began. The default.
    #[default]
    Linearizable,
    /// The same, if no clock runs more than twice as fast as another: a leader that a majority has confirmed within the
    /// last fifth of a second answers without asking it again.
    Lease,
    /// Whatever the asked replica has.
    Stale,
}

impl Consistency {
    fn decode(reader: &mut Reader) -> Result<Consistency, Malformed> {
        Ok(match reader.u8()? {
            0 => Consistency::Linearizable,
            1 => Consistency::Stale,
            2 => Consistency::Lease,
            _ => return Err(Malformed("unknown consistency of a read")),
        })
    }

    fn encode(self) -> u8 {
        match self {
            Consistency::Linearizable => 0,
            Consistency::Stale => 1,
            Consistency::Lease => 2,
        }
    }
}

/// One page of one shard's rows, in key order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// Whose rows.
    pub shard: ShardId,
    /// The index to read at; `None` for the first page, whose answer names it.
    pub at: Option<Index>,
    /// First key wanted (inclusive); empty for the start.
    pub from: Bytes,
    /// Only keys that begin with this; empty for all.
    pub prefix: Bytes,
    /// At most so many rows in this page.
    pub rows_max: u32,
    /// At most so many bytes of keys and values in this page: where its first row is larger, it is empty, and the next one
    /// begins with that row. `u32::MAX` for a page that holds a row however large that is, if there is one.
    pub bytes_max: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

/// A question or an order from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads one key. Answer: [`Reply::Value`](crate::Reply::Value).
    Get {
        /// The key.
        key: Bytes,
        /// How fresh.
        consistency: Consistency,
    },
    /// Changes keys of one shard, if all conditions are met: all of them or none. Answer:
    /// [`Reply::Written`](crate::Reply::Written) or [`Reply::NotMet`](crate::Reply::NotMet); a failure if something is to
    /// be added to what is no number, or if the sum has more than 64 bits.
    Write {
        /// At least one, and no key twice.
        parts: Vec<Part>,
    },
    /// Reads several keys of one shard at one index. Answer: [`Reply::Values`](crate::Reply::Values).
    GetMany {
        /// At least one.
        keys: Vec<Bytes>,
        /// How fresh.
        consistency: Consistency,
    },
    /// Asks for a shard's clock, before the first write of a session. Answer: [`Reply::Opened`](crate::Reply::Opened).
    OpenSession {
        /// The shard.
        shard: ShardId,
    },
    /// Reads one page of a shard. Answer: [`Reply::Page`](crate::Reply::Page).
    Scan(Scan),
    /// Logs a digest mark in a shard. Answer: [`Reply::Written`](crate::Reply::Written), whose index the mark has.
    Digest {
        /// The shard.
        shard: ShardId,
    },
    /// Asks one node for the hash of its replica at an index. Answer: [`Reply::Digest`](crate::Reply::Digest).
    DigestAt {
        /// Whose replica.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The index of a digest mark.
        index: Index,
    },
    /// Asks for the cluster as the asked node sees it. Answer: [`Reply::Cluster`](crate::Reply::Cluster).
    ClusterState,
    /// Asks for the users as the asked node knows them. Answer: [`Reply::Users`](crate::Reply::Users).
    Users,
    /// Changes the cluster's layout, if it is not so yet. Answer: [`Reply::Written`](crate::Reply::Written).
    ChangeLayout(LayoutChange),
    /// Has a shard's leader transfer its leadership to this node, which then keeps it for a while. Asking twice is as good as
    /// once. Answer, by that node itself: [`Reply::Leads`](crate::Reply::Leads).
    Transfer {
        /// Whose leadership.
        shard: ShardId,
        /// Who should have it.
        to: NodeId,
    },
}

impl Request {
    /// Sets one key, whatever it was.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Request {
        Request::change(key, Change::put(value))
    }

    /// Removes one key, there or not.
    pub fn delete(key: impl Into<Bytes>) -> Request {
        Request::change(key, Change::DELETE)
    }

    /// Adds to one key's value.
    pub fn increment(key: impl Into<Bytes>, by: i64) -> Request {
        Request::change(key, Change::Add(by))
    }

    /// Changes one key, whatever it was.
    pub fn change(key: impl Into<Bytes>, change: Change) -> Request {
        Request::Write { parts: vec![Part::new(key, change)] }
    }

    /// Whether it has an effect, so that it may be unknown whether it had.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Digest { .. } | Request::ChangeLayout(_) | Request::Transfer { .. })
            || self.takes_stamp()
    }

    /// Whether the asked node answers it by itself, with what it knows of the cluster.
    pub fn is_about_cluster(&self) -> bool {
        matches!(self, Request::ClusterState | Request::Users)
    }

    /// Whether it is an operator's: it changes the cluster.
    pub fn changes_cluster(&self) -> bool {
        matches!(self, Request::ChangeLayout(_) | Request::Transfer { .. })
    }

    /// Whether it moves a leadership.
    pub fn is_transfer(&self) -> bool {
        matches!(self, Request::Transfer { .. })
    }

    /// Whether it can be part of a session: it writes to keys.
    pub fn takes_stamp(&self) -> bool {
        matches!(self, Request::Write { .. })
    }

    /// The slot of the key it is about, if it is about one; of the first one, if it is about several.
    pub fn slot(&self) -> Option<Slot> {
        self.keys().next().map(|key| slot_of(key))
    }

    /// The keys that it is about. They must be of one shard.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let (key, keys, parts) = match self {
            Request::Get { key, .. } => (Some(key), &[][..], &[][..]),
            Request::GetMany { keys, .. } => (None, &keys[..], &[][..]),
            Request::Write { parts } => (None, &[][..], &parts[..]),
            _ => (None, &[][..], &[][..]),
        };
        key.into_iter().chain(keys).chain(parts.iter().map(|part| &part.key))
    }

    /// Everything in it that is bytes.
    pub(crate) fn each_bytes(&mut self, each: &mut dyn FnMut(&mut Bytes)) {
        match self {
            Request::Get { key, .. } => each(key),
            Request::Write { parts } => parts.iter_mut().for_each(|part| part.each_bytes(each)),
            Request::GetMany { keys, .. } => keys.iter_mut().for_each(each),
            Request::Scan(scan) => [&mut scan.from, &mut scan.prefix].into_iter().for_each(each),
            Request::OpenSession { .. }
            | Request::Digest { .. }
            | Request::DigestAt { .. }
            | Request::ClusterState
            | Request::Users
            | Request::ChangeLayout(_)
            | Request::Transfer { .. } => {}
        }
    }

    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Request::Get { key, .. } => key.len() + OVERHEAD,
            Request::Write { parts } => weight_of(parts) + OVERHEAD,
            Request::GetMany { keys, .. } => keys_weight(keys) + OVERHEAD,
            Request::Scan(scan) => scan.from.len() + scan.prefix.len() + OVERHEAD,
            Request::ChangeLayout(change) => change.weight() + OVERHEAD,
            _ => OVERHEAD,
        }
    }

    /// Refuses what no node would take: keys and values outside their limits, and names of users.
    pub fn validate(&self) -> Result<(), Failure> {
        match self {
            Request::Get { key, .. } => validate_key(key),
            Request::Write { parts } => validate_parts(parts),
            Request::GetMany { keys, .. } => validate_keys(keys),
            Request::ChangeLayout(LayoutChange::Users(change)) => change.validate(),
            _ => Ok(()),
        }
    }

    /// Appends its bytes (between nodes only; not a stored format).
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Request::Get { key, consistency } => {
                out.put_slice(&[1, consistency.encode()]);
                put_bytes(out, key);
            }
            Request::GetMany { keys, consistency } => {
                out.put_slice(&[2, consistency.encode()]);
                put_varint(out, keys.len() as u64);
                for key in keys {
                    put_bytes(out, key);
                }
            }
            Request::Write { parts } => {
                out.put_u8(3);
                encode_parts(parts, out);
            }
            Request::Scan(scan) => {
                out.put_u8(4);
                put_varint(out, scan.shard.0.into());
                put_varint(out, scan.at.map_or(0, |at| at.0 + 1));
                put_bytes(out, &scan.from);
                put_bytes(out, &scan.prefix);
                put_varint(out, scan.rows_max.into());
                put_varint(out, scan.bytes_max.into());
                out.put_u8(scan.keys_only.into());
            }
            Request::Digest { shard } => {
                out.put_u8(5);
                put_varint(out, shard.0.into());
            }
            Request::DigestAt { node, shard, index } => {
                out.put_u8(6);
                put_varint(out, node.0);
                put_varint(out, shard.0.into());
                put_varint(out, index.0);
            }
            Request::OpenSession { shard } => {
                out.put_u8(7);
                put_varint(out, shard.0.into());
            }
            Request::ClusterState => out.put_u8(8),
            Request::Users => out.put_u8(11),
            Request::ChangeLayout(change) => {
                out.put_u8(9);
                change.encode(out);
            }
            Request::Transfer { shard, to } => {
                out.put_u8(10);
                put_varint(out, shard.0.into());
                put_varint(out, to.0);
            }
        }
    }

    /// Reads what [`Request::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Request, Malformed> {
        Ok(match reader.u8()? {
            1 => {
                let consistency = Consistency::decode(reader)?;
                Request::Get { key: reader.bytes(KEY_BYTES_MAX)?, consistency }
            }
            2 => {
                let consistency = Consistency::decode(reader)?;
                let count = reader.count(1)?;
                if count > GET_MANY_KEYS_MAX {
                    return Err(Malformed("too many keys to read at once"));
                }
                let mut keys = Vec::with_capacity(count);
                for _ in 0..count {
                    keys.push(reader.bytes(KEY_BYTES_MAX)?);
                }
                Request::GetMany { keys, consistency }
            }
            3 => Request::Write { parts: decode_parts(reader)? },
            4 => Request::Scan(Scan {
                shard: ShardId(reader.varint()? as u32),
                at: reader.varint()?.checked_sub(1).map(Index),
                from: reader.bytes(KEY_BYTES_MAX + 1)?,
                prefix: reader.bytes(KEY_BYTES_MAX)?,
                rows_max: reader.varint()? as u32,
                bytes_max: reader.varint()? as u32,
                keys_only: reader.u8()? != 0,
            }),
            5 => Request::Digest { shard: ShardId(reader.varint()? as u32) },
            6 => Request::DigestAt {
                node: NodeId(reader.varint()?),
                shard: ShardId(reader.varint()? as u32),
                index: Index(reader.varint()?),
            },
            7 => Request::OpenSession { shard: ShardId(reader.varint()? as u32) },
            8 => Request::ClusterState,
            9 => Request::ChangeLayout(LayoutChange::decode(reader)?),
            10 => Request::Transfer { shard: ShardId(reader.varint()? as u32), to: NodeId(reader.varint()?) },
            11 => Request::Users,
            _ => return Err(Malformed("unknown kind of request")),
        })
    }
}

fn keys_weight(keys: &[Bytes]) -> usize {
    const OVERHEAD: usize = 16;
    keys.iter().map(|key| key.len() + OVERHEAD).sum()
}

fn validate_keys(keys: &[Bytes]) -> Result<(), Failure> {
    if keys.is_empty() {
        return invalid("no keys to read: name at least one".to_owned());
    }
    if keys.len() > GET_MANY_KEYS_MAX {
        return invalid(format!("{} keys to read at once: the limit is {GET_MANY_KEYS_MAX}", keys.len()));
    }
    keys.iter().try_for_each(|key| validate_key(key))?;
    let bytes = keys_weight(keys);
    if bytes > GET_MANY_BYTES_MAX {
        return invalid(format!("{bytes} bytes of keys to read at once: the limit is {GET_MANY_BYTES_MAX}"));
    }
    Ok(())
}
