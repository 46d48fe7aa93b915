//! What a node tells the others about itself.

use bytes::{BufMut, BytesMut};

use super::Wire;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{DiskState, Epoch, Index, PeerId, Revision, ShardId, Term};

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

/// What a node tells the others about itself each second.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Whether it can write.
    pub disk: DiskState,
    /// One for each replica that it has.
    pub replicas: Vec<ReplicaReport>,
    /// The shards whose replica on it takes no part, because its table is damaged.
    pub damaged: Vec<ShardId>,
}

impl Wire for NodeReport {
    const KIND: u8 = 8;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(match self.disk {
            DiskState::Working => 0,
            DiskState::Full => 1,
            DiskState::Hung => 2,
        });
        put_varint(out, self.replicas.len() as u64);
        for replica in &self.replicas {
            replica.encode(out);
        }
        put_varint(out, self.damaged.len() as u64);
        for shard in &self.damaged {
            put_varint(out, shard.0.into());
        }
    }

    fn decode(reader: &mut Reader) -> Result<NodeReport, Malformed> {
        let disk = match reader.u8()? {
            0 => DiskState::Working,
            1 => DiskState::Full,
            2 => DiskState::Hung,
            _ => return Err(Malformed("no such state of a disk")),
        };
        let count = reader.count(9)?;
        let mut replicas = Vec::with_capacity(count);
        for _ in 0..count {
            replicas.push(ReplicaReport::decode(reader)?);
        }
        let count = reader.count(1)?;
        let mut damaged = Vec::with_capacity(count);
        for _ in 0..count {
            damaged.push(ShardId(reader.varint()? as u32));
        }
        Ok(NodeReport { disk, replicas, damaged })
    }

    fn weight(&self) -> usize {
        1 + 32 * self.replicas.len() + 4 * self.damaged.len()
    }
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
