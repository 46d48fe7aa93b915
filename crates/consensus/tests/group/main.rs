//! Replicas of one group: what may leave before the disk is done, and what may not; and, in [`scripts`], what they
//! make of it together.

mod chain;
mod changes;
mod replica;
mod scripts;
mod snapshot;
mod told;

use bytes::Bytes;
use ringfort_consensus::inspect::{SeenKind, inspect};
use ringfort_consensus::{Outgoing, Restored};
use ringfort_types::{Base, HardState, Index, LogEntry, PeerId, Record, Role, ShardId, Term};

use crate::replica::{Replica, born};

/// One of three.
fn replica(me: u64) -> Replica {
    restored(me, &Restored::default())
}

fn restored(me: u64, restored: &Restored) -> Replica {
    Replica::new(me, born(3), restored)
}

/// Delivers everything until all are quiet.
fn settle(replicas: &mut [Replica]) {
    loop {
        let sent: Vec<Outgoing> = replicas.iter_mut().flat_map(Replica::turn).collect();
        if sent.is_empty() {
            return;
        }
        for (to, message) in sent {
            if let Some(replica) = replicas.get_mut(to.0 as usize - 1) {
                replica.group.step(message).expect("our own encoding");
            }
        }
    }
}

fn elected() -> Vec<Replica> {
    let mut replicas: Vec<_> = (1..=3).map(replica).collect();
    replicas[0].group.campaign();
    settle(&mut replicas);
    assert_eq!(replicas[0].group.role(), Role::Leader);
    replicas
}

#[test]
fn a_vote_is_not_given_before_it_is_synced() {
    let mut candidate = replica(1);
    let mut voter = replica(2);
    voter.syncs = false;
    candidate.group.campaign();
    // Pre-votes change nothing on disk, so they go back and forth freely.
    for (to, message) in candidate.turn() {
        if to == PeerId(2) {
            voter.group.step(message).expect("our own encoding");
        }
    }
    let granted = voter.turn();
    assert_eq!(granted.len(), 1, "a pre-vote waits for nothing");
    candidate.group.step(granted[0].1.clone()).expect("our own encoding");
    for (to, message) in candidate.turn() {
        if to == PeerId(2) {
            voter.group.step(message).expect("our own encoding");
        }
    }
    assert!(voter.turn().is_empty(), "the vote waits for the disk");
    let vote = Record::HardState(ShardId(1), HardState { term: Term(1), vote: PeerId(1), commit: Index(0) });
    assert_eq!(voter.records, [vote]);
    assert_eq!(voter.sync().len(), 1, "and goes when the disk is done");
}

#[test]
fn a_candidate_asks_for_votes_only_once_its_own_is_synced() {
    let mut candidate = replica(1);
    candidate.syncs = false;
    let mut voter = replica(2);
    candidate.group.campaign();
    for (to, message) in candidate.turn() {
        if to == PeerId(2) {
            voter.group.step(message).expect("our own encoding");
        }
    }
    for (_, message) in voter.turn() {
        candidate.group.step(message).expect("our own encoding");
    }
    assert!(candidate.turn().is_empty(), "its term and its vote for itself are not on disk yet");
    assert_eq!(candidate.sync().len(), 2, "both others are asked now");
}

#[test]
fn a_leader_sends_entries_before_its_own_disk_is_done_but_does_not_count_itself() {
    let mut replicas = elected();
    let committed = replicas[0].group.committed();
    replicas[0].syncs = false;
    replicas[0].group.propose(Bytes::from_static(b"entry")).expect("it leads");
    let sent = replicas[0].turn();
    assert_eq!(sent.len(), 2, "both followers get it at once");
    // One follower syncs it: with the leader's own disk still busy that is one copy of three.
    let (to, message) = sent[0].clone();
    let follower = &mut replicas[to.0 as usize - 1];
    follower.group.step(message).expect("our own encoding");
    for (_, answer) in follower.turn() {
        replicas[0].group.step(answer).expect("our own encoding");
    }
    replicas[0].turn();
    assert_eq!(replicas[0].group.committed(), committed);
    replicas[0].sync();
    replicas[0].turn();
    assert_eq!(replicas[0].group.committed(), committed.next(), "two of three are a majority");
}

#[test]
fn a_follower_does_not_acknowledge_before_its_disk_is_done_but_answers_heartbeats() {
    let mut replicas = elected();
    replicas[1].syncs = false;
    replicas[0].group.propose(Bytes::from_static(b"entry")).expect("it leads");
    for (to, message) in replicas[0].turn() {
        if to == PeerId(2) {
            replicas[1].group.step(message).expect("our own encoding");
        }
    }
    assert!(replicas[1].turn().is_empty(), "the acknowledgement waits");
    for _ in 0..8 {
        replicas[0].group.tick();
    }
    for (to, message) in replicas[0].turn() {
        if to == PeerId(2) {
            replicas[1].group.step(message).expect("our own encoding");
        }
    }
    assert!(!replicas[1].turn().is_empty(), "a slow disk is no reason to seem dead");
    assert_eq!(replicas[1].sync().len(), 1, "the acknowledgement");
}

#[test]
fn a_new_leader_answers_no_read_before_an_entry_of_its_own_term_is_committed() {
    let mut replicas = elected();
    assert!(replicas[0].group.read_index().is_some());
    // The old leader is gone; the third votes for the second, but takes no entry from it.
    for _ in 0..25 {
        replicas[2].group.tick();
    }
    for _ in 0..40 {
        if replicas[1].group.role() == Role::Follower {
            replicas[1].group.tick();
        }
        let questions = replicas[1].turn();
        if replicas[1].group.role() == Role::Leader {
            break;
        }
        for (_, question) in questions.into_iter().filter(|(to, _)| *to == PeerId(3)) {
            replicas[2].group.step(question).expect("our own encoding");
        }
        for (_, answer) in replicas[2].turn().into_iter().filter(|(to, _)| *to == PeerId(2)) {
            replicas[1].group.step(answer).expect("our own encoding");
        }
    }
    assert_eq!(replicas[1].group.role(), Role::Leader);
    assert_eq!(replicas[1].group.read_index(), None);
}

#[test]
fn a_restart_with_an_applied_index_beyond_the_recorded_commit_is_no_surprise() {
    let entries: Vec<LogEntry> =
        (1..=5).map(|index| LogEntry { index: Index(index), term: Term(1), ..LogEntry::default() }).collect();
    let restarted = restored(
        1,
        &Restored {
            hard_state: HardState { term: Term(1), vote: PeerId(1), commit: Index(2) },
            base: Base::default(),
            terms: vec![(Index(1), Term(1))],
            last: Index(5),
            applied: Index(4),
            tail: entries[4..].to_vec(),
        },
    );
    assert_eq!(restarted.group.committed(), Index(4));
    assert_eq!(restarted.group.last(), Index(5));
}

#[test]
fn a_follower_far_behind_is_served_from_disk() {
    let mut replicas = elected();
    let big = Bytes::from(vec![7u8; 64 * 1024]);
    let mut third = replicas.pop().expect("three");
    let mut log = Vec::new();
    for _ in 0..16 {
        replicas[0].group.propose(big.clone()).expect("it leads");
        settle(&mut replicas);
    }
    for record in &replicas[0].records {
        if let Record::Entry(_, entry) = record {
            log.push(entry.clone());
        }
    }
    let mut fetched = 0;
    for _ in 0..40 {
        replicas[0].group.tick();
        let mut outgoing = Vec::new();
        loop {
            let turn = replicas[0].group.take_turn();
            outgoing.extend(turn.send);
            if let Some(fetch) = turn.fetch {
                fetched += 1;
                let range = log.iter().filter(|entry| entry.index >= fetch.from && entry.index < fetch.to);
                let entries: Vec<_> = range.take(4).cloned().collect();
                replicas[0].group.fetched(&entries);
            } else if !replicas[0].group.has_turn() {
                break;
            }
        }
        for (to, message) in outgoing {
            if to == PeerId(3) {
                third.group.step(message).expect("our own encoding");
            }
        }
        for (_, answer) in third.turn() {
            replicas[0].group.step(answer).expect("our own encoding");
        }
    }
    assert!(fetched > 0, "a megabyte does not stay in memory");
    assert_eq!(third.group.last(), replicas[0].group.last());
}

#[test]
fn bytes_that_are_no_message_are_refused() {
    let mut one = replica(1);
    for length in 0..40u8 {
        let noise: Vec<u8> = (0..length).map(|n| n.wrapping_mul(37).wrapping_add(length)).collect();
        // What decodes by chance must at least not disturb the term.
        let _ = one.group.step(Bytes::from(noise));
    }
    assert_eq!(one.group.term(), Term(0));
}

#[test]
fn an_onlooker_reads_a_message_and_nothing_else() {
    let mut first = replica(1);
    first.group.campaign();
    let sent = first.turn();
    let seen: Vec<String> = sent.iter().map(|(_, bytes)| inspect(bytes).unwrap().to_string()).collect();
    assert_eq!(seen, vec!["pre-vote for term 1, log ends at 0 of term 0"; 2]);
    let looked = inspect(&sent[0].1).unwrap();
    assert_eq!((looked.kind, looked.from, looked.to), (SeenKind::PreVote, PeerId(1), sent[0].0));
    assert!(inspect(&Bytes::from_static(b"not a message")).is_err());
}
