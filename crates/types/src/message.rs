//! What nodes say to each other. Raft's own messages are opaque bytes here.
//!
//! A frame is everything that one node has to tell another after one turn: one write to the socket, one
//! event at the other end. Every frame names its sender's data directory and the layout it goes by, so that
//! a wiped disk or a stranger is noticed at once. Frames are not stored; both ends run one version.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{
    BIRTH_NODES_MAX, KEY_BYTES_MAX, NAME_BYTES_MAX, PEER_FRAME_MESSAGES_MAX, SNAPSHOT_CHUNK_BYTES,
    VALUE_BYTES_MAX,
};
use crate::request::is_name;
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Epoch, Incarnation, Index, NodeId, Reply, Request, Revision, ShardId, Stamp, Term};

/// Longest address, in bytes: a DNS name and a port.
const ADDRESS_BYTES_MAX: usize = 262;
/// Longest refusal.
const REASON_BYTES_MAX: usize = 4096;
/// Raft messages hold entries; one may be larger than a value by its framing.
const RAFT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A chunk of a snapshot holds at least one row, whatever its size.
const CHUNK_BYTES_MAX: usize = SNAPSHOT_CHUNK_BYTES + VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024;
const FRAME_VERSION: u8 = 1;

/// How far a node is with its cluster's birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BirthStage {
    /// Has not seen every listed node yet.
    Waiting,
    /// Has seen every listed node, and the full map is synced on its disk.
    Mapped,
    /// Knows that the map is synced on every listed node.
    Born,
}

/// Who a node is, and how it was told to be born. Sent when a connection opens, and each second until birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its operator's name for it.
    pub name: String,
    /// Its advertised address.
    pub address: String,
    /// All addresses that it was started with, its own included, sorted.
    pub addresses: Vec<String>,
    /// Names that it was started with, for those of `addresses` that had one; empty where none was given.
    pub names: Vec<String>,
    /// Number of shards that it was started with.
    pub shards: u32,
    /// Copies of each shard that it was started with.
    pub replicas: u32,
    /// How far it is.
    pub stage: BirthStage,
    /// Hash of the full map (names, addresses, incarnations, shards, replicas) once it has one, else 0.
    pub map_hash: u64,
}

/// A request passed on to a node that should lead its shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The sender's number for it; the answer carries it.
    pub id: u64,
    /// How long the sender will wait, in milliseconds.
    pub timeout_ms: u32,
    /// Its place in its client's session, if it has one.
    pub stamp: Option<Stamp>,
    /// How many replicas are to have it on disk before it is acknowledged; 0 for a majority.
    pub copies: u32,
    /// The request.
    pub request: Request,
}

/// "Are you still at this term?", for all shards that have reads waiting; ReadIndex for many groups at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProbe {
    /// The sender's boot count, so that a round is never mistaken for one before a restart.
    pub boot: u64,
    /// Rises with every probe of one boot.
    pub round: u64,
    /// The shards that the sender leads, with its terms.
    pub shards: Vec<(ShardId, Term)>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProbeReply {
    /// As asked.
    pub boot: u64,
    /// As asked.
    pub round: u64,
    /// The shards of the probe at whose term this node is *not*, or that it doesn't have.
    pub refused: Vec<ShardId>,
}

/// "At which index may I read now?", from a replica that follows to the node that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// Whose.
    pub shard: ShardId,
    /// The sender's number for it, never used twice, also not after a restart.
    pub number: u64,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexReply {
    /// As asked.
    pub shard: ShardId,
    /// As asked.
    pub number: u64,
    /// The leader's term, and the index that it had committed when a majority confirmed that; nothing if this node does not
    /// lead.
    pub told: Option<(Term, Index)>,
}

/// Raft's role of one replica.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Takes writes.
    Leader,
    /// Follows.
    #[default]
    Follower,
    /// Wants to lead.
    Candidate,
}

/// One replica's state, as its node reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaReport {
    /// Which shard.
    pub shard: ShardId,
    /// Its role.
    pub role: Role,
    /// Its term.
    pub term: Term,
    /// The last index in its log.
    pub last: Index,
    /// The last index that it knows to be committed.
    pub committed: Index,
    /// The last index in its table.
    pub applied: Index,
    /// Its revision.
    pub revision: Revision,
    /// Estimated rows.
    pub keys_estimate: u64,
    /// Estimated bytes.
    pub bytes_estimate: u64,
}

/// What a node tells the others about itself each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// It can't write, for lack of room.
    pub disk_full: bool,
    /// One for each replica that it has.
    pub replicas: Vec<ReplicaReport>,
}

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

/// One message between nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// Who I am.
    Hello(Hello),
    /// I won't work with you, for this reason.
    Refused {
        /// One line for people: what is wrong and what to do.
        reason: String,
    },
    /// A message between two replicas of a shard.
    Raft {
        /// Whose.
        shard: ShardId,
        /// In `consensus`' encoding.
        message: Bytes,
    },
    /// Please do this.
    Forward(Forward),
    /// This came of it.
    Answer {
        /// The number in the `Forward`.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Are you still with me?
    ReadProbe(ReadProbe),
    /// The answer to it.
    ReadProbeReply(ReadProbeReply),
    /// What may I read?
    ReadIndex(ReadIndex),
    /// The answer to it.
    ReadIndexReply(ReadIndexReply),
    /// How I am.
    Report(NodeReport),
    /// Part of a table. Goes after everything else that waits, so that nothing waits for a table.
    SnapshotChunk(SnapshotChunk),
    /// The answer to it.
    SnapshotReply(SnapshotReply),
}

/// Everything that one node tells another after one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFrame {
    /// Who speaks.
    pub from: NodeId,
    /// To whom; a frame that went astray is dropped.
    pub to: NodeId,
    /// The speaker's data directory.
    pub incarnation: Incarnation,
    /// The speaker's cluster; 0 before birth.
    pub cluster: u64,
    /// The speaker's layout; 0 before birth.
    pub epoch: Epoch,
    /// In order.
    pub messages: Vec<PeerMessage>,
}

impl PeerFrame {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256);
        out.put_u8(FRAME_VERSION);
        put_varint(&mut out, self.from.0);
        put_varint(&mut out, self.to.0);
        out.put_u64_le(self.incarnation.0);
        out.put_u64_le(self.cluster);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, self.messages.len() as u64);
        for message in &self.messages {
            message.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads what [`PeerFrame::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<PeerFrame, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FRAME_VERSION {
            return Err(Malformed("unknown version of a peer frame"));
        }
        let from = NodeId(reader.varint()?);
        let to = NodeId(reader.varint()?);
        let incarnation = Incarnation(reader.u64()?);
        let cluster = reader.u64()?;
        let epoch = Epoch(reader.varint()?);
        let count = reader.count(1)?;
        if count > PEER_FRAME_MESSAGES_MAX {
            return Err(Malformed("too many messages in a peer frame"));
        }
        let mut messages = Vec::new();
        for _ in 0..count {
            messages.push(PeerMessage::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(PeerFrame { from, to, incarnation, cluster, epoch, messages })
    }
}

impl PeerMessage {
    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 16;
        OVERHEAD
            + match self {
                PeerMessage::Raft { message, .. } => message.len(),
                PeerMessage::Forward(forward) => forward.request.weight() + Stamp::WEIGHT,
                PeerMessage::Answer { reply, .. } => reply.weight(),
                PeerMessage::ReadProbe(probe) => 4 * probe.shards.len(),
                PeerMessage::Report(report) => 1 + 32 * report.replicas.len(),
                PeerMessage::SnapshotChunk(chunk) => 32 + chunk.bytes.len(),
                _ => 256,
            }
    }

    fn encode(&self, out: &mut BytesMut) {
        match self {
            PeerMessage::Hello(hello) => {
                out.put_u8(1);
                hello.encode(out);
            }
            PeerMessage::Refused { reason } => {
                out.put_u8(2);
                put_bytes(out, &reason.as_bytes()[..reason.floor_char_boundary(REASON_BYTES_MAX)]);
            }
            PeerMessage::Raft { shard, message } => {
                out.put_u8(3);
                put_varint(out, shard.0.into());
                put_bytes(out, message);
            }
            PeerMessage::Forward(forward) => {
                out.put_u8(4);
                put_varint(out, forward.id);
                put_varint(out, forward.timeout_ms.into());
                out.put_u8(forward.stamp.is_some().into());
                if let Some(stamp) = &forward.stamp {
                    stamp.encode(out);
                }
                put_varint(out, forward.copies.into());
                forward.request.encode(out);
            }
            PeerMessage::Answer { id, reply } => {
                out.put_u8(5);
                put_varint(out, *id);
                reply.encode(out);
            }
            PeerMessage::ReadProbe(probe) => {
                out.put_u8(6);
                put_varint(out, probe.boot);
                put_varint(out, probe.round);
                put_varint(out, probe.shards.len() as u64);
                for (shard, term) in &probe.shards {
                    put_varint(out, shard.0.into());
                    put_varint(out, term.0);
                }
            }
            PeerMessage::ReadProbeReply(reply) => {
                out.put_u8(7);
                put_varint(out, reply.boot);
                put_varint(out, reply.round);
                put_varint(out, reply.refused.len() as u64);
                for shard in &reply.refused {
                    put_varint(out, shard.0.into());
                }
            }
            PeerMessage::Report(report) => {
                out.put_slice(&[8, report.disk_full.into()]);
                put_varint(out, report.replicas.len() as u64);
                for replica in &report.replicas {
                    replica.encode(out);
                }
            }
            PeerMessage::SnapshotChunk(chunk) => {
                out.put_slice(&[9, chunk.is_last.into()]);
                put_varint(out, chunk.shard.0.into());
                put_varint(out, chunk.transfer);
                put_varint(out, chunk.index.0);
                put_varint(out, chunk.number);
                put_bytes(out, &chunk.bytes);
            }
            PeerMessage::SnapshotReply(reply) => {
                let verdict = match reply.verdict {
                    SnapshotVerdict::More => 0,
                    SnapshotVerdict::Complete => 1,
                    SnapshotVerdict::Refused => 2,
                };
                out.put_slice(&[10, verdict]);
                put_varint(out, reply.shard.0.into());
                put_varint(out, reply.transfer);
                put_varint(out, reply.stored);
            }
            PeerMessage::ReadIndex(question) => {
                out.put_u8(11);
                put_varint(out, question.shard.0.into());
                put_varint(out, question.number);
            }
            PeerMessage::ReadIndexReply(reply) => {
                out.put_slice(&[12, reply.told.is_some().into()]);
                put_varint(out, reply.shard.0.into());
                put_varint(out, reply.number);
                if let Some((term, index)) = reply.told {
                    put_varint(out, term.0);
                    put_varint(out, index.0);
                }
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<PeerMessage, Malformed> {
        Ok(match reader.u8()? {
            1 => PeerMessage::Hello(Hello::decode(reader)?),
            2 => PeerMessage::Refused { reason: reader.string(REASON_BYTES_MAX)? },
            3 => PeerMessage::Raft {
                shard: ShardId(reader.varint()? as u32),
                message: reader.bytes(RAFT_BYTES_MAX)?,
            },
            4 => PeerMessage::Forward(Forward {
                id: reader.varint()?,
                timeout_ms: reader.varint()? as u32,
                stamp: if reader.u8()? == 0 { None } else { Some(Stamp::decode(reader)?) },
                copies: reader.varint()? as u32,
                request: Request::decode(reader)?,
            }),
            5 => PeerMessage::Answer { id: reader.varint()?, reply: Reply::decode(reader)? },
            6 => {
                let boot = reader.varint()?;
                let round = reader.varint()?;
                let count = reader.count(2)?;
                let mut shards = Vec::with_capacity(count);
                for _ in 0..count {
                    shards.push((ShardId(reader.varint()? as u32), Term(reader.varint()?)));
                }
                PeerMessage::ReadProbe(ReadProbe { boot, round, shards })
            }
            7 => {
                let boot = reader.varint()?;
                let round = reader.varint()?;
                let count = reader.count(1)?;
                let mut refused = Vec::with_capacity(count);
                for _ in 0..count {
                    refused.push(ShardId(reader.varint()? as u32));
                }
                PeerMessage::ReadProbeReply(ReadProbeReply { boot, round, refused })
            }
            8 => {
                let disk_full = reader.u8()? != 0;
                let count = reader.count(9)?;
                let mut replicas = Vec::with_capacity(count);
                for _ in 0..count {
                    replicas.push(ReplicaReport::decode(reader)?);
                }
                PeerMessage::Report(NodeReport { disk_full, replicas })
            }
            9 => {
                let is_last = reader.u8()? != 0;
                PeerMessage::SnapshotChunk(SnapshotChunk {
                    shard: ShardId(reader.varint()? as u32),
                    transfer: reader.varint()?,
                    index: Index(reader.varint()?),
                    number: reader.varint()?,
                    is_last,
                    bytes: reader.bytes(CHUNK_BYTES_MAX)?,
                })
            }
            10 => {
                let verdict = match reader.u8()? {
                    0 => SnapshotVerdict::More,
                    1 => SnapshotVerdict::Complete,
                    2 => SnapshotVerdict::Refused,
                    _ => return Err(Malformed("unknown verdict on a snapshot")),
                };
                PeerMessage::SnapshotReply(SnapshotReply {
                    shard: ShardId(reader.varint()? as u32),
                    transfer: reader.varint()?,
                    stored: reader.varint()?,
                    verdict,
                })
            }
            11 => PeerMessage::ReadIndex(ReadIndex {
                shard: ShardId(reader.varint()? as u32),
                number: reader.varint()?,
            }),
            12 => {
                let is_told = reader.u8()? != 0;
                let (shard, number) = (ShardId(reader.varint()? as u32), reader.varint()?);
                let told =
                    if is_told { Some((Term(reader.varint()?), Index(reader.varint()?))) } else { None };
                PeerMessage::ReadIndexReply(ReadIndexReply { shard, number, told })
            }
            _ => return Err(Malformed("unknown kind of peer message")),
        })
    }
}

impl Hello {
    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.address.as_bytes());
        put_varint(out, self.addresses.len() as u64);
        for (address, name) in self.addresses.iter().zip(&self.names) {
            put_bytes(out, address.as_bytes());
            put_bytes(out, name.as_bytes());
        }
        put_varint(out, self.shards.into());
        put_varint(out, self.replicas.into());
        out.put_u8(match self.stage {
            BirthStage::Waiting => 0,
            BirthStage::Mapped => 1,
            BirthStage::Born => 2,
        });
        out.put_u64_le(self.map_hash);
    }

    fn decode(reader: &mut Reader) -> Result<Hello, Malformed> {
        let name = reader.string(NAME_BYTES_MAX)?;
        if !is_name(&name) {
            return Err(Malformed("not a node's name"));
        }
        let address = reader.string(ADDRESS_BYTES_MAX)?;
        let count = reader.count(2)?;
        if count > BIRTH_NODES_MAX {
            return Err(Malformed("too many nodes in a list"));
        }
        let (mut addresses, mut names) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            addresses.push(reader.string(ADDRESS_BYTES_MAX)?);
            names.push(reader.string(NAME_BYTES_MAX)?);
        }
        Ok(Hello {
            name,
            address,
            addresses,
            names,
            shards: reader.varint()? as u32,
            replicas: reader.varint()? as u32,
            stage: match reader.u8()? {
                0 => BirthStage::Waiting,
                1 => BirthStage::Mapped,
                2 => BirthStage::Born,
                _ => return Err(Malformed("unknown stage of birth")),
            },
            map_hash: reader.u64()?,
        })
    }
}

impl ReplicaReport {
    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
        out.put_u8(match self.role {
            Role::Follower => 0,
            Role::Candidate => 1,
            Role::Leader => 2,
        });
        put_varint(out, self.term.0);
        put_varint(out, self.last.0);
        put_varint(out, self.committed.0);
        put_varint(out, self.applied.0);
        put_varint(out, self.revision.0);
        put_varint(out, self.keys_estimate);
        put_varint(out, self.bytes_estimate);
    }

    fn decode(reader: &mut Reader) -> Result<ReplicaReport, Malformed> {
        Ok(ReplicaReport {
            shard: ShardId(reader.varint()? as u32),
            role: match reader.u8()? {
                0 => Role::Follower,
                1 => Role::Candidate,
                2 => Role::Leader,
                _ => return Err(Malformed("unknown role")),
            },
            term: Term(reader.varint()?),
            last: Index(reader.varint()?),
            committed: Index(reader.varint()?),
            applied: Index(reader.varint()?),
            revision: Revision(reader.varint()?),
            keys_estimate: reader.varint()?,
            bytes_estimate: reader.varint()?,
        })
    }
}
