//! What the log holds of each shard, and where: sparse, so that millions of entries cost little memory.
//!
//! A *checkpoint* names the place of one entry. A shard gets one about every [`CHECKPOINT_BYTES`] of log, one
//! at the start of each segment, and one wherever an entry replaces earlier ones. Between two checkpoints a
//! shard's entries therefore lie in the order of their indexes, without a gap; and those that were replaced
//! since are the ones at or above the next checkpoint's first index.
//!
//! Besides, of each shard: its last hard state, its base (below which there may be nothing any more), which replica this node has
//! and whether that has lost anything, its terms, and in which segments all but the terms lie, because those go along when a segment does (`collect.rs`).

use std::collections::BTreeMap;

use ringfort_types::{Base, HardState, Index, PeerId, ShardId, Term};

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

/// What the log holds of all shards, and where it begins and ends.
#[derive(Debug, Default)]
pub(super) struct LogIndex {
    pub(super) shards: BTreeMap<ShardId, ShardIndex>,
    /// The files, by number, with their lengths.
    pub(super) segments: BTreeMap<u64, u64>,
    /// No segment before this one is needed.
    pub(super) first_segment: u64,
    pub(super) end: End,
}

/// What the log holds of one shard.
#[derive(Debug, Default)]
pub(super) struct ShardIndex {
    pub(super) hard_state: HardState,
    /// Where it was written last; 0 if it never was.
    state_segment: u64,
    /// Which replica this node has, or had last; `None` for the one that the shard was born with.
    pub(super) replica: Option<PeerId>,
    /// Whether it has none any more.
    pub(super) is_gone: bool,
    replica_segment: u64,
    /// What that replica has acknowledged, if its log does not go so far.
    pub(super) lost: Option<Index>,
    lost_segment: u64,
    pub(super) base: Base,
    base_segment: u64,
    /// Rising in both `first` and `place`.
    checkpoints: Vec<Checkpoint>,
    /// The entries' terms: each with the first index that has it, ascending, from the base on.
    pub(super) terms: Vec<(Index, Term)>,
    /// The last entry's index, or the base's. None only while a log is read that may begin anywhere.
    last: Option<Index>,
    /// The lowest entry seen since the shard was met: it must not be above the base by more than one.
    lowest: Option<Index>,
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
    pub(super) fn add(&mut self, shard: ShardId, index: Index, term: Term, place: Place) -> Result<(), Gap> {
        let known = self.shards.entry(shard).or_default();
        if let Some(last) = known.last.filter(|last| index.0 > last.0 + 1) {
            return Err(Gap { shard, last, index });
        }
        known.add(index, term, place);
        Ok(())
    }

    /// Takes note of a hard state.
    pub(super) fn set_state(&mut self, shard: ShardId, state: HardState, segment: u64) {
        let known = self.shards.entry(shard).or_default();
        (known.hard_state, known.state_segment) = (state, segment);
    }

    /// Takes note of which replica this node has.
    pub(super) fn set_replica(&mut self, shard: ShardId, peer: PeerId, segment: u64) {
        let known = self.shards.entry(shard).or_default();
        (known.replica, known.replica_segment) = (Some(peer), segment);
        (known.is_gone, known.lost) = (false, None);
    }

    /// Takes note that this node has no replica any more.
    pub(super) fn set_gone(&mut self, shard: ShardId, last: PeerId, segment: u64) {
        self.set_replica(shard, last, segment);
        self.shards.entry(shard).or_default().is_gone = true;
    }

    /// Takes note of what is known to be lost.
    pub(super) fn set_lost(&mut self, shard: ShardId, index: Index, segment: u64) {
        let known = self.shards.entry(shard).or_default();
        (known.lost, known.lost_segment) = (Some(index), segment);
    }

    /// Takes note of a base: entries up to it are gone, later ones stay.
    pub(super) fn set_base(&mut self, shard: ShardId, base: Base, segment: u64) {
        let known = self.shards.entry(shard).or_default();
        (known.base, known.base_segment) = (base, segment);
        // If no entry was seen yet, those that follow need not begin right after this base: a log that is read from
        // somewhere may hold older bases than its own.
        if known.last.is_some_and(|last| last <= base.index) {
            known.checkpoints.clear();
        }
        known.trim_terms();
    }

    /// Takes note of a base that replaces all entries.
    pub(super) fn install(&mut self, shard: ShardId, base: Base, segment: u64) {
        let known = self.shards.entry(shard).or_default();
        (known.base, known.base_segment, known.last) = (base, segment, Some(base.index));
        known.lowest = None;
        known.checkpoints.clear();
        known.terms.clear();
    }

    /// The log was read to its end: where its entries begin is known now. Fails with a shard whose entries begin
    /// after its base.
    pub(super) fn settle(&mut self) -> Result<(), ShardId> {
        for (shard, known) in &mut self.shards {
            if known.lowest.is_some_and(|lowest| lowest > known.base.index.next()) {
                return Err(*shard);
            }
            known.last.get_or_insert(known.base.index);
        }
        Ok(())
    }

    /// The segments before this one are gone, and with them what only they held.
    pub(super) fn forget_segments_before(&mut self, first: u64) {
        self.first_segment = first;
        self.segments = self.segments.split_off(&first);
        for known in self.shards.values_mut() {
            known.checkpoints.retain(|checkpoint| checkpoint.place.segment >= first);
        }
    }

    /// The last index of a shard.
    pub(super) fn last(&self, shard: ShardId) -> Index {
        self.shards.get(&shard).and_then(|known| known.last).unwrap_or_default()
    }

    /// The checkpoints that entries from `from` to `to` (exclusive) are found by: the first one is at or before
    /// `from`; empty if the log has no such entry. One more follows if there is one, to bound the last.
    pub(super) fn checkpoints(&self, shard: ShardId, from: Index, to: Index) -> &[Checkpoint] {
        let Some(known) = self.shards.get(&shard) else { return &[] };
        let start = known.checkpoints.partition_point(|checkpoint| checkpoint.first <= from);
        let is_there = from > known.base.index && known.last.is_some_and(|last| from <= last);
        if start == 0 || !is_there || from >= to {
            return &[];
        }
        let end = known.checkpoints.partition_point(|checkpoint| checkpoint.first < to);
        &known.checkpoints[start - 1..(end + 1).min(known.checkpoints.len())]
    }
}

impl ShardIndex {
    fn add(&mut self, index: Index, term: Term, place: Place) {
        let replaces = self.last.is_some_and(|last| index <= last);
        if replaces {
            let kept = self.checkpoints.partition_point(|earlier| earlier.first < index);
            self.checkpoints.truncate(kept);
            let kept = self.terms.partition_point(|(first, _)| *first < index);
            self.terms.truncate(kept);
        }
        let due = self.checkpoints.last().is_none_or(|last| {
            last.place.segment != place.segment || place.frame - last.place.frame >= CHECKPOINT_BYTES
        });
        if replaces || due {
            self.checkpoints.push(Checkpoint { first: index, place });
        }
        if self.terms.last().is_none_or(|(_, last)| *last != term) {
            self.terms.push((index, term));
        }
        self.last = Some(index);
        self.lowest = Some(self.lowest.map_or(index, |lowest| lowest.min(index)));
    }

    /// Forgets the terms of what is gone.
    fn trim_terms(&mut self) {
        let next = self.base.index.next();
        if self.last.is_none_or(|last| last < next) {
            self.terms.clear();
            return;
        }
        let gone = self.terms.partition_point(|(first, _)| *first <= next);
        if gone > 0 {
            self.terms.drain(..gone - 1);
            self.terms[0].0 = next;
        }
    }

    /// The last index: that of the last entry, or of the base.
    pub(super) fn last(&self) -> Index {
        self.last.unwrap_or(self.base.index)
    }

    /// The term of an entry that is there, or of the base.
    pub(super) fn term(&self, index: Index) -> Term {
        let after = self.terms.partition_point(|(first, _)| *first <= index);
        if index <= self.base.index || after == 0 { self.base.term } else { self.terms[after - 1].1 }
    }

    /// The first index from which on no entry lies in this segment or before it. `None` if none lies there anyhow.
    pub(super) fn first_after(&self, segment: u64) -> Option<Index> {
        self.checkpoints.first().filter(|checkpoint| checkpoint.place.segment <= segment)?;
        let later = self.checkpoints.iter().find(|checkpoint| checkpoint.place.segment > segment);
        Some(later.map_or(self.last().next(), |later| later.first))
    }

    /// Whether its hard state lies in this segment.
    pub(super) fn has_state_in(&self, segment: u64) -> bool {
        self.state_segment == segment
    }

    /// Whether what says which replica this node has lies in this segment.
    pub(super) fn has_replica_in(&self, segment: u64) -> bool {
        self.replica_segment == segment
    }

    /// Whether what says that something is lost lies in this segment.
    pub(super) fn has_lost_in(&self, segment: u64) -> bool {
        self.lost_segment == segment
    }

    /// Whether its base lies in this segment.
    pub(super) fn has_base_in(&self, segment: u64) -> bool {
        self.base_segment == segment
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

    fn add(index: &mut LogIndex, entry: u64, place: Place) -> Result<(), Gap> {
        index.add(ShardId(1), Index(entry), Term(1 + entry / 50), place)
    }

    #[test]
    fn checkpoints_are_sparse_and_forced_where_entries_are_replaced() {
        let mut index = LogIndex::default();
        for entry in 1..=100 {
            add(&mut index, entry, at(entry * CHECKPOINT_BYTES / 10)).unwrap();
        }
        assert_eq!(firsts(&index, 1, 101), [1, 11, 21, 31, 41, 51, 61, 71, 81, 91]);
        assert_eq!(firsts(&index, 15, 21), [11, 21]);
        add(&mut index, 41, at(1_000 * CHECKPOINT_BYTES)).unwrap();
        assert_eq!(firsts(&index, 1, 101), [1, 11, 21, 31, 41]);
        add(&mut index, 36, at(1_000 * CHECKPOINT_BYTES + 1)).unwrap();
        assert_eq!(firsts(&index, 31, 101), [31, 36]);
        assert_eq!(index.last(ShardId(1)), Index(36));
        assert!(firsts(&index, 37, 38).is_empty());
    }

    #[test]
    fn a_gap_is_noticed() {
        let mut index = LogIndex::default();
        add(&mut index, 5, at(0)).unwrap();
        assert!(add(&mut index, 7, at(1)).is_err());
        assert!(firsts(&index, 4, 6).is_empty());
        assert_eq!(index.settle(), Err(ShardId(1)), "entries 1 to 4 are nowhere");
        index.set_base(ShardId(1), Base { index: Index(4), ..Base::default() }, 1);
        assert_eq!(index.settle(), Ok(()));
    }

    #[test]
    fn a_base_forgets_what_is_before_it_and_an_installed_one_everything() {
        let mut index = LogIndex::default();
        for entry in 1..=120u64 {
            add(&mut index, entry, Place { segment: 1 + entry / 40, frame: entry, record: 0 }).unwrap();
        }
        assert_eq!(index.shards[&ShardId(1)].first_after(1), Some(Index(40)));
        index.set_base(ShardId(1), Base { index: Index(60), term: Term(2), generation: 0 }, 3);
        index.forget_segments_before(2);
        let known = &index.shards[&ShardId(1)];
        assert_eq!(known.terms, [(Index(61), Term(2)), (Index(100), Term(3))]);
        assert_eq!([60, 61, 99, 100].map(|at| known.term(Index(at)).0), [2, 2, 2, 3]);
        assert_eq!((known.first_after(1), known.first_after(2)), (None, Some(Index(80))));
        assert!(firsts(&index, 60, 62).is_empty());
        assert_eq!(firsts(&index, 61, 62), [40, 80]);
        index.install(ShardId(1), Base { index: Index(90), term: Term(4), generation: 1 }, 4);
        assert_eq!((index.last(ShardId(1)), index.shards[&ShardId(1)].term(Index(90))), (Index(90), Term(4)));
        assert!(firsts(&index, 91, 92).is_empty());
        assert!(add(&mut index, 92, at(9)).is_err());
        add(&mut index, 91, at(9)).unwrap();
        assert_eq!(index.settle(), Ok(()));
    }
}
