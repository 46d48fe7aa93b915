//! The one thread that writes sealed memtables to disk and compacts.
//!
//! One after the other, so that a burst of writes does not become a burst of disk traffic from as many threads
//! as there are shards. A failed flush ends the process, because a failed sync can't be repaired; a full disk
//! is waited out, as the log still has everything.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use ringfort_storage::{StorageError, Table};
use ringfort_types::{Index, ShardId};

use crate::error::die;
use crate::queue::{Queue, Taken};
use crate::shared::Shared;

/// How often a flush is tried again while the disk is full.
const FULL_RETRY: Duration = Duration::from_secs(1);
/// Rounds of compaction after a flush: what it adds to one level may push something into the next.
const ROUNDS: usize = 2;

/// A sealed table to be written.
#[derive(Debug)]
pub(crate) struct Flush {
    pub(crate) shard: ShardId,
    pub(crate) table: Arc<dyn Table>,
    /// Versions needed by no read at this index or above may go.
    pub(crate) keep_from: Index,
}

/// The flush thread's queue, and which shards it has in hand.
#[derive(Debug, Default)]
pub(crate) struct Flusher {
    queue: Queue<Flush>,
    busy: Mutex<BTreeSet<ShardId>>,
    ended: AtomicBool,
}

impl Flusher {
    /// Hands a table over. Its shard is not idle until it is written.
    pub(crate) fn push(&self, flush: Flush) {
        self.busy().insert(flush.shard);
        self.queue.push(flush);
    }

    pub(crate) fn is_flushing(&self, shard: ShardId) -> bool {
        self.busy().contains(&shard)
    }

    /// Whether nothing will be flushed unless something is handed over.
    pub(crate) fn is_idle(&self) -> bool {
        self.ended.load(Ordering::Acquire) || self.busy().is_empty()
    }

    /// Ends the thread after the table in hand.
    pub(crate) fn close(&self) {
        self.queue.close();
    }

    /// Runs until closed.
    pub(crate) fn run(&self, shared: &Shared) {
        self.write_what_comes(shared);
        self.ended.store(true, Ordering::Release);
    }

    fn write_what_comes(&self, shared: &Shared) {
        let mut waiting = Vec::new();
        while self.queue.take(&mut waiting, None) == Taken::Items {
            for flush in waiting.drain(..) {
                if shared.is_stopping() {
                    return;
                }
                let keep_from = flush.keep_from;
                let name = format!("the table of shard {} can't be flushed", flush.shard);
                retry(&name, shared, || flush.table.flush(keep_from));
                self.busy().remove(&flush.shard);
                for _ in 0..ROUNDS {
                    retry(&name, shared, || flush.table.compact(keep_from));
                }
            }
        }
    }

    fn busy(&self) -> MutexGuard<'_, BTreeSet<ShardId>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn retry(what: &str, shared: &Shared, mut act: impl FnMut() -> Result<(), StorageError>) {
    let mut full = false;
    while let Err(error) = act() {
        if !error.is_disk_full() {
            die(what, &error);
        }
        if shared.is_stopping() {
            return;
        }
        if !full {
            shared.notice(format!("{what} for lack of room ({error}): trying again each second"));
            full = true;
        }
        thread::sleep(FULL_RETRY);
    }
}
