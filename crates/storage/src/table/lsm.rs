//! Tables on disk: one `lsm-tree` a shard, with one block cache and one table of open files for all.
//!
//! # Which tree a read sees
//! A tree keeps a history of *super versions* (memtables plus files), each with a sequence number V that the
//! tree takes from a counter whenever a flush or a compaction puts a new one in place. A read at index i asks
//! for the newest super version with V <= i. `lsm-tree` means that counter to be the one that writes draw from; ours
//! are Raft indexes, so the counter has to be kept where it would be. What has to hold, for a super version
//! made from inputs whose highest index is R, when W is the highest index written:
//!
//! - R <= V: compaction keeps of each key the newest version and drops older ones below the watermark, so
//!   this super version is complete only for reads at R and above; older reads need the one before it;
//! - V <= W + 1: reads below V get the one before, which shares its active memtable only until the next rotation, and
//!   so must be complete by then for all that they may see.
//!
//! So before each flush and compaction, and at each rotation, the counter is set to the highest index sealed
//! (R <= sealed <= W). A flush and a compaction may run side by side, one of each; whichever installs second
//! then gets sealed + 1, which is still good. (`tests/tables.rs` reads old indexes through all of this.)
//!
//! After a reopen there is one super version, with V = 0 and everything in it, and reads below the durable
//! index are refused: their versions may have been dropped.
//!
//! # What is absent
//! Separation of keys and values: values are at most 8 MiB, and few are that large. Retries: a failed flush
//! leaves the memtables sealed, and the next flush takes them again.

use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::{
    AbstractTree, AnyTree, Cache, Config, DescriptorTable, Guard, InternalValue, Memtable,
    SequenceNumberCounter, Tree, ValueType,
};
use ringfort_types::{Index, ShardId};

use super::{Dead, Rows, Table, Tables, files};
use crate::disk::Disk;
use crate::{FileDisk, SHARDS_DIR, StorageError};

/// What a row in a memtable takes beside what `lsm-tree` counts for it (key, value and their two headers): the
/// skip list's node and the allocator's share. Measured: 128,562 rows of 116 B, counted as 32 MB, were 32 MB
/// of resident memory.
const ROW_OVERHEAD_BYTES: u64 = 64;

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
    disk: Arc<FileDisk>,
    options: TableOptions,
    cache: Arc<Cache>,
    descriptors: Arc<DescriptorTable>,
    /// Two trees in one directory would destroy it.
    open: Mutex<BTreeMap<(ShardId, u64), Weak<LsmTable>>>,
}

impl LsmTables {
    /// Tables in the data directory on this disk, whose lock the caller holds.
    pub fn new(disk: Arc<FileDisk>, options: TableOptions) -> LsmTables {
        LsmTables {
            disk,
            options,
            cache: Arc::new(Cache::with_capacity_bytes(options.cache_bytes)),
            descriptors: Arc::new(DescriptorTable::new(options.open_files)),
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
        let table = Arc::new(LsmTable::open(self, shard, dir)?);
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
                table.is_doomed.store(true, Ordering::Release);
                Ok(())
            }
            None => remove_dir(&self.disk, &dir_of(shard, generation)),
        }
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

/// A tree's directory, and what is known to be wrong with it.
struct Place {
    shard: ShardId,
    disk: Arc<FileDisk>,
    dir: String,
    /// The first damage, once something could not be read. Looked for once: that takes reading everything.
    damage: OnceLock<Option<(String, u64, &'static str)>>,
}

impl Place {
    fn path(&self) -> String {
        format!("{}/{}", self.disk.name(), self.dir)
    }

    /// What the library says, or better: which file is damaged, and where.
    fn explain(&self, source: lsm_tree::Error) -> StorageError {
        let table = |source| StorageError::Table { shard: self.shard, path: self.path(), source };
        if let lsm_tree::Error::Io(error) = &source
            && !matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::NotFound)
        {
            return table(source);
        }
        let damage = self.damage.get_or_init(|| match files::find(&*self.disk, &self.dir) {
            Some(StorageError::Corrupt { path, offset, reason }) => Some((path, offset, reason)),
            _ => None,
        });
        match damage.clone() {
            Some((path, offset, reason)) => StorageError::Corrupt { path, offset, reason },
            None => table(source),
        }
    }
}

struct LsmTable {
    shard: ShardId,
    path: PathBuf,
    place: Arc<Place>,
    tree: Tree,
    strategy: Arc<Leveled>,
    file_bytes: u64,
    /// `Table::collected`. Read-locked while a read takes its super version, so that the one it needs is not
    /// dropped before it has it.
    collected: RwLock<Index>,
    /// The counter that super versions get their numbers from, and the highest index sealed.
    seal: Mutex<Seal>,
    /// Held during a compaction: at most one runs.
    compacting: Mutex<()>,
    written: AtomicU64,
    durable: AtomicU64,
    active_bytes: AtomicU64,
    /// Removals in the active memtable.
    active_removed: AtomicU64,
    /// Sealed memtables with their sizes, for as long as anybody holds them.
    sealed_bytes: Mutex<Vec<(Weak<Memtable>, u64)>>,
    /// Removals in memtables that are sealed and not on disk.
    sealed_removed: AtomicU64,
    /// Another generation has taken its place.
    is_doomed: AtomicBool,
    /// A compaction has met damage. Another one would meet it again, and each leaves files behind until the next start.
    is_left_alone: AtomicBool,
}

impl Drop for LsmTable {
    fn drop(&mut self) {
        if self.is_doomed.load(Ordering::Acquire)
            && let Err(error) = self.place.disk.remove_dir(&self.place.dir)
        {
            // The next start tries it again.
            tracing::warn!(
                "the old table of shard {} in {} stays for now: {error}",
                self.shard,
                self.place.path()
            );
        }
    }
}

struct Seal {
    counter: SequenceNumberCounter,
    sealed: u64,
}

impl LsmTable {
    fn open(tables: &LsmTables, shard: ShardId, dir: String) -> Result<LsmTable, StorageError> {
        files::check(&*tables.disk, &dir)?;
        let path = tables.disk.root().join(&dir);
        let place = Place { shard, disk: tables.disk.clone(), dir, damage: OnceLock::new() };
        let counter = SequenceNumberCounter::default();
        let config = Config::new(&path, counter.clone(), SequenceNumberCounter::default())
            .use_cache(tables.cache.clone())
            .use_descriptor_table(Some(tables.descriptors.clone()));
        let tree = match config.open().map_err(|source| place.explain(source))? {
            AnyTree::Standard(tree) => tree,
            AnyTree::Blob(_) => unreachable!("keys and values are not separated"),
        };
        let durable = tree.get_highest_persisted_seqno().unwrap_or(0);
        let strategy = Leveled::default()
            .with_table_target_size(tables.options.file_bytes)
            .with_l0_threshold(tables.options.flushes_merged);
        Ok(LsmTable {
            shard,
            path,
            place: Arc::new(place),
            tree,
            strategy: Arc::new(strategy),
            file_bytes: tables.options.file_bytes,
            collected: RwLock::new(Index(durable)),
            seal: Mutex::new(Seal { counter, sealed: durable }),
            compacting: Mutex::new(()),
            written: AtomicU64::new(durable),
            durable: AtomicU64::new(durable),
            active_bytes: AtomicU64::new(0),
            active_removed: AtomicU64::new(0),
            sealed_bytes: Mutex::new(Vec::new()),
            sealed_removed: AtomicU64::new(0),
            is_doomed: AtomicBool::new(false),
            is_left_alone: AtomicBool::new(false),
        })
    }

    fn failed(&self) -> impl FnOnce(lsm_tree::Error) -> StorageError + use<'_> {
        |source| self.place.explain(source)
    }

    /// Runs `look` while the super versions that a read at `at` needs are sure to be there.
    fn reading<T>(&self, at: Index, look: impl FnOnce(u64) -> T) -> Result<T, StorageError> {
        let collected = self.collected.read().unwrap_or_else(PoisonError::into_inner);
        if at < *collected {
            return Err(StorageError::Collected { shard: self.shard, asked: at, collected: *collected });
        }
        // A read at sequence number s sees what is below s.
        Ok(look(at.0.saturating_add(1)))
    }

    /// Ends reads below `keep_from`, and returns the watermark for the tree: the lowest sequence number that
    /// reads may still ask for.
    fn collect(&self, keep_from: Index) -> u64 {
        let mut collected = self.collected.write().unwrap_or_else(PoisonError::into_inner);
        *collected = keep_from.max(*collected);
        collected.0.saturating_add(1)
    }

    /// The super version made next gets the number that it must have; see the top of this file.
    fn set_counter(&self) {
        let seal = self.seal.lock().unwrap_or_else(PoisonError::into_inner);
        seal.counter.set(seal.sealed);
    }

    fn compact_by(
        &self,
        keep_from: Index,
        compact: impl FnOnce(u64) -> lsm_tree::Result<()>,
    ) -> Result<bool, StorageError> {
        let Ok(_lock) = self.compacting.try_lock() else { return Ok(false) };
        if self.is_left_alone.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let before = self.tree.current_version().id();
        let watermark = self.collect(keep_from);
        self.set_counter();
        compact(watermark).map_err(|source| {
            let error = self.place.explain(source);
            self.is_left_alone.store(error.is_damage(), Ordering::Relaxed);
            error
        })?;
        self.drop_old_versions(watermark)?;
        Ok(self.tree.current_version().id() != before)
    }

    /// Drops the super versions that no read may ask for any more, and with them their memtables and files.
    fn drop_old_versions(&self, watermark: u64) -> Result<(), StorageError> {
        self.tree.get_version_history_lock().maintenance(&self.path, watermark).map_err(self.failed())
    }
}

impl fmt::Debug for LsmTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LsmTable")
            .field("shard", &self.shard)
            .field("written", &self.written)
            .field("durable", &self.durable)
            .finish_non_exhaustive()
    }
}

impl Table for LsmTable {
    fn write(&self, index: Index, rows: &[(Bytes, Option<Bytes>)]) {
        let before = self.written.swap(index.0, Ordering::AcqRel);
        assert!(index.0 >= before, "shard {}: index {index} is written after {before}", self.shard);
        if rows.is_empty() {
            return;
        }
        // Fetched once: only this thread rotates.
        let memtable = self.tree.active_memtable();
        let (mut bytes, mut removed) = (0, 0);
        for (key, value) in rows {
            removed += u64::from(value.is_none());
            let row = match value {
                Some(value) => {
                    InternalValue::from_components(key.clone(), value.clone(), index.0, ValueType::Value)
                }
                None => InternalValue::new_tombstone(key.clone(), index.0),
            };
            bytes += memtable.insert(row).0 + ROW_OVERHEAD_BYTES;
        }
        self.active_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.active_removed.fetch_add(removed, Ordering::Relaxed);
    }

    fn get(&self, key: &[u8], at: Index) -> Result<Option<Bytes>, StorageError> {
        let found = self.reading(at, |sequence| self.tree.get(key, sequence))?.map_err(self.failed())?;
        Ok(found.map(Bytes::from))
    }

    fn scan(
        &self,
        from: &[u8],
        until: Option<&[u8]>,
        at: Index,
        each: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if until.is_some_and(|until| until <= from) {
            return self.reading(at, |_| ());
        }
        let range = (Bound::Included(from), until.map_or(Bound::Unbounded, Bound::Excluded));
        // The iterator holds its super version by itself.
        let rows = self.reading(at, |sequence| self.tree.range::<&[u8], _>(range, sequence, None))?;
        for row in rows {
            let (key, value) = row.into_inner().map_err(self.failed())?;
            if each(&key, &Bytes::from(value)).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn rows(&self, at: Index) -> Result<Rows, StorageError> {
        // The iterator holds its super version by itself, and that the files and memtables in it.
        let rows = self.reading(at, |sequence| self.tree.range::<&[u8], _>(.., sequence, None))?;
        let place = self.place.clone();
        let row = move |row: lsm_tree::IterGuardImpl| {
            let (key, value) = row.into_inner().map_err(|source| place.explain(source))?;
            Ok((Bytes::from(key), Bytes::from(value)))
        };
        Ok(Box::new(rows.map(row)))
    }

    fn rotate(&self) {
        let mut seal = self.seal.lock().unwrap_or_else(PoisonError::into_inner);
        seal.sealed = self.written.load(Ordering::Acquire);
        let bytes = self.active_bytes.swap(0, Ordering::Relaxed);
        let removed = self.active_removed.swap(0, Ordering::Relaxed);
        self.sealed_removed.fetch_add(removed, Ordering::Relaxed);
        if let Some(memtable) = self.tree.rotate_memtable() {
            let mut sealed = self.sealed_bytes.lock().unwrap_or_else(PoisonError::into_inner);
            sealed.push((Arc::downgrade(&memtable), bytes));
        }
        seal.counter.set(seal.sealed);
    }

    fn flush(&self, keep_from: Index) -> Result<(), StorageError> {
        let watermark = self.collect(keep_from);
        let lock = self.tree.get_flush_lock();
        self.set_counter();
        let removed = self.sealed_removed.load(Ordering::Relaxed);
        let flushed = self.tree.flush(&lock, watermark).map_err(self.failed())?;
        drop(lock);
        if flushed.is_some() {
            let durable = self.tree.get_highest_persisted_seqno().unwrap_or(0);
            self.durable.fetch_max(durable, Ordering::AcqRel);
            self.sealed_removed.fetch_sub(removed, Ordering::Relaxed);
        }
        self.drop_old_versions(watermark)
    }

    fn compact(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.compact_by(keep_from, |watermark| self.tree.compact(self.strategy.clone(), watermark))
    }

    fn merge(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.compact_by(keep_from, |watermark| self.tree.major_compact(self.file_bytes, watermark))
    }

    fn release(&self, keep_from: Index) -> Result<(), StorageError> {
        let watermark = self.collect(keep_from);
        self.drop_old_versions(watermark)
    }

    fn durable(&self) -> Index {
        Index(self.durable.load(Ordering::Acquire))
    }

    fn collected(&self) -> Index {
        *self.collected.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_bytes(&self) -> u64 {
        let mut sealed = self.sealed_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        sealed.retain(|(memtable, _)| memtable.strong_count() > 0);
        let sealed: u64 = sealed.iter().map(|(_, bytes)| bytes).sum();
        sealed + self.active_bytes.load(Ordering::Relaxed)
    }

    fn dead(&self) -> Dead {
        Dead { removals: self.tree.tombstone_count(), items: self.tree.approximate_len() as u64 }
    }

    fn active_removals(&self) -> u64 {
        self.active_removed.load(Ordering::Relaxed)
    }

    fn rows_estimate(&self) -> u64 {
        // A removal is counted as an item, and cancels another.
        let in_memory =
            self.active_removed.load(Ordering::Relaxed) + self.sealed_removed.load(Ordering::Relaxed);
        let removed = 2 * (self.tree.tombstone_count() + in_memory);
        (self.tree.approximate_len() as u64).saturating_sub(removed)
    }

    fn bytes_estimate(&self) -> u64 {
        self.tree.disk_space() + self.memory_bytes()
    }

    fn place(&self) -> String {
        self.place.path()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compactions in a row, each with a super version of its own, must not use up the numbers of entries that
    /// are yet to come.
    #[test]
    fn many_super_versions_without_a_write_between() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let tables = LsmTables::new(disk, TableOptions::default());
        let table = LsmTable::open(&tables, ShardId(1), "tree".into()).unwrap();
        let key = Bytes::from_static(b"k");
        for index in 1..=40u64 {
            table.write(Index(index), &[(key.clone(), Some(Bytes::from(index.to_string())))]);
            // The flush comes late, so that entries are written between a rotation and it.
            match index % 4 {
                0 => table.rotate(),
                2 => {
                    table.flush(Index(1)).unwrap();
                    for _ in 0..12 {
                        let merge_all = |mark| table.tree.major_compact(u64::MAX, mark);
                        table.compact_by(Index(1), merge_all).unwrap();
                    }
                }
                _ => {}
            }
            for at in 1..=index {
                let value = Some(Bytes::from(at.to_string()));
                assert_eq!(table.get(&key, Index(at)).unwrap(), value, "at {at} of {index}");
            }
        }
    }
}
