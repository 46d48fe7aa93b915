//! What nodes are being given, in words.

use std::fmt::Write;

use ringfort_view::Arriving;

use crate::show;

/// One node's line.
pub(crate) fn text(node: &Arriving) -> String {
    let (done, bytes, per_s) = node.sums();
    let replicas = show::count(node.replicas() as u64, "replica", "replicas");
    let mut text = format!("{} is being given {replicas}", node.called());
    if bytes > 0 {
        let _ = write!(text, ": ~{} of ~{} are there", show::bytes(done), show::bytes(bytes));
    }
    if let Some(left) = node.left() {
        let _ = write!(text, ", {}/s, ~{} left", show::bytes(per_s), show::span(left));
    }
    text
}

#[cfg(test)]
mod tests {
    use ringfort_types::{ClusterState, Index, NodeId, ReplicaReport, ShardId, SnapshotProgress};
    use serde_json::Value;

    use super::*;
    use crate::layout::tests::cluster_of;

    fn arriving(state: &ClusterState) -> Vec<Arriving> {
        Arriving::of(state)
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
            text(&moves[0]),
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
        assert!(text(&arriving(&state)[0]).contains("~2.2 MB of ~3.2 MB"));
        state.nodes[0].sends.clear();
        let waits = arriving(&state);
        assert_eq!(text(&waits[0]), "node3 is being given 2 replicas: ~0 B of ~3.0 MB are there");
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
