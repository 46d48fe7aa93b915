//! Why a shard's table can't be used.

use ringfort_storage::{NEXT_STEP, StorageError};
use ringfort_types::{Index, ShardId};

/// A shard could not be opened, or can't go on.
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
    /// A committed entry needs a row that can't be read. The other replicas apply it all the same, so this one can't go on.
    #[error("shard {shard}: entry {index} needs a row that can't be read: {source}")]
    Unapplied {
        /// Whose.
        shard: ShardId,
        /// The entry's.
        index: Index,
        /// Why.
        source: StorageError,
    },
    /// It can be read, and is not what this version writes.
    #[error(
        "shard {shard}: entry {index} needs the row of key \"{key}\" in {path}, which can't be read ({reason}): start the \
         Ringfort version that wrote it, or put the directory back as it was. {}",
        NEXT_STEP
    )]
    UnappliedRow {
        /// Whose.
        shard: ShardId,
        /// The entry's.
        index: Index,
        /// The row's, as it is shown to people.
        key: String,
        /// The table's directory.
        path: String,
        /// What is wrong.
        reason: &'static str,
    },
}

impl ShardError {
    /// Whether stored bytes are not what they were: no other try helps, and other replicas may be well.
    pub fn is_damage(&self) -> bool {
        match self {
            ShardError::Storage { source, .. } | ShardError::Unapplied { source, .. } => source.is_damage(),
            ShardError::State { .. } | ShardError::Torn { .. } | ShardError::UnappliedRow { .. } => true,
        }
    }
}
