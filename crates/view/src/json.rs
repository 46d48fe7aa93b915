//! A state as JSON: what `ringfort status --json` prints.

use ringfort_types::{ClusterState, DiskState, NodeId, NodeState, ReplicaReport, ShardState};
use serde_json::{Value, json};

use crate::moves::Arriving;
use crate::{cluster_name, is_damaged, key_shards, lag};

/// Everything, as JSON.
pub fn json(state: &ClusterState) -> Value {
    json!({
        "cluster": cluster_name(state),
        "epoch": state.epoch.0,
        "leader_preference": state.leader_preference.to_string(),
        "copies": state.copies,
        "level": state.level,
        "level_limit": state.level_limit.to_string(),
        "node": state.node.0,
        "nodes": state.nodes.iter().map(|node| node_json(state, node)).collect::<Vec<_>>(),
        "shards": state.shards.iter().map(|shard| shard_json(state, shard)).collect::<Vec<_>>(),
        "moves": Arriving::of(state).iter().map(Arriving::json).collect::<Vec<_>>(),
    })
}

/// A node, as JSON.
pub fn node_json(state: &ClusterState, node: &NodeState) -> Value {
    let known = node.space.total > 0;
    json!({
        "id": node.id.0,
        "name": node.name,
        "address": node.address,
        "incarnation": format!("{:016x}", node.incarnation.0),
        "state": node.presence.name(),
        "standing": node.standing.to_string(),
        "level_max": node.level_max,
        "weight": node.weight.max(1),
        "zone": node.zone,
        "disk_full": node.disk == DiskState::Full,
        "disk_hung": node.disk == DiskState::Hung,
        "disk_free_bytes": known.then_some(node.space.free),
        "disk_total_bytes": known.then_some(node.space.total),
        "damaged_shards": node.damaged.iter().map(|shard| shard.0).collect::<Vec<_>>(),
        "leads": key_shards(state).filter(|shard| shard.leader == Some(node.id)).count(),
        "keys_estimate": node.keys_estimate,
        "bytes_estimate": node.bytes_estimate,
        "report_age_ms": (node.report_age_ms != u64::MAX).then_some(node.report_age_ms),
    })
}

/// A shard, as JSON.
pub fn shard_json(state: &ClusterState, shard: &ShardState) -> Value {
    let replica = |(node, report): &(NodeId, ReplicaReport)| {
        json!({
            "node": node.0,
            "peer": report.peer.0,
            "damaged": is_damaged(state, *node, shard.shard),
            "role": report.role.to_string(),
            "term": report.term.0,
            "last": report.last.0,
            "committed": report.committed.0,
            "applied": report.applied.0,
            "revision": report.revision.0,
            "keys_estimate": report.keys_estimate,
            "bytes_estimate": report.bytes_estimate,
        })
    };
    json!({
        "shard": shard.shard.0,
        "slots": shard.slots.iter().map(|(first, last)| [first.0, last.0]).collect::<Vec<_>>(),
        "leader": shard.leader.map(|leader| leader.0),
        "term": shard.term.0,
        "lag": shard.leader.is_some().then(|| lag(state, shard)),
        "moving": shard.is_moving,
        "replicas": shard.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}
