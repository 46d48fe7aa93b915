//! Three nodes in one thread ([`world`]): what clients are told while nodes and disks fail; and, in [`scripts`], some of it
//! step by step.

mod copies;
mod damaged;
mod doubt;
mod hung;
mod images;
mod layout;
mod levels;
mod members;
mod moved;
mod opening;
mod reports;
mod scripts;
mod strangers;
mod trace;
mod transfer;
mod users;
mod world;

use std::collections::BTreeSet;

use bytes::Bytes;
use ringfort_node::Event;
use ringfort_types::limits::{HEARTBEAT_MS, TICK_MS};
use ringfort_types::{
    Change, Code, Consistency, DiskState, Entry, Failure, HybridClock, NodeId, Outcome, Part, Record, Reply,
    Request, ShardId, Stamp,
};

use crate::world::{Disk, SHARDS, World, get};

fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn any_node_takes_writes_and_reads() {
    let mut world = World::born(3);
    for i in 0..40 {
        let reply = world.put(i % 3, &format!("key{i}"), &format!("value{i}"));
        let Reply::Written(receipt) = reply else { panic!("{reply:?}") };
        assert!(receipt.copies >= 2, "acknowledged by a majority: {receipt:?}");
    }
    for i in 0..40 {
        assert_eq!(world.get((i + 1) % 3, &format!("key{i}")), Some(format!("value{i}")));
    }
    assert_eq!(world.get(0, "no such key"), None);
    assert!(!world.hints.is_empty(), "who asks the wrong node is told the leader");
}

#[test]
fn a_cluster_of_one_serves_alone() {
    let mut world = World::born(1);
    world.put(0, "name", "Ada");
    assert_eq!(world.get(0, "name"), Some("Ada".into()));
    world.kill(0);
    world.start(0);
    world.run(1_000);
    assert_eq!(world.get(0, "name"), Some("Ada".into()));
}

#[test]
fn one_sync_serves_many_shards() {
    let mut world = World::born(1);
    world.persists.clear();
    let put = |i| Request::put(format!("key{i}"), "v");
    world.ask_all(0, (0..50).map(put).collect(), 3_000);
    let shards: BTreeSet<_> = world.persists[0]
        .iter()
        .map(|record| match record {
            Record::Entry(shard, _)
            | Record::HardState(shard, _)
            | Record::Base(shard, _)
            | Record::Installed(shard, _)
            | Record::Replica(shard, _)
            | Record::Gone(shard, _)
            | Record::Lost(shard, _) => *shard,
        })
        .collect();
    assert_eq!(shards.len(), SHARDS as usize, "all shards' entries are in the one batch");
    let entries = world.persists[0].iter().filter(|record| matches!(record, Record::Entry(..)));
    assert_eq!(entries.count(), SHARDS as usize, "and each shard's writes are one entry");
}

#[test]
fn leadership_is_spread_and_survives_the_leader() {
    let mut world = World::born(3);
    let leaders: BTreeSet<_> = (1..=SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
    assert_eq!(leaders.len(), 3, "every node leads something: {leaders:?}");
    for i in 0..20 {
        world.put(0, &format!("key{i}"), "before");
    }
    world.kill(1);
    world.run(1_000);
    for i in 0..20 {
        assert_eq!(world.get(2, &format!("key{i}")), Some("before".into()));
        assert!(matches!(world.put(0, &format!("key{i}"), "after"), Reply::Written(_)));
    }
    world.start(1);
    world.run(6_000);
    for i in 0..20 {
        assert_eq!(world.get(1, &format!("key{i}")), Some("after".into()));
    }
    let leaders: BTreeSet<_> = (1..=SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
    assert_eq!(leaders.len(), 3, "who comes back leads again: {leaders:?}");
}

#[test]
fn everything_acknowledged_survives_a_crash_of_all() {
    let mut world = World::born(3);
    for i in 0..30 {
        world.put(i % 3, &format!("key{i}"), &format!("value{i}"));
    }
    for n in 0..3 {
        world.kill(n);
    }
    for n in 0..3 {
        world.start(n);
    }
    world.run(2_000);
    for i in 0..30 {
        assert_eq!(world.get(i % 3, &format!("key{i}")), Some(format!("value{i}")));
    }
}

#[test]
fn without_a_quorum_nothing_is_answered_and_a_proposed_write_is_unknown() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    let led_by_0: Vec<String> = (0..200)
        .map(|i| format!("k{i}"))
        .filter(|key| {
            let shard = {
                let node = world.nodes[0].as_ref().expect("running");
                let request = get(key);
                node.layout().expect("born").shard_of_slot(request.slot().expect("a key"))
            };
            world.leader(shard) == Some(NodeId(1))
        })
        .collect();
    world.kill(1);
    world.kill(2);
    // Node 1 still believes that it leads: this write is in its log, and nobody else's.
    let put = Request::put(led_by_0[0].clone(), "x");
    let write = world.ask(0, put, 1_000);
    let read = world.ask(0, get(&led_by_0[1]), 1_000);
    world.run(3_000);
    let write = failure(world.answers.remove(&write).expect("answered by its deadline"));
    assert_eq!((write.outcome, write.code), (Outcome::Unknown, Code::DeadlineExceeded));
    assert!(write.message.contains("no quorum: 1 of"), "{}", write.message);
    let read = failure(world.answers.remove(&read).expect("answered by its deadline"));
    assert_eq!(read.outcome, Outcome::Rejected);
    // By now it knows better, and takes nothing.
    let late = failure(world.put(0, "key", "x"));
    assert_eq!((late.outcome, late.code), (Outcome::Rejected, Code::Unavailable));
    world.start(1);
    world.run(2_000);
    assert_eq!(world.get(0, "key"), Some("value".into()));
}

#[test]
fn a_leader_cut_off_serves_no_stale_read() {
    let mut world = World::born(3);
    world.put(0, "key", "old");
    let shard = {
        let node = world.nodes[0].as_ref().expect("running");
        node.layout().expect("born").shard_of_slot(get("key").slot().expect("a key"))
    };
    let leader = world.leader(shard).expect("led").0 as usize - 1;
    world.cut_off(leader);
    // Asked at once, while it still believes that it leads.
    let stale = world.ask(leader, get("key"), 2_000);
    let other = (leader + 1) % 3;
    world.run(1_000);
    assert!(matches!(world.put(other, "key", "new"), Reply::Written(_)));
    world.run(2_000);
    let reply = world.answers.remove(&stale).expect("answered by its deadline");
    assert_eq!(failure(reply).outcome, Outcome::Rejected);
    world.heal();
    world.run(2_000);
    assert_eq!(world.get(leader, "key"), Some("new".into()));
}

/// One question to each node for all its shards: with more nodes than replicas, not all are asked about each, and who was
/// not asked about a shard has not said anything about it.
#[test]
fn only_its_replicas_confirm_a_shards_leader() {
    let mut world = World::born(5);
    let layout = world.nodes[0].as_ref().expect("running").layout().expect("born").clone();
    let nodes_of = |shard: ShardId| -> Vec<usize> {
        let shard = layout.shard(shard).expect("known");
        shard.replicas.iter().map(|replica| replica.node.0 as usize - 1).collect()
    };
    let key_of = |shard| {
        let mut keys = (0..).map(|i| format!("k{i}"));
        keys.find(|key| layout.shard_of_slot(get(key).slot().expect("a key")) == shard).expect("there is one")
    };
    let leaders: Vec<(ShardId, usize)> = (1..=SHARDS)
        .map(ShardId)
        .map(|shard| (shard, world.leader(shard).expect("led").0 as usize - 1))
        .collect();
    // Two shards of one leader, the second one with a replica where the first has none.
    let (leader, shard, other) = leaders
        .iter()
        .flat_map(|(shard, leader)| {
            leaders.iter().map(move |(other, theirs)| (*leader, *shard, *other, *theirs))
        })
        .filter(|(leader, _, _, theirs)| leader == theirs)
        .map(|(leader, shard, other, _)| (leader, shard, other))
        .find(|(_, shard, other)| nodes_of(*other).iter().any(|node| !nodes_of(*shard).contains(node)))
        .expect("five nodes, three replicas");
    world.put(leader, &key_of(shard), "old");
    for follower in nodes_of(shard).into_iter().filter(|node| *node != leader) {
        world.cut(leader, follower);
    }
    world.drain();
    let asked = world.ask_all(leader, vec![get(&key_of(shard)), get(&key_of(other))], 300);
    world.run(400);
    let reply = world.answers.remove(&asked[0]).expect("answered by its deadline");
    assert_eq!(failure(reply).outcome, Outcome::Rejected, "nobody with a replica has confirmed the leader");
}

#[test]
fn a_vote_or_an_ack_waits_for_the_disk() {
    let mut world = World::born(3);
    world.stuck.insert(1);
    world.stuck.insert(2);
    let shard = (1..=SHARDS).map(ShardId).find(|shard| world.leader(*shard) == Some(NodeId(1))).expect("one");
    let key = (0..10_000)
        .map(|i| format!("k{i}"))
        .find(|key| {
            let node = world.nodes[0].as_ref().expect("running");
            node.layout().expect("born").shard_of_slot(get(key).slot().expect("a key")) == shard
        })
        .expect("some key");
    let put = Request::put(key, "x");
    let id = world.ask(0, put, 10_000);
    world.run(1_000);
    assert!(!world.answers.contains_key(&id), "one synced copy of three is no majority");
}

#[test]
fn a_wiped_node_is_refused_and_the_others_serve_on() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    world.kill(2);
    world.disks[2] = Disk { incarnation: 999, ..Disk::default() };
    world.start(2);
    world.run(2_000);
    let reason = world.refused[2].clone().expect("refused");
    assert!(reason.contains("another data directory") && reason.contains("node3"), "{reason}");
    assert_eq!(world.get(0, "key"), Some("value".into()));
}

#[test]
fn lists_that_differ_are_refused_with_the_difference() {
    let mut world = World::new(3);
    world.configs[2].shards = 9;
    for n in 0..3 {
        world.start(n);
    }
    world.run(1_000);
    for refused in &world.refused {
        let reason = refused.as_ref().expect("none of them can be born, and each says why");
        assert!(reason.contains("--shards 9") && reason.contains("--shards 8"), "{reason}");
    }
}

#[test]
fn nothing_starts_before_all_listed_nodes_are_there() {
    let mut world = World::new(3);
    world.start(0);
    world.start(1);
    world.run(6_000);
    assert!(world.nodes[0].as_ref().expect("running").cluster() == 0);
    assert!(
        world.notices.iter().any(|line| line.contains("waiting for 10.0.0.3:50051")),
        "{:?}",
        world.notices
    );
    let early = failure(world.put(0, "key", "value"));
    assert!(early.message.contains("not born yet"), "{}", early.message);
    world.start(2);
    world.run(2_000);
    assert!(matches!(world.put(0, "key", "value"), Reply::Written(_)));
}

#[test]
fn a_node_that_stops_hands_its_leaderships_over() {
    let mut world = World::born(3);
    world.queue.push((0, Event::Stop));
    world.run(1_000);
    assert!(world.stopped.contains(&0));
    for shard in 1..=SHARDS {
        let leader = world.leader(ShardId(shard));
        assert!(leader.is_some_and(|leader| leader != NodeId(1)), "shard {shard}: {leader:?}");
    }
}

#[test]
fn a_node_with_a_full_disk_leads_nothing_and_the_others_take_writes() {
    let mut world = World::born(3);
    let led = |world: &mut World| {
        (1..=SHARDS).filter(|shard| world.leader(ShardId(*shard)) == Some(NodeId(2))).count()
    };
    assert!(led(&mut world) > 0);
    world.fill_up(1);
    for i in 0..40 {
        let reply = world.put(0, &format!("key{i}"), "value");
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    world.run(5_000);
    assert_eq!(led(&mut world), 0);
    let Reply::Cluster(state) = world.ask_and_wait(0, Request::ClusterState) else { panic!("a state") };
    assert_eq!(
        state.nodes.iter().map(|node| node.disk == DiskState::Full).collect::<Vec<_>>(),
        [false, true, false]
    );
    world.make_room(1);
    world.run(8_000);
    assert!(led(&mut world) > 0, "it leads again");
}

#[test]
fn with_all_disks_full_writes_are_refused_at_once_and_reads_go_on() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    (0..3).for_each(|n| world.fill_up(n));
    world.run(3_000);
    let id = world.ask(0, Request::put("key", "other"), 3_000);
    world.run(100);
    let refused = failure(world.answers.remove(&id).expect("answered at once"));
    assert_eq!((refused.code, refused.outcome), (Code::ResourceExhausted, Outcome::Rejected));
    assert!(refused.message.contains("disk of node"), "{}", refused.message);
    assert_eq!(world.get(1, "key"), Some("value".into()));
    (0..3).for_each(|n| world.make_room(n));
    world.run(1_000);
    assert!(matches!(world.put(0, "key", "other"), Reply::Written(_)));
    assert_eq!(world.get(2, "key"), Some("other".into()));
}

#[test]
fn a_follower_that_was_away_is_brought_level_from_the_log() {
    let mut world = World::born(3);
    world.kill(2);
    world.run(1_000);
    let value = "x".repeat(100_000);
    for i in 0..60 {
        assert!(matches!(world.put(0, &format!("key{i}"), &value), Reply::Written(_)));
    }
    world.start(2);
    world.run(6_000);
    let Reply::Cluster(state) = world.ask_and_wait(2, Request::ClusterState) else { panic!("a state") };
    for shard in state.shards {
        let applied: BTreeSet<_> = shard.replicas.iter().map(|(_, replica)| replica.applied).collect();
        assert_eq!(applied.len(), 1, "{shard:?}");
    }
}

#[test]
fn a_write_is_acknowledged_though_an_earlier_term_left_some_further_on() {
    let mut world = World::born(3);
    world.run(5_000);
    let Reply::Written(receipt) = world.put(0, "key", "before") else { panic!("not written") };
    let leader = world.leader(receipt.shard).expect("it was written").0 as usize - 1;
    // Entries that nobody else will ever have, so many that the next leaders' logs stay shorter for a while.
    world.cut_off(leader);
    let request = |value: String| Request::put("key", value);
    let lost: Vec<u64> = (0..20).map(|n| world.ask(leader, request(format!("lost {n}")), 60_000)).collect();
    world.run(3_000);
    world.heal();
    world.run(8_000);
    assert_eq!(world.leader(receipt.shard), Some(NodeId(leader as u64 + 1)), "the preferred one leads again");
    for n in 0..20 {
        let reply = world.put(leader, "key", &format!("after {n}"));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    for id in lost {
        let reply = world.answers.remove(&id).expect("all are answered");
        assert_eq!(failure(reply).outcome, Outcome::Rejected);
    }
}

#[test]
fn a_stamp_goes_with_its_write_wherever_that_goes() {
    let mut world = World::born(3);
    let key = Bytes::from_static(b"key");
    let stamp = |sequence| Stamp { client: 7, sequence, prev: 0, floor: 0, opened: HybridClock(1) };
    let write = |value: &'static [u8]| Request::put(key.clone(), value);
    for n in 0..3 {
        let id = world.ask_stamped(n, stamp(n as u64 + 1), write(b"v"));
        assert!(matches!(world.answers.remove(&id), Some(Reply::Written(_))));
    }
    // The leader goes; a write waits at another node for the next one.
    let shard = {
        let node = world.nodes[0].as_ref().expect("running");
        node.layout().expect("born").shard_of_slot(write(b"v").slot().expect("a key"))
    };
    let leader = world.leader(shard).expect("led").0 as usize - 1;
    world.kill(leader);
    let id = world.ask_stamped((leader + 1) % 3, stamp(4), write(b"v"));
    world.run(2_000);
    assert!(matches!(world.answers.remove(&id), Some(Reply::Written(_))));
    let mut found = BTreeSet::new();
    for record in world.disks.iter().flat_map(|disk| &disk.synced) {
        let Record::Entry(_, entry) = record else { continue };
        let Ok(entry) = Entry::decode(entry.payload.clone()) else { continue };
        found.extend(entry.commands.iter().filter_map(|command| Some(command.stamp?.sequence)));
    }
    assert_eq!(found, BTreeSet::from([1, 2, 3, 4]));
}

#[test]
fn what_no_shard_could_do_is_refused_at_once() {
    let mut world = World::born(1);
    let keys = ["{a}1", "{a}2", "b"].map(|key| Bytes::from_static(key.as_bytes()));
    let part = |key: &Bytes| Part { key: key.clone(), condition: None, change: Change::DELETE };
    let several = |keys: &[Bytes]| {
        [
            Request::Write { parts: keys.iter().map(part).collect() },
            Request::GetMany { keys: keys.to_vec(), consistency: Consistency::Stale },
        ]
    };
    for request in several(&keys) {
        let refused = failure(world.ask_and_wait(0, request));
        assert_eq!((refused.outcome, refused.code), (Outcome::Rejected, Code::InvalidArgument));
        for says in ["\"{a}1\" and \"b\"", "different shards", "{user1}"] {
            assert!(refused.message.contains(says), "{refused}");
        }
    }
    let [write, _] = several(&keys[..2]);
    assert!(matches!(world.ask_and_wait(0, write), Reply::Written(_)));

    let stamp = Stamp { client: 7, sequence: 1, prev: 0, floor: 0, opened: HybridClock(1) };
    let id = world.ask_stamped(0, stamp, get("key"));
    assert!(failure(world.answers.remove(&id).expect("at once")).message.contains("without a stamp"));
    let write = Request::delete(keys[0].clone());
    let id = world.ask_stamped(0, Stamp { prev: 1, ..stamp }, write);
    assert_eq!(failure(world.answers.remove(&id).expect("at once")).code, Code::InvalidArgument);
}

/// An index that no list was ever at, by way of every node.
#[test]
fn a_page_at_an_index_that_there_is_not_is_refused_at_once() {
    let mut world = World::born(3);
    let shard = ShardId(2);
    let scan = ringfort_types::Scan {
        shard,
        at: Some(ringfort_types::Index(1 << 40)),
        from: Bytes::new(),
        prefix: Bytes::new(),
        rows_max: 10,
        bytes_max: u32::MAX,
        keys_only: false,
    };
    for n in 0..3 {
        let asked = world.ask(n, Request::Scan(scan.clone()), 10_000);
        world.run(1_000);
        let failure = failure(world.answers.remove(&asked).expect("at once"));
        assert_eq!(failure.code, Code::FailedPrecondition);
        assert!(failure.message.contains("its log ends at"), "{}", failure.message);
    }
}

/// What a second of nothing costs: a turn of a shard's leader for each heartbeat, and no more.
#[test]
fn an_idle_shard_takes_no_turn() {
    let mut world = World::born_with_shards(3, 64);
    world.run(5_000);
    let mut turns = 0;
    for _ in 0..1_000 / TICK_MS {
        world.now.monotonic_us += TICK_MS * 1_000;
        world.now.wall_ms += TICK_MS;
        for n in 0..world.nodes.len() {
            let node = world.nodes[n].as_mut().expect("it runs");
            node.handle(world.now, Event::Tick);
            turns += node.shards_with_work();
            world.settle(n);
        }
        world.drain();
    }
    let heartbeats = 65 * (1_000 / HEARTBEAT_MS) as usize;
    assert!(turns <= heartbeats * 11 / 10, "{turns} turns, {heartbeats} heartbeats");
}
