//! What clients ask and what they are told, in the form in which it travels inside and between nodes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{
    Code, Epoch, Failure, Incarnation, Index, NodeId, Outcome, Revision, Role, ShardId, Slot, Term, slot_of,
};

/// Longest text in an answer (addresses, error messages), in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// Names one request inside a node, from when it comes in until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token {
    /// The node whose client asked: this node, or the one that passed the request on.
    pub origin: NodeId,
    /// That node's number for it.
    pub id: u64,
}

impl Token {
    /// Nobody waits: an answer to this is dropped.
    pub const NOBODY: Token = Token { origin: NodeId(0), id: 0 };
}

/// How fresh a read has to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the read began. The default.
    #[default]
    Linearizable,
    /// Whatever the asked replica has.
    Stale,
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
    /// At most so many bytes of keys and values in this page, but at least one row.
    pub bytes_max: u32,
    /// Leave the values out.
    pub keys_only: bool,
}

/// A question or an order from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Reads one key. Answer: [`Reply::Value`].
    Get {
        /// The key.
        key: Bytes,
        /// How fresh.
        consistency: Consistency,
    },
    /// Sets one key. Answer: [`Reply::Written`].
    Put {
        /// The key.
        key: Bytes,
        /// Its new value.
        value: Bytes,
    },
    /// Removes one key, there or not. Answer: [`Reply::Written`].
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Reads one page of a shard. Answer: [`Reply::Page`].
    Scan(Scan),
    /// Logs a digest mark in a shard. Answer: [`Reply::Written`], whose index the mark has.
    Digest {
        /// The shard.
        shard: ShardId,
    },
    /// Asks one node for the hash of its replica at an index. Answer: [`Reply::Digest`].
    DigestAt {
        /// Whose replica.
        node: NodeId,
        /// The shard.
        shard: ShardId,
        /// The index of a digest mark.
        index: Index,
    },
    /// Asks for the cluster as the asked node sees it. Answer: [`Reply::Cluster`].
    ClusterState,
}

impl Request {
    /// Whether sending it twice could do something twice.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Put { .. } | Request::Delete { .. } | Request::Digest { .. })
    }

    /// The slot of the key it is about, if it is about one.
    pub fn slot(&self) -> Option<Slot> {
        match self {
            Request::Get { key, .. } | Request::Put { key, .. } | Request::Delete { key } => {
                Some(slot_of(key))
            }
            _ => None,
        }
    }

    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Request::Get { key, .. } | Request::Delete { key } => key.len() + OVERHEAD,
            Request::Put { key, value } => key.len() + value.len() + OVERHEAD,
            Request::Scan(scan) => scan.from.len() + scan.prefix.len() + OVERHEAD,
            _ => OVERHEAD,
        }
    }

    /// Refuses what no node would take: keys and values outside their limits.
    pub fn validate(&self) -> Result<(), Failure> {
        let invalid = |message: String| Err(Failure::rejected(Code::InvalidArgument, message));
        if let Request::Get { key, .. } | Request::Put { key, .. } | Request::Delete { key } = self {
            if key.is_empty() {
                return invalid("empty key: a key has 1 to 16384 bytes".into());
            }
            if key.len() > KEY_BYTES_MAX {
                return invalid(format!("key of {} bytes: the limit is {KEY_BYTES_MAX}", key.len()));
            }
        }
        if let Request::Put { value, .. } = self
            && value.len() > VALUE_BYTES_MAX
        {
            return invalid(format!("value of {} bytes: the limit is {VALUE_BYTES_MAX}", value.len()));
        }
        Ok(())
    }

    /// Appends its bytes (between nodes only; not a stored format).
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Request::Get { key, consistency } => {
                out.put_slice(&[1, u8::from(*consistency == Consistency::Stale)]);
                put_bytes(out, key);
            }
            Request::Put { key, value } => {
                out.put_u8(2);
                put_bytes(out, key);
                put_bytes(out, value);
            }
            Request::Delete { key } => {
                out.put_u8(3);
                put_bytes(out, key);
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
            Request::ClusterState => out.put_u8(7),
        }
    }

    /// Reads what [`Request::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Request, Malformed> {
        Ok(match reader.u8()? {
            1 => {
                let consistency =
                    if reader.u8()? == 0 { Consistency::Linearizable } else { Consistency::Stale };
                Request::Get { key: reader.bytes(KEY_BYTES_MAX)?, consistency }
            }
            2 => Request::Put { key: reader.bytes(KEY_BYTES_MAX)?, value: reader.bytes(VALUE_BYTES_MAX)? },
            3 => Request::Delete { key: reader.bytes(KEY_BYTES_MAX)? },
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
            7 => Request::ClusterState,
            _ => return Err(Malformed("unknown kind of request")),
        })
    }
}

/// A value and the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The value.
    pub value: Bytes,
    /// The shard's revision when it was written.
    pub revision: Revision,
}

/// What an acknowledged write returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Where it went.
    pub shard: ShardId,
    /// The term of its entry.
    pub term: Term,
    /// The index of its entry.
    pub index: Index,
    /// The revision that it made.
    pub revision: Revision,
    /// How many replicas were known to have synced it when it was acknowledged. Always a majority.
    pub copies: u32,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The index that all pages of this scan are read at.
    pub at: Index,
    /// In key order.
    pub rows: Vec<(Bytes, Row)>,
    /// Where the next page begins; `None` when this is the last.
    pub next: Option<Bytes>,
}

/// One node, as the asked node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeState {
    /// Its number.
    pub id: NodeId,
    /// Its operator's name for it.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its data directory's number.
    pub incarnation: Incarnation,
    /// Whether it is connected and has reported lately.
    pub reachable: bool,
    /// Whether it takes no writes for lack of room.
    pub disk_full: bool,
    /// Estimated rows over its replicas.
    pub keys_estimate: u64,
    /// Estimated bytes of tables over its replicas.
    pub bytes_estimate: u64,
    /// How old its report is, in milliseconds; `u64::MAX` if there is none.
    pub report_age_ms: u64,
}

/// One shard, as the asked node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardState {
    /// Its number.
    pub shard: ShardId,
    /// Its slots, as inclusive ranges.
    pub slots: Vec<(Slot, Slot)>,
    /// Its leader, if one is known.
    pub leader: Option<NodeId>,
    /// The term of that leader.
    pub term: Term,
    /// Its replicas, the preferred leader first, each with what it last reported.
    pub replicas: Vec<(NodeId, crate::ReplicaReport)>,
}

/// The cluster, as the asked node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// The layout's version.
    pub epoch: Epoch,
    /// The cluster's number, drawn from its nodes' incarnations at birth.
    pub cluster: u64,
    /// Who answers.
    pub node: NodeId,
    /// In the order of their numbers.
    pub nodes: Vec<NodeState>,
    /// In the order of their numbers; the meta group first.
    pub shards: Vec<ShardState>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To `Get`.
    Value {
        /// The row, if the key is there.
        row: Option<Row>,
        /// The index it was read at.
        at: Index,
        /// The shard's revision at that index or just after it.
        revision: Revision,
    },
    /// To `Put`, `Delete` and `Digest`.
    Written(Receipt),
    /// To `Scan`.
    Page(Page),
    /// To `DigestAt`.
    Digest {
        /// The index it was taken at.
        at: Index,
        /// XXH3 of all rows in key order.
        hash: u64,
        /// How many rows.
        rows: u64,
    },
    /// To `ClusterState`.
    Cluster(Box<ClusterState>),
    /// To anything that failed.
    Failed(Failure),
}

impl Reply {
    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Reply::Value { row: Some(row), .. } => row.value.len(),
                Reply::Page(page) => {
                    page.rows.iter().map(|(key, row)| key.len() + row.value.len() + 32).sum()
                }
                Reply::Failed(failure) => failure.message.len(),
                Reply::Cluster(state) => 256 * (state.nodes.len() + state.shards.len()),
                _ => 0,
            }
    }

    /// Appends its bytes (between nodes only). `Cluster` never travels between nodes.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Reply::Value { row, at, revision } => {
                out.put_slice(&[1, row.is_some().into()]);
                put_varint(out, at.0);
                put_varint(out, revision.0);
                if let Some(row) = row {
                    encode_row(row, out);
                }
            }
            Reply::Written(receipt) => {
                out.put_u8(2);
                put_varint(out, receipt.shard.0.into());
                put_varint(out, receipt.term.0);
                put_varint(out, receipt.index.0);
                put_varint(out, receipt.revision.0);
                put_varint(out, receipt.copies.into());
            }
            Reply::Page(page) => {
                out.put_u8(3);
                put_varint(out, page.at.0);
                put_varint(out, page.rows.len() as u64);
                for (key, row) in &page.rows {
                    put_bytes(out, key);
                    encode_row(row, out);
                }
                out.put_u8(page.next.is_some().into());
                put_bytes(out, page.next.as_deref().unwrap_or_default());
            }
            Reply::Digest { at, hash, rows } => {
                out.put_u8(4);
                put_varint(out, at.0);
                out.put_u64_le(*hash);
                put_varint(out, *rows);
            }
            Reply::Failed(failure) => {
                out.put_slice(&[5, u8::from(failure.outcome == Outcome::Unknown), failure.code as u8]);
                let message = &failure.message;
                put_bytes(out, &message.as_bytes()[..message.floor_char_boundary(TEXT_BYTES_MAX)]);
            }
            Reply::Cluster(_) => {
                Reply::Failed(Failure::rejected(Code::InvalidArgument, "ask the node itself for its state"))
                    .encode(out);
            }
        }
    }

    /// Reads what [`Reply::encode`] wrote.
    pub fn decode(reader: &mut Reader) -> Result<Reply, Malformed> {
        Ok(match reader.u8()? {
            1 => {
                let found = reader.u8()? != 0;
                Reply::Value {
                    at: Index(reader.varint()?),
                    revision: Revision(reader.varint()?),
                    row: if found { Some(decode_row(reader)?) } else { None },
                }
            }
            2 => Reply::Written(Receipt {
                shard: ShardId(reader.varint()? as u32),
                term: Term(reader.varint()?),
                index: Index(reader.varint()?),
                revision: Revision(reader.varint()?),
                copies: reader.varint()? as u32,
            }),
            3 => {
                let at = Index(reader.varint()?);
                let count = reader.count(3)?;
                let mut rows = Vec::with_capacity(count);
                for _ in 0..count {
                    rows.push((reader.bytes(KEY_BYTES_MAX)?, decode_row(reader)?));
                }
                let more = reader.u8()? != 0;
                let next = reader.bytes(KEY_BYTES_MAX + 1)?;
                Reply::Page(Page { at, rows, next: more.then_some(next) })
            }
            4 => Reply::Digest { at: Index(reader.varint()?), hash: reader.u64()?, rows: reader.varint()? },
            5 => {
                let outcome = if reader.u8()? == 0 { Outcome::Rejected } else { Outcome::Unknown };
                let code = Code::from_u8(reader.u8()?).ok_or(Malformed("unknown code"))?;
                Reply::Failed(Failure { outcome, code, message: reader.string(TEXT_BYTES_MAX)? })
            }
            _ => return Err(Malformed("unknown kind of reply")),
        })
    }
}

fn encode_row(row: &Row, out: &mut BytesMut) {
    put_varint(out, row.revision.0);
    put_bytes(out, &row.value);
}

fn decode_row(reader: &mut Reader) -> Result<Row, Malformed> {
    Ok(Row { revision: Revision(reader.varint()?), value: reader.bytes(VALUE_BYTES_MAX)? })
}

/// Roles as they are shown to people.
impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Candidate => "candidate",
        })
    }
}

/// A name that an operator may give to a node: 1 to 64 letters, digits, `-`, `_` or `.`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
