//! Where each shard's entries are in the log: sparse, so that millions of entries cost little memory.
//!
//! A *checkpoint* names the place of one entry. A shard gets one about every [`CHECKPOINT_BYTES`] of log, one
//! at the start of each segment, and one wherever an entry replaces earlier ones. Between two checkpoints a
//! shard's entries therefore lie in the order of their indexes, without a gap; and those that were replaced
//! since are the ones at or above the next checkpoint's first index.

use std::collections::BTreeMap;

use ringfort_types::{Index, ShardId};

/// Bytes of log between two checkpoints of one shard.
pub(super) const CHECKPOINT_BYTES: u64 = 256 * 1024;

/// A record's place: its segment, its frame's offset in that, and its own offset among the frame's records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) segment: u64,
    pub(super) frame: u64,
    pub(super) record: u32,
}

/// Where the log ends: the segment that is written to, and where its next frame goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// From this place on a shard's entries begin with this index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Checkpoint {
    pub(super) first: Index,
    pub(super) place: Place,
}

/// All shards' checkpoints, and where the log ends.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    shards: BTreeMap<ShardId, ShardIndex>,
    pub(super) end: End,
}

#[derive(Debug)]
struct ShardIndex {
    /// Rising in both `first` and `place`. Never empty.
    checkpoints: Vec<Checkpoint>,
    last: Index,
}

/// An entry's index leaves a gap after the last one of its shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) shard: ShardId,
    pub(super) last: Index,
    pub(super) index: Index,
}

impl LogIndex {
    /// Takes note of an entry that comes next in the log.
    pub(super) fn add(&mut self, shard: ShardId, index: Index, place: Place) -> Result<(), Gap> {
        let checkpoint = Checkpoint { first: index, place };
        let Some(known) = self.shards.get_mut(&shard) else {
            self.shards.insert(shard, ShardIndex { checkpoints: vec![checkpoint], last: index });
            return Ok(());
        };
        if index.0 > known.last.0 + 1 {
            return Err(Gap { shard, last: known.last, index });
        }
        let replaces = index <= known.last;
        if replaces {
            let kept = known.checkpoints.partition_point(|earlier| earlier.first < index);
            known.checkpoints.truncate(kept);
        }
        let due = known.checkpoints.last().is_none_or(|last| {
            last.place.segment != place.segment || place.frame - last.place.frame >= CHECKPOINT_BYTES
        });
        if replaces || due {
            known.checkpoints.push(checkpoint);
        }
        known.last = index;
        Ok(())
    }

    /// The last index of a shard.
    pub(super) fn last(&self, shard: ShardId) -> Option<Index> {
        self.shards.get(&shard).map(|known| known.last)
    }

    /// The checkpoints that entries from `from` to `to` (exclusive) are found by: the first one is at or before
    /// `from`; empty if the log has no such entry. One more follows if there is one, to bound the last.
    pub(super) fn checkpoints(&self, shard: ShardId, from: Index, to: Index) -> &[Checkpoint] {
        let Some(known) = self.shards.get(&shard) else { return &[] };
        let start = known.checkpoints.partition_point(|checkpoint| checkpoint.first <= from);
        if start == 0 || from > known.last || from >= to {
            return &[];
        }
        let end = known.checkpoints.partition_point(|checkpoint| checkpoint.first < to);
        &known.checkpoints[start - 1..(end + 1).min(known.checkpoints.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(frame: u64) -> Place {
        Place { segment: 1, frame, record: 0 }
    }

    fn firsts(index: &LogIndex, from: u64, to: u64) -> Vec<u64> {
        index.checkpoints(ShardId(1), Index(from), Index(to)).iter().map(|found| found.first.0).collect()
    }

    #[test]
    fn checkpoints_are_sparse_and_forced_where_entries_are_replaced() {
        let mut index = LogIndex::default();
        for entry in 1..=100 {
            index.add(ShardId(1), Index(entry), at(entry * CHECKPOINT_BYTES / 10)).unwrap();
        }
        assert_eq!(firsts(&index, 1, 101), [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]);
        assert_eq!(firsts(&index, 15, 21), [11, 21]);
        index.add(ShardId(1), Index(41), at(1_000 * CHECKPOINT_BYTES)).unwrap();
        assert_eq!(firsts(&index, 1, 101), [1, 11, 21, 31, 41]);
        index.add(ShardId(1), Index(36), at(1_000 * CHECKPOINT_BYTES + 1)).unwrap();
        assert_eq!(firsts(&index, 31, 101), [31, 36]);
        assert_eq!(index.last(ShardId(1)), Some(Index(36)));
        assert!(firsts(&index, 37, 38).is_empty());
    }

    #[test]
    fn a_gap_is_noticed() {
        let mut index = LogIndex::default();
        index.add(ShardId(1), Index(5), at(0)).unwrap();
        assert!(index.add(ShardId(1), Index(7), at(1)).is_err());
        assert!(firsts(&index, 4, 6).is_empty());
    }
}
