//! A group's log as the `raft` crate sees it: recent entries in memory, all terms, older entries on request.
//!
//! Invariants:
//! - every entry after the applied index is in memory: the crate needs those without waiting;
//! - `runs` names the term of every index from the one after the base to `last`, so that the crate never has to ask
//!   for a snapshot only because a term is not at hand;
//! - entries at an index replace everything from that index on;
//! - the base is not above the applied index. What is below it is answered with `Compacted`, and then the crate asks
//!   for a snapshot. It gets one (an index and a term, nothing more) once the follower is said to have the data;
//!   until then "temporarily unavailable", and the node hears who wants one.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};
use ringfort_types::limits::SHARD_ENTRY_CACHE_BYTES;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Index, Term};

/// Most old ranges that a group asks for at once. Further ones are asked for again by the next heartbeat.
const FETCHES_MAX: usize = 8;

/// A range of entries that is not in memory and that a follower needs.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) low: u64,
    pub(crate) high: u64,
    pub(crate) context: GetEntriesContext,
}

#[derive(Debug)]
pub(crate) struct MemoryLog {
    hard_state: HardState,
    /// The configuration in force.
    conf_state: ConfState,
    /// Without gaps, up to `last`.
    recent: VecDeque<Entry>,
    recent_bytes: usize,
    /// First index of each term, ascending in both.
    runs: Vec<(u64, u64)>,
    last: u64,
    /// Index and term of the last entry that is gone.
    base: (u64, u64),
    wanted: RefCell<Vec<Wanted>>,
    /// Peers for whom a snapshot was asked in vain.
    behind: RefCell<Vec<u64>>,
    /// Peers that have the data of a snapshot at this index.
    delivered: RefCell<BTreeMap<u64, u64>>,
    /// Old entries that have just been fetched, for the duration of one call into the crate.
    fetched: Vec<Entry>,
}

impl MemoryLog {
    pub(crate) fn new(
        hard_state: HardState,
        conf_state: ConfState,
        base: (Index, Term),
        terms: &[(Index, Term)],
        last: Index,
        tail: Vec<Entry>,
    ) -> MemoryLog {
        if let (Some(first), Some(end)) = (tail.first(), tail.last()) {
            assert_eq!(end.index, last.0, "the tail ends where the log does");
            assert_eq!(end.index - first.index + 1, tail.len() as u64, "the tail has no gaps");
        }
        MemoryLog {
            hard_state,
            conf_state,
            recent_bytes: tail.iter().map(|entry| entry.data.len()).sum(),
            recent: tail.into(),
            runs: terms.iter().map(|(index, term)| (index.0, term.0)).collect(),
            last: last.0,
            base: (base.0.0, base.1.0),
            wanted: RefCell::default(),
            behind: RefCell::default(),
            delivered: RefCell::default(),
            fetched: Vec::new(),
        }
    }

    /// Another configuration is in force.
    pub(crate) fn set_conf_state(&mut self, conf_state: ConfState) {
        self.conf_state = conf_state;
    }

    /// Takes in entries that are about to be made durable; cuts conflicting ones first.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        assert!(first.index <= self.last + 1, "entries leave no gap");
        if first.index <= self.last {
            while self.recent.back().is_some_and(|entry| entry.index >= first.index) {
                let cut = self.recent.pop_back().expect("just looked at");
                self.recent_bytes -= cut.data.len();
            }
            while self.runs.last().is_some_and(|(start, _)| *start >= first.index) {
                self.runs.pop();
            }
        }
        for entry in entries {
            if self.runs.last().is_none_or(|(_, term)| *term != entry.term) {
                self.runs.push((entry.index, entry.term));
            }
            self.recent_bytes += entry.data.len();
            self.recent.push_back(entry.clone());
        }
        self.last = entries.last().expect("not empty").index;
    }

    /// Lets go of the oldest applied entries beyond the cache's bound.
    pub(crate) fn forget_applied(&mut self, applied: u64) {
        while self.recent_bytes > SHARD_ENTRY_CACHE_BYTES
            && self.recent.front().is_some_and(|entry| entry.index <= applied)
        {
            let gone = self.recent.pop_front().expect("just looked at");
            self.recent_bytes -= gone.data.len();
        }
    }

    /// Entries up to this one are gone from the disk.
    pub(crate) fn compact(&mut self, index: u64, term: u64) {
        if index <= self.base.0 {
            return;
        }
        assert!(index <= self.last, "{index} is beyond the log's end at {}", self.last);
        self.base = (index, term);
        if index == self.last {
            self.runs.clear();
        } else {
            let first = self.runs.partition_point(|(start, _)| *start <= index + 1) - 1;
            self.runs.drain(..first);
            self.runs[0].0 = index + 1;
        }
    }

    /// A snapshot takes the place of the whole log.
    pub(crate) fn install(&mut self, index: u64, term: u64) {
        self.recent.clear();
        self.recent_bytes = 0;
        self.runs.clear();
        (self.base, self.last) = ((index, term), index);
        self.wanted.get_mut().clear();
    }

    /// Index and term of the last entry that is gone.
    pub(crate) fn base(&self) -> (u64, u64) {
        self.base
    }

    /// Whether a snapshot at this index can be followed by what is in the log.
    pub(crate) fn goes_on_from(&self, index: u64) -> bool {
        (self.base.0..=self.last).contains(&index)
    }

    /// The peer has the data of a snapshot at this index. Counts for the next message to it.
    pub(crate) fn deliver(&mut self, peer: u64, index: u64) {
        self.delivered.get_mut().insert(peer, index);
    }

    pub(crate) fn forget_delivered(&mut self) {
        self.delivered.get_mut().clear();
    }

    pub(crate) fn take_behind(&mut self) -> Vec<u64> {
        std::mem::take(self.behind.get_mut())
    }

    pub(crate) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(self.wanted.get_mut())
    }

    pub(crate) fn set_fetched(&mut self, entries: Vec<Entry>) {
        self.fetched = entries;
    }

    fn recent_first(&self) -> u64 {
        self.recent.front().map_or(self.last + 1, |entry| entry.index)
    }
}

/// Takes from the front until `max_bytes` are passed, but at least one.
fn limited<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: Option<u64>) -> Vec<Entry> {
    let mut bytes = 0u64;
    let mut taken = Vec::new();
    for entry in entries {
        bytes += entry.data.len() as u64 + 16;
        if !taken.is_empty() && bytes_max.is_some_and(|max| bytes > max) {
            break;
        }
        taken.push(entry.clone());
    }
    taken
}

impl Storage for MemoryLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(self.hard_state.clone(), self.conf_state.clone()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        assert!(high <= self.last + 1, "entries beyond the log's end");
        if low <= self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        let first = self.recent_first();
        if low >= first {
            let skip = (low - first) as usize;
            let take = (high - low) as usize;
            return Ok(limited(self.recent.iter().skip(skip).take(take), max_size.into()));
        }
        if let Some(start) = self.fetched.first().map(|entry| entry.index)
            && low >= start
            && low < start + self.fetched.len() as u64
        {
            let skip = (low - start) as usize;
            let take = (high - low) as usize;
            return Ok(limited(self.fetched.iter().skip(skip).take(take), max_size.into()));
        }
        if context.can_async() {
            let mut wanted = self.wanted.borrow_mut();
            if wanted.len() < FETCHES_MAX && wanted.iter().all(|other| other.low != low) {
                wanted.push(Wanted { low, high: high.min(first), context });
            }
            return Err(Error::Store(StorageError::LogTemporarilyUnavailable));
        }
        panic!("entries {low}..{high} are not in memory (from {first}), and the caller can't wait")
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.base.0 {
            return Err(Error::Store(StorageError::Compacted));
        }
        if index == self.base.0 {
            return Ok(self.base.1);
        }
        if index > self.last {
            return Err(Error::Store(StorageError::Unavailable));
        }
        let run = self.runs.partition_point(|(start, _)| *start <= index);
        Ok(self.runs[run.checked_sub(1).expect("the first run starts after the base")].1)
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last)
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let delivered = self.delivered.borrow_mut().remove(&to).filter(|index| self.goes_on_from(*index));
        // At index 0 there is nothing to offer: whoever is there needs entries, and they are there.
        let Some(index) = delivered.filter(|index| *index > 0) else {
            let mut behind = self.behind.borrow_mut();
            if !behind.contains(&to) && !planted::is(Bug::LogCutWithoutSnapshot) {
                behind.push(to);
            }
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let mut snapshot = Snapshot::default();
        let metadata = snapshot.mut_metadata();
        metadata.index = index;
        metadata.term = self.term(index)?;
        metadata.set_conf_state(self.conf_state.clone());
        Ok(snapshot)
    }
}
