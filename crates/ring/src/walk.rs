//! The ring of hashes, and each shard's walk around it.

use ringfort_types::ShardId;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::Member;

/// Fixed for ever: a walk is the same on every node and in every version.
const SEED: u64 = 0x0052_494e_4746_4f52;
/// Points of a node of weight 1.
const POINTS: u64 = 64;
const NODE: u8 = 1;
const SHARD: u8 = 2;

/// All nodes' points in ring order: (hash, index into the members).
pub(crate) struct Points {
    points: Vec<(u64, usize)>,
    nodes: usize,
}

impl Points {
    pub(crate) fn new(members: &[Member]) -> Points {
        let mut points: Vec<(u64, usize)> = members
            .iter()
            .enumerate()
            .flat_map(|(node, member)| {
                (0..POINTS * u64::from(member.weight)).map(move |i| (hash(NODE, member.id.0, i), node))
            })
            .collect();
        points.sort_unstable();
        Points { points, nodes: members.len() }
    }

    /// All nodes, as indexes into the members, in the order in which they are first met clockwise from the
    /// shard's point.
    pub(crate) fn walk(&self, shard: ShardId) -> Vec<usize> {
        let from = hash(SHARD, shard.0.into(), 0);
        let start = self.points.partition_point(|&(point, _)| point < from);
        let mut met = vec![false; self.nodes];
        let mut order = Vec::with_capacity(self.nodes);
        for &(_, node) in self.points[start..].iter().chain(&self.points[..start]) {
            if !met[node] {
                met[node] = true;
                order.push(node);
                if order.len() == self.nodes {
                    break;
                }
            }
        }
        order
    }
}

fn hash(kind: u8, id: u64, point: u64) -> u64 {
    let mut bytes = [0; 17];
    bytes[0] = kind;
    bytes[1..9].copy_from_slice(&id.to_le_bytes());
    bytes[9..].copy_from_slice(&point.to_le_bytes());
    xxh3_64_with_seed(&bytes, SEED)
}
