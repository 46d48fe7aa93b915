//! Writes that are to be on more replicas than a majority before they are acknowledged.

use ringfort_types::Copies::{All, AtLeast};
use ringfort_types::{Code, Copies, Durability, NodeId, Outcome, Receipt, Record, Reply, Request, ShardId};

use crate::failure;
use crate::world::World;

/// What a write has been acknowledged with, if it has been.
fn receipt(world: &World, id: u64) -> Option<Receipt> {
    match world.answers.get(&id) {
        Some(Reply::Written(receipt)) => Some(receipt.clone()),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// One shard on three nodes, at rest: its leader, and the others.
fn settled() -> (World, usize, [usize; 2]) {
    let mut world = World::born_with_shards(3, 1);
    world.run(2_000);
    let leader = world.leader(ShardId(1)).expect("at rest").0 as usize - 1;
    (world, leader, [(leader + 1) % 3, (leader + 2) % 3])
}

fn put(value: &str) -> Request {
    Request::put("k", value.to_owned())
}

/// How many entries all nodes have on disk.
fn entries(world: &World) -> usize {
    let records = world.disks.iter().flat_map(|disk| &disk.synced);
    records.filter(|record| matches!(record, Record::Entry(..))).count()
}

#[test]
fn a_write_waits_for_the_copies_that_it_asks_for_and_says_how_many_there_are() {
    let mut world = World::born_with_shards(3, 1);
    world.run(2_000);
    let put = |value: &str| Request::put("k", value.to_owned());
    let leader = world.leader(ShardId(1)).unwrap().0 as usize - 1;
    let slow = (leader + 1) % 3;
    for asked in [leader, (leader + 2) % 3] {
        world.stuck.insert(slow);
        let (two, three) = (
            world.ask_durable(asked, AtLeast(2), put("a"), 1_000),
            world.ask_durable(asked, AtLeast(3), put("b"), 1_000),
        );
        let copies = |world: &World, id| receipt(world, id).map(|receipt| receipt.copies);
        assert_eq!((copies(&world, two), copies(&world, three)), (Some(2), None));
        world.stuck.remove(&slow);
        world.finish_sync(slow);
        assert_eq!(copies(&world, three), Some(3));
        world.stuck.insert(slow);
        let late = world.ask_durable(asked, AtLeast(3), put("c"), 500);
        world.run(250);
        assert_eq!(copies(&world, late), None);
        world.run(350);
        assert_eq!(copies(&world, late), Some(2), "it stands, on two");
        world.stuck.remove(&slow);
        world.finish_sync(slow);
        world.run(500);
    }
    assert_eq!(world.get(slow, "k").as_deref(), Some("c"));
}

#[test]
fn all_copies_with_patience_name_who_lags() {
    let all = Durability { copies: All, patience_ms: 2_000 };
    let (mut world, leader, [slow, other]) = settled();
    // Asked of the leader, and of another node that passes it on.
    for asked in [leader, other] {
        let id = world.ask_durable(asked, all, put("level"), 10_000);
        let level = receipt(&world, id).expect("nobody lags");
        assert_eq!((level.copies, level.lacking), (3, vec![]));

        world.stuck.insert(slow);
        let id = world.ask_durable(asked, all, put("late"), 10_000);
        world.run(1_900);
        assert_eq!(receipt(&world, id), None, "it is patient");
        world.run(200);
        let late = receipt(&world, id).expect("its patience is over, though its time is not");
        assert_eq!((late.copies, late.lacking), (2, vec![NodeId(slow as u64 + 1)]));
        assert_eq!(world.get(leader, "k").as_deref(), Some("late"), "it stands");

        // Who catches up in time is waited for.
        let id = world.ask_durable(asked, all, put("caught up"), 10_000);
        world.run(1_000);
        world.stuck.remove(&slow);
        world.finish_sync(slow);
        world.run(100);
        let level = receipt(&world, id).expect("all have it");
        assert_eq!((level.copies, level.lacking), (3, vec![]));
    }
}

/// Patience is for what comes after the commit: it does not shorten the time that a write has to be committed.
#[test]
fn patience_begins_with_the_commit() {
    let (mut world, leader, [one, other]) = settled();
    for node in [one, other] {
        world.stuck.insert(node);
    }
    let id = world.ask_durable(leader, Durability { copies: All, patience_ms: 100 }, put("x"), 10_000);
    world.run(1_500);
    assert_eq!(receipt(&world, id), None, "no majority has it");
    world.stuck.remove(&one);
    world.finish_sync(one);
    world.run(200);
    let told = receipt(&world, id).expect("a majority has it, and patience is over");
    assert_eq!((told.copies, told.lacking), (2, vec![NodeId(other as u64 + 1)]));
}

#[test]
fn no_patience_means_the_copies_that_there_are() {
    let (mut world, leader, [slow, _]) = settled();
    world.stuck.insert(slow);
    let id = world.ask_durable(leader, Durability { copies: All, patience_ms: 0 }, put("x"), 10_000);
    world.run(50);
    let told = receipt(&world, id).expect("at once");
    assert_eq!((told.copies, told.lacking), (2, vec![NodeId(slow as u64 + 1)]));
}

#[test]
fn more_copies_than_replicas_are_refused_before_anything_is_written() {
    let (mut world, leader, [other, _]) = settled();
    world.put(leader, "k", "before");
    world.run(500);
    let written = entries(&world);
    for asked in [leader, other] {
        for copies in [4, u32::MAX] {
            let refused = world.ask_durable(asked, Copies::AtLeast(copies), put("x"), 1_000);
            let refusal = failure(world.answers.remove(&refused).expect("at once"));
            assert_eq!((refusal.code, refusal.outcome), (Code::InvalidArgument, Outcome::Rejected));
            let says = format!("{copies} copies were asked for, and shard 1 has 3 replicas");
            assert!(refusal.message.contains(&says), "{refusal}");
        }
    }
    world.run(500);
    assert_eq!(entries(&world), written);
    assert_eq!(world.get(leader, "k").as_deref(), Some("before"));
}
