//! A node's part of a driver: frames are decoded before it hears them, and encoded after its turn.

use bytes::Bytes;
use ringfort_node::{Effect, Event, Node};
use ringfort_types::{Incarnation, NodeId, Now, PeerFrame};

/// Another node speaks.
pub(crate) fn handle_frame(node: &mut Node, now: Now, link: u64, bytes: Bytes) {
    let frame = PeerFrame::decode(bytes).expect("what one node encodes another decodes");
    node.handle(now, Event::Peer { link, frame });
}

/// A turn ends: what is left to do, and what goes to other nodes.
pub(crate) fn end_turn(
    node: &mut Node,
    now: Now,
    incarnation: Incarnation,
) -> (Vec<Effect>, Vec<(NodeId, Bytes)>) {
    let (mut effects, mut frames) = (Vec::new(), Vec::new());
    for effect in node.take_effects(now) {
        if let Effect::Send { to, messages } = effect {
            let (from, cluster, epoch, log) = (node.id(), node.cluster(), node.epoch(), node.log_mark());
            let frame = PeerFrame { from, to, incarnation, cluster, epoch, log, messages };
            frames.push((to, frame.encode()));
        } else {
            effects.push(effect);
        }
    }
    (effects, frames)
}
