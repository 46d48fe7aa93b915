//! What a node tells the others about itself: all of it ([`NodeReport`]) until the other one has said that it has that ([`ReportReply`]),
//! and from then on what has changed since ([`ReportChanges`]). A version that does not know the last two never says so, and is always
//! told everything.

use bytes::{BufMut, BytesMut};

use super::Wire;
use crate::limits::{APPEND_BYTES_MAX, SHARDS_MAX};
use crate::wire::{Malformed, Reader, put_varint};
use crate::{DiskState, Epoch, Index, NodeId, PeerId, Revision, ShardId, Term};

/// The least bytes that a replica takes in a report.
const REPLICA_BYTES_MIN: usize = 11;
/// The most: ten numbers and a role.
const REPLICA_BYTES_MAX: usize = 10 * 10 + 1;
/// For the purpose of bounds: what a replica and a shard take in a report, about.
const REPLICA_BYTES: usize = 48;
const SHARD_BYTES: usize = 4;

// So the largest report need not be split: others wait for it no longer than for entries of a log.
const _: () = assert!((SHARDS_MAX as usize + 1) * REPLICA_BYTES_MAX < APPEND_BYTES_MAX);

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
    /// Who it is in its group.
    pub peer: PeerId,
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
    /// Of a leader: the layout whose places its group has reached; 0 if it is on its way.
    pub reached: Epoch,
}

/// How far a snapshot is that a node sends to another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SnapshotProgress {
    /// Whose table it is.
    pub shard: ShardId,
    /// Where it goes.
    pub to: NodeId,
    /// Bytes that are stored there.
    pub bytes: u64,
    /// Estimated bytes of all of it.
    pub bytes_estimate: u64,
    /// For how long it has been sent, in milliseconds.
    pub elapsed_ms: u64,
}

/// The room on the file system that a node's data directory is on. Zeroes if nothing is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    /// Bytes that can still be written there.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
}

/// What a node tells the others about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Whether it can write.
    pub disk: DiskState,
    /// One for each replica that it has, by shard.
    pub replicas: Vec<ReplicaReport>,
    /// The shards whose replica on it takes no part, because its table is damaged.
    pub damaged: Vec<ShardId>,
    /// Rises with each change of the rest, in one process; 0 from a version that does not tell changes.
    pub number: u64,
    /// The snapshots that it sends.
    pub sends: Vec<SnapshotProgress>,
    /// About how much room it has.
    pub space: DiskSpace,
    /// Its disk is told as one that hangs, and is only slow: it does what it is given.
    pub is_slow: bool,
}

/// What has changed in a node's report. Nothing, most of the time: then it says that the node lives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReportChanges {
    /// The report that it is a difference to. Who has a later one can use it, too.
    pub base: u64,
    /// The report that comes of it.
    pub number: u64,
    /// Whether the node can write.
    pub disk: DiskState,
    /// Replicas of which something has changed, by shard.
    pub replicas: Vec<ReplicaReport>,
    /// Shards that it has no replica of any more.
    pub gone: Vec<ShardId>,
    /// If that has changed: all shards whose replica on it takes no part, because its table is damaged.
    pub damaged: Option<Vec<ShardId>>,
    /// All snapshots that it sends.
    pub sends: Vec<SnapshotProgress>,
    /// About how much room it has.
    pub space: DiskSpace,
    /// Its disk is told as one that hangs, and is only slow.
    pub is_slow: bool,
}

/// "I have your report of this number."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReportReply {
    /// The process whose report it is.
    pub process: u64,
    /// Its number; 0 for none.
    pub number: u64,
}

impl Wire for NodeReport {
    const KIND: u8 = 8;

    fn encode(&self, out: &mut BytesMut) {
        put_disk(self.disk, out);
        put_replicas(&self.replicas, out);
        put_shards(&self.damaged, out);
        put_varint(out, self.number);
        put_sends(&self.sends, out);
        put_space(self.space, out);
        out.put_u8(self.is_slow.into());
    }

    fn decode(reader: &mut Reader) -> Result<NodeReport, Malformed> {
        let (disk, replicas, damaged) = (read_disk(reader)?, read_replicas(reader)?, read_shards(reader)?);
        // Earlier versions end here.
        let is_earlier = reader.remaining() == 0;
        let (number, sends) =
            if is_earlier { (0, Vec::new()) } else { (reader.varint()?, read_sends(reader)?) };
        let (space, is_slow) = (read_space(reader)?, read_slow(reader)?);
        Ok(NodeReport { disk, replicas, damaged, number, sends, space, is_slow })
    }

    fn weight(&self) -> usize {
        REPLICA_BYTES * self.replicas.len() + SHARD_BYTES * self.damaged.len()
    }
}

impl Wire for ReportChanges {
    const KIND: u8 = 18;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.base);
        put_varint(out, self.number);
        put_disk(self.disk, out);
        put_replicas(&self.replicas, out);
        put_shards(&self.gone, out);
        out.put_u8(self.damaged.is_some().into());
        if let Some(damaged) = &self.damaged {
            put_shards(damaged, out);
        }
        put_sends(&self.sends, out);
        put_space(self.space, out);
        out.put_u8(self.is_slow.into());
    }

    fn decode(reader: &mut Reader) -> Result<ReportChanges, Malformed> {
        Ok(ReportChanges {
            base: reader.varint()?,
            number: reader.varint()?,
            disk: read_disk(reader)?,
            replicas: read_replicas(reader)?,
            gone: read_shards(reader)?,
            damaged: if reader.u8()? == 0 { None } else { Some(read_shards(reader)?) },
            sends: read_sends(reader)?,
            space: read_space(reader)?,
            is_slow: read_slow(reader)?,
        })
    }

    fn weight(&self) -> usize {
        let damaged = self.damaged.as_ref().map_or(0, Vec::len);
        REPLICA_BYTES * self.replicas.len() + SHARD_BYTES * (self.gone.len() + damaged)
    }
}

impl Wire for ReportReply {
    const KIND: u8 = 19;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.process);
        put_varint(out, self.number);
    }

    fn decode(reader: &mut Reader) -> Result<ReportReply, Malformed> {
        Ok(ReportReply { process: reader.u64()?, number: reader.varint()? })
    }

    fn weight(&self) -> usize {
        16
    }
}

fn put_disk(disk: DiskState, out: &mut BytesMut) {
    out.put_u8(match disk {
        DiskState::Working => 0,
        DiskState::Full => 1,
        DiskState::Hung => 2,
    });
}

fn read_disk(reader: &mut Reader) -> Result<DiskState, Malformed> {
    match reader.u8()? {
        0 => Ok(DiskState::Working),
        1 => Ok(DiskState::Full),
        2 => Ok(DiskState::Hung),
        _ => Err(Malformed("no such state of a disk")),
    }
}

fn put_space(space: DiskSpace, out: &mut BytesMut) {
    put_varint(out, space.free);
    put_varint(out, space.total);
}

/// Earlier versions end before it.
fn read_space(reader: &mut Reader) -> Result<DiskSpace, Malformed> {
    if reader.remaining() == 0 {
        return Ok(DiskSpace::default());
    }
    Ok(DiskSpace { free: reader.varint()?, total: reader.varint()? })
}

/// Earlier versions end before it.
fn read_slow(reader: &mut Reader) -> Result<bool, Malformed> {
    Ok(reader.remaining() > 0 && reader.u8()? != 0)
}

fn put_replicas(replicas: &[ReplicaReport], out: &mut BytesMut) {
    put_varint(out, replicas.len() as u64);
    for replica in replicas {
        replica.encode(out);
    }
}

fn read_replicas(reader: &mut Reader) -> Result<Vec<ReplicaReport>, Malformed> {
    let count = reader.count(REPLICA_BYTES_MIN)?;
    bounded(count)?;
    let mut replicas = Vec::with_capacity(count);
    for _ in 0..count {
        replicas.push(ReplicaReport::decode(reader)?);
    }
    Ok(replicas)
}

fn put_shards(shards: &[ShardId], out: &mut BytesMut) {
    put_varint(out, shards.len() as u64);
    for shard in shards {
        put_varint(out, shard.0.into());
    }
}

fn read_shards(reader: &mut Reader) -> Result<Vec<ShardId>, Malformed> {
    let count = reader.count(1)?;
    bounded(count)?;
    let mut shards = Vec::with_capacity(count);
    for _ in 0..count {
        shards.push(ShardId(reader.varint()? as u32));
    }
    Ok(shards)
}

fn put_sends(sends: &[SnapshotProgress], out: &mut BytesMut) {
    put_varint(out, sends.len() as u64);
    for sent in sends {
        put_varint(out, sent.shard.0.into());
        put_varint(out, sent.to.0);
        put_varint(out, sent.bytes);
        put_varint(out, sent.bytes_estimate);
        put_varint(out, sent.elapsed_ms);
    }
}

fn read_sends(reader: &mut Reader) -> Result<Vec<SnapshotProgress>, Malformed> {
    let count = reader.count(5)?;
    bounded(count)?;
    let mut sends = Vec::with_capacity(count);
    for _ in 0..count {
        sends.push(SnapshotProgress {
            shard: ShardId(reader.varint()? as u32),
            to: NodeId(reader.varint()?),
            bytes: reader.varint()?,
            bytes_estimate: reader.varint()?,
            elapsed_ms: reader.varint()?,
        });
    }
    Ok(sends)
}

/// The meta group counts, too.
fn bounded(count: usize) -> Result<(), Malformed> {
    if count <= SHARDS_MAX as usize + 1 { Ok(()) } else { Err(Malformed("more shards than a cluster has")) }
}

impl ReplicaReport {
    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
        put_varint(out, self.peer.0);
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
        put_varint(out, self.reached.0);
    }

    fn decode(reader: &mut Reader) -> Result<ReplicaReport, Malformed> {
        Ok(ReplicaReport {
            shard: ShardId(reader.varint()? as u32),
            peer: PeerId(reader.varint()?),
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
            reached: Epoch(reader.varint()?),
        })
    }
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
