//! The layout that nodes go by: who hears of a change, and what a start begins with.

use ringfort_types::{Epoch, LayoutChange, LeaderPreference, NodeId, Reply, Request, ShardId};

use crate::world::{SHARDS, World};

fn prefer(world: &mut World, n: usize, preference: LeaderPreference) {
    let reply = world.ask_and_wait(n, Request::ChangeLayout(LayoutChange::Prefer(preference)));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
}

fn epochs(world: &World) -> Vec<Epoch> {
    world.nodes.iter().flatten().map(ringfort_node::Node::epoch).collect()
}

fn leaders(world: &mut World) -> Vec<Option<NodeId>> {
    (0..=SHARDS).map(|shard| world.leader(ShardId(shard))).collect()
}

#[test]
fn a_change_reaches_all_nodes_and_leaders_follow_it() {
    // Two of seven have no replica of the meta group.
    let mut world = World::born(7);
    world.run(3_000);
    assert_eq!(epochs(&world), [Epoch(1); 7]);
    let spread = leaders(&mut world);
    for n in [6, 0] {
        // Said twice it is as good as once.
        prefer(&mut world, n, LeaderPreference::HighestId);
    }
    world.run(10_000);
    assert_eq!(epochs(&world), [Epoch(2); 7]);
    for shard in (0..=SHARDS).map(ShardId) {
        let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("it is born").clone();
        let highest =
            layout.shard(shard).and_then(|shard| shard.replicas.iter().map(|place| place.node).max());
        assert_eq!(world.leader(shard), highest, "shard {shard}");
    }

    prefer(&mut world, 3, LeaderPreference::Ring);
    world.run(10_000);
    assert_eq!((epochs(&world), leaders(&mut world)), (vec![Epoch(3); 7], spread));
}

#[test]
fn the_highest_that_is_up_leads() {
    let mut world = World::born(3);
    prefer(&mut world, 0, LeaderPreference::HighestId);
    world.run(10_000);
    assert_eq!(world.leader(ShardId(1)), Some(NodeId(3)));
    world.kill(2);
    world.run(10_000);
    assert_eq!(world.leader(ShardId(1)), Some(NodeId(2)));
    world.start(2);
    world.run(10_000);
    assert_eq!(world.leader(ShardId(1)), Some(NodeId(3)));
}

#[test]
fn who_was_away_asks_and_who_has_lost_its_file_asks_again() {
    let mut world = World::born(7);
    let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("it is born").clone();
    let meta = layout.shard(ShardId::META).expect("there is one");
    let without = (1..=7).map(NodeId).find(|id| meta.replicas.iter().all(|place| place.node != *id));
    let away = without.expect("five have one").0 as usize - 1;
    world.kill(away);
    prefer(&mut world, meta.replicas[0].node.0 as usize - 1, LeaderPreference::HighestId);
    world.run(1_000);
    world.start(away);
    world.run(1_000);
    assert_eq!(epochs(&world), [Epoch(2); 7]);
    assert!(world.disks[away].layout.is_some(), "it is kept");

    // A start begins with what was kept; without that, and with something else in its place, with the first one.
    for (kept, begins_with) in
        [(None, Epoch(1)), (Some("?".into()), Epoch(1)), (world.disks[away].layout.clone(), Epoch(2))]
    {
        world.kill(away);
        world.disks[away].layout = kept;
        world.start(away);
        assert_eq!(world.nodes[away].as_ref().map(ringfort_node::Node::epoch), Some(begins_with));
        world.run(1_000);
        assert_eq!(epochs(&world), [Epoch(2); 7]);
    }
    assert!(world.notices.iter().any(|line| line.contains("the layout that was kept can't be read")));
}

#[test]
fn a_shard_whose_replicas_are_all_lost_has_no_leader_whoever_is_asked() {
    let mut world = World::born(7);
    let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("it is born").clone();
    let shard = &layout.shards[1];
    assert!(world.leader(shard.shard).is_some());
    let lost: Vec<usize> = shard.replicas.iter().map(|place| place.node.0 as usize - 1).collect();
    let asked = (0..7).find(|n| !lost.contains(n)).expect("it has three");
    for n in lost {
        world.kill(n);
    }
    world.run(6_000);
    let Reply::Cluster(state) = world.ask_and_wait(asked, Request::ClusterState) else { panic!("a state") };
    assert_eq!(state.shards[shard.shard.0 as usize].leader, None);
}
