//! Disks that are older than they were, and two processes with copies of one.

use ringfort_node::{Effect, Event};
use ringfort_types::{
    Incarnation, LogMark, NodeId, PeerFrame, PeerId, PeerMessage, Record, RefusalKind, Reply, ShardId,
};

use crate::world::{SHARDS, World};

/// Until what is remembered has been kept, and until replicas have been made anew.
const KEPT_MS: u64 = 6_000;
const RENEWED_MS: u64 = 20_000;

fn fill(world: &mut World, by: usize, value: &str) {
    for i in 0..40 {
        let reply = world.put(by, &format!("key{i}"), value);
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
}

fn peers(world: &World, n: usize) -> Vec<PeerId> {
    (0..=SHARDS).map(|shard| world.peer_of(n, ShardId(shard))).collect()
}

fn given_up(world: &World, n: usize) -> usize {
    let is_lost = |record: &&Record| matches!(record, Record::Lost(_, Record::ALL_LOST));
    world.disks[n].synced.iter().filter(is_lost).count()
}

/// All replicas of this node are others than these, all groups are whole, and all rows are there whoever is asked.
fn assert_made_anew(world: &mut World, n: usize, old: &[PeerId], value: &str) {
    let now = peers(world, n);
    for (shard, (old, now)) in old.iter().zip(now).enumerate() {
        assert!(now > *old, "shard {shard} has still the replica {old}");
        let voters = world.voters(ShardId(shard as u32)).expect("it rests");
        assert_eq!(voters.len(), 3, "shard {shard}");
    }
    for i in 0..40 {
        assert_eq!(world.get(n, &format!("key{i}")), Some(value.into()), "key{i}");
    }
}

#[test]
fn a_node_on_an_older_image_has_its_replicas_made_anew_and_votes_for_nobody_before() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    fill(&mut world, 0, "after");
    world.run(2_000);
    world.kill(2);
    world.disks[2] = image;
    let old = peers(&world, 2);
    world.start(2);
    world.run(RENEWED_MS);
    assert!(
        world.notices.iter().any(|line| line.contains("the data directory is older than it was")
            && line.contains("made anew from the other nodes")),
        "{:?}",
        world.notices
    );
    assert_made_anew(&mut world, 2, &old, "after");
    assert_eq!(given_up(&world, 2), SHARDS as usize + 1);

    // It is no matter any more, however often it starts.
    let anew = peers(&world, 2);
    for _ in 0..2 {
        world.kill(2);
        world.start(2);
        world.run(RENEWED_MS);
    }
    assert_eq!(peers(&world, 2), anew);
    assert_eq!(given_up(&world, 2), SHARDS as usize + 1);
}

#[test]
fn an_older_image_is_noticed_though_all_nodes_start_again() {
    let mut world = World::born(3);
    fill(&mut world, 0, "before");
    let image = world.disks[2].clone();
    fill(&mut world, 0, "after");
    world.run(KEPT_MS);
    (0..3).for_each(|n| world.kill(n));
    world.disks[2] = image;
    let old = peers(&world, 2);
    (0..3).for_each(|n| world.start(n));
    world.run(RENEWED_MS);
    assert_made_anew(&mut world, 2, &old, "after");
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
    world.disks[2] = image;
    // What it remembers it has from before.
    world.start(1);
    world.start(2);
    world.run(RENEWED_MS);
    let led: Vec<u32> = (0..=SHARDS).filter(|shard| world.leader(ShardId(*shard)).is_some()).collect();
    assert!(led.is_empty(), "shards {led:?} have a leader that may lack writes");
    world.start(0);
    world.run(RENEWED_MS);
    for i in 0..40 {
        assert_eq!(world.get(1, &format!("key{i}")), Some("after".into()), "key{i}");
    }
}

#[test]
fn an_honest_node_gives_nothing_up_however_it_ends() {
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
    (0..3).for_each(|n| assert_eq!(given_up(&world, n), 0, "node{}", n + 1));
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
            if let Effect::Refuse { link: 77, refusal } = effect {
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
