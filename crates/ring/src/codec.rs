//! A layout's bytes, as they are kept in a node's birth record, in its layout file, and by the meta group.
//!
//! ```text
//! layout  = version u8 (3 or 4) | flags u8 (0) | level varint | cluster u64 | epoch varint | placed varint | next node varint | next peer varint
//!         | copies varint | leader preference u8 | level limit varint (0 none) | count varint | member × count | count varint | shard × count
//!         | users, from version 4 on
//! member  = id varint | name bytes | address bytes | incarnation u64 | weight varint | zone bytes | standing u8 | highest level varint
//! shard   = id varint | count varint | (first slot varint | last slot varint) × count
//!         | count varint | (node varint | peer varint) × count
//! users   = as in `ringfort_types::Users`
//! ```
//!
//! Every later version begins as this one does, up to the cluster: so whoever can't read a layout knows the level that is in force in it
//! ([`LayoutHead`]). A later version is written from its level on: version 4 where level 2 or a higher one is in force, and version 3, which
//! has no users, before.
//!
//! Version 2 is read, and written no more: `epoch | placed | cluster` after the flags, and nothing of levels. Level 1 is in force in
//! it, and the highest that its members are known to know.
//!
//! What is read is checked: members and shards ascend, every slot has one owner, every replica is on a
//! member and on no node twice, and its peer is below the next one.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, SHARDS_MAX};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint};
use ringfort_types::{
    Epoch, Incarnation, LeaderPreference, Level, LevelLimit, NodeId, PeerId, Replica, SLOTS, ShardId, Slot,
    Standing, Users,
};

use crate::layout::{Layout, Member, Owners, ShardLayout};

const WITH_USERS: u8 = 4;
/// Before level 2.
const WITHOUT_USERS: u8 = 3;
/// From before there were levels.
const WITHOUT_LEVELS: u8 = 2;

/// What every version can read of a layout, however late the version is that has written it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutHead {
    /// The level in force.
    pub level: Level,
    /// Whose layout it is.
    pub cluster: u64,
}

impl LayoutHead {
    /// It is in the first so many bytes.
    pub const BYTES_MAX: usize = 16;

    /// Reads the beginning of a layout; `None` if it is none, or from before there were levels.
    pub fn read(bytes: &Bytes) -> Option<LayoutHead> {
        let mut reader = Reader::new(bytes.clone());
        if reader.u8().ok()? <= WITHOUT_LEVELS {
            return None;
        }
        reader.u8().ok()?;
        Some(LayoutHead { level: Level::read(&mut reader).ok()?, cluster: reader.u64().ok()? })
    }
}

impl Layout {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + 64 * self.members.len() + 32 * self.shards.len());
        let has_users = self.level >= Level::USERS;
        out.put_slice(&[if has_users { WITH_USERS } else { WITHOUT_USERS }, 0]);
        self.level.put(&mut out);
        out.put_u64_le(self.cluster);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, self.placed.0);
        put_varint(&mut out, self.next_node.0);
        put_varint(&mut out, self.next_peer.0);
        put_varint(&mut out, self.copies.into());
        out.put_u8(self.leader_preference.encode());
        self.level_limit.put(&mut out);
        put_varint(&mut out, self.members.len() as u64);
        for member in &self.members {
            put_varint(&mut out, member.id.0);
            put_bytes(&mut out, member.name.as_bytes());
            put_bytes(&mut out, member.address.as_bytes());
            out.put_u64_le(member.incarnation.0);
            put_varint(&mut out, member.weight.into());
            put_bytes(&mut out, member.zone.as_bytes());
            out.put_u8(member.standing.encode());
            member.max.put(&mut out);
        }
        put_varint(&mut out, self.shards.len() as u64);
        for shard in &self.shards {
            put_varint(&mut out, shard.shard.0.into());
            put_varint(&mut out, shard.slots.len() as u64);
            for (first, last) in &shard.slots {
                put_varint(&mut out, first.0.into());
                put_varint(&mut out, last.0.into());
            }
            put_varint(&mut out, shard.replicas.len() as u64);
            for replica in &shard.replicas {
                put_varint(&mut out, replica.node.0);
                put_varint(&mut out, replica.peer.0);
            }
        }
        if has_users {
            self.users.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads what [`Layout::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Layout, Malformed> {
        let mut reader = Reader::new(bytes);
        let (has_levels, has_users) = match reader.u8()? {
            WITH_USERS => (true, true),
            WITHOUT_USERS => (true, false),
            WITHOUT_LEVELS => (false, false),
            _ => return Err(Malformed("unknown version of a layout")),
        };
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on a layout"));
        }
        let (level, cluster) =
            if has_levels { (Level::read(&mut reader)?, reader.u64()?) } else { (Level(1), 0) };
        let epoch = Epoch(reader.varint()?);
        let placed = Epoch(reader.varint()?);
        let cluster = if has_levels { cluster } else { reader.u64()? };
        let next_node = NodeId(reader.varint()?);
        let next_peer = PeerId(reader.varint()?);
        let copies = u32::try_from(reader.varint()?).map_err(|_| Malformed("too many copies"))?;
        let leader_preference = LeaderPreference::decode(reader.u8()?)?;
        let level_limit = if has_levels { LevelLimit::read(&mut reader)? } else { LevelLimit::Auto };
        let count = reader.count(13)?;
        let members = (0..count).map(|_| member(&mut reader, has_levels)).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count(3)?;
        let shards = (0..count).map(|_| shard(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let users = if has_users { Users::decode(&mut reader)? } else { Users::default() };
        reader.finish()?;

        if has_users != (level >= Level::USERS) {
            return Err(Malformed("a version of a layout that is not of its level"));
        }
        if members.is_empty() || !members.is_sorted_by(|a, b| a.id < b.id) || members[0].id == NodeId(0) {
            return Err(Malformed("members of a layout out of order"));
        }
        if shards.first().is_none_or(|meta| meta.shard != ShardId::META || !meta.slots.is_empty())
            || !shards.is_sorted_by(|a, b| a.shard < b.shard)
        {
            return Err(Malformed("shards of a layout out of order"));
        }
        let owners = Owners::new(&shards).ok_or(Malformed("a slot without an owner or with two"))?;
        if members.last().is_some_and(|last| last.id >= next_node) {
            return Err(Malformed("a member whose number was never given out"));
        }
        let layout = Layout {
            epoch,
            placed,
            cluster,
            members,
            shards,
            next_node,
            next_peer,
            copies,
            leader_preference,
            level,
            level_limit,
            users: Arc::new(users),
            owners,
        };
        if layout.members.iter().any(|member| member.max < level) {
            return Err(Malformed("a member that does not know the level in force"));
        }
        for shard in &layout.shards {
            for (place, replica) in shard.replicas.iter().enumerate() {
                if layout.member(replica.node).is_none() {
                    return Err(Malformed("a replica on a node that is no member"));
                }
                if replica.peer == PeerId(0) || replica.peer >= next_peer {
                    return Err(Malformed("a replica whose peer was never given out"));
                }
                if shard.replicas[..place].iter().any(|other| other.node == replica.node) {
                    return Err(Malformed("two replicas of a shard on one node"));
                }
            }
        }
        Ok(layout)
    }
}

fn member(reader: &mut Reader, has_level: bool) -> Result<Member, Malformed> {
    Ok(Member {
        id: NodeId(reader.varint()?),
        name: reader.string(NAME_BYTES_MAX)?,
        address: reader.string(ADDRESS_BYTES_MAX)?,
        incarnation: Incarnation(reader.u64()?),
        weight: u32::try_from(reader.varint()?).map_err(|_| Malformed("weight over its limit"))?,
        zone: reader.string(NAME_BYTES_MAX)?,
        standing: Standing::decode(reader.u8()?)?,
        max: if has_level { Level::read(reader)? } else { Level(1) },
    })
}

fn shard(reader: &mut Reader) -> Result<ShardLayout, Malformed> {
    let shard = u32::try_from(reader.varint()?).ok().filter(|&id| id <= SHARDS_MAX);
    let shard = ShardId(shard.ok_or(Malformed("shard number over its limit"))?);
    let count = reader.count(2)?;
    let slots =
        (0..count).map(|_| Ok((slot(reader)?, slot(reader)?))).collect::<Result<Vec<_>, Malformed>>()?;
    let count = reader.count(2)?;
    let replicas = (0..count)
        .map(|_| Ok(Replica { node: NodeId(reader.varint()?), peer: PeerId(reader.varint()?) }))
        .collect::<Result<Vec<_>, Malformed>>()?;
    if replicas.is_empty() {
        return Err(Malformed("a shard without replicas"));
    }
    Ok(ShardLayout { shard, slots, replicas })
}

fn slot(reader: &mut Reader) -> Result<Slot, Malformed> {
    let slot = reader.varint()?;
    if slot < u64::from(SLOTS) { Ok(Slot(slot as u16)) } else { Err(Malformed("slot over its limit")) }
}
