//! What a change of the configuration must not forget, and what is not proposed. Its course is told in scripts.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringfort_consensus::{Group, GroupConfig, Outgoing, Restored, codec};
use ringfort_types::ConfigurationChange::{self, AddLearner, EnterJoint, LeaveJoint, RemoveLearner};
use ringfort_types::{
    Configuration, EntryKind, HardState, Index, LogEntry, PeerId, Record, Role, ShardId, Term,
};

use crate::replica::{Replica, born, place};

/// A group of any replicas, some of which may be cut off from the others.
struct Net {
    born: Configuration,
    replicas: BTreeMap<u64, Replica>,
    cut: BTreeSet<u64>,
}

impl Net {
    /// So many voters, of whom the first leads.
    fn led(voters: u64) -> Net {
        let replica = |me| (me, Replica::new(me, born(voters), &Restored::default()));
        let replicas = (1..=voters).map(replica).collect();
        let mut net = Net { born: born(voters), replicas, cut: BTreeSet::new() };
        net.at(1).group.campaign();
        net.settle();
        assert_eq!(net.at(1).group.role(), Role::Leader);
        net
    }

    fn at(&mut self, id: u64) -> &mut Replica {
        self.replicas.get_mut(&id).expect("it runs")
    }

    fn settle(&mut self) {
        loop {
            let mut sent: Vec<(u64, Outgoing)> = Vec::new();
            for (id, replica) in &mut self.replicas {
                sent.extend(replica.turn().into_iter().map(|outgoing| (*id, outgoing)));
            }
            if sent.is_empty() {
                return;
            }
            for (from, (PeerId(to), message)) in sent {
                assert_eq!(codec::ends(&message), Some((PeerId(to), PeerId(from))));
                if self.cut.contains(&from) == self.cut.contains(&to)
                    && let Some(replica) = self.replicas.get_mut(&to)
                {
                    replica.group.step(message).expect("our own encoding");
                }
            }
        }
    }

    /// Time passes for all, until these have something to say.
    fn pass(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.replicas.values_mut().for_each(|replica| replica.group.tick());
            self.settle();
        }
    }

    /// A change that is proposed, and committed as far as it can be.
    fn change(&mut self, leader: u64, change: &ConfigurationChange) {
        self.at(leader).group.propose_change(change).unwrap_or_else(|| panic!("{change:?} is not proposed"));
        self.settle();
    }

    /// A new replica, which is a learner at once.
    fn add(&mut self, leader: u64, id: u64) {
        self.replicas.insert(id, Replica::new(id, self.born.clone(), &Restored::default()));
        self.change(leader, &AddLearner(place(id)));
        assert!(self.at(id).group.configuration().learners.contains(&place(id)));
    }

    /// Power is lost, and what was not synced with it; `forget` changes what is left.
    fn restart(&mut self, id: u64, forget: impl FnOnce(&mut Vec<Record>)) {
        let mut replica = self.replicas.remove(&id).expect("it runs");
        replica.records.truncate(replica.synced);
        forget(&mut replica.records);
        self.replicas.insert(id, Replica::restart(id, &self.born, replica.records));
    }
}

fn enter(promote: &[u64], demote: &[u64]) -> ConfigurationChange {
    let peers = |ids: &[u64]| ids.iter().copied().map(PeerId).collect();
    EnterJoint { promote: peers(promote), demote: peers(demote) }
}

fn numbers(replicas: &[ringfort_types::Replica]) -> Vec<u64> {
    replicas.iter().map(|replica| replica.peer.0).collect()
}

/// What the disk of one would have that writes its commit index only when its term or vote changes.
fn without_commits(records: &mut Vec<Record>) {
    let mut last = HardState::default();
    for record in records {
        if let Record::HardState(_, state) = record {
            if (state.term, state.vote) == (last.term, last.vote) {
                *state = last;
            }
            last = *state;
        }
    }
}

/// Voters 1, 2 and 3 are replaced by 1, 4 and 5. Voter 3 is cut off before that, and hears nothing of it. Voter 2 has the entry
/// with which the joint configuration is left, and loses power before it hears that it is committed. When it is back, it and
/// voter 3 hear only each other. The first entry that is committed differently on both sides.
fn a_voter_leaves_and_comes_back(forget: impl FnOnce(&mut Vec<Record>)) -> (Net, Option<Index>) {
    let mut net = Net::led(3);
    net.add(1, 4);
    net.add(1, 5);
    net.cut = [3].into();
    net.change(1, &enter(&[4, 5], &[2, 3]));
    assert!(net.at(1).group.configuration().is_joint());
    net.at(1).group.propose_change(&LeaveJoint).expect("a change after the other");
    let sent = net.at(1).turn();
    for (_, message) in sent.into_iter().filter(|(to, _)| *to == PeerId(2)) {
        net.at(2).group.step(message).expect("our own encoding");
    }
    let acknowledged = net.at(2).turn();
    net.restart(2, forget);
    for (_, message) in acknowledged {
        net.at(1).group.step(message).expect("our own encoding");
    }
    net.cut = [2, 3].into();
    net.pass(8);
    assert_eq!(numbers(&net.at(1).group.configuration().voters), [1, 4, 5]);
    assert!(!net.at(1).group.configuration().is_joint());
    net.at(1).group.propose(Bytes::from_static(b"here")).expect("it leads");
    net.settle();
    net.pass(80);
    assert_eq!(net.at(1).group.role(), Role::Leader);
    let committed = |net: &mut Net, id| -> BTreeMap<Index, LogEntry> {
        net.at(id).committed.iter().map(|entry| (entry.index, entry.clone())).collect()
    };
    let (one, other) = (committed(&mut net, 1), committed(&mut net, 2));
    let differs = one.iter().find(|(index, entry)| other.get(index).is_some_and(|other| other != *entry));
    let differs = differs.map(|(index, _)| *index);
    (net, differs)
}

#[test]
fn who_acknowledges_a_change_knows_after_a_crash_that_the_one_before_it_is_committed() {
    let (mut net, differs) = a_voter_leaves_and_comes_back(|_| ());
    assert!(net.at(2).group.configuration().is_joint());
    assert_ne!(net.at(2).group.role(), Role::Leader);
    assert_eq!(differs, None);
    net.cut.clear();
    net.pass(40);
    let leaders = net.at(1).group.configuration().clone();
    for id in [2, 3] {
        assert_eq!(net.at(id).group.configuration(), &leaders, "{id}");
    }
}

/// The same story on a disk that breaks the rule. Voter 2 is elected by voter 3, and would commit what it likes at indexes at which
/// voter 1 has committed other entries. It ends as soon as it writes an entry.
#[test]
#[should_panic(expected = "committed is 3, and the change before the last is 4")]
fn who_forgets_that_ends_before_it_leads_those_who_decide_no_more() {
    let (_, differs) = a_voter_leaves_and_comes_back(without_commits);
    assert_eq!(differs, None);
}

#[test]
fn only_a_leader_that_may_proposes_a_change() {
    let mut net = Net::led(3);
    let add = AddLearner(place(4));
    assert_eq!(net.at(2).group.propose_change(&add), None, "it follows");
    assert_eq!(net.at(1).group.propose_change(&LeaveJoint), None, "it can't follow");
    assert_eq!(net.at(1).group.propose_change(&RemoveLearner(PeerId(2))), None, "it can't follow");
    let (index, _) = net.at(1).group.propose_change(&add).expect("nothing speaks against it");
    assert_eq!(net.at(1).group.propose_change(&AddLearner(place(5))), None, "one at a time");
    net.cut = [1].into();
    net.settle();
    assert_eq!(net.at(1).group.propose_change(&AddLearner(place(5))), None, "it is not committed");
    net.cut.clear();
    net.pass(8);
    assert_eq!(net.at(1).group.configuration().at, index);
    net.at(1).group.transfer_to(PeerId(2));
    assert_eq!(net.at(1).group.propose_change(&AddLearner(place(5))), None, "it hands over");
    net.settle();
    let leader = net.at(2);
    assert_eq!(leader.group.role(), Role::Leader);
    assert_eq!(leader.group.configuration().at, index);
}

#[test]
fn a_new_leader_changes_nothing_before_an_entry_of_its_term_is_committed() {
    let mut net = Net::led(3);
    net.at(1).group.transfer_to(PeerId(2));
    // Until it leads, and no further.
    while net.at(2).group.role() != Role::Leader {
        let ids: Vec<u64> = net.replicas.keys().copied().collect();
        let sent: Vec<_> = ids.into_iter().flat_map(|id| net.at(id).turn()).collect();
        for (PeerId(to), message) in sent {
            net.at(to).group.step(message).expect("our own encoding");
        }
    }
    assert_eq!(net.at(2).group.propose_change(&AddLearner(place(4))), None);
    net.settle();
    net.change(2, &AddLearner(place(4)));
}

#[test]
fn a_change_waits_for_the_table() {
    let mut net = Net::led(1);
    let leader = &mut net.at(1).group;
    let apply_all = |leader: &mut ringfort_consensus::Group, table: bool| {
        while leader.has_turn() {
            let turn = leader.take_turn();
            for entry in &turn.committed {
                if entry.kind == ringfort_types::EntryKind::Configuration {
                    leader.apply_change(entry).unwrap();
                }
            }
            if let Some(ticket) = turn.unsynced {
                assert!(leader.release(ticket, &ringfort_consensus::Synced::reported_by_driver()).is_empty());
            }
            if let (Some(last), true) = (turn.committed.last(), table) {
                leader.applied(last.index);
            }
        }
    };
    let (index, _) = leader.propose_change(&AddLearner(place(2))).expect("it leads");
    apply_all(leader, false);
    assert_eq!(leader.configuration().at, index, "it is in force");
    assert_eq!(leader.propose_change(&AddLearner(place(3))), None, "and not in the table");
    leader.applied(index);
    assert!(leader.propose_change(&AddLearner(place(3))).is_some());
}

/// An outgoing voter can be elected when the entry that ends its part is in its log already. Then that is committed by it.
#[test]
fn a_leader_that_is_left_out_steps_down() {
    let mut net = Net::led(3);
    net.add(1, 4);
    net.change(1, &enter(&[4], &[1]));
    net.at(1).group.transfer_to(PeerId(2));
    net.settle();
    net.at(2).group.propose_change(&LeaveJoint).expect("it stays");
    for (to, message) in net.at(2).turn() {
        net.at(to.0).group.step(message).expect("our own encoding");
    }
    // All have it, and its leader does not hear of that.
    net.cut = [2].into();
    net.settle();
    net.at(1).group.campaign();
    net.pass(40);
    assert!(!net.at(1).group.configuration().is_joint());
    assert_eq!(net.at(1).group.role(), Role::Follower);
    let leader = [3, 4].into_iter().find(|id| net.at(*id).group.role() == Role::Leader).expect("one of them");
    assert!(net.at(1).group.term() >= Term(3), "it led in between");
    net.cut.clear();
    net.pass(20);
    net.change(leader, &RemoveLearner(PeerId(1)));
    assert_eq!(numbers(&net.at(2).group.configuration().voters), [2, 3, 4]);
}

#[test]
fn what_was_committed_by_fewer_is_not_said_to_be_on_more() {
    let mut net = Net::led(1);
    net.add(1, 2);
    net.add(1, 3);
    net.cut = [2, 3].into();
    let (before, _) = net.at(1).group.propose(Bytes::from_static(b"before")).expect("it leads");
    net.at(1).group.propose_change(&enter(&[2, 3], &[])).expect("nothing speaks against it");
    let (with, _) = net.at(1).group.propose(Bytes::from_static(b"with")).expect("it leads");
    net.settle();
    let group = &mut net.at(1).group;
    assert!(group.configuration().is_joint() && group.committed() == with, "all by the lone voter");
    assert_eq!([before, with].map(|index| (group.copies(index), group.fewest_copies(index))), [(1, 1); 2]);
    let (after, _) = group.propose(Bytes::from_static(b"after")).expect("it leads");
    net.settle();
    assert_eq!((net.at(1).group.committed(), net.at(1).group.fewest_copies(after)), (with, 2));
}

#[test]
fn a_lone_voter_stands_only_once_all_of_its_log_is_synced() {
    let mut net = Net::led(3);
    net.at(1).group.propose(Bytes::from_static(b"entry")).expect("it leads");
    let sent = net.at(1).turn();
    // It has heard of the change by which it is alone, and of a leader that has not.
    let mut alone = Replica::new(2, Configuration::born(vec![place(2)]), &Restored::default());
    alone.syncs = false;
    net.pass(8);
    net.at(2).turn();
    for (_, message) in sent.into_iter().filter(|(to, _)| *to == PeerId(2)) {
        alone.group.step(message).expect("our own encoding");
    }
    let mut log = net.at(1).turn();
    log.extend({
        net.at(1).group.propose(Bytes::from_static(b"more")).expect("it leads");
        net.at(1).turn()
    });
    for (_, message) in log.into_iter().filter(|(to, _)| *to == PeerId(2)) {
        alone.group.step(message).expect("our own encoding");
    }
    alone.turn();
    assert!(alone.waits());
    alone.group.campaign();
    for _ in 0..100 {
        alone.group.tick();
    }
    alone.turn();
    assert_eq!(alone.group.role(), Role::Follower);
    alone.sync();
    alone.turn();
    alone.group.campaign();
    alone.turn();
    assert_eq!(alone.group.role(), Role::Leader);
}

#[test]
fn a_change_that_can_not_be_read_is_not_taken_into_the_log() {
    let mut net = Net::led(3);
    net.at(1).group.propose_change(&AddLearner(place(4))).expect("nothing speaks against it");
    let (to, message) = net.at(1).turn().swap_remove(0);
    let payload = AddLearner(place(4)).encode();
    assert!(message.ends_with(&payload), "it is the last thing in the message");
    let mut damaged = message.to_vec();
    let version = damaged.len() - payload.len();
    damaged[version] += 1;
    assert!(net.at(to.0).group.step(damaged.into()).is_err());
    assert_eq!(net.at(to.0).group.last(), Index(1));
    net.at(to.0).group.step(message).expect("our own encoding");
    assert_eq!(net.at(to.0).group.last(), Index(2));
}

/// A leader does not tell a learner that its removal is committed: the entry may be the last thing that it has of its group.
#[test]
fn whoever_has_its_own_removal_and_does_not_know_it_to_be_committed_can_be_told() {
    let learning = Configuration { at: Index(4), learners: vec![place(4)], ..born(3) };
    let removal = ConfigurationChange::RemoveLearner(PeerId(4));
    let entry = |index, kind, payload| LogEntry { index: Index(index), term: Term(1), kind, payload };
    let with_tail = |tail: Vec<LogEntry>| {
        let restored = Restored {
            hard_state: HardState { term: Term(1), vote: PeerId(0), commit: Index(4) },
            terms: vec![(Index(1), Term(1))],
            last: tail.last().map_or(Index(4), |last| last.index),
            applied: Index(4),
            tail,
            ..Restored::default()
        };
        Group::new(
            GroupConfig { shard: ShardId(1), me: PeerId(4), configuration: learning.clone() },
            &restored,
        )
    };
    let after = learning.after(&removal, Index(5)).expect("it can follow");

    let idle = with_tail(Vec::new());
    assert!(!idle.is_out() && !idle.is_out_of(&learning, Index(4)), "its leader may be about to promote it");
    assert!(idle.is_out_of(&after, Index(0)));

    let removed = with_tail(vec![entry(5, EntryKind::Configuration, removal.encode())]);
    assert!(!removed.is_out(), "it does not know what becomes of the entry");
    assert!(!removed.is_out_of(&learning, Index(4)), "that is older than what it has");
    assert!(removed.is_out_of(&after, Index(0)));

    // A change of the group that is in nobody's log but its own: something else was committed there.
    let other = AddLearner(place(9));
    let lost = with_tail(vec![
        entry(5, EntryKind::Configuration, removal.encode()),
        entry(6, EntryKind::Configuration, other.encode()),
    ]);
    assert!(!lost.is_out_of(&after, Index(5)), "it may follow");
    assert!(lost.is_out_of(&after, Index(6)), "it does not");

    // What promotes it comes later than what it is told of.
    let enter = ConfigurationChange::EnterJoint { promote: vec![PeerId(4)], demote: Vec::new() };
    let promoted = with_tail(vec![entry(5, EntryKind::Configuration, enter.encode())]);
    assert!(!promoted.is_out() && !promoted.is_out_of(&learning, Index(4)));
    let joint = learning.after(&enter, Index(5)).expect("it can follow");
    assert!(!promoted.is_out_of(&joint, Index(9)));
}
