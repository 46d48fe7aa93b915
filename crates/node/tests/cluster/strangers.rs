//! Raft messages of peers that do not belong to the configuration that is in force on who hears them.

use ringfort_consensus::inspect::{SeenKind, inspect};
use ringfort_consensus::{Group, GroupConfig, Restored};
use ringfort_node::{Effect, Event};
use ringfort_types::{
    Configuration, Epoch, Incarnation, NodeId, PeerFrame, PeerId, PeerMessage, RaftMessage, Replica, ShardId,
};

use crate::world::World;

const SHARD: ShardId = ShardId(2);

#[test]
fn a_candidate_that_a_voter_does_not_know_is_answered_on_the_node_that_it_speaks_from() {
    let mut world = World::born(3);
    let layout = world.nodes[0].as_ref().and_then(|node| node.layout()).expect("born").clone();
    let replicas = &layout.shard(SHARD).expect("it has so many").replicas;
    let voter = *replicas.iter().find(|replica| replica.node == NodeId(1)).expect("one on each");
    let log = world.mark(2);
    world.kill(1);
    world.kill(2);
    world.run(2_000);
    // The third node has got another replica, of which the first has not heard.
    let stranger = Replica { node: NodeId(3), peer: PeerId(99) };
    let configuration = Configuration::born(vec![voter, stranger]);
    let mut group =
        Group::new(GroupConfig { shard: SHARD, me: stranger.peer, configuration }, &Restored::default());
    group.campaign();
    let (to, message) = group.take_turn().send.remove(0);
    assert_eq!(to, voter.peer);
    let frame = PeerFrame {
        from: stranger.node,
        to: voter.node,
        incarnation: Incarnation(world.disks[2].incarnation),
        cluster: layout.cluster,
        epoch: Epoch(1),
        log,
        messages: vec![PeerMessage::Raft(RaftMessage { shard: SHARD, message })],
    };
    let node = world.nodes[0].as_mut().expect("it runs");
    node.handle(world.now, Event::Peer { link: 2, frame });
    let mut answers = Vec::new();
    for effect in node.take_effects(world.now) {
        let Effect::Send { to, messages } = effect else { continue };
        for message in messages {
            if let PeerMessage::Raft(RaftMessage { message, .. }) = message {
                answers.push((to, inspect(&message).expect("our own encoding")));
            }
        }
    }
    let (to, seen) = answers.pop().expect("an answer");
    assert_eq!((to, seen.to, seen.kind), (stranger.node, stranger.peer, SeenKind::PreVoteReply));
}
