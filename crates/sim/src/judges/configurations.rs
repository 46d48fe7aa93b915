//! What each group's log says of who belongs to it: not a judge, but what judges look at. It is taken from the entries that nodes hand out
//! as committed, so it is what is in force.

use std::collections::BTreeMap;

use ringfort_ring::Layout;
use ringfort_types::{Configuration, ConfigurationChange, EntryKind, Index, LogEntry, ShardId};

#[derive(Debug, Default)]
pub(crate) struct Configurations {
    /// One after the other, from that of the birth on.
    shards: BTreeMap<ShardId, Vec<Configuration>>,
}

impl Configurations {
    /// The cluster is born with this layout.
    pub(crate) fn born(&mut self, layout: &Layout) {
        self.shards = layout.shards.iter().map(|shard| (shard.shard, vec![shard.born()])).collect();
    }

    /// A node hands out an entry as committed. Whether a configuration is in force by it that was not before.
    pub(crate) fn handed_out(&mut self, shard: ShardId, entry: &LogEntry) -> bool {
        let Some(known) = self.shards.get_mut(&shard) else { return false };
        let last = known.last().expect("there is one from the beginning");
        if entry.kind != EntryKind::Configuration || entry.index <= last.at {
            return false;
        }
        let change = ConfigurationChange::decode(entry.payload.clone()).ok();
        let next = change.and_then(|change| last.after(&change, entry.index).ok());
        // One that can't follow is for the node to stumble over.
        let is_new = next.is_some();
        known.extend(next);
        is_new
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> {
        self.shards.keys().copied()
    }

    /// The one in force.
    pub(crate) fn latest(&self, shard: ShardId) -> Option<&Configuration> {
        self.shards.get(&shard)?.last()
    }

    /// Those under which an entry may have been committed: the one before it, which its leader need not have had in force yet, and so
    /// the one before that; and then those that have come since.
    pub(crate) fn around(&self, shard: ShardId, index: Index) -> (&[Configuration], &[Configuration]) {
        let Some(known) = self.shards.get(&shard) else { return (&[], &[]) };
        let before = known.partition_point(|configuration| configuration.at < index).max(1);
        let (first, later) = known.split_at(before);
        (&first[first.len().saturating_sub(2)..], later)
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeId, PeerId, Replica, Term};

    use super::*;

    #[test]
    fn an_entry_is_committed_by_the_configuration_before_it_or_the_one_before_that() {
        let replica = |number| Replica { node: NodeId(number), peer: PeerId(number) };
        let mut configurations = Configurations::default();
        let shard = ShardId(1);
        configurations.shards.insert(shard, vec![Configuration::born(vec![replica(1)])]);
        let entry = |index, change: &ConfigurationChange| LogEntry {
            index: Index(index),
            term: Term(1),
            kind: EntryKind::Configuration,
            payload: change.encode(),
        };
        let add = |number| ConfigurationChange::AddLearner(replica(number));
        assert!(configurations.handed_out(shard, &entry(5, &add(2))));
        assert!(!configurations.handed_out(shard, &entry(5, &add(2))), "by another replica");
        assert!(configurations.handed_out(shard, &entry(9, &add(3))));
        let around = |index| {
            let (committed, since) = configurations.around(shard, Index(index));
            let learners = |of: &[Configuration]| of.iter().map(|one| one.learners.len()).collect::<Vec<_>>();
            (learners(committed), learners(since))
        };
        assert_eq!(around(4), (vec![0], vec![1, 2]));
        assert_eq!(around(6), (vec![0, 1], vec![2]));
        assert_eq!(around(10), (vec![1, 2], vec![]));
        assert_eq!(configurations.latest(shard).map(|latest| latest.at), Some(Index(9)));
    }
}
