//! Whether the disk finishes what it was given.
//!
//! A write or sync that hangs says nothing, and whoever waits for it can't either. So the threads that write say when they
//! begin and end, and the core looks at that with each tick:
//!
//! | under way for | what follows |
//! |---|---|
//! | 1 s | a line, at most one in ten seconds |
//! | 3 s; a table's flush, which is many writes, 15 s | leaderships go to nodes whose disks work |
//! | never longer than 1 s, for 10 s | they may come back |

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shared::{Part, Shared};

/// Longer than this is worth a line.
const SLOW: Duration = Duration::from_secs(1);
/// Longer than this, and somebody else should lead.
const LOG_HUNG: Duration = Duration::from_secs(3);
const TABLES_HUNG: Duration = Duration::from_secs(15);
/// How long nothing must have been slow before the disk is trusted again.
const TRUST: Duration = Duration::from_secs(10);
/// Shortest time between two lines.
const QUIET: Duration = Duration::from_secs(10);

/// Since when the disk is at work, for each part of the node that writes.
#[derive(Debug)]
pub(crate) struct DiskWatch {
    made: Instant,
    /// Milliseconds from `made` on, plus one; 0 while nothing is under way.
    log: AtomicU64,
    tables: AtomicU64,
}

impl DiskWatch {
    pub(crate) fn new() -> DiskWatch {
        DiskWatch { made: Instant::now(), log: AtomicU64::new(0), tables: AtomicU64::new(0) }
    }

    /// Does something that needs the disk.
    pub(crate) fn during<T>(&self, part: Part, act: impl FnOnce() -> T) -> T {
        let place = self.place(part);
        place.store(self.made.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
        let done = act();
        place.store(0, Ordering::Relaxed);
        done
    }

    fn place(&self, part: Part) -> &AtomicU64 {
        match part {
            Part::Log => &self.log,
            Part::Tables => &self.tables,
        }
    }

    /// For how long this part has waited for the disk; zero if it does not.
    fn under_way(&self, part: Part, now: Instant) -> Duration {
        match self.place(part).load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => (now - self.made).saturating_sub(Duration::from_millis(since - 1)),
        }
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
        let waits = [Part::Log, Part::Tables].map(|part| (part, shared.disk_watch.under_way(part, now)));
        for (part, waited) in waits {
            self.take(part, waited, now, shared);
        }
        if self.hung && self.slow_at.is_none_or(|slow_at| now - slow_at > TRUST) {
            self.hung = false;
            shared.disk_hung(false);
            shared.notice("the disk finishes what it is given again: this node may lead again");
        }
    }

    fn take(&mut self, part: Part, waited: Duration, now: Instant, shared: &Shared) {
        if waited < SLOW {
            return;
        }
        self.slow_at = Some(now);
        let (what, hung_after) = match part {
            Part::Log => ("a write to the log", LOG_HUNG),
            Part::Tables => ("the flush of a table", TABLES_HUNG),
        };
        let seconds = waited.as_secs_f64();
        if waited >= hung_after && !self.hung {
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
