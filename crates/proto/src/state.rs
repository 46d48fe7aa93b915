//! The cluster's state, to its message and back.

use ringfort_types::{
    ClusterState, DiskSpace, DiskState, Epoch, Incarnation, Index, LeaderPreference, LevelLimit, NodeId,
    NodeState, PeerId, Presence, ReplicaReport, Revision, Role, ShardId, ShardState, Slot, SnapshotProgress,
    Standing, Term,
};

use crate::v1;

impl From<ClusterState> for v1::GetClusterStateResponse {
    fn from(state: ClusterState) -> v1::GetClusterStateResponse {
        v1::GetClusterStateResponse {
            epoch: state.epoch.0,
            cluster: state.cluster,
            node: state.node.0,
            nodes: state.nodes.into_iter().map(Into::into).collect(),
            shards: state.shards.into_iter().map(Into::into).collect(),
            leader_preference: v1::LeaderPreference::from(state.leader_preference).into(),
            copies: state.copies,
            level: state.level.into(),
            level_at_most: state.level_limit.number().into(),
            next_node: state.next_node.0,
        }
    }
}

impl From<v1::GetClusterStateResponse> for ClusterState {
    fn from(state: v1::GetClusterStateResponse) -> ClusterState {
        ClusterState {
            epoch: Epoch(state.epoch),
            cluster: state.cluster,
            node: NodeId(state.node),
            nodes: state.nodes.into_iter().map(Into::into).collect(),
            shards: state.shards.into_iter().map(Into::into).collect(),
            // A node that says something else is newer; it is not shown.
            leader_preference: leader_preference(state.leader_preference).unwrap_or_default(),
            copies: state.copies,
            level: level(state.level),
            level_limit: LevelLimit::from_number(level(state.level_at_most)),
            next_node: NodeId(state.next_node),
        }
    }
}

/// A level from the wire; none is as high as what it can't hold.
fn level(number: u32) -> u16 {
    u16::try_from(number).unwrap_or(u16::MAX)
}

impl From<LeaderPreference> for v1::LeaderPreference {
    fn from(preference: LeaderPreference) -> v1::LeaderPreference {
        match preference {
            LeaderPreference::Ring => v1::LeaderPreference::Ring,
            LeaderPreference::HighestId => v1::LeaderPreference::HighestId,
        }
    }
}

/// `None` if nothing, or something unknown, is said.
pub(crate) fn leader_preference(said: i32) -> Option<LeaderPreference> {
    match v1::LeaderPreference::try_from(said) {
        Ok(v1::LeaderPreference::Ring) => Some(LeaderPreference::Ring),
        Ok(v1::LeaderPreference::HighestId) => Some(LeaderPreference::HighestId),
        Ok(v1::LeaderPreference::Unspecified) | Err(_) => None,
    }
}

impl From<Standing> for v1::Standing {
    fn from(standing: Standing) -> v1::Standing {
        match standing {
            Standing::Active => v1::Standing::Active,
            Standing::Draining => v1::Standing::Draining,
            Standing::Leaving => v1::Standing::Leaving,
        }
    }
}

/// `None` if nothing, or something unknown, is said.
pub(crate) fn standing(said: i32) -> Option<Standing> {
    match v1::Standing::try_from(said) {
        Ok(v1::Standing::Active) => Some(Standing::Active),
        Ok(v1::Standing::Draining) => Some(Standing::Draining),
        Ok(v1::Standing::Leaving) => Some(Standing::Leaving),
        Ok(v1::Standing::Unspecified) | Err(_) => None,
    }
}

impl From<NodeState> for v1::NodeState {
    fn from(node: NodeState) -> v1::NodeState {
        v1::NodeState {
            id: node.id.0,
            name: node.name,
            address: node.address,
            incarnation: node.incarnation.0,
            reachable: node.presence == Presence::Up,
            unknown: node.presence == Presence::Unknown,
            standing: v1::Standing::from(node.standing).into(),
            level_max: node.level_max.into(),
            weight: node.weight,
            zone: node.zone,
            disk_full: node.disk == DiskState::Full,
            disk_hung: node.disk == DiskState::Hung,
            damaged_shards: node.damaged.iter().map(|shard| shard.0).collect(),
            keys_estimate: node.keys_estimate,
            bytes_estimate: node.bytes_estimate,
            report_age_ms: (node.report_age_ms != u64::MAX).then_some(node.report_age_ms),
            snapshots_sent: node.sends.into_iter().map(Into::into).collect(),
            disk_free_bytes: node.space.free,
            disk_total_bytes: node.space.total,
        }
    }
}

impl From<v1::NodeState> for NodeState {
    fn from(node: v1::NodeState) -> NodeState {
        NodeState {
            id: NodeId(node.id),
            name: node.name,
            address: node.address,
            incarnation: Incarnation(node.incarnation),
            presence: match (node.reachable, node.unknown) {
                (true, _) => Presence::Up,
                (false, true) => Presence::Unknown,
                (false, false) => Presence::Down,
            },
            standing: standing(node.standing).unwrap_or_default(),
            level_max: level(node.level_max),
            weight: node.weight,
            zone: node.zone,
            disk: match (node.disk_full, node.disk_hung) {
                (true, _) => DiskState::Full,
                (false, true) => DiskState::Hung,
                (false, false) => DiskState::Working,
            },
            damaged: node.damaged_shards.into_iter().map(ShardId).collect(),
            keys_estimate: node.keys_estimate,
            bytes_estimate: node.bytes_estimate,
            report_age_ms: node.report_age_ms.unwrap_or(u64::MAX),
            sends: node.snapshots_sent.into_iter().map(Into::into).collect(),
            space: DiskSpace { free: node.disk_free_bytes, total: node.disk_total_bytes },
        }
    }
}

impl From<SnapshotProgress> for v1::SnapshotProgress {
    fn from(sent: SnapshotProgress) -> v1::SnapshotProgress {
        let SnapshotProgress { shard, to, bytes, bytes_estimate, elapsed_ms } = sent;
        v1::SnapshotProgress { shard: shard.0, to_node: to.0, bytes, bytes_estimate, elapsed_ms }
    }
}

impl From<v1::SnapshotProgress> for SnapshotProgress {
    fn from(sent: v1::SnapshotProgress) -> SnapshotProgress {
        let v1::SnapshotProgress { shard, to_node, bytes, bytes_estimate, elapsed_ms } = sent;
        SnapshotProgress { shard: ShardId(shard), to: NodeId(to_node), bytes, bytes_estimate, elapsed_ms }
    }
}

impl From<ShardState> for v1::ShardState {
    fn from(shard: ShardState) -> v1::ShardState {
        v1::ShardState {
            shard: shard.shard.0,
            slots: shard
                .slots
                .iter()
                .map(|(first, last)| v1::SlotRange { first: first.0.into(), last: last.0.into() })
                .collect(),
            leader_node: shard.leader.map_or(0, |node| node.0),
            term: shard.term.0,
            moving: shard.is_moving,
            replicas: shard.replicas.into_iter().map(|(node, report)| replica(node, report)).collect(),
        }
    }
}

impl From<v1::ShardState> for ShardState {
    fn from(shard: v1::ShardState) -> ShardState {
        let id = ShardId(shard.shard);
        ShardState {
            shard: id,
            slots: shard.slots.iter().map(|range| (slot(range.first), slot(range.last))).collect(),
            leader: (shard.leader_node != 0).then_some(NodeId(shard.leader_node)),
            term: Term(shard.term),
            is_moving: shard.moving,
            replicas: shard.replicas.into_iter().map(|replica| report(id, &replica)).collect(),
        }
    }
}

/// A slot from the wire; what is beyond the last one becomes a slot that no key has.
fn slot(number: u32) -> Slot {
    Slot(u16::try_from(number).unwrap_or(u16::MAX))
}

fn replica(node: NodeId, report: ReplicaReport) -> v1::ReplicaState {
    let role = match report.role {
        Role::Leader => v1::Role::Leader,
        Role::Follower => v1::Role::Follower,
        Role::Candidate => v1::Role::Candidate,
    };
    v1::ReplicaState {
        node: node.0,
        role: role.into(),
        term: report.term.0,
        last_index: report.last.0,
        committed_index: report.committed.0,
        applied_index: report.applied.0,
        revision: report.revision.0,
        keys_estimate: report.keys_estimate,
        bytes_estimate: report.bytes_estimate,
        peer: report.peer.0,
    }
}

fn report(shard: ShardId, replica: &v1::ReplicaState) -> (NodeId, ReplicaReport) {
    let role = match replica.role() {
        v1::Role::Leader => Role::Leader,
        v1::Role::Candidate => Role::Candidate,
        v1::Role::Follower | v1::Role::Unspecified => Role::Follower,
    };
    let report = ReplicaReport {
        shard,
        peer: PeerId(replica.peer),
        role,
        term: Term(replica.term),
        last: Index(replica.last_index),
        committed: Index(replica.committed_index),
        applied: Index(replica.applied_index),
        revision: Revision(replica.revision),
        keys_estimate: replica.keys_estimate,
        bytes_estimate: replica.bytes_estimate,
        reached: Epoch(0),
    };
    (NodeId(replica.node), report)
}

#[cfg(test)]
mod tests {
    use ringfort_types::Level;

    use super::*;

    #[test]
    fn the_state_round_trips() {
        let report = |role| ReplicaReport {
            shard: ShardId(4),
            peer: PeerId(11),
            role,
            term: Term(2),
            last: Index(10),
            committed: Index(9),
            applied: Index(8),
            revision: Revision(7),
            keys_estimate: 6,
            bytes_estimate: 5,
            reached: Epoch(0),
        };
        let state = ClusterState {
            leader_preference: LeaderPreference::HighestId,
            copies: 3,
            level: 2,
            level_limit: LevelLimit::AtMost(Level(300)),
            next_node: NodeId(9),
            epoch: Epoch(1),
            cluster: u64::MAX,
            node: NodeId(2),
            nodes: vec![
                NodeState {
                    id: NodeId(1),
                    name: "node1".into(),
                    address: "127.0.0.1:50051".into(),
                    incarnation: Incarnation(99),
                    presence: Presence::Up,
                    standing: Standing::Leaving,
                    level_max: 3,
                    weight: 5,
                    zone: "a".into(),
                    disk: DiskState::Hung,
                    damaged: vec![ShardId(4)],
                    keys_estimate: 3,
                    bytes_estimate: 4,
                    report_age_ms: 120,
                    sends: vec![SnapshotProgress {
                        shard: ShardId(4),
                        to: NodeId(2),
                        bytes: 5,
                        bytes_estimate: 6,
                        elapsed_ms: 7,
                    }],
                    space: DiskSpace { free: 8, total: 9 },
                },
                NodeState { id: NodeId(2), report_age_ms: u64::MAX, ..NodeState::default() },
                NodeState { presence: Presence::Unknown, ..NodeState::default() },
            ],
            shards: vec![ShardState {
                shard: ShardId(4),
                slots: vec![(Slot(0), Slot(255)), (Slot(16_383), Slot(16_383))],
                leader: Some(NodeId(1)),
                term: Term(2),
                is_moving: true,
                replicas: vec![
                    (NodeId(1), report(Role::Leader)),
                    (NodeId(2), report(Role::Follower)),
                    (NodeId(3), report(Role::Candidate)),
                ],
            }],
        };
        let sent = v1::GetClusterStateResponse::from(state.clone());
        assert_eq!(ClusterState::from(sent), state);
    }
}
