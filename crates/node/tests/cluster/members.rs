//! Nodes that join, leave, are replaced, and come back though they are no members any more.

use std::collections::BTreeSet;

use ringfort_types::{
    Incarnation, LayoutChange, Level, Newcomer, NodeId, Presence, Reply, Request, ShardId, Standing,
};

use crate::world::{SHARDS, World};

/// Until everything is where it should be, and the next look has found it so.
const MOVED_MS: u64 = 30_000;

fn shards() -> impl Iterator<Item = ShardId> {
    (0..=SHARDS).map(ShardId)
}

fn stand(world: &mut World, by: usize, n: usize, standing: Standing) {
    let change = LayoutChange::Stand(NodeId(n as u64 + 1), standing);
    let reply = world.ask_and_wait(by, Request::ChangeLayout(change));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
}

fn fill(world: &mut World, n: usize) {
    for i in 0..40 {
        let reply = world.put(n, &format!("key{i}"), "value");
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
}

fn assert_all_there(world: &mut World, nodes: &[usize]) {
    for i in 0..40 {
        for n in nodes {
            assert_eq!(world.get(*n, &format!("key{i}")), Some("value".into()), "key{i} by way of node {n}");
        }
    }
}

/// Each group has so many voters, all of them among these nodes, and each of them has some.
fn assert_placed(world: &mut World, copies: usize, nodes: &[usize]) {
    let allowed: BTreeSet<NodeId> = nodes.iter().map(|n| NodeId(*n as u64 + 1)).collect();
    let mut used = BTreeSet::new();
    for shard in shards().skip(1) {
        let voters = world.voters(shard).unwrap_or_else(|| {
            let leader = world.leader(shard).map_or(0, |leader| leader.0 as usize - 1);
            let node = world.nodes[leader].as_ref();
            panic!("shard {shard} is on its way: {:?}", node.and_then(|node| node.configuration(shard)))
        });
        assert_eq!(voters.len(), copies, "shard {shard}: {voters:?}");
        assert!(voters.is_subset(&allowed), "shard {shard}: {voters:?}");
        used.extend(voters);
    }
    assert_eq!(used, allowed);
    let meta = world.voters(ShardId::META).expect("it is settled");
    assert!(meta.is_subset(&allowed), "{meta:?}");
}

#[test]
fn a_cluster_grows_from_one_node_to_five() {
    let mut world = World::born(1);
    fill(&mut world, 0);
    let copies = [2, 3, 3, 3];
    for (name, copies) in ["node2", "node3", "node4", "node5"].into_iter().zip(copies) {
        let n = world.join(0, name, false);
        world.run(MOVED_MS);
        let nodes: Vec<usize> = (0..=n).collect();
        assert_placed(&mut world, copies, &nodes);
        assert_all_there(&mut world, &nodes);
    }
    // What has joined comes back like any other.
    for n in [4, 2] {
        world.kill(n);
        world.start(n);
        world.run(5_000);
    }
    assert_placed(&mut world, 3, &[0, 1, 2, 3, 4]);
    assert_all_there(&mut world, &[2, 4]);
}

#[test]
fn a_node_that_leaves_is_emptied_first_and_then_forgotten() {
    let mut world = World::born(4);
    fill(&mut world, 0);
    let had: BTreeSet<ShardId> = world.tables[3].keys().copied().collect();
    assert!(!had.is_empty());
    stand(&mut world, 1, 3, Standing::Leaving);
    world.run(MOVED_MS);
    assert_placed(&mut world, 3, &[0, 1, 2]);
    assert_all_there(&mut world, &[0, 1, 2]);
    assert_eq!(world.refused[3].as_deref(), Some("removed"));
    let ended: BTreeSet<ShardId> =
        world.ended.iter().filter(|(n, _)| *n == 3).map(|(_, shard)| *shard).collect();
    assert_eq!(ended, had, "nothing is left on it");
    let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("born").clone();
    assert_eq!(layout.members.len(), 3);

    // Whoever comes back though it is no member is told so, and disturbs nobody.
    world.refused[3] = None;
    world.start(3);
    world.run(2_000);
    assert_eq!(world.refused[3].as_deref(), Some("removed"));
    assert_all_there(&mut world, &[0, 1, 2]);
}

/// It does not hear that its replicas are removed, and finds out when it is back.
#[test]
fn what_a_node_has_that_was_away_while_it_was_drained_comes_to_its_end() {
    let mut world = World::born(4);
    fill(&mut world, 0);
    let had: BTreeSet<ShardId> = world.tables[3].keys().copied().collect();
    world.cut_off(3);
    stand(&mut world, 0, 3, Standing::Draining);
    world.run(MOVED_MS);
    assert_placed(&mut world, 3, &[0, 1, 2]);
    assert!(world.ended.iter().all(|(n, _)| *n != 3), "it knows nothing of it");
    world.heal();
    world.run(5_000);
    let ended: BTreeSet<ShardId> =
        world.ended.iter().filter(|(n, _)| *n == 3).map(|(_, shard)| *shard).collect();
    assert_eq!(ended, had);
    // It is a member all the same, and is given replicas again.
    stand(&mut world, 0, 3, Standing::Active);
    world.run(MOVED_MS);
    assert_placed(&mut world, 3, &[0, 1, 2, 3]);
    assert_all_there(&mut world, &[0, 3]);
}

#[test]
fn a_node_that_stays_away_is_replaced_if_there_are_others_enough() {
    let mut world = World::born(4);
    fill(&mut world, 0);
    world.kill(3);
    world.run(40_000);
    assert!(
        shards().skip(1).any(|shard| world.voters(shard).is_some_and(|voters| voters.contains(&NodeId(4))))
    );
    world.run(60_000);
    assert_placed(&mut world, 3, &[0, 1, 2]);
    // There is nobody to take the place of another one.
    world.kill(2);
    world.run(100_000);
    assert_placed(&mut world, 3, &[0, 1, 2]);
    world.start(2);
    world.start(3);
    world.run(MOVED_MS);
    assert_placed(&mut world, 3, &[0, 1, 2, 3]);
    assert_all_there(&mut world, &[0, 2, 3]);
}

/// The layout has given its replicas to others by then, and its group can't go there.
#[test]
fn whom_a_shard_without_a_quorum_waits_for_is_told() {
    let mut world = World::born(5);
    let key = (0..1_000).map(|i| format!("key{i}")).find(|key| {
        let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("born");
        let shard = layout.shard(layout.shard_of_slot(ringfort_types::slot_of(key.as_bytes())));
        let at = |n| shard.is_some_and(|shard| shard.replicas.iter().any(|place| place.node == NodeId(n)));
        at(1) && at(4) && at(5)
    });
    let key = key.expect("some shard is there");
    world.kill(3);
    world.kill(4);
    world.run(100_000);
    let Reply::Failed(failure) = world.put(0, &key, "value") else { panic!("two of three are lost") };
    let message = failure.message;
    assert!(message.contains("replicas can be reached, 2 are needed: start node"), "{message}");
    assert!(message.contains("node4") && message.contains("node5"), "{message}");
    let Reply::Cluster(state) = world.ask_and_wait(0, Request::ClusterState) else { panic!("it is asked") };
    assert!(state.shards.iter().any(|shard| shard.leader.is_none()));
    assert!(state.shards.iter().all(|shard| shard.leader.is_none_or(|leader| leader.0 <= 3)), "{state:?}");
    world.start(3);
    world.start(4);
    world.run(MOVED_MS);
    assert!(matches!(world.put(0, &key, "value"), Reply::Written(_)));
}

#[test]
fn a_node_whose_disk_is_lost_is_replaced_under_its_name() {
    let mut world = World::born(3);
    fill(&mut world, 0);
    world.kill(2);
    let n = world.join(0, "node3", true);
    assert_eq!(n, 3);
    world.run(MOVED_MS);
    assert_placed(&mut world, 3, &[0, 1, 3]);
    assert_all_there(&mut world, &[0, 1, 3]);
    // The old disk was only mislaid: it is a stranger now.
    world.start(2);
    world.run(2_000);
    assert_eq!(world.refused[2].as_deref(), Some("removed"));
    assert_all_there(&mut world, &[0, 1, 3]);
}

#[test]
fn a_name_that_is_taken_is_given_to_nobody_else() {
    let mut world = World::born(3);
    let before = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("born").clone();
    let newcomer = ringfort_types::Newcomer {
        name: "node2".into(),
        address: "10.0.0.9:50051".into(),
        incarnation: ringfort_types::Incarnation(77),
        weight: 1,
        zone: String::new(),
        replaces: false,
        max: Level::MAX,
    };
    let reply = world.ask_and_wait(0, Request::ChangeLayout(LayoutChange::Join(newcomer)));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    world.run(1_000);
    assert_eq!(world.nodes[0].as_ref().and_then(|node| node.layout()), Some(&before));
}

/// It needs a second or so for its first report.
#[test]
fn a_member_that_has_just_joined_is_not_heard_of_yet_rather_than_down() {
    let mut world = World::born(1);
    world.run(10_000);
    let newcomer = Newcomer {
        name: "node2".into(),
        address: "10.0.0.2:50051".into(),
        incarnation: Incarnation(102),
        weight: 1,
        zone: String::new(),
        replaces: false,
        max: Level::MAX,
    };
    let reply = world.ask_and_wait(0, Request::ChangeLayout(LayoutChange::Join(newcomer)));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    for (after_ms, presence) in [(1_000, Presence::Unknown), (6_000, Presence::Down)] {
        world.run(after_ms);
        let Reply::Cluster(state) = world.ask_and_wait(0, Request::ClusterState) else { panic!("a state") };
        assert_eq!(state.nodes[1].presence, presence);
    }
}
