//! Letting go of the oldest segments.
//!
//! Beyond its budget the log gives up its oldest segment. What somebody still needs of it is written once more, at
//! the log's end, in one batch: of each shard that has anything there, its last hard state, its base, which replica it is, and its
//! entries above what its table holds durably, with all later ones of that shard (an entry replaces those above
//! it). The same batch says which segment the log begins with from then on. Only when it is synced is the file
//! removed; a crash in between leaves a file that the next start removes.
//!
//! So a shard that lags a little never keeps a segment. Copying much is what flushing its table avoids: while more
//! than [`COPY_BYTES_SOFT`] would have to be copied, the segment stays, and [`Log::held_by`] says whose tables should
//! be flushed. Once the log has grown to half as much again as its budget, up to half a segment is copied. More than
//! that is never copied, because it would gain nothing: a log in which that much is needed is as large as it must be.
//!
//! What followers may still want is no reason to keep anything: a leader sends a snapshot where its log has been let
//! go of.

use std::collections::BTreeMap;

use ringfort_types::planted::{self, Bug};
use ringfort_types::{Base, Index, Record, ShardId};

use super::index::ShardIndex;
use super::reader::POISONED;
use super::record::RECORD_OVERHEAD_MAX;
use super::{Log, remove_segment};
use crate::StorageError;

/// Entries of one segment that are copied rather than waited for.
const COPY_BYTES_SOFT: usize = 1024 * 1024;

/// What each shard's table holds durably; nothing, for those that are not named.
pub type Durable = BTreeMap<ShardId, Index>;

/// What is to be kept of one shard when a segment goes.
struct Kept {
    shard: ShardId,
    base: Base,
    /// The entries after the base, if they have to be copied: up to this one.
    copied: Option<Index>,
}

/// What is to be kept when a segment goes, and the records that keep it.
struct Remains {
    kept: Vec<Kept>,
    records: Vec<Record>,
}

impl Log {
    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.shared.index.read().expect(POISONED).segments.values().sum()
    }

    /// Whether [`Log::collect`] may have something to do. Cheap.
    pub fn is_over_budget(&self) -> bool {
        self.bytes() > self.options.budget_bytes
    }

    /// Whether the log has grown further beyond its budget than waiting for tables explains.
    pub fn has_outgrown_budget(&self) -> bool {
        self.bytes() > self.options.budget_bytes + self.options.budget_bytes / 2
    }

    /// Shards whose tables keep the oldest segment from going without a copy. Told as soon as one more segment would
    /// make the log outgrow its budget; empty before.
    pub fn held_by(&self, durable: &Durable) -> Vec<ShardId> {
        if self.bytes() + self.options.segment_bytes <= self.options.budget_bytes {
            return Vec::new();
        }
        let index = self.shared.index.read().expect(POISONED);
        if index.first_segment == self.segment {
            return Vec::new();
        }
        let holds = |(shard, known): &(&ShardId, &ShardIndex)| {
            known
                .first_after(index.first_segment)
                .is_some_and(|after| needed(known, **shard, durable) < after)
        };
        index.shards.iter().filter(holds).map(|(shard, _)| *shard).collect()
    }

    /// Lets go of the oldest segments while the log is over its budget, but never of the one that is written to.
    /// Returns the shards whose logs begin later now, and where.
    ///
    /// An error is fatal for the process, unless there was no room for what has to be written
    /// ([`StorageError::is_disk_full`]): then nothing has changed.
    pub fn collect(&mut self, durable: &Durable) -> Result<Vec<(ShardId, Base)>, StorageError> {
        let mut moved = BTreeMap::new();
        while self.is_over_budget() {
            let Some(Remains { kept, records }) = self.keep(durable)? else { break };
            let first = self.shared.index.read().expect(POISONED).first_segment;
            self.write(&records, Some(first + 1))?;
            self.shared.index.write().expect(POISONED).forget_segments_before(first + 1);
            let mut files =
                self.shared.files.lock().expect("no thread panics while it looks for an open file");
            files.retain(|(segment, _)| *segment != first);
            drop(files);
            moved.extend(kept.into_iter().map(|kept| (kept.shard, kept.base)));
            self.failed = true;
            remove_segment(&*self.shared.disk, &self.shared.dir, first)?;
            self.failed = false;
        }
        Ok(moved.into_iter().collect())
    }

    /// What has to be kept of the oldest segment, and the records that keep it. `None` if it is not to go now.
    fn keep(&self, durable: &Durable) -> Result<Option<Remains>, StorageError> {
        let mut records = Vec::new();
        let mut kept = Vec::new();
        let worth;
        {
            let index = self.shared.index.read().expect(POISONED);
            let first = index.first_segment;
            if first == self.segment {
                return Ok(None);
            }
            worth = index.segments.get(&first).map_or(0, |bytes| bytes / 2);
            for (shard, known) in &index.shards {
                if known.has_state_in(first) {
                    records.push(Record::HardState(*shard, known.hard_state));
                }
                if let Some(peer) = known.replica.filter(|_| known.has_replica_in(first)) {
                    let has_none = known.is_gone;
                    records.push(if has_none { Record::Gone } else { Record::Replica }(*shard, peer));
                    // It would be forgotten.
                    records.extend(known.lost.map(|index| Record::Lost(*shard, index)));
                } else if let Some(index) = known.lost.filter(|_| known.has_lost_in(first)) {
                    records.push(Record::Lost(*shard, index));
                }
                kept.extend(keep_of(known, *shard, first, durable));
            }
        }
        let has_waited = self.has_outgrown_budget();
        let mut room = if has_waited { worth as usize } else { COPY_BYTES_SOFT.min(worth as usize) };
        let reader = self.reader();
        for Kept { shard, base, copied } in &kept {
            records.push(Record::Base(*shard, *base));
            let Some(through) = copied else { continue };
            let mut next = base.index.next();
            while next <= *through {
                let entries = reader.entries(*shard, next, through.next(), room)?;
                let bytes: usize =
                    entries.iter().map(|entry| entry.payload.len() + RECORD_OVERHEAD_MAX).sum();
                if bytes > room {
                    return Ok(None);
                }
                room -= bytes;
                next = entries.last().map_or(next, |entry| entry.index.next());
                records.extend(entries.into_iter().map(|entry| Record::Entry(*shard, entry)));
            }
        }
        Ok(Some(Remains { kept, records }))
    }
}

/// The first entry that the shard needs for a start: the one after what its table is sure to hold.
fn needed(known: &ShardIndex, shard: ShardId, durable: &Durable) -> Index {
    let durable = durable.get(&shard).copied().unwrap_or_default();
    durable.max(known.base.index).next()
}

/// What is to be kept of a shard when its first segment goes, if that concerns it.
fn keep_of(known: &ShardIndex, shard: ShardId, first: u64, durable: &Durable) -> Option<Kept> {
    let Some(after) = known.first_after(first) else {
        return known.has_base_in(first).then_some(Kept { shard, base: known.base, copied: None });
    };
    let needed = needed(known, shard, durable);
    let copied = (needed < after && !planted::is(Bug::LogCutTooFar)).then(|| known.last());
    let index = Index(if copied.is_some() { needed.0 } else { after.0 } - 1);
    let base = Base { index, term: known.term(index), generation: known.base.generation };
    Some(Kept { shard, base, copied })
}
