//! Rights: which node judges a call, by which layout, and what nodes do for themselves.

use std::sync::Arc;

use ringfort_node::Event;
use ringfort_ring::Layout;
use ringfort_types::{
    Access, Call, Code, Failure, LayoutChange, Level, Levels, NodeId, Outcome, Principal, Reply, Request,
    Right, ShardId, Standing, UserChange,
};

use crate::failure;
use crate::world::{SHARDS, World, get};

const ADA: Principal = Principal(1);
const BOB: Principal = Principal(2);

fn by(who: Principal, request: Request) -> Call {
    Call { who, ..Call::from(request).within(3_000) }
}

fn ask_by(world: &mut World, n: usize, who: Principal, request: Request) -> Reply {
    world.call_and_wait(n, by(who, request))
}

fn change(world: &mut World, n: usize, who: Principal, change: UserChange) -> Reply {
    ask_by(world, n, who, Request::ChangeLayout(LayoutChange::Users(change)))
}

fn add(name: &str) -> UserChange {
    UserChange::Add { name: name.to_owned(), password: None, token: None }
}

/// Ada may change the cluster, and bob may write everything.
fn changes() -> Vec<UserChange> {
    let over = |access| Right::Over(access, "".into());
    vec![
        add("ada"),
        add("bob"),
        UserChange::Grant("ada".to_owned(), Right::Cluster),
        UserChange::Grant("bob".to_owned(), over(Access::Write)),
        UserChange::Enforce(true),
    ]
}

fn enforced(nodes: usize) -> World {
    let mut world = World::born(nodes);
    for wanted in changes() {
        let reply = change(&mut world, 0, Principal::NOBODY, wanted);
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    world
}

fn layout(world: &World, n: usize) -> Arc<Layout> {
    world.nodes[n].as_ref().and_then(|node| node.layout()).expect("it is born").clone()
}

fn has_heard(world: &World) -> bool {
    (0..world.nodes.len()).all(|n| layout(world, n).users.enforced)
}

fn assert_denied(reply: Reply, code: Code) {
    let Failure { code: said, outcome, message } = failure(reply);
    assert_eq!((said, outcome), (code, Outcome::Rejected), "{message}");
}

#[test]
fn all_nodes_have_heard_of_a_change_within_a_second() {
    // Two of seven have no replica of the meta group.
    let mut world = enforced(7);
    world.run(1_000);
    assert!(has_heard(&world));
}

#[test]
fn every_node_judges_what_it_takes() {
    let mut world = enforced(3);
    world.run(1_000);
    for n in 0..3 {
        for shard in (1..=SHARDS).map(ShardId) {
            let key = world.key_of(shard);
            let put = || Request::put(key.clone(), "value");
            // Here and, as often as not, passed on.
            assert!(matches!(ask_by(&mut world, n, BOB, put()), Reply::Written(_)));
            assert_denied(ask_by(&mut world, n, BOB, get(&key)), Code::PermissionDenied);
            assert_denied(ask_by(&mut world, n, ADA, put()), Code::PermissionDenied);
            assert_denied(ask_by(&mut world, n, Principal::NOBODY, put()), Code::Unauthenticated);
        }
        assert_denied(change(&mut world, n, BOB, add("eve")), Code::PermissionDenied);
        assert_denied(ask_by(&mut world, n, Principal::NOBODY, Request::ClusterState), Code::Unauthenticated);
        assert!(matches!(ask_by(&mut world, n, BOB, Request::ClusterState), Reply::Cluster(_)));
        let Reply::Users(seen) = ask_by(&mut world, n, BOB, Request::Users) else { panic!("users") };
        assert_eq!(seen.users.iter().map(|user| &*user.name).collect::<Vec<_>>(), ["bob"]);
    }
    assert!(matches!(change(&mut world, 2, ADA, add("eve")), Reply::Written(_)));
}

/// A shard's leader, one of its followers, and a key of it.
fn places(world: &mut World) -> (usize, usize, String) {
    let shard = ShardId(1);
    let leader = world.leader(shard).expect("it is led").0 as usize - 1;
    (leader, (leader + 1) % 3, world.key_of(shard))
}

/// The users as they will be, known to one node alone so far.
fn hear_alone(world: &mut World, n: usize, changes: &[UserChange]) {
    let now = layout(world, n);
    let later = changes.iter().fold((*now).clone(), |layout, change| {
        layout.after(&LayoutChange::Users(change.clone())).expect("it changes something")
    });
    world.queue.push((n, Event::Layout(Arc::new(later))));
    world.drain();
}

#[test]
fn a_leader_judges_what_is_passed_on_to_it_by_its_own_later_layout() {
    let mut world = World::born(3);
    let (leader, follower, key) = places(&mut world);
    hear_alone(&mut world, leader, &changes());
    assert!(!layout(&world, follower).users.enforced);
    let reply = ask_by(&mut world, follower, Principal::NOBODY, Request::put(key.clone(), "value"));
    assert_denied(reply, Code::Unauthenticated);
    assert_eq!(world.tables[leader][&ShardId(1)].rows.get(key.as_bytes()), None);
}

#[test]
fn whoever_is_not_known_yet_is_to_ask_again_and_is_not_denied() {
    let mut world = enforced(3);
    world.run(1_000);
    let (leader, follower, key) = places(&mut world);
    let late = Principal(3);
    let put = || Request::put(key.clone(), "value");
    // The node that takes the call has not heard of them.
    assert_denied(ask_by(&mut world, follower, late, put()), Code::Unavailable);
    // It has, and the leader has not.
    let right = Right::Over(Access::Write, "".into());
    hear_alone(&mut world, follower, &[add("eve"), UserChange::Grant("eve".to_owned(), right)]);
    assert_eq!(layout(&world, leader).users.named("eve"), None);
    assert_denied(ask_by(&mut world, follower, late, put()), Code::Unavailable);
    world.run(1_000);
    assert!(matches!(ask_by(&mut world, follower, late, put()), Reply::Written(_)));
}

#[test]
fn what_waits_for_a_leader_is_judged_again_before_it_goes_on() {
    let mut world = World::born(3);
    let (leader, follower, key) = places(&mut world);
    let other = 3 - leader - follower;
    world.kill(leader);
    world.cut(follower, other);
    world.drain();
    let id = world.call(follower, by(Principal::NOBODY, Request::put(key.clone(), "value")));
    assert!(!world.answers.contains_key(&id), "nobody leads");
    hear_alone(&mut world, follower, &changes());
    world.heal();
    for _ in 0..200 {
        world.run(25);
    }
    assert_denied(world.answers.remove(&id).expect("it is answered"), Code::Unauthenticated);
}

#[test]
fn nodes_go_on_with_what_they_do_for_themselves() {
    let mut world = enforced(4);
    let drain = LayoutChange::Stand(NodeId(4), Standing::Draining);
    assert_denied(ask_by(&mut world, 0, BOB, Request::ChangeLayout(drain.clone())), Code::PermissionDenied);
    assert!(matches!(ask_by(&mut world, 0, ADA, Request::ChangeLayout(drain)), Reply::Written(_)));
    world.run(30_000);
    for shard in (0..=SHARDS).map(ShardId) {
        let voters = world.voters(shard).expect("it is settled");
        assert!(!voters.contains(&NodeId(4)), "shard {shard}: {voters:?}");
    }
}

#[test]
fn there_are_no_users_before_their_level() {
    let mut world = World::new(3);
    for n in 0..3 {
        world.configs[n].levels = Levels { min: Level(1), max: if n == 0 { Level(1) } else { Level(2) } };
        world.start(n);
    }
    world.run(6_000);
    for n in 0..3 {
        let told = failure(change(&mut world, n, Principal::NOBODY, add("ada")));
        assert_eq!((told.code, told.outcome), (Code::FailedPrecondition, Outcome::Rejected));
        assert!(told.message.contains("need level 2, and level 1 is in force"), "{told}");
        assert!(told.message.contains("cluster set level="), "{told}");
    }
    world.kill(0);
    world.configs[0].levels = Levels { min: Level(1), max: Level(2) };
    world.start(0);
    world.run(6_000);
    assert!(matches!(change(&mut world, 0, Principal::NOBODY, add("ada")), Reply::Written(_)));
    // They survive all nodes' end.
    for n in 0..3 {
        world.kill(n);
    }
    for n in 0..3 {
        world.start(n);
    }
    world.run(3_000);
    assert!((0..3).all(|n| layout(&world, n).users.named("ada").is_some()));
}
