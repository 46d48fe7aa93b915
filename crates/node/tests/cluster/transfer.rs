//! Leaderships that an operator moves: who gets them, for how long, and who is refused.

use ringfort_node::Event;
use ringfort_types::limits::TRANSFER_HOLD_MS;
use ringfort_types::{Code, LayoutChange, LeaderPreference, NodeId, Outcome, Reply, Request, ShardId, Term};

use crate::failure;
use crate::world::{SHARDS, World};

const SHARD: ShardId = ShardId(3);

fn place(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn transfer(world: &mut World, n: usize, to: NodeId) -> Term {
    match world.ask_and_wait(n, Request::Transfer { shard: SHARD, to }) {
        Reply::Leads { term } => term,
        other => panic!("asked of {n}, to {to}: {other:?}"),
    }
}

/// The leader, and the nodes that have a replica and do not lead.
fn line(world: &mut World) -> (NodeId, Vec<NodeId>) {
    let leader = world.leader(SHARD).expect("it is led");
    let layout = world.nodes.iter().flatten().find_map(|node| node.layout()).expect("born").clone();
    let replicas = layout.shard(SHARD).expect("there is one").replicas.iter().map(|place| place.node);
    (leader, replicas.filter(|node| *node != leader).collect())
}

/// Who leads, as this node knows it.
fn leader_seen_by(world: &mut World, node: NodeId) -> Option<NodeId> {
    let Reply::Cluster(state) = world.ask_and_wait(place(node), Request::ClusterState) else {
        panic!("a state")
    };
    state.shards[SHARD.0 as usize].leader
}

/// Refused at once, whomever it is asked of.
fn refused(world: &mut World, to: NodeId) -> String {
    let mut messages = Vec::new();
    for n in 0..world.nodes.len() {
        if world.nodes[n].is_some() {
            let id = world.ask(n, Request::Transfer { shard: SHARD, to }, 3_000);
            world.run(100);
            let failure = failure(world.answers.remove(&id).expect("answered at once"));
            assert_eq!((failure.outcome, failure.code), (Outcome::Rejected, Code::FailedPrecondition));
            messages.push(failure.message);
        }
    }
    assert!(messages.windows(2).all(|pair| pair[0] == pair[1]), "{messages:?}");
    messages.pop().expect("somebody is there")
}

#[test]
fn whoever_is_asked_it_goes_where_it_is_wanted_and_stays() {
    // Two of five have no replica of the shard.
    let mut world = World::born(5);
    world.run(3_000);
    let (preferred, others) = line(&mut world);
    let key = world.key_of(SHARD);
    for n in 0..5 {
        let to = others[n % 2];
        let term = transfer(&mut world, n, to);
        assert_eq!(leader_seen_by(&mut world, to), Some(to), "asked of {n}");
        // Again it is as good as once.
        assert_eq!(transfer(&mut world, n, to), term);
        assert!(matches!(world.put(n, &key, "v"), Reply::Written(_)));
        world.run(20_000);
        assert_eq!(world.leader(SHARD), Some(to), "it is held");
    }
    world.run(TRANSFER_HOLD_MS + 3_000);
    assert_eq!(world.leader(SHARD), Some(preferred), "leaders are balanced again");
}

#[test]
fn a_hold_ends_with_the_preference_that_was_in_force_and_with_the_leadership() {
    let mut world = World::born(3);
    world.run(3_000);
    let (preferred, others) = line(&mut world);
    transfer(&mut world, 0, others[0]);
    for preference in [LeaderPreference::HighestId, LeaderPreference::Ring] {
        let change = Request::ChangeLayout(LayoutChange::Prefer(preference));
        assert!(matches!(world.ask_and_wait(0, change), Reply::Written(_)));
        world.run(5_000);
        let wanted = match preference {
            LeaderPreference::HighestId => NodeId(3),
            LeaderPreference::Ring => preferred,
        };
        assert_eq!(world.leader(SHARD), Some(wanted), "{preference}");
    }
    transfer(&mut world, 0, others[1]);
    world.kill(place(others[1]));
    world.run(5_000);
    world.start(place(others[1]));
    world.run(5_000);
    assert_eq!(world.leader(SHARD), Some(preferred));
}

#[test]
fn who_could_not_lead_is_refused_and_told_why() {
    let mut world = World::born(5);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    let stranger =
        (1..=5).map(NodeId).find(|node| *node != leader && !others.contains(node)).expect("two have none");
    for (to, why) in [(stranger, "has no replica"), (NodeId(9), "node 9 has no replica")] {
        let said = refused(&mut world, to);
        assert!(said.contains(why) && said.contains("choose one of"), "{said}");
    }
    let unknown = Request::Transfer { shard: ShardId(99), to: leader };
    let none = failure(world.ask_and_wait(0, unknown));
    assert!(none.code == Code::FailedPrecondition && none.message.contains("no shard 99"), "{none:?}");

    let full = place(others[0]);
    world.fill_up(full);
    assert!(refused(&mut world, others[0]).contains("full or hangs"));
    world.make_room(full);
    world.run(1_000);
    let reason = "shard-3/tables/7 is damaged at byte 64".to_owned();
    world.queue.push((full, Event::Damaged { shard: SHARD, reason, is_readable: false }));
    world.drain();
    assert!(refused(&mut world, others[0]).contains("is damaged and takes no part"));
    world.kill(place(others[1]));
    assert!(refused(&mut world, others[1]).contains("is down"));
    assert_eq!(world.leader(SHARD), Some(leader));
}

#[test]
fn who_has_not_caught_up_is_refused() {
    let mut world = World::born(3);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    let key = world.key_of(SHARD);
    world.stuck.insert(place(others[0]));
    for _ in 0..1_100 {
        assert!(matches!(world.put(place(leader), &key, "v"), Reply::Written(_)));
    }
    let said = refused(&mut world, others[0]);
    assert!(said.contains("has not caught up") && said.contains("entries behind"), "{said}");
    world.stuck.remove(&place(others[0]));
    world.finish_sync(place(others[0]));
    world.run(1_000);
    transfer(&mut world, 0, others[0]);
}

#[test]
fn one_that_does_not_take_over_in_time_leaves_it_unknown_and_writes_go_on() {
    let mut world = World::born(3);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    let key = world.key_of(SHARD);
    // It can't make its term durable, so it can't stand.
    world.stuck.insert(place(others[0]));
    let ids = [leader, others[1]]
        .map(|asked| world.ask(place(asked), Request::Transfer { shard: SHARD, to: others[0] }, 3_000));
    world.run(1_000);
    assert!(matches!(world.put(place(leader), &key, "v"), Reply::Written(_)), "between two attempts");
    world.run(2_500);
    for id in ids {
        let late = failure(world.answers.remove(&id).expect("its time is over"));
        assert_eq!((late.outcome, late.code), (Outcome::Unknown, Code::DeadlineExceeded), "{late:?}");
        assert!(late.message.contains("not taken over") && late.message.contains("may still"), "{late:?}");
    }
}

#[test]
fn what_a_lost_leader_was_asked_for_the_next_one_does() {
    let mut world = World::born(3);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    let (to, third) = (others[1], others[0]);
    world.stuck.insert(place(to));
    let id = world.ask(place(third), Request::Transfer { shard: SHARD, to }, 10_000);
    world.run(100);
    world.kill(place(leader));
    world.stuck.remove(&place(to));
    world.finish_sync(place(to));
    world.run(5_000);
    assert!(
        matches!(world.answers.remove(&id), Some(Reply::Leads { .. })),
        "one of two others leads, then this one"
    );
    assert_eq!(leader_seen_by(&mut world, third), Some(to));
}

#[test]
fn one_that_has_just_started_is_waited_for_until_it_reports() {
    let mut world = World::born(3);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    let to = place(others[0]);
    world.kill(to);
    // It does not come to any of its shards, so it has nothing to report.
    world.withheld.extend((0..=SHARDS).map(|shard| (to, ShardId(shard))));
    world.start(to);
    let ask = |world: &mut World| {
        world.ask(place(leader), Request::Transfer { shard: SHARD, to: others[0] }, 3_000)
    };
    let early = ask(&mut world);
    world.run(3_100);
    let early = failure(world.answers.remove(&early).expect("its time is over"));
    assert_eq!(
        (early.outcome, early.code),
        (Outcome::Rejected, Code::Unavailable),
        "nothing was begun: {early:?}"
    );
    assert!(early.message.contains("has just started"), "{early:?}");
    let late = ask(&mut world);
    world.run(500);
    for shard in (0..=SHARDS).map(ShardId) {
        world.open_late(to, shard);
    }
    world.run(2_000);
    assert!(matches!(world.answers.remove(&late), Some(Reply::Leads { .. })));
}

#[test]
fn a_refusal_after_an_attempt_leaves_it_unknown() {
    let mut world = World::born(3);
    world.run(3_000);
    let (leader, others) = line(&mut world);
    world.stuck.insert(place(others[0]));
    let ids = [leader, others[1]]
        .map(|asked| world.ask(place(asked), Request::Transfer { shard: SHARD, to: others[0] }, 10_000));
    world.run(1_000);
    world.kill(place(others[0]));
    world.run(2_000);
    for id in ids {
        let refused = failure(world.answers.remove(&id).expect("refused by now"));
        assert_eq!(refused.outcome, Outcome::Unknown, "{refused:?}");
        assert!(refused.message.contains("is down"), "{refused:?}");
    }
    assert_eq!(leader_seen_by(&mut world, others[1]), Some(leader));
}
