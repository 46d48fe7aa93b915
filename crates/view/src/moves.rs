//! What nodes are being given: replicas that are copied to them, and how far that is.
//!
//! A replica is copied as a whole table (a snapshot), whose sender reports how much of it has arrived, or by the entries of the shard's
//! log. Then its own table says how far it is. All bytes are estimates: what the largest replica of a shard takes.

use std::time::Duration;

use ringfort_types::{ClusterState, NodeId, ReplicaReport, ShardId, ShardState, SnapshotProgress, Term};
use serde_json::{Value, json};

use crate::name;

/// A replica that is behind by no more entries than this counts as there.
const BEHIND_MAX: u64 = 1_000;

/// A replica that is on its way.
#[derive(Debug, PartialEq, Eq)]
struct Copy {
    shard: ShardId,
    /// The node that sends it as a whole table, if one does.
    from: Option<NodeId>,
    done: u64,
    bytes: u64,
    per_s: u64,
}

/// What one node is being given.
#[derive(Debug, PartialEq, Eq)]
pub struct Arriving {
    node: NodeId,
    called: String,
    copies: Vec<Copy>,
}

impl Arriving {
    /// For each node that is being given anything.
    pub fn of(state: &ClusterState) -> Vec<Arriving> {
        let arriving = state.nodes.iter().map(|node| Arriving {
            node: node.id,
            called: name(state, node.id),
            copies: state.shards.iter().filter_map(|shard| copy(state, shard, node.id)).collect(),
        });
        let mut arriving: Vec<Arriving> = arriving.filter(|node| !node.copies.is_empty()).collect();
        arriving.sort_by(|one, other| one.called.cmp(&other.called));
        arriving
    }

    /// What people call the node.
    pub fn called(&self) -> &str {
        &self.called
    }

    /// How many replicas are on their way to it.
    pub fn replicas(&self) -> usize {
        self.copies.len()
    }

    fn sum(&self, of: fn(&Copy) -> u64) -> u64 {
        self.copies.iter().map(of).sum()
    }

    /// Until all is there, if it goes on as it goes now.
    pub fn left(&self) -> Option<Duration> {
        let (done, bytes, per_s) = self.sums();
        (per_s > 0).then(|| Duration::from_millis((bytes - done).saturating_mul(1_000) / per_s))
    }

    /// Bytes that are there, all of them, and those that come each second.
    pub fn sums(&self) -> (u64, u64, u64) {
        (self.sum(|copy| copy.done), self.sum(|copy| copy.bytes), self.sum(|copy| copy.per_s))
    }

    /// As JSON.
    pub fn json(&self) -> Value {
        let (done, bytes, per_s) = self.sums();
        json!({
            "node": self.node.0,
            "name": self.called,
            "bytes_done": done,
            "bytes": bytes,
            "bytes_per_s": per_s,
            "seconds_left": self.left().map(|left| left.as_secs_f64()),
            "replicas": self.copies.iter().map(|copy| json!({
                "shard": copy.shard.0,
                "from": copy.from.map(|node| node.0),
                "bytes_done": copy.done,
                "bytes": copy.bytes,
                "bytes_per_s": copy.per_s,
            })).collect::<Vec<_>>(),
        })
    }
}

/// How far this node's replica of this shard is, if it is on its way.
fn copy(state: &ClusterState, shard: &ShardState, node: NodeId) -> Option<Copy> {
    let reports = || shard.replicas.iter().map(|(_, report)| report);
    let largest = reports().map(|report| report.bytes_estimate).max().unwrap_or(0);
    let is_it = |sent: &&SnapshotProgress| (sent.shard, sent.to) == (shard.shard, node);
    let mut senders = state.nodes.iter().filter_map(|from| Some((from.id, from.sends.iter().find(is_it)?)));
    if let Some((from, sent)) = senders.next() {
        let per_s = sent.bytes.saturating_mul(1_000).checked_div(sent.elapsed_ms).unwrap_or(0);
        let bytes = sent.bytes_estimate.max(sent.bytes);
        return Some(Copy { shard: shard.shard, from: Some(from), done: sent.bytes, bytes, per_s });
    }
    // Of what nobody leads, nobody can say whether it moves.
    let is_moving = shard.is_moving && shard.leader.is_some();
    let (_, own) = shard.replicas.iter().find(|(at, _)| is_moving && *at == node)?;
    let committed = reports().map(|report| report.committed).max().unwrap_or_default();
    let is_there = |own: &ReplicaReport| own.term != Term(0) && own.applied.0 + BEHIND_MAX >= committed.0;
    (!is_there(own)).then_some(Copy {
        shard: shard.shard,
        from: None,
        done: own.bytes_estimate,
        bytes: largest,
        per_s: 0,
    })
}
