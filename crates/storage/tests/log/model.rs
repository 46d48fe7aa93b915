//! What the log should hold, said naively, and logs to try it on.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_storage::{Disk, Log, LogOptions, LogReader, Owner, RecoveredShard, SimDisk, StorageError};
use ringfort_types::{
    Base, EntryKind, HardState, Incarnation, Index, LogEntry, PeerId, Record, ShardId, Term,
};

pub(crate) const DIR: &str = "lane-0/log";
pub(crate) const OWNER: Owner = Owner { cluster: 11, incarnation: Incarnation(22), lane: 0 };
pub(crate) const SMALL: LogOptions = LogOptions { segment_bytes: 2048, budget_bytes: 8192 };

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) shards: BTreeMap<ShardId, (HardState, Vec<LogEntry>)>,
    /// What was let go of.
    pub(crate) bases: BTreeMap<ShardId, Base>,
    /// Those that this node has.
    pub(crate) replicas: BTreeMap<ShardId, PeerId>,
    /// Those of them that are no more.
    pub(crate) gone: BTreeSet<ShardId>,
    /// What those have acknowledged and lack.
    pub(crate) lost: BTreeMap<ShardId, Index>,
}

impl Model {
    pub(crate) fn of(batches: &[Vec<Record>]) -> Model {
        let mut model = Model::default();
        for batch in batches {
            model.append(batch);
        }
        model
    }

    pub(crate) fn append(&mut self, batch: &[Record]) {
        for record in batch {
            match record {
                Record::Entry(shard, entry) => {
                    let (_, entries) = self.shards.entry(*shard).or_default();
                    entries.retain(|earlier| earlier.index < entry.index);
                    entries.push(entry.clone());
                }
                Record::HardState(shard, state) => self.shards.entry(*shard).or_default().0 = *state,
                Record::Base(shard, base) => self.compacted(*shard, *base),
                Record::Installed(shard, base) => {
                    self.shards.entry(*shard).or_default().1.clear();
                    self.bases.insert(*shard, *base);
                }
                Record::Replica(shard, peer) | Record::Gone(shard, peer) => {
                    self.gone.remove(shard);
                    if matches!(record, Record::Gone(..)) {
                        self.gone.insert(*shard);
                    }
                    self.shards.entry(*shard).or_default();
                    self.replicas.insert(*shard, *peer);
                    self.lost.remove(shard);
                }
                Record::Lost(shard, index) => {
                    self.shards.entry(*shard).or_default();
                    self.lost.insert(*shard, *index);
                }
            }
        }
    }

    pub(crate) fn compacted(&mut self, shard: ShardId, base: Base) {
        self.shards.entry(shard).or_default().1.retain(|entry| entry.index > base.index);
        self.bases.insert(shard, base);
    }

    pub(crate) fn base(&self, shard: ShardId) -> Base {
        self.bases.get(&shard).copied().unwrap_or_default()
    }

    /// The term of an entry, or of the base.
    pub(crate) fn term(&self, shard: ShardId, index: Index) -> Term {
        let entries = self.shards.get(&shard).map_or(&[][..], |(_, entries)| entries);
        let found = entries.iter().find(|entry| entry.index == index).map(|entry| entry.term);
        found.unwrap_or_else(|| self.base(shard).term)
    }

    pub(crate) fn last(&self, shard: ShardId) -> Index {
        let last = self.shards.get(&shard).and_then(|(_, entries)| entries.last());
        last.map_or(self.base(shard).index, |last| last.index)
    }

    pub(crate) fn recovered(&self) -> BTreeMap<ShardId, RecoveredShard> {
        let shard = |id: ShardId, (hard_state, entries): &(HardState, Vec<LogEntry>)| {
            let mut terms: Vec<(Index, Term)> = Vec::new();
            for entry in entries {
                if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                    terms.push((entry.index, entry.term));
                }
            }
            let (base, last) = (self.base(id), self.last(id));
            let replica = self.replicas.get(&id).copied();
            let lacks = self.lost.get(&id).copied();
            let is_gone = self.gone.contains(&id);
            RecoveredShard { hard_state: *hard_state, replica, is_gone, lost: lacks, base, terms, last }
        };
        self.shards.iter().map(|(id, state)| (*id, shard(*id, state))).collect()
    }

    /// Compares everything that a reader can say.
    pub(crate) fn check(&self, reader: &LogReader) {
        let mut wanted = BTreeMap::new();
        for (id, (_, entries)) in &self.shards {
            let (first, last) = (self.base(*id).index.next(), self.last(*id));
            wanted.insert(*id, (Index(self.base(*id).index.0 + entries.len() as u64 / 3), last));
            if !entries.is_empty() {
                assert_eq!(entries[0].index, first);
                assert_eq!(&reader.entries(*id, first, last.next(), usize::MAX).unwrap(), entries);
                let skip = entries.len() / 2;
                let some = reader.entries(*id, entries[skip].index, last.next(), 150).unwrap();
                assert!(!some.is_empty());
                assert_eq!(some, entries[skip..][..some.len()]);
            }
            for (from, to) in [(last.next(), Index(last.0 + 2)), (Index(first.0 - 1), first)] {
                let nothing = reader.entries(*id, from, to, 1);
                assert!(matches!(nothing, Err(StorageError::NotStored { .. })));
            }
        }
        let mut replayed: BTreeMap<ShardId, Vec<LogEntry>> = BTreeMap::new();
        reader
            .replay(&wanted, &mut |shard, entry| {
                replayed.entry(shard).or_default().push(entry);
                ControlFlow::Continue(())
            })
            .unwrap();
        for (id, (_, entries)) in &self.shards {
            assert_eq!(replayed.get(id).map_or(&[][..], Vec::as_slice), &entries[entries.len() / 3..]);
        }
    }
}

pub(crate) fn entry(shard: u32, index: u64, term: u64, payload: &[u8]) -> Record {
    let payload = Bytes::copy_from_slice(payload);
    let kind = if index.is_multiple_of(5) { EntryKind::Configuration } else { EntryKind::Normal };
    Record::Entry(ShardId(shard), LogEntry { index: Index(index), term: Term(term), kind, payload })
}

pub(crate) fn hard_state(shard: u32, term: u64, commit: u64) -> Record {
    let state = HardState { term: Term(term), vote: PeerId(term * 10), commit: Index(commit) };
    Record::HardState(ShardId(shard), state)
}

pub(crate) fn open(
    disk: &SimDisk,
    options: LogOptions,
) -> Result<(Log, BTreeMap<ShardId, RecoveredShard>), StorageError> {
    Log::open(Arc::new(disk.clone()), DIR, OWNER, options)
}

pub(crate) fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(DIR).unwrap().into_iter().filter(|name| name.strip_suffix(".log").is_some());
    names.map(|name| format!("{DIR}/{name}")).collect()
}

/// A tiny reader made from `docs/formats/log.md`: where each batch lies, its segment's header included if it
/// is the first one there.
pub(crate) fn batches_of(disk: &SimDisk) -> Vec<(String, std::ops::Range<usize>)> {
    let mut found = Vec::new();
    for path in segments(disk) {
        let bytes = disk.bytes(&path).unwrap();
        let (mut start, mut at) = (0, 64);
        while bytes.get(at..at + 4) == Some(b"RFBF") {
            let length = u32::from_le_bytes(bytes[at + 16..at + 20].try_into().unwrap()) as usize;
            found.push((path.clone(), start..at + 32 + length));
            at += 32 + length;
            start = at;
        }
    }
    found
}

/// Batches of mixed sizes over three shards, with entries replaced now and then.
pub(crate) fn sample(count: u64, salt: u64) -> Vec<Vec<Record>> {
    let mut lasts = [0u64; 3];
    let mut batches = Vec::new();
    for turn in 0..count {
        let mut batch = Vec::new();
        for shard in 0..3u32 {
            let dice = (turn * 7 + u64::from(shard) * 3 + salt * 13) % 11;
            if dice < 3 {
                continue;
            }
            let last = &mut lasts[shard as usize];
            if dice == 10 && *last > 3 {
                *last -= 2;
            }
            for step in 0..=(dice % 2) {
                *last += 1;
                let length = ((turn * 31 + step * 17 + salt * 5) % 120) as usize;
                batch.push(entry(shard, *last, 1 + turn / 4, &vec![b'a' + dice as u8; length]));
            }
            if dice.is_multiple_of(3) {
                batch.push(hard_state(shard, 1 + turn / 4, *last / 2));
            }
        }
        if batch.is_empty() {
            batch.push(hard_state(1, turn, 0));
        }
        batches.push(batch);
    }
    batches
}

pub(crate) fn write_all(disk: &SimDisk, batches: &[Vec<Record>]) {
    let (mut log, _) = open(disk, SMALL).unwrap();
    for batch in batches {
        log.append(batch).unwrap();
    }
}
