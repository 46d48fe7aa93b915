//! The shared log against a naive model, under cuts, damage, crashes, a full disk and failing syncs.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use ringfort_storage::{
    Disk, FileDisk, Log, LogOptions, LogReader, Owner, RecoveredShard, SimDisk, StorageError,
};
use ringfort_types::{EntryKind, HardState, Incarnation, Index, LogEntry, PeerId, Record, ShardId, Term};

const DIR: &str = "lane-0/log";
const OWNER: Owner = Owner { cluster: 11, incarnation: Incarnation(22), lane: 0 };
const SMALL: LogOptions = LogOptions { segment_bytes: 2048 };

/// What the log should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    shards: BTreeMap<ShardId, (HardState, Vec<LogEntry>)>,
}

impl Model {
    fn of(batches: &[Vec<Record>]) -> Model {
        let mut model = Model::default();
        for batch in batches {
            model.append(batch);
        }
        model
    }

    fn append(&mut self, batch: &[Record]) {
        for record in batch {
            match record {
                Record::Entry(shard, entry) => {
                    let (_, entries) = self.shards.entry(*shard).or_default();
                    entries.retain(|earlier| earlier.index < entry.index);
                    entries.push(entry.clone());
                }
                Record::HardState(shard, state) => self.shards.entry(*shard).or_default().0 = *state,
            }
        }
    }

    fn last(&self, shard: ShardId) -> Index {
        self.shards.get(&shard).and_then(|(_, entries)| entries.last()).map_or(Index(0), |last| last.index)
    }

    fn recovered(&self) -> BTreeMap<ShardId, RecoveredShard> {
        let shard = |(hard_state, entries): &(HardState, Vec<LogEntry>)| {
            let mut terms: Vec<(Index, Term)> = Vec::new();
            for entry in entries {
                if terms.last().is_none_or(|(_, term)| *term != entry.term) {
                    terms.push((entry.index, entry.term));
                }
            }
            let last = entries.last().map_or(Index(0), |last| last.index);
            RecoveredShard { hard_state: *hard_state, terms, last }
        };
        self.shards.iter().map(|(id, state)| (*id, shard(state))).collect()
    }

    /// Compares everything that a reader can say.
    fn check(&self, reader: &LogReader) {
        let mut wanted = BTreeMap::new();
        for (id, (_, entries)) in &self.shards {
            let last = self.last(*id);
            wanted.insert(*id, (Index(last.0 / 3), last));
            if let Some(first) = entries.first() {
                assert_eq!(first.index, Index(1));
                assert_eq!(&reader.entries(*id, Index(1), last.next(), usize::MAX).unwrap(), entries);
                let from = 1 + last.0 / 2;
                let some = reader.entries(*id, Index(from), last.next(), 150).unwrap();
                assert!(!some.is_empty());
                assert_eq!(some, entries[from as usize - 1..][..some.len()]);
            }
            let beyond = reader.entries(*id, last.next(), Index(last.0 + 2), 1);
            assert!(matches!(beyond, Err(StorageError::NotStored { .. })));
        }
        let mut replayed: BTreeMap<ShardId, Vec<LogEntry>> = BTreeMap::new();
        reader
            .replay(&wanted, &mut |shard, entry| {
                replayed.entry(shard).or_default().push(entry);
                Ok(())
            })
            .unwrap();
        for (id, (_, entries)) in &self.shards {
            let expected = &entries[(self.last(*id).0 / 3) as usize..];
            assert_eq!(replayed.get(id).map_or(&[][..], Vec::as_slice), expected);
        }
    }
}

fn entry(shard: u32, index: u64, term: u64, payload: &[u8]) -> Record {
    let payload = Bytes::copy_from_slice(payload);
    let kind = if index.is_multiple_of(5) { EntryKind::Configuration } else { EntryKind::Normal };
    Record::Entry(ShardId(shard), LogEntry { index: Index(index), term: Term(term), kind, payload })
}

fn hard_state(shard: u32, term: u64, commit: u64) -> Record {
    let state = HardState { term: Term(term), vote: PeerId(term * 10), commit: Index(commit) };
    Record::HardState(ShardId(shard), state)
}

fn open(
    disk: &SimDisk,
    options: LogOptions,
) -> Result<(Log, BTreeMap<ShardId, RecoveredShard>), StorageError> {
    Log::open(Arc::new(disk.clone()), DIR, OWNER, options)
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let names = disk.list(DIR).unwrap().into_iter().filter(|name| !name.starts_with("spare"));
    names.map(|name| format!("{DIR}/{name}")).collect()
}

/// A tiny reader made from `docs/formats/log.md`: where each batch lies, its segment's header included if it
/// is the first one there.
fn batches_of(disk: &SimDisk) -> Vec<(String, std::ops::Range<usize>)> {
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
fn sample(count: u64, salt: u64) -> Vec<Vec<Record>> {
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

fn write_all(disk: &SimDisk, batches: &[Vec<Record>]) {
    let (mut log, _) = open(disk, SMALL).unwrap();
    for batch in batches {
        log.append(batch).unwrap();
    }
}

/// Opens a log that was tampered with and holds it to: the first `whole` batches and nothing else; and it
/// goes on from there.
fn expect_prefix(disk: &SimDisk, batches: &[Vec<Record>], whole: usize, what: &str) {
    let (mut log, recovered) = open(disk, SMALL).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut model = Model::of(&batches[..whole]);
    assert_eq!(recovered, model.recovered(), "{what}");
    let last = model.last(ShardId(1));
    let more = [entry(1, last.0 + 1, 99, b"after the crash"), hard_state(2, 99, 1)];
    log.append(&more).unwrap();
    model.append(&more);
    model.check(&log.reader());
    drop(log);
    let (log, recovered) = open(disk, SMALL).unwrap_or_else(|error| panic!("{what}, again: {error}"));
    assert_eq!(recovered, model.recovered(), "{what}, again");
    model.check(&log.reader());
}

#[test]
fn cut_at_every_byte_of_the_last_two_batches() {
    for salt in 0..6 {
        let batches = sample(12 + salt, salt);
        let disk = SimDisk::new();
        write_all(&disk, &batches);
        let places = batches_of(&disk);
        assert_eq!(places.len(), batches.len());
        for back in 1..=2 {
            let (path, range) = &places[places.len() - back];
            for at in range.clone() {
                for zeroes in [false, true] {
                    let disk = disk.fork();
                    let mut bytes = disk.bytes(path).unwrap();
                    let length = bytes.len();
                    bytes.truncate(at);
                    if zeroes {
                        bytes.resize(length, 0);
                    }
                    disk.set_bytes(path, &bytes);
                    for later in segments(&disk).iter().filter(|later| *later > path) {
                        disk.remove(later).unwrap();
                    }
                    // A cut before a header of a segment leaves a segment without one.
                    let what = format!("salt {salt}, cut at {at} of {path}, zeroes {zeroes}");
                    expect_prefix(&disk, &batches, batches.len() - back, &what);
                }
            }
        }
    }
}

#[test]
fn damage_to_every_byte_of_the_last_two_batches() {
    for salt in 0..6 {
        let batches = sample(12 + salt, salt);
        let disk = SimDisk::new();
        write_all(&disk, &batches);
        let places = batches_of(&disk);
        for back in 1..=2 {
            let (path, range) = &places[places.len() - back];
            for at in range.clone() {
                for mask in [0x01, 0x80, 0xff] {
                    let disk = disk.fork();
                    assert!(disk.damage(path, at as u64, mask));
                    let what = format!("salt {salt}, byte {at} of {path} damaged by {mask:#x}");
                    // In the header of a segment, damage can't be a torn write: it shares a sector with the
                    // header of the first batch, which is whole.
                    let in_header = range.start == 0 && at < 64;
                    if back == 1 && !in_header {
                        expect_prefix(&disk, &batches, batches.len() - 1, &what);
                        continue;
                    }
                    let before: Vec<_> = segments(&disk).iter().map(|path| disk.bytes(path)).collect();
                    let error = open(&disk, SMALL).unwrap_err();
                    assert!(matches!(error, StorageError::Corrupt { .. }), "{what}: {error}");
                    let after: Vec<_> = segments(&disk).iter().map(|path| disk.bytes(path)).collect();
                    assert_eq!(before, after, "{what}: something was changed");
                }
            }
        }
    }
}

#[test]
fn damage_anywhere_before_a_seal_is_noticed() {
    let batches = sample(9, 3);
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    for batch in &batches {
        log.append(batch).unwrap();
    }
    log.seal().unwrap();
    let writes = disk.counts().1;
    log.seal().unwrap();
    assert_eq!(disk.counts().1, writes, "a sealed log is not sealed again");
    drop(log);
    let mut places = batches_of(&disk);
    places.pop();
    for (path, range) in places {
        for at in range {
            let disk = disk.fork();
            disk.damage(&path, at as u64, 0x20);
            let error = open(&disk, SMALL).unwrap_err();
            assert!(matches!(error, StorageError::Corrupt { .. }), "byte {at} of {path}: {error}");
        }
    }
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, Model::of(&batches).recovered());
    let writes = disk.counts().1;
    log.seal().unwrap();
    assert_eq!(disk.counts().1, writes, "a log that was opened sealed is not sealed again");
}

#[test]
fn a_missing_segment_is_noticed() {
    let batches = sample(30, 1);
    let disk = SimDisk::new();
    write_all(&disk, &batches);
    let all = segments(&disk);
    assert!(all.len() > 3);
    for missing in &all[..all.len() - 1] {
        let disk = disk.fork();
        disk.remove(missing).unwrap();
        assert!(matches!(open(&disk, SMALL).unwrap_err(), StorageError::Corrupt { .. }));
    }
}

#[test]
fn a_stored_value_that_looks_like_a_batch_does_not_pass_for_one() {
    // Copy a real frame into a value, then tear the batch that holds the value before that copy.
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, LogOptions { segment_bytes: 64 * 1024 }).unwrap();
    log.append(&[entry(1, 1, 1, b"x")]).unwrap();
    let (path, range) = batches_of(&disk).remove(0);
    let mut copy = disk.bytes(&path).unwrap()[64..range.end].to_vec();
    copy[8..16].copy_from_slice(&99u64.to_le_bytes());
    let sum = crc32c_of(&copy[..28]);
    copy[28..32].copy_from_slice(&sum.to_le_bytes());
    log.append(&[entry(1, 2, 1, &copy.repeat(50))]).unwrap();
    drop(log);
    assert!(disk.damage(&path, range.end as u64 + 9, 1));
    let (_, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered[&ShardId(1)].last, Index(1));
}

/// CRC32C from zero, as somebody has to compute it who does not know the incarnation.
fn crc32c_of(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { (crc >> 1) ^ 0x82f6_3b78 };
        }
        crc
    })
}

#[test]
fn another_nodes_log_is_refused() {
    let disk = SimDisk::new();
    write_all(&disk, &sample(3, 0));
    for (other, what) in [
        (Owner { cluster: 12, ..OWNER }, "cluster"),
        (Owner { incarnation: Incarnation(23), ..OWNER }, "node or disk"),
        (Owner { lane: 1, ..OWNER }, "lane"),
    ] {
        let error = Log::open(Arc::new(disk.clone()), DIR, other, SMALL).unwrap_err();
        assert!(error.to_string().contains(&format!("belongs to another {what}")), "{error}");
    }
}

#[test]
fn large_values_and_batches_larger_than_a_segment() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes: 1024 * 1024 };
    let (mut log, _) = open(&disk, options).unwrap();
    let mut model = Model::default();
    let value = vec![7; 8 * 1024 * 1024];
    let batches = [
        vec![entry(1, 1, 1, b"small"), entry(2, 1, 1, &value)],
        vec![
            entry(1, 2, 1, &value),
            entry(1, 3, 1, &value),
            entry(2, 2, 1, b"between"),
            entry(1, 4, 1, &value),
        ],
        vec![entry(1, 5, 1, b"small again")],
    ];
    let syncs = disk.counts().0;
    for batch in &batches {
        log.append(batch).unwrap();
        model.append(batch);
    }
    assert_eq!(disk.counts().0 - syncs, 3, "one sync a batch, whatever its size");
    model.check(&log.reader());
    let one = log.reader().entries(ShardId(1), Index(2), Index(6), 1000).unwrap();
    assert_eq!(one.len(), 1);
    drop(log);
    let (log, recovered) = open(&disk, options).unwrap();
    assert_eq!(recovered, model.recovered());
    model.check(&log.reader());
}

#[test]
fn a_full_disk_takes_nothing_and_takes_the_same_batch_later() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    disk.set_capacity(Some(3 * SMALL.segment_bytes));
    let mut index = 0;
    let refused = loop {
        let batch = [entry(1, index + 1, 1, &[1; 300])];
        match log.append(&batch) {
            Ok(()) => {
                model.append(&batch);
                index += 1;
            }
            Err(error) => break (batch, error),
        }
    };
    assert!(refused.1.is_disk_full(), "{}", refused.1);
    assert!(log.append(&refused.0).unwrap_err().is_disk_full());
    model.check(&log.reader());
    disk.set_capacity(None);
    log.append(&refused.0).unwrap();
    model.append(&refused.0);
    model.check(&log.reader());
    drop(log);
    assert_eq!(open(&disk, SMALL).unwrap().1, model.recovered());
}

#[test]
fn a_segment_made_ahead_is_used_and_survives_a_restart() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let spare = format!("{DIR}/spare");
    log.ahead().make().unwrap();
    assert!(disk.bytes(&spare).is_none(), "an idle log makes none");
    log.append(&[entry(1, 1, 1, &[1; 1200])]).unwrap();
    log.ahead().make().unwrap();
    assert_eq!(disk.bytes(&spare).map(|bytes| bytes.len() as u64), Some(SMALL.segment_bytes));
    drop(log);
    disk.crash(3);
    let (mut log, _) = open(&disk, SMALL).unwrap();
    log.append(&[entry(1, 2, 1, &[2; 5000])]).unwrap();
    assert!(disk.bytes(&spare).is_some(), "a batch that does not fit into it leaves it");
    let syncs = disk.counts().0;
    log.append(&[entry(1, 3, 1, &[3; 1200])]).unwrap();
    assert_eq!(disk.counts().0, syncs + 1);
    assert!(disk.bytes(&spare).is_none());
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered[&ShardId(1)].last, Index(3));
    let lengths: Vec<_> = log.reader().entries(ShardId(1), Index(1), Index(4), usize::MAX).unwrap();
    assert_eq!(lengths.iter().map(|entry| entry.payload.len()).collect::<Vec<_>>(), [1200, 5000, 1200]);
}

#[test]
fn a_failed_sync_is_the_end() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    log.append(&[entry(1, 1, 1, b"a")]).unwrap();
    disk.fail_syncs(true);
    assert!(matches!(log.append(&[entry(1, 2, 1, b"b")]), Err(StorageError::Io { action: "sync", .. })));
    disk.fail_syncs(false);
    assert!(matches!(log.append(&[entry(1, 2, 1, b"b")]), Err(StorageError::Failed)));
    assert!(matches!(log.seal(), Err(StorageError::Failed)));
    drop(log);
    disk.crash(5);
    assert_eq!(open(&disk, SMALL).unwrap().1[&ShardId(1)].last, Index(1));
}

#[test]
fn what_was_read_at_start_is_durable_before_anybody_builds_on_it() {
    // kill -9 between a write and its sync: the batch is there at the next start, in the cache only.
    for seed in 0..40 {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, SMALL).unwrap();
        log.append(&[entry(1, 1, 1, b"a")]).unwrap();
        disk.fail_syncs(true);
        let path = segments(&disk).remove(0);
        let before = disk.bytes(&path).unwrap();
        let _ = log.append(&[entry(1, 2, 1, b"b")]);
        let after = disk.bytes(&path).unwrap();
        disk.fail_syncs(false);
        // As the killed process left it: written, not synced.
        disk.set_bytes(&path, &before);
        disk.open(&path).unwrap().write_at(0, &after).unwrap();
        drop(log);
        let (_, recovered) = open(&disk, SMALL).unwrap();
        assert_eq!(recovered[&ShardId(1)].last, Index(2));
        disk.crash(seed);
        assert_eq!(open(&disk, SMALL).unwrap().1, recovered);
    }
}

#[test]
fn readers_on_other_threads_see_whole_entries_while_the_writer_appends() {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::open(root.path()).unwrap());
    let options = LogOptions { segment_bytes: 64 * 1024 };
    let (mut log, _) = Log::open(disk, DIR, OWNER, options).unwrap();
    log.append(&[entry(1, 1, 1, &[1; 100])]).unwrap();
    let written = std::sync::atomic::AtomicU64::new(1);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            let (reader, written) = (log.reader(), &written);
            scope.spawn(move || {
                let mut turn = 0u64;
                loop {
                    let last = written.load(std::sync::atomic::Ordering::Acquire);
                    turn += 1;
                    let from = 1 + (turn * 7919) % last;
                    let found = reader.entries(ShardId(1), Index(from), Index(last + 1), 2000).unwrap();
                    assert!(!found.is_empty());
                    for (at, entry) in (from..).zip(&found) {
                        assert_eq!((entry.index.0, entry.payload[0]), (at, at as u8));
                    }
                    if last == 600 {
                        break;
                    }
                }
            });
        }
        for index in 2..=600u64 {
            log.append(&[entry(1, index, 1, &[index as u8; 300]), entry(2, index - 1, 1, b"noise")]).unwrap();
            written.store(index, std::sync::atomic::Ordering::Release);
        }
    });
}

#[derive(Clone, Debug)]
enum Op {
    /// Entries for a shard: so many of this size, after going back by this much.
    Append {
        shards: Vec<(u32, u64, u64, usize)>,
        state: Option<u32>,
    },
    Seal,
    /// The background thread gets its turn.
    Ahead,
    Reopen,
    /// The power goes at one of the next syncs, while batches are appended.
    Crash {
        syncs: u64,
        seed: u64,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let shards = proptest::collection::vec((0u32..4, 0u64..4, 1u64..4, 0usize..400), 1..4);
    prop_oneof![
        8 => (shards, proptest::option::of(0u32..4)).prop_map(|(shards, state)| Op::Append { shards, state }),
        1 => Just(Op::Seal),
        2 => Just(Op::Ahead),
        1 => Just(Op::Reopen),
        2 => (0u64..5, any::<u64>()).prop_map(|(syncs, seed)| Op::Crash { syncs, seed }),
    ]
}

fn batch(model: &Model, shards: &[(u32, u64, u64, usize)], state: Option<u32>, term: u64) -> Vec<Record> {
    let mut after = model.clone();
    let mut batch = Vec::new();
    for &(shard, back, count, length) in shards {
        let last = after.last(ShardId(shard)).0;
        let first = last.saturating_sub(back) + 1;
        let back_in_time = back > 0 && first <= last;
        let count = if back_in_time { 1 } else { count };
        let records: Vec<_> = (first..first + count)
            .map(|index| entry(shard, index, term, &vec![index as u8; length]))
            .collect();
        after.append(&records);
        batch.extend(records);
    }
    batch.extend(state.map(|shard| hard_state(shard, term, 0)));
    batch
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn behaves_as_a_list_of_entries_per_shard(ops in proptest::collection::vec(op(), 1..60)) {
        let disk = SimDisk::new();
        let mut model = Model::default();
        let (mut log, _) = open(&disk, SMALL).unwrap();
        for (turn, op) in (1u64..).zip(ops) {
            match op {
                Op::Append { shards, state } => {
                    let batch = batch(&model, &shards, state, turn);
                    log.append(&batch).unwrap();
                    model.append(&batch);
                }
                Op::Seal => log.seal().unwrap(),
                Op::Ahead => log.ahead().make().unwrap(),
                Op::Reopen => {
                    drop(log);
                    let (reopened, recovered) = open(&disk, SMALL).unwrap();
                    prop_assert_eq!(recovered, model.recovered());
                    log = reopened;
                }
                Op::Crash { syncs, seed } => {
                    disk.die_after(syncs);
                    let mut doubtful = model.clone();
                    loop {
                        let batch = batch(&doubtful, &[(1, seed % 2, 2, 700), (2, 0, 1, 30)], Some(3), turn);
                        doubtful.append(&batch);
                        let _ = log.ahead().make();
                        if log.append(&batch).is_err() {
                            break;
                        }
                        model = doubtful.clone();
                    }
                    drop(log);
                    disk.crash(seed);
                    let (reopened, recovered) = open(&disk, SMALL).unwrap();
                    log = reopened;
                    if recovered == doubtful.recovered() {
                        model = doubtful;
                    }
                    prop_assert_eq!(recovered, model.recovered());
                }
            }
            model.check(&log.reader());
        }
    }

    #[test]
    fn a_crash_while_recovering_from_a_crash_loses_nothing(
        salt in 0u64..20, syncs in 0u64..3, seeds in proptest::collection::vec(any::<u64>(), 1..4),
    ) {
        let batches = sample(12, salt);
        let disk = SimDisk::new();
        write_all(&disk, &batches);
        let (mut log, _) = open(&disk, SMALL).unwrap();
        disk.die_after(0);
        let last = Model::of(&batches).last(ShardId(2));
        let torn = vec![entry(2, last.0 + 1, 50, &[9; 1500])];
        prop_assert!(log.append(&torn).is_err());
        drop(log);
        for seed in seeds {
            disk.crash(seed);
            disk.die_after(syncs);
            let _ = open(&disk, SMALL);
        }
        disk.crash(1);
        let (log, recovered) = open(&disk, SMALL).unwrap();
        let mut model = Model::of(&batches);
        if recovered != model.recovered() {
            model.append(&torn);
        }
        prop_assert_eq!(recovered, model.recovered());
        model.check(&log.reader());
    }
}
