//! The steps from one set of replicas to another: wherever they begin they end, and no two configurations that follow each
//! other could decide without each other.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringfort_ring::{NextStep, Progress, next_step};
use ringfort_types::ConfigurationChange::{AddLearner, EnterJoint, LeaveJoint, RemoveLearner};
use ringfort_types::{Configuration, Index, NodeId, PeerId, Replica};

/// More steps than any way takes: each of a few nodes is added, promoted, demoted and removed at most.
const STEPS_MAX: usize = 100;

/// What a node's number, and how often its replica was made anew, come to.
fn replica(node: u64, made: u64) -> Replica {
    Replica { node: NodeId(node), peer: PeerId(node + 10 * made) }
}

fn replicas(nodes: &[u64]) -> Vec<Replica> {
    nodes.iter().map(|node| replica(*node, 1)).collect()
}

/// All that can be known is known: whoever is a learner has caught up, and everybody but this one is able.
fn all_is_well_but_for(absent: Option<PeerId>, configuration: &Configuration, leader: PeerId) -> Progress {
    let all = configuration.replicas().map(|replica| replica.peer);
    let all: BTreeSet<_> = all.filter(|peer| Some(*peer) != absent).collect();
    Progress { leader, caught_up: all.clone(), able: all.clone(), deciding: all }
}

/// Whether there are two sets without a common member, of which one decides in each configuration.
fn can_pass_by(one: &Configuration, other: &Configuration) -> bool {
    let all: BTreeSet<_> = one.replicas().chain(other.replicas()).map(|replica| replica.peer).collect();
    let all: Vec<_> = all.into_iter().collect();
    let place = |peer: PeerId| all.iter().position(|known| *known == peer).expect("one of them");
    (0u32..1 << all.len()).any(|set| {
        one.is_quorum(|peer| set & 1 << place(peer) != 0)
            && other.is_quorum(|peer| set & 1 << place(peer) == 0)
    })
}

/// Goes on until there is nothing to do, or so many steps; the steps, and where that leads.
fn go(
    configuration: Configuration,
    target: &[Replica],
    leader: PeerId,
    most: usize,
) -> Result<(Vec<NextStep>, Configuration, PeerId), TestCaseError> {
    go_without(None, configuration, target, leader, most)
}

/// The same while one of the replicas takes no part.
fn go_without(
    absent: Option<PeerId>,
    mut configuration: Configuration,
    target: &[Replica],
    mut leader: PeerId,
    most: usize,
) -> Result<(Vec<NextStep>, Configuration, PeerId), TestCaseError> {
    let mut steps = Vec::new();
    while steps.len() < most {
        let step = next_step(&configuration, target, &all_is_well_but_for(absent, &configuration, leader));
        match &step {
            NextStep::Done | NextStep::Impossible => {
                steps.push(step);
                break;
            }
            NextStep::Wait => prop_assert!(false, "nothing to wait for in {:?}", configuration),
            NextStep::HandOver(peer) => {
                prop_assert!(configuration.is_joint() && *peer != leader);
                prop_assert!(configuration.voters.iter().any(|voter| voter.peer == *peer));
                leader = *peer;
            }
            NextStep::Change(change) => {
                let at = configuration.at.next();
                let next = configuration.after(change, at).map_err(|error| {
                    TestCaseError::fail(format!("{change:?} after {configuration:?}: {error}"))
                })?;
                prop_assert!(!can_pass_by(&configuration, &next), "{:?}, then {:?}", configuration, next);
                prop_assert!(next.decides(leader), "a leader leaves: {:?} after {:?}", change, configuration);
                prop_assert!(next.after(change, at).is_err(), "{:?} counts twice", change);
                configuration = next;
            }
        }
        steps.push(step);
    }
    prop_assert!(steps.len() <= STEPS_MAX, "it never ends: {:?}", steps);
    Ok((steps, configuration, leader))
}

/// A group of up to five of seven nodes; each replica is the first on its node, or a later one.
fn group() -> impl Strategy<Value = Vec<Replica>> {
    let nodes = proptest::sample::subsequence((1u64..=7).collect::<Vec<_>>(), 1..=5);
    (nodes.prop_shuffle(), proptest::collection::vec(0u64..3, 5)).prop_map(|(nodes, made)| {
        nodes.into_iter().zip(made).map(|(node, made)| replica(node, made)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_ends_at_its_target_and_neighbours_share_a_majority(
        first in group(),
        aborted in group(),
        target in group(),
        after in 0usize..8,
        leads in any::<prop::sample::Index>(),
    ) {
        // Reachable is what a way to another target passes through.
        let born = Configuration::born(first);
        let leader = leads.get(&born.voters).peer;
        let (_, between, leader) = go(born, &aborted, leader, after)?;
        let (steps, reached, _) = go(between, &target, leader, STEPS_MAX + 1)?;
        if steps.last() == Some(&NextStep::Impossible) {
            prop_assert_eq!(reached.voters.len(), 1, "{:?}", reached);
            prop_assert!(target.iter().any(|wanted| wanted.node == reached.voters[0].node));
        } else {
            let set = |of: &[Replica]| of.iter().copied().collect::<BTreeSet<_>>();
            prop_assert_eq!(set(&reached.voters), set(&target));
            prop_assert!(!reached.is_joint() && reached.learners.is_empty());
        }
    }

    #[test]
    fn one_that_takes_no_part_and_is_to_go_is_in_nobodys_way(
        first in group(),
        target in group(),
        leads in any::<prop::sample::Index>(),
        is_away in any::<prop::sample::Index>(),
    ) {
        let born = Configuration::born(first);
        let (leader, absent) = (leads.get(&born.voters).peer, is_away.get(&born.voters).peer);
        let is_to_stay = target.iter().any(|wanted| wanted.peer == absent);
        prop_assume!(leader != absent && born.voters.len() >= 3 && !is_to_stay);
        let (steps, reached, _) = go_without(Some(absent), born, &target, leader, STEPS_MAX + 1)?;
        prop_assert_eq!(steps.last(), Some(&NextStep::Done), "{:?}", reached);
    }
}

fn changes(from: &[u64], target: &[Replica], leader: u64) -> Vec<NextStep> {
    let born = Configuration::born(replicas(from));
    go(born, target, replica(leader, 1).peer, STEPS_MAX + 1).unwrap().0
}

#[test]
fn a_follower_is_replaced_and_the_leader_only_after_it_has_handed_over() {
    let (first, fourth) = (replica(1, 1), replica(4, 1));
    let enter = |demote: Replica| EnterJoint { promote: vec![fourth.peer], demote: vec![demote.peer] };
    let follower = [
        NextStep::Change(AddLearner(fourth)),
        NextStep::Change(enter(replica(3, 1))),
        NextStep::Change(LeaveJoint),
        NextStep::Change(RemoveLearner(replica(3, 1).peer)),
        NextStep::Done,
    ];
    assert_eq!(changes(&[1, 2, 3], &replicas(&[1, 2, 4]), 1), follower);
    let leader = [
        NextStep::Change(AddLearner(fourth)),
        NextStep::Change(enter(first)),
        NextStep::HandOver(replica(2, 1).peer),
        NextStep::Change(LeaveJoint),
        NextStep::Change(RemoveLearner(first.peer)),
        NextStep::Done,
    ];
    assert_eq!(changes(&[1, 2, 3], &replicas(&[4, 2, 3]), 1), leader);
}

#[test]
fn a_replica_is_made_anew_on_its_node_once_the_old_one_is_gone() {
    let (old, new) = (replica(3, 1), replica(3, 2));
    let target = [replica(1, 1), replica(2, 1), new];
    let steps = [
        NextStep::Change(EnterJoint { promote: Vec::new(), demote: vec![old.peer] }),
        NextStep::Change(LeaveJoint),
        NextStep::Change(RemoveLearner(old.peer)),
        NextStep::Change(AddLearner(new)),
        NextStep::Change(EnterJoint { promote: vec![new.peer], demote: Vec::new() }),
        NextStep::Change(LeaveJoint),
        NextStep::Done,
    ];
    assert_eq!(changes(&[1, 2, 3], &target, 1), steps);
    assert_eq!(changes(&[1], &[replica(1, 2)], 1), [NextStep::Impossible]);
}

#[test]
fn nobody_is_promoted_before_all_have_caught_up_and_nobody_leads_who_can_not() {
    let born = Configuration::born(replicas(&[1]));
    let with = |group: &Configuration, change: &_| group.after(change, Index(1)).unwrap();
    let grown = with(&with(&born, &AddLearner(replica(2, 1))), &AddLearner(replica(3, 1)));
    let target = replicas(&[2, 3]);
    let [first, second, third] = [1, 2, 3].map(|node| replica(node, 1).peer);
    let mut progress = Progress { leader: first, caught_up: [second].into(), ..Progress::default() };
    assert_eq!(next_step(&grown, &target, &progress), NextStep::Wait);
    progress.caught_up.insert(third);
    let enter = EnterJoint { promote: vec![second, third], demote: vec![first] };
    assert_eq!(next_step(&grown, &target, &progress), NextStep::Change(enter.clone()));
    let joint = with(&grown, &enter);
    assert_eq!(next_step(&joint, &target, &progress), NextStep::Wait);
    progress.able.insert(third);
    assert_eq!(next_step(&joint, &target, &progress), NextStep::HandOver(third));
}

#[test]
fn nobody_is_let_go_whom_the_others_can_not_do_without() {
    let born = Configuration::born(replicas(&[1, 2, 3]));
    let [first, second, third] = [1, 2, 3].map(|node| replica(node, 1).peer);
    let target = replicas(&[1, 3]);
    let mut progress = Progress { leader: first, deciding: [second].into(), ..Progress::default() };
    assert_eq!(next_step(&born, &target, &progress), NextStep::Wait, "{third} is away");
    progress.deciding.insert(third);
    assert_eq!(next_step(&born, &target, &progress), NextStep::Wait, "{third} is behind");
    // It need not be able to lead.
    progress.caught_up.insert(third);
    let enter = EnterJoint { promote: Vec::new(), demote: vec![second] };
    assert_eq!(next_step(&born, &target, &progress), NextStep::Change(enter));
}
