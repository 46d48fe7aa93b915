//! Writes that were passed on to a node that is gone. It may have done them: one with a place in a session is asked again
//! elsewhere, since it can't be done twice; the fate of any other is unknown.

use ringfort_types::{
    Code, Entry, Failure, HybridClock, NodeId, Outcome, Record, Reply, Request, ShardId, Stamp,
};

use crate::failure;
use crate::world::World;

const STAMP: Stamp = Stamp { client: 7, sequence: 1, prev: 0, floor: 0, opened: HybridClock(1) };

/// One shard on three nodes, at rest: its leader, and another.
fn settled() -> (World, usize, usize) {
    let mut world = World::born_with_shards(3, 1);
    world.run(2_000);
    let leader = world.leader(ShardId(1)).expect("at rest").0 as usize - 1;
    (world, leader, (leader + 1) % 3)
}

/// How many commands with this stamp a node has on disk.
fn stamped(world: &World, node: usize) -> usize {
    let records = world.disks[node].synced.iter();
    let entries = records.filter_map(|record| match record {
        Record::Entry(_, entry) => Entry::decode(entry.payload.clone()).ok(),
        _ => None,
    });
    entries.flat_map(|entry| entry.commands).filter(|command| command.stamp == Some(STAMP)).count()
}

#[test]
fn a_stamped_write_survives_the_loss_of_the_node_that_it_was_passed_to() {
    let (mut world, leader, other) = settled();
    // Two disks are busy, so that the write is not committed when the leader goes.
    world.stuck.extend([leader, (leader + 2) % 3]);
    let id = world.ask_stamped(other, STAMP, Request::put("k", "v"));
    assert!(!world.answers.contains_key(&id));
    world.kill(leader);
    world.stuck.clear();
    world.finish_sync((leader + 2) % 3);
    world.run(2_000);
    let Some(Reply::Written(_)) = world.answers.remove(&id) else { panic!("{:?}", world.answers) };
    assert_eq!(world.get(other, "k").as_deref(), Some("v"));
    assert!(stamped(&world, other) >= 1);
}

/// Of a session that it has forgotten a shard can't say what became of an earlier try, whoever of the others leads then.
#[test]
fn doubt_stays_when_the_shard_has_forgotten_the_session() {
    for next in 1..=2 {
        let (mut world, leader, _) = settled();
        let (other, third) = ((leader + next) % 3, (leader + 3 - next) % 3);
        world.verdict = Some(Failure::rejected(Code::SessionExpired, "the session is not known"));
        world.stuck.extend([leader, third]);
        let id = world.ask_stamped(other, STAMP, Request::put("k", "v"));
        world.kill(leader);
        world.stuck.clear();
        world.finish_sync(third);
        world.run(2_000);
        let told = failure(world.answers.remove(&id).expect("the shard has spoken"));
        assert_eq!((told.outcome, told.code), (Outcome::Unknown, Code::SessionExpired), "{told}");
    }
}

/// No connection breaks when a process is stopped, or its machine hangs.
#[test]
fn a_stamped_write_does_not_wait_for_a_leader_that_hangs_once_there_is_another() {
    let (mut world, leader, other) = settled();
    let hangs = world.nodes[leader].take();
    let stamped = world.ask_stamped(other, STAMP, Request::put("k", "v"));
    let plain = world.ask(other, Request::put("l", "w"), 3_000);
    world.run(2_000);
    let Some(Reply::Written(_)) = world.answers.remove(&stamped) else { panic!("{:?}", world.answers) };
    world.run(1_500);
    let told = failure(world.answers.remove(&plain).expect("its time is over"));
    assert_eq!((told.outcome, told.code), (Outcome::Unknown, Code::DeadlineExceeded), "asked once only");
    drop(hangs);
}

#[test]
fn the_fate_of_a_write_without_a_stamp_is_unknown() {
    let (mut world, leader, other) = settled();
    world.stuck.extend([leader, (leader + 2) % 3]);
    let id = world.ask(other, Request::put("k", "v"), 3_000);
    world.kill(leader);
    let told = failure(world.answers.remove(&id).expect("at once"));
    assert_eq!((told.outcome, told.code), (Outcome::Unknown, Code::Unavailable));
    assert!(told.message.contains("may still take effect"), "{told}");
}

/// It was done, nobody is left who says so, and then there is no leader: that it was not done must not be told.
#[test]
fn after_doubt_nothing_is_told_to_be_rejected() {
    let (mut world, leader, other) = settled();
    let third = (leader + 2) % 3;
    // The one who asks gets the entry, and no answer.
    world.stuck.extend([leader, third]);
    let id = world.ask_stamped(other, STAMP, Request::put("k", "v"));
    assert!(!world.answers.contains_key(&id), "one synced copy of three is no majority yet");
    world.kill(third);
    world.kill(leader);
    world.run(4_000);
    let told = failure(world.answers.remove(&id).expect("its time is over"));
    assert_eq!(told.outcome, Outcome::Unknown, "{told}");
    assert_eq!(stamped(&world, other), 1);
    world.stuck.clear();
    world.held.remove(&third);
    world.start(third);
    world.run(3_000);
    assert_eq!(world.get(other, "k").as_deref(), Some("v"), "it has taken effect after all");
    assert!(world.leader(ShardId(1)).is_some_and(|node| node != NodeId(leader as u64 + 1)));
}
