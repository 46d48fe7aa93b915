//! What nodes report to each other, each second and when something has changed that others should know at once.
//!
//! A report is what a node says of itself and of each of its replicas. The reports of one process have numbers that rise with each change.
//! Another node is told the whole report until it answers that it has one, and from then on what has changed since the last one that it
//! has: nothing, most of the time. What is told of a replica is all there is to say of it, so a difference to a report can be added to
//! any later one, and it does not matter which of them got lost on the way.
//!
//! Invariants:
//! - what is known of a node is one of its reports, of the process that is listened to ([`marks`](crate::marks)), and never one before it;
//! - a difference is added only to the report that it names as its base, or to a later one of the same process. Whoever has none says so,
//!   and is told the whole report.
//!
//! Versions that know no differences answer nothing, and number nothing: they are told, and tell, whole reports.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    DiskSpace, DiskState, NodeId, NodeReport, PeerMessage, ReplicaReport, ReportChanges, ReportReply, Role,
    ShardId, SnapshotProgress,
};

use crate::node::{Node, Slot};

/// Room on a disk is told anew when it has changed by such a part of the whole.
const SPACE_STEPS: u64 = 256;

/// What is told of one shard, and in which report that came first. No replica: that it is gone.
#[derive(Clone, Copy, Debug)]
struct Told {
    number: u64,
    replica: Option<ReplicaReport>,
}

/// This node's own reports.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// The last one.
    last: NodeReport,
    /// Of all shards that were ever in one.
    shards: BTreeMap<ShardId, Told>,
    /// The report in which the damaged shards came first.
    damaged_number: u64,
}

impl Reports {
    /// This is how it is now. It becomes a report of its own if that is not what the last one says.
    fn note(&mut self, now: NodeReport) {
        let number = self.last.number + 1;
        let mut is_new = self.last.number == 0 || now.disk != self.last.disk || now.sends != self.last.sends;
        is_new |= now.space != self.last.space || now.is_slow != self.last.is_slow;
        is_new |= self.note_replicas(number, &now.replicas);
        if now.damaged != self.last.damaged {
            self.damaged_number = number;
            is_new = true;
        }
        if is_new {
            self.last = NodeReport { number, ..now };
        }
    }

    /// Whether these replicas are not those of the last report. Both lists are in the order of the shards, so one walk along both finds
    /// it out, and at rest touches nothing else.
    fn note_replicas(&mut self, number: u64, now: &[ReplicaReport]) -> bool {
        debug_assert!(now.is_sorted_by(|one, next| one.shard < next.shard));
        let mut is_new = false;
        let mut change = |shard, replica| {
            self.shards.insert(shard, Told { number, replica });
            is_new = true;
        };
        let mut last = self.last.replicas.iter().peekable();
        for replica in now {
            while let Some(gone) = last.next_if(|last| last.shard < replica.shard) {
                change(gone.shard, None);
            }
            if last.next_if(|last| last.shard == replica.shard) != Some(replica) {
                change(replica.shard, Some(*replica));
            }
        }
        last.for_each(|gone| change(gone.shard, None));
        is_new
    }

    /// For somebody who has the report of this number: what has changed since. Of number 0: all of it.
    fn since(&self, base: u64) -> PeerMessage {
        if base == 0 {
            return self.last.clone().into();
        }
        let (mut replicas, mut gone) = (Vec::new(), Vec::new());
        // At rest there is nothing to look for.
        let shards = (self.last.number > base).then_some(&self.shards);
        for (shard, told) in shards.into_iter().flatten().filter(|(_, told)| told.number > base) {
            match told.replica {
                Some(replica) => replicas.push(replica),
                None => gone.push(*shard),
            }
        }
        let is_damage_new = self.damaged_number > base;
        ReportChanges {
            base,
            number: self.last.number,
            disk: self.last.disk,
            replicas,
            gone,
            damaged: is_damage_new.then(|| self.last.damaged.clone()),
            sends: self.last.sends.clone(),
            space: self.last.space,
            is_slow: self.last.is_slow,
        }
        .into()
    }
}

/// The last report of another node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The process whose report it is; 0 if there is none.
    pub process: u64,
    /// Its number there; 0 if that process does not number them.
    pub number: u64,
    /// Whether the node can write.
    pub disk: DiskState,
    /// By shard, each replica that it has.
    pub replicas: BTreeMap<ShardId, ReplicaReport>,
    /// The shards whose replica on it takes no part, because its table is damaged.
    pub damaged: BTreeSet<ShardId>,
    /// The snapshots that it sends.
    pub sends: Vec<SnapshotProgress>,
    /// About how much room it has.
    pub space: DiskSpace,
    /// Its disk is told as one that hangs, and is only slow.
    pub is_slow: bool,
}

impl Heard {
    /// A whole report of a process.
    pub fn whole(process: u64, report: NodeReport) -> Heard {
        Heard {
            process,
            number: report.number,
            disk: report.disk,
            replicas: report.replicas.into_iter().map(|replica| (replica.shard, replica)).collect(),
            damaged: report.damaged.into_iter().collect(),
            sends: report.sends,
            space: report.space,
            is_slow: report.is_slow,
        }
    }

    /// Whether the whole report of this number is not one before it, of the same process.
    fn is_followed_by(&self, process: u64, number: u64) -> bool {
        self.process != process || number == 0 || number >= self.number
    }

    /// Whether changes to a report of this number can be added.
    fn has(&self, process: u64, base: u64) -> bool {
        let is_known = self.process == process && self.number > 0 && base <= self.number;
        is_known || planted::is(Bug::ReportNotAcknowledged)
    }

    fn add(&mut self, process: u64, changes: ReportChanges) {
        (self.process, self.number, self.disk) = (process, changes.number, changes.disk);
        (self.sends, self.space, self.is_slow) = (changes.sends, changes.space, changes.is_slow);
        self.replicas.extend(changes.replicas.into_iter().map(|replica| (replica.shard, replica)));
        for gone in changes.gone {
            self.replicas.remove(&gone);
        }
        if let Some(damaged) = changes.damaged {
            self.damaged = damaged.into_iter().collect();
        }
    }
}

impl Node {
    /// The last report that this node has told of itself.
    pub fn told_report(&self) -> &NodeReport {
        &self.reports.last
    }

    /// The last report of another node that has come here.
    pub fn heard_report(&self, node: NodeId) -> Option<&Heard> {
        Some(self.peers.report(node)?.0)
    }

    pub(crate) fn report(&self) -> NodeReport {
        let replicas = self.slots.iter().filter_map(|slot| slot.replica.as_ref());
        let members = replicas.filter(|replica| replica.is_member());
        // As many as last time, most of the time.
        let mut replicas = Vec::with_capacity(self.reports.last.replicas.len());
        replicas.extend(
            members.map(|replica| ReplicaReport { reached: self.reached(replica.shard), ..replica.report() }),
        );
        let damaged = (0..).zip(&self.slots).filter(|(_, slot)| slot.damage.is_some());
        NodeReport {
            disk: self.told_disk(),
            replicas,
            damaged: damaged.map(|(number, _)| ShardId(number)).collect(),
            number: 0,
            sends: self.snapshots_progress(),
            space: self.space,
            is_slow: self.disk == DiskState::Working && self.slow_disk.is_slow(),
        }
    }

    /// So much room there is now. What is told of it need not be right to the byte, and is not told each second.
    pub(crate) fn handle_space(&mut self, space: DiskSpace) {
        let step = space.total / SPACE_STEPS;
        if space.total != self.space.total || space.free.abs_diff(self.space.free) > step {
            self.space = space;
        }
    }

    /// Tells all other nodes what is open here, if anything is.
    pub(crate) fn send_reports(&mut self) {
        self.send_reports_to(&self.peers.all_up());
    }

    pub(crate) fn send_reports_to(&mut self, nodes: &[NodeId]) {
        if !self.is_any_open() {
            return;
        }
        self.reports.note(self.report());
        for node in nodes {
            let message = self.reports.since(self.peers.has_report(*node));
            self.send(*node, message);
            if planted::is(Bug::ReportNotAcknowledged) {
                self.peers.set_has_report(*node, self.reports.last.number);
            }
        }
    }

    pub(crate) fn handle_report(&mut self, from: NodeId, report: NodeReport) {
        let process = self.marks.process_of(from);
        let known = self.heard_report(from);
        if known.is_none_or(|known| known.is_followed_by(process, report.number)) {
            let led_anew = follow_leaders(&mut self.slots, from, &report.replicas);
            let now_us = self.now.monotonic_us;
            self.peers.hear_report(from, now_us, |known| *known = Heard::whole(process, report));
            self.take_back_all(led_anew);
        }
        let number = self.heard_report(from).map_or(0, |known| known.number);
        if number > 0 {
            self.send(from, ReportReply { process, number }.into());
        }
    }

    pub(crate) fn handle_report_changes(&mut self, from: NodeId, changes: ReportChanges) {
        let process = self.marks.process_of(from);
        let (base, number) = (changes.base, changes.number);
        let known = self.heard_report(from);
        if !known.is_some_and(|known| known.has(process, base)) {
            return self.send(from, ReportReply { process, number: 0 }.into());
        }
        if known.is_some_and(|known| known.number > number) {
            // A later one has overtaken it.
            return;
        }
        let now_us = self.now.monotonic_us;
        self.peers.hear_report(from, now_us, |known| known.add(process, changes));
        // Also what has not changed: who leads a shard may have been forgotten here since.
        let known = self.peers.report(from).into_iter().flat_map(|(known, _)| known.replicas.values());
        let led_anew = follow_leaders(&mut self.slots, from, known);
        self.take_back_all(led_anew);
        if number != base {
            self.send(from, ReportReply { process, number }.into());
        }
    }

    pub(crate) fn handle_report_reply(&mut self, from: NodeId, reply: ReportReply) {
        if reply.process == self.marks.process() {
            self.peers.set_has_report(from, reply.number);
        }
    }

    fn take_back_all(&mut self, shards: Vec<ShardId>) {
        for shard in shards {
            self.take_back_forwards(shard);
        }
    }
}

/// Who leads what, as a node has just reported. Shards without a replica here that another node led before.
fn follow_leaders<'a>(
    slots: &mut [Slot],
    from: NodeId,
    replicas: impl IntoIterator<Item = &'a ReplicaReport>,
) -> Vec<ShardId> {
    let mut changed = Vec::new();
    for replica in replicas.into_iter().filter(|replica| replica.role == Role::Leader) {
        if let Some(slot) = slots.get_mut(replica.shard.0 as usize)
            && slot.reported.is_none_or(|(term, _)| term <= replica.term)
        {
            let before = slot.reported.replace((replica.term, from));
            if slot.replica.is_none() && before.is_some_and(|(_, node)| node != from) {
                changed.push(replica.shard);
            }
        }
    }
    changed
}

#[cfg(test)]
mod tests;
