//! Nodes that have opened a part of their shards: what they are asked for meanwhile, and what the others expect of them.

use ringfort_node::Event;
use ringfort_types::{
    Code, Consistency, DiskState, Index, NodeId, Outcome, Presence, Reply, Request, ShardId,
};

use crate::failure;
use crate::world::{SHARDS, World, get};

/// A cluster in which each shard has a key with its own number, and a node has been started again that does not come
/// to its shard of that number.
fn with_one_withheld(nodes: usize, n: usize, shard: ShardId) -> World {
    let mut world = World::born(nodes);
    for shard in (1..=SHARDS).map(ShardId) {
        let key = world.key_of(shard);
        assert!(matches!(world.put(n, &key, &format!("value {shard}")), Reply::Written(_)));
    }
    world.run(2_000);
    world.kill(n);
    world.run(2_000);
    world.withheld.insert((n, shard));
    world.start(n);
    world
}

/// A shard of which this node is first in line.
fn preferred_by(n: usize) -> ShardId {
    let world = World::born(3);
    let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("born");
    let node = NodeId(n as u64 + 1);
    let mut shards = layout.shards.iter().filter(|shard| shard.shard != ShardId::META);
    let found = shards.find(|shard| shard.replicas[0].node == node);
    found.expect("every node is first in line somewhere").shard
}

fn stale(key: &str) -> Request {
    Request::Get { key: key.to_owned().into(), consistency: Consistency::Stale }
}

#[test]
fn what_is_open_is_served_here_and_the_rest_by_others() {
    let withheld = ShardId(3);
    let mut world = with_one_withheld(3, 0, withheld);
    world.run(2_000);
    for shard in (1..=SHARDS).map(ShardId) {
        let key = world.key_of(shard);
        assert_eq!(world.get(0, &key), Some(format!("value {shard}")));
        let reply = world.put(0, &key, &format!("later {shard}"));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    // By whoever has the shard, and never from nothing.
    let key = world.key_of(withheld);
    let reply = world.ask_and_wait(0, stale(&key));
    let Reply::Value { row: Some(row), .. } = reply else { panic!("{reply:?}") };
    assert_eq!(row.value, format!("later {withheld}"));
    assert!(!world.tables[0].contains_key(&withheld));
    assert!(!world.serving.contains(&0), "not all is open");
    world.open_late(0, withheld);
    assert!(world.serving.contains(&0));
    world.run(1_000);
    assert_eq!(world.get(0, &key), Some(format!("later {withheld}")));
}

#[test]
fn a_node_reports_what_is_open_and_no_more() {
    let withheld = ShardId(3);
    let mut world = with_one_withheld(3, 0, withheld);
    world.run(2_000);
    for asked in [0, 1] {
        let Reply::Cluster(state) = world.ask_and_wait(asked, Request::ClusterState) else {
            panic!("a state")
        };
        assert_eq!(state.nodes[0].presence, Presence::Up, "node {asked}");
        for shard in &state.shards {
            let (_, replica) =
                shard.replicas.iter().find(|(node, _)| *node == NodeId(1)).expect("one on each");
            assert_eq!(replica.last == Index(0), shard.shard == withheld, "node {asked}: {replica:?}");
        }
        assert!(state.shards[withheld.0 as usize].leader.is_some_and(|leader| leader != NodeId(1)));
    }
}

#[test]
fn a_digest_of_a_replica_that_is_not_open_is_refused() {
    let withheld = ShardId(3);
    let mut world = with_one_withheld(3, 0, withheld);
    world.run(2_000);
    let request = Request::DigestAt { node: NodeId(1), shard: withheld, index: Index(1) };
    for asked in [0, 1] {
        let failure = failure(world.ask_and_wait(asked, request.clone()));
        assert_eq!((failure.outcome, failure.code), (Outcome::Rejected, Code::Unavailable));
        assert!(failure.message.contains("still reading its replica of shard 3"), "{}", failure.message);
    }
    world.open_late(0, withheld);
    for asked in [0, 1] {
        let reply = world.ask_and_wait(asked, request.clone());
        assert!(matches!(reply, Reply::Digest { rows: 1, .. }), "{reply:?}");
    }
}

#[test]
fn with_nobody_else_to_ask_a_request_waits_and_says_what_for() {
    let withheld = ShardId(3);
    let mut world = with_one_withheld(1, 0, withheld);
    let key = world.key_of(withheld);
    let late = world.ask(0, get(&key), 1_000);
    assert_eq!(world.get(0, &world.key_of(ShardId(4)).clone()), Some("value 4".into()));
    world.run(1_500);
    let failure = failure(world.answers.remove(&late).expect("answered by its deadline"));
    assert_eq!((failure.outcome, failure.code), (Outcome::Rejected, Code::Unavailable));
    assert!(failure.message.contains("still reading its replica of shard 3"), "{}", failure.message);
    let in_time = world.ask(0, get(&key), 3_000);
    world.run(1_000);
    assert!(!world.answers.contains_key(&in_time));
    world.open_late(0, withheld);
    world.run(1_000);
    let reply = world.answers.remove(&in_time).expect("it is open");
    assert!(matches!(reply, Reply::Value { row: Some(_), .. }), "{reply:?}");
}

#[test]
fn nobody_hands_a_leadership_to_a_replica_that_is_not_open() {
    let withheld = preferred_by(0);
    let mut world = with_one_withheld(3, 0, withheld);
    let key = world.key_of(withheld);
    // While a leader hands over, it takes no writes.
    for i in 0..60 {
        let put = Request::put(key.clone(), format!("{i}"));
        let id = world.ask(1, put, 3_000);
        world.run(100);
        let reply = world.answers.remove(&id);
        assert!(matches!(reply, Some(Reply::Written(_))), "write {i}: {reply:?}");
    }
    assert!(world.leader(withheld).is_some_and(|leader| leader != NodeId(1)));
    world.open_late(0, withheld);
    world.run(6_000);
    assert_eq!(world.leader(withheld), Some(NodeId(1)), "who is first in line leads again");
}

#[test]
fn who_ends_hands_over_to_a_replica_that_is_open() {
    let withheld = preferred_by(0);
    // Both others have all of its log, whichever of them is not open.
    for (opening, transferee) in [(1, NodeId(3)), (2, NodeId(2))] {
        let mut world = with_one_withheld(3, opening, withheld);
        world.run(2_000);
        assert_eq!(world.leader(withheld), Some(NodeId(1)));
        world.queue.push((0, Event::Stop));
        world.run(200);
        assert_eq!(world.leader(withheld), Some(transferee));
        assert!(world.stopped.contains(&0));
    }
}

#[test]
fn a_shard_that_opens_late_knows_that_its_node_should_lead_nothing() {
    for event in [Event::Stop, Event::Disk(DiskState::Full)] {
        let withheld = preferred_by(0);
        let mut world = World::born(3);
        world.run(2_000);
        for n in 0..3 {
            world.kill(n);
        }
        world.withheld.insert((0, withheld));
        world.start(0);
        world.start(1);
        world.queue.push((0, event.clone()));
        world.drain();
        world.open_late(0, withheld);
        world.run(3_000);
        assert_eq!(world.leader(withheld), Some(NodeId(2)), "{event:?}");
    }
}
