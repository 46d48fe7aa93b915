//! Where replicas should go, given which nodes there are now.

use ringfort_types::{LayoutChange, NodeId, Places, ShardId, Standing};

use crate::place::{lacking, place_from, place_one};
use crate::{Layout, META_NODES_MAX, Member, effective_copies};

impl Layout {
    /// The change that puts replicas where they should be; `None` if they are. Members that can't be used (`is_usable` says
    /// which can) have their replicas elsewhere, if the others are enough for all copies that there are to be; else they are waited for.
    ///
    /// As few replicas move as possible: those on nodes that go, those that are above their node's bound, and those that give a
    /// newcomer its share.
    pub fn plan(&self, is_usable: impl Fn(NodeId) -> bool) -> Option<LayoutChange> {
        let active: Vec<&Member> =
            self.members.iter().filter(|member| member.standing == Standing::Active).collect();
        let copies = effective_copies(self.copies, active.len() as u32).0;
        let usable = active.iter().filter(|member| is_usable(member.id)).count();
        let is_enough = usable >= copies as usize;
        let given = active.into_iter().filter(|member| !is_enough || is_usable(member.id));
        let given: Vec<Member> = given.cloned().collect();
        if given.is_empty() {
            return None;
        }
        let mut places: Places = Vec::new();
        let meta_copies = effective_copies(META_NODES_MAX, given.len() as u32).0;
        let now = self.nodes_of(0..1);
        if !is_placed(&now, &given, meta_copies) {
            places.push((ShardId::META, place_one(&given, ShardId::META, meta_copies, &now[0])));
        }
        let now = self.nodes_of(1..self.shards.len());
        let newcomers = lacking(&now, &given, copies);
        if !is_placed(&now, &given, copies) || !newcomers.is_empty() {
            let then = place_from(&now, &given, &newcomers, copies);
            let moved = (1..).map(ShardId).zip(now.iter().zip(then)).filter(|(_, (now, then))| *now != then);
            places.extend(moved.map(|(shard, (_, then))| (shard, then)));
        }
        (!places.is_empty()).then_some(LayoutChange::Place { epoch: self.epoch, places })
    }

    fn nodes_of(&self, shards: std::ops::Range<usize>) -> Vec<Vec<NodeId>> {
        let nodes = |place: usize| self.shards[place].replicas.iter().map(|replica| replica.node).collect();
        shards.map(nodes).collect()
    }
}

/// Whether so many copies of each are on these nodes.
fn is_placed(now: &[Vec<NodeId>], given: &[Member], copies: u32) -> bool {
    let is_given = |node: &NodeId| given.iter().any(|member| member.id == *node);
    now.iter().all(|nodes| nodes.len() == copies as usize && nodes.iter().all(is_given))
}
