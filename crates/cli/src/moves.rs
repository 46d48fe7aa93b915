//! What nodes are being given: replicas that are copied to them, and how far that is.
//!
//! A replica is copied as a whole table (a snapshot), whose sender reports how much of it has arrived, or by the entries of the shard's
//! log. Then its own table says how far it is. All bytes are estimates: what the largest replica of a shard takes.

use std::fmt::Write;
use std::time::Duration;

use ringfort_types::{ClusterState, NodeId, ReplicaReport, ShardId, ShardState, SnapshotProgress, Term};
use serde_json::{Value, json};

use crate::show;

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
pub(crate) struct Arriving {
    node: NodeId,
    called: String,
    copies: Vec<Copy>,
}

impl Arriving {
    /// For each node that is being given anything.
    pub(crate) fn of(state: &ClusterState, called: fn(&ClusterState, NodeId) -> String) -> Vec<Arriving> {
        let arriving = state.nodes.iter().map(|node| Arriving {
            node: node.id,
            called: called(state, node.id),
            copies: state.shards.iter().filter_map(|shard| copy(state, shard, node.id)).collect(),
        });
        let mut arriving: Vec<Arriving> = arriving.filter(|node| !node.copies.is_empty()).collect();
        arriving.sort_by(|one, other| one.called.cmp(&other.called));
        arriving
    }

    fn sum(&self, of: fn(&Copy) -> u64) -> u64 {
        self.copies.iter().map(of).sum()
    }

    /// Until all is there, if it goes on as it goes now.
    fn left(&self) -> Option<Duration> {
        let (done, bytes, per_s) = self.sums();
        (per_s > 0).then(|| Duration::from_millis((bytes - done).saturating_mul(1_000) / per_s))
    }

    /// Bytes that are there, all of them, and those that come each second.
    fn sums(&self) -> (u64, u64, u64) {
        (self.sum(|copy| copy.done), self.sum(|copy| copy.bytes), self.sum(|copy| copy.per_s))
    }

    pub(crate) fn text(&self) -> String {
        let (done, bytes, per_s) = self.sums();
        let replicas = show::count(self.copies.len() as u64, "replica", "replicas");
        let mut text = format!("{} is being given {replicas}", self.called);
        if bytes > 0 {
            let _ = write!(text, ": ~{} of ~{} are there", show::bytes(done), show::bytes(bytes));
        }
        if let Some(left) = self.left() {
            let _ = write!(text, ", {}/s, ~{} left", show::bytes(per_s), show::span(left));
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
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

#[cfg(test)]
mod tests {
    use ringfort_types::Index;

    use super::*;
    use crate::layout::tests::cluster_of;

    fn arriving(state: &ClusterState) -> Vec<Arriving> {
        Arriving::of(state, |_, node| format!("node{node}"))
    }

    fn progress(shard: u32, to: u64, bytes: u64, bytes_estimate: u64) -> SnapshotProgress {
        SnapshotProgress { shard: ShardId(shard), to: NodeId(to), bytes, bytes_estimate, elapsed_ms: 2_000 }
    }

    #[test]
    fn a_cluster_at_rest_moves_nothing() {
        assert_eq!(arriving(&cluster_of(3)), []);
    }

    #[test]
    fn what_is_sent_and_what_waits_adds_up() {
        let mut state = cluster_of(3);
        for shard in &mut state.shards {
            shard.is_moving = true;
            let (_, leader) = &mut shard.replicas[0];
            (leader.committed, leader.applied) = (Index(5_000), Index(5_000));
            shard.replicas.iter_mut().for_each(|(_, report)| report.applied = Index(5_000));
        }
        assert_eq!(arriving(&state), [], "all are there");
        for shard in &mut state.shards[1..] {
            let coming = shard.replicas.iter_mut().find(|(node, _)| *node == NodeId(3)).expect("it has all");
            coming.1 = ReplicaReport { peer: coming.1.peer, ..ReplicaReport::default() };
        }
        state.nodes[0].sends = vec![progress(2, 3, 500_000, 2_100_000)];
        let moves = arriving(&state);
        assert_eq!(moves.len(), 1);
        assert_eq!(
            moves[0].text(),
            "node3 is being given 2 replicas: ~500.0 kB of ~3.1 MB are there, 250.0 kB/s, ~10.4 s left"
        );
        let json = moves[0].json();
        assert_eq!(
            (&json["name"], &json["bytes_done"], &json["bytes"]),
            (&"node3".into(), &500_000.into(), &3_100_000.into())
        );
        assert_eq!((&json["bytes_per_s"], &json["seconds_left"]), (&250_000.into(), &10.4.into()));
        assert_eq!((&json["replicas"][0]["from"], &json["replicas"][1]["from"]), (&Value::Null, &1.into()));
        // More than the estimate may come. And where nothing has come yet, nobody knows how long it takes.
        state.nodes[0].sends = vec![progress(2, 3, 2_200_000, 2_100_000)];
        assert!(arriving(&state)[0].text().contains("~2.2 MB of ~3.2 MB"));
        state.nodes[0].sends.clear();
        let waits = arriving(&state);
        assert_eq!(waits[0].text(), "node3 is being given 2 replicas: ~0 B of ~3.0 MB are there");
        assert!(waits[0].json()["seconds_left"].is_null());
    }

    #[test]
    fn a_replica_that_gets_entries_is_as_far_as_its_table() {
        let mut state = cluster_of(3);
        let shard = &mut state.shards[2];
        shard.is_moving = true;
        shard.replicas[0].1.committed = Index(5_000);
        shard.replicas[0].1.applied = Index(5_000);
        shard.replicas[1].1.applied = Index(4_000);
        (shard.replicas[2].1.applied, shard.replicas[2].1.bytes_estimate) = (Index(3_999), 700_000);
        let moves = arriving(&state);
        assert_eq!((moves.len(), moves[0].sums()), (1, (700_000, 2_000_000, 0)));
    }
}
