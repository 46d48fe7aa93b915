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
//! A failed write or sync ends the process: nothing after it may be acknowledged. Only a full disk is waited
//! out, because then nothing of the batch is stored, and nothing has been said about it to anyone.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringfort_node::Event;
use ringfort_storage::{Log, LogAhead};
use ringfort_types::Record;

use crate::error::die;
use crate::flush::Flusher;
use crate::queue::{Queue, Taken};
use crate::shared::{Part, Shared};

/// How long nothing must have come before the log is sealed.
const IDLE: Duration = Duration::from_millis(200);
/// How often a batch is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(1);
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
    let mut waiting = Vec::new();
    let mut next_look = Instant::now();
    let mut ahead = Ahead { log: log.ahead(), under_way: None, not_before: Instant::now() };
    loop {
        let deadline = (!sealed).then(|| Instant::now() + IDLE);
        match batches.take(&mut waiting, deadline) {
            Taken::Items => {
                for batch in waiting.drain(..) {
                    append(&mut log, &batch, shared);
                    shared.inbox.push(Event::Persisted(batch.number));
                }
                ahead.keep(shared);
                if Instant::now() >= next_look {
                    shared.disk_watch.during(Part::Log, || collect(&mut log, shared, flusher));
                    next_look = Instant::now() + LOOK;
                }
                sealed = false;
            }
            Taken::Nothing => {
                shared.disk_watch.during(Part::Log, || {
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

fn append(log: &mut Log, batch: &Batch, shared: &Shared) {
    let mut full = false;
    while let Err(error) = shared.disk_watch.during(Part::Log, || log.append(&batch.records)) {
        if !error.is_disk_full() || shared.is_stopping() {
            die("the log can't be written", &error);
        }
        if !full {
            shared.notice(format!(
                "no room for the log ({error}): this node takes no writes until there is, reads go on"
            ));
            shared.disk_full(Part::Log, true);
            full = true;
        }
        thread::sleep(FULL_RETRY);
    }
    if full {
        shared.notice("there is room for the log again");
        shared.disk_full(Part::Log, false);
    }
}

/// Lets go of what is beyond the budget, as far as the tables allow.
fn collect(log: &mut Log, shared: &Shared, flusher: &Flusher) {
    let durable = flusher.durable();
    flusher.want(log.held_by(&durable));
    if !log.is_over_budget() {
        return;
    }
    match log.collect(&durable) {
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
