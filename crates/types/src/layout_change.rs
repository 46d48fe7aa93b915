//! What an operator wants of the cluster's layout, as an order to the meta group. The layout itself is `ringfort-ring`'s.
//!
//! ```text
//! layout change = 1: leader preference u8
//!                 2: shard varint | node varint | peer varint
//!                 3: newcomer
//!                 4: node varint | standing u8
//!                 5: copies varint
//!                 6: epoch varint | count varint | (shard varint | count varint | node varint × count) × count
//!                 7: epoch varint
//!                 8: newcomer | its highest level varint
//!                 9: node varint | its highest level varint
//!                 10: level varint, 0 for none
//!                 11: level varint
//!                 12: count varint | (node varint | address bytes) × count
//!                 13: user change, as in `users/change`
//! newcomer = name bytes | address bytes | incarnation u64 | weight varint | zone bytes | replaces u8 (0 or 1)
//! leader preference = 0 ring | 1 highest id
//! standing = 0 active | 1 draining | 2 leaving
//! ```
//!
//! A newcomer of kind 3, which nobody makes any more, knows level 1 only. Kind 13 is of level 2.
//!
//! Each says what should be, not what to do, so giving one twice is as good as once.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::limits::{ADDRESS_BYTES_MAX, BIRTH_NODES_MAX, GROUP_REPLICAS_MAX, NAME_BYTES_MAX, SHARDS_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{
    Epoch, Incarnation, Level, LevelLimit, NodeId, PeerId, Replica, ShardId, UserChange, check_address,
};

/// Which of a shard's replicas should lead it, if it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeaderPreference {
    /// The first in line, as the ring has dealt them: leaders are spread evenly.
    #[default]
    Ring,
    /// The one on the node with the highest number, as a bully election would have it.
    HighestId,
}

impl LeaderPreference {
    /// All there are.
    pub const ALL: [LeaderPreference; 2] = [LeaderPreference::Ring, LeaderPreference::HighestId];

    /// Its byte.
    pub fn encode(self) -> u8 {
        self as u8
    }

    /// Reads its byte.
    pub fn decode(byte: u8) -> Result<LeaderPreference, Malformed> {
        let known = LeaderPreference::ALL.into_iter().find(|preference| preference.encode() == byte);
        known.ok_or(Malformed("unknown leader preference"))
    }
}

impl fmt::Display for LeaderPreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeaderPreference::Ring => "ring",
            LeaderPreference::HighestId => "highest-id",
        })
    }
}

impl FromStr for LeaderPreference {
    type Err = String;

    fn from_str(text: &str) -> Result<LeaderPreference, String> {
        let known = LeaderPreference::ALL.into_iter().find(|preference| preference.to_string() == text);
        known.ok_or_else(|| format!("no leader preference is called {text}: say ring or highest-id"))
    }
}

/// Whether a member of the cluster is given replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Standing {
    /// It is.
    #[default]
    Active,
    /// It is not, and those that it has go elsewhere. It stays a member.
    Draining,
    /// The same, and once it has none it is no member any more.
    Leaving,
}

impl Standing {
    /// All there are.
    pub const ALL: [Standing; 3] = [Standing::Active, Standing::Draining, Standing::Leaving];

    /// Its byte.
    pub fn encode(self) -> u8 {
        self as u8
    }

    /// Reads its byte.
    pub fn decode(byte: u8) -> Result<Standing, Malformed> {
        let known = Standing::ALL.into_iter().find(|standing| standing.encode() == byte);
        known.ok_or(Malformed("unknown standing of a member"))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Standing::Active => "active",
            Standing::Draining => "draining",
            Standing::Leaving => "leaving",
        })
    }
}

/// A node that wants to be a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// Its operator's name for it.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its data directory's number.
    pub incarnation: Incarnation,
    /// How much it takes compared to others.
    pub weight: u32,
    /// Its zone; empty for none.
    pub zone: String,
    /// It takes the place of the member that has its name, whose data directory is lost for good.
    pub replaces: bool,
    /// The highest level that it knows.
    pub max: Level,
}

/// Shards, and the nodes that each should be on, the preferred leader first.
pub type Places = Vec<(ShardId, Vec<NodeId>)>;

/// One thing that should be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayoutChange {
    /// Who should lead.
    Prefer(LeaderPreference),
    /// This replica of the shard is to be made anew where it is, as another peer. What it has forgotten, or has damaged, is then
    /// nobody's word.
    Renew {
        /// Whose.
        shard: ShardId,
        /// The replica as it is.
        replica: Replica,
    },
    /// This node is a member.
    Join(Newcomer),
    /// Whether this member is given replicas.
    Stand(NodeId, Standing),
    /// So many copies of each shard are wanted.
    Copies(u32),
    /// These shards are to be on these nodes. Made for the layout of this epoch, and void for a later one.
    Place {
        /// That epoch.
        epoch: Epoch,
        /// Those that move.
        places: Places,
    },
    /// All groups have gone to where the layout of this epoch wants them, so who is leaving and has no place there is gone. Void for
    /// a later one.
    Reached {
        /// That epoch.
        epoch: Epoch,
    },
    /// This member runs a version that knows levels up to this one. Void if that is below the one in force.
    Knows(NodeId, Level),
    /// How far the level in force may rise.
    Limit(LevelLimit),
    /// These members are at these addresses now. All of them at once, so that members can change places. Void if two members would have one
    /// address.
    Move(Vec<(NodeId, String)>),
    /// This level is in force. Void if a member is not known to know it, if it is held back, and if a higher one is.
    Raise(Level),
    /// This is so of users. From [`Level::USERS`] on; void before, and where [`Users::after`](crate::Users::after) says so.
    Users(UserChange),
}

impl LayoutChange {
    pub(crate) fn encode(&self, out: &mut BytesMut) {
        match self {
            LayoutChange::Prefer(preference) => out.put_slice(&[1, preference.encode()]),
            LayoutChange::Renew { shard, replica } => {
                out.put_u8(2);
                put_varint(out, shard.0.into());
                put_varint(out, replica.node.0);
                put_varint(out, replica.peer.0);
            }
            LayoutChange::Join(new) => {
                out.put_u8(8);
                put_bytes(out, new.name.as_bytes());
                put_bytes(out, new.address.as_bytes());
                out.put_u64_le(new.incarnation.0);
                put_varint(out, new.weight.into());
                put_bytes(out, new.zone.as_bytes());
                out.put_u8(new.replaces.into());
                new.max.put(out);
            }
            LayoutChange::Stand(node, standing) => {
                out.put_u8(4);
                put_varint(out, node.0);
                out.put_u8(standing.encode());
            }
            LayoutChange::Copies(copies) => {
                out.put_u8(5);
                put_varint(out, (*copies).into());
            }
            LayoutChange::Place { epoch, places } => {
                out.put_u8(6);
                put_varint(out, epoch.0);
                put_varint(out, places.len() as u64);
                for (shard, nodes) in places {
                    put_varint(out, shard.0.into());
                    put_varint(out, nodes.len() as u64);
                    for node in nodes {
                        put_varint(out, node.0);
                    }
                }
            }
            LayoutChange::Reached { epoch } => {
                out.put_u8(7);
                put_varint(out, epoch.0);
            }
            LayoutChange::Knows(node, max) => {
                out.put_u8(9);
                put_varint(out, node.0);
                max.put(out);
            }
            LayoutChange::Limit(limit) => {
                out.put_u8(10);
                limit.put(out);
            }
            LayoutChange::Raise(level) => {
                out.put_u8(11);
                level.put(out);
            }
            LayoutChange::Move(moves) => {
                out.put_u8(12);
                put_varint(out, moves.len() as u64);
                for (node, address) in moves {
                    put_varint(out, node.0);
                    put_bytes(out, address.as_bytes());
                }
            }
            LayoutChange::Users(change) => {
                out.put_u8(13);
                change.encode(out);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<LayoutChange, Malformed> {
        match reader.u8()? {
            1 => Ok(LayoutChange::Prefer(LeaderPreference::decode(reader.u8()?)?)),
            2 => {
                let shard = shard(reader)?;
                let replica = Replica { node: NodeId(reader.varint()?), peer: PeerId(reader.varint()?) };
                Ok(LayoutChange::Renew { shard, replica })
            }
            3 => Ok(LayoutChange::Join(newcomer(reader)?)),
            4 => Ok(LayoutChange::Stand(NodeId(reader.varint()?), Standing::decode(reader.u8()?)?)),
            5 => {
                let copies = u32::try_from(reader.varint()?).ok();
                let copies = copies.filter(|copies| (1..=BIRTH_NODES_MAX as u32).contains(copies));
                Ok(LayoutChange::Copies(copies.ok_or(Malformed("a number of copies over its limit"))?))
            }
            6 => {
                let epoch = Epoch(reader.varint()?);
                let count = reader.count(2)?;
                let places = (0..count).map(|_| place(reader)).collect::<Result<Vec<_>, _>>()?;
                Ok(LayoutChange::Place { epoch, places })
            }
            7 => Ok(LayoutChange::Reached { epoch: Epoch(reader.varint()?) }),
            8 => {
                let newcomer = newcomer(reader)?;
                Ok(LayoutChange::Join(Newcomer { max: Level::read(reader)?, ..newcomer }))
            }
            9 => Ok(LayoutChange::Knows(NodeId(reader.varint()?), Level::read(reader)?)),
            10 => Ok(LayoutChange::Limit(LevelLimit::read(reader)?)),
            11 => Ok(LayoutChange::Raise(Level::read(reader)?)),
            12 => {
                let count = reader.count(2)?;
                if count > BIRTH_NODES_MAX {
                    return Err(Malformed("more members that move than there can be"));
                }
                let moves = (0..count).map(|_| place_of(reader)).collect::<Result<Vec<_>, _>>()?;
                Ok(LayoutChange::Move(moves))
            }
            13 => Ok(LayoutChange::Users(UserChange::decode(reader)?)),
            _ => Err(Malformed("unknown kind of layout change")),
        }
    }

    /// Its size for the purpose of bounds.
    pub(crate) fn weight(&self) -> usize {
        match self {
            LayoutChange::Join(new) => 64 + new.name.len() + new.address.len() + new.zone.len(),
            LayoutChange::Place { places, .. } => {
                places.iter().map(|(_, nodes)| 8 + 8 * nodes.len()).sum::<usize>() + 16
            }
            LayoutChange::Move(moves) => {
                moves.iter().map(|(_, address)| 16 + address.len()).sum::<usize>() + 16
            }
            LayoutChange::Users(change) => change.weight(),
            _ => 16,
        }
    }
}

fn place_of(reader: &mut Reader) -> Result<(NodeId, String), Malformed> {
    let node = NodeId(reader.varint()?);
    let address = reader.string(ADDRESS_BYTES_MAX)?;
    if check_address(&address).is_err() {
        return Err(Malformed("not an address of a node"));
    }
    Ok((node, address))
}

fn newcomer(reader: &mut Reader) -> Result<Newcomer, Malformed> {
    Ok(Newcomer {
        name: reader.string(NAME_BYTES_MAX)?,
        address: reader.string(ADDRESS_BYTES_MAX)?,
        incarnation: Incarnation(reader.u64()?),
        weight: u32::try_from(reader.varint()?).map_err(|_| Malformed("weight over its limit"))?,
        zone: reader.string(NAME_BYTES_MAX)?,
        replaces: match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Malformed("neither yes nor no")),
        },
        max: Level(1),
    })
}

fn shard(reader: &mut Reader) -> Result<ShardId, Malformed> {
    let shard = u32::try_from(reader.varint()?).ok().filter(|shard| *shard <= SHARDS_MAX);
    shard.map(ShardId).ok_or(Malformed("a shard's number over its limit"))
}

fn place(reader: &mut Reader) -> Result<(ShardId, Vec<NodeId>), Malformed> {
    let shard = shard(reader)?;
    let count = reader.count(1)?;
    if count > GROUP_REPLICAS_MAX {
        return Err(Malformed("too many replicas of a group"));
    }
    let nodes = (0..count).map(|_| Ok(NodeId(reader.varint()?))).collect::<Result<Vec<_>, Malformed>>()?;
    Ok((shard, nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8]) -> Result<LayoutChange, Malformed> {
        let mut reader = Reader::new(bytes.to_vec().into());
        let change = LayoutChange::decode(&mut reader)?;
        reader.finish()?;
        Ok(change)
    }

    #[test]
    fn members_that_move_are_read_as_they_were_written_and_bounded() {
        let moves = |count: u64, address: &str| {
            let moves = (1..=count).map(|node| (NodeId(node), format!("{address}:{node}"))).collect();
            let mut out = BytesMut::new();
            LayoutChange::Move(moves).encode(&mut out);
            out
        };
        for count in [0, 1, 3, BIRTH_NODES_MAX as u64] {
            let LayoutChange::Move(read) = decoded(&moves(count, "[::1]")).expect("our own encoding") else {
                panic!("another change")
            };
            assert_eq!(read.len() as u64, count);
            assert!(read.iter().all(|(node, address)| *address == format!("[::1]:{node}")));
        }
        assert!(decoded(&moves(BIRTH_NODES_MAX as u64 + 1, "host")).is_err());
        assert!(decoded(&moves(1, "no host")).is_err());
        let whole = moves(2, "host");
        assert!((0..whole.len()).all(|cut| decoded(&whole[..cut]).is_err()));
    }
}
