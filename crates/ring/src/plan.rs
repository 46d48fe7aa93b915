//! Where replicas should go, given which nodes there are now.

use ringfort_types::{LayoutChange, NodeId, Places, ShardId, Standing};

use crate::place::{lacking, place_from, place_one};
use crate::{Layout, META_NODES_MAX, Member, effective_copies};

/// Each round brings loads nearer to each other.
const ROUNDS_MAX: usize = 8;

impl Layout {
    /// The change that puts replicas where they should be; `None` if they are. Members that can't be used (`is_usable` says
    /// which can) have their replicas elsewhere, if the others are enough for all copies that there are to be; else they are waited for.
    ///
    /// As few replicas move as possible: those on nodes that go, those that are above their node's bound, and those that give a
    /// newcomer its share.
    pub fn plan(&self, is_usable: impl Fn(NodeId) -> bool) -> Option<LayoutChange> {
        let active: Vec<&Member> =
            self.members.iter().filter(|member| member.standing == Standing::Active).collect();
        let wanted = effective_copies(self.copies, active.len() as u32).0 as usize;
        let is_enough = active.iter().filter(|member| is_usable(member.id)).count() >= wanted;
        let stays = |id| !is_enough && self.has_replica_on(id);
        let given = active.into_iter().filter(|member| is_usable(member.id) || stays(member.id));
        let given: Vec<Member> = given.cloned().collect();
        if given.is_empty() {
            return None;
        }
        let copies = effective_copies(self.copies, given.len() as u32).0;
        let mut places: Places = Vec::new();
        let meta_copies = effective_copies(META_NODES_MAX, given.len() as u32).0;
        let now = self.nodes_of(0..1);
        if !is_placed(&now, &given, meta_copies) {
            places.push((ShardId::META, place_one(&given, ShardId::META, meta_copies, &now[0])));
        }
        let now = self.nodes_of(1..self.shards.len());
        if !is_placed(&now, &given, copies) || !lacking(&now, &given, copies).is_empty() {
            let then = settle(&now, &given, copies);
            let moved = (1..).map(ShardId).zip(now.iter().zip(then)).filter(|(_, (now, then))| *now != then);
            places.extend(moved.map(|(shard, (_, then))| (shard, then)));
        }
        (!places.is_empty()).then_some(LayoutChange::Place { epoch: self.epoch, places })
    }

    /// Whether there is to be one.
    pub(crate) fn has_replica_on(&self, node: NodeId) -> bool {
        self.shards.iter().any(|shard| shard.replicas.iter().any(|replica| replica.node == node))
    }

    fn nodes_of(&self, shards: std::ops::Range<usize>) -> Vec<Vec<NodeId>> {
        let nodes = |place: usize| self.shards[place].replicas.iter().map(|replica| replica.node).collect();
        shards.map(nodes).collect()
    }
}

/// Where the replicas are once nobody lacks any more that others could give.
fn settle(now: &[Vec<NodeId>], given: &[Member], copies: u32) -> Vec<Vec<NodeId>> {
    let mut then = now.to_vec();
    // What one that goes has had may leave others with less than their share.
    for _ in 0..ROUNDS_MAX {
        let next = place_from(&then, given, &lacking(&then, given, copies), copies);
        if next == then {
            break;
        }
        then = next;
    }
    then
}

/// Whether so many copies of each are on these nodes.
fn is_placed(now: &[Vec<NodeId>], given: &[Member], copies: u32) -> bool {
    let is_given = |node: &NodeId| given.iter().any(|member| member.id == *node);
    now.iter().all(|nodes| nodes.len() == copies as usize && nodes.iter().all(is_given))
}
