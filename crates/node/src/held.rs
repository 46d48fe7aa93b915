//! Writes that are committed and applied, and are to be on more replicas before their clients are told.
//!
//! What is committed stays, whatever comes: so when a client's time is over, or this node can't count copies any more
//! because it does not lead, it is told how many there were (never fewer than a majority), not that the write failed.
//!
//! Writes in doubt are held, too, until they are applied: what the shard says of them may leave them in doubt
//! (`pending::after_attempts`).

use ringfort_types::{Reply, ShardId, Token};

use crate::node::Node;
use crate::pending::Waiter;

/// A write whose client waits for copies.
#[derive(Debug)]
pub(crate) struct Held {
    waiter: Waiter,
    /// How long it waits for copies, on the monotonic clock.
    until_us: u64,
    /// Once it is applied.
    reply: Option<Reply>,
}

impl Held {
    /// For what has just been committed.
    pub(crate) fn new(waiter: Waiter, now_us: u64) -> Held {
        let patience_us = u64::from(waiter.durability.patience_ms) * 1_000;
        Held { waiter, until_us: waiter.deadline_us.min(now_us + patience_us), reply: None }
    }

    pub(crate) fn into_waiter(self) -> Waiter {
        self.waiter
    }
}

impl Node {
    /// What came of writes that are held.
    pub(crate) fn handle_replied(&mut self, replies: Vec<(ShardId, Token, Reply)>) {
        for (shard, token, reply) in replies {
            let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { continue };
            // A node's own requests have one token between them: they are answered in the order of the log.
            let is_it = |held: &&mut Held| held.waiter.token == token && held.reply.is_none();
            if let Some(held) = replica.held.iter_mut().find(is_it) {
                held.reply = Some(reply);
            }
            self.mark(shard);
        }
    }

    /// Answers those of a shard's held writes that are on enough replicas, or can't wait for that.
    pub(crate) fn release_held(&mut self, shard: ShardId) {
        let now_us = self.now.monotonic_us;
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
        if replica.held.is_empty() {
            return;
        }
        let (leads, group, configuration) = (replica.leads(), &replica.group, replica.group.configuration());
        let is_over = |held: &mut Held| {
            let is_late = held.until_us <= now_us || !leads;
            let Some(reply) = held.reply.as_mut() else { return false };
            // Whatever changed nothing has no copies.
            let Some(receipt) = reply.receipt_mut() else { return true };
            receipt.copies = receipt.copies.max(group.copies(receipt.index));
            if receipt.copies >= held.waiter.durability.copies.of(configuration) {
                return true;
            }
            if is_late && leads {
                let lacks = |peer| group.matched(peer).is_none_or(|index| index < receipt.index);
                receipt.lacking = configuration
                    .deciding()
                    .filter(|place| lacks(place.peer))
                    .map(|place| place.node)
                    .collect();
            }
            is_late
        };
        let over: Vec<Held> = replica.held.extract_if(.., is_over).collect();
        for Held { waiter, reply, .. } in over {
            self.answer_waiter(waiter, reply.expect("only what is applied is over"));
        }
    }
}
