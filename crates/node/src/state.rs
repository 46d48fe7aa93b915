//! What a node tells of itself and of the cluster, and who should lead.

use ringfort_types::limits::TICK_MS;
use ringfort_types::{
    ClusterState, DiskSpace, DiskState, NodeId, NodeState, Presence, Replica, ReplicaReport, ShardId,
    ShardState,
};

use crate::layout::preferred;
use crate::leave::Phase;
use crate::node::Node;
use crate::replica::Replica as Own;
use crate::reports::Heard;

/// A node that has not been heard of for so long is shown as down; one that was never heard of, once this one has served
/// for so long.
const SUSPECT_US: u64 = 5_000_000;
/// Leaderships handed over in one look, so that a node that comes back is not flooded.
const HANDOVERS_MAX: usize = 8;
/// A preferred leader that lags by more entries than this is left alone until it has caught up.
pub(crate) const HANDOVER_LAG_MAX: u64 = 1_000;
/// Ticks after start before any leadership is given away.
const SETTLE_TICKS: u64 = 2_000 / TICK_MS;

impl Node {
    /// Commit indexes that have moved are recorded with whatever is written next; when nothing is, here.
    pub(crate) fn record_commits(&mut self) {
        for slot in &mut self.slots {
            if let Some(replica) = slot.replica.as_mut()
                && let Some(record) = replica.group.take_commit_record()
            {
                self.commit.add(replica.shard, vec![record], None, &mut replica.last_batch);
            }
        }
    }

    /// Gives leaderships to the nodes that should have them, a few at a time, once those have caught up.
    pub(crate) fn balance_leaders(&mut self) {
        if self.ticks < SETTLE_TICKS || self.phase != Phase::Running || !self.has_leaders_disk() {
            return;
        }
        let Some(layout) = self.layout.clone() else { return };
        let (mut handed_over, now_us) = (0, self.now.monotonic_us);
        for slot in &mut self.slots {
            let Some(replica) = slot.replica.as_mut().filter(|replica| replica.takes_writes()) else {
                continue;
            };
            let shard = replica.shard;
            if self.transfers.holds(shard, self.ticks, layout.leader_preference) {
                continue;
            }
            // Not the crate's own mark of who was heard of: it is wiped at each check of the quorum, and may be so just
            // before every look.
            let able = |voter: &Replica| self.peers.can_lead(voter.node, shard, now_us);
            let target = layout.shard(shard).map_or(&[][..], |shard| &shard.replicas);
            let line = preferred(replica.group.configuration(), target, layout.leader_preference);
            let best = line.into_iter().find(|voter| voter.node == self.id || able(voter));
            let Some(preferred) = best.filter(|best| best.node != self.id) else { continue };
            if handed_over == HANDOVERS_MAX {
                return;
            }
            if replica.lag(preferred.peer).is_some_and(|lag| lag <= HANDOVER_LAG_MAX) {
                replica.hand_over_to(preferred.peer);
                handed_over += 1;
                if !slot.dirty {
                    slot.dirty = true;
                    self.dirty.push(shard);
                }
            }
        }
    }

    /// The node that leads this shard, unless only that node has said so and has been silent since, or was lost. Whoever decides
    /// stands for election itself once its leader is silent; others don't know.
    pub(crate) fn leader_there(&self, shard: ShardId) -> Option<NodeId> {
        let leader = self.leader_of(shard)?;
        let own = self.slots[shard.0 as usize].replica.as_ref();
        let is_followed = |own: &Own| own.leader_node() == Some(leader);
        let decides = |own: &Own| own.group.configuration().decides(own.group.me());
        let reported_us = self.peers.report(leader).map(|(_, at_us)| at_us);
        let is_silent = |at_us: u64| self.now.monotonic_us.saturating_sub(at_us) >= SUSPECT_US;
        let is_heard = own.is_some_and(is_followed) || !reported_us.is_some_and(is_silent);
        let is_there = own.is_some_and(|own| is_followed(own) && decides(own));
        (is_there || self.peers.is_up(leader) && is_heard).then_some(leader)
    }

    /// The cluster as this node sees it.
    pub(crate) fn cluster_state(&self) -> ClusterState {
        let Some(layout) = &self.layout else {
            return ClusterState { node: self.id, ..ClusterState::default() };
        };
        let own = Heard::whole(0, self.report());
        let now_us = self.now.monotonic_us;
        let report_of = |node| {
            if node == self.id {
                return Some((&own, 0));
            }
            let (report, at_us) = self.peers.report(node)?;
            Some((report, now_us.saturating_sub(at_us)))
        };
        let nodes = layout.members.iter().map(|member| {
            let report = report_of(member.id);
            let replicas = || report.into_iter().flat_map(|(report, _)| report.replicas.values());
            let age_us = report.map(|(_, age_us)| age_us);
            let up = member.id == self.id || self.peers.is_up(member.id);
            NodeState {
                id: member.id,
                name: member.name.clone(),
                address: self.address_of(member.id).to_owned(),
                incarnation: member.incarnation,
                standing: member.standing,
                level_max: member.max.0,
                weight: member.weight,
                zone: member.zone.clone(),
                disk: report.map_or(DiskState::Working, |(report, _)| report.disk),
                damaged: report.into_iter().flat_map(|(report, _)| report.damaged.iter().copied()).collect(),
                presence: match age_us {
                    Some(age_us) if up && age_us < SUSPECT_US => Presence::Up,
                    // Neither this node nor that one may have been there for long.
                    None if self.open_for_us(now_us).min(self.peers.known_for_us(member.id, now_us))
                        < SUSPECT_US =>
                    {
                        Presence::Unknown
                    }
                    _ => Presence::Down,
                },
                keys_estimate: replicas().map(|replica| replica.keys_estimate).sum(),
                bytes_estimate: replicas().map(|replica| replica.bytes_estimate).sum(),
                report_age_ms: age_us.map_or(u64::MAX, |age_us| age_us / 1_000),
                sends: report.map_or_else(Vec::new, |(report, _)| report.sends.clone()),
                space: report.map_or_else(DiskSpace::default, |(report, _)| report.space),
            }
        });
        let shards = layout.shards.iter().map(|shard| {
            let replicas: Vec<(_, ReplicaReport)> = shard
                .replicas
                .iter()
                .map(|place| {
                    let report =
                        report_of(place.node).and_then(|(report, _)| report.replicas.get(&shard.shard));
                    // What is said of the replica that was there before it is nothing about this one.
                    let report = report.filter(|report| report.peer == place.peer);
                    let (shard, peer) = (shard.shard, place.peer);
                    let unheard = ReplicaReport { shard, peer, ..ReplicaReport::default() };
                    (place.node, report.copied().unwrap_or(unheard))
                })
                .collect();
            ShardState {
                shard: shard.shard,
                slots: shard.slots.clone(),
                leader: self.leader_there(shard.shard),
                term: self.term_of(shard.shard),
                is_moving: self.has_layout_moved() && !self.is_reported_reached(shard.shard, layout.placed),
                replicas,
            }
        });
        ClusterState {
            epoch: layout.epoch,
            cluster: layout.cluster,
            leader_preference: layout.leader_preference,
            copies: layout.copies,
            level: layout.level.0,
            level_limit: layout.level_limit,
            next_node: layout.next_node,
            node: self.id,
            nodes: nodes.collect(),
            shards: shards.collect(),
        }
    }
}
