//! The state machine against a model of one sorted map, and what a restart leaves of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use ringfort_shard::{SessionLimits, Shard, ShardError, configuration_of};
use ringfort_storage::{MemoryTables, Tables};
use ringfort_types::limits::{SCAN_PAGE_BYTES, SCAN_PAGE_LOOKS_MAX};
use ringfort_types::wire::put_varint;
use ringfort_types::{
    Change, Code, Command, Configuration, ConfigurationChange, Consistency, Entry, EntryKind, HybridClock,
    Index, LogEntry, NodeId, Page, Part, PeerId, Replica, Reply, Request, Revision, Scan, ShardId, Term,
    Version,
};

const ID: ShardId = ShardId(7);

fn key(name: &str) -> Bytes {
    Bytes::copy_from_slice(name.as_bytes())
}

fn write(name: &str, change: Change) -> Command {
    Command::Write { parts: vec![Part::new(key(name), change)] }
}

fn put(name: &str, value: &str) -> Command {
    write(name, Change::put(key(value)))
}

fn delete(name: &str) -> Command {
    write(name, Change::DELETE)
}

fn entry(index: u64, commands: Vec<Command>) -> LogEntry {
    let commands = commands.into_iter().map(Into::into).collect();
    let payload = Entry { clock: HybridClock(index * 10), commands }.encode();
    LogEntry { index: Index(index), term: Term(3), kind: EntryKind::Normal, payload }
}

#[test]
fn an_entry_of_a_later_version_stops_the_shard_and_nothing_else() {
    let mut shard = fresh();
    apply(&mut shard, &entry(1, vec![put("a", "1")]), 1);
    let of_kind = |kind: u8| {
        let mut payload = entry(2, vec![Command::Digest]).payload.to_vec();
        payload[11] = kind;
        LogEntry { payload: payload.into(), ..entry(2, Vec::new()) }
    };
    let mut later = entry(2, vec![put("a", "2")]);
    later.payload = [&[9], &later.payload[1..]].concat().into();
    let change = LogEntry { kind: EntryKind::Configuration, payload: key("\u{1}\u{63}"), ..later.clone() };
    for (entry, says) in
        [(of_kind(99), "kind of command"), (later, "version of an entry"), (change, "configuration")]
    {
        let error = shard.apply(&entry, 1).unwrap_err();
        assert!(error.is_unread() && error.to_string().contains(says), "{error}");
        assert_eq!((shard.applied(), shard.revision()), (Index(1), Revision(1)));
    }
    // A version that knows it goes on from there.
    apply(&mut shard, &of_kind(2), 1);
    assert_eq!(shard.applied(), Index(2));
}

/// What came of the commands of an entry.
fn apply(shard: &mut Shard, entry: &LogEntry, copies: u32) -> Vec<Reply> {
    shard.apply(entry, copies).unwrap().replies
}

fn fresh() -> Shard {
    Shard::open(
        ID,
        MemoryTables::default().open(ID).unwrap(),
        &Configuration::default(),
        SessionLimits::default(),
    )
    .unwrap()
}

fn revisions(replies: &[Reply]) -> Vec<u64> {
    let revision = |reply: &Reply| match reply {
        Reply::Written(receipt) => receipt.revision.0,
        other => panic!("{other:?}"),
    };
    replies.iter().map(revision).collect()
}

fn get(shard: &Shard, name: &str, at: u64) -> Option<(String, u64)> {
    let request = Request::Get { key: key(name), consistency: Consistency::Linearizable };
    match shard.reader().query(&request, Index(at)) {
        Reply::Value { row, at: read_at, .. } => {
            assert_eq!(read_at, Index(at));
            row.map(|row| (String::from_utf8(row.value.to_vec()).unwrap(), row.revision.0))
        }
        other => panic!("{other:?}"),
    }
}

fn digest(shard: &Shard, at: Index) -> Reply {
    shard.reader().query(&Request::DigestAt { node: NodeId(1), shard: ID, index: at }, at)
}

fn scan(from: &str, prefix: &str, rows_max: u32, bytes_max: u32) -> Scan {
    Scan { shard: ID, at: None, from: key(from), prefix: key(prefix), rows_max, bytes_max, keys_only: false }
}

fn page(shard: &Shard, scan: &Scan) -> Page {
    match shard.reader().query(&Request::Scan(scan.clone()), shard.applied()) {
        Reply::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

fn names(page: &Page) -> Vec<&str> {
    page.rows.iter().map(|(key, _)| std::str::from_utf8(key).unwrap()).collect()
}

#[test]
fn every_command_that_changes_something_counts_and_has_a_receipt() {
    let mut shard = fresh();
    let replies = apply(
        &mut shard,
        &entry(1, vec![put("a", "1"), delete("nothing"), Command::Digest, put("b", "2")]),
        3,
    );
    assert_eq!(revisions(&replies), [1, 2, 2, 3]);
    let Reply::Written(receipt) = &replies[0] else { panic!() };
    assert_eq!((receipt.shard, receipt.term, receipt.index, receipt.copies), (ID, Term(3), Index(1), 3));
    assert_eq!((shard.revision(), shard.applied()), (Revision(3), Index(1)));
    assert_eq!((shard.clock(), shard.reader().revision()), (HybridClock(10), Revision(3)));
    assert_eq!((get(&shard, "a", 1), get(&shard, "b", 1)), (Some(("1".into(), 1)), Some(("2".into(), 3))));
}

#[test]
fn later_commands_of_an_entry_win() {
    let mut shard = fresh();
    shard.apply(&entry(1, vec![put("a", "old"), put("b", "old"), delete("c")]), 1).unwrap();
    let replies = apply(
        &mut shard,
        &entry(
            2,
            vec![put("a", "x"), put("a", "y"), delete("b"), put("b", "back"), put("c", "z"), delete("c")],
        ),
        1,
    );
    assert_eq!(revisions(&replies), [4, 5, 6, 7, 8, 9]);
    assert_eq!(get(&shard, "a", 2), Some(("y".into(), 5)));
    assert_eq!(get(&shard, "b", 2), Some(("back".into(), 7)));
    assert_eq!(get(&shard, "c", 2), None);
}

#[test]
fn a_read_names_its_index_whatever_comes_after() {
    let mut shard = fresh();
    shard.apply(&entry(1, vec![put("a", "1")]), 1).unwrap();
    shard.apply(&entry(2, vec![put("a", "2")]), 1).unwrap();
    shard.apply(&entry(3, vec![delete("a")]), 1).unwrap();
    assert_eq!(get(&shard, "a", 0), None);
    assert_eq!(get(&shard, "a", 1).unwrap().0, "1");
    assert_eq!(get(&shard, "a", 2).unwrap().0, "2");
    assert_eq!(get(&shard, "a", 3), None);
}

#[test]
fn entries_without_commands_only_advance_the_index() {
    let mut shard = fresh();
    let empty = LogEntry { index: Index(1), term: Term(1), kind: EntryKind::Normal, payload: Bytes::new() };
    assert_eq!(apply(&mut shard, &empty, 1), []);
    assert_eq!(apply(&mut shard, &change(2, &ConfigurationChange::AddLearner(replica(1))), 1), []);
    assert_eq!((shard.applied(), shard.revision(), shard.clock()), (Index(2), Revision(0), HybridClock(0)));
}

fn replica(number: u64) -> Replica {
    Replica { node: NodeId(number), peer: PeerId(number) }
}

fn change(index: u64, change: &ConfigurationChange) -> LogEntry {
    LogEntry { kind: EntryKind::Configuration, payload: change.encode(), ..entry(index, vec![]) }
}

#[test]
fn the_configuration_changes_with_its_entry_and_lies_in_the_table_with_what_was_applied() {
    let tables = MemoryTables::new();
    let table = || tables.open_generation(ID, 0).unwrap();
    let born = Configuration::born(vec![replica(1)]);
    let open = || Shard::open(ID, table(), &born, SessionLimits::default()).unwrap();
    let mut shard = open();
    let entries = [
        change(1, &ConfigurationChange::AddLearner(replica(2))),
        change(2, &ConfigurationChange::EnterJoint { promote: vec![PeerId(2)], demote: vec![PeerId(1)] }),
        change(3, &ConfigurationChange::LeaveJoint),
    ];
    shard.apply(&entries[0], 1).unwrap();
    shard.seal();
    shard.table().flush(Index(0)).unwrap();
    shard.apply(&entries[1], 1).unwrap();
    let learning = Configuration { at: Index(1), learners: vec![replica(2)], ..born.clone() };
    assert!(shard.configuration().is_joint());
    assert_eq!(configuration_of(ID, &*table()).unwrap(), (Index(1), learning.clone()), "what is durable");
    // What was not is applied again.
    let mut again = open();
    assert_eq!((again.applied(), again.configuration()), (Index(1), &learning));
    for entry in &entries[1..] {
        again.apply(entry, 1).unwrap();
    }
    let (voters, learners) = (vec![replica(2)], vec![replica(1)]);
    let last = Configuration { at: Index(3), voters, learners, ..Configuration::default() };
    assert_eq!(again.configuration(), &last);
    again.seal();
    again.table().flush(Index(0)).unwrap();
    assert_eq!(open().configuration(), &last);
}

#[test]
#[should_panic(expected = "committed entry 1: LeaveJoint: the configuration is not joint")]
fn a_change_that_can_not_follow_is_a_broken_invariant() {
    fresh().apply(&change(1, &ConfigurationChange::LeaveJoint), 1).unwrap();
}

#[test]
#[should_panic(expected = "entries are applied in order")]
fn an_entry_out_of_order_is_a_broken_invariant() {
    fresh().apply(&entry(2, vec![]), 1).unwrap();
}

#[test]
fn pages_are_bounded_by_rows_and_bytes_and_go_on_where_they_ended() {
    let mut shard = fresh();
    let rows: Vec<Command> = ["a", "b", "ba", "bb", "c"].iter().map(|name| put(name, "0123456789")).collect();
    shard.apply(&entry(1, rows), 1).unwrap();

    let first = page(&shard, &scan("", "", 2, 1 << 20));
    assert_eq!((names(&first), first.at), (vec!["a", "b"], Index(1)));
    assert_eq!(first.next.as_deref(), Some(&b"b\0"[..]));
    let second = page(&shard, &scan("b\0", "", 3, 1 << 20));
    assert_eq!((names(&second), &second.next), (vec!["ba", "bb", "c"], &None));

    assert_eq!(names(&page(&shard, &scan("", "", 0, 100))), ["a"], "at least one row");
    assert_eq!(names(&page(&shard, &scan("", "", 100, 60))), ["a", "b"]);
    assert_eq!(names(&page(&shard, &scan("", "b", 100, 1000))), ["b", "ba", "bb"]);
    assert_eq!(names(&page(&shard, &scan("ba\0", "b", 100, 1000))), ["bb"]);
    assert_eq!(names(&page(&shard, &scan("a", "b", 1, 1000))), ["b"]);
    assert_eq!(page(&shard, &scan("c", "b", 100, 1000)).rows, []);
    assert_eq!(page(&shard, &scan("", "x", 100, 1000)).rows, []);

    let keys_only = page(&shard, &Scan { keys_only: true, ..scan("", "", 100, 1000) });
    assert!(keys_only.rows.iter().all(|(_, row)| row.value.is_empty() && row.revision > Revision(0)));
    assert_eq!(keys_only.rows.len(), 5);
}

#[test]
fn a_row_too_large_for_a_page_is_asked_for_by_itself() {
    let mut shard = fresh();
    let large = "x".repeat(SCAN_PAGE_BYTES);
    shard
        .apply(&entry(1, vec![put("a", "1"), put("b", &large), put("c", &large), put("d", "1")]), 1)
        .unwrap();

    let before = page(&shard, &scan("", "", 100, 1_000));
    assert_eq!((names(&before), before.next.as_deref()), (vec!["a"], Some(&b"a\0"[..])));
    for bytes_max in [0, 1_000, SCAN_PAGE_BYTES as u32] {
        let empty = page(&shard, &scan("a\0", "", 100, bytes_max));
        assert_eq!((empty.rows.len(), empty.next.as_deref()), (0, Some(&b"b"[..])));
    }
    // Where there is room for it, it is the only one.
    for bytes_max in [2 * SCAN_PAGE_BYTES as u32, u32::MAX] {
        let one = page(&shard, &scan("b", "", 100, bytes_max));
        assert_eq!((names(&one), one.next.as_deref()), (vec!["b"], Some(&b"b\0"[..])));
    }
    let keys = page(&shard, &Scan { keys_only: true, ..scan("", "", 100, 1_000) });
    assert_eq!((names(&keys), &keys.next), (vec!["a", "b", "c", "d"], &None));
    assert_eq!(names(&page(&shard, &scan("d", "", 100, u32::MAX))), ["d"]);
}

/// Deleted keys whose versions are kept take time, and have no place in a page.
#[test]
fn a_page_looks_at_so_many_rows_only() {
    let mut shard = fresh();
    let name = |n: usize| format!("k{n:05}");
    let gone = |n| write(&name(n), Change::Delete { version: Some(Version(1)) });
    let deletes = SCAN_PAGE_LOOKS_MAX + 10;
    for (index, from) in (1..).zip((0..deletes).step_by(2_000)) {
        shard.apply(&entry(index, (from..deletes.min(from + 2_000)).map(gone).collect()), 1).unwrap();
    }
    let last = shard.applied().0 + 1;
    shard.apply(&entry(last, vec![put("a", "1"), put("z", "2")]), 1).unwrap();

    let first = page(&shard, &scan("", "", 100, u32::MAX));
    assert_eq!(names(&first), ["a"]);
    let next = first.next.expect("it has not seen all");
    assert_eq!(next, name(SCAN_PAGE_LOOKS_MAX - 1));
    let second = page(&shard, &Scan { from: next, ..scan("", "", 100, u32::MAX) });
    assert_eq!((names(&second), &second.next), (vec!["z"], &None));
    let empty = page(&shard, &scan("k", "", 100, u32::MAX));
    assert_eq!((empty.rows.len(), empty.next), (0, Some(name(SCAN_PAGE_LOOKS_MAX).into())));
    let none = page(&shard, &scan("k", "k0409", 100, 100));
    assert_eq!((none.rows.len(), none.next), (0, None));
}

#[test]
fn prefixes_of_the_highest_bytes_have_an_end() {
    let mut shard = fresh();
    let keys: [&'static [u8]; 4] = [b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\xff"];
    let puts = keys.iter().map(|key| Command::Write { parts: vec![Part::new(*key, Change::put(""))] });
    shard.apply(&entry(1, puts.collect()), 1).unwrap();
    shard.seal();
    let with = |prefix: &'static [u8]| {
        let scan = Scan { prefix: Bytes::from_static(prefix), ..scan("", "", 100, 1000) };
        page(&shard, &scan).rows.len()
    };
    assert_eq!((with(b""), with(b"\xfe"), with(b"\xff"), with(b"\xff\xff")), (4, 1, 3, 2));
}

#[test]
fn a_row_of_a_later_version_is_refused_by_name() {
    let tables = MemoryTables::default();
    let mut shard =
        Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), SessionLimits::default())
            .unwrap();
    shard.apply(&entry(1, vec![put("a", "1")]), 1).unwrap();
    let later = (Bytes::from_static(b"\x01\x00new"), Some(Bytes::from_static(b"\x02\x00something")));
    shard.table().write(Index(2), &[later]);
    let nothing = LogEntry { index: Index(2), term: Term(1), kind: EntryKind::Normal, payload: Bytes::new() };
    shard.apply(&nothing, 1).unwrap();
    for request in [
        Request::Get { key: key("new"), consistency: Consistency::Stale },
        Request::Scan(scan("", "", 10, 1000)),
    ] {
        match shard.reader().query(&request, Index(2)) {
            Reply::Failed(failure) => {
                assert_eq!(failure.code, Code::DataLoss);
                assert!(
                    failure.message.contains("shard 7") && failure.message.contains("\"new\""),
                    "{failure}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(get(&shard, "a", 2).is_some());
}

#[test]
fn readers_answer_questions_only() {
    let reader = fresh().reader();
    let write = Request::put("a", "b");
    assert!(matches!(reader.query(&write, Index(0)), Reply::Failed(f) if f.code == Code::InvalidArgument));
}

#[test]
fn digests_agree_exactly_if_the_rows_do() {
    let (mut one, mut other) = (fresh(), fresh());
    for shard in [&mut one, &mut other] {
        shard.apply(&entry(1, vec![put("a", "1"), put("b", "2")]), 1).unwrap();
    }
    other.seal();
    assert_eq!(digest(&one, Index(1)), digest(&other, Index(1)), "the state row is no row");
    one.apply(&entry(2, vec![put("c", "3")]), 1).unwrap();
    other.apply(&entry(2, vec![put("c", "4")]), 1).unwrap();
    assert_ne!(digest(&one, Index(2)), digest(&other, Index(2)));
    assert_eq!(digest(&one, Index(1)), digest(&other, Index(1)));
    let Reply::Digest { rows, .. } = digest(&one, Index(2)) else { panic!() };
    assert_eq!(rows, 3);
}

#[test]
fn what_becomes_durable_names_its_own_index() {
    let tables = MemoryTables::default();
    let mut shard =
        Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), SessionLimits::default())
            .unwrap();
    shard.apply(&entry(1, vec![put("a", "1")]), 1).unwrap();
    shard.apply(&entry(2, vec![put("a", "2")]), 1).unwrap();
    shard.seal();
    shard.apply(&entry(3, vec![put("a", "3")]), 1).unwrap();
    shard.table().flush(Index(0)).unwrap();
    drop(shard);
    tables.fall_back(ID, Index(2));
    let shard =
        Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), SessionLimits::default())
            .unwrap();
    assert_eq!((shard.applied(), shard.revision(), shard.clock()), (Index(2), Revision(2), HybridClock(20)));
    assert_eq!(get(&shard, "a", 2).unwrap().0, "2");
}

#[test]
fn a_damaged_state_row_is_refused_with_what_to_do() {
    let state = |bytes: &[u8]| {
        let table = MemoryTables::default().open(ID).unwrap();
        table.write(Index(5), &[(Bytes::from_static(&[3, 0]), Some(Bytes::copy_from_slice(bytes)))]);
        table.rotate();
        table.flush(Index(0)).unwrap();
        Shard::open(ID, table, &Configuration::default(), SessionLimits::default()).unwrap_err()
    };
    let mut good = BytesMut::from(&[2u8, 0][..]);
    put_varint(&mut good, 4);
    put_varint(&mut good, 9);
    // A clock, and a configuration of nobody.
    good.extend_from_slice(&[0; 8 + 5]);
    assert!(matches!(state(&good), ShardError::Torn { durable: Index(5), applied: Index(4), .. }));
    let later = state(&[3, 0, 5, 9, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert!(matches!(later, ShardError::State { .. }));
    assert!(later.to_string().contains("shard 7") && later.to_string().contains("version"), "{later}");
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let name = prop::sample::select(vec!["a", "ab", "b", "{x}1", "{x}2", "\u{10ffff}"]);
    let command =
        (name, prop::option::weighted(0.7, 0u32..50), 0u8..12).prop_map(|(name, value, kind)| match value {
            _ if kind == 0 => Command::Digest,
            Some(value) => put(name, &format!("value {value}")),
            None if kind == 1 => write(name, Change::Delete { version: Some(Version(1)) }),
            None => delete(name),
        });
    prop::collection::vec(command, 0..8)
}

/// What a shard should be after each entry: every key's value and revision.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    rows: BTreeMap<Bytes, (Bytes, u64)>,
    revision: u64,
}

impl Model {
    fn apply(&mut self, commands: &[Command]) -> Vec<u64> {
        let mut revisions = Vec::new();
        for command in commands {
            self.revision += u64::from(*command != Command::Digest);
            let parts = if let Command::Write { parts } = command { &parts[..] } else { &[] };
            for Part { key, change, .. } in parts {
                self.rows.remove(key);
                if let Change::Put(new) = change {
                    self.rows.insert(key.clone(), (new.value.clone(), self.revision));
                }
            }
            revisions.push(self.revision);
        }
        revisions
    }
}

/// All rows at an index, read in pages.
fn rows_at(shard: &Shard, at: Index, rows_max: u32) -> BTreeMap<Bytes, (Bytes, u64)> {
    let mut rows = BTreeMap::new();
    let mut from = Bytes::new();
    loop {
        let request = Request::Scan(Scan { at: Some(at), from, ..scan("", "", rows_max, 1 << 20) });
        let Reply::Page(page) = shard.reader().query(&request, at) else { panic!() };
        rows.extend(page.rows.into_iter().map(|(key, row)| (key, (row.value, row.revision.0))));
        match page.next {
            Some(next) => from = next,
            None => return rows,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_is_its_model_at_every_index(log in prop::collection::vec(commands(), 1..20), rows_max in 1u32..5) {
        let mut shard = fresh();
        let mut model = Model::default();
        let mut history = vec![model.clone()];
        for (index, commands) in (1..).zip(&log) {
            let replies = apply(&mut shard, &entry(index, commands.clone()), 1);
            prop_assert_eq!(revisions(&replies), model.apply(commands));
            history.push(model.clone());
        }
        for (at, model) in (0..).zip(&history) {
            prop_assert_eq!(&rows_at(&shard, Index(at), rows_max), &model.rows);
        }
        prop_assert_eq!(shard.revision().0, model.revision);
    }

    #[test]
    fn replay_from_any_durable_index_gives_the_same_state(
        log in prop::collection::vec((commands(), any::<bool>(), any::<bool>()), 1..20),
        back in any::<prop::sample::Index>(),
    ) {
        let mut whole = fresh();
        let tables = MemoryTables::default();
        let mut shard = Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), SessionLimits::default()).unwrap();
        let entries: Vec<LogEntry> = (1..).zip(&log).map(|(i, (commands, ..))| entry(i, commands.clone())).collect();
        for (entry, (_, seal, flush)) in entries.iter().zip(&log) {
            whole.apply(entry, 1).unwrap();
            shard.apply(entry, 1).unwrap();
            if *seal {
                shard.seal();
                if *flush {
                    shard.table().flush(Index(0)).unwrap();
                }
            }
        }
        let durable = shard.table().durable();
        let applied = shard.applied();
        drop(shard);
        // A crash leaves what was sealed up to some point, and at least what was flushed.
        let ends: Vec<Index> = (1..)
            .zip(&log)
            .filter_map(|(i, (_, seal, _))| (*seal && Index(i) > durable).then_some(Index(i)))
            .chain([durable])
            .collect();
        tables.fall_back(ID, ends[back.index(ends.len())]);

        let mut again = Shard::open(ID, tables.open(ID).unwrap(), &Configuration::default(), SessionLimits::default()).unwrap();
        prop_assert!(again.applied() >= durable && again.applied() <= applied);
        for entry in &entries[again.applied().0 as usize..] {
            again.apply(entry, 1).unwrap();
        }
        prop_assert_eq!((again.revision(), again.clock()), (whole.revision(), whole.clock()));
        prop_assert_eq!(digest(&again, applied), digest(&whole, applied));
    }
}

#[test]
fn readers_go_on_while_the_writer_writes() {
    let mut shard = fresh();
    let reader = Arc::new(shard.reader());
    shard.apply(&entry(1, vec![put("a", "1")]), 1).unwrap();
    let other = Arc::clone(&reader);
    shard.apply(&entry(2, vec![put("a", "2")]), 1).unwrap();
    let request = Request::Get { key: key("a"), consistency: Consistency::Linearizable };
    let Reply::Value { row: Some(row), revision, .. } = other.query(&request, Index(1)) else { panic!() };
    assert_eq!((&row.value[..], revision), (&b"1"[..], Revision(2)));
}
