//! The thread that makes the log durable.
//!
//! It appends one batch at a time and reports it; what the core gathers meanwhile is the next one. When
//! nothing comes for [`IDLE`], it seals the log, so that acknowledged data is not last for long.
//!
//! Now and then a short-lived thread makes the next segment before it is needed: that is what a sync's speed
//! depends on (`ringfort_storage`'s `LogAhead`), and nothing else does, so that it may fail.
//!
//! Between batches it lets go of what the log has beyond its budget (`ringfort_storage`'s `Log::collect`), and tells the
//! flush thread whose table is needed for that.
//!
//! A failed write or sync ends the process: nothing after it may be acknowledged. Only a full disk, or quota, is waited
//! out, because then nothing of the batch is stored, and nothing has been said about it to anyone. So a node that is to end
//! meanwhile ends as any other: what it has acknowledged is in the log.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringfort_node::Event;
use ringfort_storage::{Log, LogAhead, StorageError};
use ringfort_types::{Base, Record, ShardId};

use crate::disk_watch::Work;
use crate::error::die;
use crate::flush::Flusher;
use crate::queue::{Queue, Taken};
use crate::shared::{Part, Shared};

/// How long nothing must have come before the log is sealed.
const IDLE: Duration = Duration::from_millis(200);
/// How often a batch is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// Between two looks, meanwhile, at whether the node ends.
const FULL_PAUSE: Duration = Duration::from_millis(50);
/// How long to wait before another try to make a segment ahead.
const AHEAD_RETRY: Duration = Duration::from_secs(1);

/// How often to look at whether the log is over its budget.
const LOOK: Duration = Duration::from_millis(100);

/// A batch to be made durable.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The node's number for it.
    pub(crate) number: u64,
    /// In order.
    pub(crate) records: Vec<Record>,
}

/// Runs until the queue is closed; leaves the log sealed.
pub(crate) fn run(mut log: Log, batches: &Queue<Batch>, shared: &Arc<Shared>, flusher: &Flusher) {
    let mut sealed = true;
    // The node ends, and there is no room for a batch: none after it may be written, and nobody hears of any of them.
    let mut given_up = false;
    let mut waiting = Vec::new();
    let mut next_look = Instant::now();
    let mut ahead = Ahead { log: log.ahead(), under_way: None, not_before: Instant::now() };
    loop {
        let deadline = (!sealed).then(|| Instant::now() + IDLE);
        match batches.take(&mut waiting, deadline) {
            Taken::Items => {
                for batch in waiting.drain(..) {
                    given_up = given_up || !append(&mut log, &batch, shared);
                    if !given_up {
                        let event = Event::Persisted { number: batch.number, batch: log.last_batch() };
                        shared.inbox.push(event);
                    }
                }
                ahead.keep(shared);
                if Instant::now() >= next_look {
                    shared.disk_watch.during(Work::Log, 0, || collect(&mut log, shared, flusher));
                    next_look = Instant::now() + LOOK;
                }
                sealed = false;
            }
            Taken::Nothing => {
                shared.disk_watch.during(Work::Log, 0, || {
                    collect(&mut log, shared, flusher);
                    seal(&mut log);
                });
                sealed = true;
            }
            Taken::Closed => {
                ahead.log.stop();
                close(&mut log);
                return ahead.join();
            }
        }
    }
}

/// Sees to it that there is a segment ahead.
struct Ahead {
    log: LogAhead,
    under_way: Option<JoinHandle<()>>,
    not_before: Instant,
}

impl Ahead {
    fn keep(&mut self, shared: &Arc<Shared>) {
        let busy = self.under_way.as_ref().is_some_and(|thread| !thread.is_finished());
        if busy || !self.log.is_wanted() || Instant::now() < self.not_before {
            return;
        }
        self.not_before = Instant::now() + AHEAD_RETRY;
        let log = self.log.clone();
        let make = move || {
            if let Err(error) = log.make() {
                tracing::info!("no log segment ahead of time: {error}");
            }
        };
        self.under_way = thread::Builder::new().name("log-ahead".into()).spawn(make).ok();
        if self.under_way.is_none() {
            shared.notice("can't start a thread that prepares log segments: syncs take longer");
        }
    }

    fn join(self) {
        if let Some(thread) = self.under_way {
            thread.join().expect("making a segment doesn't panic");
        }
    }
}

/// Whether it is done; if not, the node ends and the disk is full.
fn append(log: &mut Log, batch: &Batch, shared: &Shared) -> bool {
    let mut full = false;
    let begun = Instant::now();
    while let Err(error) = shared.disk_watch.during(Work::Log, 0, || log.append(&batch.records)) {
        if !error.is_disk_full() {
            die("the log can't be written", &error);
        }
        if !full {
            shared.notice(format!(
                "no room for the log ({error}): this node takes no writes until there is, reads go on"
            ));
            shared.disk_full(Part::Log, true);
            full = true;
        }
        let again = Instant::now() + FULL_RETRY;
        while Instant::now() < again {
            if shared.is_stopping() {
                return false;
            }
            thread::sleep(FULL_PAUSE);
        }
    }
    if full {
        shared.notice("there is room for the log again");
        shared.disk_full(Part::Log, false);
    } else {
        shared.metrics.log_syncs.record(begun.elapsed());
    }
    shared.metrics.log_sync.record(begun.elapsed());
    shared.metrics.log_records.add(batch.records.len() as u64);
    shared.metrics.log_bytes.set(log.written());
    true
}

/// Lets go of what is beyond the budget, as far as the tables allow; of what a table will never have next time, if that is not enough.
fn shorten(log: &mut Log, flusher: &Flusher) -> Result<Vec<(ShardId, Base)>, StorageError> {
    let durable = flusher.durable();
    let holding = log.held_by(&durable);
    if log.has_outgrown_budget() {
        flusher.give_up_retired(&holding);
    }
    flusher.want(holding);
    if log.is_over_budget() { log.collect(&durable) } else { Ok(Vec::new()) }
}

/// Does that, and tells the node.
fn collect(log: &mut Log, shared: &Shared, flusher: &Flusher) {
    shared.metrics.log_size.set(log.bytes());
    match shorten(log, flusher) {
        Ok(bases) if bases.is_empty() => {}
        Ok(bases) => shared.inbox.push(Event::Compacted(bases)),
        // The next batch waits for room, and says so. At a stop it is no matter.
        Err(error) if error.is_disk_full() || shared.is_stopping() => {}
        Err(error) => die("the log can't be shortened", &error),
    }
}

fn seal(log: &mut Log) {
    if let Err(error) = log.seal()
        && !error.is_disk_full()
    {
        die("the log can't be sealed", &error);
    }
}

fn close(log: &mut Log) {
    seal(log);
    if let Err(error) = log.close() {
        // Everything is in the log; only the next start can't know how far it must go.
        tracing::warn!("the log's end can't be recorded: {error}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use ringfort_storage::{LogOptions, MemoryTables, Owner, SimDisk, Table, Tables};
    use ringfort_types::{EntryKind, Incarnation, Index, LogEntry, Term};

    use super::*;

    const SEGMENT: u64 = 16 * 1024;
    const BUDGET: u64 = 8 * SEGMENT;
    /// A replica that applies what it has, and one that takes no part any more.
    const WELL: ShardId = ShardId(1);
    const DAMAGED: ShardId = ShardId(2);

    fn log() -> Log {
        let owner = Owner { cluster: 1, incarnation: Incarnation(1), lane: 0 };
        let options = LogOptions { segment_bytes: SEGMENT, budget_bytes: BUDGET };
        Log::open(Arc::new(SimDisk::new()), "log", owner, options).unwrap().0
    }

    fn entry(shard: ShardId, index: u64) -> Record {
        let payload = vec![0; 4 * 1024].into();
        Record::Entry(
            shard,
            LogEntry { index: Index(index), term: Term(1), kind: EntryKind::Normal, payload },
        )
    }

    /// As the apply thread and the flush thread do it, when the log wants a table's memtable on disk.
    fn apply_and_flush(table: &dyn Table, through: u64) {
        table.write(Index(through), &[("key".into(), Some("value".into()))]);
        table.rotate();
        table.flush(Index(0)).unwrap();
    }

    /// Of a shard that takes no part any more, most of the log's first segments is not applied, and never will be.
    fn after_many_writes(is_retired: bool) -> (Log, Flusher) {
        let (mut log, flusher, tables) = (log(), Flusher::default(), MemoryTables::new());
        let (well, damaged) = (tables.open(WELL).unwrap(), tables.open(DAMAGED).unwrap());
        flusher.keep(WELL, well.clone());
        flusher.keep(DAMAGED, damaged.clone());
        for index in 1..=8 {
            log.append(&[entry(DAMAGED, index)]).unwrap();
        }
        apply_and_flush(&*damaged, 1);
        if is_retired {
            flusher.retire(DAMAGED);
        }
        for index in 1..=200 {
            log.append(&[entry(WELL, index)]).unwrap();
            apply_and_flush(&*well, index);
            shorten(&mut log, &flusher).unwrap();
        }
        (log, flusher)
    }

    #[test]
    fn a_replica_that_takes_no_part_any_more_does_not_make_the_log_grow_without_a_bound() {
        let (log, _) = after_many_writes(true);
        assert!(log.bytes() <= BUDGET + BUDGET / 2 + SEGMENT, "{} bytes", log.bytes());
        assert!(!log.is_over_budget() && !log.has_outgrown_budget());
    }

    #[test]
    fn what_a_replica_that_takes_part_may_still_apply_stays_whatever_it_takes() {
        let (log, flusher) = after_many_writes(false);
        assert!(log.has_outgrown_budget());
        assert_eq!(log.reader().entries(DAMAGED, Index(2), Index(9), usize::MAX).unwrap().len(), 7);
        assert_eq!(flusher.take_wanted(), [DAMAGED]);
    }
}
