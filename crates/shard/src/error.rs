//! Why a shard's table can't be used.

use ringfort_storage::StorageError;
use ringfort_types::{Index, ShardId};

/// A shard could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ShardError {
    /// The table could not be read.
    #[error("shard {shard} can't be opened: {source}")]
    Storage {
        /// Whose.
        shard: ShardId,
        /// Why.
        source: StorageError,
    },
    /// The state row is missing or is not what this version writes.
    #[error(
        "the table of shard {shard} is damaged: {reason}. Its node can't serve it; start the Ringfort version \
         that wrote it, or remove this node from its cluster and start it with a new data directory"
    )]
    State {
        /// Whose.
        shard: ShardId,
        /// What is wrong.
        reason: &'static str,
    },
    /// The state row stands for another index than the table.
    #[error(
        "the table of shard {shard} is damaged: it is durable up to index {durable}, but its state row is for \
         index {applied}; remove this node from its cluster and start it with a new data directory"
    )]
    Torn {
        /// Whose.
        shard: ShardId,
        /// What the table says.
        durable: Index,
        /// What the state row says.
        applied: Index,
    },
}
