//! What a cluster's state says: who leads what, what lags, what moves; and all of it as JSON. What `ringfort status` shows, and what a node
//! says over HTTP, are made of this.

mod json;
mod moves;

use ringfort_types::{ClusterState, NodeId, Presence, ReplicaReport, ShardId, ShardState, Term};

pub use json::{json, node_json, shard_json};
pub use moves::Arriving;

/// The cluster's number, as it is typed.
pub fn cluster_name(state: &ClusterState) -> String {
    format!("{:016x}", state.cluster)
}

/// The shards that hold keys.
pub fn key_shards(state: &ClusterState) -> impl Iterator<Item = &ShardState> {
    state.shards.iter().filter(|shard| shard.shard != ShardId::META)
}

/// What people call a node.
pub fn name(state: &ClusterState, node: NodeId) -> String {
    let known = state.nodes.iter().find(|known| known.id == node);
    known.map_or_else(
        || format!("node number {node}"),
        |known| if known.name.is_empty() { known.address.clone() } else { known.name.clone() },
    )
}

/// Whether a node is up, as the asked one knows it.
pub fn presence_of(state: &ClusterState, node: NodeId) -> Presence {
    state.nodes.iter().find(|known| known.id == node).map_or(Presence::Unknown, |known| known.presence)
}

/// The shards that nobody leads, as far as the asked node knows: of keys, and whether the meta group is one of them.
pub fn unled(state: &ClusterState) -> (Vec<ShardId>, bool) {
    let nobody = |shard: &&ShardState| shard.leader.is_none();
    let shards = key_shards(state).filter(nobody).map(|shard| shard.shard).collect();
    (shards, state.shards.iter().filter(nobody).any(|shard| shard.shard == ShardId::META))
}

/// The shards whose groups are on their way to where the layout wants them.
pub fn moving(state: &ClusterState) -> Vec<ShardId> {
    state.shards.iter().filter(|shard| shard.is_moving).map(|shard| shard.shard).collect()
}

/// By how many log entries the slowest replica is behind the shard's leader, as they last reported.
pub fn lag(state: &ClusterState, shard: &ShardState) -> u64 {
    // Of a replica that only comes to be, nothing is heard yet.
    let is_coming = |report: &ReplicaReport| shard.is_moving && report.term == Term(0);
    let takes_part = |node, report| !is_damaged(state, node, shard.shard) && !is_coming(report);
    let of_group = shard.replicas.iter().filter(|(node, report)| takes_part(*node, report));
    let reports = || of_group.clone().map(|(_, report)| report);
    let committed = reports().map(|report| report.committed.0).max().unwrap_or(0);
    let applied = reports().map(|report| report.applied.0).min().unwrap_or(0);
    committed.saturating_sub(applied)
}

/// Whether this shard's replica on this node takes no part.
pub fn is_damaged(state: &ClusterState, node: NodeId, shard: ShardId) -> bool {
    state.nodes.iter().any(|known| known.id == node && known.damaged.contains(&shard))
}
