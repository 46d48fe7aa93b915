//! Whether the disk finishes what it was given.
//!
//! A write or sync that hangs says nothing, and whoever waits for it can't either. So the threads that write say when they
//! begin and end, and the core looks at that with each tick:
//!
//! | under way for | what follows |
//! |---|---|
//! | a third of its [patience](Work::patience) | a line, at most one in ten seconds |
//! | its patience: 3 s for a write to the log, and for the flush of a table, which is many writes, 1 s more for each 16 MiB | leaderships go to nodes whose disks work |
//! | none for a third of its patience, for 10 s | they may come back |
//!
//! Compactions are watched, too, with more patience: they write much, and flushes wait for them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shared::Shared;

/// What a working disk may take for one thing, and how many bytes a second it writes and reads at least.
const HUNG: Duration = Duration::from_secs(3);
const FLUSHED_A_SECOND: u64 = 16 * 1024 * 1024;
/// The same for compactions, which share the disk with all else.
const COMPACTION_HUNG: Duration = Duration::from_secs(15);
const COMPACTED_A_SECOND: u64 = 4 * 1024 * 1024;
/// One part of the patience is worth a line.
const SLOW_SHARE: u32 = 3;
/// How long nothing must have been slow before the disk is trusted again.
const TRUST: Duration = Duration::from_secs(10);
/// Shortest time between two lines.
const QUIET: Duration = Duration::from_secs(10);

/// What a thread gives the disk to do. Of each there is one at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// A write to the log, or the removal of a segment.
    Log,
    /// The flush of a table.
    Flush,
    /// A round of compaction, by the thread that flushes.
    Compaction,
    /// A merge of a whole table.
    Merge,
}

impl Work {
    const ALL: [Work; 4] = [Work::Log, Work::Flush, Work::Compaction, Work::Merge];

    /// How long it may take with so many bytes.
    fn patience(self, bytes: u64) -> Duration {
        let at = |rate| Duration::from_millis(bytes.saturating_mul(1_000) / rate);
        match self {
            Work::Log => HUNG,
            Work::Flush => HUNG + at(FLUSHED_A_SECOND),
            Work::Compaction | Work::Merge => COMPACTION_HUNG + at(COMPACTED_A_SECOND),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Work::Log => "a write to the log",
            Work::Flush => "the flush of a table",
            Work::Compaction | Work::Merge => "the compaction of a table",
        }
    }
}

/// Since when the disk is at work.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    made: Instant,
    places: [Place; Work::ALL.len()],
}

#[derive(Debug, Default)]
struct Place {
    /// Milliseconds from `made` on, plus one; 0 while nothing is under way.
    since: AtomicU64,
    /// Milliseconds. Written before `since`.
    patience: AtomicU64,
}

impl DiskWatch {
    pub(crate) fn new() -> DiskWatch {
        DiskWatch { made: Instant::now(), places: Default::default() }
    }

    /// Does something that needs the disk, for about so many bytes.
    pub(crate) fn during<T>(&self, work: Work, bytes: u64, act: impl FnOnce() -> T) -> T {
        let place = &self.places[work as usize];
        place.patience.store(work.patience(bytes).as_millis() as u64, Ordering::Relaxed);
        place.since.store(self.made.elapsed().as_millis() as u64 + 1, Ordering::Release);
        let done = act();
        place.since.store(0, Ordering::Release);
        done
    }

    /// For how long this has been under way, and for how long it may be; nothing if it is not.
    fn under_way(&self, work: Work, now: Instant) -> Option<(Duration, Duration)> {
        let place = &self.places[work as usize];
        let since = place.since.load(Ordering::Acquire).checked_sub(1)?;
        let waited = (now - self.made).saturating_sub(Duration::from_millis(since));
        Some((waited, Duration::from_millis(place.patience.load(Ordering::Relaxed))))
    }
}

/// What the core makes of it.
#[derive(Debug, Default)]
pub(crate) struct DiskLook {
    slow_at: Option<Instant>,
    said_at: Option<Instant>,
    hung: bool,
}

impl DiskLook {
    /// Looks, and tells the node and whoever runs it what has changed.
    pub(crate) fn look(&mut self, shared: &Shared) {
        let now = Instant::now();
        for work in Work::ALL {
            if let Some((waited, patience)) = shared.disk_watch.under_way(work, now) {
                self.take(work, waited, patience, now, shared);
            }
        }
        if self.hung && self.slow_at.is_none_or(|slow_at| now - slow_at > TRUST) {
            self.hung = false;
            shared.disk_hung(false);
            shared.notice("the disk finishes what it is given again: this node may lead again");
        }
    }

    fn take(&mut self, work: Work, waited: Duration, patience: Duration, now: Instant, shared: &Shared) {
        if waited < patience / SLOW_SHARE {
            return;
        }
        self.slow_at = Some(now);
        let (what, seconds) = (work.name(), waited.as_secs_f64());
        if waited >= patience && !self.hung {
            self.hung = true;
            shared.disk_hung(true);
            self.said_at = Some(now);
            shared.notice(format!(
                "{what} has taken {seconds:.1} s and is not done: the disk hangs; leaderships go to nodes whose disks work"
            ));
        } else if self.said_at.is_none_or(|said_at| now - said_at > QUIET) {
            self.said_at = Some(now);
            shared.notice(format!(
                "{what} has taken {seconds:.1} s and is not done: the disk is slow, or hangs"
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_writes_more_may_take_longer() {
        let mib = 1024 * 1024;
        assert_eq!(Work::Log.patience(1024 * mib), Duration::from_secs(3));
        assert_eq!(Work::Flush.patience(0), Duration::from_secs(3));
        assert_eq!(Work::Flush.patience(64 * mib), Duration::from_secs(7));
        assert_eq!(Work::Merge.patience(40 * mib), Duration::from_secs(25));
        let watch = DiskWatch::new();
        assert_eq!(watch.under_way(Work::Flush, Instant::now()), None);
        watch.during(Work::Flush, 16 * mib, || {
            let later = Instant::now() + Duration::from_secs(2);
            let (waited, patience) = watch.under_way(Work::Flush, later).unwrap();
            assert!(waited >= Duration::from_secs(2) && patience == Duration::from_secs(4), "{waited:?}");
            assert_eq!(watch.under_way(Work::Log, later), None, "another thread's");
        });
        assert_eq!(watch.under_way(Work::Flush, Instant::now()), None);
    }
}
