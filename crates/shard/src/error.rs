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
    /// Its files are another shard's.
    #[error(
        "the table of shard {shard} in {path} is damaged: it has rows of shard {other}, whose files are in its place; put the \
         directory back as it was. {}",
        NEXT_STEP
    )]
    Misplaced {
        /// Whose it should be.
        shard: ShardId,
        /// Its table's directory.
        path: String,
        /// Whose rows they are.
        other: ShardId,
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
    /// An entry is none that this version makes. The other replicas may run a version that does.
    #[error(
        "shard {shard}: entry {index} of the log is none that this version of Ringfort can read ({reason}): it takes no part in the shard; \
         start a version that knows all levels of the cluster, from the same directory"
    )]
    Unread {
        /// Whose.
        shard: ShardId,
        /// The entry's.
        index: Index,
        /// What is not known.
        reason: &'static str,
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
    /// Whether this replica can't go on, and others may: stored bytes are not what they were, or not known to this version. No other try
    /// helps.
    pub fn is_damage(&self) -> bool {
        match self {
            ShardError::Storage { source, .. } | ShardError::Unapplied { source, .. } => source.is_damage(),
            ShardError::State { .. }
            | ShardError::Misplaced { .. }
            | ShardError::Torn { .. }
            | ShardError::UnappliedRow { .. }
            | ShardError::Unread { .. } => true,
        }
    }

    /// Whether nothing is damaged, and another version of Ringfort can go on.
    pub fn is_unread(&self) -> bool {
        matches!(self, ShardError::Unread { .. })
    }
}
