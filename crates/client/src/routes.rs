//! Which node to ask about a key, as far as this client knows: slot → shard → leader → link.
//!
//! Learnt from the nodes' own state and from the hints on their answers. It is only ever a hint: a wrong guess
//! costs a hop, since every node passes on what it does not lead.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringfort_types::{ClusterState, NodeId, Request, SLOTS, ShardId, Slot, Term};

use crate::link::Link;

/// A shard that no slot names.
const NO_SHARD: u16 = u16::MAX;

#[derive(Debug)]
struct Shard {
    id: ShardId,
    /// The leader's [`NodeId`], or 0.
    leader: AtomicU64,
    /// The term in which the nodes said so; older news is not believed.
    term: Term,
    /// The nodes that have a replica.
    replicas: Vec<NodeId>,
}

/// The cluster as it was last heard of.
#[derive(Debug, Default)]
pub(crate) struct Routes {
    /// Place in `shards` of each slot's shard; empty before anything is known.
    slots: Vec<u16>,
    shards: Vec<Shard>,
    nodes: BTreeMap<NodeId, Arc<Link>>,
}

impl Routes {
    /// What `state` says, and what `self` knew better. `link` finds or makes the link to an address.
    pub(crate) fn updated(
        &self,
        state: &ClusterState,
        mut link: impl FnMut(&str) -> Option<Arc<Link>>,
    ) -> Routes {
        let mut slots = vec![NO_SHARD; usize::from(SLOTS)];
        let mut shards: Vec<Shard> = Vec::with_capacity(state.shards.len());
        for told in &state.shards {
            for &(Slot(first), Slot(last)) in &told.slots {
                if first <= last && last < SLOTS {
                    slots[usize::from(first)..=usize::from(last)].fill(shards.len() as u16);
                }
            }
            let known = self.shards.iter().find(|known| known.id == told.shard);
            let told_leader = told.leader.unwrap_or_default().0;
            let (leader, term) = match known {
                Some(known) if known.term > told.term || told_leader == 0 => {
                    (known.leader.load(Ordering::Relaxed), known.term)
                }
                _ => (told_leader, told.term),
            };
            let replicas = told.replicas.iter().map(|(node, _)| *node).collect();
            shards.push(Shard { id: told.shard, leader: leader.into(), term, replicas });
        }
        let nodes = state.nodes.iter().filter_map(|node| Some((node.id, link(&node.address)?))).collect();
        Routes { slots, shards, nodes }
    }

    /// Whether anything has been heard yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The node to ask first.
    pub(crate) fn best(&self, request: &Request) -> Option<&Arc<Link>> {
        match request {
            Request::DigestAt { node, .. } => self.nodes.get(node),
            _ => self.nodes.get(&NodeId(self.shard(request)?.leader.load(Ordering::Relaxed))),
        }
    }

    /// A node that has a replica of the request's shard: another one each turn.
    pub(crate) fn replica(&self, request: &Request, turn: usize) -> Option<&Arc<Link>> {
        let replicas = &self.shard(request)?.replicas;
        self.nodes.get(replicas.get(turn.checked_rem(replicas.len())?)?)
    }

    /// Which of the shards has this slot, as a number that says nothing else; `None` if that is not known.
    pub(crate) fn place_of(&self, slot: Slot) -> Option<u16> {
        self.slots.get(usize::from(slot.0)).copied().filter(|place| *place != NO_SHARD)
    }

    /// The shard of a request's first key, if it has one and this is known.
    pub(crate) fn shard_of(&self, request: &Request) -> Option<ShardId> {
        self.shard(request).map(|shard| shard.id)
    }

    /// All nodes.
    pub(crate) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        self.nodes.values()
    }

    /// The link to a node.
    pub(crate) fn link_of(&self, node: NodeId) -> Option<&Arc<Link>> {
        self.nodes.get(&node)
    }

    /// Remembers who leads the shard of a request; false if that node is not known.
    pub(crate) fn heard(&self, request: &Request, leader: NodeId) -> bool {
        if let Some(shard) = self.shard(request) {
            shard.leader.store(leader.0, Ordering::Relaxed);
        }
        self.nodes.contains_key(&leader)
    }

    fn shard(&self, request: &Request) -> Option<&Shard> {
        if let Some(slot) = request.slot() {
            return self.shards.get(usize::from(*self.slots.get(usize::from(slot.0))?));
        }
        match request {
            Request::Digest { shard } | Request::OpenSession { shard } | Request::Transfer { shard, .. } => {
                self.shards.iter().find(|known| known.id == *shard)
            }
            Request::ChangeLayout(_) => self.shards.iter().find(|known| known.id == ShardId::META),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeState, ReplicaReport, ShardState};

    use super::*;
    use crate::options::{Options, Transport};
    use crate::reach::Reach;

    fn state(leader: u64, term: u64) -> ClusterState {
        let node = |id: u64| NodeState {
            id: NodeId(id),
            address: format!("127.0.0.1:{id}"),
            ..NodeState::default()
        };
        let half = |shard: u32, first: u16, last: u16| ShardState {
            shard: ShardId(shard),
            slots: vec![(Slot(first), Slot(last))],
            leader: (leader != 0).then_some(NodeId(leader)),
            term: Term(term),
            is_moving: false,
            replicas: vec![(NodeId(1), ReplicaReport::default()), (NodeId(2), ReplicaReport::default())],
        };
        let meta = ShardState::default();
        ClusterState {
            nodes: vec![node(1), node(2)],
            shards: vec![meta, half(1, 0, 8191), half(2, 8192, 16_383)],
            ..ClusterState::default()
        }
    }

    fn updated(routes: &Routes, state: &ClusterState) -> Routes {
        routes.updated(state, |address| {
            Some(Arc::new(
                Link::new(
                    address.to_owned(),
                    Reach::new(&Options::new(Vec::new())).unwrap(),
                    Transport::Unary,
                    Arc::default(),
                )
                .unwrap(),
            ))
        })
    }

    fn delete(key: &'static str) -> Request {
        Request::delete(key)
    }

    fn best(routes: &Routes, request: &Request) -> Option<String> {
        routes.best(request).map(|link| link.address.clone())
    }

    #[test]
    fn a_key_leads_to_its_shards_leader() {
        // foo has slot 12182, {user1000} slot 3443.
        let routes = updated(&Routes::default(), &state(1, 1));
        assert_eq!(best(&routes, &delete("foo")), Some("127.0.0.1:1".into()));
        assert!(routes.heard(&delete("foo"), NodeId(2)));
        assert_eq!(best(&routes, &delete("foo")), Some("127.0.0.1:2".into()));
        assert_eq!(best(&routes, &delete("{user1000}")), Some("127.0.0.1:1".into()));
        assert!(!routes.heard(&delete("foo"), NodeId(9)));
        assert_eq!(best(&routes, &delete("foo")), None);
    }

    #[test]
    fn replicas_take_turns() {
        let routes = updated(&Routes::default(), &state(1, 1));
        let turns = |turn| routes.replica(&delete("foo"), turn).map(|link| link.address.clone());
        assert_eq!(
            (turns(0), turns(1), turns(2)),
            (Some("127.0.0.1:1".into()), Some("127.0.0.1:2".into()), turns(0))
        );
        assert_eq!(Routes::default().replica(&delete("foo"), 0).map(|_| ()), None);
    }

    #[test]
    fn older_terms_are_not_believed() {
        let routes = updated(&Routes::default(), &state(1, 5));
        let routes = updated(&routes, &state(2, 4));
        assert_eq!(best(&routes, &delete("foo")), Some("127.0.0.1:1".into()));
        let routes = updated(&routes, &state(0, 6));
        assert_eq!(best(&routes, &delete("foo")), Some("127.0.0.1:1".into()));
        let routes = updated(&routes, &state(2, 6));
        assert_eq!(best(&routes, &delete("foo")), Some("127.0.0.1:2".into()));
    }

    #[test]
    fn nothing_is_known_at_first_and_nonsense_is_passed_over() {
        assert_eq!(best(&Routes::default(), &delete("foo")), None);
        let mut odd = state(1, 1);
        odd.shards[2].slots = vec![(Slot(9), Slot(3)), (Slot(5), Slot(u16::MAX))];
        assert_eq!(best(&updated(&Routes::default(), &odd), &delete("foo")), None);
    }
}
