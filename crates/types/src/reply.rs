//! What clients are told, in the form in which it travels inside and between nodes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{GET_MANY_KEYS_MAX, KEY_BYTES_MAX, VALUE_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{
    Code, DiskState, Epoch, Failure, HybridClock, Incarnation, Index, LeaderPreference, LevelLimit, NodeId,
    Outcome, Presence, Revision, ShardId, Slot, Standing, Term, UsersState,
};

/// Longest text in an answer (addresses, error messages), in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// A value and the revision that last changed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The value.
    pub value: Bytes,
    /// The shard's revision when it was written.
    pub revision: Revision,
}

/// What an acknowledged write returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Where it went.
    pub shard: ShardId,
    /// The term of its entry.
    pub term: Term,
    /// The index of its entry.
    pub index: Index,
    /// The revision that it made.
    pub revision: Revision,
    /// How many replicas were known to have synced it when it was acknowledged. Always a majority. If more were asked for,
    /// fewer than those mean that the time was over; the write stands.
    pub copies: u32,
    /// If they are fewer than asked for: the nodes that are not known to have it, as far as the leader could tell.
    pub lacking: Vec<NodeId>,
    /// For each part of the write that adds to a number, in their order: the sum.
    pub sums: Vec<i64>,
}

/// One page of a scan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The index that all pages of this scan are read at.
    pub at: Index,
    /// In key order.
    pub rows: Vec<(Bytes, Row)>,
    /// Where the next page begins; `None` when this is the last. A page that is not the last may be short, or empty: where
    /// its first row is larger than what was asked for, or many keys were deleted.
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
    pub presence: Presence,
    /// Whether it is given replicas.
    pub standing: Standing,
    /// The highest level that it is known to know; 0 if the node that answers does not say.
    pub level_max: u16,
    /// How much it takes compared to others; 0 if the node that answers does not say.
    pub weight: u32,
    /// Where it is; empty if nothing was said.
    pub zone: String,
    /// Whether it can write.
    pub disk: DiskState,
    /// The shards whose replica on it takes no part, because its table is damaged.
    pub damaged: Vec<ShardId>,
    /// Estimated rows over its replicas.
    pub keys_estimate: u64,
    /// Estimated bytes of tables over its replicas.
    pub bytes_estimate: u64,
    /// How old its report is, in milliseconds; `u64::MAX` if there is none.
    pub report_age_ms: u64,
    /// The snapshots that it sends.
    pub sends: Vec<crate::SnapshotProgress>,
    /// About how much room its disk has; zeroes if that is not known.
    pub space: crate::DiskSpace,
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
    /// Whether its group is on its way to these replicas: then others may still take part, and some of these not yet.
    pub is_moving: bool,
    /// Its replicas, as the layout wants them, the preferred leader first, each with what it last reported.
    pub replicas: Vec<(NodeId, crate::ReplicaReport)>,
}

/// The cluster, as the asked node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// The layout's version.
    pub epoch: Epoch,
    /// The cluster's number, drawn from its nodes' incarnations at birth.
    pub cluster: u64,
    /// Who should lead.
    pub leader_preference: LeaderPreference,
    /// Copies of each shard that were asked for.
    pub copies: u32,
    /// The level in force; 0 if the node that answers has none yet, or does not say.
    pub level: u16,
    /// How far it may rise.
    pub level_limit: LevelLimit,
    /// The number of the next node that joins; 0 if the node that answers does not say.
    pub next_node: NodeId,
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
    /// To `Write`, `Digest` and `ChangeLayout`.
    Written(Receipt),
    /// To `Write`: a condition was not met, and nothing was changed.
    NotMet {
        /// The first part whose condition was not met, counted from 0.
        part: u32,
        /// Its key.
        key: Bytes,
        /// The key's revision; `None` if it is not there.
        revision: Option<Revision>,
        /// The index at which that was found.
        at: Index,
    },
    /// To `GetMany`.
    Values {
        /// One for each key, in the order in which they were asked for.
        rows: Vec<Option<Row>>,
        /// The index that all were read at.
        at: Index,
        /// The shard's revision at that index or just after it.
        revision: Revision,
    },
    /// To `OpenSession`.
    Opened {
        /// The shard's clock, at the time of asking or a little later.
        clock: HybridClock,
    },
    /// To `Transfer`: the wanted node leads the shard.
    Leads {
        /// In this term.
        term: Term,
    },
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
    /// To `Users`.
    Users(UsersState),
    /// To anything that failed.
    Failed(Failure),
}

impl Reply {
    /// The receipt, if this acknowledges a write.
    pub fn receipt_mut(&mut self) -> Option<&mut Receipt> {
        match self {
            Reply::Written(receipt) => Some(receipt),
            _ => None,
        }
    }

    /// What it is to whoever wanted another kind of reply: the failure that it tells of, or else a defect of the node, said
    /// plainly instead of dropped.
    pub fn into_failure(self) -> Failure {
        match self {
            Reply::Failed(failure) => failure,
            _ => {
                Failure::unknown(Code::Unavailable, "the node's answer is of another kind than the question")
            }
        }
    }

    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        OVERHEAD
            + match self {
                Reply::Value { row: Some(row), .. } => row.value.len(),
                Reply::Values { rows, .. } => {
                    rows.iter().map(|row| row.as_ref().map_or(0, |row| row.value.len()) + 32).sum()
                }
                Reply::Written(receipt) => 8 * (receipt.sums.len() + receipt.lacking.len()),
                Reply::NotMet { key, .. } => key.len(),
                Reply::Page(page) => {
                    page.rows.iter().map(|(key, row)| key.len() + row.value.len() + 32).sum()
                }
                Reply::Failed(failure) => failure.message.len(),
                Reply::Users(users) => users.weight(),
                Reply::Cluster(state) => 256 * (state.nodes.len() + state.shards.len()),
                _ => 0,
            }
    }

    /// Appends its bytes (between nodes only). `Cluster` and `Users` never travel between nodes.
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
                encode_receipt(receipt, out);
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
            Reply::NotMet { part, key, revision, at } => {
                out.put_u8(6);
                put_varint(out, (*part).into());
                put_bytes(out, key);
                // No key has revision 0.
                put_varint(out, revision.map_or(0, |revision| revision.0));
                put_varint(out, at.0);
            }
            Reply::Values { rows, at, revision } => {
                out.put_u8(7);
                put_varint(out, at.0);
                put_varint(out, revision.0);
                put_varint(out, rows.len() as u64);
                for row in rows {
                    out.put_u8(row.is_some().into());
                    if let Some(row) = row {
                        encode_row(row, out);
                    }
                }
            }
            Reply::Opened { clock } => {
                out.put_u8(8);
                out.put_u64_le(clock.0);
            }
            Reply::Leads { term } => {
                out.put_u8(9);
                put_varint(out, term.0);
            }
            Reply::Cluster(_) | Reply::Users(_) => {
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
            2 => Reply::Written(decode_receipt(reader)?),
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
            6 => Reply::NotMet {
                part: reader.varint()? as u32,
                key: reader.bytes(KEY_BYTES_MAX)?,
                revision: Some(Revision(reader.varint()?)).filter(|revision| *revision != Revision(0)),
                at: Index(reader.varint()?),
            },
            7 => {
                let (at, revision) = (Index(reader.varint()?), Revision(reader.varint()?));
                let count = reader.count(1)?;
                if count > GET_MANY_KEYS_MAX {
                    return Err(Malformed("too many rows in an answer"));
                }
                let mut rows = Vec::with_capacity(count);
                for _ in 0..count {
                    let found = reader.u8()? != 0;
                    rows.push(if found { Some(decode_row(reader)?) } else { None });
                }
                Reply::Values { rows, at, revision }
            }
            8 => Reply::Opened { clock: HybridClock(reader.u64()?) },
            9 => Reply::Leads { term: Term(reader.varint()?) },
            _ => return Err(Malformed("unknown kind of reply")),
        })
    }
}

fn encode_receipt(receipt: &Receipt, out: &mut BytesMut) {
    put_varint(out, receipt.shard.0.into());
    put_varint(out, receipt.term.0);
    put_varint(out, receipt.index.0);
    put_varint(out, receipt.revision.0);
    put_varint(out, receipt.copies.into());
    put_varint(out, receipt.lacking.len() as u64);
    for node in &receipt.lacking {
        put_varint(out, node.0);
    }
    put_varint(out, receipt.sums.len() as u64);
    for sum in &receipt.sums {
        out.put_i64_le(*sum);
    }
}

fn decode_receipt(reader: &mut Reader) -> Result<Receipt, Malformed> {
    let mut receipt = Receipt {
        shard: ShardId(reader.varint()? as u32),
        term: Term(reader.varint()?),
        index: Index(reader.varint()?),
        revision: Revision(reader.varint()?),
        copies: reader.varint()? as u32,
        ..Receipt::default()
    };
    for _ in 0..reader.count(1)? {
        receipt.lacking.push(NodeId(reader.varint()?));
    }
    for _ in 0..reader.count(8)? {
        receipt.sums.push(reader.u64()? as i64);
    }
    Ok(receipt)
}

fn encode_row(row: &Row, out: &mut BytesMut) {
    put_varint(out, row.revision.0);
    put_bytes(out, &row.value);
}

fn decode_row(reader: &mut Reader) -> Result<Row, Malformed> {
    Ok(Row { revision: Revision(reader.varint()?), value: reader.bytes(VALUE_BYTES_MAX)? })
}
