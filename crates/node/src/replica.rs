//! One shard's replica in this node: its group, and the requests that are with it.
//!
//! A write goes `proposals` → (an entry of one turn) → `proposed` → applied by the driver. What becomes of reads stands in
//! `reads`.
//!
//! Invariants:
//! - what is `proposed` in one term is in the order of the log, behind what earlier terms have left. A proposed
//!   entry is lost for certain once another one commits at its index, or one of a later term before it (terms
//!   never fall along the log, so what comes to its index then has a later term too); nothing else does;
//! - stamps rise: a leader stamps nothing before it has seen every entry before its own first one
//!   (`leads_from`).

use std::collections::{BTreeMap, VecDeque};

use ringfort_consensus::Group;
use ringfort_shard::ShardError;
use ringfort_types::limits::{ENTRY_BYTES_SOFT, ENTRY_COMMANDS_MAX, GROUP_REPLICAS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::Malformed;
use ringfort_types::{
    Base, Call, Command, Entry, EntryKind, Epoch, HybridClock, Index, LogEntry, NodeId, Now, PeerId, Request,
    Revision, Role, ShardId, Stamped, Term, Token,
};

use crate::follow::Followers;
use crate::held::Held;
use crate::pending::{Pending, Waiter};
use crate::reads::{Reads, Standing};
use crate::{ApplyJob, ReadJob, TableStats};

/// An entry that this replica has proposed and whose clients wait.
#[derive(Debug)]
struct Proposed {
    index: Index,
    term: Term,
    waiters: Vec<Waiter>,
}

/// What became of proposals in a turn.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) apply: Vec<ApplyJob>,
    /// Surely lost: another leader's entry has their place.
    pub(crate) lost: Vec<Waiter>,
    /// Requests and bytes that are no longer pending here.
    pub(crate) done: usize,
    pub(crate) done_bytes: usize,
    /// An entry can't be read by this version: why. Neither it nor any after it is handed out, and the replica can't go on.
    pub(crate) unread: Option<String>,
}

/// Those who wait for what a table from another replica has overtaken.
#[derive(Debug, Default)]
pub(crate) struct Overtaken {
    /// It may be part of that table.
    pub(crate) in_doubt: Vec<Waiter>,
    /// Surely lost.
    pub(crate) lost: Vec<Waiter>,
}

pub(crate) struct Replica {
    pub(crate) shard: ShardId,
    pub(crate) group: Group,
    /// The batch that holds this group's latest records.
    pub(crate) last_batch: u64,
    pub(crate) stats: TableStats,
    clock: HybridClock,
    /// While leading: the index of the term's first entry. Everything before it has been handed out once
    /// `emitted` has reached it.
    leads_from: Option<Index>,
    /// The last index handed out for applying.
    emitted: Index,
    applied: Index,
    proposals: Vec<(Waiter, Stamped)>,
    proposed: VecDeque<Proposed>,
    pub(crate) reads: Reads,
    /// Handed out and not applied yet, with their sizes, and the sum of these.
    applying: VecDeque<(Index, usize)>,
    applying_bytes: usize,
    /// Writes that are committed and wait for more copies.
    pub(crate) held: Vec<Held>,
    /// Writes in `proposals` and `proposed`.
    writes: usize,
    /// Term and leader at the last look.
    leader_before: (Term, Option<PeerId>),
    /// While leading.
    pub(crate) followers: Followers,
    /// Where peers are that have spoken and do not belong to the configuration in force here, which may be an old one: a voter
    /// that does not know a candidate must be able to answer it. A peer is in one place for ever, so this can't be out of
    /// date.
    strangers: BTreeMap<PeerId, NodeId>,
    /// Where its table will be once the driver has put another one in place.
    installing: Option<Index>,
}

impl Replica {
    pub(crate) fn new(
        shard: ShardId,
        group: Group,
        applied: Index,
        revision: Revision,
        clock: HybridClock,
    ) -> Replica {
        Replica {
            shard,
            group,
            last_batch: 0,
            stats: TableStats { shard, revision, ..TableStats::default() },
            clock,
            leads_from: None,
            emitted: applied,
            applied,
            proposals: Vec::new(),
            proposed: VecDeque::new(),
            reads: Reads::new(shard),
            applying: VecDeque::new(),
            applying_bytes: 0,
            held: Vec::new(),
            writes: 0,
            leader_before: (Term(0), None),
            followers: Followers::default(),
            strangers: BTreeMap::new(),
            installing: None,
        }
    }

    /// The last index handed out for applying: all changes of the configuration up to it are in force.
    pub(crate) fn emitted(&self) -> Index {
        self.emitted
    }

    pub(crate) fn applied(&self) -> Index {
        self.applied
    }

    pub(crate) fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        self.group.configuration().node_of(peer).or_else(|| self.strangers.get(&peer).copied())
    }

    /// This peer has spoken, from that node.
    pub(crate) fn heard(&mut self, peer: PeerId, from: NodeId) {
        if self.group.configuration().node_of(peer).is_some() {
            self.strangers.remove(&peer);
            return;
        }
        // Peers are numbered as they are made: those of the lowest numbers are gone first.
        if self.strangers.insert(peer, from).is_none() && self.strangers.len() > GROUP_REPLICAS_MAX {
            self.strangers.pop_first();
        }
    }

    pub(crate) fn peer_on(&self, node: NodeId) -> Option<PeerId> {
        self.group.configuration().peer_on(node)
    }

    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.group.leader().and_then(|peer| self.node_of(peer))
    }

    /// Whether it belongs to its group, as far as it knows. One that is new does not, and has nothing that anybody should see.
    pub(crate) fn is_member(&self) -> bool {
        self.group.configuration().node_of(self.group.me()).is_some()
    }

    /// Whether a table is being put in place, or about to be.
    pub(crate) fn is_busy(&self) -> bool {
        self.is_installing() || self.group.is_installing()
    }

    pub(crate) fn leads(&self) -> bool {
        self.group.role() == Role::Leader
    }

    /// Bytes handed out for applying and not applied yet.
    pub(crate) fn applying_bytes(&self) -> usize {
        self.applying_bytes
    }

    /// Whether an entry can be stamped and proposed now.
    pub(crate) fn takes_writes(&self) -> bool {
        // While a table is being put in place, its clock is not known here.
        let knows_clock =
            self.installing.is_none() && self.leads_from.is_some_and(|first| self.emitted >= first);
        self.group.can_propose() && knows_clock
    }

    /// Whether writes still wait here for their entries to commit.
    pub(crate) fn has_proposed(&self) -> bool {
        !self.proposed.is_empty() || !self.proposals.is_empty()
    }

    pub(crate) fn pending_writes(&self) -> usize {
        self.writes
    }

    pub(crate) fn add_write(&mut self, asked: Pending) {
        let waiter = asked.waiter();
        let Call { request, stamp, .. } = asked.call;
        let command = match request {
            Request::Write { parts } => Command::Write { parts },
            Request::Digest { .. } => Command::Digest,
            Request::ChangeLayout(change) => Command::Layout(change),
            other => unreachable!("{other:?} is not a write"),
        };
        self.proposals.push((waiter, Stamped { stamp, command }));
        self.writes += 1;
    }

    /// Makes entries of this turn's writes. Gives back those that can't be proposed now.
    pub(crate) fn propose(&mut self, now: Now) -> Vec<(Waiter, Stamped)> {
        if self.proposals.is_empty() {
            return Vec::new();
        }
        if !self.takes_writes() {
            self.writes -= self.proposals.len();
            return std::mem::take(&mut self.proposals);
        }
        let mut rest = std::mem::take(&mut self.proposals).into_iter().peekable();
        while rest.peek().is_some() {
            let (mut waiters, mut commands, mut bytes) = (Vec::new(), Vec::new(), 0);
            while let Some((waiter, command)) =
                rest.next_if(|_| commands.len() < ENTRY_COMMANDS_MAX && bytes < ENTRY_BYTES_SOFT)
            {
                bytes += command.weight();
                waiters.push(waiter);
                commands.push(command);
            }
            let clock = self.clock.next(now);
            let entry = Entry { clock, commands };
            let Some((index, term)) = self.group.propose(entry.encode()) else {
                let unproposed: Vec<_> = waiters.into_iter().zip(entry.commands).chain(rest).collect();
                self.writes -= unproposed.len();
                return unproposed;
            };
            self.clock = clock;
            self.proposed.push_back(Proposed { index, term, waiters });
        }
        Vec::new()
    }

    /// Hands out committed entries, each with those who wait for it. A change of the configuration is in force for those after
    /// it: their writes may wait for other replicas than those before it.
    pub(crate) fn emit(
        &mut self,
        committed: impl IntoIterator<Item = LogEntry>,
        now_us: u64,
        outcome: &mut Outcome,
    ) {
        for entry in committed {
            match entry.kind {
                EntryKind::Normal => {
                    if let Some(stamp) = Entry::peek_clock(&entry.payload) {
                        self.clock = self.clock.max(stamp);
                    }
                }
                EntryKind::Configuration => {
                    if let Err(Malformed(reason)) = self.group.apply_change(&entry) {
                        let (shard, index) = (self.shard, entry.index);
                        outcome.unread = Some(ShardError::Unread { shard, index, reason }.to_string());
                        return;
                    }
                    self.reads.void();
                }
            }
            self.emitted = entry.index;
            let (mut waiters, mut held) = (Vec::new(), Vec::new());
            // What is committed is on a majority; who has just lost the lead can't say more.
            let majority = self.group.fewest_copies(entry.index);
            let is_decided =
                |proposed: &mut Proposed| proposed.index <= entry.index || proposed.term < entry.term;
            while let Some(proposed) = self.proposed.pop_front_if(is_decided) {
                self.writes -= proposed.waiters.len();
                let is_ours = proposed.term == entry.term || planted::is(Bug::ReplyForOverwritten);
                if proposed.index == entry.index && is_ours {
                    waiters = proposed.waiters;
                } else {
                    outcome
                        .lost
                        .extend(proposed.waiters.into_iter().filter(|waiter| waiter.token != Token::NOBODY));
                }
            }
            let copies = if waiters.is_empty() { 0 } else { self.group.copies(entry.index).max(majority) };
            for waiter in waiters.iter().filter(|waiter| waiter.token != Token::NOBODY) {
                // What is said of a write in doubt is weighed by the node, not by whoever applies it.
                if waiter.durability.copies.of(self.group.configuration()) > copies || waiter.in_doubt {
                    held.push(waiter.token);
                    self.held.push(Held::new(*waiter, now_us));
                } else {
                    outcome.done += 1;
                    outcome.done_bytes += waiter.weight;
                }
            }
            let waiters = waiters.into_iter().map(|waiter| waiter.token).collect();
            self.applying.push_back((entry.index, entry.payload.len()));
            self.applying_bytes += entry.payload.len();
            outcome.apply.push(ApplyJob { shard: self.shard, entry, waiters, copies, held });
        }
    }

    /// The table has reached this index: the reads that waited for it.
    pub(crate) fn applied_to(&mut self, index: Index, ready: &mut Vec<ReadJob>) {
        self.applied = self.applied.max(index);
        self.group.applied(index);
        while let Some((_, bytes)) = self.applying.pop_front_if(|(applying, _)| *applying <= index) {
            self.applying_bytes -= bytes;
        }
        self.release_reads(ready);
    }

    /// Whether the driver is putting another table in place.
    pub(crate) fn is_installing(&self) -> bool {
        self.installing.is_some()
    }

    /// A table is about to be put in place. Those who wait for writes up to its index will not hear of them any more. What an earlier
    /// term than that index's has left behind it is lost for certain; the rest may yet be committed.
    pub(crate) fn install(&mut self, base: Base) -> Overtaken {
        (self.emitted, self.installing) = (base.index, Some(base.index));
        let mut overtaken = Overtaken::default();
        let is_decided = |proposed: &mut Proposed| proposed.index <= base.index || proposed.term < base.term;
        while let Some(proposed) = self.proposed.pop_front_if(is_decided) {
            self.writes -= proposed.waiters.len();
            let of = if proposed.index <= base.index { &mut overtaken.in_doubt } else { &mut overtaken.lost };
            of.extend(proposed.waiters.into_iter().filter(|waiter| waiter.token != Token::NOBODY));
        }
        overtaken
    }

    /// The table is in place.
    pub(crate) fn installed(&mut self, revision: Revision, clock: HybridClock) {
        self.installing = None;
        self.stats.revision = revision;
        self.clock = self.clock.max(clock);
    }

    pub(crate) fn release_reads(&mut self, ready: &mut Vec<ReadJob>) {
        self.reads.release(self.applied, ready);
    }

    /// Begins a round for all fresh reads. `None` if this replica may not answer reads now.
    pub(crate) fn begin_round(&mut self, number: u64, now_us: u64) -> Option<Term> {
        let index = self.group.read_index()?;
        self.reads.begin_round(number, now_us, index, standing(&self.group));
        Some(self.group.term())
    }

    /// A node has confirmed the terms that it was asked about in this round. A round is one question for many shards,
    /// and not every node is asked about each: only one with a replica of this shard speaks for it.
    pub(crate) fn confirm(&mut self, number: u64, by: NodeId, now_us: u64) {
        if let Some(peer) = self.peer_on(by) {
            self.reads.confirm(number, peer, now_us, standing(&self.group));
        }
    }

    /// The index that a read has to see which begins now, if this replica is sure to lead: first the index, then the
    /// lease.
    pub(crate) fn leased_index(&self, now_us: u64) -> Option<Index> {
        let index = self.group.read_index()?;
        self.reads.lease_holds(self.group.term(), now_us).then_some(index)
    }

    /// Begins to hand leadership over.
    pub(crate) fn hand_over_to(&mut self, transferee: PeerId) {
        self.reads.end_lease(self.group.term());
        self.group.transfer_to(transferee);
    }

    /// The same, because the group is about to leave this replica out. Whoever leads it then asks others, so lease and rounds end here.
    pub(crate) fn hand_over_in_joint(&mut self, transferee: PeerId) {
        if planted::is(Bug::LeaseSurvivesReconfiguration) {
            self.group.transfer_to(transferee);
        } else if planted::is(Bug::RoundSurvivesReconfiguration) {
            self.reads.drop_lease();
            self.group.transfer_to(transferee);
        } else {
            self.hand_over_to(transferee);
        }
    }

    /// While leading: how many entries this peer of the group lacks.
    pub(crate) fn lag(&self, peer: PeerId) -> Option<u64> {
        Some(self.group.last().0.saturating_sub(self.group.matched(peer)?.0))
    }

    /// Whether the leader has changed since the last look; what that means for the requests here.
    pub(crate) fn notice_leader(&mut self) -> bool {
        let leader = (self.group.term(), self.group.leader());
        if leader == self.leader_before {
            return false;
        }
        self.leader_before = leader;
        self.leads_from = self.leads().then(|| self.group.last());
        true
    }

    /// Requests whose deadline has passed: writes that may have happened, and reads.
    pub(crate) fn expire(&mut self, now_us: u64) -> (Vec<Waiter>, Vec<Pending>) {
        let mut writes = Vec::new();
        for proposed in &mut self.proposed {
            for waiter in proposed.waiters.iter_mut().filter(|waiter| waiter.deadline_us <= now_us) {
                writes.push(*waiter);
                *waiter = Waiter::NOBODY;
            }
        }
        (writes, self.reads.expire(now_us))
    }

    /// Takes out all that waits here, because there will be no more answers: writes that were not proposed, writes in
    /// doubt, and reads.
    pub(crate) fn dissolve(&mut self) -> (Vec<(Waiter, Stamped)>, Vec<Waiter>, Vec<Pending>) {
        let proposed = std::mem::take(&mut self.proposed).into_iter().flat_map(|proposed| proposed.waiters);
        let held = std::mem::take(&mut self.held).into_iter().map(Held::into_waiter);
        (std::mem::take(&mut self.proposals), proposed.chain(held).collect(), self.reads.expire(u64::MAX))
    }

    pub(crate) fn report(&self) -> ringfort_types::ReplicaReport {
        ringfort_types::ReplicaReport {
            shard: self.shard,
            peer: self.group.me(),
            role: self.group.role(),
            term: self.group.term(),
            last: self.group.last(),
            committed: self.group.committed(),
            applied: self.applied,
            revision: self.stats.revision,
            keys_estimate: self.stats.keys_estimate,
            bytes_estimate: self.stats.bytes_estimate,
            reached: Epoch(0),
        }
    }
}

fn standing(group: &Group) -> Standing<'_> {
    let leads = group.role() == Role::Leader;
    Standing { me: group.me(), leads, term: group.term(), configuration: group.configuration() }
}

#[cfg(test)]
mod tests;
