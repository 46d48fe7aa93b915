//! The thread that reads old entries from the log, for followers that lag.
//!
//! One after the other: a node that comes back asks for those of all its shards at once, and as many threads, each with
//! its piece of the log and its entries in memory, would take several times the memory and be no quicker.
//!
//! Bounded by the node, which asks for one stretch a shard at a time.

use ringfort_node::Event;
use ringfort_storage::{LogReader, StorageError};
use ringfort_types::{Index, ShardId};

use crate::error::die;
use crate::queue::{Queue, Taken};
use crate::shared::Shared;

/// What to read of one shard.
#[derive(Debug)]
pub(crate) struct Fetch {
    pub(crate) shard: ShardId,
    /// The first entry.
    pub(crate) from: Index,
    /// One past the last one.
    pub(crate) to: Index,
    /// At most about so many bytes.
    pub(crate) bytes_max: usize,
}

/// Runs until the queue is closed.
pub(crate) fn run(fetches: &Queue<Fetch>, log: &LogReader, shared: &Shared) {
    let mut waiting = Vec::new();
    while fetches.take(&mut waiting, None) != Taken::Closed {
        for Fetch { shard, from, to, bytes_max } in waiting.drain(..) {
            if shared.is_stopping() {
                return;
            }
            let entries = match log.entries(shard, from, to, bytes_max) {
                Ok(entries) => entries,
                // Gone meanwhile: the node is about to hear of it.
                Err(StorageError::NotStored { .. }) => Vec::new(),
                Err(error) => die("the log can't be read", &error),
            };
            shared.inbox.push(Event::Fetched { shard, entries });
        }
    }
}
