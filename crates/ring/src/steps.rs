//! From the replicas that a shard has to those that it should have, one step at a time.
//!
//! [`next_step`] is asked again and again by whoever leads the shard's group, with the configuration in force: so it does not
//! matter who led when the last step was taken, or whether the target has changed since. In the order in which it looks:
//!
//! 1. A joint configuration is left, by a leader that stays a voter. Another one hands over to one that does first: a
//!    leader must not vanish from the group that it leads.
//! 2. A learner that should not be there is removed. This comes before anything is added, because a node has one replica
//!    of a shard at a time.
//! 3. A replica that is missing is added as a learner. Nobody waits for it (Raft thesis, 4.2.1).
//! 4. Once all of those have caught up, they become voters and the others learners, in one joint change. A majority of those who are
//!    voters then must have caught up and be able to decide: a group that can't leave a joint configuration takes no write, and can't
//!    go back.
//!
//! So a voter that goes is a learner first, and hears of it. To abort is to have another target.
//!
//! **A replica that is made anew on its own node**, as another peer, takes the place of one that is still there. The old
//! one is demoted and removed first, one node at a time: meanwhile the group has a voter less. Voters that go and take no part are
//! demoted before: none of the others could be done without. If there is only one, it can't be done ([`NextStep::Impossible`]).
//!
//! Caveat: while some are made anew, voters that go stay until the last of these is there. A group of dozens could exceed
//! [`GROUP_REPLICAS_MAX`](ringfort_types::limits::GROUP_REPLICAS_MAX) meanwhile, and its change would not be proposed.

use std::collections::BTreeSet;

use ringfort_types::{Configuration, ConfigurationChange, PeerId, Replica};

/// What the leader knows of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The leader itself.
    pub leader: PeerId,
    /// Voters and learners that have caught up, and could decide: learners may become voters, and a majority is reckoned with these only.
    pub caught_up: BTreeSet<PeerId>,
    /// Replicas that could lead at once: they can be reached, are open, and can write.
    pub able: BTreeSet<PeerId>,
    /// Replicas that decide: the same, though their disks may be too slow for a leader's.
    pub deciding: BTreeSet<PeerId>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextStep {
    /// Nothing: the target is reached.
    Done,
    /// Nothing yet: a learner has not caught up, too few of the next voters can decide, or nobody can take over the lead.
    Wait,
    /// This change is to be proposed.
    Change(ConfigurationChange),
    /// Leadership is to be handed to this replica, and then its leader is to ask again.
    HandOver(PeerId),
    /// The target asks a lone voter's node for another replica.
    Impossible,
}

/// The next step of a group to this target: its voters, on distinct nodes. At least one, and at most
/// [`GROUP_REPLICAS_MAX`](ringfort_types::limits::GROUP_REPLICAS_MAX).
pub fn next_step(configuration: &Configuration, target: &[Replica], progress: &Progress) -> NextStep {
    let Configuration { voters, learners, .. } = configuration;
    if configuration.is_joint() {
        return leave(voters, progress);
    }
    if let Some(other) = learners.iter().find(|learner| !target.contains(learner)) {
        return NextStep::Change(ConfigurationChange::RemoveLearner(other.peer));
    }
    let is_missing = |wanted: &&Replica| !voters.contains(wanted) && !learners.contains(wanted);
    let (blocked, free): (Vec<Replica>, Vec<Replica>) =
        target.iter().filter(is_missing).partition(|wanted| configuration.peer_on(wanted.node).is_some());
    if let Some(new) = free.first() {
        return NextStep::Change(ConfigurationChange::AddLearner(*new));
    }
    if learners.iter().any(|learner| !progress.caught_up.contains(&learner.peer)) {
        return NextStep::Wait;
    }
    let is_ready = |peer: &PeerId| *peer == progress.leader || progress.caught_up.contains(peer);
    let takes_part = |peer: &PeerId| is_ready(peer) || progress.deciding.contains(peer);
    let promote: Vec<PeerId> = learners.iter().map(|learner| learner.peer).collect();
    let leaving: Vec<&Replica> = voters.iter().filter(|voter| !target.contains(voter)).collect();
    let absent: Vec<PeerId> =
        leaving.iter().map(|voter| voter.peer).filter(|peer| !takes_part(peer)).collect();
    let demote: Vec<PeerId> = if blocked.is_empty() {
        leaving.iter().map(|voter| voter.peer).collect()
    } else if !absent.is_empty() {
        absent
    } else {
        // One after the other, the leader last: each is missed until the next one on its node has caught up.
        let blocks = |voter: &&&Replica| blocked.iter().any(|wanted| wanted.node == voter.node);
        let blocking = leaving.iter().filter(blocks).map(|voter| voter.peer);
        blocking.min_by_key(|peer| *peer == progress.leader).into_iter().collect()
    };
    if promote.is_empty() && demote.is_empty() {
        return NextStep::Done;
    }
    if voters.len() + promote.len() == demote.len() {
        return NextStep::Impossible;
    }
    // Who is not needed for the step into a joint configuration may be needed for the step out of it.
    let stays = |peer: &PeerId| !demote.contains(peer);
    let incoming = voters.iter().map(|voter| voter.peer).filter(stays).chain(promote.iter().copied());
    let incoming: Vec<PeerId> = incoming.collect();
    if 2 * incoming.iter().filter(|peer| is_ready(peer)).count() <= incoming.len() {
        return NextStep::Wait;
    }
    NextStep::Change(ConfigurationChange::EnterJoint { promote, demote })
}

fn leave(incoming: &[Replica], progress: &Progress) -> NextStep {
    if incoming.iter().any(|voter| voter.peer == progress.leader) {
        return NextStep::Change(ConfigurationChange::LeaveJoint);
    }
    let able = incoming.iter().find(|voter| progress.able.contains(&voter.peer));
    able.map_or(NextStep::Wait, |voter| NextStep::HandOver(voter.peer))
}
