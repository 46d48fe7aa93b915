//! The groups that this node leads go where the layout says, one step after the other ([`next_step`]).
//!
//! A learner is made a voter once it has caught up: it has taken in, twice in a row and each time within less than an election, what
//! its leader had at the look before (Raft thesis, 4.2.1). So whatever the load is, the group does not wait for it then. Voters that a
//! majority is reckoned with have to have caught up, too: one that is behind may be about to find out that it can't go on, and a group
//! that has entered a joint configuration can't go back.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_consensus::Group;
use ringfort_ring::{NextStep, Progress, next_step};
use ringfort_types::{Configuration, DiskState, Index, PeerId, Replica as Place};

use crate::leave::Phase;
use crate::node::Node;
use crate::state::HANDOVER_LAG_MAX;

/// How fast a follower has to take in what its leader had at the last look: a round shorter than an election.
const ROUND_US_MAX: u64 = 500_000;
/// Such rounds in a row, before it counts.
const ROUNDS: u32 = 2;

/// How a follower keeps up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Catching {
    /// The leader's last entry when the round began.
    goal: Index,
    since_us: u64,
    /// Rounds in a row that were fast enough.
    rounds: u32,
}

/// The followers of a group that this node leads.
#[derive(Debug, Default)]
pub(crate) struct Followers(BTreeMap<PeerId, Catching>);

impl Followers {
    /// Those that have caught up.
    fn look(&mut self, group: &Group, now_us: u64) -> BTreeSet<PeerId> {
        let followers: BTreeSet<PeerId> =
            group.configuration().replicas().map(|replica| replica.peer).collect();
        self.0.retain(|peer, _| followers.contains(peer));
        let mut caught_up = BTreeSet::new();
        for peer in followers {
            let new = Catching { goal: group.last(), since_us: now_us, rounds: 0 };
            let known = self.0.entry(peer).or_insert(new);
            if known.goal > group.last() {
                // It is from an earlier leadership, whose last entries were lost: nobody will ever reach it.
                *known = new;
            }
            let is_fast = now_us.saturating_sub(known.since_us) <= ROUND_US_MAX;
            if group.matched(peer).is_some_and(|matched| matched >= known.goal) {
                let rounds = if is_fast { known.rounds + 1 } else { 0 };
                *known = Catching { rounds, ..new };
            } else if !is_fast {
                known.rounds = 0;
            }
            if known.rounds >= ROUNDS {
                caught_up.insert(peer);
            }
        }
        caught_up
    }
}

/// Whether a group is what it should be, in whatever order.
pub(crate) fn is_reached(configuration: &Configuration, target: &[Place]) -> bool {
    let Configuration { voters, learners, .. } = configuration;
    let is_voter = |place: &Place| voters.contains(place);
    !configuration.is_joint()
        && learners.is_empty()
        && voters.len() == target.len()
        && target.iter().all(is_voter)
}

/// As the leader of groups.
impl Node {
    /// Now and then: takes the groups that this node leads a step further to what the layout says.
    pub(crate) fn follow_layout(&mut self) {
        if !self.has_layout_moved() || self.phase != Phase::Running || self.disk != DiskState::Working {
            return;
        }
        let Some(layout) = self.layout.clone() else { return };
        let now_us = self.now.monotonic_us;
        for shard in &layout.shards {
            let id = shard.shard;
            let slot = &mut self.slots[id.0 as usize];
            let Some(replica) = slot.replica.as_mut().filter(|replica| replica.takes_writes()) else {
                continue;
            };
            let me = replica.group.me();
            if is_reached(replica.group.configuration(), &shard.replicas) {
                continue;
            }
            let ready = replica.followers.look(&replica.group, now_us);
            let configuration = replica.group.configuration();
            let can_lead = |place: &&Place| self.peers.can_lead(place.node, id, now_us);
            let can_decide = |place: &&Place| self.peers.can_decide(place.node, id, now_us);
            let is_ready = |place: &Place| ready.contains(&place.peer) && can_decide(&place);
            let keeps_up =
                |place: &&Place| replica.lag(place.peer).is_some_and(|lag| lag <= HANDOVER_LAG_MAX);
            let voters = || configuration.voters.iter().filter(keeps_up);
            let able = voters().filter(can_lead).map(|voter| voter.peer).collect();
            let deciding = voters().filter(can_decide).map(|voter| voter.peer).collect();
            let caught_up = configuration.replicas().filter(is_ready).map(|replica| replica.peer).collect();
            let progress = Progress { leader: me, caught_up, able, deciding };
            let done = match next_step(configuration, &shard.replicas, &progress) {
                NextStep::Done | NextStep::Wait | NextStep::Impossible => false,
                NextStep::Change(change) => replica.group.propose_change(&change).is_some(),
                NextStep::HandOver(peer) => {
                    replica.hand_over_in_joint(peer);
                    true
                }
            };
            if done {
                self.mark(id);
            }
        }
    }
}
