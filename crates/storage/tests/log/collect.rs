//! Letting go of old segments: what stays, what a crash at any moment leaves, and what is refused.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use proptest::prelude::*;
use ringfort_storage::{Disk, Durable, Log, LogOptions, RecoveredShard, SimDisk, StorageError};
use ringfort_types::{Base, Index, PeerId, Record, ShardId, Term};

use crate::model::{Model, SMALL, entry, hard_state, open, segments};

const ONE: ShardId = ShardId(1);

fn durable(of: &[(u32, u64)]) -> Durable {
    of.iter().map(|(shard, index)| (ShardId(*shard), Index(*index))).collect()
}

/// Appends, and keeps the model level.
fn append(log: &mut Log, model: &mut Model, batch: &[Record]) {
    log.append(batch).unwrap();
    model.append(batch);
}

fn collect(log: &mut Log, model: &mut Model, durable: &Durable) -> Vec<(ShardId, Base)> {
    let moved = log.collect(durable).unwrap();
    for (shard, base) in &moved {
        model.compacted(*shard, *base);
    }
    moved
}

#[test]
fn a_log_within_its_budget_keeps_everything_and_one_beyond_it_only_what_is_needed() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[hard_state(1, 1, 0), hard_state(2, 1, 0), entry(2, 1, 1, b"idle")]);
    for index in 1..=16 {
        append(&mut log, &mut model, &[entry(1, index, 1 + index / 6, &[1; 400])]);
    }
    assert_eq!(segments(&disk).len(), 4);
    assert_eq!(log.collect(&durable(&[(1, 16), (2, 1)])).unwrap(), [], "within its budget");
    for index in 17..=24 {
        append(&mut log, &mut model, &[entry(1, index, 4, &[1; 400])]);
    }
    assert!(log.is_over_budget());
    let moved = collect(&mut log, &mut model, &durable(&[(1, 24), (2, 1)]));
    assert!(!log.is_over_budget());
    assert_eq!(moved.len(), 2);
    assert!(moved.contains(&(ShardId(2), Base { index: Index(1), term: Term(1), generation: 0 })));
    assert!(model.base(ONE).index >= Index(8) && model.base(ONE).index < Index(24), "{moved:?}");
    model.check(&log.reader());
    append(&mut log, &mut model, &[entry(2, 2, 1, b"goes on"), entry(1, 25, 4, b"too")]);
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, model.recovered());
    assert_eq!(recovered[&ShardId(2)].hard_state.term, Term(1), "hard states go along");
    model.check(&log.reader());
}

#[test]
fn a_shard_that_lags_is_copied_forward_and_keeps_no_segment() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[entry(2, 1, 1, b"a"), entry(2, 2, 2, b"b"), entry(2, 3, 2, b"c")]);
    for index in 1..=200 {
        append(&mut log, &mut model, &[entry(1, index, 1, &[1; 400])]);
        let held = log.held_by(&durable(&[(1, index), (2, 1)]));
        assert!(held.iter().all(|shard| *shard == ShardId(2)), "{held:?}");
        collect(&mut log, &mut model, &durable(&[(1, index), (2, 1)]));
        assert!(segments(&disk).len() <= 5, "{}", segments(&disk).len());
    }
    assert_eq!(model.base(ShardId(2)), Base { index: Index(1), term: Term(1), generation: 0 });
    assert_eq!(model.shards[&ShardId(2)].1.len(), 2);
    model.check(&log.reader());
    drop(log);
    assert_eq!(open(&disk, SMALL).unwrap().1, model.recovered());
}

#[test]
fn a_replay_finds_what_is_copied_meanwhile() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    let mut last = 0;
    let mut go_on = |log: &mut Log, model: &mut Model| {
        last += 1;
        append(log, model, &[entry(1, last, 1, &[1; 400])]);
        collect(log, model, &durable(&[(1, last)]))
    };
    // One in each segment, a few bytes that are rather copied than waited for.
    for index in 1..=4 {
        append(&mut log, &mut model, &[entry(2, index, 1, &[index as u8])]);
        (0..4).for_each(|_| drop(go_on(&mut log, &mut model)));
    }
    let reader = log.reader();
    let wanted = BTreeMap::from([(ShardId(2), (Index(0), Index(4)))]);
    let (mut found, before) = (Vec::new(), segments(&disk));
    reader
        .replay(&wanted, &mut |_, entry| {
            found.push((entry.index.0, entry.payload[0]));
            // All that there was when the replay began goes at its first entry.
            while found.len() == 1 && segments(&disk).iter().any(|segment| before.contains(segment)) {
                go_on(&mut log, &mut model);
            }
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(found, [(1, 1), (2, 2), (3, 3), (4, 4)]);
    assert_eq!(model.base(ShardId(2)).index, Index(0), "who is not named is needed whole");
}

#[test]
fn a_replay_can_be_broken_off() {
    let (mut log, _) = open(&SimDisk::new(), SMALL).unwrap();
    log.append(&[entry(1, 1, 1, b"a"), entry(1, 2, 1, b"b"), entry(1, 3, 1, b"c")]).unwrap();
    let wanted = BTreeMap::from([(ONE, (Index(0), Index(3)))]);
    let mut found = 0;
    let break_off = |_, _| {
        found += 1;
        if found == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    log.reader().replay(&wanted, &mut { break_off }).unwrap();
    assert_eq!(found, 2);
}

#[test]
fn a_shard_that_holds_much_is_named_and_waited_for_and_then_copied() {
    let disk = SimDisk::new();
    let options = LogOptions { segment_bytes: 4 * 1024 * 1024, budget_bytes: 8 * 1024 * 1024 };
    let (mut log, _) = open(&disk, options).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[entry(2, 1, 1, &vec![2; 1500 * 1024])]);
    let (mut most, mut compacted) = (0, false);
    for index in 1..=200 {
        append(&mut log, &mut model, &[entry(1, index, 1, &vec![1; 100 * 1024])]);
        let flushed = durable(&[(1, index)]);
        let bytes = log.bytes();
        if !compacted {
            let held = if bytes > 4 * 1024 * 1024 { vec![ShardId(2)] } else { Vec::new() };
            assert_eq!(log.held_by(&flushed), held, "at {bytes} bytes");
        }
        let moved = collect(&mut log, &mut model, &flushed);
        assert!(moved.is_empty() || compacted || bytes > 12 * 1024 * 1024, "{moved:?} at {bytes} bytes");
        compacted |= !moved.is_empty();
        most = most.max(log.bytes());
    }
    assert_eq!((most, model.base(ShardId(2)).index), (12 * 1024 * 1024, Index(0)));
    model.check(&log.reader());
}

#[test]
fn what_would_gain_nothing_is_not_copied() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    for index in 1..=60 {
        append(&mut log, &mut model, &[entry(1, index, 1, &[1; 400])]);
        assert_eq!(collect(&mut log, &mut model, &Durable::new()), [], "all of it is needed");
        assert_eq!(log.held_by(&Durable::new()).is_empty(), log.bytes() <= 6 * 1024);
    }
    collect(&mut log, &mut model, &durable(&[(1, 60)]));
    assert!(!log.is_over_budget() && model.base(ONE).index > Index(30), "{:?}", model.base(ONE));
    model.check(&log.reader());
}

#[test]
fn an_installed_table_replaces_the_log_before_it() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[entry(1, 1, 1, b"a"), entry(1, 2, 1, b"b"), entry(2, 1, 1, b"other")]);
    let base = Base { index: Index(90), term: Term(3), generation: 1 };
    append(
        &mut log,
        &mut model,
        &[Record::Installed(ONE, base), hard_state(1, 4, 90), entry(1, 91, 4, b"c")],
    );
    model.check(&log.reader());
    drop(log);
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, model.recovered());
    assert_eq!((recovered[&ONE].base, recovered[&ONE].last), (base, Index(91)));
    // Lower than the one before, as after a conflict.
    let base = Base { index: Index(50), term: Term(5), generation: 2 };
    append(&mut log, &mut model, &[Record::Installed(ONE, base)]);
    for index in 1..=40 {
        append(&mut log, &mut model, &[entry(2, index, 1, &[2; 400])]);
    }
    collect(&mut log, &mut model, &durable(&[(1, 50), (2, 40)]));
    assert_eq!(model.base(ONE), base, "the generation goes along");
    drop(log);
    assert_eq!(open(&disk, SMALL).unwrap().1, model.recovered());
}

#[test]
fn which_replica_it_is_goes_along_and_nothing_before_it_counts() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[entry(1, 1, 3, b"of the replica before it"), hard_state(1, 3, 1)]);
    let base = Base { generation: 4, ..Base::default() };
    let anew = [Record::Installed(ONE, base), hard_state(1, 0, 0), Record::Replica(ONE, PeerId(9))];
    append(&mut log, &mut model, &anew);
    append(&mut log, &mut model, &[hard_state(1, 5, 0), entry(1, 1, 5, b"a"), entry(1, 2, 5, b"b")]);
    for index in 1..=60 {
        append(&mut log, &mut model, &[entry(2, index, 1, &[2; 400])]);
    }
    collect(&mut log, &mut model, &durable(&[(1, 1), (2, 60)]));
    assert!(log.bytes() <= SMALL.budget_bytes, "the segment that said it is gone");
    drop(log);
    let (log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, model.recovered());
    assert_eq!((recovered[&ONE].replica, recovered[&ONE].last), (Some(PeerId(9)), Index(2)));
    model.check(&log.reader());
    let mut log = log;
    append(&mut log, &mut model, &[Record::Lost(ONE, Index(40))]);
    for index in 61..=120 {
        append(&mut log, &mut model, &[entry(2, index, 1, &[2; 400])]);
    }
    collect(&mut log, &mut model, &durable(&[(1, 2), (2, 120)]));
    drop(log);
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!((recovered[&ONE].lost, &recovered), (Some(Index(40)), &model.recovered()));
    append(&mut log, &mut model, &[Record::Replica(ONE, PeerId(10))]);
    drop(log);
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered[&ONE].lost, None, "it is nobody's word any more");

    // That there is none any more goes along too, and keeps nothing.
    let base = Base { generation: 5, ..Base::default() };
    let gone = [Record::Installed(ONE, base), hard_state(1, 0, 0), Record::Gone(ONE, PeerId(10))];
    append(&mut log, &mut model, &gone);
    for index in 121..=240 {
        append(&mut log, &mut model, &[entry(2, index, 1, &[2; 400])]);
    }
    collect(&mut log, &mut model, &durable(&[(2, 240)]));
    assert!(log.bytes() <= SMALL.budget_bytes, "the segment that said it is gone");
    drop(log);
    let (mut log, recovered) = open(&disk, SMALL).unwrap();
    assert_eq!(recovered, model.recovered());
    assert!(recovered[&ONE].is_gone && recovered[&ONE].replica == Some(PeerId(10)));
    append(&mut log, &mut model, &[Record::Replica(ONE, PeerId(11))]);
    drop(log);
    assert!(!open(&disk, SMALL).unwrap().1[&ONE].is_gone, "another one has come");
}

#[test]
#[should_panic(expected = "entry 7 is to be appended after 5")]
fn a_gap_behind_an_installed_table_is_refused() {
    let (mut log, _) = open(&SimDisk::new(), SMALL).unwrap();
    let base = Base { index: Index(5), term: Term(3), generation: 1 };
    let _ = log.append(&[Record::Installed(ONE, base), entry(1, 7, 3, b"x")]);
}

#[test]
fn a_log_whose_first_segments_somebody_removed_is_refused() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    for index in 1..=60 {
        log.append(&[entry(1, index, 1, &[1; 400])]).unwrap();
        log.collect(&durable(&[(1, index)])).unwrap();
    }
    drop(log);
    let paths = segments(&disk);
    assert!(!paths[0].ends_with("/0000000000000001.log"), "{paths:?}");
    disk.remove(&paths[0]).unwrap();
    let before = disk.bytes(&paths[1]);
    let error = open(&disk, SMALL).unwrap_err();
    assert!(matches!(&error, StorageError::Corrupt { reason, .. } if reason.contains("missing")), "{error}");
    assert!(error.to_string().contains(&paths[0]), "{error}");
    assert_eq!(disk.bytes(&paths[1]), before);
}

#[test]
fn a_full_disk_leaves_the_log_as_it_is() {
    let disk = SimDisk::new();
    let (mut log, _) = open(&disk, SMALL).unwrap();
    let mut model = Model::default();
    append(&mut log, &mut model, &[entry(2, 1, 1, &[2; 900])]);
    for index in 1..=22 {
        append(&mut log, &mut model, &[entry(1, index, 1, &[1; 400])]);
    }
    let used: u64 = segments(&disk).iter().map(|path| disk.bytes(path).unwrap().len() as u64).sum();
    disk.set_capacity(Some(used));
    let files = segments(&disk);
    assert!(log.collect(&durable(&[(1, 22)])).unwrap_err().is_disk_full());
    assert_eq!(segments(&disk), files);
    model.check(&log.reader());
    disk.set_capacity(None);
    assert!(!collect(&mut log, &mut model, &durable(&[(1, 22)])).is_empty());
    model.check(&log.reader());
}

/// What a crash interrupted.
struct Interrupted {
    durable: Durable,
    /// What the log holds if the batch under way has survived.
    doubtful: Model,
}

/// Takes on what a log holds after a crash. It must be what the model has, with or without the batch under way, and
/// perhaps with more let go of, but nothing that is needed.
fn adopt(model: &mut Model, interrupted: &Interrupted, recovered: &BTreeMap<ShardId, RecoveredShard>) {
    let compacted = |mut model: Model| {
        for (shard, found) in recovered {
            if found.base == model.base(*shard) {
                continue;
            }
            let most = interrupted.durable.get(shard).copied().unwrap_or_default();
            assert!(found.base.index > model.base(*shard).index && found.base.index <= most, "{found:?}");
            assert_eq!(found.base.term, model.term(*shard, found.base.index));
            model.compacted(*shard, found.base);
        }
        model
    };
    let (without, with) = (compacted(model.clone()), compacted(interrupted.doubtful.clone()));
    *model = if *recovered == without.recovered() { without } else { with };
    assert_eq!(*recovered, model.recovered());
}

/// A story in which every shard is idle, lags, or is busy at some time; up to its end, or to where the disk dies.
fn tell(log: &mut Log, model: &mut Model, salt: u64) -> Option<Interrupted> {
    for step in 1..=120u64 {
        let mut batch = Vec::new();
        for shard in 1..=4u32 {
            let last = model.last(ShardId(shard)).0;
            match (step * u64::from(shard) + salt) % 5 {
                0 if last > model.base(ShardId(shard)).index.0 + 3 => {
                    batch.push(entry(shard, last - 1, 1 + step / 4, &[9; 90]));
                }
                0 | 1 => batch.push(entry(shard, last + 1, 1 + step / 4, &vec![7; 10 * shard as usize])),
                2 if shard == 4 => batch.push(hard_state(shard, 1 + step / 4, 0)),
                _ => {}
            }
        }
        let durable: Durable = (1..=4u32)
            .map(|shard| {
                let (base, last) = (model.base(ShardId(shard)).index.0, model.last(ShardId(shard)).0);
                (ShardId(shard), Index(base.max(last.saturating_sub(u64::from(shard)))))
            })
            .collect();
        let mut doubtful = model.clone();
        doubtful.append(&batch);
        if log.append(&batch).is_err() {
            return Some(Interrupted { durable, doubtful });
        }
        *model = doubtful.clone();
        let Ok(moved) = log.collect(&durable) else { return Some(Interrupted { durable, doubtful }) };
        for (shard, base) in moved {
            model.compacted(shard, base);
        }
    }
    None
}

const TINY: LogOptions = LogOptions { segment_bytes: 1400, budget_bytes: 4200 };

#[test]
fn a_crash_at_any_sync_loses_nothing_that_is_needed() {
    let mut crashes = 0;
    loop {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, TINY).unwrap();
        let mut model = Model::default();
        disk.die_after(crashes);
        let Some(interrupted) = tell(&mut log, &mut model, 0) else {
            let files = segments(&disk);
            assert!(files.len() <= 5 && !files[0].ends_with("/0000000000000001.log"), "{files:?}");
            break;
        };
        drop(log);
        disk.crash(crashes * 7 + 1);
        let (log, recovered) = open(&disk, TINY).unwrap_or_else(|error| panic!("sync {crashes}: {error}"));
        adopt(&mut model, &interrupted, &recovered);
        model.check(&log.reader());
        let files = segments(&disk);
        drop(log);
        let (_, again) = open(&disk, TINY).unwrap();
        assert_eq!((again, segments(&disk)), (recovered, files), "the first start has left nothing to do");
        crashes += 1;
    }
    assert!(crashes > 140, "{crashes}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn a_log_that_is_let_go_of_is_a_list_that_begins_anywhere(
        lives in proptest::collection::vec((0u64..40, 0u64..160, any::<u64>()), 1..5),
    ) {
        let disk = SimDisk::new();
        let (mut log, _) = open(&disk, TINY).unwrap();
        let mut model = Model::default();
        for (salt, syncs, seed) in lives {
            disk.die_after(syncs);
            let interrupted = tell(&mut log, &mut model, salt);
            drop(log);
            disk.crash(seed);
            let (reopened, recovered) = open(&disk, TINY).unwrap();
            log = reopened;
            if let Some(interrupted) = interrupted {
                adopt(&mut model, &interrupted, &recovered);
            } else {
                prop_assert_eq!(&recovered, &model.recovered());
            }
            model.check(&log.reader());
        }
    }
}
