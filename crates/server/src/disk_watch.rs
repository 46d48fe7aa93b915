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
//! Compactions are watched, too: flushes wait for them. They read and write much, so what counts is for how long one has read and
//! written nothing, which Linux tells of each thread; what it has written may all be waiting for one sync. Where that is not told,
//! they have more patience.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::shared::Shared;

/// What a working disk may take for one thing, and how many bytes a second it writes and reads at least.
const HUNG: Duration = Duration::from_secs(3);
const FLUSHED_A_SECOND: u64 = 16 * 1024 * 1024;
/// The same for compactions of which it is not known how they get on: they share the disk with all else.
const COMPACTION_HUNG: Duration = Duration::from_secs(15);
const COMPACTED_A_SECOND: u64 = 4 * 1024 * 1024;
/// A compaction that gets on has read and written at least so many bytes since it was last seen to.
const PROGRESS_BYTES: u64 = 64 * 1024;
/// So many bytes it may have written without a sync: about one file.
const UNSYNCED_MAX: u64 = 64 * 1024 * 1024;
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

    /// Whether it is judged by how it gets on.
    fn is_long(self) -> bool {
        matches!(self, Work::Compaction | Work::Merge)
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
    /// The thread that does it, as the system numbers it. Written before `since`.
    thread: AtomicU64,
}

impl DiskWatch {
    pub(crate) fn new() -> DiskWatch {
        DiskWatch { made: Instant::now(), places: Default::default() }
    }

    /// Does something that needs the disk, for about so many bytes.
    pub(crate) fn during<T>(&self, work: Work, bytes: u64, act: impl FnOnce() -> T) -> T {
        let place = &self.places[work as usize];
        place.patience.store(work.patience(bytes).as_millis() as u64, Ordering::Relaxed);
        if work.is_long() {
            place.thread.store(this_thread(), Ordering::Relaxed);
        }
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

    /// What the thread that does this has read and written in its life.
    fn done_by(&self, work: Work) -> Option<Done> {
        let thread = self.places[work as usize].thread.load(Ordering::Relaxed);
        Done::parse(&fs::read_to_string(format!("/proc/self/task/{thread}/io")).ok()?)
    }
}

/// The number that the system gives to this thread; 0, which none has, if it does not tell.
fn this_thread() -> u64 {
    let link = fs::read_link("/proc/thread-self").ok();
    link.and_then(|link| link.file_name()?.to_str()?.parse().ok()).unwrap_or_default()
}

/// Bytes that a thread has read and written by calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Done {
    read: u64,
    written: u64,
}

impl Done {
    fn parse(text: &str) -> Option<Done> {
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        Some(Done { read: of("rchar:")?, written: of("wchar:")? })
    }

    fn bytes(self) -> u64 {
        self.read + self.written
    }
}

/// How something long gets on.
#[derive(Clone, Copy, Debug)]
struct Progress {
    /// Since when it is under way.
    begun: Instant,
    at_first: Done,
    /// When it was last seen to have got on, and how far it was.
    at: Instant,
    done: Done,
}

impl Progress {
    /// How it is now, given how it was at the last look.
    fn look(before: Option<Progress>, begun: Instant, done: Done, now: Instant) -> Progress {
        // Two looks at one beginning differ by less than what it is kept in.
        let is_same = |progress: &Progress| begun.duration_since(progress.begun) < Duration::from_millis(5);
        match before.filter(is_same) {
            None => Progress { begun, at_first: done, at: now, done },
            Some(before) if done.bytes() >= before.done.bytes() + PROGRESS_BYTES => {
                Progress { at: now, done, ..before }
            }
            Some(before) => before,
        }
    }

    /// For how long it has not got on, and for how long it may not: what it has written may have to be synced.
    fn stall(self, now: Instant) -> (Duration, Duration) {
        let unsynced = (self.done.written - self.at_first.written).min(UNSYNCED_MAX);
        (now.saturating_duration_since(self.at), Work::Flush.patience(unsynced))
    }
}

/// What the core makes of it.
#[derive(Debug, Default)]
pub(crate) struct DiskLook {
    slow_at: Option<Instant>,
    said_at: Option<Instant>,
    hung: bool,
    progress: [Option<Progress>; Work::ALL.len()],
}

impl DiskLook {
    /// Looks, and tells the node and whoever runs it what has changed.
    pub(crate) fn look(&mut self, shared: &Shared) {
        let now = Instant::now();
        for work in Work::ALL {
            let Some((waited, patience)) = shared.disk_watch.under_way(work, now) else {
                self.progress[work as usize] = None;
                continue;
            };
            let (waited, patience) =
                self.stall(work, waited, now, &shared.disk_watch).unwrap_or((waited, patience));
            self.take(work, waited, patience, now, shared);
        }
        if self.hung && self.slow_at.is_none_or(|slow_at| now - slow_at > TRUST) {
            self.hung = false;
            shared.disk_hung(false);
            shared.notice("the disk finishes what it is given again: this node may lead again");
        }
    }

    /// For how long something long has not got on, and for how long it may not; nothing if that is not known.
    fn stall(
        &mut self,
        work: Work,
        waited: Duration,
        now: Instant,
        watch: &DiskWatch,
    ) -> Option<(Duration, Duration)> {
        let done = if work.is_long() { watch.done_by(work)? } else { return None };
        let progress = &mut self.progress[work as usize];
        *progress = Some(Progress::look(*progress, now.checked_sub(waited)?, done, now));
        progress.map(|progress| progress.stall(now))
    }

    fn take(&mut self, work: Work, waited: Duration, patience: Duration, now: Instant, shared: &Shared) {
        if waited < patience / SLOW_SHARE {
            return;
        }
        self.slow_at = Some(now);
        let (what, seconds) = (work.name(), waited.as_secs_f64());
        let has = if self.progress[work as usize].is_some() { "has not got on for" } else { "has taken" };
        if waited >= patience && !self.hung {
            self.hung = true;
            shared.disk_hung(true);
            self.said_at = Some(now);
            shared.notice(format!(
                "{what} {has} {seconds:.1} s and is not done: the disk hangs; leaderships go to nodes whose disks work"
            ));
        } else if self.said_at.is_none_or(|said_at| now - said_at > QUIET) {
            self.said_at = Some(now);
            shared.notice(format!("{what} {has} {seconds:.1} s and is not done: the disk is slow, or hangs"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_is_judged_by_what_it_reads_and_writes() {
        let (begun, second) = (Instant::now(), Duration::from_secs(1));
        let done = |read, written| Done { read, written };
        let first = Progress::look(None, begun, done(1_000, 2_000), begun);
        // A few bytes are none: a library that looks at a file is not the compaction.
        let later = Progress::look(Some(first), begun, done(1_500, 2_000), begun + 3 * second);
        assert_eq!(later.stall(begun + 3 * second), (3 * second, HUNG));
        let on = Progress::look(Some(later), begun, done(1_500 + PROGRESS_BYTES, 2_000), begun + 4 * second);
        assert_eq!(on.stall(begun + 4 * second), (Duration::ZERO, HUNG));
        // What it has written may wait for one sync.
        let written = done(1_000, 2_000 + 2 * FLUSHED_A_SECOND);
        let on = Progress::look(Some(on), begun, written, begun + 9 * second);
        assert_eq!(on.stall(begun + 10 * second), (second, HUNG + 2 * second));
        // Another one begins anew.
        let next = Progress::look(Some(on), begun + 20 * second, written, begun + 20 * second);
        assert_eq!(next.stall(begun + 21 * second), (second, HUNG));
    }

    #[test]
    fn a_compaction_that_hangs_is_noticed_by_what_its_thread_does() {
        let watch = DiskWatch::new();
        let (at_work, starts) = std::sync::mpsc::channel();
        let (write, orders) = std::sync::mpsc::channel::<usize>();
        let (done, written) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                watch.during(Work::Compaction, 1 << 30, || {
                    at_work.send(()).unwrap();
                    let mut file = tempfile::tempfile().unwrap();
                    for bytes in orders {
                        std::io::Write::write_all(&mut file, &vec![0; bytes]).unwrap();
                        done.send(()).unwrap();
                    }
                });
            });
            starts.recv().unwrap();
            let mut look = DiskLook::default();
            let start = Instant::now();
            let mut stall = |after: u64| {
                let now = start + Duration::from_secs(after);
                let (waited, _) = watch.under_way(Work::Compaction, now).unwrap();
                look.stall(Work::Compaction, waited, now, &watch).unwrap()
            };
            assert_eq!(stall(1).0, Duration::ZERO);
            assert_eq!(stall(4), (Duration::from_secs(3), HUNG), "whatever its size is");
            write.send(PROGRESS_BYTES as usize).unwrap();
            written.recv().unwrap();
            assert_eq!(stall(5).0, Duration::ZERO);
            assert_eq!(stall(7).0, Duration::from_secs(2));
            drop(write);
        });
    }

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
