//! A replica whose stored bytes are damaged takes no part any more: it leads nothing, votes for nobody, acknowledges nothing,
//! and for whoever asks it is as if this node had none. If it led, it hands over first (`abdicate`). The others go on without it,
//! and the node with its other shards.
//!
//! What waited for it is asked elsewhere. Of a write that was proposed nobody here will hear what became of it, so it is in
//! doubt; whoever has given it a place in a session may send it again. The log keeps the replica's term and vote;
//! and for a start with its files put back the entries that its table lacks, as long as there is room ([`Effect::Retire`]).
//!
//! A shard that has its only replica here has nobody else: what can still be read of it is read, as long as it can be applied
//! to; and once it can't, whoever asks is told what is damaged.
//!
//! A replica whose log holds an entry that this version of Ringfort can't read takes no part either (`ringfort-types`, `level`, says why
//! there should be none). Nothing is damaged, so it is not made anew: it would meet the same entry. It waits for another version.
//!
//! Deliberately absent: how it is made anew from the others (`renewal`).

use ringfort_types::planted::{self, Bug};
use ringfort_types::{Code, Failure, ShardId};

use crate::Effect;
use crate::node::Node;

impl Node {
    pub(crate) fn handle_damaged(&mut self, shard: ShardId, reason: String, is_readable: bool) {
        let Some(places) = self.layout.as_ref().and_then(|layout| layout.shard(shard)) else { return };
        let is_alone = places.replicas.len() == 1;
        let slot = &mut self.slots[shard.0 as usize];
        if slot.damage.is_some() || planted::is(Bug::DamagedReplicaGoesOn) {
            return self.has_begun(shard);
        }
        if is_alone && is_readable {
            let line = format!(
                "damage in shard {shard}, of which there is no other replica: what can be read is served: {reason}"
            );
            return self.out.last.push(Effect::Notice(line));
        }
        let what_now = if is_alone {
            "it can't be served"
        } else {
            "its other replicas go on without this node's, which is made anew once enough of them are up"
        };
        self.out.last.push(Effect::Notice(format!("damage in shard {shard}: {what_now}: {reason}")));
        self.take_no_part(shard, reason, true);
    }

    /// An entry of this shard's log can't be read by this version. `can_hand_over` if its group goes on without a table.
    pub(crate) fn stand_still(&mut self, shard: ShardId, reason: String, can_hand_over: bool) {
        let Some(slot) = self.slots.get_mut(shard.0 as usize) else { return };
        if slot.damage.is_some() {
            return self.has_begun(shard);
        }
        slot.stands_still = true;
        self.out.last.push(Effect::Notice(format!(
            "the replica of shard {shard} on this node stands still: {reason}"
        )));
        self.take_no_part(shard, reason, can_hand_over);
    }

    fn take_no_part(&mut self, shard: ShardId, reason: String, can_hand_over: bool) {
        let slot = &mut self.slots[shard.0 as usize];
        self.out.last.push(Effect::Retire(shard));
        slot.damage = Some(reason);
        let waiting = std::mem::take(&mut slot.waiting);
        if let Some(replica) = self.dissolve(shard).filter(|_| can_hand_over) {
            self.abdicate(replica);
        }
        for asked in waiting {
            self.route(asked);
        }
        self.serve_if_all_open();
        self.send_reports();
    }

    /// What is told of a shard if nobody else has a replica, or this node's is asked by name.
    pub(crate) fn damage_of(&self, shard: ShardId) -> Option<Failure> {
        let reason = self.slots[shard.0 as usize].damage.as_ref()?;
        Some(Failure::rejected(
            Code::DataLoss,
            format!("the replica of shard {shard} on {} takes no part: {reason}", self.called(self.id)),
        ))
    }

    /// Whether the only replica of this shard is damaged.
    pub(crate) fn is_lost(&self, shard: ShardId) -> bool {
        let layout = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        self.slots[shard.0 as usize].damage.is_some() && layout.is_some_and(|shard| shard.replicas.len() == 1)
    }
}
