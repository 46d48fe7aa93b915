//! Conditions, atomic writes and increments.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use ringfort_types::{
    Change, Code, Command, Condition, Consistency, HybridClock, Index, NewValue, Part, Reply, Request,
    Revision, Scan, Version,
};

use crate::model::{Model, terse};
use crate::{
    ID, apply, delete, fresh, get, increment, part, plain, put, put_if, sums, text, value, versioned,
};

fn not_met(part: u32, key: &str, revision: Option<u64>, at: u64) -> Reply {
    Reply::NotMet { part, key: text(key), revision: revision.map(Revision), at: Index(at) }
}

fn is_written(reply: &Reply, revision: u64) -> bool {
    matches!(reply, Reply::Written(receipt) if receipt.revision == Revision(revision))
}

#[test]
fn a_condition_that_is_not_met_changes_nothing_and_says_what_is_there() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("a", "1"), put("b", "2")]));
    let unmet = [
        (put_if("a", Condition::Absent, "x"), not_met(0, "a", Some(1), 2)),
        (put_if("c", Condition::Present, "x"), not_met(0, "c", None, 2)),
        (put_if("a", Condition::Revision(Revision(2)), "x"), not_met(0, "a", Some(1), 2)),
        (put_if("c", Condition::Revision(Revision(1)), "x"), not_met(0, "c", None, 2)),
        (put_if("a", Condition::Value(text("2")), "x"), not_met(0, "a", Some(1), 2)),
        (put_if("c", Condition::Value(text("")), "x"), not_met(0, "c", None, 2)),
    ];
    let (commands, told): (Vec<_>, Vec<_>) = unmet.into_iter().unzip();
    assert_eq!(apply(&mut shard, &plain(2, commands)), told);
    assert_eq!(
        (shard.revision(), value(&shard, "a"), value(&shard, "c")),
        (Revision(2), Some("1".into()), None)
    );

    let met = vec![
        put_if("a", Condition::Value(text("1")), "x"),
        put_if("b", Condition::Revision(Revision(2)), "y"),
        put_if("c", Condition::Absent, "z"),
        put_if("c", Condition::Present, "zz"),
    ];
    let told = apply(&mut shard, &plain(3, met));
    assert!((3..).zip(&told).all(|(revision, reply)| is_written(reply, revision)), "{told:?}");
    assert_eq!(value(&shard, "c"), Some("zz".into()));
}

#[test]
fn an_atomic_write_does_all_or_nothing_and_is_one_revision() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("a", "1"), put("gone", "x")]));
    let write = |condition| Command::Write {
        parts: vec![
            part("a", None, Change::put(text("2"))),
            part("gone", Some(Condition::Present), Change::DELETE),
            part("b", Some(condition), Change::Keep),
            part("c", None, Change::put(text("3"))),
        ],
    };
    assert_eq!(apply(&mut shard, &plain(2, vec![write(Condition::Present)])), [not_met(2, "b", None, 2)]);
    assert_eq!((value(&shard, "a"), value(&shard, "gone")), (Some("1".into()), Some("x".into())));
    let told = apply(&mut shard, &plain(3, vec![write(Condition::Absent)]));
    assert!(is_written(&told[0], 3), "{told:?}");
    assert_eq!((value(&shard, "gone"), get(&shard, "b")), (None, None));
    let (a, c) = (get(&shard, "a").unwrap(), get(&shard, "c").unwrap());
    assert_eq!((a.revision, c.revision), (Revision(3), Revision(3)));
    // A write of conditions alone changes nothing.
    let look = Command::Write { parts: vec![part("a", Some(Condition::Present), Change::Keep)] };
    assert!(is_written(&apply(&mut shard, &plain(4, vec![look]))[0], 3));
}

#[test]
fn a_condition_sees_the_earlier_commands_of_its_entry() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("a", "old"), put("b", "old")]));
    let told = apply(
        &mut shard,
        &plain(
            2,
            vec![
                put("a", "new"),
                put_if("a", Condition::Value(text("old")), "lost"),
                put_if("a", Condition::Revision(Revision(3)), "newer"),
                delete("b"),
                put_if("b", Condition::Absent, "back"),
                put_if("b", Condition::Absent, "lost"),
                increment("n", 1),
                increment("n", 1),
            ],
        ),
    );
    assert_eq!(told[1], not_met(0, "a", Some(3), 2));
    assert_eq!(told[5], not_met(0, "b", Some(6), 2));
    assert!(sums(&told[7]) == Some(vec![2]), "{told:?}");
    assert_eq!(value(&shard, "a"), Some("newer".into()));
    assert_eq!(value(&shard, "b"), Some("back".into()));
    assert_eq!(value(&shard, "n"), Some("2".into()));
}

#[test]
fn an_increment_never_wraps_and_adds_to_numbers_only() {
    let mut shard = fresh();
    let most = i64::MAX.to_string();
    apply(&mut shard, &plain(1, vec![put("text", "1.5"), put("most", &most), put("zero", "007")]));
    let told = apply(
        &mut shard,
        &plain(
            2,
            vec![
                increment("text", 1),
                increment("most", 1),
                increment("zero", 1),
                increment("most", -1),
                increment("n", i64::MIN),
                increment("n", -1),
            ],
        ),
    );
    let code = |reply: &Reply| if let Reply::Failed(failure) = reply { Some(failure.code) } else { None };
    assert_eq!(code(&told[0]), Some(Code::FailedPrecondition));
    assert_eq!(code(&told[1]), Some(Code::OutOfRange));
    assert_eq!(code(&told[2]), Some(Code::FailedPrecondition));
    assert!(sums(&told[3]) == Some(vec![i64::MAX - 1]) && is_written(&told[3], 4), "{told:?}");
    assert_eq!(sums(&told[4]), Some(vec![i64::MIN]));
    assert_eq!(code(&told[5]), Some(Code::OutOfRange));
    assert!(
        told[0..1].iter().all(|reply| matches!(reply, Reply::Failed(f) if f.message.contains("\"text\"")))
    );
    assert_eq!((value(&shard, "text"), value(&shard, "n")), (Some("1.5".into()), Some(i64::MIN.to_string())));
}

#[test]
fn an_atomic_write_adds_to_several_keys_or_to_none() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("a", "5"), put("b", "text")]));
    let write = |b: &str, condition| Command::Write {
        parts: vec![
            part("n", None, Change::Add(2)),
            part("c", condition, Change::put("x")),
            part("a", None, Change::Add(-7)),
            part(b, None, Change::Add(1)),
        ],
    };
    let told = apply(
        &mut shard,
        &plain(2, vec![write("b", None), write("m", Some(Condition::Present)), write("m", None)]),
    );
    assert!(matches!(&told[0], Reply::Failed(failure) if failure.message.contains("\"b\"")), "{told:?}");
    assert_eq!(told[1], not_met(1, "c", None, 2));
    assert!(sums(&told[2]) == Some(vec![2, -2, 1]) && is_written(&told[2], 3), "{told:?}");
    let (n, a) = (get(&shard, "n").unwrap(), get(&shard, "a").unwrap());
    assert_eq!((&n.value[..], &a.value[..], n.revision), (&b"2"[..], &b"-2"[..], a.revision));
}

#[test]
fn several_keys_are_read_at_one_index() {
    let mut shard = fresh();
    apply(&mut shard, &plain(1, vec![put("a", "1"), put("b", "1")]));
    apply(&mut shard, &plain(2, vec![put("a", "2"), delete("b")]));
    let keys = ["b", "nothing", "a", "b"].map(text).to_vec();
    let request = Request::GetMany { keys, consistency: Consistency::Linearizable };
    let read = |at| match shard.reader().query(&request, Index(at)) {
        Reply::Values { rows, at: told, .. } => {
            assert_eq!(told, Index(at));
            rows.into_iter().map(|row| row.map(|row| (row.value, row.revision.0))).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(read(1), [Some((text("1"), 2)), None, Some((text("1"), 1)), Some((text("1"), 2))]);
    assert_eq!(read(2), [None, None, Some((text("2"), 3)), None]);
}

#[test]
fn an_answer_that_would_be_too_large_is_refused() {
    let mut shard = fresh();
    let large = "x".repeat(5 << 20);
    apply(&mut shard, &plain(1, vec![put("a", &large), put("b", &large)]));
    let ask = |keys: &[&str]| {
        let keys = keys.iter().map(|key| text(key)).collect();
        shard.reader().query(&Request::GetMany { keys, consistency: Consistency::Stale }, Index(1))
    };
    assert!(matches!(ask(&["a"]), Reply::Values { .. }));
    assert!(matches!(ask(&["a", "b"]), Reply::Failed(f) if f.message.contains("fewer keys")));
}

fn keys() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "{t}1", "{t}2"])
}

fn conditions() -> impl Strategy<Value = Option<Condition>> {
    prop_oneof![
        3 => Just(None),
        1 => Just(Some(Condition::Absent)),
        1 => Just(Some(Condition::Present)),
        2 => (1u64..20).prop_map(|revision| Some(Condition::Revision(Revision(revision)))),
        2 => (0i64..4).prop_map(|value| Some(Condition::Value(value.to_string().into()))),
        2 => (1u64..6).prop_map(|version| Some(Condition::NotNewerThan(Version(version)))),
    ]
}

fn changes() -> impl Strategy<Value = Change> {
    let version = || prop::option::of((1u64..6).prop_map(Version));
    prop_oneof![
        3 => ((0i64..4), version()).prop_map(|(value, version)| {
            Change::Put(NewValue { value: value.to_string().into(), version })
        }),
        2 => version().prop_map(|version| Change::Delete { version }),
        1 => Just(Change::Keep),
        2 => prop_oneof![-2i64..3, Just(i64::MAX), Just(i64::MIN)].prop_map(Change::Add),
    ]
}

fn parts() -> impl Strategy<Value = Vec<Part>> {
    prop::collection::btree_map(keys(), (conditions(), changes()), 1..4).prop_map(|parts| {
        parts.into_iter().map(|(key, (condition, change))| part(key, condition, change)).collect()
    })
}

pub(crate) fn commands() -> impl Strategy<Value = Command> {
    prop_oneof![
        2 => (keys(), 0i64..4).prop_map(|(key, value)| put(key, &value.to_string())),
        1 => keys().prop_map(delete),
        1 => keys().prop_map(|key| put(key, "no number")),
        6 => parts().prop_map(|parts| Command::Write { parts }),
        2 => (keys(), -2i64..3).prop_map(|(key, by)| increment(key, by)),
        2 => (keys(), 1u64..6, prop::option::of(0i64..4)).prop_map(|(key, version, value)| {
            versioned(key, version, value.map(|value| value.to_string()).as_deref())
        }),
        1 => Just(Command::Digest),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_is_one_map_that_does_one_command_after_the_other(
        log in prop::collection::vec(prop::collection::vec(commands(), 1..10), 1..12),
        seals in any::<u32>(),
    ) {
        let mut shard = fresh();
        let mut model = Model::default();
        for (index, commands) in (1..).zip(&log) {
            let told: Vec<Reply> =
                apply(&mut shard, &plain(index, commands.clone())).into_iter().map(terse).collect();
            let expected: Vec<Reply> = commands.iter().map(|command| model.apply(index, HybridClock(index * 10), command)).collect();
            prop_assert_eq!(told, expected, "entry {}", index);
            prop_assert_eq!(shard.revision().0, model.revision);
            let scan = Scan {
                shard: ID, at: None, from: Bytes::new(), prefix: Bytes::new(), rows_max: 100, bytes_max: 10_000,
                keys_only: false,
            };
            let Reply::Page(page) = shard.reader().query(&Request::Scan(scan), Index(index)) else { panic!() };
            let rows: BTreeMap<_, _> =
                page.rows.into_iter().map(|(key, row)| (key, (row.value, row.revision))).collect();
            prop_assert_eq!(&rows, &model.rows);
            if seals & (1 << index) != 0 {
                shard.seal();
                shard.table().flush(Index(index)).unwrap();
            }
        }
    }
}
