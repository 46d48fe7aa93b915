//! Requests that were passed on to another node and are not answered yet.
//!
//! A write is passed on once at a time, and again only after it has surely not happened (the other node said
//! that it does not lead), or if it has a place in a session, so that it takes effect once: then also when another node
//! leads the shard by now, since the one that was asked may hang. If the connection breaks in between, the outcome of any
//! other write is unknown, and that is what its client is told.

use std::collections::BTreeMap;

use ringfort_types::{NodeId, ShardId};

use crate::pending::Pending;

#[derive(Debug)]
struct Forwarded {
    to: NodeId,
    /// The shard, if it was passed to that node because it led the shard.
    led: Option<ShardId>,
    asked: Pending,
}

#[derive(Debug)]
pub(crate) struct Forwards {
    next: u64,
    waiting: BTreeMap<u64, Forwarded>,
}

impl Forwards {
    /// Numbers begin anew with every boot, far from those of the last one, so that a late answer to an
    /// earlier process can't be mistaken for one to this.
    pub(crate) fn new(boot: u64) -> Forwards {
        Forwards { next: boot << 40, waiting: BTreeMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn add(&mut self, to: NodeId, led: Option<ShardId>, asked: Pending) -> u64 {
        self.next += 1;
        self.waiting.insert(self.next, Forwarded { to, led, asked });
        self.next
    }

    /// The request with this number, if `from` is who it was passed to.
    pub(crate) fn answered(&mut self, from: NodeId, id: u64) -> Option<Pending> {
        if self.waiting.get(&id)?.to != from {
            return None;
        }
        self.waiting.remove(&id).map(|forwarded| forwarded.asked)
    }

    /// All requests that this node had.
    pub(crate) fn take_lost(&mut self, node: NodeId) -> Vec<Pending> {
        self.waiting.extract_if(.., |_, forwarded| forwarded.to == node).map(|(_, lost)| lost.asked).collect()
    }

    /// What was passed to another node that led this shard than who leads it now, and may be asked twice.
    pub(crate) fn take_outdated(&mut self, shard: ShardId, leader: NodeId) -> Vec<Pending> {
        let is_outdated = |forwarded: &Forwarded| {
            forwarded.led == Some(shard) && forwarded.to != leader && forwarded.asked.may_be_repeated()
        };
        let outdated = self.waiting.extract_if(.., |_, forwarded| is_outdated(forwarded));
        outdated.map(|(_, forwarded)| forwarded.asked).collect()
    }

    /// All requests whose deadline has passed.
    pub(crate) fn take_expired(&mut self, now_us: u64) -> Vec<Pending> {
        self.waiting
            .extract_if(.., |_, forwarded| forwarded.asked.deadline_us <= now_us)
            .map(|(_, late)| late.asked)
            .collect()
    }
}
