//! Disks that finish no sync while the others go on: what waits for them in memory stays within its bound.

use bytes::Bytes;
use ringfort_node::Event;
use ringfort_types::{Consistency, DiskState, NodeId, Reply, Request, Scan, ShardId};

use crate::world::{SHARDS, World, get};

const VALUE_BYTES: usize = 1024 * 1024;
/// Their values together are well above what may wait for a disk.
const WRITES: usize = 90;
const WAITING: &str = "bytes of entries that wait for the disk";

/// Bytes that wait for a node's disk, and how many may.
fn waiting(world: &World, n: usize) -> (usize, usize) {
    let loads = world.nodes[n].as_ref().expect("it runs").loads();
    let load = loads.into_iter().find(|load| load.what == WAITING).expect("it is counted");
    (load.now, load.most)
}

fn put(key: &str, number: usize) -> Request {
    Request::put(key.to_owned(), vec![number as u8; VALUE_BYTES])
}

#[test]
fn a_follower_whose_disk_hangs_takes_no_more_than_its_bound_and_catches_up() {
    let mut world = World::born(3);
    let shard = ShardId(3);
    let key = world.key_of(shard);
    let leader = world.leader(shard).expect("it is led").0 as usize - 1;
    let (follower, other) = ((leader + 1) % 3, (leader + 2) % 3);
    world.stuck.insert(follower);
    let mut highest = 0;
    for number in 0..WRITES {
        assert!(matches!(world.ask_and_wait(leader, put(&key, number)), Reply::Written(_)), "{number}");
        let (now, most) = waiting(&world, follower);
        assert!(now <= most, "{now} of {most}");
        highest = highest.max(now);
    }
    assert!((50 * VALUE_BYTES..WRITES * VALUE_BYTES).contains(&highest), "{highest}");
    assert_eq!(world.leader(shard), Some(NodeId(leader as u64 + 1)), "nobody stands against it");
    world.stuck.remove(&follower);
    world.finish_sync(follower);
    world.run(3_000);
    assert_eq!(waiting(&world, follower).0, 0);
    let applied = |n: usize| world.tables[n][&shard].applied;
    assert_eq!(applied(follower), applied(other));
}

#[test]
fn a_leader_whose_disk_hangs_proposes_no_more_than_its_bound_and_goes_on_afterwards() {
    let mut world = World::born(3);
    let shard = ShardId(3);
    let key = world.key_of(shard);
    let leader = world.leader(shard).expect("it is led").0 as usize - 1;
    world.stuck.insert(leader);
    let mut highest = 0;
    // Clients whose time is over count no more among what is under way, and what they sent still waits for the disk.
    for round in 0..4 {
        for number in 0..45 {
            world.ask(leader, put(&key, 45 * round + number), 300);
        }
        world.run(500);
        let (now, most) = waiting(&world, leader);
        assert!(now <= most, "{now} of {most}");
        highest = highest.max(now);
    }
    assert!((60 * VALUE_BYTES..120 * VALUE_BYTES).contains(&highest), "{highest}");
    assert_eq!(world.leader(shard), Some(NodeId(leader as u64 + 1)), "it hears the others all the same");
    world.stuck.remove(&leader);
    world.finish_sync(leader);
    world.run(1_000);
    assert_eq!(waiting(&world, leader).0, 0);
    assert!(matches!(world.put(leader, &key, "afterwards"), Reply::Written(_)));
}

/// What a list asks one shard for.
fn scan(shard: ShardId, at: Option<ringfort_types::Index>) -> Request {
    let (from, prefix) = (Bytes::new(), Bytes::new());
    Request::Scan(Scan { shard, at, from, prefix, rows_max: 10, bytes_max: 1_000, keys_only: false })
}

/// The answer, if it comes within so many milliseconds.
fn within(world: &mut World, n: usize, request: Request, ms: u64) -> Reply {
    let id = world.ask(n, request, 3_000);
    for _ in 0..=ms / 25 {
        if let Some(reply) = world.answers.remove(&id) {
            return reply;
        }
        world.run(25);
    }
    panic!("no answer within {ms} ms");
}

/// No entry comes to its table, whether or not that is known yet.
#[test]
fn what_is_read_through_a_follower_whose_disk_takes_nothing_is_answered_by_the_leader() {
    for is_known in [false, true] {
        let mut world = World::born(3);
        let shard = ShardId(3);
        let key = world.key_of(shard);
        let leader = world.leader(shard).expect("it is led").0 as usize - 1;
        let follower = (leader + 1) % 3;
        assert!(matches!(world.put(leader, &key, "before"), Reply::Written(_)));
        world.run(1_000);
        if is_known {
            world.fill_up(follower);
            world.run(1_000);
        } else {
            world.stuck.insert(follower);
        }
        let value_of = |row: &ringfort_types::Row| String::from_utf8(row.value.to_vec()).expect("text");
        for number in 0..10 {
            assert!(matches!(world.put(leader, &key, &format!("{number}")), Reply::Written(_)));
            // That it is stuck is learnt once.
            let ms = if number == 0 && !is_known { 250 } else { 25 };
            let reply = within(&mut world, follower, get(&key), ms);
            let Reply::Value { row: Some(row), .. } = &reply else { panic!("{reply:?}") };
            assert_eq!(value_of(row), format!("{number}"), "{is_known}");
            assert_eq!(world.hints.get(&world.next_token), Some(&NodeId(leader as u64 + 1)));
            let reply = within(&mut world, follower, scan(shard, None), 25);
            let Reply::Page(page) = &reply else { panic!("{reply:?}") };
            assert_eq!(value_of(&page.rows[0].1), format!("{number}"), "{is_known}");
            let Reply::Page(next) = within(&mut world, follower, scan(shard, Some(page.at)), 25) else {
                panic!("its next page comes from the leader, too")
            };
            assert_eq!(next.at, page.at);
        }
        let stale =
            Request::Get { key: Bytes::from(key.clone().into_bytes()), consistency: Consistency::Stale };
        let reply = within(&mut world, follower, stale, 0);
        let Reply::Value { row: Some(row), .. } = &reply else { panic!("{reply:?}") };
        assert_eq!(value_of(row), "before", "it is answered here, as it was");

        world.make_room(follower);
        world.run(3_000);
        assert!(matches!(world.put(leader, &key, "after"), Reply::Written(_)));
        world.run(25);
        let reply = within(&mut world, follower, get(&key), 0);
        let Reply::Value { row: Some(row), .. } = &reply else { panic!("{reply:?}") };
        assert_eq!(value_of(row), "after");
        assert!(!world.hints.contains_key(&world.next_token), "it is answered here again");
    }
}

/// Syncs of these nodes that take 200 ms each, one after another in this order, while clients write to all shards.
fn sync_slowly(
    world: &mut World,
    slow: &[usize],
    rounds: u64,
    mut until: impl FnMut(&mut World) -> bool,
) -> bool {
    let keys: Vec<String> = (1..SHARDS).map(|shard| world.key_of(ShardId(shard))).collect();
    for round in 0..rounds {
        if until(world) {
            return true;
        }
        for key in &keys {
            world.ask(round as usize % 3, Request::put(key.clone(), format!("{round}")), 5_000);
        }
        world.run(200);
        for node in slow {
            world.finish_sync(*node);
        }
    }
    until(world)
}

fn led_by(world: &mut World, n: usize) -> usize {
    (0..SHARDS).filter(|shard| world.leader(ShardId(*shard)) == Some(NodeId(n as u64 + 1))).count()
}

#[test]
fn a_node_whose_disk_is_slower_than_the_others_leads_nothing_until_it_is_fast_again() {
    let mut world = World::born(3);
    let slow = 1;
    assert!(led_by(&mut world, slow) > 0);
    world.stuck.insert(slow);
    assert!(sync_slowly(&mut world, &[slow], 50, |world| led_by(world, slow) == 0), "not within ten seconds");
    let said =
        world.notices.iter().filter(|notice| notice.contains("the disk is slow; leaderships go")).count();
    assert_eq!(said, 1, "{:?}", world.notices);
    // It can write, and may be needed.
    assert!(!sync_slowly(&mut world, &[slow], 200, |world| led_by(world, slow) > 0));
    world.stuck.remove(&slow);
    world.finish_sync(slow);
    assert!(sync_slowly(&mut world, &[], 250, |world| led_by(world, slow) > 0), "it does not come back");
    assert!(world.notices.iter().any(|notice| notice.contains("this node may lead again")));
}

#[test]
fn leaderships_stay_where_they_are_if_all_disks_are_slow() {
    for order in [[0, 1, 2], [2, 0, 1]] {
        let mut world = World::born(3);
        let leaders: Vec<_> = (0..SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
        world.stuck.extend(order);
        sync_slowly(&mut world, &order, 150, |_| false);
        let now: Vec<_> = (0..SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
        assert_eq!(now, leaders);
        assert!(world.notices.is_empty(), "{:?}", world.notices);
    }
}

#[test]
fn a_node_with_a_slow_disk_leads_and_takes_writes_if_nobody_else_can() {
    let mut world = World::born(3);
    let slow = 1;
    world.stuck.insert(slow);
    assert!(sync_slowly(&mut world, &[slow], 50, |world| led_by(world, slow) == 0));
    let key = world.key_of(ShardId(3));
    // What this one misses only the slow one has: it must lead, if the third one is lost.
    world.cut_off(0);
    for _ in 0..10 {
        world.ask(2, Request::put(key.clone(), "kept"), 5_000);
        world.run(200);
        world.finish_sync(slow);
    }
    world.heal();
    world.kill(2);
    let asked = world.ask(0, Request::put(key.clone(), "afterwards"), 5_000);
    for _ in 0..25 {
        world.run(200);
        world.finish_sync(slow);
    }
    assert!(matches!(world.answers.remove(&asked), Some(Reply::Written(_))));
}

/// Silence would leave the shard without a leader for an election timeout, and then the same one would be elected.
#[test]
fn a_leader_whose_table_is_damaged_hands_over_to_a_slow_disk_if_there_is_nobody_else() {
    let mut world = World::born(3);
    let slow = 1;
    world.stuck.insert(slow);
    assert!(sync_slowly(&mut world, &[slow], 50, |world| led_by(world, slow) == 0));
    world.stuck.remove(&slow);
    world.finish_sync(slow);
    world.run(1_000);
    // The third one has just been hung.
    world.queue.push((0, Event::Disk(DiskState::Hung)));
    world.run(2_000);
    let shard = ShardId(3);
    assert_eq!(world.leader(shard), Some(NodeId(3)));
    world.queue.push((2, Event::Damaged { shard, reason: "a file is damaged".into(), is_readable: false }));
    world.drain();
    world.run(200);
    assert_eq!(world.leader(shard), Some(NodeId(slow as u64 + 1)));
}

#[test]
fn a_node_whose_disk_hangs_stops_without_waiting_for_it() {
    let mut world = World::born(3);
    world.stuck.insert(0);
    let key = world.key_of(ShardId(3));
    world.ask(0, put(&key, 1), 300);
    world.queue.push((0, Event::Disk(DiskState::Hung)));
    // It has given all that it led to the others.
    world.run(3_000);
    world.queue.push((0, Event::Stop));
    world.run(300);
    assert!(world.stopped.contains(&0), "it waits for what nobody was told of");
}

#[test]
fn a_read_that_waits_for_a_hung_disk_is_told_what_goes_on() {
    let mut world = World::born(1);
    world.put(0, "key", "value");
    world.kill(0);
    world.start(0);
    world.run(20);
    // Before its new term is stored, nothing is known to be committed.
    world.stuck.insert(0);
    world.run(2_000);
    world.queue.push((0, Event::Disk(DiskState::Hung)));
    let told = |world: &mut World, request: Request| match world.ask_and_wait(0, request) {
        Reply::Failed(failure) => failure.message,
        other => panic!("{other:?}"),
    };
    let why = told(&mut world, get("key"));
    assert!(why.contains("does not take what was committed before this read"), "{why}");
    assert!(why.ends_with("stale reads go on"), "{why}");
    let why = told(&mut world, Request::put("key", "other"));
    assert!(why.contains("finish its syncs") && !why.contains("this read"), "{why}");
}
