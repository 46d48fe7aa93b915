//! Those who say whether what happens may happen. One file for each promise, with its source.
//!
//! A judge is told of events and answers with what is broken. It looks from outside: at what nodes write to their
//! disks, what they say to each other and to clients, and never at what they believe. `logs` is what several of
//! them need: each replica's log and hard state, as handed to the disk and as synced.

use std::collections::BTreeMap;

use ringfort_consensus::inspect::Seen;
use ringfort_node::{FoundReplica, Opened};
use ringfort_ring::Layout;
use ringfort_storage::Durable;
use ringfort_types::{Base, ClusterState, Index, LogEntry, Record, ShardId, Term};

mod acknowledged;
mod apply_order;
mod committed;
pub(crate) mod configurations;
mod damaged;
pub(crate) mod digests;
mod durable_log;
mod kept_log;
pub(crate) mod layouts;
mod leader_completeness;
pub mod linearizable;
mod log_matching;
mod logs;
pub(crate) mod lost_writes;
mod once;
mod one_leader;
mod one_vote;
pub(crate) mod program_order;
pub(crate) mod reads;
mod receipts;
pub(crate) mod rejected;
pub(crate) mod replay;
mod reports;
mod synced_first;
pub(crate) mod undestroyed;
pub(crate) mod versions;
pub(crate) mod whole_snapshots;

pub(crate) use configurations::Configurations;
pub(crate) use logs::Logs;
pub(crate) use whole_snapshots::NAME as WHOLE_SNAPSHOTS;

/// Requests are answered once: `clients`.
pub(crate) const ANSWERED_ONCE: &str = "every request is answered, once";
/// A client that sends the writes of a session in order is never told of a gap: `sessions`.
pub(crate) const REPEATED_IN_ORDER: &str = "who sends in order leaves no gap";
/// And before their deadline, whatever happens, by a process that runs: `clients`.
pub(crate) const ANSWERED_IN_TIME: &str = "every request is answered in time";
/// PITFALLS 14, 20: `process` and `verdict`.
pub(crate) const BOUNDED: &str = "everything in a node stays within its bound, and is empty at rest";
/// PITFALLS 16a: `faults` and `process`.
pub(crate) const WIPED_IS_REFUSED: &str = "a wiped node is not let in";
/// MEMBERSHIP 7: `members` and `verdict`.
pub(crate) const OLD_IS_REFUSED: &str = "a disk that is older than it was is not let in";
/// PITFALLS 7: `data`.
pub(crate) const ROT_IS_REFUSED: &str = "a log that has changed is refused";
/// Within its own time, from when it hears of it: `faults`.
pub(crate) const ENDS_WHEN_ASKED: &str = "a node that is asked to stop ends";
/// Who should not lead hands over: `exams`.
pub(crate) const HANDS_OVER: &str = "who should not lead hands over soon";
/// No fault of these runs is a reason for a node to end for good, or to be refused: `process` and `data`.
pub(crate) const NODE_GOES_ON: &str = "a node goes on, or starts again";
/// Whoever may do something does it, and nobody else: `rights`.
pub(crate) const RIGHTS_ARE_KEPT: &str = "nothing forbidden is done, and nothing allowed is refused";
/// Liveness, once everything has healed (PITFALLS 13): `verdict`.
pub(crate) const HEALS: &str = "after the healing every shard works again";

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broken {
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

/// Makes a [`Broken`] of an invariant and a format.
macro_rules! broken {
    ($invariant:expr, $($what:tt)*) => {
        crate::judges::Broken { invariant: $invariant, what: format!($($what)*) }
    };
}
use broken;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Judges {
    pub(crate) logs: Logs,
    one_leader: one_leader::OneLeader,
    one_vote: one_vote::OneVote,
    log_matching: log_matching::LogMatching,
    leader_completeness: leader_completeness::LeaderCompleteness,
    committed: committed::Committed,
    apply_order: apply_order::ApplyOrder,
    pub(crate) damaged: damaged::Damaged,
    pub(crate) configurations: Configurations,
    pub(crate) undestroyed: undestroyed::Undestroyed,
    pub(crate) digests: digests::Digests,
    pub(crate) layouts: layouts::Layouts,
    pub(crate) receipts: receipts::Receipts,
    pub(crate) once: once::Once,
    pub(crate) program_order: program_order::ProgramOrder,
    pub(crate) reads: reads::Reads,
    pub(crate) rejected: rejected::Rejected,
    pub(crate) reports: reports::Reports,
    pub(crate) versions: versions::Versions,
    pub(crate) whole_snapshots: whole_snapshots::WholeSnapshots,
}

impl Judges {
    /// The cluster is born with this layout.
    pub(crate) fn born(&mut self, layout: &Layout) {
        self.configurations.born(layout);
        self.reads.born(layout);
    }

    /// A node hands records to its disk.
    pub(crate) fn wrote(&mut self, host: usize, records: &[Record]) -> Vec<Broken> {
        let mut broken = Vec::new();
        for record in records {
            if let Record::Entry(shard, entry) = record {
                let before = self.logs.replica(host, *shard).written.at(Index(entry.index.0 - 1));
                broken.extend(self.log_matching.wrote(host, *shard, entry, before));
            }
            self.logs.wrote(host, record);
        }
        broken
    }

    /// They are synced.
    pub(crate) fn synced(&mut self, host: usize, records: &[Record]) -> Vec<Broken> {
        let mut broken = Vec::new();
        for record in records {
            if let Record::Replica(shard, _) | Record::Gone(shard, _) = record {
                self.logs.forgets(host, *shard);
            }
        }
        for record in records {
            let of_one_anew = |record: &Record, shard| matches!(record, Record::Replica(of, _) | Record::Gone(of, _) if *of == shard);
            let is_anew = |shard| records.iter().any(|other| of_one_anew(other, shard));
            if let Record::HardState(shard, state) = record
                && !is_anew(*shard)
            {
                let before = self.logs.replica(host, *shard).synced_state;
                broken.extend(one_vote::synced(host, *shard, before, *state));
            }
            self.logs.synced(host, record);
        }
        broken.extend(self.undestroyed.synced(host, records, &self.configurations));
        broken
    }

    /// A process has ended: what it had not synced is in doubt.
    pub(crate) fn ended(&mut self, host: usize) {
        self.logs.ended(host);
        self.apply_order.ended(host);
        self.damaged.ended(host);
        self.layouts.ended(host);
        self.reports.ended(host);
    }

    /// A node has heard that a replica's table is damaged, and has finished that turn.
    pub(crate) fn heard_of_damage(&mut self, host: usize, shard: ShardId) {
        let term = self.logs.replica(host, shard).written_state.term;
        self.damaged.heard(host, shard, term);
    }

    /// A process has opened its log, in which there are, or were, these replicas.
    pub(crate) fn found(&mut self, host: usize, replicas: &BTreeMap<ShardId, FoundReplica>) -> Vec<Broken> {
        let (undestroyed, groups) = (&mut self.undestroyed, &self.configurations);
        let found = replicas.iter().filter_map(|(shard, found)| {
            undestroyed.found(host, *shard, (found.peer, found.is_gone), groups)
        });
        found.collect()
    }

    /// A node hands out an entry as committed.
    pub(crate) fn handed_out(&mut self, shard: ShardId, entry: &LogEntry) -> Option<Broken> {
        let is_new = self.configurations.handed_out(shard, entry);
        is_new.then(|| self.undestroyed.look(shard, &self.configurations)).flatten()
    }

    /// A process has opened its log and its tables, and has applied these entries to them.
    pub(crate) fn opened(
        &mut self,
        host: usize,
        opened: &BTreeMap<ShardId, Opened>,
        replayed: &[(ShardId, LogEntry)],
    ) -> Vec<Broken> {
        let mut broken = Vec::new();
        for (shard, found) in opened {
            broken.extend(durable_log::opened(host, *shard, self.logs.replica(host, *shard), found));
            if self.logs.replica(host, *shard).anew == Some(found.peer) {
                self.logs.forgets(host, *shard);
            }
            self.logs.opened(host, *shard, found);
            let count = replayed.iter().filter(|(of, _)| of == shard).count() as u64;
            self.apply_order.opened(host, *shard, found.applied, count);
        }
        for (shard, entry) in replayed {
            broken.extend(self.applied(host, *shard, entry));
        }
        broken
    }

    /// A node has begun a replica that has nothing, in place of another.
    pub(crate) fn begun(&mut self, host: usize, shard: ShardId) {
        self.apply_order.opened(host, shard, Index(0), 0);
        self.damaged.begun(host, shard);
    }

    /// A node says something to another.
    pub(crate) fn said(&mut self, host: usize, shard: ShardId, seen: &Seen) -> Vec<Broken> {
        let mut broken = Vec::new();
        let replica = self.logs.replica(host, shard);
        broken.extend(synced_first::said(host, shard, replica, seen));
        broken.extend(self.one_vote.said(host, shard, seen));
        broken.extend(self.damaged.said(host, shard, seen));
        if let Some(is_new) =
            one_leader::speaks_as_leader(seen).then(|| self.one_leader.said(host, shard, seen))
        {
            match is_new {
                Ok(false) => {}
                Ok(true) => {
                    let committed = self.committed.of(shard);
                    broken.extend(self.leader_completeness.leads(host, shard, seen.term, replica, committed));
                }
                Err(other) => broken.push(other),
            }
        }
        broken
    }

    /// A node applies an entry.
    pub(crate) fn applied(&mut self, host: usize, shard: ShardId, entry: &LogEntry) -> Vec<Broken> {
        let mut broken = Vec::new();
        broken.extend(self.apply_order.applied(host, shard, entry.index));
        broken.extend(self.handed_out(shard, entry));
        let term = self.logs.replica(host, shard).written_state.term;
        match self.committed.applied(host, shard, entry, term) {
            Ok(true) => {
                for stamp in self.reads.committed(shard, entry) {
                    broken.extend(self.rejected.done(&stamp));
                }
            }
            Ok(false) => {}
            Err(other) => broken.push(other),
        }
        broken
    }

    /// A node's log has let go of entries.
    pub(crate) fn compacted(&self, host: usize, bases: &[(ShardId, Base)], durable: &Durable) -> Vec<Broken> {
        let mut broken = kept_log::compacted(host, bases, durable);
        for (shard, base) in bases {
            broken.extend(self.committed.has(host, *shard, base.index, base.term));
        }
        broken
    }

    /// A node has put a table with this digest in the place of another.
    pub(crate) fn installed(&mut self, host: usize, shard: ShardId, base: Base, digest: u64) -> Vec<Broken> {
        self.apply_order.opened(host, shard, base.index, 0);
        let whole = self.whole_snapshots.installed(host, shard, base.index, digest);
        whole.into_iter().chain(self.committed.has(host, shard, base.index, base.term)).collect()
    }

    /// Who spoke as this shard's leader in the latest term that had one.
    pub(crate) fn leader(&self, shard: ShardId) -> Option<usize> {
        self.one_leader.latest(shard)
    }

    /// Who spoke as this shard's leader in this term.
    pub(crate) fn leader_in(&self, shard: ShardId, term: Term) -> Option<usize> {
        self.one_leader.of(shard, term)
    }

    /// A node shows who leads.
    pub(crate) fn shown(&mut self, state: &ClusterState) -> Vec<Broken> {
        self.one_leader.shown(state)
    }

    /// A client has an acknowledgement; `is_new` if it is of a change that nobody has been told of before.
    pub(crate) fn acknowledged(&mut self, receipt: &ringfort_types::Receipt, is_new: bool) -> Vec<Broken> {
        let mut broken = if is_new { self.receipts.given(receipt) } else { Vec::new() };
        let around = self.configurations.around(receipt.shard, receipt.index);
        broken.extend(acknowledged::given(&self.logs, around, receipt));
        broken
    }
}
