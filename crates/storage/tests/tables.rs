//! One suite for both engines: the same writes, reads, scans, rotations, flushes, compactions and crashes,
//! held to a naive multi-version map.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use proptest::prelude::*;
use ringfort_storage::{FileDisk, LsmTables, MemoryTables, StorageError, Table, TableOptions, Tables};
use ringfort_types::{Incarnation, Index, ShardId};

const SHARD: ShardId = ShardId(3);
/// What the shard writes before each rotation; never removed.
const STATE_ROW: &[u8] = b"\x02state";
/// So small that every other flush is followed by a merge.
const EAGER: TableOptions =
    TableOptions { cache_bytes: 1024 * 1024, open_files: 16, file_bytes: 2048, flushes_merged: 2 };

/// An engine, and what a crash does to it.
trait Engine {
    fn open(&self) -> Arc<dyn Table>;
    fn crash(&self, table: Arc<dyn Table>) -> Arc<dyn Table>;
}

struct Lsm(tempfile::TempDir);

impl Lsm {
    fn new() -> Lsm {
        Lsm(tempfile::tempdir().unwrap())
    }
}

impl Engine for Lsm {
    fn open(&self) -> Arc<dyn Table> {
        let disk = Arc::new(FileDisk::open(self.0.path()).unwrap());
        LsmTables::new(disk, Incarnation(1), EAGER).open(SHARD).unwrap()
    }

    fn crash(&self, table: Arc<dyn Table>) -> Arc<dyn Table> {
        drop(table);
        self.open()
    }
}

impl Engine for MemoryTables {
    fn open(&self) -> Arc<dyn Table> {
        Tables::open(self, SHARD).unwrap()
    }

    fn crash(&self, table: Arc<dyn Table>) -> Arc<dyn Table> {
        self.fall_back(SHARD, table.durable());
        Tables::open(self, SHARD).unwrap()
    }
}

/// Every version of every row, for ever.
#[derive(Clone, Debug, Default)]
struct Model {
    rows: BTreeMap<Vec<u8>, Vec<(u64, Option<Bytes>)>>,
}

impl Model {
    fn write(&mut self, index: u64, rows: &[(Bytes, Option<Bytes>)]) {
        for (key, value) in rows {
            self.rows.entry(key.to_vec()).or_default().push((index, value.clone()));
        }
    }

    fn get(&self, key: &[u8], at: u64) -> Option<Bytes> {
        self.rows.get(key)?.iter().rev().find(|(index, _)| *index <= at)?.1.clone()
    }

    fn scan(&self, from: &[u8], until: Option<&[u8]>, at: u64) -> Vec<(Vec<u8>, Bytes)> {
        let inside = |key: &[u8]| key >= from && until.is_none_or(|until| key < until);
        self.rows
            .keys()
            .filter(|key| inside(key))
            .filter_map(|key| Some((key.clone(), self.get(key, at)?)))
            .collect()
    }

    fn fall_back(&mut self, to: u64) {
        self.rows.values_mut().for_each(|versions| versions.retain(|(index, _)| *index <= to));
    }
}

fn scan(table: &dyn Table, from: &[u8], until: Option<&[u8]>, at: u64) -> Vec<(Vec<u8>, Bytes)> {
    let mut rows = Vec::new();
    table
        .scan(from, until, Index(at), &mut |key, value| {
            rows.push((key.to_vec(), value.clone()));
            ControlFlow::Continue(())
        })
        .unwrap();
    rows
}

/// Compares all that can be read at one index.
fn check_at(table: &dyn Table, model: &Model, at: u64) {
    for key in model.rows.keys() {
        assert_eq!(table.get(key, Index(at)).unwrap(), model.get(key, at), "{key:?} at {at}");
    }
    assert_eq!(table.get(b"never written", Index(at)).unwrap(), None);
    assert_eq!(scan(table, &[], None, at), model.scan(&[], None, at), "all rows at {at}");
    let (from, until) = (&b"\x01d"[..], &b"\x01j"[..]);
    assert_eq!(scan(table, from, Some(until), at), model.scan(from, Some(until), at), "a range at {at}");
    assert!(scan(table, until, Some(from), at).is_empty());
}

fn key(number: u8) -> Bytes {
    Bytes::from(vec![1, b'a' + number])
}

#[derive(Clone, Debug)]
enum Op {
    /// One entry: keys with a length of value, or none to remove.
    Write(Vec<(u8, Option<usize>)>),
    /// The state row, then a rotation, as a shard does it.
    Seal,
    /// Readers go back by so much at most.
    Flush(u64),
    Compact(u64),
    Merge(u64),
    /// A reader stays where readers may be at the earliest.
    Hold,
    /// It has read all that it wanted.
    Release,
    Crash,
}

fn op() -> impl Strategy<Value = Op> {
    let rows = proptest::collection::btree_map(0u8..12, proptest::option::weighted(0.7, 0usize..200), 0..4);
    prop_oneof![
        10 => rows.prop_map(|rows| Op::Write(rows.into_iter().collect())),
        3 => Just(Op::Seal),
        3 => (0u64..8).prop_map(Op::Flush),
        3 => (0u64..8).prop_map(Op::Compact),
        1 => (0u64..8).prop_map(Op::Merge),
        1 => Just(Op::Hold),
        1 => Just(Op::Release),
        1 => Just(Op::Crash),
    ]
}

fn run(engine: &dyn Engine, ops: &[Op]) {
    let mut table = engine.open();
    let mut model = Model::default();
    let (mut index, mut sealed, mut keep, mut is_held) = (0u64, 0u64, 0u64, false);
    for op in ops {
        if let Op::Flush(back) | Op::Compact(back) | Op::Merge(back) = op
            && !is_held
        {
            keep = keep.max(index.saturating_sub(*back));
        }
        match op {
            Op::Write(rows) => {
                index += 1;
                let rows: Vec<_> = rows
                    .iter()
                    .map(|(number, length)| {
                        let fill = |length: &usize| Bytes::from(vec![index as u8; *length]);
                        (key(*number), length.as_ref().map(fill))
                    })
                    .collect();
                table.write(Index(index), &rows);
                model.write(index, &rows);
            }
            Op::Seal if index > sealed => {
                let row = (Bytes::from_static(STATE_ROW), Some(Bytes::from(index.to_string())));
                table.write(Index(index), std::slice::from_ref(&row));
                model.write(index, std::slice::from_ref(&row));
                table.rotate();
                sealed = index;
            }
            Op::Seal => {}
            Op::Flush(_) => {
                table.flush(Index(keep)).unwrap();
                assert_eq!(table.durable(), Index(sealed));
            }
            Op::Compact(_) => {
                table.compact(Index(keep)).unwrap();
            }
            Op::Merge(_) => {
                table.merge(Index(keep)).unwrap();
            }
            Op::Hold => is_held = true,
            Op::Release => is_held = false,
            Op::Crash => {
                is_held = false;
                let durable = table.durable();
                table = engine.crash(table);
                assert_eq!(table.durable(), durable, "durable means just that");
                assert!(table.collected() <= durable);
                index = durable.0;
                (sealed, keep) = (index, index);
                model.fall_back(index);
                assert_eq!(table.get(STATE_ROW, durable).unwrap(), model.get(STATE_ROW, index));
            }
        }
        assert!(table.collected() <= Index(keep));
        for at in keep..=index {
            check_at(&*table, &model, at);
        }
        check_at(&*table, &model, index + 1000);
        if let Some(below) = table.collected().0.checked_sub(1) {
            assert!(matches!(table.get(b"x", Index(below)), Err(StorageError::Collected { .. })));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn tables_on_disk_are_multi_version_maps(ops in proptest::collection::vec(op(), 1..60)) {
        run(&Lsm::new(), &ops);
    }
}

proptest! {
    #[test]
    fn tables_in_memory_are_multi_version_maps(ops in proptest::collection::vec(op(), 1..60)) {
        run(&MemoryTables::new(), &ops);
    }
}

/// An entry that sets what a reader can verify by the index alone.
fn telltale(index: u64) -> Vec<(Bytes, Option<Bytes>)> {
    let value = || Some(Bytes::from(index.to_string()));
    let mut rows: Vec<_> = (0..4).map(|number| (key(number), value())).collect();
    // Each of these eight is set or removed in turn, every eighth entry.
    let turn = (index % 8) as u8;
    rows.push((key(4 + turn), (index / 8).is_multiple_of(2).then(|| value().unwrap())));
    rows.push((Bytes::from_static(STATE_ROW), value()));
    rows
}

fn check_telltale(table: &dyn Table, at: u64) -> Result<(), StorageError> {
    let expected = |index: u64| Bytes::from(index.to_string());
    for number in 0..4 {
        assert_eq!(table.get(&key(number), Index(at))?, Some(expected(at)), "key {number} at {at}");
    }
    for turn in 0..8u64 {
        let set = (1..=at).rev().find(|index| index % 8 == turn);
        let value = set.filter(|set| (set / 8).is_multiple_of(2)).map(expected);
        assert_eq!(table.get(&key(4 + turn as u8), Index(at))?, value, "turn {turn} at {at}");
    }
    let mut rows = 0;
    table.scan(&key(0), Some(&key(4)), Index(at), &mut |_, value| {
        assert_eq!(*value, expected(at), "scanned at {at}");
        rows += 1;
        ControlFlow::Continue(())
    })?;
    assert_eq!(rows, 4);
    Ok(())
}

/// Few entries, many super versions: their numbers must not run ahead of the indexes, nor lag behind.
#[test]
fn many_flushes_and_compactions_at_low_indexes() {
    let engine = Lsm::new();
    let mut table = engine.open();
    for index in 1..=60u64 {
        table.write(Index(index), &telltale(index));
        if index.is_multiple_of(2) {
            table.rotate();
        }
        let keep = index.saturating_sub(5).max(table.collected().0);
        table.flush(Index(keep)).unwrap();
        for _ in 0..4 {
            table.compact(Index(keep)).unwrap();
        }
        for at in keep.max(1)..=index {
            check_telltale(&*table, at).unwrap();
        }
        if index.is_multiple_of(20) {
            assert_eq!(table.durable(), Index(index));
            table = engine.crash(table);
            assert_eq!((table.durable(), table.collected()), (Index(index), Index(index)));
            check_telltale(&*table, index).unwrap();
        }
    }
}

/// Rounds of compaction, one after another, come to an end, and leave little that is out of date.
#[test]
fn compaction_catches_up() {
    let engine = Lsm::new();
    let table = engine.open();
    let value = Bytes::from(vec![b'v'; 100]);
    for index in 1..=200u64 {
        let rows: Vec<_> = (0..50)
            .map(|row| (Bytes::from(format!("{:04}", (row * 7 + index * 13) % 400)), Some(value.clone())))
            .collect();
        table.write(Index(index), &rows);
        table.rotate();
        table.flush(Index(index)).unwrap();
        let rounds = (0..64).take_while(|_| table.compact(Index(index)).unwrap()).count();
        assert!(rounds < 64, "entry {index}: compaction goes on and on");
        assert!(!table.compact(Index(index)).unwrap());
    }
    // 400 keys; one flush has 50, and at most a few of these and a small level above the last are yet to be merged.
    assert!(table.rows_estimate() < 2 * 400, "{} rows", table.rows_estimate());
    let mut rows = 0;
    let count = &mut |_: &[u8], _: &Bytes| {
        rows += 1;
        ControlFlow::Continue(())
    };
    table.scan(b"", None, Index(200), count).unwrap();
    assert_eq!(rows, 400);
}

/// Rows that are gone leave nothing once the table is merged, though little of it was ever due for compaction.
#[test]
fn a_merge_leaves_nothing_of_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Arc::new(FileDisk::open(directory.path()).unwrap());
    let table = LsmTables::new(disk, Incarnation(1), TableOptions::default()).open(SHARD).unwrap();
    let key = |row: u64| Bytes::from(format!("{row:06}"));
    let rows = |value: Option<Bytes>| (0..20_000).map(|row| (key(row), value.clone())).collect::<Vec<_>>();
    table.write(Index(1), &rows(Some(Bytes::from(vec![b'v'; 100]))));
    table.rotate();
    table.flush(Index(1)).unwrap();
    let full = table.bytes_estimate();
    table.write(Index(2), &rows(None)[..19_000]);
    assert_eq!((table.active_removals(), table.rows_estimate()), (19_000, 1_000), "as far as it is known");
    table.rotate();
    assert_eq!((table.active_removals(), table.rows_estimate()), (0, 1_000));
    table.flush(Index(2)).unwrap();
    assert_eq!((table.dead().removals, table.rows_estimate()), (19_000, 1_000));
    while table.compact(Index(2)).unwrap() {}
    assert!(table.merge(Index(2)).unwrap());
    assert_eq!((table.dead().removals, table.dead().items, table.rows_estimate()), (0, 1_000, 1_000));
    assert!(table.bytes_estimate() < full / 10, "{} of {full}", table.bytes_estimate());
    assert_eq!(scan(&*table, b"", None, 2).len(), 1_000);
}

/// Readers that hold an old index for long see it unchanged, whatever happens meanwhile, and nothing stays in memory for them.
#[test]
fn an_old_index_stays_readable_while_it_is_kept() {
    let engine = Lsm::new();
    let table = engine.open();
    for index in 1..=400u64 {
        table.write(Index(index), &telltale(index));
        if index.is_multiple_of(3) {
            table.rotate();
            table.flush(Index(index.min(10))).unwrap();
            assert_eq!(table.memory_bytes(), 0, "what is on disk is not in memory");
            while table.compact(Index(index.min(10))).unwrap() {}
            assert!(!table.is_crowded());
        }
        for at in [10, 11, 37, 99, 250, 399] {
            if at <= index {
                check_telltale(&*table, at).unwrap();
            }
        }
    }
    table.rotate();
    table.flush(Index(10)).unwrap();
    let (kept, retained) = (table.bytes_estimate(), table.written_since(Index(10)));
    assert!(retained > kept / 2, "{retained} bytes of {kept} were written since");
    assert!(!table.merge(Index(399)).unwrap(), "somebody may read what is on disk");
    assert!(table.dead().undropped_bytes > 0);
    assert!(table.merge(Index(400)).unwrap());
    assert!(table.bytes_estimate() < kept / 10, "{} of {kept}", table.bytes_estimate());
    assert_eq!((table.written_since(Index(10)), table.dead().undropped_bytes), (0, 0));
    assert!(matches!(table.get(b"x", Index(399)), Err(StorageError::Collected { .. })));
    check_telltale(&*table, 400).unwrap();
}

/// Versions of one key that take many blocks, and lie in several files, are told apart at every index.
#[test]
fn many_versions_of_one_key_are_read_at_any_index() {
    let engine = Lsm::new();
    let table = engine.open();
    let value = |index: u64| Bytes::from(index.to_string().repeat(30));
    for index in 1..=900u64 {
        let removed = (Bytes::from_static(b"gone"), index.is_multiple_of(2).then(|| value(index)));
        table.write(Index(index), &[(Bytes::from_static(b"hot"), Some(value(index))), removed]);
        if index.is_multiple_of(100) {
            table.write(Index(index), &[(Bytes::from_static(STATE_ROW), Some(value(index)))]);
            table.rotate();
            table.flush(Index(5)).unwrap();
            while table.compact(Index(5)).unwrap() {}
        }
    }
    for at in 5..=900 {
        assert_eq!(table.get(b"hot", Index(at)).unwrap(), Some(value(at)));
        let gone = at.is_multiple_of(2).then(|| value(at));
        assert_eq!(table.get(b"gone", Index(at)).unwrap(), gone);
        let rows = scan(&*table, b"g", Some(b"i"), at);
        assert_eq!(rows.len(), 1 + usize::from(gone.is_some()));
        assert_eq!(rows.last().unwrap().1, value(at));
    }
}

#[test]
fn readers_while_flushes_and_compactions_run() {
    const LAST: u64 = 3000;
    let engine = Lsm::new();
    let table = engine.open();
    let applied = AtomicU64::new(0);
    let stop = AtomicBool::new(false);
    let (checked, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for index in 1..=LAST {
                table.write(Index(index), &telltale(index));
                if index % 37 == 0 {
                    table.rotate();
                }
                applied.store(index, Ordering::Release);
                if index % 10 == 0 {
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
            }
            stop.store(true, Ordering::Release);
        });
        let keep = || Index(applied.load(Ordering::Acquire).saturating_sub(60));
        let (table, stop) = (&*table, &stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                table.flush(keep()).unwrap();
            }
        });
        scope.spawn(move || {
            while !stop.load(Ordering::Acquire) {
                table.compact(keep()).unwrap();
            }
        });
        for seed in 0..2u64 {
            let (applied, checked, refused) = (&applied, &checked, &refused);
            scope.spawn(move || {
                let mut random = seed;
                while !stop.load(Ordering::Acquire) {
                    random = random
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    let applied = applied.load(Ordering::Acquire);
                    let at = applied.saturating_sub((random >> 33) % 70);
                    if at == 0 {
                        continue;
                    }
                    match check_telltale(table, at) {
                        Ok(()) => checked.fetch_add(1, Ordering::Relaxed),
                        Err(StorageError::Collected { .. }) => refused.fetch_add(1, Ordering::Relaxed),
                        Err(other) => panic!("{other}"),
                    };
                }
            });
        }
    });
    assert!(checked.load(Ordering::Relaxed) > 200, "{checked:?} checked, {refused:?} refused");
    table.rotate();
    table.flush(Index(LAST)).unwrap();
    let table = engine.crash(table);
    check_telltale(&*table, table.durable().0).unwrap();
}

#[test]
fn large_values_come_back_whole() {
    let engine = Lsm::new();
    let table = engine.open();
    let value = |fill: u8| Bytes::from(vec![fill; 8 * 1024 * 1024]);
    for index in 1..=3u64 {
        let state = (Bytes::from_static(STATE_ROW), Some(Bytes::from_static(b"s")));
        table.write(Index(index), &[(key(index as u8), Some(value(index as u8))), state]);
        table.rotate();
        assert!(table.memory_bytes() > 8 * 1024 * 1024);
        table.flush(Index(index)).unwrap();
        assert_eq!(table.memory_bytes(), 0);
        table.compact(Index(index)).unwrap();
    }
    let table = engine.crash(table);
    for index in 1..=3u8 {
        assert_eq!(table.get(&key(index), Index(3)).unwrap(), Some(value(index)));
    }
    assert!(table.bytes_estimate() > 0);
    assert!((3..10).contains(&table.rows_estimate()));
}

#[test]
fn a_shard_opened_twice_is_one_table() {
    let root = tempfile::tempdir().unwrap();
    let tables = LsmTables::new(
        Arc::new(FileDisk::open(root.path()).unwrap()),
        Incarnation(1),
        TableOptions::default(),
    );
    let (one, two) = (tables.open(SHARD).unwrap(), tables.open(SHARD).unwrap());
    one.write(Index(1), &[(key(1), Some(Bytes::from_static(b"v")))]);
    assert_eq!(two.get(&key(1), Index(1)).unwrap(), Some(Bytes::from_static(b"v")));
}

#[test]
fn a_table_without_its_current_version_is_not_taken_for_a_new_one() {
    let engine = Lsm::new();
    let table = engine.open();
    table.write(Index(1), &telltale(1));
    table.rotate();
    table.flush(Index(1)).unwrap();
    drop(table);
    std::fs::remove_file(engine.0.path().join("lane-0/shards/3/current")).unwrap();
    let tables = LsmTables::new(Arc::new(FileDisk::open(engine.0.path()).unwrap()), Incarnation(1), EAGER);
    let error = tables.open(SHARD).unwrap_err();
    assert!(matches!(error, StorageError::Corrupt { .. }), "{error}");
}
