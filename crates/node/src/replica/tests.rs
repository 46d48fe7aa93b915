//! What a change of its group's configuration means for a replica's reads and writes, and where strangers are.

use ringfort_consensus::{GroupConfig, Restored, Synced};
use ringfort_types::{Configuration, ConfigurationChange, Replica as Place};

use super::*;

const SHARD: ShardId = ShardId(1);

fn place(number: u64) -> Place {
    Place { node: NodeId(number), peer: PeerId(10 + number) }
}

/// A lone voter, which leads and has applied everything.
fn lone() -> Replica {
    let configuration = Configuration::born(vec![place(1)]);
    let config = GroupConfig { shard: SHARD, me: PeerId(11), configuration };
    let mut group = Group::new(config, &Restored::default());
    group.campaign();
    let mut replica = Replica::new(SHARD, group, Index(0), Revision(0), HybridClock::default());
    turn(&mut replica);
    replica.notice_leader();
    assert!(replica.leads());
    replica
}

/// Everything that is to be done; what is handed out is applied at once.
fn turn(replica: &mut Replica) -> Outcome {
    let mut outcome = Outcome::default();
    while replica.group.has_turn() {
        let turn = replica.group.take_turn();
        replica.emit(turn.committed, 0, &mut outcome);
        if let Some(ticket) = turn.unsynced {
            let outgoing = replica.group.release(ticket, &Synced::reported_by_driver());
            assert!(outgoing.iter().all(|(to, _)| *to != PeerId(11)));
        }
    }
    let last = replica.emitted;
    replica.applied_to(last, &mut Vec::new());
    outcome
}

fn write(replica: &mut Replica, id: u64) {
    let call = Request::put("key", "value").into();
    let token = Token { origin: NodeId(1), id };
    let asked = Pending { token, call, deadline_us: 9_000_000, retry_at_us: 0, in_doubt: false };
    replica.add_write(asked);
    assert!(replica.propose(Now::default()).is_empty());
}

fn change(replica: &mut Replica, change: &ConfigurationChange) {
    replica.group.propose_change(change).expect("nothing speaks against it");
    turn(replica);
}

#[test]
fn a_change_is_in_force_when_it_is_handed_out_and_ends_rounds_and_lease() {
    let mut replica = lone();
    assert!(replica.begin_round(1, 1_000).is_some());
    assert!(replica.leased_index(2_000).is_some(), "it is a majority by itself");
    change(&mut replica, &ConfigurationChange::AddLearner(place(2)));
    assert_eq!(replica.peer_on(NodeId(2)), Some(PeerId(12)));
    assert_eq!(replica.leased_index(2_000), None, "another configuration");
    replica.begin_round(2, 3_000);
    assert!(replica.leased_index(4_000).is_some(), "a learner is not asked");
    let promote = vec![PeerId(12)];
    change(&mut replica, &ConfigurationChange::EnterJoint { promote, demote: Vec::new() });
    assert_eq!(replica.leased_index(4_000), None);
    replica.begin_round(3, 5_000);
    assert!(replica.reads.wait_for(3) && replica.leased_index(6_000).is_none(), "the other is asked now");
    replica.confirm(3, NodeId(2), 6_000);
    assert!(replica.leased_index(7_000).is_some());
}

/// It is committed by one, and from the same turn on two decide: it waits until both have it.
#[test]
fn a_write_behind_a_change_waits_for_those_who_decide_from_then_on() {
    let mut replica = lone();
    change(&mut replica, &ConfigurationChange::AddLearner(place(2)));
    let promote = vec![PeerId(12)];
    let enter = ConfigurationChange::EnterJoint { promote, demote: Vec::new() };
    write(&mut replica, 1);
    replica.group.propose_change(&enter).expect("nothing speaks against it");
    write(&mut replica, 2);
    let outcome = turn(&mut replica);
    let told: Vec<_> = outcome
        .apply
        .iter()
        .filter(|job| !job.waiters.is_empty())
        .map(|job| (job.waiters[0].id, job.copies, job.held.len()))
        .collect();
    assert_eq!(told, [(1, 1, 0), (2, 1, 1)]);
}

#[test]
fn where_strangers_are_is_remembered_until_they_are_none_and_not_without_end() {
    let mut replica = lone();
    replica.heard(PeerId(12), NodeId(2));
    assert_eq!(replica.node_of(PeerId(12)), Some(NodeId(2)));
    replica.heard(PeerId(11), NodeId(9));
    assert_eq!(replica.node_of(PeerId(11)), Some(NodeId(1)), "the configuration knows better");
    for peer in 0..10_000 {
        replica.heard(PeerId(100 + peer), NodeId(3));
    }
    assert_eq!(replica.strangers.len(), GROUP_REPLICAS_MAX);
    assert_eq!(replica.node_of(PeerId(10_099)), Some(NodeId(3)), "the latest");
    change(&mut replica, &ConfigurationChange::AddLearner(place(2)));
    replica.heard(PeerId(12), NodeId(2));
    assert!(!replica.strangers.contains_key(&PeerId(12)));
}

/// A table that ends in a later term: what is up to there may be in it, and nothing behind it can come any more. One of the same
/// term leaves what is behind it to come.
#[test]
fn a_table_of_a_later_term_leaves_no_write_waiting() {
    for (later, lost, waiting) in [(1, vec![2, 3], 0), (0, vec![], 2)] {
        let mut replica = lone();
        for id in 1..=3 {
            write(&mut replica, id);
        }
        let (index, term) = (Index(replica.group.last().0 - 2), Term(replica.group.term().0 + later));
        let overtaken = replica.install(Base { index, term, generation: 1 });
        let ids = |waiters: Vec<Waiter>| waiters.iter().map(|waiter| waiter.token.id).collect::<Vec<_>>();
        assert_eq!((ids(overtaken.in_doubt), ids(overtaken.lost)), (vec![1], lost));
        assert_eq!(replica.pending_writes(), waiting);
    }
}

#[test]
fn a_change_of_a_later_version_is_not_handed_out_nor_anything_behind_it() {
    let mut replica = lone();
    write(&mut replica, 1);
    let turned = replica.group.take_turn();
    let (mut committed, mut outcome) = (turned.committed, Outcome::default());
    if let Some(ticket) = turned.unsynced {
        replica.group.release(ticket, &Synced::reported_by_driver());
        committed.extend(replica.group.take_turn().committed);
    }
    let at = committed.last().expect("a lone voter commits at once").index;
    let payload = vec![1, 99].into();
    let change = LogEntry { index: at, kind: EntryKind::Configuration, payload, ..LogEntry::default() };
    replica.emit([change].into_iter().chain(committed), 0, &mut outcome);
    assert!(outcome.unread.is_some_and(|why| why.contains("kind of change of configuration")));
    assert!(outcome.apply.is_empty());
    assert_eq!(replica.emitted, Index(at.0 - 1));
}
