//! A layout's bytes, as they are kept in a node's birth record, in its layout file, and by the meta group.
//!
//! ```text
//! layout  = version u8 (2) | flags u8 (0) | epoch varint | placed varint | cluster u64 | next node varint | next peer varint | copies varint
//!         | leader preference u8 | count varint | member × count | count varint | shard × count
//! member  = id varint | name bytes | address bytes | incarnation u64 | weight varint | zone bytes | standing u8
//! shard   = id varint | count varint | (first slot varint | last slot varint) × count
//!         | count varint | (node varint | peer varint) × count
//! ```
//!
//! What is read is checked: members and shards ascend, every slot has one owner, every replica is on a
//! member and on no node twice, and its peer is below the next one.

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::{ADDRESS_BYTES_MAX, NAME_BYTES_MAX, SHARDS_MAX};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint};
use ringfort_types::{
    Epoch, Incarnation, LeaderPreference, NodeId, PeerId, Replica, SLOTS, ShardId, Slot, Standing,
};

use crate::layout::{Layout, Member, Owners, ShardLayout};

const VERSION: u8 = 2;

impl Layout {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(256 + 64 * self.members.len() + 32 * self.shards.len());
        out.put_slice(&[VERSION, 0]);
        put_varint(&mut out, self.epoch.0);
        put_varint(&mut out, self.placed.0);
        out.put_u64_le(self.cluster);
        put_varint(&mut out, self.next_node.0);
        put_varint(&mut out, self.next_peer.0);
        put_varint(&mut out, self.copies.into());
        out.put_u8(self.leader_preference.encode());
        put_varint(&mut out, self.members.len() as u64);
        for member in &self.members {
            put_varint(&mut out, member.id.0);
            put_bytes(&mut out, member.name.as_bytes());
            put_bytes(&mut out, member.address.as_bytes());
            out.put_u64_le(member.incarnation.0);
            put_varint(&mut out, member.weight.into());
            put_bytes(&mut out, member.zone.as_bytes());
            out.put_u8(member.standing.encode());
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
        out.freeze()
    }

    /// Reads what [`Layout::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<Layout, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a layout"));
        }
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on a layout"));
        }
        let epoch = Epoch(reader.varint()?);
        let placed = Epoch(reader.varint()?);
        let cluster = reader.u64()?;
        let next_node = NodeId(reader.varint()?);
        let next_peer = PeerId(reader.varint()?);
        let copies = u32::try_from(reader.varint()?).map_err(|_| Malformed("too many copies"))?;
        let leader_preference = LeaderPreference::decode(reader.u8()?)?;
        let count = reader.count(13)?;
        let members = (0..count).map(|_| member(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        let count = reader.count(3)?;
        let shards = (0..count).map(|_| shard(&mut reader)).collect::<Result<Vec<_>, _>>()?;
        reader.finish()?;

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
            owners,
        };
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

fn member(reader: &mut Reader) -> Result<Member, Malformed> {
    Ok(Member {
        id: NodeId(reader.varint()?),
        name: reader.string(NAME_BYTES_MAX)?,
        address: reader.string(ADDRESS_BYTES_MAX)?,
        incarnation: Incarnation(reader.u64()?),
        weight: u32::try_from(reader.varint()?).map_err(|_| Malformed("weight over its limit"))?,
        zone: reader.string(NAME_BYTES_MAX)?,
        standing: Standing::decode(reader.u8()?)?,
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
