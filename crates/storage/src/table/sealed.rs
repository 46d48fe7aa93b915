//! Memtables that take no more rows.

use std::sync::{Arc, Weak};

use lsm_tree::Memtable;

/// Memtables that take no more rows.
#[derive(Default)]
pub(super) struct Sealed {
    /// Not on disk, oldest first, each with its size and its removals.
    waiting: Vec<(Arc<Memtable>, u64, u64)>,
    /// On disk, for as long as anybody iterates over them.
    flushed: Vec<(Weak<Memtable>, u64)>,
}

impl Sealed {
    pub(super) fn push(&mut self, memtable: Arc<Memtable>, bytes: u64, removed: u64) {
        self.waiting.push((memtable, bytes, removed));
    }

    /// Those that are not on disk, oldest first.
    pub(super) fn waiting(&self) -> Vec<Arc<Memtable>> {
        self.waiting.iter().map(|(memtable, ..)| memtable.clone()).collect()
    }

    /// What they take in memory.
    pub(super) fn bytes(&mut self) -> u64 {
        self.flushed.retain(|(memtable, _)| memtable.strong_count() > 0);
        let waiting = self.waiting.iter().map(|(_, bytes, _)| bytes);
        waiting.chain(self.flushed.iter().map(|(_, bytes)| bytes)).sum()
    }

    /// Removals that are not on disk.
    pub(super) fn removed(&self) -> u64 {
        self.waiting.iter().map(|(_, _, removed)| removed).sum()
    }

    /// The oldest so many are on disk.
    pub(super) fn flushed(&mut self, count: usize) {
        let flushed = self.waiting.drain(..count);
        self.flushed.extend(flushed.map(|(memtable, bytes, _)| (Arc::downgrade(&memtable), bytes)));
    }
}
