//! The writer: applies committed entries.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use ringfort_storage::Table;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Command, Entry, EntryKind, HybridClock, Index, LogEntry, Receipt, Reply, Revision, ShardId,
};

use crate::row::{STATE_KEY, bytes_max, put_key, put_row};
use crate::state::State;
use crate::{ShardError, ShardReader};

/// One shard's state, and the only one who may write its table.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    table: Arc<dyn Table>,
    state: State,
    /// Where the state row was last written. The table takes one value of a key for each index.
    sealed: Index,
    /// The last entry that held a digest mark since this was opened.
    marked: Index,
    /// `state.revision` for the readers. Raised after the rows are written.
    revision: Arc<AtomicU64>,
}

impl Shard {
    /// Goes on from what the table holds durably. The caller replays the entries after [`Shard::applied`].
    pub fn open(id: ShardId, table: Arc<dyn Table>) -> Result<Shard, ShardError> {
        let durable = table.durable();
        let row =
            table.get(&STATE_KEY, durable).map_err(|source| ShardError::Storage { shard: id, source })?;
        let state = match row {
            Some(row) => State::decode(row)
                .map_err(|malformed| ShardError::State { shard: id, reason: malformed.0 })?,
            None if durable == Index(0) => State::default(),
            None => return Err(ShardError::State { shard: id, reason: "it has no state row" }),
        };
        if state.applied != durable && !planted::is(Bug::AppliedApartFromData) {
            return Err(ShardError::Torn { shard: id, durable, applied: state.applied });
        }
        let revision = Arc::new(AtomicU64::new(state.revision.0));
        Ok(Shard { id, table, state, sealed: state.applied, marked: Index(0), revision })
    }

    /// Its number.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// The last entry applied.
    pub fn applied(&self) -> Index {
        self.state.applied
    }

    /// How many commands have changed something so far.
    pub fn revision(&self) -> Revision {
        self.state.revision
    }

    /// The stamp of the last applied entry that had one.
    pub fn clock(&self) -> HybridClock {
        self.state.clock
    }

    /// The last applied entry that held a digest mark; 0 if there was none since this was opened. Somebody will
    /// want to read there soon.
    pub fn marked(&self) -> Index {
        self.marked
    }

    /// Where its rows are.
    pub fn table(&self) -> &Arc<dyn Table> {
        &self.table
    }

    /// Answers questions while this goes on.
    pub fn reader(&self) -> ShardReader {
        ShardReader::new(self.id, Arc::clone(&self.table), Arc::clone(&self.revision))
    }

    /// Applies one committed entry whole, and returns one reply for each of its commands, in order. `copies`
    /// is what their receipts say.
    ///
    /// # Panics
    /// If the entry is not the next one, or not one that Ringfort makes: what is committed can't be refused.
    pub fn apply(&mut self, entry: &LogEntry, copies: u32) -> Vec<Reply> {
        assert_eq!(entry.index, self.state.applied.next(), "shard {}: entries are applied in order", self.id);
        self.state.applied = entry.index;
        if entry.kind != EntryKind::Normal || entry.payload.is_empty() {
            return Vec::new();
        }
        let Entry { clock, commands } = Entry::decode(entry.payload.clone()).unwrap_or_else(|malformed| {
            panic!("shard {}: committed entry {}: {malformed}", self.id, entry.index)
        });
        // A stamp out of order is a bug of the leader that made it. It is committed, though: refusing it would stop
        // all replicas for good, so outside of tests it is taken for what it should have been.
        debug_assert!(clock > self.state.clock, "shard {}: stamp of entry {}", self.id, entry.index);
        let clock = clock.max(self.state.clock);
        self.state.clock = clock;

        let before = self.state.revision;
        let replies = commands.iter().map(|command| self.count(command, entry, copies)).collect();
        let rows = final_rows(&commands, before, clock);
        if !rows.is_empty() {
            self.table.write(entry.index, &rows);
        }
        self.revision.store(self.state.revision.0, Ordering::Release);
        replies
    }

    /// Makes what has been applied so far ready to be flushed, together with the index that it stands for.
    pub fn seal(&mut self) {
        if self.state.applied > self.sealed {
            let mut state = self.state;
            if planted::is(Bug::AppliedApartFromData) {
                state.applied.0 -= 1;
            }
            self.table.write(self.state.applied, &[(Bytes::from_static(&STATE_KEY), Some(state.encode()))]);
            self.sealed = self.state.applied;
        }
        self.table.rotate();
    }

    fn count(&mut self, command: &Command, entry: &LogEntry, copies: u32) -> Reply {
        if changes(command) {
            self.state.revision.0 += 1;
        } else {
            self.marked = entry.index;
        }
        Reply::Written(Receipt {
            shard: self.id,
            term: entry.term,
            index: entry.index,
            revision: self.state.revision,
            copies,
        })
    }
}

fn changes(command: &Command) -> bool {
    !matches!(command, Command::Digest)
}

/// What each key is after all commands, in key order. All rows share one buffer: they are written together, and
/// go together when the memtable is flushed.
fn final_rows(commands: &[Command], before: Revision, clock: HybridClock) -> Vec<(Bytes, Option<Bytes>)> {
    let mut revision = before;
    let mut changes: Vec<(&Bytes, Option<&Bytes>, Revision)> = Vec::with_capacity(commands.len());
    let mut bytes = 0;
    for command in commands {
        let (key, value) = match command {
            Command::Put { key, value } => (key, Some(value)),
            Command::Delete { key } => (key, None),
            Command::Digest => continue,
        };
        revision.0 += 1;
        bytes += bytes_max(key, value.map_or(&[], |value| value));
        changes.push((key, value, revision));
    }
    // Of equal keys the later command comes first, and the others are dropped.
    changes.sort_unstable_by(|a, b| a.0.cmp(b.0).then(b.2.cmp(&a.2)));
    changes.dedup_by(|later, kept| later.0 == kept.0);

    let mut out = BytesMut::with_capacity(bytes);
    let row = |(key, value, revision): (&Bytes, Option<&Bytes>, Revision)| {
        put_key(&mut out, key);
        let key = out.split().freeze();
        let row = value.map(|value| {
            put_row(&mut out, revision, clock, value);
            out.split().freeze()
        });
        (key, row)
    };
    changes.into_iter().map(row).collect()
}
