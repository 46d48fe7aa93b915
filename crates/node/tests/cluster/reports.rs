//! What nodes report to each other: all of it once, then what changes.

use ringfort_node::{Effect, Event, Heard};
use ringfort_types::{DiskSpace, NodeId, PeerFrame, PeerMessage, ReportReply};

use crate::world::World;

/// Of a second.
const TICKS: u64 = 40;

/// What node 1 tells node 2 of itself in so many ticks in which nothing arrives there.
fn told_to_second(world: &mut World, ticks: u64) -> Vec<PeerMessage> {
    let mut told = Vec::new();
    for _ in 0..ticks {
        world.now.monotonic_us += 25_000;
        let node = world.nodes[0].as_mut().expect("it runs");
        node.handle(world.now, Event::Tick);
        for effect in node.take_effects(world.now) {
            if let Effect::Send { to: NodeId(2), messages } = effect {
                told.extend(messages);
            }
        }
    }
    told.retain(|message| matches!(message, PeerMessage::Report(_) | PeerMessage::ReportChanges(_)));
    told
}

/// Something that node 2 says to node 1. What comes of it.
fn say(world: &mut World, message: PeerMessage) -> Vec<Effect> {
    let log = world.mark(1);
    let incarnation = ringfort_types::Incarnation(world.disks[1].incarnation);
    let node = world.nodes[0].as_mut().expect("it runs");
    let (cluster, epoch) = (node.cluster(), node.epoch());
    let (from, to) = (NodeId(2), NodeId(1));
    let frame = PeerFrame { from, to, incarnation, cluster, epoch, log, messages: vec![message] };
    node.handle(world.now, Event::Peer { link: 1, frame });
    node.take_effects(world.now)
}

fn assert_all_known(world: &World) {
    for (n, node) in world.nodes.iter().enumerate() {
        let node = node.as_ref().expect("it runs");
        for other in (0..world.nodes.len()).filter(|other| *other != n) {
            let told = world.nodes[other].as_ref().expect("it runs").told_report().clone();
            let heard = Heard::whole(world.mark(other).process, told);
            assert_eq!(node.heard_report(NodeId(other as u64 + 1)), Some(&heard));
        }
    }
}

#[test]
fn at_rest_only_that_a_node_lives_is_told() {
    let mut world = World::born_with_shards(3, 64);
    world.run(3_000);
    let before = world.nodes[0].as_ref().expect("it runs").told_report().number;
    // Nobody is missed in a quarter of a second, and one of four has a report in it.
    let told = (0..4).find_map(|_| {
        world.run(1_000);
        Some(told_to_second(&mut world, TICKS / 4)).filter(|told| !told.is_empty())
    });
    let told = told.expect("one is due every second");
    let [PeerMessage::ReportChanges(changes)] = &told[..] else { panic!("{told:?} is more than it takes") };
    assert_eq!((changes.base, changes.number), (before, before));
    assert_eq!((changes.replicas.len(), changes.gone.len()), (0, 0));
}

#[test]
fn what_changes_is_told_and_known_everywhere() {
    let mut world = World::born(3);
    world.run(2_000);
    assert_all_known(&world);
    let before = world.nodes[0].as_ref().expect("it runs").told_report().number;
    for i in 0..20 {
        world.put(i % 3, &format!("key{i}"), "value");
        world.run(700);
    }
    world.run(1_000);
    assert_all_known(&world);
    assert!(world.nodes[0].as_ref().expect("it runs").told_report().number > before);
    world.kill(1);
    world.start(1);
    world.cut(0, 2);
    world.put(1, "key", "while two of them don't hear each other");
    world.run(3_000);
    world.heal();
    world.run(3_000);
    assert_all_known(&world);
}

#[test]
fn room_on_a_disk_is_told_when_it_has_changed_by_much() {
    let mut world = World::born(3);
    world.run(2_000);
    let total = 1 << 40;
    let shown = |world: &World| {
        world.nodes[1].as_ref().expect("it runs").heard_report(NodeId(1)).expect("there is one").space
    };
    assert_eq!(shown(&world), DiskSpace::default());
    let (much, less) =
        (DiskSpace { free: total / 2, total }, DiskSpace { free: total / 2 - total / 300, total });
    for (now, told) in
        [(much, much), (less, much), (DiskSpace { free: 0, total }, DiskSpace { free: 0, total })]
    {
        let number = world.nodes[0].as_ref().expect("it runs").told_report().number;
        world.queue.push((0, Event::Space(now)));
        world.run(2_000);
        assert_eq!(shown(&world), told);
        let is_new = world.nodes[0].as_ref().expect("it runs").told_report().number > number;
        assert_eq!(is_new, now == told);
    }
    let state = world.nodes[2].as_ref().expect("it runs").told_report();
    assert_eq!(state.space, DiskSpace::default(), "each tells of its own");
}

#[test]
fn who_does_not_answer_is_told_everything() {
    let mut world = World::born(3);
    world.run(2_000);
    let node = world.nodes[0].as_mut().expect("it runs");
    node.handle(world.now, Event::PeerLost(NodeId(2)));
    node.handle(world.now, Event::PeerUp(NodeId(2)));
    let told = told_to_second(&mut world, 3 * TICKS);
    assert_eq!(told.len(), 4, "one more at once");
    assert!(told.iter().all(|message| matches!(message, PeerMessage::Report(_))), "{told:?}");
    // Answers to another process count for nothing.
    let number = world.nodes[0].as_ref().expect("it runs").told_report().number;
    let process = world.mark(0).process;
    say(&mut world, ReportReply { process: process + 1, number }.into());
    assert!(matches!(told_to_second(&mut world, TICKS)[..], [PeerMessage::Report(_)]));
    say(&mut world, ReportReply { process, number }.into());
    assert!(matches!(told_to_second(&mut world, TICKS)[..], [PeerMessage::ReportChanges(_)]));
    say(&mut world, ReportReply { process, number: 0 }.into());
    assert!(matches!(told_to_second(&mut world, TICKS)[..], [PeerMessage::Report(_)]));
}

#[test]
fn a_difference_to_an_unknown_report_is_asked_for_again() {
    let mut world = World::born(3);
    world.run(2_000);
    let known = world.nodes[0].as_ref().expect("it runs").heard_report(NodeId(2)).expect("reported").clone();
    let later = known.number + 2;
    let changes = ringfort_types::ReportChanges {
        base: known.number + 1,
        number: later,
        gone: known.replicas.keys().copied().collect(),
        ..Default::default()
    };
    let answers = |effects: Vec<Effect>| {
        let sent = effects.into_iter().filter_map(|effect| match effect {
            Effect::Send { to: NodeId(2), messages } => Some(messages),
            _ => None,
        });
        sent.flatten().collect::<Vec<_>>()
    };
    let process = known.process;
    let said = answers(say(&mut world, changes.clone().into()));
    assert!(said.contains(&ReportReply { process, number: 0 }.into()), "{said:?}");
    assert_eq!(world.nodes[0].as_ref().expect("it runs").heard_report(NodeId(2)), Some(&known));
    let said =
        answers(say(&mut world, ringfort_types::ReportChanges { base: known.number, ..changes }.into()));
    assert!(said.contains(&ReportReply { process, number: later }.into()), "{said:?}");
    let heard = world.nodes[0].as_ref().expect("it runs").heard_report(NodeId(2)).expect("reported");
    assert!(heard.replicas.is_empty() && heard.number == later);
}
