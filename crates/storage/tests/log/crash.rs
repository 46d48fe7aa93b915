//! Power cuts at any sync, failing syncs, restarts, and entries replaced in between.

use std::io::ErrorKind;

use proptest::prelude::*;
use ringfort_storage::{Disk, SimDisk, StorageError};
use ringfort_types::{Index, Record, ShardId};

use crate::model::{Model, SMALL, entry, hard_state, open, sample, segments, write_all};

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

/// After a failed sync the kernel shows bytes that it will never write. A process that starts then, without a
/// crash in between, finds the batch whole, and must not lose it later.
#[test]
fn what_a_failed_sync_left_readable_is_written_again_before_anybody_builds_on_it() {
    for (seed, length) in [(1, 10), (2, 300), (3, 1500), (4, 1900)] {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, SMALL).unwrap();
        log.append(&[entry(1, 1, 1, &[1; 900])]).unwrap();
        disk.fail_syncs(true);
        let failed = log.append(&[entry(1, 2, 1, &vec![2; length])]);
        assert!(failed.is_err());
        disk.fail_syncs(false);
        drop(log);
        let (mut log, recovered) = open(&disk, SMALL).unwrap();
        let last = recovered[&ShardId(1)].last;
        log.append(&[entry(1, last.0 + 1, 1, b"goes on")]).unwrap();
        drop(log);
        disk.crash(seed);
        let (_, after) = open(&disk, SMALL).unwrap();
        assert_eq!(after[&ShardId(1)].last, last.next());
    }
}

/// Room was set aside, and yet there may be none for a write: with a quota, or on a file system that writes elsewhere.
#[test]
fn a_write_for_which_there_is_no_room_may_be_made_again_or_another_one_in_its_place() {
    let entry_of = |index: u64, length: usize| [entry(1, index, 1, &vec![index as u8; length])];
    for kind in [ErrorKind::StorageFull, ErrorKind::QuotaExceeded] {
        // The one that is refused begins a segment, or not, and the next one fits beside it, or begins another.
        for (first, refused, next) in
            [(300, 900, 900), (300, 900, 20), (300, 900, 1700), (1800, 900, 20), (300, 3000, 20)]
        {
            for room in [0, 20, 64, 80, 200, 700] {
                for crash in [None, Some(1), Some(2), Some(3), Some(4)] {
                    let what = format!("{kind}, {first} {refused} {next}, room for {room}, {crash:?}");
                    let disk = SimDisk::new();
                    let (mut log, _) = open(&disk, SMALL).unwrap();
                    let mut model = Model::default();
                    log.append(&entry_of(1, first)).unwrap();
                    model.append(&entry_of(1, first));
                    disk.bound_writes(Some((room, kind)));
                    for _ in 0..2 {
                        let error = log.append(&entry_of(2, refused)).unwrap_err();
                        assert!(error.is_disk_full(), "{what}: {error}");
                    }
                    model.check(&log.reader());
                    if let Some(seed) = crash {
                        disk.bound_writes(None);
                        drop(log);
                        disk.crash(seed);
                        log = open(&disk, SMALL).unwrap_or_else(|error| panic!("{what}: {error}")).0;
                    }
                    disk.bound_writes(None);
                    for index in 2..5 {
                        log.append(&entry_of(index, next)).unwrap_or_else(|error| panic!("{what}: {error}"));
                        model.append(&entry_of(index, next));
                    }
                    log.seal().unwrap();
                    model.check(&log.reader());
                    drop(log);
                    let (log, recovered) =
                        open(&disk, SMALL).unwrap_or_else(|error| panic!("{what}: {error}"));
                    assert_eq!(recovered, model.recovered(), "{what}");
                    assert!(log.notes().is_empty(), "{what}: {:?}", log.notes());
                }
            }
        }
    }
}
