//! Where tables on disk come from: a directory for each shard and generation, and one block cache and one table of open files for all.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use lsm_tree::{Cache, DescriptorTable};
use ringfort_types::{Incarnation, ShardId};

use super::lsm::LsmTable;
use super::{Blocks, Table, Tables};
use crate::disk::Disk;
use crate::{FileDisk, SHARDS_DIR, StorageError};

/// How tables are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableOptions {
    /// Memory for blocks read from disk, for all tables together, in bytes.
    pub cache_bytes: u64,
    /// Files kept open, for all tables together.
    pub open_files: usize,
    /// Size at which compaction begins another file, in bytes. The level that flushed files are merged into has `flushes_merged`
    /// times as much, the ones below it ten times the one above: large files make every merge rewrite much.
    pub file_bytes: u64,
    /// Flushed files that a table gathers before they are merged into the levels below.
    pub flushes_merged: u8,
}

impl Default for TableOptions {
    fn default() -> TableOptions {
        TableOptions {
            cache_bytes: 64 * 1024 * 1024,
            open_files: 1024,
            file_bytes: 8 * 1024 * 1024,
            flushes_merged: 4,
        }
    }
}

/// Tables on disk.
pub struct LsmTables {
    pub(super) disk: Arc<FileDisk>,
    pub(super) incarnation: Incarnation,
    pub(super) options: TableOptions,
    pub(super) cache: Arc<Cache>,
    pub(super) descriptors: Arc<DescriptorTable>,
    /// Reads of tables that are not open any more.
    pub(super) gone: Arc<Mutex<Blocks>>,
    /// Two trees in one directory would destroy it.
    open: Mutex<BTreeMap<(ShardId, u64), Weak<LsmTable>>>,
}

impl LsmTables {
    /// Tables in the data directory on this disk, whose lock the caller holds, and whose incarnation this is.
    pub fn new(disk: Arc<FileDisk>, incarnation: Incarnation, options: TableOptions) -> LsmTables {
        LsmTables {
            disk,
            incarnation,
            options,
            cache: Arc::new(Cache::with_capacity_bytes(options.cache_bytes)),
            descriptors: Arc::new(DescriptorTable::new(options.open_files)),
            gone: Arc::default(),
            open: Mutex::new(BTreeMap::new()),
        }
    }
}

impl fmt::Debug for LsmTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmTables")
            .field("disk", &self.disk)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Tables for LsmTables {
    fn open_generation(&self, shard: ShardId, generation: u64) -> Result<Arc<dyn Table>, StorageError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(table) = open.get(&(shard, generation)).and_then(Weak::upgrade) {
            return Ok(table);
        }
        let dir = dir_of(shard, generation);
        self.disk.create_dir(&dir).map_err(|source| StorageError::Io {
            action: "make the directory",
            path: format!("{}/{dir}", self.disk.name()),
            source,
        })?;
        let table = Arc::new(LsmTable::open(self, shard, generation, dir)?);
        open.insert((shard, generation), Arc::downgrade(&table));
        Ok(table)
    }

    fn remove_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        let table = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.remove(&(shard, generation)).and_then(|table| table.upgrade())
        };
        match table {
            Some(table) => {
                table.doom();
                Ok(())
            }
            None => remove_dir(&self.disk, &dir_of(shard, generation)),
        }
    }

    fn blocks(&self) -> Blocks {
        // One that goes meanwhile is counted at the next look.
        let open: Vec<Arc<LsmTable>> = {
            let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.values().filter_map(Weak::upgrade).collect()
        };
        let gone = *self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().map(|table| table.blocks()).fold(gone, |sum, blocks| sum + blocks)
    }

    fn keep_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        let names = match self.disk.list(SHARDS_DIR) {
            Ok(names) => names,
            // No table has been made yet.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => {
                let path = format!("{}/{SHARDS_DIR}", self.disk.name());
                return Err(StorageError::Io { action: "read the directory", path, source });
            }
        };
        for name in names {
            if let Some((of, which)) = generation_of(&name)
                && of == shard
                && which != generation
            {
                remove_dir(&self.disk, &format!("{SHARDS_DIR}/{name}"))?;
            }
        }
        Ok(())
    }
}

/// A table's directory: its shard's number, and its generation if it is not the first.
fn dir_of(shard: ShardId, generation: u64) -> String {
    match generation {
        0 => format!("{SHARDS_DIR}/{shard}"),
        _ => format!("{SHARDS_DIR}/{shard}.{generation}"),
    }
}

fn generation_of(name: &str) -> Option<(ShardId, u64)> {
    let (shard, generation) = name.split_once('.').unwrap_or((name, "0"));
    Some((ShardId(shard.parse().ok()?), generation.parse().ok()?))
}

fn remove_dir(disk: &FileDisk, dir: &str) -> Result<(), StorageError> {
    disk.remove_dir(dir).map_err(|source| StorageError::Io {
        action: "remove the directory",
        path: format!("{}/{dir}", disk.name()),
        source,
    })
}
