//! Members that come back at another address.

use ringfort_node::{Effect, Event};
use ringfort_types::{
    BirthStage, Hello, Incarnation, LayoutChange, LogMark, NodeId, PeerFrame, PeerMessage, Reply, Request,
    ShardId, Standing,
};

use crate::world::{NOWHERE, ONE_LEVEL, World};

/// Until a member that has moved is where the layout has it, and all have heard so.
const KNOWN_MS: u64 = 6_000;

fn fill(world: &mut World, by: usize, value: &str) {
    for i in 0..20 {
        let reply = world.put(by, &format!("key{i}"), value);
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
}

/// Where each member is, as this node has it in its layout.
pub(crate) fn places(world: &World, n: usize) -> Vec<String> {
    let layout = world.nodes[n].as_ref().and_then(|node| node.layout()).expect("born");
    layout.members.iter().map(|member| member.address.clone()).collect()
}

fn assert_known(world: &mut World, addresses: [&str; 3]) {
    for n in 0..3 {
        assert_eq!(world.refused[n], None, "node{}", n + 1);
        assert_eq!(places(world, n), addresses, "as node{} has it", n + 1);
        assert!(world.nodes[n].as_ref().is_some_and(|node| node.moved().next().is_none()));
    }
    for n in 0..3 {
        fill(world, n, &format!("by way of {n}"));
        assert_eq!(world.get((n + 1) % 3, "key7"), Some(format!("by way of {n}")));
    }
}

#[test]
fn a_member_that_moves_is_found_and_known_again_whoever_it_is() {
    for n in 0..3 {
        let mut world = World::born(3);
        fill(&mut world, 0, "before");
        let born = places(&world, 0);
        world.kill(n);
        world.run(1_000);
        world.start_at(n, "10.0.9.9:50051", &[]);
        let said = format!("the address of node{} was {}, and is 10.0.9.9:50051 now", n + 1, born[n]);
        assert!(world.notices.iter().any(|line| line.contains(&said)), "{:?}", world.notices);
        world.run(KNOWN_MS);
        let mut addresses: Vec<&str> = born.iter().map(String::as_str).collect();
        addresses[n] = "10.0.9.9:50051";
        assert_known(&mut world, addresses.clone().try_into().expect("three"));
        let told = format!("node{} is at 10.0.9.9:50051 now, and was at {}", n + 1, born[n]);
        assert!(world.notices.contains(&told), "{:?}", world.notices);

        // It is where the layout has it: nothing is said, and nothing is changed.
        let epoch = world.nodes[n].as_ref().expect("it runs").epoch();
        world.kill(n);
        world.notices.clear();
        world.start(n);
        world.run(KNOWN_MS);
        assert_known(&mut world, addresses.try_into().expect("three"));
        assert_eq!(world.nodes[n].as_ref().expect("it runs").epoch(), epoch);
        assert!(!world.notices.iter().any(|line| line.contains("address")), "{:?}", world.notices);
    }
}

/// What it goes by is older than where the others look for it: it can't tell from that that they don't find it. Nobody listens to what it
/// says before its log is open.
#[test]
fn a_member_that_moves_back_before_it_has_heard_that_it_has_moved_is_found() {
    for n in 0..3 {
        let mut world = World::born(3);
        fill(&mut world, 0, "before");
        let born = places(&world, 0);
        world.kill(n);
        world.start_at(n, NOWHERE, &[]);
        world.run(KNOWN_MS);
        assert_eq!(places(&world, (n + 1) % 3)[n], NOWHERE);
        assert_eq!(places(&world, n), born);
        world.kill(n);
        world.unopened.insert(n);
        world.start_at(n, &born[n], &[]);
        world.run(100);
        world.open_log(n);
        world.run(KNOWN_MS);
        assert_known(&mut world, [&born[0], &born[1], &born[2]]);
    }
}

/// While it is down somebody has it elsewhere in the layout, another one moves, and yet another one joins.
#[test]
fn a_member_is_found_where_it_was_whatever_the_layout_says_since() {
    for has_joined in [false, true] {
        let mut world = World::born(3);
        fill(&mut world, 0, "before");
        let n = if has_joined { world.join(0, "node4", false) } else { 1 };
        world.run(30_000);
        let before = places(&world, 0);
        world.kill(n);
        let moves = vec![(NodeId(n as u64 + 1), "10.0.9.9:50051".to_owned())];
        let reply = world.ask_and_wait(0, Request::ChangeLayout(LayoutChange::Move(moves)));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
        world.kill(2);
        world.start_at(2, "10.0.9.3:50051", &[]);
        let newcomer = world.join(0, "newcomer", false);
        world.run(KNOWN_MS);
        assert_eq!(places(&world, 2)[n], "10.0.9.9:50051");
        world.unopened.insert(n);
        world.start(n);
        world.run(100);
        world.open_log(n);
        world.run(2 * KNOWN_MS);
        let mut now = before;
        "10.0.9.3:50051".clone_into(&mut now[2]);
        for other in 0..world.nodes.len() {
            assert_eq!(places(&world, other)[..now.len()], now, "as node{} has it", other + 1);
            assert_eq!(world.nodes[other].as_ref().expect("it runs").moved().next(), None);
        }
        fill(&mut world, n, "after");
        assert_eq!(world.get(newcomer, "key7"), Some("after".into()));
    }
}

#[test]
fn all_move_at_once_if_each_can_reach_one_that_can_reach_the_rest() {
    let moved = ["10.0.8.1:50051", "10.0.8.2:50051", "10.0.8.3:50051"];
    let all: [&[usize]; 3] = [&[1, 2], &[0, 2], &[0, 1]];
    let one: [&[usize]; 3] = [&[1], &[], &[1]];
    for told in [all, one] {
        let mut world = World::born(3);
        fill(&mut world, 0, "before");
        (0..3).for_each(|n| world.kill(n));
        for n in 0..3 {
            world.start_at(n, moved[n], told[n]);
        }
        world.run(2 * KNOWN_MS);
        assert_known(&mut world, moved);
    }
}

#[test]
fn members_change_places() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let born = places(&world, 0);
    (0..3).for_each(|n| world.kill(n));
    for n in 0..3 {
        world.start_at(n, &born[(n + 1) % 3], &[(n + 1) % 3, (n + 2) % 3]);
    }
    world.run(2 * KNOWN_MS);
    assert_known(&mut world, [&born[1], &born[2], &born[0]]);
}

/// The two know each other, and are too few to change the layout.
#[test]
fn members_that_change_places_wait_for_the_layout_and_refuse_nobody() {
    let mut world = World::born(5);
    fill(&mut world, 0, "before");
    let born = places(&world, 0);
    (0..5).for_each(|n| world.kill(n));
    world.start_at(0, &born[1], &[1]);
    world.start_at(1, &born[0], &[0]);
    world.run(2 * KNOWN_MS);
    assert_eq!((&world.refused[0], &world.refused[1]), (&None, &None));
    assert_eq!(places(&world, 0), born);
    (2..5).for_each(|n| world.start(n));
    world.run(2 * KNOWN_MS);
    for n in 0..5 {
        assert_eq!(places(&world, n)[..2], [born[1].clone(), born[0].clone()], "as node{} has it", n + 1);
    }
    fill(&mut world, 0, "after");
}

/// The other one looks for it where it is itself, until it is told: it must take it that both have moved.
#[test]
fn of_two_that_change_places_it_is_enough_that_one_finds_the_other() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let born = places(&world, 0);
    (0..3).for_each(|n| world.kill(n));
    world.start_at(0, &born[1], &[]);
    world.start_at(1, &born[0], &[0]);
    world.run(2 * KNOWN_MS);
    for n in 0..2 {
        assert_eq!(places(&world, n), [born[1].clone(), born[0].clone(), born[2].clone()]);
    }
    world.start(2);
    world.run(KNOWN_MS);
    assert_known(&mut world, [&born[1], &born[0], &born[2]]);
}

#[test]
fn until_the_layout_has_it_a_member_is_shown_where_it_is() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let born = places(&world, 0);
    world.kill(1);
    world.kill(2);
    // Nobody can change the layout.
    world.fill_up(0);
    world.start_at(2, "10.0.9.9:50051", &[]);
    world.run(KNOWN_MS);
    assert_eq!(places(&world, 0), born);
    let Reply::Cluster(state) = world.ask_and_wait(0, Request::ClusterState) else { panic!("a state") };
    assert_eq!(state.nodes[2].address, "10.0.9.9:50051");
    let Reply::Cluster(state) = world.ask_and_wait(2, Request::ClusterState) else { panic!("a state") };
    assert_eq!(state.nodes[2].address, "10.0.9.9:50051");
}

#[test]
fn an_address_where_another_member_is_is_refused() {
    let mut world = World::born(3);
    let born = places(&world, 0);
    world.kill(2);
    world.start_at(2, &born[1], &[]);
    world.run(KNOWN_MS);
    let reason = world.refused[2].clone().expect("it must not go on");
    for says in [&born[1], "the address of node2, which is there", "--advertise"] {
        assert!(reason.contains(says), "{says}: {reason}");
    }
    assert_eq!(places(&world, 0), born);
}

/// Its member is down: it may come back at any time.
#[test]
fn an_address_of_a_member_that_is_away_is_waited_for() {
    let mut world = World::born(3);
    let born = places(&world, 0);
    world.kill(1);
    world.kill(2);
    world.start_at(2, &born[1], &[]);
    world.run(2 * KNOWN_MS);
    assert_eq!(world.refused[2], None);
    assert_eq!(places(&world, 0), born);
    let said = |world: &World| {
        world.notices.iter().any(|line| line.contains("the address of node2, as far as the cluster knows"))
    };
    assert!(said(&world), "{:?}", world.notices);
    // The two are a majority: it is looked for where it says that it is.
    fill(&mut world, 0, "meanwhile");
    assert_eq!(world.get(2, "key7"), Some("meanwhile".into()));
    // It comes back elsewhere.
    world.start_at(1, "10.0.9.2:50051", &[]);
    world.run(2 * KNOWN_MS);
    assert_known(&mut world, [&born[0], "10.0.9.2:50051", &born[1]]);
}

/// A node that has joined moves like any other.
#[test]
fn a_node_that_has_joined_moves() {
    let mut world = World::born(1);
    fill(&mut world, 0, "before");
    let n = world.join(0, "node2", false);
    world.run(30_000);
    world.kill(n);
    world.start_at(n, "10.0.9.9:50051", &[]);
    world.run(KNOWN_MS);
    assert_eq!(places(&world, 0)[1], "10.0.9.9:50051");
    assert_eq!(places(&world, n)[1], "10.0.9.9:50051");
    assert_eq!(world.get(n, "key3"), Some("before".into()));
    // And so does one that is alone.
    let mut world = World::born(1);
    world.kill(0);
    world.start_at(0, "10.0.9.9:50051", &[]);
    world.run(KNOWN_MS);
    assert_eq!(places(&world, 0), ["10.0.9.9:50051"]);
}

/// What the second process on a copy of a directory says of its address counts for nothing.
#[test]
fn the_second_of_two_processes_moves_nobody() {
    let mut world = World::born(3);
    let born = places(&world, 0);
    let first = world.mark(2);
    let hello = Hello {
        name: "node3".into(),
        address: "10.0.9.9:50051".into(),
        addresses: born.clone(),
        names: vec![String::new(); 3],
        shards: 8,
        replicas: 3,
        stage: BirthStage::Born,
        map_hash: 0,
        levels: ONE_LEVEL,
    };
    for process in [first.process + 1, 0] {
        for _ in 0..60 {
            world.run(100);
            for n in 0..2 {
                let node = world.nodes[n].as_mut().expect("it runs");
                let frame = PeerFrame {
                    from: NodeId(3),
                    to: node.id(),
                    incarnation: Incarnation(world.disks[2].incarnation),
                    cluster: node.cluster(),
                    epoch: node.epoch(),
                    log: LogMark { process, ..first },
                    messages: vec![PeerMessage::Hello(hello.clone())],
                };
                node.handle(world.now, Event::Peer { link: 77, frame });
                let effects = node.take_effects(world.now);
                let others = effects.into_iter().filter(|effect| !matches!(effect, Effect::Refuse { .. }));
                assert_eq!(others.count(), 0, "nothing comes of it");
                assert!(node.moved().next().is_none());
            }
        }
    }
    assert_eq!(places(&world, 0), born);
    assert_eq!(world.refused[2], None);
}

#[test]
fn a_layout_change_by_a_client_of_the_node_is_as_good_as_none_if_two_would_have_one_address() {
    let mut world = World::born(3);
    let born = places(&world, 0);
    let moves = vec![(NodeId(1), born[1].clone())];
    let reply = world.ask_and_wait(0, Request::ChangeLayout(LayoutChange::Move(moves)));
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    world.run(1_000);
    assert_eq!(places(&world, 2), born);
    // It is a member all the same: an address that is free is given to it, also while it is to leave.
    let stand = LayoutChange::Stand(NodeId(2), Standing::Draining);
    world.ask_and_wait(0, Request::ChangeLayout(stand));
    world.kill(1);
    world.start_at(1, "10.0.9.9:50051", &[]);
    world.run(KNOWN_MS);
    assert_eq!(places(&world, 0)[1], "10.0.9.9:50051");
    assert!(world.leader(ShardId::META).is_some());
}
