//! A log that begins late, and followers that need what is gone.

use bytes::Bytes;
use ringfort_consensus::{Outgoing, Restored, codec};
use ringfort_types::{Base, Configuration, HardState, Index, LogEntry, PeerId, Record, ShardId, Term};

use crate::replica::{Replica, born, place};
use crate::{elected, restored, settle};

const THIRD: PeerId = PeerId(3);

fn base(index: u64, generation: u64) -> Base {
    Base { index: Index(index), term: Term(1), generation }
}

/// A leader whose log begins after entry 10 of more, its first follower, and another that has missed them.
fn apart() -> (Vec<Replica>, Replica) {
    let mut replicas = elected();
    let third = replicas.pop().expect("three");
    for _ in 0..20 {
        replicas[0].group.propose(Bytes::from_static(b"entry")).expect("it leads");
        settle(&mut replicas);
    }
    replicas[0].group.compact(base(10, 0));
    (replicas, third)
}

/// The leader lives on for a while: what it has for the third, and whether it has named it as one that needs more.
fn go_on(leader: &mut Replica, third: &mut Replica) -> (Vec<Outgoing>, bool) {
    let (mut special, mut named) = (Vec::new(), false);
    for _ in 0..12 {
        leader.group.tick();
        let turn = leader.group.take_turn();
        named |= turn.behind.contains(&THIRD);
        for (to, message) in turn.send.into_iter().filter(|(to, _)| *to == THIRD) {
            if codec::snapshot(&message).is_some() {
                special.push((to, message));
            } else {
                third.group.step(message).expect("our own encoding");
            }
        }
        for (_, answer) in third.turn() {
            leader.group.step(answer).expect("our own encoding");
        }
    }
    (special, named)
}

#[test]
fn a_follower_that_needs_what_is_gone_is_named_until_it_has_a_table_and_then_goes_on_from_there() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    let (special, named) = go_on(leader, &mut third);
    assert!(named && special.is_empty(), "there is nothing to go on from yet");
    assert!(!leader.group.snapshot_delivered(THIRD, Index(9)), "the log does not go on from there");
    assert!(leader.group.snapshot_delivered(THIRD, Index(12)));
    let (special, _) = go_on(leader, &mut third);
    assert_eq!(special.len(), 1, "it is told once");
    assert_eq!(codec::snapshot(&special[0].1), Some((Index(12), Term(1))));
    assert_eq!(leader.group.awaits_snapshot(THIRD), Some(Index(12)));

    third.syncs = false;
    assert!(third.group.step_snapshot(special[0].1.clone(), 7, &born(3)).expect("our own encoding"));
    assert!(third.turn().is_empty(), "the answer waits for the disk");
    assert!(third.records.contains(&Record::Installed(ShardId(1), base(12, 7))));
    assert!(third.group.is_installing());
    assert_eq!(third.group.take_installed(), None);
    let answers = third.sync();
    assert_eq!(third.group.take_installed(), Some(base(12, 7)));
    assert!(!third.group.is_installing());
    third.group.applied(Index(12));
    third.syncs = true;
    for (_, answer) in answers {
        leader.group.step(answer).expect("our own encoding");
    }
    go_on(leader, &mut third);
    assert_eq!(leader.group.awaits_snapshot(THIRD), None);
    assert_eq!(third.group.last(), leader.group.last());
    assert_eq!(third.committed.last().map(|entry| entry.index), Some(leader.group.committed()));
}

#[test]
fn a_lost_word_about_a_snapshot_is_reported_and_the_follower_is_named_again() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    go_on(leader, &mut third);
    assert!(leader.group.snapshot_delivered(THIRD, leader.group.committed()));
    assert_eq!(go_on(leader, &mut third).0.len(), 1);
    let (special, named) = go_on(leader, &mut third);
    assert!(special.is_empty() && !named, "it waits for an answer");
    leader.group.snapshot_failed(THIRD);
    assert_eq!(leader.group.awaits_snapshot(THIRD), None);
    assert!(go_on(leader, &mut third).1);
}

#[test]
fn nobody_stands_for_election_before_the_table_is_in_place() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    go_on(leader, &mut third);
    assert!(leader.group.snapshot_delivered(THIRD, Index(12)));
    let (special, _) = go_on(leader, &mut third);
    assert!(third.group.step_snapshot(special[0].1.clone(), 1, &born(3)).expect("our own encoding"));
    third.turn();
    for _ in 0..100 {
        third.group.tick();
    }
    assert!(third.turn().is_empty());
    third.group.applied(Index(12));
    for _ in 0..100 {
        third.group.tick();
    }
    assert!(!third.turn().is_empty(), "now it asks the others");
}

#[test]
fn an_offer_that_the_log_has_left_behind_is_void() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    go_on(leader, &mut third);
    assert!(leader.group.snapshot_delivered(THIRD, Index(12)));
    leader.group.compact(base(15, 0));
    let (special, named) = go_on(leader, &mut third);
    assert!(special.is_empty() && named);
}

#[test]
fn a_snapshot_of_what_the_log_has_is_not_installed() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    go_on(leader, &mut third);
    assert!(leader.group.snapshot_delivered(THIRD, Index(12)));
    let (special, _) = go_on(leader, &mut third);
    // Meanwhile it got the entries in another way.
    let terms = vec![(Index(1), Term(1))];
    let hard_state = HardState { term: Term(1), vote: PeerId(1), commit: Index(14) };
    let last = Index(14);
    let mut ahead = restored(3, &Restored { hard_state, terms, last, applied: last, ..Restored::default() });
    assert!(!ahead.group.step_snapshot(special[0].1.clone(), 7, &born(3)).expect("our own encoding"));
    assert_eq!((ahead.group.last(), ahead.group.is_installing()), (Index(14), false));
}

#[test]
fn the_configuration_comes_with_the_table_and_one_without_this_replica_is_not_installed() {
    let (mut replicas, mut third) = apart();
    let leader = &mut replicas[0];
    go_on(leader, &mut third);
    assert!(leader.group.snapshot_delivered(THIRD, Index(12)));
    let (special, _) = go_on(leader, &mut third);
    let message = &special[0].1;
    assert!(!third.group.step_snapshot(message.clone(), 7, &born(2)).expect("our own encoding"));
    assert_eq!((third.group.configuration(), third.group.is_installing()), (&born(3), false));
    third.turn();
    let later = Configuration { at: Index(11), learners: vec![place(4)], ..born(3) };
    assert!(third.group.step_snapshot(message.clone(), 8, &later).expect("our own encoding"));
    assert_eq!(third.group.configuration(), &later);
    third.turn();
    assert!(third.records.contains(&Record::Installed(ShardId(1), base(12, 8))));
}

#[test]
fn a_log_that_begins_late_starts_again_and_leads() {
    let entries: Vec<LogEntry> = (41..=45)
        .map(|index| LogEntry { index: Index(index), term: Term(3), ..LogEntry::default() })
        .collect();
    let from = Restored {
        hard_state: HardState { term: Term(3), vote: PeerId(1), commit: Index(40) },
        base: Base { index: Index(40), term: Term(2), generation: 4 },
        terms: vec![(Index(41), Term(3))],
        last: Index(45),
        applied: Index(40),
        tail: entries,
    };
    let mut replicas = vec![restored(1, &from), restored(2, &from), restored(3, &Restored::default())];
    replicas[0].group.campaign();
    settle(&mut replicas);
    assert_eq!(replicas[0].group.committed(), Index(46), "an entry of its own, and those before it");
    assert_eq!(replicas[1].group.last(), Index(46));
    assert_eq!(replicas[2].group.last(), Index(0), "it needs a table first");
}
