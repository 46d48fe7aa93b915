//! At any time a majority of the voters of each configuration in force has its replica, that is: it has not come to its end, nor begun anew
//! as another one, nor is its node gone for good (MEMBERSHIP 6.5; tikv issue 10533). And no peer begins twice: it would have forgotten
//! what it said the first time.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_types::{NodeId, PeerId, Record, Replica, ShardId};

use super::{Broken, Configurations, broken};
use crate::network::node;

const NAME: &str = "a majority of each group is never destroyed";
const BEGINS_ONCE: &str = "no replica begins twice";

#[derive(Debug, Default)]
pub(crate) struct Undestroyed {
    /// The last peer of a shard that was destroyed on a node.
    destroyed: BTreeMap<(ShardId, NodeId), PeerId>,
    /// The last one that has begun there.
    begun: BTreeMap<(ShardId, NodeId), PeerId>,
    lost: BTreeSet<NodeId>,
}

impl Undestroyed {
    /// A node has made records durable.
    pub(crate) fn synced(&mut self, host: usize, records: &[Record], groups: &Configurations) -> Vec<Broken> {
        let mut broken = Vec::new();
        for record in records {
            match record {
                Record::Gone(shard, peer) => broken.extend(self.ends(host, *shard, *peer, groups)),
                Record::Replica(shard, peer) => {
                    let before = self.begun.insert((*shard, node(host)), *peer);
                    if before.is_some_and(|before| before >= *peer) {
                        let n = host + 1;
                        broken.push(broken!(
                            BEGINS_ONCE,
                            "n{n} begins shard {shard} as peer {peer}, after {before:?}"
                        ));
                    }
                    broken.extend(self.ends(host, *shard, PeerId(peer.0 - 1), groups));
                }
                _ => {}
            }
        }
        broken
    }

    /// What a process has found at its start: a peer, and whether it is gone.
    pub(crate) fn found(
        &mut self,
        host: usize,
        shard: ShardId,
        (peer, is_gone): (PeerId, bool),
        groups: &Configurations,
    ) -> Option<Broken> {
        let last = if is_gone { peer } else { PeerId(peer.0 - 1) };
        let begun = self.begun.entry((shard, node(host))).or_default();
        *begun = peer.max(*begun);
        self.ends(host, shard, last, groups)
    }

    /// All peers up to this one have come to their end on a host.
    fn ends(&mut self, host: usize, shard: ShardId, last: PeerId, groups: &Configurations) -> Option<Broken> {
        let known = self.destroyed.entry((shard, node(host))).or_default();
        *known = last.max(*known);
        self.look(shard, groups)
    }

    /// A node is gone for good.
    pub(crate) fn lost(&mut self, node: NodeId, groups: &Configurations) -> Vec<Broken> {
        self.lost.insert(node);
        groups.shards().filter_map(|shard| self.look(shard, groups)).collect()
    }

    /// Whether a majority is left of this shard's group.
    pub(crate) fn look(&self, shard: ShardId, groups: &Configurations) -> Option<Broken> {
        let group = groups.latest(shard)?;
        let is_left = |replica: &Replica| {
            let last = self.destroyed.get(&(shard, replica.node));
            !self.lost.contains(&replica.node) && last.is_none_or(|last| *last < replica.peer)
        };
        let left: BTreeSet<PeerId> = group.deciding().filter(is_left).map(|replica| replica.peer).collect();
        (!group.is_quorum(|peer| left.contains(&peer)))
            .then(|| broken!(NAME, "only peers {left:?} are left of shard {shard}, which has {group:?}"))
    }
}

#[cfg(test)]
mod tests {
    use ringfort_ring::{Layout, Member};
    use ringfort_types::{Incarnation, Level, Standing};

    use super::*;

    #[test]
    fn a_majority_that_is_destroyed_is_found() {
        let member = |number| Member {
            id: NodeId(number),
            name: format!("node{number}"),
            address: format!("n{number}"),
            incarnation: Incarnation(number),
            weight: 1,
            zone: String::new(),
            standing: Standing::Active,
            max: Level::MIN,
        };
        let layout = Layout::first((1..=3).map(member).collect(), 1, 1, 3).expect("it is one");
        let mut groups = Configurations::default();
        groups.born(&layout);
        let shard = ShardId(1);
        let peer_on = |number| {
            groups.latest(shard).and_then(|group| group.peer_on(NodeId(number))).expect("there is one")
        };
        let fresh = layout.next_peer;
        let mut judge = Undestroyed::default();
        assert!(judge.synced(0, &[Record::Gone(shard, peer_on(1))], &groups).is_empty());
        assert!(judge.synced(0, &[Record::Replica(shard, fresh)], &groups).is_empty());
        assert_eq!(judge.synced(0, &[Record::Replica(shard, fresh)], &groups)[0].invariant, BEGINS_ONCE);
        let anew = PeerId(fresh.0 + 1);
        assert_eq!(judge.synced(1, &[Record::Replica(shard, anew)], &groups)[0].invariant, NAME);

        let mut judge = Undestroyed::default();
        assert_eq!(judge.found(0, shard, (peer_on(1), false), &groups), None);
        assert!(judge.lost(NodeId(2), &groups).is_empty());
        assert!(judge.found(0, shard, (peer_on(1), true), &groups).is_some());
    }
}
