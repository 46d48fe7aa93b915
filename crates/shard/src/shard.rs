//! The writer: applies committed entries.

use std::sync::Arc;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_storage::Table;
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::Malformed;
use ringfort_types::{
    Command, Configuration, ConfigurationChange, Entry, EntryKind, Epoch, HybridClock, Index, LogEntry,
    Replica, Reply, Revision, ShardId, Stamped, slot_of,
};

use crate::draft::Draft;
use crate::outcome::Outcome;
use crate::query::Newest;
use crate::row::{LAYOUT_KEY, LookupKey, PREFIX_BYTES, SAMPLE_KEY, STATE_KEY, is_there, key_of};
use crate::sample::Sample;
use crate::sessions::{SessionLimits, Sessions, Unread};
use crate::state::State;
use crate::{ShardError, ShardReader};

/// The index that a shard's table is durably at, and who belonged to its group there.
pub fn configuration_of(id: ShardId, table: &dyn Table) -> Result<(Index, Configuration), ShardError> {
    match state_of(id, table)? {
        Some(state) => Ok((state.applied, state.configuration)),
        None if planted::is(Bug::SnapshotInstalledHalf) => Ok((table.durable(), Configuration::default())),
        None => Err(no_state_row(id, table)),
    }
}

/// What a table's durable state row says, if it has one.
fn state_of(id: ShardId, table: &dyn Table) -> Result<Option<State>, ShardError> {
    let row = table.get(&STATE_KEY, table.durable());
    let row = row.map_err(|source| ShardError::Storage { shard: id, source })?;
    let unusable =
        |malformed: Malformed| ShardError::State { shard: id, path: table.place(), reason: malformed.0 };
    row.map(|row| State::decode(row).map_err(unusable)).transpose()
}

/// Refuses a table that has another shard's rows. Slots never change shards.
fn check_rows(id: ShardId, table: &dyn Table, layout: &Layout) -> Result<(), ShardError> {
    let keys = table.first_keys();
    let shards = keys.iter().filter_map(|key| key_of(key)).map(|key| layout.shard_of_slot(slot_of(key)));
    match shards.into_iter().find(|shard| *shard != id) {
        Some(other) => Err(ShardError::Misplaced { shard: id, path: table.place(), other }),
        None => Ok(()),
    }
}

fn no_state_row(id: ShardId, table: &dyn Table) -> ShardError {
    ShardError::State { shard: id, path: table.place(), reason: "it has no state row" }
}

/// What came of an entry.
#[derive(Debug, Default)]
pub struct Applied {
    /// One for each of its commands, in order.
    pub replies: Vec<Reply>,
    /// The layout, if it has changed.
    pub layout: Option<Arc<Layout>>,
    rows: Vec<(Bytes, Option<Bytes>)>,
}

impl Applied {
    /// The keys that it has changed, in order.
    pub fn changed(&self) -> impl Iterator<Item = Bytes> {
        self.rows.iter().map(|(key, _)| key.slice(PREFIX_BYTES..))
    }
}

/// One shard's state, and the only one who may write its table.
#[derive(Debug)]
pub struct Shard {
    id: ShardId,
    table: Arc<dyn Table>,
    state: State,
    sessions: Sessions,
    /// `None` if the table was begun by a version that kept none.
    sample: Option<Sample>,
    /// Where the state row was last written. The table takes one value of a key for each index.
    sealed: Index,
    /// The last entry that held a digest mark since this was opened.
    marked: Index,
    /// The meta group's alone: the cluster's layout as of the last entry applied.
    layout: Option<Arc<Layout>>,
    /// The layout that was last written.
    layout_sealed: Epoch,
    /// Part of `state` for the readers. Raised after the rows are written.
    newest: Arc<Newest>,
}

impl Shard {
    /// Goes on from what the table holds durably; a table without anything has this configuration. The caller replays the entries
    /// after [`Shard::applied`].
    pub fn open(
        id: ShardId,
        table: Arc<dyn Table>,
        born: &Configuration,
        limits: SessionLimits,
    ) -> Result<Shard, ShardError> {
        let durable = table.durable();
        let unusable = |reason| ShardError::State { shard: id, path: table.place(), reason };
        let state = match state_of(id, &*table)? {
            Some(state) => state,
            None if durable == Index(0) => State { configuration: born.clone(), ..State::default() },
            None => return Err(no_state_row(id, &*table)),
        };
        if state.applied != durable && !planted::is(Bug::AppliedApartFromData) {
            return Err(ShardError::Torn { shard: id, path: table.place(), durable, applied: state.applied });
        }
        let sessions = Sessions::open(&*table, durable, limits).map_err(|unread| match unread {
            Unread::Storage(source) => ShardError::Storage { shard: id, source },
            Unread::Malformed(malformed) => unusable(malformed.0),
        })?;
        let row = table.get(&SAMPLE_KEY, durable);
        let sample = match row.map_err(|source| ShardError::Storage { shard: id, source })? {
            Some(row) => Some(Sample::decode(row).map_err(|malformed| unusable(malformed.0))?),
            // A table without any keys has none either.
            None => (state.revision == Revision(0)).then(Sample::begin),
        };
        let newest = Arc::<Newest>::default();
        newest.set(state.applied, state.revision, state.clock);
        let sealed = state.applied;
        let (layout, layout_sealed) = (None, Epoch(0));
        let marked = Index(0);
        Ok(Shard { id, table, state, sessions, sample, sealed, marked, layout, layout_sealed, newest })
    }

    /// The same for any shard of a cluster. The meta group has a layout besides: a table of its without anything has the one with which
    /// the cluster was born. (A table that has something has a layout, too.)
    pub fn open_of_cluster(
        id: ShardId,
        table: Arc<dyn Table>,
        born: &Configuration,
        born_layout: Option<&Arc<Layout>>,
        limits: SessionLimits,
    ) -> Result<Shard, ShardError> {
        if let Some(layout) = born_layout {
            check_rows(id, &*table, layout)?;
        }
        let mut shard = Shard::open(id, table, born, limits)?;
        if id != ShardId::META {
            return Ok(shard);
        }
        let table = Arc::clone(&shard.table);
        let row = table.get(&LAYOUT_KEY, shard.sealed);
        let row = row.map_err(|source| ShardError::Storage { shard: id, source })?;
        let unusable = |reason| ShardError::State { shard: id, path: table.place(), reason };
        match (row, born_layout) {
            (Some(row), _) => {
                let layout = Layout::decode(row).map_err(|malformed| unusable(malformed.0))?;
                shard.layout_sealed = layout.epoch;
                shard.layout = Some(Arc::new(layout));
            }
            (None, Some(born)) if shard.sealed == Index(0) => shard.layout = Some(Arc::clone(born)),
            (None, _) => return Err(unusable("it has no layout")),
        }
        Ok(shard)
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

    /// About how many keys it has: exact if they are few, and never mistaken by what is overwritten.
    pub fn keys_estimate(&self) -> u64 {
        let counted = self.table.rows_estimate();
        self.sample.as_ref().map_or(counted, |sample| sample.estimate(counted))
    }

    /// Who belongs to its group, as of the last entry applied.
    pub fn configuration(&self) -> &Configuration {
        &self.state.configuration
    }

    /// The cluster's layout, as of the last entry applied. Only the meta group has it.
    pub fn layout(&self) -> Option<&Arc<Layout>> {
        self.layout.as_ref()
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
        ShardReader::new(self.id, Arc::clone(&self.table), Arc::clone(&self.newest))
    }

    /// A hash of what is remembered of all sessions: equal on all replicas that have applied the same entries.
    pub fn sessions_hash(&self) -> u64 {
        self.sessions.hash()
    }

    /// Applies one committed entry whole. `copies` is what the receipts say. After an error, which says that a row or the entry can't be
    /// read, the table is as it was, and nothing more can be applied.
    ///
    /// # Panics
    /// If the entry is not the next one, or a change of the configuration that can't follow: what is committed can't be refused.
    pub fn apply(&mut self, entry: &LogEntry, copies: u32) -> Result<Applied, ShardError> {
        assert_eq!(entry.index, self.state.applied.next(), "shard {}: entries are applied in order", self.id);
        if entry.kind == EntryKind::Configuration {
            self.state.configuration = self.reconfigured(entry)?;
        }
        if entry.kind == EntryKind::Configuration || entry.payload.is_empty() {
            self.state.applied = entry.index;
            self.newest.set(entry.index, self.state.revision, self.state.clock);
            return Ok(Applied::default());
        }
        let Entry { clock, commands } =
            Entry::decode(entry.payload.clone()).map_err(|malformed| self.unread(entry, malformed))?;
        // A stamp out of order is a bug of the leader that made it. It is committed, though: refusing it would stop
        // all replicas for good, so outside of tests it is taken for what it should have been.
        debug_assert!(clock > self.state.clock, "shard {}: stamp of entry {}", self.id, entry.index);
        let clock = clock.max(self.state.clock);
        let before = Index(entry.index.0 - 1);
        let table = Arc::clone(&self.table);
        let (revision, layout) = (self.state.revision, self.layout.clone());
        let mut draft = Draft::new(self.id, &*table, before, clock, revision, commands.len(), layout);
        let replies = commands
            .iter()
            .map(|stamped| self.execute(stamped, entry, clock, copies, &mut draft))
            .collect::<Result<_, _>>()?;
        (self.state.applied, self.state.clock, self.state.revision) = (entry.index, clock, draft.revision());
        let layout = draft.layout().filter(|next| self.epoch() < next.epoch).cloned();
        if let Some(layout) = &layout {
            self.layout = Some(Arc::clone(layout));
        }
        let rows = draft.into_rows();
        if let Some(sample) = &mut self.sample {
            for (key, row) in &rows {
                sample.set(&key[PREFIX_BYTES..], is_there(row.as_ref()));
            }
        }
        if !rows.is_empty() {
            self.table.write(entry.index, &rows);
        }
        self.newest.set(entry.index, self.state.revision, clock);
        Ok(Applied { replies, layout, rows })
    }

    /// The layout's version; 0 if there is none.
    fn epoch(&self) -> Epoch {
        self.layout.as_ref().map_or(Epoch(0), |layout| layout.epoch)
    }

    /// The configuration after this entry, which changes it.
    fn reconfigured(&self, entry: &LogEntry) -> Result<Configuration, ShardError> {
        let change = ConfigurationChange::decode(entry.payload.clone());
        let change = change.map_err(|malformed| self.unread(entry, malformed))?;
        let next = self.state.configuration.after(&change, entry.index);
        Ok(next.unwrap_or_else(|error| {
            panic!("shard {}: committed entry {}: {change:?}: {error}", self.id, entry.index)
        }))
    }

    fn unread(&self, entry: &LogEntry, malformed: Malformed) -> ShardError {
        ShardError::Unread { shard: self.id, index: entry.index, reason: malformed.0 }
    }

    /// Does a command, unless its session says that it was done before or must not be.
    fn execute(
        &mut self,
        stamped: &Stamped,
        entry: &LogEntry,
        clock: HybridClock,
        copies: u32,
        draft: &mut Draft<'_>,
    ) -> Result<Reply, ShardError> {
        let Stamped { stamp, command } = stamped;
        if *command == Command::Digest {
            self.marked = entry.index;
        }
        let mut run = || Outcome::of(command, draft, entry.term, entry.index);
        let Some(stamp) = stamp else { return Ok(run()?.reply(self.id, command, copies)) };
        Ok(match self.sessions.judge(stamp, clock) {
            Err(failure) => Reply::Failed(failure),
            Ok(Some(outcome)) => {
                self.sessions.touch(stamp, clock);
                outcome.reply(self.id, command, copies)
            }
            Ok(None) => {
                let outcome = run()?;
                let reply = outcome.reply(self.id, command, copies);
                self.sessions.remember(stamp, clock, outcome);
                reply
            }
        })
    }

    /// Reads all that the table has, as of the last entry applied, and counts the keys.
    pub fn read_all(&self) -> Result<u64, ShardError> {
        let unreadable = |source| ShardError::Storage { shard: self.id, source };
        let mut keys = 0;
        for row in self.table.rows(self.state.applied).map_err(unreadable)? {
            let (key, row) = row.map_err(unreadable)?;
            keys += u64::from(key.starts_with(&LookupKey::new(b"")) && is_there(Some(&row)));
        }
        Ok(keys)
    }

    /// Goes on in a new group, of these voters, that knows nothing of the old one: as if an entry of its own, without any command, had put
    /// them in force.
    pub fn begin_anew(&mut self, voters: Vec<Replica>) {
        self.state.applied = self.state.applied.next();
        self.state.configuration = Configuration { at: self.state.applied, ..Configuration::born(voters) };
        self.newest.set(self.state.applied, self.state.revision, self.state.clock);
    }

    /// Makes what has been applied so far ready to be flushed, together with the index that it stands for.
    pub fn seal(&mut self) {
        if self.state.applied > self.sealed {
            let mut state = self.state.clone();
            if planted::is(Bug::AppliedApartFromData) {
                state.applied.0 -= 1;
            }
            let mut rows = vec![(Bytes::from_static(&STATE_KEY), Some(state.encode()))];
            self.sessions.take_rows(&mut rows);
            if let Some(row) = self.sample.as_mut().and_then(Sample::take_row) {
                rows.push((Bytes::from_static(&SAMPLE_KEY), Some(row)));
            }
            if let Some(layout) = self.layout.as_ref().filter(|layout| layout.epoch > self.layout_sealed) {
                rows.push((Bytes::from_static(&LAYOUT_KEY), Some(layout.encode())));
                self.layout_sealed = layout.epoch;
            }
            self.table.write(self.state.applied, &rows);
            self.sealed = self.state.applied;
        }
        self.table.rotate();
    }
}
