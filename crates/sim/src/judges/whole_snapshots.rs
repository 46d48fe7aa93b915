//! No snapshot is installed half: the table that takes a shard's place has all rows, of whatever kind, that the shard
//! had at that index where the snapshot was taken (PITFALLS 8; Raft, 7).

use std::collections::BTreeMap;

use ringfort_types::{Index, ShardId};

use super::{Broken, broken};

pub(crate) const NAME: &str = "no snapshot is installed half";

#[derive(Debug, Default)]
pub(crate) struct WholeSnapshots {
    /// The digest of every table that was held for a snapshot.
    taken: BTreeMap<(ShardId, Index), u64>,
}

impl WholeSnapshots {
    /// A table is held at this index.
    pub(crate) fn taken(&mut self, shard: ShardId, index: Index, digest: u64) {
        self.taken.insert((shard, index), digest);
    }

    /// A table at this index is put in place.
    pub(crate) fn installed(&self, host: usize, shard: ShardId, index: Index, digest: u64) -> Option<Broken> {
        let node = host + 1;
        match self.taken.get(&(shard, index)) {
            None => Some(broken!(
                NAME,
                "n{node} goes on in shard {shard} from {index}, where nobody took a snapshot"
            )),
            Some(taken) if *taken != digest => Some(broken!(
                NAME,
                "n{node} goes on in shard {shard} from {index} with other rows than were sent"
            )),
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rows_and_a_snapshot_of_nobody_are_found() {
        let mut judge = WholeSnapshots::default();
        judge.taken(ShardId(1), Index(5), 7);
        assert_eq!(judge.installed(0, ShardId(1), Index(5), 7), None);
        assert!(judge.installed(0, ShardId(1), Index(5), 8).is_some());
        assert!(judge.installed(0, ShardId(1), Index(6), 7).is_some());
    }
}
