//! Sessions: what is done once, what is told again, what is refused, what is forgotten, and what a restart leaves.

use std::collections::BTreeMap;

use proptest::prelude::*;
use ringfort_shard::SessionLimits;
use ringfort_storage::{MemoryTables, Table, Tables};
use ringfort_types::{
    Code, Command, Condition, Configuration, Consistency, HybridClock, Index, LogEntry, Reply, Request,
    Stamp, Stamped,
};

use crate::conditions::commands;
use crate::model::{SessionModel, terse};
use crate::{ID, apply, entry, fresh, increment, open, put, put_if, sums, text, value};

const SMALL: SessionLimits = SessionLimits { sessions: 2, outcomes: 5, session_outcomes: 3 };

/// A write of a session that was opened at time 0.
fn stamped(client: u128, sequence: u64, prev: u64, floor: u64, command: Command) -> Stamped {
    opened_at(0, client, sequence, prev, floor, command)
}

fn opened_at(opened: u64, client: u128, sequence: u64, prev: u64, floor: u64, command: Command) -> Stamped {
    let stamp = Stamp { client, sequence, prev, floor, opened: HybridClock(opened) };
    Stamped { stamp: Some(stamp), command }
}

fn code(reply: &Reply) -> Option<Code> {
    if let Reply::Failed(failure) = reply { Some(failure.code) } else { None }
}

#[test]
fn what_comes_again_is_told_again_and_not_done_again() {
    let mut shard = fresh();
    let order = [
        stamped(1, 1, 0, 0, increment("n", 1)),
        stamped(1, 2, 1, 0, put_if("a", Condition::Present, "x")),
        stamped(1, 3, 2, 0, put("a", "y")),
        stamped(1, 4, 3, 0, increment("a", 1)),
    ];
    let first = apply(&mut shard, &entry(1, order.to_vec()));
    assert!(sums(&first[0]) == Some(vec![1]));
    assert!(matches!(first[1], Reply::NotMet { revision: None, .. }));
    assert_eq!(code(&first[3]), Some(Code::FailedPrecondition));
    // All that has changed meanwhile does not matter.
    apply(&mut shard, &entry(2, vec![put("a", "5").into(), increment("n", 10).into()]));
    assert_eq!(apply(&mut shard, &entry(3, order.to_vec())), first);
    assert_eq!((value(&shard, "n"), value(&shard, "a")), (Some("11".into()), Some("5".into())));
    // In one entry too.
    let twice = stamped(1, 5, 4, 0, increment("n", 1));
    let told = apply(&mut shard, &entry(4, vec![twice.clone(), twice]));
    assert_eq!(told[0], told[1]);
    assert_eq!(value(&shard, "n"), Some("12".into()));
}

#[test]
fn a_gap_and_what_is_below_the_floor_are_refused_without_effect() {
    let mut shard = fresh();
    let told = apply(
        &mut shard,
        &entry(
            1,
            vec![
                stamped(1, 2, 1, 0, put("a", "early")),
                stamped(1, 1, 0, 0, put("a", "1")),
                stamped(1, 7, 6, 0, put("a", "early")),
                stamped(1, 7, 1, 1, put("a", "7")),
                stamped(1, 1, 0, 0, put("a", "late")),
                stamped(1, 5, 1, 0, put("a", "between")),
                stamped(1, 9, 7, 7, put("a", "9")),
            ],
        ),
    );
    let codes: Vec<_> = told.iter().map(code).collect();
    let gap = Some(Code::SessionGap);
    assert_eq!(codes, [gap, None, gap, None, Some(Code::FailedPrecondition), gap, None]);
    assert_eq!((value(&shard, "a"), shard.revision().0), (Some("9".into()), 3));
}

#[test]
fn a_session_that_leaves_too_much_unanswered_waits() {
    let mut shard = open(&MemoryTables::default(), SMALL);
    let write = |sequence, floor| stamped(1, sequence, sequence - 1, floor, increment("n", 1));
    let told = apply(&mut shard, &entry(1, (1..=4).map(|sequence| write(sequence, 0)).collect()));
    assert_eq!(code(&told[3]), Some(Code::ResourceExhausted));
    let told = apply(&mut shard, &entry(2, vec![write(4, 1)]));
    assert!(sums(&told[0]) == Some(vec![4]));
}

#[test]
fn a_forgotten_session_is_never_taken_for_a_new_one() {
    let mut shard = open(&MemoryTables::default(), SMALL);
    let first = |client| stamped(client, 1, 0, 0, increment("n", 1));
    apply(&mut shard, &entry(1, vec![first(1)]));
    apply(&mut shard, &entry(2, vec![first(2)]));
    apply(&mut shard, &entry(3, vec![first(1)]));
    // The third one takes the place of the second, which was used at 20.
    apply(&mut shard, &entry(4, vec![first(3)]));
    let told = apply(&mut shard, &entry(5, vec![first(2), first(1)]));
    assert_eq!((code(&told[0]), code(&told[1])), (Some(Code::SessionExpired), None));
    assert_eq!(value(&shard, "n"), Some("3".into()));
    let opened = |at, client| opened_at(at, client, 1, 0, 0, increment("n", 1));
    let told = apply(&mut shard, &entry(6, vec![opened(19, 4), opened(61, 4), opened(20, 4)]));
    assert_eq!(code(&told[0]), Some(Code::SessionExpired), "before a session went");
    assert_eq!(code(&told[1]), Some(Code::InvalidArgument), "in the future");
    assert!(sums(&told[2]) == Some(vec![4]), "{told:?}");
}

#[test]
fn outcomes_are_bounded_over_all_sessions() {
    let mut shard = open(&MemoryTables::default(), SMALL);
    let write = |client, sequence| stamped(client, sequence, sequence - 1, 0, increment("n", 1));
    apply(&mut shard, &entry(1, (1..=3).map(|sequence| write(1, sequence)).collect()));
    apply(&mut shard, &entry(2, (1..=3).map(|sequence| write(2, sequence)).collect()));
    let told = apply(&mut shard, &entry(3, vec![write(1, 1), write(2, 1)]));
    assert_eq!((code(&told[0]), code(&told[1])), (Some(Code::SessionExpired), None));
}

#[test]
fn the_clock_that_a_session_is_opened_with_is_the_last_entrys() {
    let mut shard = fresh();
    let ask = Request::OpenSession { shard: ID };
    let opened = |clock| Reply::Opened { clock: HybridClock(clock) };
    assert_eq!(shard.reader().query(&ask, Index(0)), opened(0));
    apply(&mut shard, &entry(1, vec![put("a", "1").into()]));
    assert_eq!(shard.reader().query(&ask, Index(1)), opened(10));
    assert!(matches!(
        shard.reader().query(&Request::Get { key: text("a"), consistency: Consistency::Stale }, Index(1)),
        Reply::Value { row: Some(_), .. }
    ));
}

#[test]
fn sessions_are_no_rows_and_a_damaged_one_is_refused() {
    let tables = MemoryTables::default();
    let mut shard = open(&tables, SMALL);
    apply(&mut shard, &entry(1, vec![stamped(1, 1, 0, 0, put("a", "1"))]));
    shard.seal();
    let Reply::Digest { rows: 1, .. } = shard
        .reader()
        .query(&Request::DigestAt { node: ringfort_types::NodeId(1), shard: ID, index: Index(1) }, Index(1))
    else {
        panic!()
    };
    let mut key = vec![2, 0];
    key.extend(1u128.to_be_bytes());
    let damage = |table: &dyn Table, row: &[u8]| {
        let row = bytes::Bytes::copy_from_slice(row);
        table.write(Index(1), &[(key.clone().into(), Some(row))]);
        table.rotate();
        table.flush(Index(0)).unwrap();
    };
    let table = tables.open(ID).unwrap();
    for row in [&[2, 0][..], &[1, 1], &[1, 0, 1], &[1, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 9]] {
        damage(&*table, row);
        let error =
            ringfort_shard::Shard::open(ID, table.clone(), &Configuration::default(), SMALL).unwrap_err();
        assert!(error.to_string().contains("shard 7"), "{error}");
    }
}

/// Any stamp, honest or not, of few clients and small numbers.
fn stamps() -> impl Strategy<Value = Option<Stamp>> {
    let stamp =
        (1u128..5, 0u64..6, 0u64..4, 0u64..4, 0u64..12).prop_map(|(client, prev, step, behind, opened)| {
            let sequence = prev + step.max(1);
            let floor = (sequence - 1).saturating_sub(behind);
            Stamp { client, sequence, prev, floor, opened: HybridClock(opened * 10) }
        });
    prop::option::weighted(0.8, stamp)
}

/// Entries, and whether the shard is sealed, and flushed, after each. One sequence number has one command.
fn logs() -> impl Strategy<Value = Vec<(Vec<Stamped>, bool, bool)>> {
    let stamped = (stamps(), commands());
    let entries =
        prop::collection::vec((prop::collection::vec(stamped, 0..8), any::<bool>(), any::<bool>()), 1..14);
    entries.prop_map(|entries| {
        let mut first: BTreeMap<(u128, u64), Command> = BTreeMap::new();
        let mut same = |(stamp, command): (Option<Stamp>, Command)| {
            let Some(Stamp { client, sequence, .. }) = stamp else { return command.into() };
            let command = first.entry((client, sequence)).or_insert(command).clone();
            Stamped { stamp, command }
        };
        entries
            .into_iter()
            .map(|(commands, seals, flushes)| (commands.into_iter().map(&mut same).collect(), seals, flushes))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_shard_remembers_as_its_model_does(log in logs()) {
        let mut shard = open(&MemoryTables::default(), SMALL);
        let mut model = SessionModel::new(SMALL);
        for (index, (commands, seals, _)) in (1..).zip(&log) {
            let told: Vec<Reply> =
                apply(&mut shard, &entry(index, commands.clone())).into_iter().map(terse).collect();
            let expected: Vec<Reply> =
                commands.iter().map(|stamped| model.apply(index, index * 10, stamped)).collect();
            prop_assert_eq!(told, expected, "entry {}", index);
            prop_assert_eq!(shard.revision().0, model.model.revision);
            if *seals {
                shard.seal();
            }
        }
    }

    #[test]
    fn replay_from_any_durable_index_remembers_the_same(log in logs(), back in any::<prop::sample::Index>()) {
        let mut whole = open(&MemoryTables::default(), SMALL);
        let tables = MemoryTables::default();
        let mut shard = open(&tables, SMALL);
        let entries: Vec<LogEntry> =
            (1..).zip(&log).map(|(index, (commands, ..))| entry(index, commands.clone())).collect();
        let mut ends = Vec::new();
        for (entry, (_, seals, flushes)) in entries.iter().zip(&log) {
            prop_assert_eq!(apply(&mut whole, entry), apply(&mut shard, entry));
            if *seals {
                shard.seal();
                ends.push(shard.applied());
                if *flushes {
                    shard.table().flush(Index(0)).unwrap();
                    ends.clear();
                }
            }
        }
        ends.push(shard.table().durable());
        drop(shard);
        tables.fall_back(ID, ends[back.index(ends.len())]);
        let mut again = open(&tables, SMALL);
        for entry in &entries[again.applied().0 as usize..] {
            again.apply(entry, 1).unwrap();
        }
        prop_assert_eq!(again.sessions_hash(), whole.sessions_hash());
        // And once more, with everything sealed: what was forgotten has left no row behind.
        again.seal();
        again.table().flush(Index(0)).unwrap();
        drop(again);
        prop_assert_eq!(open(&tables, SMALL).sessions_hash(), whole.sessions_hash());
        prop_assert!(session_rows(&tables) <= SMALL.sessions + 1);
    }

    /// Clients that follow the rules: each sends its writes in order, most of them again, some much later. Whatever is
    /// forgotten meanwhile, no write is done twice, and what was answered was done.
    #[test]
    fn no_write_of_an_honest_client_is_done_twice(
        steps in prop::collection::vec((0usize..4, any::<prop::sample::Index>(), 0u8..10), 1..120),
    ) {
        let mut shard = open(&MemoryTables::default(), SMALL);
        let mut clients: Vec<Honest> = (0..4).map(Honest::new).collect();
        let mut index = 0;
        for (at, which, kind) in steps {
            index += 1;
            let client = &mut clients[at];
            let stamped = match kind {
                // A copy that was under way for long.
                0..4 if !client.sent.is_empty() => client.sent[which.index(client.sent.len())].clone(),
                _ => client.next(shard.clock()),
            };
            let told = apply(&mut shard, &entry(index, vec![stamped.clone()]));
            client.hear(&stamped, &told[0]);
        }
        for client in &clients {
            let done = value(&shard, &client.key).map_or(0, |value| value.parse().unwrap());
            prop_assert_eq!(done, client.answers.len());
        }
    }
}

fn session_rows(tables: &MemoryTables) -> usize {
    let table = tables.open(ID).unwrap();
    let mut rows = 0;
    let each = &mut |_: &[u8], _: &bytes::Bytes| {
        rows += 1;
        std::ops::ControlFlow::Continue(())
    };
    table.scan(&[2, 0], Some(&[2, 1]), table.durable(), each).unwrap();
    rows
}

/// A client that counts in one key.
struct Honest {
    key: String,
    /// Its session's number, when that was opened, and the last sequence of it that is answered.
    client: u128,
    opened: HybridClock,
    last: u64,
    sent: Vec<Stamped>,
    answers: BTreeMap<(u128, u64), Reply>,
}

impl Honest {
    fn new(number: usize) -> Honest {
        Honest {
            key: format!("n{number}"),
            client: number as u128 * 1_000,
            opened: HybridClock(0),
            last: 0,
            sent: Vec::new(),
            answers: BTreeMap::new(),
        }
    }

    fn next(&mut self, now: HybridClock) -> Stamped {
        if self.last == 0 {
            self.client += 1;
            self.opened = now;
        }
        let (client, opened, prev) = (self.client, self.opened, self.last);
        let stamp = Stamp { client, sequence: prev + 1, prev, floor: prev, opened };
        let stamped = Stamped { stamp: Some(stamp), command: increment(&self.key, 1) };
        self.sent.push(stamped.clone());
        stamped
    }

    fn hear(&mut self, stamped: &Stamped, reply: &Reply) {
        let stamp = stamped.stamp.expect("all of them have one");
        match reply {
            Reply::Written(_) => {
                let first =
                    self.answers.entry((stamp.client, stamp.sequence)).or_insert_with(|| reply.clone());
                assert_eq!(first, reply);
                if stamp.client == self.client {
                    self.last = self.last.max(stamp.sequence);
                }
            }
            Reply::Failed(failure) if failure.code == Code::SessionExpired => {
                if stamp.client == self.client {
                    self.last = 0;
                }
            }
            Reply::Failed(failure) => {
                assert_eq!(failure.code, Code::FailedPrecondition, "{failure}: a copy of what is answered");
                assert!(self.answers.contains_key(&(stamp.client, stamp.sequence)));
            }
            other => panic!("{other:?}"),
        }
    }
}
