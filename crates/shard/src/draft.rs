//! What an entry's commands have come to so far: the table at the entry before, and the changes on top of it.
//!
//! Whoever reads nothing pays nothing: the changes are a list until a condition or an increment first asks what a
//! key is. Only then are the keys of the list put in order, so that each later question finds its answer quickly.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use ringfort_storage::Table;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{HybridClock, Index, Revision, Row, ShardId};

use crate::row::{LookupKey, bytes_max, put_key, put_row, read_row};

/// A key's new value; `None` if it is removed.
#[derive(Debug)]
struct Changed {
    key: Bytes,
    value: Option<Bytes>,
    revision: Revision,
}

/// An entry under way.
#[derive(Debug)]
pub(crate) struct Draft<'a> {
    shard: ShardId,
    table: &'a dyn Table,
    /// The entry before this one.
    before: Index,
    /// How many commands have changed something so far.
    revision: Revision,
    changes: Vec<Changed>,
    /// Where in `changes` each key is last; kept from the first read on.
    last: Option<BTreeMap<Bytes, usize>>,
}

impl<'a> Draft<'a> {
    pub(crate) fn new(
        shard: ShardId,
        table: &'a dyn Table,
        before: Index,
        revision: Revision,
        commands: usize,
    ) -> Draft<'a> {
        Draft { shard, table, before, revision, changes: Vec::with_capacity(commands), last: None }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// One more command that changes something.
    pub(crate) fn next_revision(&mut self) {
        self.revision.0 += 1;
    }

    /// Changes a key, at the current revision.
    pub(crate) fn change(&mut self, key: Bytes, value: Option<Bytes>) {
        if let Some(last) = &mut self.last {
            last.insert(key.clone(), self.changes.len());
        }
        self.changes.push(Changed { key, value, revision: self.revision });
    }

    /// What a key is now.
    ///
    /// # Panics
    /// If the table can't be read: what is committed has to be applied, and a guess would part this replica from the
    /// others.
    pub(crate) fn read(&mut self, key: &[u8]) -> Option<Row> {
        let changes = &self.changes;
        let last = self.last.get_or_insert_with(|| {
            changes.iter().enumerate().map(|(at, changed)| (changed.key.clone(), at)).collect()
        });
        if let Some(at) = last.get(key)
            && !planted::is(Bug::ConditionBeforeEntry)
        {
            let Changed { value, revision, .. } = &changes[*at];
            return value.as_ref().map(|value| Row { value: value.clone(), revision: *revision });
        }
        let row = self.table.get(&LookupKey::new(key), self.before).unwrap_or_else(|error| {
            panic!("shard {}: entry {} needs a row: {error}", self.shard, self.before.next())
        });
        row.map(|row| {
            read_row(row).unwrap_or_else(|malformed| {
                let key = key.escape_ascii();
                panic!("shard {}: entry {} needs key \"{key}\": {malformed}", self.shard, self.before.next())
            })
        })
    }

    /// What each key is after all commands, in key order. All rows share one buffer: they are written together, and
    /// go together when the memtable is flushed.
    pub(crate) fn into_rows(self, clock: HybridClock) -> Vec<(Bytes, Option<Bytes>)> {
        let mut changes = self.changes;
        // Of equal keys the later change comes first, and the others are dropped.
        changes.sort_unstable_by(|a, b| a.key.cmp(&b.key).then(b.revision.cmp(&a.revision)));
        changes.dedup_by(|later, kept| later.key == kept.key);
        let value = |changed: &Changed| changed.value.as_ref().map_or(0, Bytes::len);
        let bytes = changes.iter().map(|changed| bytes_max(&changed.key, value(changed))).sum();

        let mut out = BytesMut::with_capacity(bytes);
        let row = |changed: Changed| {
            put_key(&mut out, &changed.key);
            let key = out.split().freeze();
            let row = changed.value.map(|value| {
                put_row(&mut out, changed.revision, clock, &value);
                out.split().freeze()
            });
            (key, row)
        };
        changes.into_iter().map(row).collect()
    }
}
