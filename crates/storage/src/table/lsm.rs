//! A table on disk: one `lsm-tree`.
//!
//! # What a read sees
//! A tree keeps a history of *super versions* (memtables plus files). Here every read takes the newest, which therefore has all
//! versions that reads at [`Table::collected`] and above may see; so nothing that was flushed stays in memory for them, and old
//! super versions go at once.
//!
//! Versions are dropped in two places. A flush keeps, of each key, what its readers may see (`versions::needed`). A compaction of
//! `lsm-tree` can't: below its watermark it drops a version as soon as *any* newer one exists, also one that is above what
//! some reader reads at. So it is given a watermark only if everything on disk is as old as the oldest reader; if not, it
//! is given none, and keeps every version: reads that are held for long cost disk.
//!
//! A flush may run beside a compaction, which must not choose files that are younger than it was told: between the compaction's
//! look at what is durable and its choice, a flush waits with what it has written (`choosing`).
//!
//! `lsm-tree` numbers super versions by a counter, and gives a read the newest one whose number is below its own. The
//! counter is set back before each flush and compaction, so that all numbers are 0 or 1: below any index at which there are rows.
//!
//! After a reopen reads below the durable index are refused: their versions may have been dropped.
//!
//! # What is absent
//! Separation of keys and values: values are at most 8 MiB, and few are that large. Retries: a failed flush
//! leaves the memtables sealed, and the next flush takes them again. Readers' indexes one by one: a compaction knows the oldest
//! only, and keeps all versions since.

use std::fmt;
use std::ops::{Bound, ControlFlow};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use lsm_tree::compaction::Leveled;
use lsm_tree::merge::Merger;
use lsm_tree::{
    AbstractTree, AnyTree, Config, Guard, InternalValue, Memtable, SequenceNumberCounter, Tree, ValueType,
};
use ringfort_types::{Index, ShardId};

use super::generations::{LsmTables, TableOptions};
use super::owner::{Known, Owner};
use super::place::Place;
use super::sealed::Sealed;
use super::versions::{Retained, needed};
use super::{Blocks, Dead, Rows, Table, owner};
use crate::StorageError;

/// What a row in a memtable takes beside what `lsm-tree` counts for it (key, value and their two headers): the
/// skip list's node and the allocator's share. Measured: 128,562 rows of 116 B, counted as 32 MB, were 32 MB
/// of resident memory.
const ROW_OVERHEAD_BYTES: u64 = 64;
/// Files that flushes have left unmerged are many at so many times those that are merged at once.
const CROWD: usize = 2;
/// The removals are counted that one scan in so many stepped over, and so many of them at most.
const SCANS_A_COUNT: u64 = 8;
const COUNTED_MAX: usize = 64 * 1024;
/// Between two looks at whether a compaction has chosen its files, which takes it microseconds.
const CHOICE_PAUSE: Duration = Duration::from_micros(100);

/// A tree.
pub(super) struct LsmTable {
    shard: ShardId,
    path: PathBuf,
    place: Arc<Place>,
    owner: Owner,
    /// As it is stored.
    known: Mutex<Known>,
    tree: Tree,
    strategy: Arc<Leveled>,
    options: TableOptions,
    /// `Table::collected`. Read-locked while a read takes its super version, so that none below it has one that is newer.
    collected: RwLock<Index>,
    /// What super versions get their numbers from.
    counter: SequenceNumberCounter,
    /// Held during a compaction: at most one runs.
    compacting: Mutex<()>,
    /// A compaction has looked at `durable`, and may not have chosen its files.
    choosing: AtomicBool,
    /// Held while files of a flush are put in place, and while a compaction looks at `durable`.
    installing: Mutex<()>,
    written: AtomicU64,
    durable: AtomicU64,
    active_bytes: AtomicU64,
    /// Removals in the active memtable.
    active_removed: AtomicU64,
    sealed: Mutex<Sealed>,
    retained: Mutex<Retained>,
    scans: AtomicU64,
    /// `Table::stepped_over`.
    stepped_over: AtomicU64,
    /// Another generation has taken its place.
    is_doomed: AtomicBool,
    /// Where it leaves how often it was read.
    gone: Arc<Mutex<Blocks>>,
    /// A compaction has met damage. Another one would meet it again, and each leaves files behind until the next start.
    is_left_alone: AtomicBool,
}

impl Drop for LsmTable {
    fn drop(&mut self) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        *gone = *gone + self.blocks();
        drop(gone);
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

/// As long as this is there, a flush may not put its files in place, unless the compaction has chosen its own.
struct Choosing<'a>(&'a AtomicBool);

impl Drop for Choosing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

impl LsmTable {
    /// How often its blocks were read.
    pub(super) fn blocks(&self) -> Blocks {
        let counted = self.tree.metrics();
        let (cached, read) = (counted.block_load_cached_count(), counted.block_load_io_count());
        Blocks { cached: cached as u64, read: read as u64 }
    }

    pub(super) fn open(
        tables: &LsmTables,
        shard: ShardId,
        generation: u64,
        dir: String,
    ) -> Result<LsmTable, StorageError> {
        let owner = Owner { incarnation: tables.incarnation, shard, generation };
        let known = owner::check(&*tables.disk, &dir, owner)?;
        let path = tables.disk.root().join(&dir);
        let place = Place::new(shard, tables.disk.clone(), dir);
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
            owner,
            known: Mutex::new(known),
            tree,
            strategy: Arc::new(strategy),
            options: tables.options,
            collected: RwLock::new(Index(durable)),
            counter,
            compacting: Mutex::new(()),
            choosing: AtomicBool::new(false),
            installing: Mutex::new(()),
            written: AtomicU64::new(durable),
            durable: AtomicU64::new(durable),
            active_bytes: AtomicU64::new(0),
            active_removed: AtomicU64::new(0),
            sealed: Mutex::default(),
            retained: Mutex::default(),
            scans: AtomicU64::new(0),
            stepped_over: AtomicU64::new(0),
            is_doomed: AtomicBool::new(false),
            gone: tables.gone.clone(),
            is_left_alone: AtomicBool::new(false),
        })
    }

    /// Another generation takes its place: its directory goes with its last user.
    pub(super) fn doom(&self) {
        self.is_doomed.store(true, Ordering::Release);
    }

    fn failed(&self) -> impl FnOnce(lsm_tree::Error) -> StorageError + use<'_> {
        |source| self.place.explain(source)
    }

    /// Runs `look` while nothing that a read at `at` needs can go. `None` if no row can be there yet.
    fn reading<T>(&self, at: Index, look: impl FnOnce(u64) -> T) -> Result<Option<T>, StorageError> {
        let collected = self.collected.read().unwrap_or_else(PoisonError::into_inner);
        if at < *collected {
            return Err(StorageError::Collected { shard: self.shard, asked: at, collected: *collected });
        }
        // A read at sequence number s sees what is below s. No row is at index 0, where a super version's number may be too high.
        Ok((at > Index(0)).then(|| look(at.0.saturating_add(1))))
    }

    /// Ends reads below `keep_from`, and returns the lowest index that can still be read.
    fn collect(&self, keep_from: Index) -> Index {
        let mut collected = self.collected.write().unwrap_or_else(PoisonError::into_inner);
        *collected = keep_from.max(*collected);
        self.retained().forget(*collected);
        *collected
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
        let keep_from = self.collect(keep_from);
        let choosing = self.choose();
        let drops = self.durable() <= keep_from;
        self.counter.set(0);
        compact(if drops { keep_from.0.saturating_add(1) } else { 0 }).map_err(|source| {
            let error = self.place.explain(source);
            self.is_left_alone.store(error.is_damage(), Ordering::Relaxed);
            error
        })?;
        drop(choosing);
        self.drop_old_versions()?;
        self.keep_known();
        let is_done = self.tree.current_version().id() != before;
        if is_done && !drops {
            self.retained().merged_all();
        }
        Ok(is_done)
    }

    /// From now on no flush changes what is durable, until files are chosen.
    fn choose(&self) -> Choosing<'_> {
        let _lock = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        self.choosing.store(true, Ordering::Release);
        Choosing(&self.choosing)
    }

    /// Puts files in the place of these memtables.
    fn install(&self, files: &[lsm_tree::Table], memtables: &[Arc<Memtable>]) -> Result<(), StorageError> {
        self.known().claim(&*self.place.disk, &self.place.dir, self.owner);
        let ids: Vec<_> = memtables.iter().map(|memtable| memtable.id()).collect();
        let _lock = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        while self.choosing.load(Ordering::Acquire) && !self.tree.is_compacting() {
            thread::sleep(CHOICE_PAUSE);
        }
        self.counter.set(0);
        // Once they are in place, no read needs an older super version.
        self.tree.register_tables(files, None, None, &ids, u64::MAX).map_err(self.failed())?;
        let durable = self.tree.get_highest_persisted_seqno().unwrap_or(0);
        self.durable.fetch_max(durable, Ordering::AcqRel);
        Ok(())
    }

    /// Drops all super versions but the newest, and with them their memtables and files.
    fn drop_old_versions(&self) -> Result<(), StorageError> {
        self.tree.get_version_history_lock().maintenance(&self.path, u64::MAX).map_err(self.failed())
    }

    /// Stores what the next start checks the tables by, if they have changed.
    fn keep_known(&self) {
        // From here on, so that what is stored last is of the latest version.
        let mut known = self.known();
        let version = self.tree.current_version();
        let tables = version.iter_tables().map(|table| (table.id(), table.checksum().into_u128()));
        let (disk, dir) = (&*self.place.disk, &self.place.dir);
        let ends = owner::ends_of(disk, dir, tables, &known.ends);
        known.keep(disk, dir, self.owner, ends);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sealed(&self) -> MutexGuard<'_, Sealed> {
        self.sealed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retained(&self) -> MutexGuard<'_, Retained> {
        self.retained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A scan has gone from here to the first key of these, or as far as there is any. The tree does not say what it left out, so
    /// that is counted after some of the scans, wherever it is.
    fn count_stepped_over(&self, from: &[u8], to: Option<&[u8]>) {
        if !self.scans.fetch_add(1, Ordering::Relaxed).is_multiple_of(SCANS_A_COUNT) {
            return;
        }
        // No key is empty, nor may one be asked for.
        let from = if from.is_empty() { &[0][..] } else { from };
        let memtables = self.sealed().waiting().into_iter().chain([self.tree.active_memtable()]);
        // In a memtable a key's newest version comes first.
        let first = InternalValue::new_tombstone(from, u64::MAX).key;
        let is_before = |key: &[u8]| to.is_none_or(|to| key < to);
        let mut count = 0;
        for memtable in memtables {
            let entries = memtable.items.range(first.clone()..).take(COUNTED_MAX);
            let entries = entries.take_while(|entry| is_before(&entry.key().user_key));
            count += entries.filter(|entry| entry.key().is_tombstone()).count();
        }
        let version = self.tree.current_version();
        for file in version.iter_tables().filter(|file| file.tombstone_count() > 0) {
            let entries = file.range(lsm_tree::UserKey::from(from)..).take(COUNTED_MAX);
            // Damage is found by whoever reads it for its own sake.
            let entries = entries.map_while(Result::ok).take_while(|entry| is_before(&entry.key.user_key));
            count += entries.filter(InternalValue::is_tombstone).count();
        }
        self.stepped_over.fetch_add(count as u64 * SCANS_A_COUNT, Ordering::Relaxed);
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
        let found = self.reading(at, |sequence| self.tree.get(key, sequence))?;
        Ok(found.transpose().map_err(self.failed())?.flatten().map(Bytes::from))
    }

    fn scan(
        &self,
        from: &[u8],
        until: Option<&[u8]>,
        at: Index,
        each: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        if until.is_some_and(|until| until <= from) {
            return self.reading(at, |_| ()).map(drop);
        }
        let range = (Bound::Included(from), until.map_or(Bound::Unbounded, Bound::Excluded));
        // The iterator holds its super version by itself.
        let rows = self.reading(at, |sequence| self.tree.range::<&[u8], _>(range, sequence, None))?;
        for row in rows.into_iter().flatten() {
            let (key, value) = row.into_inner().map_err(self.failed())?;
            if each(&key, &Bytes::from(value)).is_break() {
                self.count_stepped_over(from, Some(&key));
                return Ok(());
            }
        }
        self.count_stepped_over(from, until);
        Ok(())
    }

    fn rows(&self, at: Index) -> Result<Rows, StorageError> {
        // The iterator holds its super version by itself, and that the files and memtables in it.
        let rows = self.reading(at, |sequence| self.tree.range::<&[u8], _>(.., sequence, None))?;
        let rows = rows.into_iter().flatten();
        let place = self.place.clone();
        let row = move |row: lsm_tree::IterGuardImpl| {
            let (key, value) = row.into_inner().map_err(|source| place.explain(source))?;
            Ok((Bytes::from(key), Bytes::from(value)))
        };
        Ok(Box::new(rows.map(row)))
    }

    fn rotate(&self) {
        let bytes = self.active_bytes.swap(0, Ordering::Relaxed);
        let removed = self.active_removed.swap(0, Ordering::Relaxed);
        // Under the lock: a flush takes what is in the list.
        let mut sealed = self.sealed();
        if let Some(memtable) = self.tree.rotate_memtable() {
            sealed.push(memtable, bytes, removed);
        }
    }

    fn flush(&self, keep_from: Index) -> Result<(), StorageError> {
        let keep_from = self.collect(keep_from);
        let _lock = self.tree.get_flush_lock();
        let memtables = self.sealed().waiting();
        if memtables.is_empty() {
            return Ok(());
        }
        let rows = Merger::new(memtables.iter().map(|memtable| memtable.iter().map(Ok)).collect());
        let files = self
            .tree
            .flush_to_tables(needed(rows, keep_from))
            .map_err(|source| self.place.of_tree(source))?;
        let (files, _) = files.unwrap_or_default();
        self.install(&files, &memtables)?;
        self.sealed().flushed(memtables.len());
        self.keep_known();
        let bytes = files.iter().map(|file| file.metadata.file_size).sum();
        self.retained().flushed(self.durable(), bytes, keep_from);
        Ok(())
    }

    fn append(&self, index: Index, rows: Vec<(Bytes, Bytes)>) -> Result<(), StorageError> {
        let before = self.written.swap(index.0, Ordering::AcqRel);
        assert!(index.0 >= before, "shard {}: index {index} is written after {before}", self.shard);
        let _lock = self.tree.get_flush_lock();
        let item = |(key, value)| Ok(InternalValue::from_components(key, value, index.0, ValueType::Value));
        let files = self
            .tree
            .flush_to_tables(rows.into_iter().map(item))
            .map_err(|source| self.place.of_tree(source))?;
        let (files, _) = files.unwrap_or_default();
        self.install(&files, &[])?;
        self.keep_known();
        Ok(())
    }

    fn compact(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.compact_by(keep_from, |watermark| self.tree.compact(self.strategy.clone(), watermark))
    }

    fn merge(&self, keep_from: Index) -> Result<bool, StorageError> {
        let merge = |watermark| match watermark {
            // Somebody still reads what it was to drop.
            0 => Ok(()),
            _ => self.tree.major_compact(self.options.file_bytes, watermark),
        };
        let is_done = self.compact_by(keep_from, merge)?;
        if is_done {
            self.retained().dropped_all();
            self.stepped_over.store(0, Ordering::Relaxed);
        }
        Ok(is_done)
    }

    fn is_crowded(&self) -> bool {
        let merged = usize::from(self.options.flushes_merged);
        self.tree.level_table_count(0).is_some_and(|files| files >= CROWD * merged)
    }

    fn written_since(&self, index: Index) -> u64 {
        self.retained().written_since(index)
    }

    fn durable(&self) -> Index {
        Index(self.durable.load(Ordering::Acquire))
    }

    fn collected(&self) -> Index {
        *self.collected.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory_bytes(&self) -> u64 {
        self.sealed().bytes() + self.active_bytes.load(Ordering::Relaxed)
    }

    fn dead(&self) -> Dead {
        Dead {
            removals: self.tree.tombstone_count(),
            items: self.tree.approximate_len() as u64,
            undropped_bytes: self.retained().undropped(),
        }
    }

    fn stepped_over(&self) -> u64 {
        self.stepped_over.load(Ordering::Relaxed)
    }

    fn active_removals(&self) -> u64 {
        self.active_removed.load(Ordering::Relaxed)
    }

    fn first_keys(&self) -> Vec<Bytes> {
        let version = self.tree.current_version();
        let first = |file: &lsm_tree::Table| Some(file.iter().next()?.ok()?.key.user_key.into());
        version.iter_tables().filter_map(first).collect()
    }

    fn rows_estimate(&self) -> u64 {
        // A removal is counted as an item, and cancels another.
        let in_memory = self.active_removed.load(Ordering::Relaxed) + self.sealed().removed();
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
    use ringfort_types::Incarnation;

    use super::*;
    use crate::{FileDisk, Tables};

    #[test]
    fn scans_tell_what_they_step_over_until_it_is_merged_away() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let table = LsmTables::new(disk, Incarnation(1), TableOptions::default())
            .open_generation(ShardId(1), 0)
            .unwrap();
        let key = |row: u64| Bytes::from(format!("q{row:05}"));
        let scan = |at: u64| {
            let mut met = Vec::new();
            for _ in 0..SCANS_A_COUNT {
                table
                    .scan(b"q", Some(b"r"), Index(at), &mut |key, _| {
                        met = key.to_vec();
                        ControlFlow::Break(())
                    })
                    .unwrap();
            }
            met
        };
        for row in 1..=100 {
            table.write(Index(row), &[(key(row), Some("job".into()))]);
        }
        scan(100);
        assert_eq!(table.stepped_over(), 0);
        for row in 1..=60 {
            table.write(Index(100 + row), &[(key(row), None)]);
        }
        assert_eq!(scan(160), &*key(61));
        assert_eq!(table.stepped_over(), 60 * SCANS_A_COUNT);
        table.write(Index(161), &[("state".into(), Some("of the shard".into()))]);
        table.rotate();
        scan(161);
        table.flush(Index(161)).unwrap();
        scan(161);
        assert_eq!(table.stepped_over(), 3 * 60 * SCANS_A_COUNT, "sealed and on disk, too");
        assert!(table.merge(Index(161)).unwrap());
        assert_eq!(scan(161), &*key(61));
        assert_eq!((table.stepped_over(), table.dead().removals), (0, 0));
    }

    /// Whatever super versions are made, side by side or in a row, reads find the newest.
    #[test]
    fn many_super_versions_without_a_write_between() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let tables = LsmTables::new(disk, Incarnation(1), TableOptions::default());
        let table = LsmTable::open(&tables, ShardId(1), 0, "tree".into()).unwrap();
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
                        // As if a flush had drawn a number at the same time.
                        table.counter.set(1);
                    }
                    assert_eq!(table.tree.version_free_list_len(), 0);
                }
                _ => {}
            }
            assert_eq!(table.get(&key, Index(0)).unwrap_or_default(), None);
            for at in 1..=index {
                let value = Some(Bytes::from(at.to_string()));
                assert_eq!(table.get(&key, Index(at)).unwrap(), value, "at {at} of {index}");
            }
        }
    }

    /// Files that a flush brings while a compaction is about to choose are not among those that it drops versions of.
    #[test]
    fn a_flush_waits_until_a_compaction_has_chosen() {
        let root = tempfile::tempdir().unwrap();
        let disk = Arc::new(FileDisk::open(root.path()).unwrap());
        let tables = LsmTables::new(disk, Incarnation(1), TableOptions::default());
        let table = LsmTable::open(&tables, ShardId(1), 0, "tree".into()).unwrap();
        let write = |index: u64| {
            let value = Some(Bytes::from(index.to_string()));
            table.write(Index(index), &[(Bytes::from_static(b"k"), value)]);
            table.rotate();
        };
        write(1);
        table.flush(Index(1)).unwrap();
        write(2);
        thread::scope(|scope| {
            let merge = |watermark| {
                scope.spawn(|| table.flush(Index(1)).unwrap());
                // Until its files are written.
                while table.installing.try_lock().is_ok() && table.durable() == Index(1) {
                    thread::sleep(CHOICE_PAUSE);
                }
                assert_eq!(table.durable(), Index(1), "it waits");
                table.tree.major_compact(u64::MAX, watermark)
            };
            table.compact_by(Index(1), merge).unwrap();
        });
        assert_eq!(table.durable(), Index(2));
        for at in [1, 2] {
            assert_eq!(table.get(b"k", Index(at)).unwrap(), Some(Bytes::from(at.to_string())));
        }
    }
}
