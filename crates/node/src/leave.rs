//! When this node should lead nothing: it is about to end, or its disk is full, hangs, or is slow (`slow_disk`).
//!
//! A node that ends hands its leaderships over, then takes no more requests of its clients and answers those that it has taken, and
//! then it may end.
//!
//! Leaderships go to the replica that has most of the log, among those that can be reached and can write; whoever
//! waits for an answer waits for the new leader's. If there is none, a node that ends ends, and a node whose disk takes
//! nothing goes on leading for the readers' sake and refuses writes (PITFALLS 5).

use ringfort_consensus::Group;
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Code, DiskState, Failure, PeerId, Replica, ShardId};

use crate::Effect;
use crate::node::Node;

/// A node that stops waits for at most so many ticks for others to take over.
const STOP_TICKS: u64 = 2_000 / TICK_MS;

/// And then at most so many for answers to what it has taken.
const DRAIN_TICKS: u64 = 1_500 / TICK_MS;

/// Whether the process is to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is.
    Running,
    /// It hands over, since this tick, and then it ends.
    LeavingSince(u64),
    /// It has handed over, and takes nothing more, since this tick.
    DrainingSince(u64),
    /// It may end.
    Gone,
}

impl Node {
    pub(crate) fn stop(&mut self) {
        if self.phase == Phase::Running {
            self.phase = Phase::LeavingSince(self.ticks);
            self.set_abstaining();
            self.keep_marks();
        }
    }

    /// What a client's request is told that comes too late.
    pub(crate) fn refusal_by_stop(&self) -> Option<Failure> {
        matches!(self.phase, Phase::DrainingSince(_) | Phase::Gone).then(|| {
            Failure::rejected(
                Code::Stopping,
                format!("{} is stopping: ask another one", self.called(self.id)),
            )
        })
    }

    /// Tells all replicas here whether they may stand for election.
    pub(crate) fn set_abstaining(&mut self) {
        let abstains = self.disk != DiskState::Working || self.phase != Phase::Running;
        for replica in self.slots.iter_mut().filter_map(|slot| slot.replica.as_mut()) {
            replica.group.abstain(abstains);
        }
    }

    pub(crate) fn handle_disk(&mut self, disk: DiskState) {
        if self.disk == disk {
            return;
        }
        self.disk = disk;
        self.take_disk_in();
    }

    /// What is known of the disk has changed.
    pub(crate) fn take_disk_in(&mut self) {
        self.set_abstaining();
        self.send_reports();
        if !self.has_leaders_disk() {
            self.hand_over();
        }
    }

    /// What a write is told that this node can't take, nor anybody else in its place, because of the disk.
    pub(crate) fn refusal_by_disk(&self) -> Option<Failure> {
        match self.disk {
            DiskState::Working => None,
            DiskState::Full => Some(Failure::rejected(
                Code::ResourceExhausted,
                format!(
                    "the disk of {} is full: make room there, writes are taken again within a second; reads go on",
                    self.called(self.id)
                ),
            )),
            DiskState::Hung => Some(Failure::rejected(
                Code::Unavailable,
                format!(
                    "the disk of {} does not finish its syncs, and no other node can lead: look at that disk; reads \
                     of what is in its tables go on",
                    self.called(self.id)
                ),
            )),
        }
    }

    /// What a read is told that waits here for longer than its time because of the disk: for writes that were committed before it, and that the
    /// shard's table can't take.
    pub(crate) fn refusal_of_reads_by_disk(&self, shard: ShardId) -> Option<Failure> {
        let why = match self.disk {
            DiskState::Working => return None,
            DiskState::Full => "is full",
            DiskState::Hung => "does not finish its syncs",
        };
        Some(Failure::rejected(
            Code::Unavailable,
            format!(
                "the disk of {} {why}, so its table of shard {shard} does not take what was committed before this read: look at that \
                 disk; stale reads go on",
                self.called(self.id)
            ),
        ))
    }

    /// Who could lead this shard instead; `or_slow`: if there is nobody else, one whose disk is slow, too.
    pub(crate) fn transferee_of(&self, shard: ShardId, group: &Group, or_slow: bool) -> Option<PeerId> {
        let able = |node| {
            let can_write = self.peers.can_write(node) || (or_slow && self.peers.is_slow(node));
            node != self.id && self.peers.is_up(node) && can_write
        };
        let able = group.configuration().voters.iter().filter(|voter| able(voter.node));
        let rank = |voter: &Replica| {
            // Who is still opening its replica would not take it.
            let is_open = self.peers.has_open(voter.node, shard);
            Some((is_open, self.peers.can_write(voter.node), group.matched(voter.peer)?, voter.peer))
        };
        able.filter_map(rank).max().map(|(.., peer)| peer)
    }

    /// Tries to give all leaderships away: whether some may still go.
    pub(crate) fn hand_over(&mut self) -> bool {
        if self.disk == DiskState::Hung && planted::is(Bug::HungDiskLeads) {
            return false;
        }
        // A node whose disk is slow, and nothing else, does not give to another one like that.
        let or_slow = self.disk != DiskState::Working || self.phase != Phase::Running;
        let mut leading = false;
        for number in 0..self.slots.len() {
            let Some(replica) = self.slots[number].replica.as_ref().filter(|replica| replica.leads()) else {
                continue;
            };
            let Some(transferee) = self.transferee_of(replica.shard, &replica.group, or_slow) else {
                // What there is no room for is not decided here.
                leading |= replica.has_proposed() && self.disk != DiskState::Full;
                continue;
            };
            leading = true;
            if let Some(replica) = self.slots[number].replica.as_mut() {
                replica.hand_over_to(transferee);
                self.mark(ShardId(number as u32));
            }
        }
        leading
    }

    pub(crate) fn go_on_stopping(&mut self) {
        if let Phase::LeavingSince(since) = self.phase {
            let leading = self.hand_over();
            let is_late = self.ticks - since > STOP_TICKS && !planted::is(Bug::StopWaitsForOthers);
            if (!leading && self.stores_nothing()) || is_late {
                self.phase = Phase::DrainingSince(self.ticks);
            }
        }
        if let Phase::DrainingSince(since) = self.phase
            && ((self.pending == 0 && self.stores_nothing()) || self.ticks - since > DRAIN_TICKS)
        {
            self.phase = Phase::Gone;
            self.out.last.push(Effect::Stopped);
        }
    }

    /// Whether it is no use to wait for the disk: all that it was given is stored, or there is no room for the rest, or it hangs. Of the rest
    /// nobody has been told anything.
    fn stores_nothing(&self) -> bool {
        self.commit.is_idle() || self.disk != DiskState::Working
    }
}
