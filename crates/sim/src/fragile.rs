//! Tables in memory that can be damaged: what is damaged of them is answered with an error, as by those on a disk.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ringfort_storage::{Dead, MemoryTables, Rows, StorageError, Table, Tables};
use ringfort_types::{Index, ShardId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const ONE_THREAD: &str = "there is one thread";

/// Which rows of a table can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    /// So many of a hundred.
    pub(crate) percent: u64,
    /// Decides which.
    pub(crate) luck: u64,
}

impl Damage {
    fn hits(self, key: &[u8]) -> bool {
        xxh3_64_with_seed(key, self.luck) % 100 < self.percent
    }
}

type Damages = Arc<Mutex<BTreeMap<ShardId, Damage>>>;

/// One host's tables.
#[derive(Debug, Default)]
pub(crate) struct FragileTables {
    pub(crate) memory: MemoryTables,
    damages: Damages,
}

impl FragileTables {
    /// From now on a part of this shard's table can't be read, nor of what takes its place.
    pub(crate) fn damage(&self, shard: ShardId, damage: Damage) {
        self.damages.lock().expect(ONE_THREAD).insert(shard, damage);
    }

    /// A new table has taken its place, on another part of the disk.
    pub(crate) fn replaced(&self, shard: ShardId) {
        self.damages.lock().expect(ONE_THREAD).remove(&shard);
    }

    /// A copy that shares nothing with these.
    pub(crate) fn fork(&self) -> FragileTables {
        let damages = self.damages.lock().expect(ONE_THREAD).clone();
        FragileTables { memory: self.memory.fork(), damages: Arc::new(Mutex::new(damages)) }
    }

    pub(crate) fn is_damaged(&self, shard: ShardId) -> bool {
        self.damages.lock().expect(ONE_THREAD).contains_key(&shard)
    }
}

impl Tables for FragileTables {
    fn open_generation(&self, shard: ShardId, generation: u64) -> Result<Arc<dyn Table>, StorageError> {
        let memory = self.memory.open_generation(shard, generation)?;
        Ok(Arc::new(FragileTable { shard, memory, damages: self.damages.clone() }))
    }

    fn remove_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        self.memory.remove_generation(shard, generation)
    }

    fn keep_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        self.memory.keep_generation(shard, generation)
    }
}

#[derive(Debug)]
struct FragileTable {
    shard: ShardId,
    memory: Arc<dyn Table>,
    damages: Damages,
}

impl FragileTable {
    fn damage(&self) -> Option<Damage> {
        self.damages.lock().expect(ONE_THREAD).get(&self.shard).copied()
    }
}

fn check(damage: Option<Damage>, key: &[u8], place: &str) -> Result<(), StorageError> {
    match damage {
        Some(damage) if damage.hits(key) => Err(StorageError::Corrupt {
            path: place.to_owned(),
            offset: 0,
            reason: "the block here does not have the checksum that it was written with",
        }),
        _ => Ok(()),
    }
}

impl Table for FragileTable {
    fn write(&self, index: Index, rows: &[(Bytes, Option<Bytes>)]) {
        self.memory.write(index, rows);
    }

    fn get(&self, key: &[u8], at: Index) -> Result<Option<Bytes>, StorageError> {
        check(self.damage(), key, &self.place())?;
        self.memory.get(key, at)
    }

    fn scan(
        &self,
        from: &[u8],
        until: Option<&[u8]>,
        at: Index,
        each: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let (damage, place) = (self.damage(), self.place());
        let mut met = Ok(());
        self.memory.scan(from, until, at, &mut |key, row| {
            met = check(damage, key, &place);
            if met.is_ok() { each(key, row) } else { ControlFlow::Break(()) }
        })?;
        met
    }

    fn rows(&self, at: Index) -> Result<Rows, StorageError> {
        let (damage, place) = (self.damage(), self.place());
        let rows = self.memory.rows(at)?;
        Ok(Box::new(rows.map(move |row| {
            let (key, value) = row?;
            check(damage, &key, &place)?;
            Ok((key, value))
        })))
    }

    fn rotate(&self) {
        self.memory.rotate();
    }

    fn flush(&self, keep_from: Index) -> Result<(), StorageError> {
        self.memory.flush(keep_from)
    }

    fn compact(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.memory.compact(keep_from)
    }

    fn merge(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.memory.merge(keep_from)
    }

    fn is_crowded(&self) -> bool {
        self.memory.is_crowded()
    }

    fn written_since(&self, index: Index) -> u64 {
        self.memory.written_since(index)
    }

    fn durable(&self) -> Index {
        self.memory.durable()
    }

    fn collected(&self) -> Index {
        self.memory.collected()
    }

    fn memory_bytes(&self) -> u64 {
        self.memory.memory_bytes()
    }

    fn dead(&self) -> Dead {
        self.memory.dead()
    }

    fn active_removals(&self) -> u64 {
        self.memory.active_removals()
    }

    fn rows_estimate(&self) -> u64 {
        self.memory.rows_estimate()
    }

    fn bytes_estimate(&self) -> u64 {
        self.memory.bytes_estimate()
    }

    fn place(&self) -> String {
        self.memory.place()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_damaged_is_an_error_and_the_rest_is_as_it_was() {
        let (tables, shard) = (FragileTables::default(), ShardId(1));
        let table = tables.open(shard).unwrap();
        let rows: Vec<_> =
            (0..20).map(|n| (Bytes::from(format!("key{n}")), Some(Bytes::from("value")))).collect();
        table.write(Index(1), &rows);
        let readable =
            |table: &dyn Table| rows.iter().filter(|(key, _)| table.get(key, Index(1)).is_ok()).count();
        assert_eq!(readable(&*table), 20);
        tables.damage(shard, Damage { percent: 50, luck: 3 });
        assert!((1..20).contains(&readable(&*table)));
        assert!(table.rows(Index(1)).unwrap().any(|row| row.is_err_and(|error| error.is_damage())));
        let scanned = table.scan(b"", None, Index(1), &mut |_, _| ControlFlow::Continue(()));
        assert!(scanned.is_err_and(|error| error.is_damage()));
        let other = tables.open(ShardId(2)).unwrap();
        assert_eq!(other.get(b"key1", Index(0)).unwrap(), None);
    }
}
