//! What is counted: callgrind collects from the entry of each of these functions until it returns (`cargo xtask instructions` names them).
//!
//! Each is a function of its own in the program, and none calls another of them, which would end the collecting.

use bytes::Bytes;
use ringfort_node::{Effect, Event, Node};
use ringfort_types::{Incarnation, NodeId, Now};

use crate::turn;

/// Something has happened.
#[inline(never)]
pub(crate) fn handle_event(node: &mut Node, now: Now, event: Event) {
    node.handle(now, event);
}

/// Another node speaks.
#[inline(never)]
pub(crate) fn handle_frame(node: &mut Node, now: Now, link: u64, bytes: Bytes) {
    turn::handle_frame(node, now, link, bytes);
}

/// A turn ends.
#[inline(never)]
pub(crate) fn end_turn(
    node: &mut Node,
    now: Now,
    incarnation: Incarnation,
) -> (Vec<Effect>, Vec<(NodeId, Bytes)>) {
    turn::end_turn(node, now, incarnation)
}
