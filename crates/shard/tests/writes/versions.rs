//! Writes in an order of their caller's: versions, and the tombstones that keep those of deleted keys.

use bytes::Bytes;
use ringfort_shard::Shard;
use ringfort_types::limits::TOMBSTONE_MS;
use ringfort_types::{
    Change, Condition, Entry, EntryKind, HybridClock, Index, LogEntry, NodeId, Reply, Request, Revision,
    Scan, Stamp, Stamped, Version,
};

use crate::{
    ID, TERM, apply, change, delete, entry, fresh, get, increment, open, part, plain, put, put_if, text,
    value, versioned,
};

fn is_done(replies: &[Reply]) -> Vec<bool> {
    replies.iter().map(|reply| matches!(reply, Reply::Written(_))).collect()
}

fn rows(shard: &Shard) -> u64 {
    let index = shard.applied();
    match shard.reader().query(&Request::DigestAt { node: NodeId(1), shard: ID, index }, index) {
        Reply::Digest { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_two_writes_the_newer_stays_whichever_comes_first() {
    for order in [[1, 2], [2, 1]] {
        let mut shard = fresh();
        let writes = order.map(|version| versioned("k", version, Some(&version.to_string())));
        let told = apply(&mut shard, &plain(1, writes.to_vec()));
        assert_eq!(is_done(&told), [true, order == [1, 2]]);
        assert_eq!(value(&shard, "k"), Some("2".into()));
    }
}

#[test]
fn the_same_version_again_is_no_newer_one() {
    let mut shard = fresh();
    let write = || versioned("k", 3, Some("x"));
    let told = apply(&mut shard, &plain(1, vec![write(), write()]));
    assert_eq!(is_done(&told), [true, true]);
}

#[test]
fn what_is_not_met_says_what_revision_is_there() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("other", "x"), versioned("k", 5, Some("new"))]));
    let told = apply(&mut shard, &plain(2, vec![versioned("k", 4, Some("old"))]));
    let not_met = |revision, at| Reply::NotMet { part: 0, key: text("k"), revision, at: Index(at) };
    assert_eq!(told, [not_met(Some(Revision(2)), 2)]);
    apply(&mut shard, &plain(3, vec![versioned("k", 6, None)]));
    let told = apply(&mut shard, &plain(4, vec![versioned("k", 4, Some("old"))]));
    assert_eq!(told, [not_met(None, 4)], "a tombstone is not there");
}

#[test]
fn a_deleted_key_does_not_come_back_by_an_older_write() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![versioned("k", 1, Some("a"))]));
    let told = apply(&mut shard, &plain(2, vec![versioned("k", 3, None), versioned("k", 2, Some("late"))]));
    assert_eq!(is_done(&told), [true, false]);
    assert_eq!(value(&shard, "k"), None);
    // Also once the tombstone lies in the table, and a restart has been.
    let told = apply(&mut shard, &plain(3, vec![versioned("k", 2, Some("late"))]));
    assert_eq!((is_done(&told), value(&shard, "k")), (vec![false], None));
    let told = apply(&mut shard, &plain(4, vec![versioned("k", 4, Some("new"))]));
    assert_eq!((is_done(&told), value(&shard, "k")), (vec![true], Some("new".into())));
}

#[test]
fn a_tombstone_outlives_a_restart() {
    let tables = ringfort_storage::MemoryTables::default();
    let limits = ringfort_shard::SessionLimits::default();
    let mut shard = open(&tables, limits);
    apply(&mut shard, &plain(1, vec![versioned("k", 3, None)]));
    shard.seal();
    shard.table().flush(Index(0)).unwrap();
    drop(shard);
    let mut shard = open(&tables, limits);
    assert_eq!(is_done(&apply(&mut shard, &plain(2, vec![versioned("k", 2, Some("late"))]))), [false]);
}

#[test]
fn a_tombstone_is_nothing_to_everybody_else() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![versioned("k", 1, Some("a")), put("m", "b")]));
    apply(&mut shard, &plain(2, vec![versioned("k", 3, None)]));
    assert_eq!((get(&shard, "k"), rows(&shard)), (None, 2), "it is hashed with the rows, and is none");
    let scan = Scan {
        shard: ID,
        at: None,
        from: Bytes::new(),
        prefix: Bytes::new(),
        rows_max: 10,
        bytes_max: 1_000,
        keys_only: false,
    };
    let Reply::Page(page) = shard.reader().query(&Request::Scan(scan), Index(2)) else { panic!() };
    assert_eq!(page.rows.iter().map(|(key, _)| &key[..]).collect::<Vec<_>>(), [b"m"]);
    let told = apply(
        &mut shard,
        &plain(
            3,
            vec![
                put_if("k", Condition::Present, "x"),
                put_if("k", Condition::Revision(Revision(3)), "x"),
                put_if("k", Condition::Value(text("")), "x"),
                put_if("k", Condition::Absent, "x"),
            ],
        ),
    );
    assert_eq!(is_done(&told), [false, false, false, true]);
}

#[test]
fn a_counter_begins_at_nothing_after_a_tombstone() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("n", "41"), versioned("n", 1, None), increment("n", 1)]));
    assert_eq!(value(&shard, "n"), Some("1".into()));
}

/// Whoever writes without a version gives up whatever order there was.
#[test]
fn a_write_without_a_version_takes_it_away() {
    let ways = [put("k", "x"), delete("k"), increment("k", 1)];
    for way in ways {
        let mut shard = fresh();
        apply(&mut shard, &plain(1, vec![versioned("k", 5, None), way]));
        let told = apply(&mut shard, &plain(2, vec![versioned("k", 1, Some("old"))]));
        assert_eq!(is_done(&told), [true]);
    }
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![versioned("k", 5, None), delete("k")]));
    assert_eq!(rows(&shard), 0, "a delete without a version leaves nothing");
}

#[test]
fn versions_are_judged_whoever_else_is_in_the_write() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![versioned("a", 5, Some("x"))]));
    let write = |version| {
        let old = Some(Condition::NotNewerThan(Version(version)));
        let parts = vec![part("b", None, Change::put("y")), part("a", old, Change::Add(1))];
        ringfort_types::Command::Write { parts }
    };
    let told = apply(&mut shard, &plain(2, vec![write(4)]));
    assert_eq!((is_done(&told), value(&shard, "b")), (vec![false], None));
}

/// A tombstone counts for a day of the shard's clock: entries' clocks, not the replicas'.
#[test]
fn a_tombstone_ends() {
    let at = |index: u64, millis: u64, command| {
        let commands = vec![Stamped { stamp: None, command }];
        let payload = Entry { clock: HybridClock(millis << 16 | index), commands }.encode();
        LogEntry { index: Index(index), term: TERM, kind: EntryKind::Normal, payload }
    };
    let mut shard = fresh();
    apply(&mut shard, &at(1, 1_000, versioned("k", 5, None)));
    let late = || versioned("k", 4, Some("late"));
    assert_eq!(is_done(&apply(&mut shard, &at(2, 999 + TOMBSTONE_MS, late()))), [false]);
    assert_eq!(is_done(&apply(&mut shard, &at(3, 1_000 + TOMBSTONE_MS, late()))), [true]);
}

/// A stamped delete that comes again is told again, and leaves a newer value alone.
#[test]
fn a_versioned_write_of_a_session_is_done_once() {
    let mut shard = fresh();
    let stamp = Stamp { client: 1, sequence: 1, prev: 0, floor: 0, opened: HybridClock(0) };
    let gone = Stamped { stamp: Some(stamp), command: versioned("k", 3, None) };
    let told = apply(&mut shard, &entry(1, vec![gone.clone()]));
    apply(&mut shard, &plain(2, vec![versioned("k", 4, Some("new"))]));
    assert_eq!(apply(&mut shard, &entry(3, vec![gone])), told);
    assert_eq!(value(&shard, "k"), Some("new".into()));
}

#[test]
fn what_has_changed_is_told_with_the_keys() {
    let mut shard = fresh();
    let commands = vec![
        put("b", "1"),
        change("a", Change::DELETE),
        put("b", "2"),
        versioned("c", 1, None),
        put_if("d", Condition::Present, "x"),
    ];
    let applied = shard.apply(&plain(1, commands), 1).unwrap();
    assert_eq!(applied.changed().collect::<Vec<_>>(), ["a", "b", "c"].map(text));
    let nothing = shard.apply(&plain(2, vec![]), 1).unwrap();
    assert_eq!(nothing.changed().count(), 0);
}
