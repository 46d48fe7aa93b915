//! Replicas whose tables are damaged while their nodes go on.

use ringfort_node::{Effect, Event};
use ringfort_types::{
    DiskState, Incarnation, NodeId, Outcome, PeerFrame, PeerId, PeerMessage, ReadProbe, Record, Reply,
    Request, ShardId, Term,
};

use crate::failure;
use crate::world::{SHARDS, World, get};

/// Longest time without a leader when it is handed over, in milliseconds. An election would take half a second or more.
const HANDED_OVER_MS: u64 = 200;
/// As long as a leader whose table is damaged may try that.
const ABDICATES_MS: u64 = 1_000;
/// As long as an election may take.
const ELECTED_MS: u64 = 1_500;

/// A cluster, one of its shards, and the index of the node that leads it.
fn with_leader() -> (World, ShardId, usize, String) {
    let mut world = World::born(3);
    let shard = ShardId(3);
    let key = world.key_of(shard);
    assert!(matches!(world.put(0, &key, "before"), Reply::Written(_)));
    let leader = world.leader(shard).expect("it is led").0 as usize - 1;
    (world, shard, leader, key)
}

fn damage(world: &mut World, n: usize, shard: ShardId) {
    let reason = "shard-3/tables/7 is damaged at byte 64".to_owned();
    world.queue.push((n, Event::Damaged { shard, reason, is_readable: false }));
    world.drain();
}

/// Whoever leads the shard, as another node than this one knows.
fn leader_seen_beside(world: &mut World, n: usize, shard: ShardId) -> Option<NodeId> {
    let Reply::Cluster(state) = world.ask_and_wait((n + 1) % 3, Request::ClusterState) else { panic!() };
    state.shards[shard.0 as usize].leader
}

#[test]
fn a_leader_whose_table_is_damaged_hands_over() {
    let (mut world, shard, leader, key) = with_leader();
    damage(&mut world, leader, shard);
    assert_eq!(world.retired, [(leader, shard)], "the log need not keep what its table lacks");
    world.run(HANDED_OVER_MS);
    let next = leader_seen_beside(&mut world, leader, shard).expect("another one leads");
    assert_ne!(next.0 as usize - 1, leader);
    // The damaged node asks the new leader from the first moment on.
    let write = world.ask(leader, Request::put(key.clone(), "after"), 3_000);
    world.run(HANDED_OVER_MS);
    assert!(matches!(world.answers.remove(&write), Some(Reply::Written(_))));
    assert_eq!(world.get(leader, &key), Some("after".into()));
}

#[test]
fn every_node_shows_which_replicas_are_damaged() {
    let (mut world, shard, leader, _) = with_leader();
    damage(&mut world, leader, shard);
    world.run(HANDED_OVER_MS);
    for asked in 0..3 {
        let Reply::Cluster(state) = world.ask_and_wait(asked, Request::ClusterState) else { panic!() };
        for (n, node) in state.nodes.iter().enumerate() {
            let expected = if n == leader { vec![shard] } else { Vec::new() };
            assert_eq!(node.damaged, expected, "node {n} as node {asked} knows it");
        }
    }
}

#[test]
fn what_waits_for_a_leader_whose_table_is_damaged_is_asked_of_the_next_or_is_unknown() {
    let (mut world, shard, leader, key) = with_leader();
    let other = (leader + 1) % 3;
    // A write that is in the leader's log and nowhere else, and a read that no round confirms.
    world.cut_off(leader);
    let write = world.ask(leader, Request::put(key.clone(), "proposed"), 3_000);
    let read = world.ask(leader, get(&key), 3_000);
    damage(&mut world, leader, shard);
    let told = failure(world.answers.remove(&write).expect("nobody here will hear of it"));
    assert_eq!(told.outcome, Outcome::Unknown);
    world.run(ABDICATES_MS + ELECTED_MS);
    assert_eq!(world.get(other, &key), Some("before".into()), "the others have elected");
    assert!(!world.answers.contains_key(&read), "it is not answered from the damaged table");
    world.heal();
    world.run(1_000);
    let Some(Reply::Value { row: Some(row), .. }) = world.answers.remove(&read) else { panic!("no answer") };
    assert_eq!(row.value, "before");
}

#[test]
fn a_leader_whose_table_is_damaged_falls_silent_if_nobody_takes_over() {
    let (mut world, shard, leader, key) = with_leader();
    // Both others say at the same moment that they can't lead either.
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    for other in others {
        world.stuck.insert(other);
        world.queue.push((other, Event::Disk(DiskState::Full)));
    }
    damage(&mut world, leader, shard);
    let speaks = |world: &mut World| {
        let node = world.nodes[leader].as_mut().expect("it runs");
        let about = |message: &PeerMessage| matches!(message, PeerMessage::Raft(raft) if raft.shard == shard);
        (0..8).any(|_| {
            world.now.monotonic_us += 25_000;
            node.handle(world.now, Event::Tick);
            let effects = node.take_effects(world.now);
            effects
                .iter()
                .any(|effect| matches!(effect, Effect::Send { messages, .. } if messages.iter().any(about)))
        })
    };
    assert!(speaks(&mut world), "it tries for a while");
    world.run(ABDICATES_MS);
    assert!(!speaks(&mut world), "and then leaves it to the others");
    for other in others {
        world.make_room(other);
    }
    world.run(ELECTED_MS);
    let next = leader_seen_beside(&mut world, leader, shard).expect("another one leads");
    assert_ne!(next.0 as usize - 1, leader);
    assert_eq!(world.get(others[0], &key), Some("before".into()));
}

#[test]
fn a_replica_that_is_damaged_is_made_anew_under_another_number_and_votes_again() {
    let (mut world, shard, leader, key) = with_leader();
    let others = [(leader + 1) % 3, (leader + 2) % 3];
    let before = world.peer_of(leader, shard);
    damage(&mut world, leader, shard);
    world.run(10_000);
    assert!(world.peer_of(leader, shard) > before, "{:?}", world.notices);
    let Reply::Cluster(state) = world.ask_and_wait(others[0], Request::ClusterState) else { panic!() };
    assert!(state.nodes.iter().all(|node| node.damaged.is_empty()), "{state:?}");
    let group =
        world.nodes[others[0]].as_ref().and_then(|node| node.configuration(shard)).expect("it is open");
    assert!(group.voters.len() == 3 && !group.is_joint() && group.learners.is_empty(), "{group:?}");
    // It has everything, remembers who it is, and one of the others can be missed again.
    world.kill(leader);
    world.start(leader);
    world.run(2_000);
    world.kill(others[0]);
    world.run(ELECTED_MS);
    assert_eq!(world.get(leader, &key), Some("before".into()));
    assert!(matches!(world.put(leader, &key, "after"), Reply::Written(_)));
}

/// A new replica has forgotten whom the one before it voted for, so its word must not count for that one's.
#[test]
fn a_leader_is_not_confirmed_in_the_name_of_another_replica() {
    let (mut world, shard, leader, _) = with_leader();
    let follower = (leader + 1) % 3;
    let me = world.peer_of(follower, shard);
    let log = world.mark(leader);
    let mut refused = |peer: PeerId| {
        let node = world.nodes[follower].as_mut().expect("it runs");
        let Some(state) = node.configuration(shard) else { panic!("it is open") };
        assert!(state.node_of(me).is_some());
        let (cluster, epoch) = (node.cluster(), node.epoch());
        let terms = 1..20;
        let shards = terms.map(|term| (shard, peer, Term(term))).collect();
        let probe = PeerMessage::ReadProbe(ReadProbe { boot: 1, round: 7, shards });
        let incarnation = Incarnation(world.disks[leader].incarnation);
        let (from, to) = (NodeId(leader as u64 + 1), NodeId(follower as u64 + 1));
        let frame = PeerFrame { from, to, incarnation, cluster, epoch, log, messages: vec![probe] };
        node.handle(world.now, Event::Peer { link: leader as u64, frame });
        let effects = node.take_effects(world.now);
        let answers = effects.iter().filter_map(|effect| match effect {
            Effect::Send { messages, .. } => Some(messages),
            _ => None,
        });
        let refused = answers.flatten().find_map(|message| match message {
            PeerMessage::ReadProbeReply(reply) if reply.round == 7 => Some(reply.refused.len()),
            _ => None,
        });
        refused.expect("it answers")
    };
    assert_eq!(refused(me), 18, "one of these terms is the leader's");
    assert_eq!(refused(PeerId(me.0 + 100)), 19, "none is, for a replica that is not here");
}

#[test]
fn nothing_is_made_anew_while_too_few_others_are_whole() {
    let (mut world, shard, leader, _) = with_leader();
    let before = world.peer_of(leader, shard);
    world.kill((leader + 1) % 3);
    world.run(1_000);
    damage(&mut world, leader, shard);
    world.run(5_000);
    assert_eq!(world.peer_of(leader, shard), before);
    world.start((leader + 1) % 3);
    world.run(10_000);
    assert!(world.peer_of(leader, shard) > before, "{:?}", world.notices);
}

/// A directory that is put back from an older copy of it, while the others go on: the leader knows what it has acknowledged.
#[test]
fn a_log_that_is_older_than_it_was_takes_no_part() {
    let mut world = World::born(3);
    for i in 0..40 {
        world.put(0, &format!("key{i}"), "old");
    }
    world.run(1_000);
    let copy = world.disks[2].synced.clone();
    for i in 0..40 {
        world.put(0, &format!("key{i}"), "new");
    }
    world.run(1_000);
    world.kill(2);
    world.disks[2].synced = copy;
    world.start(2);
    world.run(5_000);
    assert!(
        world.notices.iter().any(|line| line.contains("is older than it was")),
        "it is said: {:?}",
        world.notices
    );
    assert!(!world.retired.is_empty() && world.retired.iter().all(|(n, _)| *n == 2), "{:?}", world.retired);
    for i in 0..40 {
        for n in 0..3 {
            assert_eq!(world.get(n, &format!("key{i}")), Some("new".into()), "key{i} by way of node {n}");
        }
    }
    let reply = world.put(0, "key0", "newest");
    assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
}

/// It knows so after a restart, too, when nobody else may be there who does; and it is made anew once they are.
#[test]
fn a_log_that_is_older_than_it_was_stays_so_until_its_replicas_are_made_anew() {
    let mut world = World::born(3);
    // One that goes on being led by a node that knows.
    let led_by_first = |shard: &ShardId| world.leader(*shard) == Some(NodeId(1));
    let shard = (1..=SHARDS).map(ShardId).find(led_by_first).expect("leaders are spread");
    let key = world.key_of(shard);
    world.put(0, &key, "old");
    world.run(1_000);
    let copy = world.disks[2].synced.clone();
    world.cut_off(1);
    for _ in 0..5 {
        world.put(0, &key, "new");
    }
    world.run(1_000);
    world.kill(2);
    world.disks[2].synced = copy;
    world.start(2);
    world.run(2_000);
    assert!(world.disks[2].synced.iter().any(|record| matches!(record, Record::Lost(of, _) if *of == shard)));
    world.heal();
    world.run(15_000);
    let anew = |record: &Record| matches!(record, Record::Replica(of, _) if *of == shard);
    assert!(world.disks[2].synced.iter().any(anew), "{:?}", world.notices);
    for n in 0..3 {
        assert_eq!(world.get(n, &key), Some("new".into()), "by way of node {n}");
    }
}
