//! Tables in memory: the simulator's, and the yardstick for the other engine.
//!
//! A clone shares its tables, so a simulated disk keeps one and hands clones to each life of its node. What
//! has been flushed is remembered as an index only; [`MemoryTables::fall_back`] is the crash.

use std::collections::BTreeMap;
use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use ringfort_types::{Index, ShardId};

use super::{Dead, Rows, Table, Tables};
use crate::StorageError;

/// All tables, by shard and generation.
type Generations = BTreeMap<(ShardId, u64), Arc<MemoryTable>>;

/// Tables that live as long as the last clone of this value.
#[derive(Clone, Debug, Default)]
pub struct MemoryTables {
    shards: Arc<Mutex<Generations>>,
}

impl MemoryTables {
    /// No tables yet.
    pub fn new() -> MemoryTables {
        MemoryTables::default()
    }

    /// What a crash may do: the shard's first table loses everything above `to`, which lies between its durable
    /// index and the last one written. Does nothing if there is no such table.
    pub fn fall_back(&self, shard: ShardId, to: Index) {
        self.fall_back_generation(shard, 0, to);
    }

    /// The same for a table of a later generation.
    pub fn fall_back_generation(&self, shard: ShardId, generation: u64, to: Index) {
        let shards = self.shards.lock().expect(POISONED);
        let Some(table) = shards.get(&(shard, generation)) else { return };
        let mut state = table.state.write().expect(POISONED);
        assert!(to >= state.durable, "shard {shard}: what is durable at {} can't be lost", state.durable);
        state.rows.retain(|_, versions| {
            versions.retain(|(index, _)| *index <= to);
            !versions.is_empty()
        });
        let to = to.min(state.written);
        (state.written, state.sealed, state.durable, state.collected) = (to, to, to, to);
        (state.active_bytes, state.sealed_bytes) = (0, 0);
    }

    /// A copy that shares nothing with these, of what a crash is sure to leave.
    #[must_use]
    pub fn fork(&self) -> MemoryTables {
        let shards = self.shards.lock().expect(POISONED);
        let copy = |table: &Arc<MemoryTable>| {
            let state = table.state.read().expect(POISONED).clone();
            Arc::new(MemoryTable { shard: table.shard, state: RwLock::new(state) })
        };
        let copies: Generations = shards.iter().map(|(of, table)| (*of, copy(table))).collect();
        let copies = MemoryTables { shards: Arc::new(Mutex::new(copies)) };
        for (shard, generation, durable) in copies.generations() {
            copies.fall_back_generation(shard, generation, durable);
        }
        copies
    }

    /// Drops a shard's first table whole, as if it had never been made.
    pub fn remove(&self, shard: ShardId) {
        self.shards.lock().expect(POISONED).remove(&(shard, 0));
    }

    /// The last index written to a shard's first table, flushed or not.
    pub fn written(&self, shard: ShardId) -> Index {
        let shards = self.shards.lock().expect(POISONED);
        shards.get(&(shard, 0)).map_or(Index(0), |table| table.state.read().expect(POISONED).written)
    }

    /// All that there are, with the index that each holds durably.
    pub fn generations(&self) -> Vec<(ShardId, u64, Index)> {
        let shards = self.shards.lock().expect(POISONED);
        shards.iter().map(|((shard, generation), table)| (*shard, *generation, table.durable())).collect()
    }
}

impl Tables for MemoryTables {
    fn open_generation(&self, shard: ShardId, generation: u64) -> Result<Arc<dyn Table>, StorageError> {
        let mut shards = self.shards.lock().expect(POISONED);
        let table = shards
            .entry((shard, generation))
            .or_insert_with(|| Arc::new(MemoryTable { shard, state: RwLock::new(State::default()) }));
        Ok(table.clone())
    }

    fn remove_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        self.shards.lock().expect(POISONED).remove(&(shard, generation));
        Ok(())
    }

    fn keep_generation(&self, shard: ShardId, generation: u64) -> Result<(), StorageError> {
        let mut shards = self.shards.lock().expect(POISONED);
        shards.retain(|(of, which), _| *of != shard || *which == generation);
        Ok(())
    }
}

const POISONED: &str = "a thread panicked while it changed a table in memory";

#[derive(Debug)]
struct MemoryTable {
    shard: ShardId,
    state: RwLock<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// Of each key its versions, by rising index. Never empty.
    rows: BTreeMap<Bytes, Vec<(Index, Option<Bytes>)>>,
    // durable <= sealed <= written, and whatever `rows` holds is at `written` or below.
    written: Index,
    sealed: Index,
    durable: Index,
    collected: Index,
    active_bytes: u64,
    sealed_bytes: u64,
    bytes: u64,
}

impl State {
    fn check(&self, shard: ShardId, asked: Index) -> Result<(), StorageError> {
        if asked < self.collected {
            return Err(StorageError::Collected { shard, asked, collected: self.collected });
        }
        Ok(())
    }

    /// Drops what no read at `collected` or above needs, but nothing that a fall back to `durable` would
    /// bring back.
    fn collect(&mut self, keep_from: Index) {
        self.collected = self.collected.max(keep_from);
        let horizon = self.collected.min(self.durable);
        let mut bytes = 0;
        self.rows.retain(|key, versions| {
            let newest = versions.iter().rposition(|(index, _)| *index <= horizon).unwrap_or(0);
            versions.drain(..newest);
            if matches!(versions.as_slice(), [(index, None)] if *index <= horizon) {
                return false;
            }
            bytes += versions.iter().map(|(_, value)| weight(key, value.as_ref())).sum::<u64>();
            true
        });
        self.bytes = bytes;
    }
}

fn weight(key: &Bytes, value: Option<&Bytes>) -> u64 {
    const OVERHEAD: usize = 80;
    (key.len() + value.map_or(0, Bytes::len) + OVERHEAD) as u64
}

fn visible(versions: &[(Index, Option<Bytes>)], at: Index) -> Option<&Bytes> {
    versions.iter().rev().find(|(index, _)| *index <= at)?.1.as_ref()
}

impl Table for MemoryTable {
    fn write(&self, index: Index, rows: &[(Bytes, Option<Bytes>)]) {
        let mut state = self.state.write().expect(POISONED);
        assert!(index >= state.written, "shard {}: index {index} after {}", self.shard, state.written);
        state.written = index;
        for (key, value) in rows {
            let weight = weight(key, value.as_ref());
            let versions = state.rows.entry(key.clone()).or_default();
            match versions.last_mut() {
                Some((last, old)) if *last == index => old.clone_from(value),
                _ => versions.push((index, value.clone())),
            }
            state.active_bytes += weight;
            state.bytes += weight;
        }
    }

    fn get(&self, key: &[u8], at: Index) -> Result<Option<Bytes>, StorageError> {
        let state = self.state.read().expect(POISONED);
        state.check(self.shard, at)?;
        Ok(state.rows.get(key).and_then(|versions| visible(versions, at)).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        until: Option<&[u8]>,
        at: Index,
        each: &mut dyn FnMut(&[u8], &Bytes) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let state = self.state.read().expect(POISONED);
        state.check(self.shard, at)?;
        if until.is_some_and(|until| until <= from) {
            return Ok(());
        }
        let end = until.map_or(Bound::Unbounded, Bound::Excluded);
        for (key, versions) in state.rows.range::<[u8], _>((Bound::Included(from), end)) {
            if let Some(value) = visible(versions, at)
                && each(key, value).is_break()
            {
                break;
            }
        }
        Ok(())
    }

    fn rows(&self, at: Index) -> Result<Rows, StorageError> {
        let state = self.state.read().expect(POISONED);
        state.check(self.shard, at)?;
        let row =
            |(key, versions): (&Bytes, &Vec<_>)| Some(Ok((key.clone(), visible(versions, at)?.clone())));
        let rows: Vec<_> = state.rows.iter().filter_map(row).collect();
        Ok(Box::new(rows.into_iter()))
    }

    fn rotate(&self) {
        let mut state = self.state.write().expect(POISONED);
        state.sealed = state.written;
        state.sealed_bytes += std::mem::take(&mut state.active_bytes);
    }

    fn flush(&self, keep_from: Index) -> Result<(), StorageError> {
        let mut state = self.state.write().expect(POISONED);
        state.durable = state.sealed;
        state.sealed_bytes = 0;
        state.collect(keep_from);
        Ok(())
    }

    fn compact(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.state.write().expect(POISONED).collect(keep_from);
        Ok(false)
    }

    fn merge(&self, keep_from: Index) -> Result<bool, StorageError> {
        self.compact(keep_from)
    }

    fn is_crowded(&self) -> bool {
        false
    }

    fn written_since(&self, _: Index) -> u64 {
        0
    }

    fn durable(&self) -> Index {
        self.state.read().expect(POISONED).durable
    }

    fn collected(&self) -> Index {
        self.state.read().expect(POISONED).collected
    }

    fn memory_bytes(&self) -> u64 {
        let state = self.state.read().expect(POISONED);
        state.active_bytes + state.sealed_bytes
    }

    fn dead(&self) -> Dead {
        Dead::default()
    }

    fn active_removals(&self) -> u64 {
        0
    }

    fn rows_estimate(&self) -> u64 {
        self.state.read().expect(POISONED).rows.len() as u64
    }

    fn bytes_estimate(&self) -> u64 {
        self.state.read().expect(POISONED).bytes
    }

    fn place(&self) -> String {
        format!("memory (shard {})", self.shard)
    }
}
