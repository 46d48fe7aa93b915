//! One shard's rows, in every version that somebody may still read.
//!
//! A table is written by one thread, an entry at a time, and read by many. Its sequence number *is* the Raft
//! index: what entry `i` wrote is visible to reads at `i` and above, so an entry that changes several keys is
//! never seen half, as long as nobody reads above the applied index. The shared log is its only journal: what
//! is not flushed is gone after a crash, and is replayed from [`Table::durable`] on.
//!
//! A shard has one table at a time. A snapshot from another node becomes a new *generation* of it, built beside the one
//! in use, which is removed afterwards; the shared log says which one counts ([`Base`](ringfort_types::Base)).
//!
//! Two engines, one conformance suite (`tests/tables.rs`): [`LsmTables`] on disk, and [`MemoryTables`], which
//! can fall back as a crash would, for the simulator.

mod files;
mod generations;
mod lsm;
mod memory;
mod owner;
mod place;
mod sealed;
mod versions;

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_types::{Index, ShardId};

use crate::StorageError;

pub use generations::{LsmTables, TableOptions};
pub use memory::MemoryTables;

/// Rows in key order: keys and values.
pub type Rows = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StorageError>> + Send>;

/// What a table has on disk of rows that are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dead {
    /// Removals, each of which hides what is below it, and costs a scan that meets it as much as a row.
    pub removals: u64,
    /// All versions of all rows, and removals, also those in memory.
    pub items: u64,
    /// At most so many bytes of old versions were kept by compactions, since somebody read them. They go as ordinary compaction
    /// comes to them, and in a merge at once.
    pub undropped_bytes: u64,
}

/// One shard's rows. One writer, many readers.
pub trait Table: Send + Sync + Debug {
    /// Writes an entry's final values; `None` removes. Indexes never fall from one call to the next; of each
    /// key there is at most one value per index.
    fn write(&self, index: Index, rows: &[(Bytes, Option<Bytes>)]);

    /// The key's value as of `at`. Fails below [`Table::collected`].
    fn get(&self, key: &[u8], at: Index) -> Result<Option<Bytes>, StorageError>;

    /// Calls `each` with the rows in `from..until` as of `at`, in key order, until it breaks. Fails below
    /// [`Table::collected`].
    fn scan(
        &self,
        from: &[u8],
        until: Option<&[u8]>,
        at: Index,
        each: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError>;

    /// All rows as of `at`, in key order. Stays as it is whatever is written, flushed, compacted or removed meanwhile.
    fn rows(&self, at: Index) -> Result<Rows, StorageError>;

    /// Seals the active memtable, for the next flush. Between entries only, by the writer. What becomes
    /// durable is a whole number of sealed memtables; so that [`Table::durable`] is exact after a restart,
    /// the last index before this call must have set a row that is never removed (the shard's state row).
    fn rotate(&self);

    /// Writes what is sealed to disk, and syncs it. For a background thread. Versions that no read at
    /// `keep_from` or above needs may go, and [`Table::collected`] rises to it.
    fn flush(&self, keep_from: Index) -> Result<(), StorageError>;

    /// Writes rows straight to disk, as of `index`, and syncs them: those of a table that is being made, in key order, one call after the
    /// other. Nothing else is written to it meanwhile.
    fn append(&self, index: Index, rows: Vec<(Bytes, Bytes)>) -> Result<(), StorageError> {
        let rows: Vec<_> = rows.into_iter().map(|(key, value)| (key, Some(value))).collect();
        self.write(index, &rows);
        self.rotate();
        self.flush(index)
    }

    /// Does one round of background compaction, and says whether there was one to be done: then there may be another.
    /// `keep_from` as in `flush`; if something on disk is younger, every version is kept. After it has met damage there are no
    /// more rounds: everything stays as it is.
    fn compact(&self, keep_from: Index) -> Result<bool, StorageError>;

    /// Merges all that is on disk, so that nothing is left of rows which are gone. For a background thread, and for when
    /// [`Table::dead`] says that it is worth it. Says whether it was done: not while another compaction runs, and not if something
    /// on disk is younger than `keep_from`, which is as in `flush`.
    fn merge(&self, keep_from: Index) -> Result<bool, StorageError>;

    /// Whether so many flushes are yet to be compacted that reads feel it.
    fn is_crowded(&self) -> bool;

    /// Bytes that flushes have written since this index, which is readable. At most that is what it costs to keep it so.
    fn written_since(&self, index: Index) -> u64;

    /// The highest index that survives a crash, with everything before it.
    fn durable(&self) -> Index;

    /// Reads below this index are refused.
    fn collected(&self) -> Index;

    /// Bytes held in memtables: active, sealed, and flushed ones that [`Table::rows`] still goes through.
    fn memory_bytes(&self) -> u64;

    /// What is on disk of rows that are gone.
    fn dead(&self) -> Dead;

    /// About how many removals scans have stepped over, each time that they did, since the last [`Table::merge`]. Quick.
    fn stepped_over(&self) -> u64 {
        0
    }

    /// Removals in the active memtable. Quick.
    fn active_removals(&self) -> u64;

    /// Of each of its files the first key, also if that was removed, as far as it can be read. Quick.
    fn first_keys(&self) -> Vec<Bytes> {
        Vec::new()
    }

    /// About how many rows there are. Counts a key that was written several times more than once until
    /// compaction has merged its versions.
    fn rows_estimate(&self) -> u64;

    /// About how many bytes they take, on disk and in memory.
    fn bytes_estimate(&self) -> u64;

    /// Where it is, for messages: its directory's path.
    fn place(&self) -> String;
}

/// How often blocks of tables were read: rows, and what leads to them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    /// Out of the cache.
    pub cached: u64,
    /// From a file.
    pub read: u64,
}

impl std::ops::Add for Blocks {
    type Output = Blocks;

    fn add(self, other: Blocks) -> Blocks {
        Blocks { cached: self.cached + other.cached, read: self.read + other.read }
    }
}

/// Where tables come from.
pub trait Tables: Send + Sync + Debug {
    /// Opens a shard's first table; see [`Tables::open_generation`].
    fn open(&self, shard: ShardId) -> Result<Arc<dyn Table>, StorageError> {
        self.open_generation(shard, 0)
    }

    /// Opens a shard's table of this generation, making it if there is none. Its writer goes on after
    /// [`Table::durable`].
    fn open_generation(&self, shard: ShardId, generation: u64) -> Result<Arc<dyn Table>, StorageError>;

    /// Removes a generation: when its last user lets go of it, or at once if it has none.
    fn remove_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError>;

    /// How often blocks of tables were read since the start.
    fn blocks(&self) -> Blocks {
        Blocks::default()
    }

    /// Removes all generations of a shard but this one. For a start, when nobody uses any.
    fn keep_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError>;
}
