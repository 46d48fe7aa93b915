//! What an entry's commands have come to so far: the table at the entry before, and the changes on top of it.
//!
//! Whoever reads nothing pays nothing: the changes are a list until a condition or an increment first asks what a
//! key is. Only then are the keys of the list put in order, so that each later question finds its answer quickly.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use ringfort_ring::Layout;
use ringfort_storage::Table;
use ringfort_types::limits::TOMBSTONE_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{HybridClock, Index, LayoutChange, NewValue, Revision, ShardId, Version, shown};

use crate::ShardError;
use crate::row::{LookupKey, Stored, bytes_max, put_key};

/// What becomes of a key: a row, a tombstone, or nothing at all.
#[derive(Debug)]
struct Changed {
    key: Bytes,
    /// The revision that this change has made.
    revision: Revision,
    stored: Option<Stored>,
}

/// An entry under way.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    shard: ShardId,
    table: &'a dyn Table,
    /// The entry before this one.
    before: Index,
    /// The stamp of this one.
    clock: HybridClock,
    /// How many commands have changed something so far.
    revision: Revision,
    changes: Vec<Changed>,
    /// Where in `changes` each key is last; kept from the first read on.
    last: Option<BTreeMap<Bytes, usize>>,
    /// The meta group's.
    layout: Option<Arc<Layout>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        shard: ShardId,
        table: &'a dyn Table,
        before: Index,
        clock: HybridClock,
        revision: Revision,
        commands: usize,
        layout: Option<Arc<Layout>>,
    ) -> Draft<'a> {
        let changes = Vec::with_capacity(commands);
        Draft { shard, table, before, clock, revision, changes, last: None, layout }
    }

    /// The layout as it is now. Only the meta group has one.
    pub(crate) fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
    }

    /// Makes the layout what is wanted, if it is not. A shard of keys has none to change. An error says why the change is void.
    pub(crate) fn change_layout(&mut self, change: &LayoutChange) -> Result<(), String> {
        let Some(layout) = &self.layout else { return Ok(()) };
        if let Some(next) = layout.after(change) {
            self.layout = Some(Arc::new(next));
            self.next_revision();
            return Ok(());
        }
        layout.void(change).map_or(Ok(()), Err)
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// One more command that changes something.
    pub(crate) fn next_revision(&mut self) {
        self.revision.0 += 1;
    }

    /// A key gets a value, at the current revision.
    pub(crate) fn put(&mut self, key: Bytes, new: NewValue) {
        let NewValue { value, version } = new;
        let (revision, clock) = (self.revision, self.clock);
        self.change(key, Some(Stored { revision, clock, expiry: None, version, value: Some(value) }));
    }

    /// A key is removed, at the current revision; if its caller has an order, a tombstone keeps it.
    pub(crate) fn delete(&mut self, key: Bytes, version: Option<Version>) {
        let (revision, clock) = (self.revision, self.clock);
        let expiry = Some(clock.wall_ms() + TOMBSTONE_MS);
        let tombstone = version.map(|_| Stored { revision, clock, expiry, version, value: None });
        self.change(key, tombstone.filter(|_| !planted::is(Bug::TombstoneNotKept)));
    }

    fn change(&mut self, key: Bytes, stored: Option<Stored>) {
        if let Some(last) = &mut self.last {
            last.insert(key.clone(), self.changes.len());
        }
        self.changes.push(Changed { key, revision: self.revision, stored });
    }

    /// What is stored of a key now, and still counts. Fails if the table can't be read: a guess would part this replica
    /// from the others.
    pub(crate) fn read(&mut self, key: &[u8]) -> Result<Option<Stored>, ShardError> {
        let changes = &self.changes;
        let last = self.last.get_or_insert_with(|| {
            changes.iter().enumerate().map(|(at, changed)| (changed.key.clone(), at)).collect()
        });
        if let Some(at) = last.get(key)
            && !planted::is(Bug::ConditionBeforeEntry)
        {
            return Ok(changes[*at].stored.clone());
        }
        let (shard, index) = (self.shard, self.before.next());
        let row = self.table.get(&LookupKey::new(key), self.before);
        let row = row.map_err(|source| ShardError::Unapplied { shard, index, source })?;
        let stored = row.map(Stored::decode).transpose().map_err(|malformed| {
            let (key, path) = (shown(key).to_string(), self.table.place());
            ShardError::UnappliedRow { shard, index, key, path, reason: malformed.0 }
        })?;
        Ok(stored.filter(|stored| stored.counts_at(self.clock)))
    }

    /// What each key is after all commands, in key order. All rows share one buffer: they are written together, and
    /// go together when the memtable is flushed.
    pub(crate) fn into_rows(self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut changes = self.changes;
        // Of equal keys the later change comes first, and the others are dropped.
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
        changes.dedup_by(|later, kept| later.key == kept.key);
        let value = |changed: &Changed| {
            changed.stored.as_ref().and_then(|stored| stored.value.as_ref()).map_or(0, Bytes::len)
        };
        let bytes = changes.iter().map(|changed| bytes_max(&changed.key, value(changed))).sum();

        let mut out = BytesMut::with_capacity(bytes);
        let row = |changed: Changed| {
            put_key(&mut out, &changed.key);
            let key = out.split().freeze();
            let row = changed.stored.map(|stored| {
                stored.encode(&mut out);
                out.split().freeze()
            });
            (key, row)
        };
        changes.into_iter().map(row).collect()
    }
}
