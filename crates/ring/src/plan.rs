//! Where replicas should go, given which nodes there are now.

use ringfort_types::{LayoutChange, NodeId, Places, ShardId, Standing};

use crate::place::{is_apart, lacking, place_from, place_one};
use crate::{Layout, META_NODES_MAX, Member, effective_copies};

/// Each round brings loads nearer to each other.
const ROUNDS_MAX: usize = 8;

impl Layout {
    /// The change that brings replicas where they should be, or nearer to it; `None` if they are, or are on their way. Members that
    /// can't be used (`is_usable` says which can) have their replicas elsewhere, if the others are enough for all copies that there are
    /// to be; else they are waited for.
    ///
    /// As few replicas move as possible: those on nodes that go, those that are above their node's bound, those that are in one zone
    /// with others of their shard and need not be, and those that give a newcomer its share. The only replica of a shard goes by way of two: the first leaves once the group has both (`is_reached` says of
    /// which shards that is so). Else a shard that is to come back before it has gone would be asked for another replica on
    /// the very node that has its only one.
    ///
    /// Nor does a shard get other places for the balance's sake before its group has reached those that it has: a node that it is to leave and
    /// then to come back to would be given another replica, while the group still needs the one that is there.
    pub fn plan(
        &self,
        is_usable: impl Fn(NodeId) -> bool,
        is_reached: impl Fn(ShardId) -> bool,
    ) -> Option<LayoutChange> {
        let now = self.nodes_of(0..self.shards.len());
        let is_left = |node: &NodeId| {
            let standing = self.member(*node).map(|member| member.standing);
            standing != Some(Standing::Active) || !is_usable(*node)
        };
        let next = |(shard, then): (ShardId, Vec<NodeId>)| {
            let now = &now[shard.0 as usize];
            if now.len() == then.len() && !now.iter().any(is_left) && !is_reached(shard) {
                return None;
            }
            Some((shard, step_of(now, then, || is_reached(shard))?))
        };
        let places: Places = self.settled(&is_usable).into_iter().filter_map(next).collect();
        (!places.is_empty()).then_some(LayoutChange::Place { epoch: self.epoch, places })
    }

    /// Where replicas should be in the end: the shards for which that is somewhere else than where they are.
    pub fn settled(&self, is_usable: impl Fn(NodeId) -> bool) -> Places {
        let active: Vec<&Member> =
            self.members.iter().filter(|member| member.standing == Standing::Active).collect();
        let wanted = effective_copies(self.copies, active.len() as u32).0 as usize;
        let is_enough = active.iter().filter(|member| is_usable(member.id)).count() >= wanted;
        let stays = |id| !is_enough && self.has_replica_on(id);
        let given = active.into_iter().filter(|member| is_usable(member.id) || stays(member.id));
        let given: Vec<Member> = given.cloned().collect();
        if given.is_empty() {
            return Vec::new();
        }
        let copies = effective_copies(self.copies, given.len() as u32).0;
        let meta_copies = effective_copies(META_NODES_MAX, given.len() as u32).0;
        let meta = heading(self.nodes_of(0..1), &given, meta_copies);
        let is_meta_settled = is_placed(&meta, &given, meta_copies) && is_apart(&meta, &given, meta_copies);
        let mut then = if is_meta_settled {
            meta
        } else {
            vec![place_one(&given, ShardId::META, meta_copies, &meta[0])]
        };
        let shards = heading(self.nodes_of(1..self.shards.len()), &given, copies);
        let is_settled = is_placed(&shards, &given, copies)
            && lacking(&shards, &given, copies).is_empty()
            && is_apart(&shards, &given, copies);
        then.extend(if is_settled { shards } else { settle(&shards, &given, copies) });
        let now = self.nodes_of(0..self.shards.len());
        let moved = (0..).map(ShardId).zip(now.iter().zip(then)).filter(|(_, (now, then))| *now != then);
        moved.map(|(shard, (_, then))| (shard, then)).collect()
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

/// Where these shards are going: one that goes from a node to another counts as there already, if that one is given replicas.
fn heading(now: Vec<Vec<NodeId>>, given: &[Member], copies: u32) -> Vec<Vec<NodeId>> {
    let is_given = |node: NodeId| given.iter().any(|member| member.id == node);
    let heads = |nodes: Vec<NodeId>| match nodes[..] {
        [from, to] if copies == 1 => vec![if is_given(from) && !is_given(to) { from } else { to }],
        _ => nodes,
    };
    now.into_iter().map(heads).collect()
}

/// The next step of a shard from these nodes to those.
fn step_of(now: &[NodeId], then: Vec<NodeId>, is_reached: impl Fn() -> bool) -> Option<Vec<NodeId>> {
    match (now, &then[..]) {
        ([from], [to]) if from != to => Some(vec![*from, *to]),
        ([_, to], [last]) if last == to => is_reached().then_some(then),
        ([from, _], [other]) if other != from => Some(vec![*from, *other]),
        _ => Some(then),
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

#[cfg(test)]
mod tests {
    use ringfort_types::{Incarnation, Level};

    use super::*;

    fn member(id: u64) -> Member {
        Member {
            id: NodeId(id),
            name: format!("node{id}"),
            address: format!("n{id}"),
            incarnation: Incarnation(id),
            weight: 1,
            zone: String::new(),
            standing: Standing::Active,
            max: Level::MIN,
        }
    }

    fn join(id: u64) -> LayoutChange {
        LayoutChange::Join(ringfort_types::Newcomer {
            name: format!("node{id}"),
            address: format!("n{id}"),
            incarnation: Incarnation(id),
            weight: 1,
            zone: String::new(),
            replaces: false,
            max: Level::MIN,
        })
    }

    #[test]
    fn a_shard_gets_no_other_places_before_it_is_at_those_that_it_has_unless_it_must_leave_them() {
        let born = Layout::first((1..=3).map(member).collect(), 7, 8, 3).expect("it is one");
        let joined = born.after(&join(4)).expect("it joins");
        assert_eq!(joined.plan(|_| true, |_| false), None, "nothing has come where it is to be");
        let Some(LayoutChange::Place { places, .. }) = joined.plan(|_| true, |shard| shard.0 % 2 == 1) else {
            panic!("the others have")
        };
        assert!(!places.is_empty() && places.iter().all(|(shard, _)| shard.0 % 2 == 1), "{places:?}");
        // Who goes, or is not there, is not waited for.
        let draining = joined.after(&LayoutChange::Stand(NodeId(2), Standing::Draining)).expect("it drains");
        for plan in [draining.plan(|_| true, |_| false), joined.plan(|node| node != NodeId(2), |_| false)] {
            let Some(LayoutChange::Place { places, .. }) = plan else { panic!("all have a replica there") };
            assert_eq!(places.len(), joined.shards.len());
            assert!(places.iter().all(|(_, nodes)| !nodes.contains(&NodeId(2))));
        }
    }

    #[test]
    fn the_only_replica_of_a_shard_goes_by_way_of_two() {
        let [one, two] = [NodeId(1), NodeId(2)];
        let shard = ShardId(1);
        let born = Layout::first(vec![member(1)], 7, 1, 1).expect("it is one");
        let after =
            |layout: &Layout, change: &LayoutChange| layout.after(change).expect("it changes something");
        let stand = |layout: &Layout, node, standing| after(layout, &LayoutChange::Stand(node, standing));
        let planned = |layout: &Layout, is_reached: bool| {
            let change = layout.plan(|_| true, |_| is_reached);
            change.map(|change| after(layout, &change))
        };
        let places = |layout: &Layout| layout.shard(shard).expect("there is one").replicas.clone();
        let of = |layout: &Layout| places(layout).iter().map(|place| place.node).collect::<Vec<_>>();

        let going = stand(&after(&born, &join(2)), one, Standing::Draining);
        let both = planned(&going, true).expect("it goes");
        assert_eq!(of(&both), [one, two]);
        assert_eq!(places(&both)[0], places(&born)[0], "the first one stays who it is");
        assert_eq!(planned(&both, false), None, "it is on its way");
        assert_eq!(of(&planned(&both, true).expect("it has come")), [two]);

        let back = stand(&stand(&both, one, Standing::Active), two, Standing::Draining);
        let back = planned(&back, false).expect("it need not wait");
        assert_eq!(places(&back), places(&born), "nothing has happened");
    }
}
