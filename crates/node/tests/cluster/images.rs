//! Disks that are older than they were, and two processes with copies of one.

use ringfort_node::{Effect, Event};
use ringfort_types::{Incarnation, LogMark, NodeId, PeerFrame, PeerMessage, RefusalKind, Reply, ShardId};

use crate::moved::places;
use crate::world::{Disk, SHARDS, World};

/// Until what is remembered has been kept.
const KEPT_MS: u64 = 6_000;

fn fill(world: &mut World, by: usize, value: &str) {
    for i in 0..40 {
        let reply = world.put(by, &format!("key{i}"), value);
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
}

/// A node's directory is put back, and it starts: what it is told.
fn start_on(world: &mut World, n: usize, image: Disk) -> String {
    world.disks[n] = image;
    world.refused[n] = None;
    world.start(n);
    world.run(2_000);
    world.refused[n].clone().expect("it must not go on")
}

/// As when the image of a machine is put back on another one. Nobody looks for it there, and nobody believes that it has moved.
#[test]
fn an_older_image_at_another_address_is_refused_there() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    fill(&mut world, 0, "after");
    world.run(2_000);
    world.kill(2);
    world.disks[2] = image;
    let born = places(&world, 0);
    world.start_at(2, "10.0.9.9:50051", &[]);
    world.run(2_000);
    let reason = world.refused[2].clone().expect("it must not go on");
    assert!(reason.contains("older than it was"), "{reason}");
    assert_eq!(places(&world, 0), born);
}

#[test]
fn an_older_image_is_refused_with_what_to_do_and_the_disk_as_it_was_is_not() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    fill(&mut world, 0, "after");
    world.run(2_000);
    world.kill(2);
    let as_it_was = world.disks[2].clone();
    for _ in 0..2 {
        let reason = start_on(&mut world, 2, image.clone());
        for says in
            ["older than it was", "remembers batch", "Put it back as it was", "--id node3", "--replace"]
        {
            assert!(reason.contains(says), "{says}: {reason}");
        }
        world.kill(2);
    }
    // It is refused from then on, also by nobody: else its log would grow until it is as long as the one that was lost.
    start_on(&mut world, 2, image);
    (0..3).for_each(|n| world.kill(n));
    let batch = world.disks[2].batch;
    for _ in 0..3 {
        let again = world.disks[2].clone();
        assert!(start_on(&mut world, 2, again).contains("Put it back as it was"));
        world.kill(2);
    }
    assert_eq!(world.disks[2].batch, batch, "it writes nothing");
    (0..2).for_each(|n| world.start(n));
    world.disks[2] = as_it_was;
    world.refused[2] = None;
    world.start(2);
    world.run(3_000);
    assert_eq!(world.refused[2], None);
    assert_eq!(world.get(2, "key7"), Some("after".into()));
}

#[test]
fn an_older_image_is_refused_though_all_nodes_start_again() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    fill(&mut world, 0, "after");
    world.run(KEPT_MS);
    (0..3).for_each(|n| world.kill(n));
    (0..2).for_each(|n| world.start(n));
    start_on(&mut world, 2, image);
    world.run(2_000);
    assert_eq!(world.get(0, "key7"), Some("after".into()));
}

/// The only one that has the write is away: the other two must not go on without it.
#[test]
fn nobody_is_elected_by_an_older_image() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    // The second node keeps no entry, and hears that the others do.
    world.fill_up(1);
    world.run(3_000);
    fill(&mut world, 0, "after");
    world.run(KEPT_MS);
    world.kill(1);
    world.stuck.remove(&1);
    world.held.remove(&1);
    world.kill(0);
    world.kill(2);
    // What it remembers it has from before.
    world.start(1);
    start_on(&mut world, 2, image);
    world.run(10_000);
    let led: Vec<u32> = (0..=SHARDS).filter(|shard| world.leader(ShardId(*shard)).is_some()).collect();
    assert!(led.is_empty(), "shards {led:?} have a leader that may lack writes");
    world.kill(2);
    world.start(0);
    world.run(5_000);
    for i in 0..40 {
        assert_eq!(world.get(1, &format!("key{i}")), Some("after".into()), "key{i}");
    }
}

#[test]
fn a_node_whose_disk_is_as_it_was_goes_on_however_it_ended() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    for round in 0..6 {
        let n = round % 3;
        if round > 2 {
            world.queue.push((n, Event::Stop));
            world.run(500);
        }
        world.kill(n);
        world.start(n);
        fill(&mut world, (n + 1) % 3, &format!("round{round}"));
        world.run(KEPT_MS / 2);
    }
    (0..3).for_each(|n| world.kill(n));
    (0..3).for_each(|n| world.start(n));
    world.run(KEPT_MS);
    (0..3).for_each(|n| assert_eq!(world.refused[n], None, "node{}", n + 1));
    assert!(!world.notices.iter().any(|line| line.contains("older than it was")), "{:?}", world.notices);
}

/// The second process of two is refused once it has gone on for a while, and until then nobody counts what it says.
#[test]
fn the_second_of_two_processes_on_copies_of_a_directory_is_refused() {
    let mut world = World::born(3);
    fill(&mut world, 0, "value");
    let first = world.mark(2);
    let second = LogMark { process: first.process + 1, ..first };
    let mut refused = None;
    for tenth in 0..60 {
        world.run(100);
        let node = world.nodes[0].as_mut().expect("it runs");
        let report = PeerMessage::Report(ringfort_types::NodeReport::default());
        let frame = PeerFrame {
            from: NodeId(3),
            to: NodeId(1),
            incarnation: Incarnation(world.disks[2].incarnation),
            cluster: node.cluster(),
            epoch: node.epoch(),
            log: second,
            messages: vec![report],
        };
        node.handle(world.now, Event::Peer { link: 77, frame });
        for effect in node.take_effects(world.now) {
            if let Effect::Refuse { link: 77, with: PeerMessage::Refused(refusal) } = effect {
                refused.get_or_insert((tenth, refusal));
            }
        }
    }
    let (tenth, refusal) = refused.expect("it is refused");
    assert_eq!(refusal.kind, RefusalKind::SecondProcess);
    assert!(refusal.reason.contains("copies of one data directory"), "{}", refusal.reason);
    assert!((25..40).contains(&tenth), "after {tenth} tenths of a second");
    assert_eq!(world.get(0, "key1"), Some("value".into()));
    assert!(world.refused[2].is_none(), "the first one goes on");
    // A start after an end is no second process.
    world.kill(2);
    world.start(2);
    world.run(8_000);
    assert!(world.refused[2].is_none());
}
