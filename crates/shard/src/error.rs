//! Why a shard's table can't be used.

use ringfort_storage::{NEXT_STEP, StorageError};
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
        "the table of shard {shard} in {path} is damaged: {reason}. Start the Ringfort version that wrote it, or put the \
         directory back as it was. {}",
        NEXT_STEP
    )]
    State {
        /// Whose.
        shard: ShardId,
        /// Its table's directory.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The state row stands for another index than the table.
    #[error(
        "the table of shard {shard} in {path} is damaged: it is durable up to index {durable}, but its state row is for index \
         {applied}; put the directory back as it was. {}",
        NEXT_STEP
    )]
    Torn {
        /// Whose.
        shard: ShardId,
        /// Its table's directory.
        path: String,
        /// What the table says.
        durable: Index,
        /// What the state row says.
        applied: Index,
    },
}
