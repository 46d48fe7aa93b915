//! Nodes of two versions in one cluster: the level that is in force, who goes by it, and who can't.

use ringfort_node::{Effect, Event, Identity, Node, NodeError};
use ringfort_types::{
    Incarnation, LayoutChange, Level, LevelLimit, Levels, NodeId, PeerMessage, Reply, Request, ShardId,
    Unknown,
};

use crate::failure;
use crate::world::World;

const OLD: Levels = Levels { min: Level(1), max: Level(1) };
const NEW: Levels = Levels { min: Level(1), max: Level(2) };

/// Three nodes that were born as one version each.
fn born_as(levels: [Levels; 3]) -> World {
    let mut world = World::new(3);
    for (n, levels) in levels.into_iter().enumerate() {
        world.configs[n].levels = levels;
    }
    for n in 0..3 {
        world.start(n);
    }
    world.run(6_000);
    world
}

/// A node comes back as another version.
fn come_back_as(world: &mut World, n: usize, levels: Levels) {
    world.kill(n);
    world.configs[n].levels = levels;
    world.start(n);
    world.run(6_000);
}

fn level(world: &World, n: usize) -> u16 {
    world.nodes[n].as_ref().and_then(|node| node.layout()).expect("it runs").level.0
}

fn known(world: &World, n: usize) -> Vec<u16> {
    let layout = world.nodes[n].as_ref().and_then(|node| node.layout()).expect("it runs");
    layout.members.iter().map(|member| member.max.0).collect()
}

fn limit(world: &mut World, limit: LevelLimit) {
    let reply = world.ask_and_wait(0, Request::ChangeLayout(LayoutChange::Limit(limit)));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    world.run(2_000);
}

#[test]
fn the_level_rises_when_the_last_node_is_upgraded() {
    let mut world = born_as([OLD; 3]);
    assert_eq!(world.nodes[0].as_ref().map(|node| node.epoch().0), Some(1), "nobody has anything to say");
    for n in 0..3 {
        assert_eq!(level(&world, 0), 1);
        come_back_as(&mut world, n, NEW);
        assert!(matches!(world.put(n, "key", &format!("value {n}")), Reply::Written(_)));
    }
    assert_eq!([0, 1, 2].map(|n| level(&world, n)), [2; 3]);
    assert_eq!(known(&world, 1), [2; 3]);
    assert_eq!(world.get(0, "key"), Some("value 2".into()));
    let state = match world.ask_and_wait(1, Request::ClusterState) {
        Reply::Cluster(state) => state,
        other => panic!("{other:?}"),
    };
    assert_eq!((state.level, state.nodes[2].level_max, state.level_limit), (2, 2, LevelLimit::Auto));
}

#[test]
fn a_node_may_go_back_until_the_level_rises() {
    let mut world = born_as([OLD; 3]);
    come_back_as(&mut world, 0, NEW);
    come_back_as(&mut world, 1, NEW);
    come_back_as(&mut world, 0, OLD);
    come_back_as(&mut world, 2, NEW);
    assert_eq!((level(&world, 0), known(&world, 2)), (1, vec![1, 2, 2]));
    assert!(world.refused.iter().all(Option::is_none));

    // And for longer where the operator holds it back.
    limit(&mut world, LevelLimit::AtMost(Level(1)));
    come_back_as(&mut world, 0, NEW);
    assert_eq!((level(&world, 0), known(&world, 2)), (1, vec![2, 2, 2]));
    come_back_as(&mut world, 1, OLD);
    limit(&mut world, LevelLimit::Auto);
    assert_eq!((level(&world, 0), known(&world, 2)), (1, vec![2, 1, 2]));
    come_back_as(&mut world, 1, NEW);
    assert_eq!([0, 1, 2].map(|n| level(&world, n)), [2; 3]);
}

fn start_is_refused(world: &World, n: usize) -> String {
    let disk = &world.disks[n];
    let identity = Identity {
        incarnation: Incarnation(disk.incarnation),
        boot: disk.boot + 1,
        birth: disk.birth.clone(),
        layout: disk.layout.clone(),
        process: 7,
        marks: None,
    };
    match Node::new(world.configs[n].clone(), &identity, world.now) {
        Err(NodeError::Level(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it starts"),
    }
}

#[test]
fn an_old_version_refuses_itself_by_the_layout_that_it_has_kept() {
    let mut world = born_as([NEW; 3]);
    assert_eq!(level(&world, 0), 2);
    world.kill(0);
    world.configs[0].levels = OLD;
    let why = start_is_refused(&world, 0);
    assert!(why.starts_with("this node knows level 1, and level 2 is in force"), "{why}");
    assert!(why.contains("install a Ringfort that knows level 2"), "{why}");
    // Also if it can read no more than the beginning of it.
    let mut later = world.disks[0].layout.as_ref().expect("it was kept").to_vec();
    later[0] = 9;
    world.disks[0].layout = Some(later.into());
    assert!(start_is_refused(&world, 0).contains("level 2 is in force"));
    // A version that has forgotten the level is no better.
    world.configs[0].levels = Levels { min: Level(3), max: Level(4) };
    let why = start_is_refused(&world, 0);
    assert!(why.contains("install a Ringfort that knows levels 2 and 3"), "{why}");
}

#[test]
fn an_old_version_that_was_away_is_refused_by_the_others_and_ends() {
    let mut world = born_as([NEW; 3]);
    let kept = world.disks[2].layout.clone();
    assert!(kept.is_some());
    for lost in [None, Some("?".into())] {
        world.kill(2);
        world.configs[2].levels = OLD;
        world.disks[2].layout = lost;
        world.start(2);
        world.run(2_000);
        let why = world.refused[2].take().expect("it has ended");
        assert!(why.contains("level 2 is in force"), "{why}");
        assert!(world.notices.iter().any(|line| line.starts_with("refused node3: it knows level 1")));
        assert!(matches!(world.put(0, "key", "value"), Reply::Written(_)), "the others go on");
    }
    come_back_as(&mut world, 2, NEW);
    assert_eq!((level(&world, 2), world.get(2, "key")), (2, Some("value".into())));
}

#[test]
fn nodes_that_begin_a_cluster_begin_with_one_level() {
    let mut world = born_as([OLD, NEW, OLD]);
    assert_eq!((level(&world, 0), known(&world, 0)), (1, vec![1, 2, 1]));
    world = born_as([OLD, OLD, Levels { min: Level(2), max: Level(2) }]);
    assert!(world.refused.iter().flatten().any(|why| why.contains("too far apart")), "{:?}", world.refused);
}

#[test]
fn what_a_later_version_says_is_left_alone_and_told_once() {
    let mut world = born_as([OLD; 3]);
    let said = |world: &World| world.notices.iter().filter(|line| line.contains("of a kind (99)")).count();
    let message = || PeerMessage::Unknown(Unknown { kind: 99, body: "news".into() });
    for _ in 0..3 {
        let (from, cluster, epoch) = {
            let node = world.nodes[1].as_ref().expect("it runs");
            (node.id(), node.cluster(), node.epoch())
        };
        let effect = Effect::Send { to: NodeId(1), messages: vec![message(), message()] };
        world.carry_out(1, from, cluster, epoch, effect);
        world.drain();
    }
    assert_eq!(said(&world), 1);
    assert!(world.notices.iter().any(|line| line.starts_with("node2 sends messages")), "{:?}", world.notices);
    // It is told again of the next connection.
    come_back_as(&mut world, 1, OLD);
    let (cluster, epoch) =
        world.nodes[0].as_ref().map(|node| (node.cluster(), node.epoch())).expect("it runs");
    world.carry_out(1, NodeId(2), cluster, epoch, Effect::Send { to: NodeId(1), messages: vec![message()] });
    world.drain();
    assert_eq!(said(&world), 2);
    assert!(matches!(world.put(1, "key", "value"), Reply::Written(_)), "the connection goes on");
}

#[test]
fn a_replica_that_meets_an_entry_of_a_later_version_stands_still_and_is_not_made_anew() {
    let mut world = born_as([OLD; 3]);
    let shard = ShardId(3);
    let key = world.key_of(shard);
    let leader = world.leader(shard).expect("it is led").0 as usize - 1;
    let reason = "entry 4 of the log is none that this version can read".to_owned();
    world.queue.push((leader, Event::Unread { shard, reason }));
    world.drain();
    world.run(20_000);
    assert!(matches!(world.put(leader, &key, "value"), Reply::Written(_)), "the others take it");
    assert_eq!(world.nodes[0].as_ref().map(|node| node.epoch().0), Some(1), "nobody asks for a new replica");
    let lost = world.ask_and_wait(
        leader,
        Request::DigestAt { node: NodeId(leader as u64 + 1), shard, index: ringfort_types::Index(1) },
    );
    assert!(failure(lost).message.contains("entry 4 of the log"));
    world.kill(leader);
    world.start(leader);
    world.run(3_000);
    assert_eq!(world.get(leader, &key), Some("value".into()));
}
