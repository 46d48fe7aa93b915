//! What a node keeps on disk: who it is, the shared log, and the shards' tables.
//!
//! Three things, in the order in which a write meets them:
//!
//! 1. The **log** ([`Log`]). Whatever Raft must not forget, for all shards of the node, goes into one file,
//!    batch by batch, each synced whole before anybody is told. One sync serves all shards; that is what makes
//!    many small shards cheap.
//! 2. The **tables** ([`Table`]). What committed entries add up to: one multi-version map a shard, its
//!    sequence number being the Raft index. A table has no journal; after a crash it is what it was at its
//!    last flush, and the log is replayed from there.
//!    A table travels to another node as a *snapshot* ([`SnapshotReader`], [`SnapshotWriter`]), and becomes a new
//!    generation there.
//! 3. The **identity** ([`DataDir`]). Whose data this is. Taken under a lock before anything else is touched.
//!
//! Log and identity go through the trait [`Disk`], so that the simulator can put a worse disk beneath them
//! ([`SimDisk`]) than any that is likely to be met. Tables are a trait themselves, with a second engine in
//! memory: `lsm-tree` does its own I/O.
//!
//! The files are drawn byte by byte in `docs/formats/`.
//!
//! # Caveats
//! - All of the log is read at every start (at memory speed, but still).
//! - A batch that was acknowledged, and is the last of the log, and whose bytes then rot, is taken for a torn
//!   write and cut. [`Log::seal`] is the remedy: it makes sure that it is not the last for long.
//! - Entries of one shard lie scattered among those of all others. Reading many old ones of one shard means
//!   reading past the others' too.
//! - `lsm-tree` does not go through [`Disk`]: its behaviour at a crash is believed (its source syncs files,
//!   manifest and directories in the right order), and not simulated.

mod disk;
mod error;
mod identity;
mod log;
mod snapshot;
mod table;
mod whole;

pub use disk::{Disk, File, FileDisk, Lock, Scratch, SimDisk, Stopped};
pub use error::{NEXT_STEP, StorageError};
pub use identity::{DataDir, Stored, Who};
pub use log::{Durable, Log, LogAhead, LogOptions, LogReader, Note, Owner, RecoveredShard};
pub use snapshot::{Chunk, SnapshotReader, SnapshotWriter, Taken};
pub use table::{Blocks, Dead, LsmTables, MemoryTables, Rows, Table, TableOptions, Tables};

/// The only lane there is yet.
const LANE: u32 = 0;
/// Where all of that lane is, in the data directory.
const LANE_DIR: &str = "lane-0";
/// Where its log is.
const LOG_DIR: &str = "lane-0/log";
/// Where its tables are, a directory for each shard (and, for a while, for each of its generations).
const SHARDS_DIR: &str = "lane-0/shards";
