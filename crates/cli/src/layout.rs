//! The layout of a cluster as its state tells it: for what is worked out before anything is asked for. The one place where a layout is
//! made of a state. Where the node that was asked does not tell weights and zones, all nodes weigh the same, and none has a zone.

use ringfort_ring::{Layout, Member, RingError, ShardLayout, effective_copies};
use ringfort_types::{
    ClusterState, Level, NodeId, NodeState, PeerId, Replica, ReplicaReport, ShardState, Standing,
};
use ringfort_view::key_shards;

use crate::stop::Stop;

/// The layout that this state tells of.
pub(crate) fn layout_of(state: &ClusterState) -> Result<Layout, Stop> {
    let none = |error: RingError| {
        Stop::unavailable(format!("the node that was asked knows no layout yet ({error}): try again"))
    };
    let shards = key_shards(state).count() as u32;
    let mut layout = Layout::first(members_of(state), state.cluster, shards, state.copies).map_err(none)?;
    let replica = |(node, report): &(NodeId, ReplicaReport)| Replica { node: *node, peer: report.peer };
    let shard = |shard: &ShardState| ShardLayout {
        shard: shard.shard,
        slots: shard.slots.clone(),
        replicas: shard.replicas.iter().map(replica).collect(),
    };
    layout.epoch = state.epoch;
    layout.leader_preference = state.leader_preference;
    layout.shards = state.shards.iter().map(shard).collect();
    let peers = layout.shards.iter().flat_map(|shard| &shard.replicas).map(|replica| replica.peer.0);
    layout.next_node = layout.next_node.max(state.next_node);
    layout.next_peer = PeerId(peers.max().unwrap_or_default() + 1);
    Ok(layout)
}

fn members_of(state: &ClusterState) -> Vec<Member> {
    let member = |node: &NodeState| Member {
        id: node.id,
        name: node.name.clone(),
        address: node.address.clone(),
        incarnation: node.incarnation,
        weight: node.weight.max(1),
        zone: node.zone.clone(),
        standing: node.standing,
        max: Level(node.level_max.max(Level::MIN.0)),
    };
    state.nodes.iter().map(member).collect()
}

/// How many copies each shard gets, given the nodes that are given replicas; and why, if that is not what was asked for.
pub(crate) fn copies_of(state: &ClusterState) -> (u32, Option<String>) {
    let active = state.nodes.iter().filter(|node| node.standing == Standing::Active).count();
    effective_copies(state.copies, active as u32)
}

#[cfg(test)]
pub(crate) mod tests {
    use ringfort_types::{Incarnation, Presence, ShardId, Slot};

    use super::*;

    /// So many nodes that are up, with two shards of three copies, as a new cluster has them. The shards have 1 MB and 2 MB.
    pub(crate) fn cluster_of(nodes: u64) -> ClusterState {
        let node = |id| NodeState {
            id: NodeId(id),
            name: format!("node{id}"),
            address: format!("10.0.0.{id}:50051"),
            incarnation: Incarnation(id),
            presence: Presence::Up,
            ..NodeState::default()
        };
        let mut state = ClusterState {
            nodes: (1..=nodes).map(node).collect(),
            copies: 3,
            cluster: 7,
            ..ClusterState::default()
        };
        let layout = Layout::first(members_of(&state), 7, 2, 3).expect("it can be");
        state.epoch = layout.epoch;
        state.shards = layout.shards.iter().map(shard_state).collect();
        state
    }

    pub(crate) fn shard_state(shard: &ShardLayout) -> ShardState {
        let report = |replica: &Replica| {
            let report = ReplicaReport {
                shard: shard.shard,
                peer: replica.peer,
                term: ringfort_types::Term(1),
                bytes_estimate: u64::from(shard.shard.0) * 1_000_000,
                ..ReplicaReport::default()
            };
            (replica.node, report)
        };
        ShardState {
            shard: shard.shard,
            slots: shard.slots.clone(),
            leader: shard.replicas.first().map(|replica| replica.node),
            replicas: shard.replicas.iter().map(report).collect(),
            ..ShardState::default()
        }
    }

    #[test]
    fn a_layout_survives_the_way_through_a_state() {
        let state = cluster_of(4);
        let layout = layout_of(&state).expect("there is one");
        assert_eq!(layout.shards.len(), 3);
        assert_eq!(layout.shard(ShardId(2)).expect("it is there").slots, [(Slot(8_192), Slot(16_383))]);
        assert_eq!((layout.copies, layout.next_node), (3, NodeId(5)));
        assert!(layout.settled(|_| true).is_empty(), "all is where it should be");
        let none = layout_of(&ClusterState::default()).expect_err("there is none");
        assert!(none.code == 3 && none.message.contains("knows no layout yet"), "{none:?}");
    }

    #[test]
    fn only_nodes_that_are_given_replicas_count_for_copies() {
        let mut state = cluster_of(3);
        assert_eq!(copies_of(&state), (3, None));
        state.nodes[1].standing = Standing::Draining;
        let (copies, why) = copies_of(&state);
        assert!(copies == 2 && why.expect("told").contains("third node"));
    }
}
