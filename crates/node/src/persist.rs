//! Group commit: one batch of the shared log under way, the next one filling up behind it.
//!
//! All groups' records of all turns since the last batch left go into the next one, so one sync serves every
//! shard. A ticket waits for the batch that holds its group's latest records.

use std::collections::VecDeque;

use ringfort_consensus::Unsynced;
use ringfort_types::{Record, ShardId};

use crate::Effect;

/// Bytes of entries that may wait to be durable, and are in memory until then. Beyond it a node takes no appends, and
/// proposes nothing: a disk that hangs must not cost memory for as long as others go on.
pub(crate) const UNPERSISTED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Tickets that may wait.
const TICKETS_MAX: usize = 64 * 1024;

#[derive(Debug, Default)]
pub(crate) struct GroupCommit {
    pending: Vec<Record>,
    pending_bytes: usize,
    under_way_bytes: usize,
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
        records: impl IntoIterator<Item = Record>,
        ticket: Option<Unsynced>,
        last_batch: &mut u64,
    ) {
        for record in records {
            if matches!(record, Record::Entry(..)) {
                self.pending_bytes += record.weight();
            }
            self.pending.push(record);
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
        self.under_way_bytes = std::mem::take(&mut self.pending_bytes);
        Some(Effect::Persist { number: self.last, records: std::mem::take(&mut self.pending) })
    }

    /// A batch is durable: the tickets that waited for it.
    pub(crate) fn persisted(&mut self, number: u64) -> Vec<(ShardId, Unsynced)> {
        assert_eq!(self.under_way, Some(number), "batches become durable one at a time, in order");
        (self.under_way, self.under_way_bytes) = (None, 0);
        let mut released = Vec::new();
        while let Some((_, shard, ticket)) = self.tickets.pop_front_if(|(batch, ..)| *batch <= number) {
            released.push((shard, ticket));
        }
        released
    }

    /// Bytes of entries that wait for the disk.
    pub(crate) fn bytes(&self) -> usize {
        self.pending_bytes + self.under_way_bytes
    }

    /// Whether so much waits for the disk that no more entries are to be taken.
    pub(crate) fn is_full(&self) -> bool {
        self.bytes() > UNPERSISTED_BYTES_MAX || self.has_no_ticket_left()
    }

    /// Whether nothing is to be taken that would have to wait for the disk, however small.
    pub(crate) fn has_no_ticket_left(&self) -> bool {
        self.tickets.len() > TICKETS_MAX
    }

    /// Whether everything handed over is durable.
    pub(crate) fn is_idle(&self) -> bool {
        self.under_way.is_none() && self.pending.is_empty()
    }
}
