//! The log is never cut below what somebody needs without a snapshot to offer: what a log lets go of is in the table that
//! its node holds durably, which is where a start goes on from, and what a follower is sent instead (DESIGN 7).

use ringfort_storage::Durable;
use ringfort_types::{Base, ShardId};

use super::{Broken, broken};

const NAME: &str = "a log lets go only of what its table holds";

/// A node's log has let go of entries, and its tables are durable so far.
pub(crate) fn compacted(host: usize, bases: &[(ShardId, Base)], durable: &Durable) -> Vec<Broken> {
    let held = |shard| durable.get(shard).copied().unwrap_or_default();
    let beyond = bases.iter().filter(|(shard, base)| base.index > held(shard));
    beyond
        .map(|(shard, base)| {
            let (node, index) = (host + 1, base.index);
            broken!(NAME, "n{node} lets go of shard {shard} up to {index}; its table holds {}", held(shard))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use ringfort_types::Index;

    use super::*;

    #[test]
    fn a_cut_beyond_the_table_is_found() {
        let durable = Durable::from([(ShardId(1), Index(5))]);
        let to = |shard, index| (ShardId(shard), Base { index: Index(index), ..Base::default() });
        assert!(compacted(0, &[to(1, 5), to(2, 0)], &durable).is_empty());
        assert_eq!(compacted(0, &[to(1, 6), to(2, 1)], &durable).len(), 2);
    }
}
