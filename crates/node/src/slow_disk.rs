//! A disk that finishes its syncs, but long after the other nodes have finished theirs.
//!
//! A leader acknowledges what its own log has. So one slow disk makes every write of the shards that it leads slow, and none of those
//! that others lead: they are committed without it. How long a sync takes says nothing by itself; all nodes may have disks like that.
//! What tells is that entries were committed before they were durable here: then a majority without this node was faster.
//!
//! Counted is the time of batches that took [`SLOW_US`] or more, of which everything that this node leads was committed before they were done, and
//! something within half of that time: the others are twice as fast. A batch of which that is not so counts against it three times, so equal
//! disks add up to nothing.
//!
//! A node whose disk is slow leads nothing if another one can; it still stands for election, since it may have what the others lack. It is trusted again when its syncs have been fast for [`TRUST_US`], or
//! there were none.

use ringfort_types::{DiskState, ShardId};

use crate::Effect;
use crate::node::Node;

/// A batch that takes so long is a slow one.
const SLOW_US: u64 = 100_000;
/// The disk is slow once such batches have taken so much more time than others.
const ENOUGH_US: u64 = 4_000_000;
/// How much a batch counts that was fast, or was awaited: three times its time, and at least this.
const LEAST_US: u64 = 30_000;
/// For so long no sync must have been slow before the node leads again.
const TRUST_US: u64 = 30_000_000;
/// One of so many batches, on average, in what a batch takes.
const AVERAGE_OF: u64 = 8;

/// What is known of how fast the disk is. All times are in microseconds.
#[derive(Debug, Default)]
pub(crate) struct SlowDisk {
    /// When the batch under way was handed out.
    since: Option<u64>,
    /// When something was first seen to be committed that was not durable here, since then.
    outrun: Option<u64>,
    /// By how much the disk was slower than others lately.
    behind: u64,
    /// What a batch takes on average.
    average: u64,
    /// When it was slow last, if it counts as slow.
    slow: Option<u64>,
}

/// Who was done first with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    /// All that this node leads was committed without it.
    Others,
    /// It was awaited.
    This,
    /// There was nothing in it that this node leads.
    Nobody,
}

impl SlowDisk {
    pub(crate) fn begins(&mut self, now_us: u64) {
        (self.since, self.outrun) = (Some(now_us), None);
    }

    /// Something is committed that is not durable here.
    pub(crate) fn is_outrun(&mut self, now_us: u64) {
        if self.since.is_some() {
            self.outrun.get_or_insert(now_us);
        }
    }

    pub(crate) fn is_slow(&self) -> bool {
        self.slow.is_some()
    }

    /// The batch is durable.
    fn ends(&mut self, now_us: u64, first: First) {
        let Some(since) = self.since.take() else { return };
        let took_us = now_us.saturating_sub(since);
        let others_us = self.outrun.take().map_or(took_us, |outrun| outrun.saturating_sub(since));
        self.average = (self.average * (AVERAGE_OF - 1) + took_us) / AVERAGE_OF;
        match first {
            First::Others if took_us >= SLOW_US && 2 * others_us <= took_us => self.behind += took_us,
            First::Nobody if took_us >= SLOW_US => {}
            _ => self.behind = self.behind.saturating_sub((3 * took_us).max(LEAST_US)),
        }
        if self.behind >= ENOUGH_US || (self.is_slow() && self.average >= SLOW_US / 2) {
            (self.behind, self.slow) = (0, Some(now_us));
        }
    }

    /// Whether the disk is to be trusted again.
    fn is_over(&self, now_us: u64) -> bool {
        self.slow.is_some_and(|slow| now_us.saturating_sub(slow) > TRUST_US)
    }
}

impl Node {
    /// Whether this node's disk does what a leader's has to do.
    pub(crate) fn has_leaders_disk(&self) -> bool {
        self.disk == DiskState::Working && !self.slow_disk.is_slow()
    }

    /// What the others are told of the disk. They do the same about a slow one as about one that hangs.
    pub(crate) fn told_disk(&self) -> DiskState {
        if self.disk == DiskState::Working && self.slow_disk.is_slow() { DiskState::Hung } else { self.disk }
    }

    /// A batch is durable, and these shards waited for it; none of them knows yet.
    pub(crate) fn judge_disk(&mut self, shards: impl Iterator<Item = ShardId>) {
        let mut first = First::Nobody;
        for shard in shards {
            let replica = self.slots[shard.0 as usize].replica.as_ref();
            match replica.and_then(|replica| replica.group.is_outrun()) {
                Some(true) if first != First::This => first = First::Others,
                Some(false) => first = First::This,
                _ => {}
            }
        }
        let (was_slow, average) = (self.slow_disk.is_slow(), self.slow_disk.average);
        self.slow_disk.ends(self.now.monotonic_us, first);
        if self.slow_disk.is_slow() && !was_slow {
            let notice = format!(
                "a sync of the log takes {} ms, and the other nodes are done before: the disk is slow; leaderships go to nodes whose disks \
                 are faster",
                average / 1_000
            );
            self.changed_disk(notice);
        }
    }

    /// Now and then.
    pub(crate) fn look_at_slow_disk(&mut self) {
        if self.slow_disk.is_over(self.now.monotonic_us) {
            self.slow_disk = SlowDisk { since: self.slow_disk.since, ..SlowDisk::default() };
            self.changed_disk("the disk is as fast as others again: this node may lead again".to_owned());
        }
    }

    fn changed_disk(&mut self, notice: String) {
        self.out.last.push(Effect::Notice(notice));
        self.take_disk_in();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What becomes of batches of this length, one after another, for so many seconds.
    fn after(
        disk: &mut SlowDisk,
        from_us: u64,
        took_us: u64,
        seconds: u64,
        first: impl Fn(u64) -> First,
    ) -> u64 {
        let mut now_us = from_us;
        for number in 0.. {
            if now_us >= from_us + seconds * 1_000_000 {
                break;
            }
            disk.begins(now_us);
            if first(number) == First::Others {
                disk.is_outrun(now_us + took_us / 2);
            }
            now_us += took_us;
            disk.ends(now_us, first(number));
        }
        now_us
    }

    #[test]
    fn a_disk_that_others_do_not_wait_for_is_slow_within_ten_seconds() {
        for took_us in [SLOW_US, 200_000, 1_000_000, 2_900_000] {
            let mut disk = SlowDisk::default();
            after(&mut disk, 0, took_us, 4, |_| First::Others);
            after(&mut disk, 4_000_000, took_us, 4, |_| First::Others);
            assert!(disk.is_slow(), "{took_us}");
        }
    }

    #[test]
    fn disks_that_are_equal_are_not_slow_and_fast_ones_neither() {
        let mut disk = SlowDisk::default();
        let third = |number: u64| if number.is_multiple_of(3) { First::Others } else { First::This };
        after(&mut disk, 0, 300_000, 3_600, third);
        assert!(!disk.is_slow(), "every third time others are done before");
        for _ in 0..1_000 {
            disk.begins(0);
            disk.is_outrun(151_000);
            disk.ends(300_000, First::Others);
        }
        assert!(!disk.is_slow(), "others are not twice as fast");
        after(&mut disk, 0, SLOW_US - 1, 3_600, |_| First::Others);
        assert!(!disk.is_slow(), "the network may take that");
        after(&mut disk, 0, 300_000, 3_600, |_| First::Nobody);
        assert!(!disk.is_slow(), "who leads nothing keeps nobody waiting");
    }

    #[test]
    fn a_slow_disk_is_trusted_once_it_was_fast_for_long_enough() {
        let mut disk = SlowDisk::default();
        let slow_until = after(&mut disk, 0, 200_000, 60, |_| First::Others);
        assert!(disk.is_slow());
        // It leads nothing any more, and syncs what others have it keep.
        let slow_until = after(&mut disk, slow_until, 200_000, 60, |_| First::Nobody);
        assert!(!disk.is_over(slow_until + TRUST_US));
        let fast_until = after(&mut disk, slow_until, 2_000, TRUST_US / 1_000_000, |_| First::Nobody);
        assert!(!disk.is_over(fast_until), "it was on its way to be fast");
        assert!(disk.is_over(fast_until + 1_000_000));
    }
}
