//! The thread that makes the log durable.
//!
//! It appends one batch at a time and reports it; what the core gathers meanwhile is the next one. When
//! nothing comes for [`IDLE`], it seals the log, so that acknowledged data is not last for long.
//!
//! A failed write or sync ends the process: nothing after it may be acknowledged. Only a full disk is waited
//! out, because then nothing of the batch is stored, and nothing has been said about it to anyone.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringfort_node::Event;
use ringfort_storage::Log;
use ringfort_types::Record;

use crate::error::die;
use crate::queue::{Queue, Taken};
use crate::shared::Shared;

/// How long nothing must have come before the log is sealed.
const IDLE: Duration = Duration::from_millis(200);
/// How often a batch is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(1);

/// A batch to be made durable.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The node's number for it.
    pub(crate) number: u64,
    /// In order.
    pub(crate) records: Vec<Record>,
}

/// Runs until the queue is closed; leaves the log sealed.
pub(crate) fn run(mut log: Log, batches: &Queue<Batch>, shared: &Arc<Shared>) {
    let mut sealed = true;
    let mut waiting = Vec::new();
    loop {
        let deadline = (!sealed).then(|| Instant::now() + IDLE);
        match batches.take(&mut waiting, deadline) {
            Taken::Items => {
                for batch in waiting.drain(..) {
                    append(&mut log, &batch, shared);
                    shared.inbox.push(Event::Persisted(batch.number));
                }
                sealed = false;
            }
            Taken::Nothing => {
                seal(&mut log);
                sealed = true;
            }
            Taken::Closed => return seal(&mut log),
        }
    }
}

fn append(log: &mut Log, batch: &Batch, shared: &Shared) {
    let mut full = false;
    while let Err(error) = log.append(&batch.records) {
        if !error.is_disk_full() || shared.is_stopping() {
            die("the log can't be written", &error);
        }
        if !full {
            shared.notice(format!("no room for the log ({error}): writes wait until there is, reads go on"));
            full = true;
        }
        thread::sleep(FULL_RETRY);
    }
    if full {
        shared.notice("there is room for the log again".into());
    }
}

fn seal(log: &mut Log) {
    if let Err(error) = log.seal()
        && !error.is_disk_full()
    {
        die("the log can't be sealed", &error);
    }
}
