//! Who belongs to the group, and how that changes.
//!
//! A change is an entry of the log (Raft, §6; thesis, 4.3), and in force on a replica from when the entry is handed out as
//! committed ([`Group::apply_change`]), as in the `raft` crate, and not from when it is appended, as in the thesis. That is
//! safe because there is one change at a time: the next is proposed only where the last one is in force, so whoever
//! holds it knows that the last one is committed, and two configurations that are in force somewhere at one time are
//! neighbours, which share a majority.
//!
//! Invariants:
//! - *whatever batch holds a configuration entry, or anything after it, holds a commit index not below the previous
//!   configuration entry.* A voter that acknowledges a change and forgets that the one before it is committed would go
//!   back two configurations when it starts, and those need not share a majority: it could elect a second leader
//!   (etcd issue 7625). It holds because a proposer knows the previous change to be committed, an append says how much is
//!   committed, and a commit index that has moved is written with the next entries; [`Changes::assert_recorded`] looks.
//!   (At a start what a table holds durably counts as recorded, for it is as committed.);
//! - what can't follow is not proposed. Once it is committed it can't be refused any more;
//! - a leader that is no incoming voter does not leave the joint configuration: it would go on leading a group to which it
//!   does not belong (raft-rs issue 584). If it ever comes to be outside of those who decide, it steps down.
//!
//! **What the crate would do with such an entry, and why it is not asked to.** Given a proposal, `raft` 0.7 reads the entry's
//! data with the protobuf parser, to see whether it leaves a joint configuration; if the change can't be now, it puts an
//! empty normal entry in its place and says `Ok`. Everywhere else (`hup`, `maybe_commit_by_vote`, and what is handed out)
//! it looks at the type of an entry only. So [`Group::propose_change`] asks the same questions itself, appends the entry as
//! `step` would, and the data can be Ringfort's own encoding: the parser is never called
//! (`docs/decisions/0001-raft-codec.md`). The crate hears of a change when it is in force, as a `ConfChangeV2` that was
//! never bytes: one part, or explicit, and never with auto-leave, which a change of leader can lose.

use std::collections::VecDeque;

use raft::StateRole;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, ConfState, Entry, EntryType,
};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::Malformed;
use ringfort_types::{Configuration, ConfigurationChange, EntryKind, Index, LogEntry, PeerId, Replica, Term};

use super::{Group, Restored};

/// The changes that the log holds and that are not in force yet.
#[derive(Debug, Default)]
pub(super) struct Changes {
    /// Their indexes, ascending.
    waiting: VecDeque<Index>,
    /// The last entry that was handed out as committed.
    handed_out: Index,
    /// The commit index in the last record of it.
    recorded: Index,
    /// What is up to this index may have been committed by so few.
    by_fewer: (Index, u32),
}

impl Changes {
    /// Those that a log holds after what is applied.
    pub(super) fn restored(restored: &Restored) -> Changes {
        let (handed_out, commit) = (restored.applied, restored.hard_state.commit);
        let mut changes = Changes { handed_out, recorded: commit.max(handed_out), ..Changes::default() };
        for entry in &restored.tail {
            changes.appended(entry.index, entry.kind);
        }
        changes
    }

    /// This entry is at the log's end now.
    pub(super) fn appended(&mut self, index: Index, kind: EntryKind) {
        while self.waiting.pop_back_if(|waiting| *waiting >= index).is_some() {}
        if kind == EntryKind::Configuration {
            self.waiting.push_back(index);
        }
    }

    /// A snapshot at this index has taken the place of the log.
    pub(super) fn installed(&mut self, index: Index) {
        self.waiting.clear();
        self.handed_out = index;
    }

    /// Entries up to this one are handed out.
    pub(super) fn handed_out(&mut self, last: Index) {
        self.handed_out = last;
    }

    /// Every change that was handed out has been given to [`Group::apply_change`].
    pub(super) fn assert_applied(&self) {
        let next = self.waiting.front();
        let is_later = next.is_none_or(|next| *next > self.handed_out);
        assert!(is_later, "the change in entry {next:?} is committed, and not in force");
    }

    /// A record says that so much is committed.
    pub(super) fn recorded(&mut self, commit: Index) {
        self.recorded = commit;
    }

    /// The last change that the log holds and that is not in force yet.
    fn last(&self) -> Option<Index> {
        self.waiting.back().copied()
    }

    /// Entries are on their way to the disk, in a batch with all records so far: the commit index goes with them, at least up
    /// to the change before the last one. `in_force` is the last change that is in force.
    pub(super) fn assert_recorded(&self, in_force: Index) {
        let before_last = match self.waiting.len() {
            0 => return,
            1 => in_force,
            more => self.waiting[more - 2],
        };
        let recorded = self.recorded;
        assert!(
            recorded >= before_last,
            "committed is {recorded}, and the change before the last is {before_last}"
        );
    }
}

impl Group {
    /// Appends a change of the group's configuration, if this replica leads, is not handing over, has committed an entry of its
    /// term, has applied all changes before, and the change can follow on the configuration in force. Says where it will be
    /// if it lasts. It is in force once it is committed.
    pub fn propose_change(&mut self, change: &ConfigurationChange) -> Option<(Index, Term)> {
        let configuration = &self.config.configuration;
        let index = self.last().next();
        let leaves =
            *change == ConfigurationChange::LeaveJoint && !is_among(&configuration.voters, self.me());
        let raft = &self.raw.raft;
        if !self.can_propose() || raft.has_pending_conf() || !raft.commit_to_current_term() || leaves {
            return None;
        }
        configuration.after(change, index).ok()?;
        let mut entry = Entry { data: change.encode(), ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        // From here on what the crate's `step_leader` does with a proposal.
        let raft = &mut self.raw.raft;
        if !raft.append_entry(&mut [entry]) {
            return None;
        }
        raft.pending_conf_index = index.0;
        raft.bcast_append();
        Some((index, self.term()))
    }

    /// Puts a change in force that was handed out in [`Turn::committed`](super::Turn::committed). To be called for each, in
    /// order, before the next turn is taken; what else was handed out before it belongs to the configuration before. One that can't be
    /// read is of a later version: nothing more may be asked of the group.
    ///
    /// # Panics
    /// If it is not the next one, or one that can't follow: what is committed can't be refused.
    pub fn apply_change(&mut self, entry: &LogEntry) -> Result<(), Malformed> {
        let (shard, at) = (self.config.shard, entry.index);
        let change = ConfigurationChange::decode(entry.payload.clone())?;
        assert_eq!(self.changes.waiting.pop_front(), Some(at), "shard {shard}: changes are applied in order");
        let before = &self.config.configuration;
        let next = before
            .after(&change, at)
            .unwrap_or_else(|error| panic!("shard {shard}: committed entry {at}, {change:?}: {error}"));
        let fewest = self.fewest_copies(at);
        self.changes.by_fewer = (self.committed(), fewest);
        if planted::is(Bug::JointCountsNewHalf) {
            self.skip_outgoing(&change);
        } else {
            let state = self.raw.apply_conf_change(&conf_change(&change)).expect("it can follow");
            assert!(is_same(&state, &conf_state(&next)), "shard {shard}: {state:?} is not {next:?}");
        }
        self.enter(next);
        if self.raw.raft.state == StateRole::Leader && !self.config.configuration.decides(self.me()) {
            self.raw.raft.become_follower(self.raw.raft.term, raft::INVALID_ID);
        }
        self.set_timeout();
        Ok(())
    }

    /// For [`Bug::JointCountsNewHalf`]: the crate leaves a joint configuration as soon as it has entered it.
    fn skip_outgoing(&mut self, change: &ConfigurationChange) {
        let is_left = self.raw.apply_conf_change(&conf_change(change)).is_err();
        if !is_left && matches!(change, ConfigurationChange::EnterJoint { .. }) {
            let _ = self.raw.apply_conf_change(&conf_change(&ConfigurationChange::LeaveJoint));
        }
    }

    /// Whether this replica does not belong to the group, and no entry that it has acknowledged could change that. Then nothing depends
    /// on what it holds: whatever made it a voter would come later, and need its word. (A learner belongs to it: its leader may be
    /// about to promote it, and a group of few could not go on without it then.)
    pub fn is_out(&self) -> bool {
        self.changes.last().is_none() && self.config.configuration.node_of(self.me()).is_none()
    }

    /// The same by a configuration that is in force elsewhere up to this committed index, if the log here holds no change that comes after
    /// it. It may well hold that very change, and never hear that it is committed: a leader does not speak to a replica that it has
    /// removed. Or it holds a change that was never committed, in the place of something else.
    pub fn is_out_of(&self, elsewhere: &Configuration, through: Index) -> bool {
        let known = self.changes.last().unwrap_or(self.config.configuration.at);
        elsewhere.at.max(through) >= known && elsewhere.node_of(self.me()).is_none()
    }

    /// This configuration is in force; the crate knows it already.
    pub(super) fn enter(&mut self, configuration: Configuration) {
        self.raw.mut_store().set_conf_state(conf_state(&configuration));
        self.config.configuration = configuration;
    }

    /// How many replicas that decide have synced a committed entry for certain. Entries that were committed before the
    /// configuration in force was may be on fewer than decide now.
    pub fn fewest_copies(&self, index: Index) -> u32 {
        let fewest = self.config.configuration.least_quorum();
        let (until, fewer) = self.changes.by_fewer;
        if index <= until { fewest.min(fewer) } else { fewest }
    }

    /// It decides alone, and not all of its log is synced. The crate makes such a one a leader at once when it stands, and
    /// takes a leader's log for synced.
    pub(super) fn is_alone_and_unsynced(&self) -> bool {
        let log = &self.raw.raft.raft_log;
        (log.last_index() != log.persisted || !self.unsynced.is_empty())
            && self.config.configuration.is_quorum(|peer| peer == self.me())
    }
}

pub(super) fn is_among(replicas: &[Replica], peer: PeerId) -> bool {
    replicas.iter().any(|replica| replica.peer == peer)
}

/// A change in the crate's words.
fn conf_change(change: &ConfigurationChange) -> ConfChangeV2 {
    let single = |peer: &PeerId, kind| {
        let mut single = ConfChangeSingle { node_id: peer.0, ..ConfChangeSingle::default() };
        single.set_change_type(kind);
        single
    };
    let mut raft = ConfChangeV2::default();
    let singles: Vec<ConfChangeSingle> = match change {
        ConfigurationChange::AddLearner(new) => vec![single(&new.peer, ConfChangeType::AddLearnerNode)],
        ConfigurationChange::RemoveLearner(peer) => vec![single(peer, ConfChangeType::RemoveNode)],
        ConfigurationChange::EnterJoint { promote, demote } => {
            raft.set_transition(ConfChangeTransition::Explicit);
            let promoted = promote.iter().map(|peer| single(peer, ConfChangeType::AddNode));
            promoted.chain(demote.iter().map(|peer| single(peer, ConfChangeType::AddLearnerNode))).collect()
        }
        // Nothing at all is what the crate takes for leaving.
        ConfigurationChange::LeaveJoint => Vec::new(),
    };
    raft.set_changes(singles.into());
    raft
}

/// A configuration in the crate's words.
pub(super) fn conf_state(configuration: &Configuration) -> ConfState {
    let peers = |of: &[Replica]| of.iter().map(|replica| replica.peer.0).collect();
    ConfState {
        voters: peers(&configuration.voters),
        voters_outgoing: peers(&configuration.outgoing),
        learners: peers(&configuration.learners),
        learners_next: peers(&configuration.learners_next),
        ..ConfState::default()
    }
}

/// Whether two of the crate's configurations have the same members; it has them in no order.
fn is_same(one: &ConfState, other: &ConfState) -> bool {
    let sorted = |state: &ConfState| {
        let parts = [&state.voters, &state.voters_outgoing, &state.learners, &state.learners_next];
        parts.map(|part| {
            let mut part = part.clone();
            part.sort_unstable();
            part
        })
    };
    sorted(one) == sorted(other) && one.auto_leave == other.auto_leave
}
