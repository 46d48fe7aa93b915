//! The log beside TiKV's `raft-engine`: the same batches, restarts in between, and equal answers.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use protobuf::well_known_types::BytesValue;
use raft_engine::{Config, Engine, LogBatch, MessageExt, ReadableSize};
use ringfort_storage::{FileDisk, Log, LogReader};
use ringfort_types::{EntryKind, HardState, Index, LogEntry, Record, ShardId, Term};

use crate::model::{DIR, OWNER, SMALL, sample};

const SHARDS: u32 = 3;
const HARD_STATE: &[u8] = b"hard state";

/// An entry in bytes: index, term, kind, payload.
struct Entries;

impl MessageExt for Entries {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        number(&entry.value, 0)
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn to_theirs(entry: &LogEntry) -> BytesValue {
    let mut value = [entry.index.0, entry.term.0].map(u64::to_le_bytes).concat();
    value.push((entry.kind == EntryKind::Configuration).into());
    value.extend_from_slice(&entry.payload);
    BytesValue { value, ..BytesValue::default() }
}

fn from_theirs(entry: BytesValue) -> LogEntry {
    let value = Bytes::from(entry.value);
    LogEntry {
        index: Index(number(&value, 0)),
        term: Term(number(&value, 8)),
        kind: if value[16] == 1 { EntryKind::Configuration } else { EntryKind::Normal },
        payload: value.slice(17..),
    }
}

/// Its regions count from 1.
fn region(shard: ShardId) -> u64 {
    u64::from(shard.0) + 1
}

fn open_engine(dir: &Path) -> Engine {
    let config = Config {
        dir: dir.to_str().expect("a temporary directory has a plain name").to_owned(),
        target_file_size: ReadableSize::kb(2),
        ..Config::default()
    };
    Engine::open(config).unwrap()
}

fn words(state: &HardState) -> Vec<u8> {
    [state.term.0, state.vote.0, state.commit.0].iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn write(engine: &Engine, records: &[Record]) {
    let mut batch = LogBatch::default();
    let mut runs: BTreeMap<ShardId, Vec<BytesValue>> = BTreeMap::new();
    for record in records {
        match record {
            Record::Entry(shard, entry) => {
                runs.entry(*shard).or_default().push(to_theirs(entry));
            }
            Record::HardState(shard, state) => {
                batch.put(region(*shard), HARD_STATE.to_vec(), words(state)).unwrap();
            }
            Record::Base(..)
            | Record::Installed(..)
            | Record::Replica(..)
            | Record::Lost(..)
            | Record::Gone(..) => unreachable!("nothing is let go of here"),
        }
    }
    for (shard, entries) in runs {
        batch.add_entries::<Entries>(region(shard), &entries).unwrap();
    }
    engine.write(&mut batch, true).unwrap();
}

fn entries_of(engine: &Engine, shard: ShardId) -> Vec<LogEntry> {
    let (Some(first), Some(last)) = (engine.first_index(region(shard)), engine.last_index(region(shard)))
    else {
        return Vec::new();
    };
    let mut found = Vec::new();
    engine.fetch_entries_to::<Entries>(region(shard), first, last + 1, None, &mut found).unwrap();
    found.into_iter().map(from_theirs).collect()
}

fn compare(reader: &LogReader, engine: &Engine) {
    for shard in (0..SHARDS).map(ShardId) {
        let theirs = entries_of(engine, shard);
        let Some(last) = theirs.last().map(|entry| entry.index) else { continue };
        assert_eq!(reader.entries(shard, Index(1), last.next(), usize::MAX).unwrap(), theirs);
        assert!(
            reader.entries(shard, last.next(), Index(last.0 + 2), 1).is_err(),
            "ours ends where theirs does"
        );
    }
}

#[test]
fn it_holds_what_raft_engine_holds_across_restarts() {
    for salt in 0..6 {
        let (ours, theirs) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let batches = sample(60, salt);
        for run in batches.chunks(13) {
            let disk = Arc::new(FileDisk::open(ours.path()).unwrap());
            let (mut log, recovered) = Log::open(disk, DIR, OWNER, SMALL).unwrap();
            let engine = open_engine(theirs.path());
            compare(&log.reader(), &engine);
            for shard in (0..SHARDS).map(ShardId) {
                let state = engine.get(region(shard), HARD_STATE);
                let found = recovered.get(&shard).map(|found| found.hard_state).unwrap_or_default();
                assert_eq!(state.unwrap_or_else(|| words(&HardState::default())), words(&found));
            }
            for batch in run {
                log.append(batch).unwrap();
                write(&engine, batch);
            }
            compare(&log.reader(), &engine);
        }
    }
}
