//! Entries are applied in the order of the log, each once (Raft, 5.3): after a restart from where the table is, and
//! without leaving one out.

use std::collections::BTreeMap;

use ringfort_types::{Index, ShardId};

use super::{Broken, broken};

const NAME: &str = "entries are applied in order, and once";

#[derive(Debug, Default)]
pub(crate) struct ApplyOrder {
    /// Each table's last applied index.
    applied: BTreeMap<(usize, ShardId), Index>,
}

impl ApplyOrder {
    pub(crate) fn ended(&mut self, host: usize) {
        self.applied.retain(|(at, _), _| *at != host);
    }

    /// A table was opened and has come to this index by so many entries from the log.
    pub(crate) fn opened(&mut self, host: usize, shard: ShardId, applied: Index, replayed: u64) {
        self.applied.insert((host, shard), Index(applied.0.saturating_sub(replayed)));
    }

    pub(crate) fn applied(&mut self, host: usize, shard: ShardId, index: Index) -> Option<Broken> {
        let last = self.applied.entry((host, shard)).or_default();
        let expected = last.next();
        *last = index;
        (index != expected).then(|| {
            broken!(NAME, "n{} applies {index} in shard {shard} where {expected} comes next", host + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_and_a_repetition_are_found() {
        let mut judge = ApplyOrder::default();
        let mut apply = |index| judge.applied(0, ShardId(1), Index(index)).is_none();
        assert!(apply(1) && apply(2));
        assert!(!apply(2));
        assert!(!apply(4));
        judge.ended(0);
        judge.opened(0, ShardId(1), Index(9), 2);
        let mut apply = |index| judge.applied(0, ShardId(1), Index(index)).is_none();
        assert!(apply(8) && apply(9) && apply(10));
    }
}
