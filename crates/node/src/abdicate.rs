//! A leader whose table is damaged hands its leadership over before its replica takes no part any more (`damage`).
//!
//! Silence would leave the shard without a leader for an election timeout. Its log is whole, so for a second at most its Raft
//! group goes on without its table: it sends the next leader what that one lacks, proposes nothing, applies nothing and
//! answers nobody. Once it does not lead it says nothing any more, not even whom it votes for. The first word of the next
//! leader ends it, or the end of that second.
//!
//! For all other purposes there is no replica here from the first moment on.

use bytes::Bytes;
use ringfort_consensus::{Group, Synced, Unsynced};
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Base, EntryKind, LogEntry, NodeId, Role, ShardId};

use crate::Effect;
use crate::node::Node;
use crate::replica::Replica;

/// How many ticks a leader tries to hand over before it falls silent.
const ABDICATION_TICKS: u64 = 1_000 / TICK_MS;

/// A group that leads for the last time.
pub(crate) struct Abdicating {
    pub(crate) group: Group,
    /// The batch that holds the group's latest records.
    last_batch: u64,
    until_tick: u64,
}

impl Abdicating {
    fn leads(&self) -> bool {
        self.group.role() == Role::Leader
    }

    /// The node that leads in its place, once that is known.
    fn successor(&self) -> Option<NodeId> {
        let leader = self.group.leader().filter(|_| !self.leads())?;
        self.group.configuration().node_of(leader)
    }
}

impl Node {
    /// Begins to hand over, if this replica leads and somebody else can.
    pub(crate) fn abdicate(&mut self, replica: Replica) {
        let Replica { shard, mut group, last_batch, .. } = replica;
        let leads = group.role() == Role::Leader;
        let transferee = leads.then(|| self.transferee_of(shard, &group, true)).flatten();
        let Some(transferee) = transferee.filter(|_| !planted::is(Bug::DamagedLeaderFallsSilent)) else {
            return;
        };
        group.abstain(true);
        // Whoever was just asked to take over may be about to stand: a second one would stand against it.
        if group.can_propose() {
            group.transfer_to(transferee);
        }
        let until_tick = self.ticks + ABDICATION_TICKS;
        self.slots[shard.0 as usize].abdicating =
            Some(Box::new(Abdicating { group, last_batch, until_tick }));
        self.mark(shard);
    }

    fn abdicating(&mut self, shard: ShardId) -> Option<&mut Abdicating> {
        self.slots.get_mut(shard.0 as usize)?.abdicating.as_deref_mut()
    }

    pub(crate) fn tick_abdicating(&mut self, shard: ShardId) {
        let now = self.ticks;
        let Some(abdicating) = self.abdicating(shard) else { return };
        if now >= abdicating.until_tick {
            self.slots[shard.0 as usize].abdicating = None;
            return;
        }
        abdicating.group.tick();
        let slot = &self.slots[shard.0 as usize];
        let failed = slot.abdicating.as_ref().filter(|abdicating| abdicating.group.can_propose());
        let transferee = failed.and_then(|failed| self.transferee_of(shard, &failed.group, true));
        if let (Some(transferee), Some(abdicating)) = (transferee, self.abdicating(shard)) {
            abdicating.group.transfer_to(transferee);
        }
        self.mark(shard);
    }

    pub(crate) fn step_abdicating(&mut self, shard: ShardId, message: Bytes) {
        let Some(abdicating) = self.abdicating(shard) else { return };
        if ringfort_consensus::codec::snapshot(&message).is_some() || abdicating.group.step(message).is_err()
        {
            return;
        }
        let Some(node) = abdicating.successor() else { return self.mark(shard) };
        let term = abdicating.group.term();
        let slot = &mut self.slots[shard.0 as usize];
        slot.abdicating = None;
        if slot.reported.is_none_or(|(reported, _)| reported <= term) {
            slot.reported = Some((term, node));
        }
        self.take_back_forwards(shard);
        self.retry_waiting_of(shard, true);
    }

    pub(crate) fn take_turn_of_abdicating(&mut self, shard: ShardId) {
        loop {
            let Some(abdicating) = self.slots[shard.0 as usize].abdicating.as_mut() else { return };
            let turn = abdicating.group.take_turn();
            self.commit.add(shard, turn.records, turn.unsynced, &mut abdicating.last_batch);
            for entry in turn.committed.iter().filter(|entry| entry.kind == EntryKind::Configuration) {
                if abdicating.group.apply_change(entry).is_err() {
                    // Of a later version.
                    self.slots[shard.0 as usize].abdicating = None;
                    return;
                }
            }
            let again = abdicating.group.has_turn();
            if let Some(fetch) = turn.fetch {
                let (from, to, bytes_max) = (fetch.from, fetch.to, fetch.bytes_max);
                self.out.last.push(Effect::Fetch { shard, from, to, bytes_max });
            }
            self.send_of_abdicating(shard, turn.send);
            if !again {
                return;
            }
        }
    }

    pub(crate) fn release_abdicating(&mut self, shard: ShardId, ticket: Unsynced, proof: &Synced) {
        let Some(abdicating) = self.abdicating(shard) else { return };
        let outgoing = abdicating.group.release(ticket, proof);
        self.send_of_abdicating(shard, outgoing);
        self.mark(shard);
    }

    pub(crate) fn fetched_for_abdicating(&mut self, shard: ShardId, entries: &[LogEntry]) {
        if let Some(abdicating) = self.abdicating(shard) {
            abdicating.group.fetched(entries);
            self.mark(shard);
        }
    }

    pub(crate) fn compact_abdicating(&mut self, shard: ShardId, base: Base) {
        if let Some(abdicating) = self.abdicating(shard) {
            abdicating.group.compact(base);
        }
    }

    fn send_of_abdicating(&mut self, shard: ShardId, outgoing: Vec<ringfort_consensus::Outgoing>) {
        if self.abdicating(shard).is_some_and(|abdicating| abdicating.leads()) {
            self.send_raft(shard, outgoing);
        }
    }
}
