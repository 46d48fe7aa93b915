//! Group commit: one batch of the shared log under way, the next one filling up behind it.
//!
//! All groups' records of all turns since the last batch left go into the next one, so one sync serves every
//! shard. A ticket waits for the batch that holds its group's latest records.

use std::collections::VecDeque;

use ringfort_consensus::Unsynced;
use ringfort_types::{Record, ShardId};

use crate::Effect;

#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    pending: Vec<Record>,
    /// In the order of their batches.
    tickets: VecDeque<(u64, ShardId, Unsynced)>,
    under_way: Option<u64>,
    /// The last batch that was handed out.
    last: u64,
}

impl GroupCommit {
    /// Adds one group's records and its ticket. `last_batch` is the batch of the group's latest records.
    pub(crate) fn add(
        &mut self,
        shard: ShardId,
        records: Vec<Record>,
        ticket: Option<Unsynced>,
        last_batch: &mut u64,
    ) {
        if !records.is_empty() {
            self.pending.extend(records);
            *last_batch = self.last + 1;
        }
        if let Some(ticket) = ticket {
            // A ticket without records of its own may belong before those that wait already.
            let place = self.tickets.partition_point(|(batch, ..)| *batch <= *last_batch);
            self.tickets.insert(place, (*last_batch, shard, ticket));
        }
    }

    /// The next batch, if none is under way and there is something to write.
    pub(crate) fn take_batch(&mut self) -> Option<Effect> {
        if self.under_way.is_some() || self.pending.is_empty() {
            return None;
        }
        self.last += 1;
        self.under_way = Some(self.last);
        Some(Effect::Persist { number: self.last, records: std::mem::take(&mut self.pending) })
    }

    /// A batch is durable: the tickets that waited for it.
    pub(crate) fn persisted(&mut self, number: u64) -> Vec<(ShardId, Unsynced)> {
        assert_eq!(self.under_way, Some(number), "batches become durable one at a time, in order");
        self.under_way = None;
        let mut released = Vec::new();
        while let Some((_, shard, ticket)) = self.tickets.pop_front_if(|(batch, ..)| *batch <= number) {
            released.push((shard, ticket));
        }
        released
    }

    /// Whether everything handed over is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.pending.is_empty()
    }
}
