//! Where replicas should be, as whoever leads the meta group sees to it: what [`Layout::plan`](ringfort_ring::Layout::plan) says is asked
//! for, and a member that is leaving is forgotten once no group has a replica on it.
//!
//! A node that has not been heard of for `replace_after` has its replicas elsewhere, if there are nodes enough. What is planned here
//! is void once the layout is another one, so two that take themselves for the leader do no harm.
//!
//! That groups have reached the layout their leaders report ([`reached`](ringfort_types::ReplicaReport::reached)). It is a fact,
//! and stays one as long as the layout is the same.

use ringfort_ring::Layout;
use ringfort_types::{DiskState, Epoch, LayoutChange, NodeId, ShardId, Standing};

use crate::follow::is_reached;
use crate::leave::Phase;
use crate::node::{Node, Slot};
use crate::replica::Replica;

/// What was last looked at, and found to be as it should be.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Planned {
    epoch: Epoch,
    usable: Vec<NodeId>,
}

impl Node {
    /// As the leader of the meta group, now and then.
    pub(crate) fn plan_layout(&mut self) {
        let Some(layout) = self.layout.clone().filter(|_| self.leads_cluster()) else { return };
        let leaving = layout.members.iter().filter(|member| member.standing == Standing::Leaving);
        let mut leaving = leaving.map(|member| member.id).peekable();
        let is_any_leaving = leaving.peek().is_some();
        if is_any_leaving && leaving.all(|node| self.is_empty(node)) && self.is_everywhere_reached(&layout) {
            let change = LayoutChange::Reached { epoch: layout.epoch };
            if layout.after(&change).is_some() {
                return self.ask_for(change);
            }
        }
        let members = layout.members.iter().map(|member| member.id);
        let usable: Vec<NodeId> = members.filter(|node| self.is_usable(*node)).collect();
        let looked_at = Planned { epoch: layout.epoch, usable };
        if looked_at == self.planned {
            return;
        }
        let is_usable = |node| looked_at.usable.contains(&node);
        let is_reached = |shard| self.is_reported_reached(shard, layout.placed);
        match layout.plan(is_usable, is_reached) {
            Some(change) => self.ask_for(change),
            None if layout.settled(is_usable).is_empty() => self.planned = looked_at,
            // Some shard is on its way.
            None => {}
        }
    }

    /// Whether it is for this node to see to the layout: it leads the meta group, and can write.
    pub(crate) fn leads_cluster(&self) -> bool {
        let leads = |slot: &Slot| slot.replica.as_ref().is_some_and(Replica::takes_writes);
        self.phase == Phase::Running
            && self.disk == DiskState::Working
            && self.slots.first().is_some_and(leads)
    }

    /// Whether a node has taken leave of its replicas, as far as it can be asked.
    fn is_empty(&self, node: NodeId) -> bool {
        let is_heard = node != self.id && self.peers.is_lively(node, self.now.monotonic_us);
        let report = self.peers.report(node).filter(|_| is_heard);
        report.is_none_or(|(report, _)| report.replicas.is_empty() && report.damaged.is_empty())
    }

    /// Whether a node can be given replicas: it was heard of within the time after which it is replaced.
    fn is_usable(&self, node: NodeId) -> bool {
        let now_us = self.now.monotonic_us;
        let silent_us = match self.peers.report(node) {
            Some((_, at_us)) => now_us.saturating_sub(at_us),
            None => self.open_for_us(now_us),
        };
        node == self.id || self.peers.is_lively(node, now_us) || silent_us < self.replace_after_us
    }

    /// The layout whose places this node's replica of a shard knows to be reached, if it leads.
    pub(crate) fn reached(&self, shard: ShardId) -> Epoch {
        let replica = self.slots[shard.0 as usize].replica.as_ref().filter(|replica| replica.takes_writes());
        let target = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        match (replica, target) {
            (Some(replica), Some(target)) if is_reached(replica.group.configuration(), &target.replicas) => {
                self.epoch()
            }
            _ => Epoch(0),
        }
    }

    /// Whether the leaders of all groups have said so.
    fn is_everywhere_reached(&self, layout: &Layout) -> bool {
        layout.shards.iter().all(|shard| self.is_reported_reached(shard.shard, layout.placed))
    }

    /// Whether the group of a shard is where the layout of this epoch wants it, as far as its leader has said.
    pub(crate) fn is_reported_reached(&self, shard: ShardId, epoch: Epoch) -> bool {
        if self.reached(shard) >= epoch {
            return true;
        }
        let report = self.leader_of(shard).and_then(|leader| self.peers.report(leader));
        let said = report.and_then(|(report, _)| report.replicas.get(&shard));
        said.is_some_and(|said| said.reached >= epoch)
    }
}
