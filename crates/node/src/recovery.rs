//! From what is on disk to shards that are up to date, each as soon as it is. The same for every driver.
//!
//! [`begin`] opens the log, then each shard's table, and gives the shards that need nothing more. What the log has
//! beyond the other tables, up to what is known to be committed, is applied by [`Replay`], in one pass over the log,
//! each shard from its own table's index on; a shard is ready once it has reached its commit. Which generation of a
//! table counts is in the log too, and others are removed, all of them before anything is ready. Commit is the larger
//! of what the log says and what the table has: a table never has what is not committed, and the stored commit index
//! may lag (DESIGN §6).
//!
//! While a replay goes on, the log may be written to for the shards that are ready, and may let go of old segments as
//! long as it counts the others' tables for nothing: then all that these need is copied, never dropped
//! (`storage`'s `Log::collect`).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use ringfort_ring::Layout;
use ringfort_shard::{SessionLimits, Shard, ShardError};
use ringfort_storage::{
    DataDir, Log, LogOptions, LogReader, NEXT_STEP, RecoveredShard, StorageError, Tables,
};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Configuration, Index, LogEntry, NodeId, PeerId, ShardId};

use crate::{FoundReplica, Opened};

/// Of no table.
const NO_GENERATION: u64 = u64::MAX;

/// What is to be opened.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Whose it is.
    pub me: NodeId,
    /// What the cluster was born with: the meta group begins with it.
    pub born: &'a Arc<Layout>,
    /// All shards, each with the configuration that it was born with.
    pub shards: &'a BTreeMap<ShardId, Configuration>,
}

/// What was found.
#[derive(Debug)]
pub struct Begun {
    /// Ready for the next batch.
    pub log: Log,
    /// For [`Event::Replicas`](crate::Event::Replicas).
    pub replicas: BTreeMap<ShardId, FoundReplica>,
    /// The shards whose tables have all that is known to be committed, in order of their numbers.
    pub ready: Vec<Ready>,
    /// The others.
    pub replay: Replay,
    /// Those whose tables are damaged, each with what is wrong. Nothing of them is opened.
    pub damaged: Vec<(ShardId, RecoveryError)>,
}

/// A shard with everything applied that is known to be committed.
#[derive(Debug)]
pub struct Ready {
    /// The shard.
    pub shard: Shard,
    /// For [`Event::Opened`](crate::Event::Opened).
    pub opened: Opened,
}

/// What a replay has come to.
#[derive(Debug)]
pub enum Step<'a> {
    /// An entry is applied.
    Applied(Progress<'a>),
    /// A shard is up to date. It is the driver's from now on.
    Ready(Box<Ready>),
    /// A shard can't be brought up to date: its table is damaged. It is not open, and the others go on.
    Damaged(ShardId, RecoveryError),
}

/// How far a replay is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// Entries applied so far.
    pub done: u64,
    /// Of so many.
    pub total: u64,
    /// The shard of the last one.
    pub shard: ShardId,
    /// The last one.
    pub entry: &'a LogEntry,
}

/// The data can't be brought up to date.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The log or a table can't be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// A shard's state can't be used.
    #[error(transparent)]
    Shard(#[from] ShardError),
    /// A table is ahead of the log that made it.
    #[error(
        "the log in {log} ends at index {last} of shard {shard}, but its table in {table} is at {applied}: the log has lost \
         its end, and with it what this node has acknowledged; put the directory back as it was. {}",
        NEXT_STEP
    )]
    LogBehind {
        /// The log's directory.
        log: String,
        /// The table's.
        table: String,
        /// Whose.
        shard: ShardId,
        /// The log's last index.
        last: Index,
        /// The table's.
        applied: Index,
    },
    /// A table lacks what the log has let go of.
    #[error(
        "the table of shard {shard} in {table} is at index {applied}, but the log in {log} begins after index {base}: part \
         of the table is missing; put its directory back as it was. {}",
        NEXT_STEP
    )]
    TableBehind {
        /// The log's directory.
        log: String,
        /// The table's.
        table: String,
        /// Whose.
        shard: ShardId,
        /// The last index that the log has let go of.
        base: Index,
        /// The table's.
        applied: Index,
    },
    /// Somebody always decides.
    #[error(
        "the table of shard {shard} in {table} is damaged: its state row names no voter of the shard's group; put the \
         directory back as it was. {}",
        NEXT_STEP
    )]
    NobodyDecides {
        /// Whose.
        shard: ShardId,
        /// The table's directory.
        table: String,
    },
    /// It was found out before that this replica had acknowledged more than it has.
    #[error(
        "the log in {log} ends at index {last} of shard {shard}, but this node has acknowledged everything up to {known}: its data \
         directory is older than it was, or has lost the end of its log. {}",
        NEXT_STEP
    )]
    Lost {
        /// The log's directory.
        log: String,
        /// Whose.
        shard: ShardId,
        /// The log's last index.
        last: Index,
        /// What it has acknowledged.
        known: Index,
    },
    /// The log lacks committed entries.
    #[error(
        "shard {shard} is known to be committed up to index {commit}, but the log in {log} brings it to {applied} only: the \
         log has lost its end, and with it what this node has acknowledged; put the directory back as it was. {}",
        NEXT_STEP
    )]
    LogShort {
        /// The log's directory.
        log: String,
        /// Whose.
        shard: ShardId,
        /// What is known to be committed.
        commit: Index,
        /// How far the entries go.
        applied: Index,
    },
}

impl RecoveryError {
    /// Whether nothing is damaged, and another version of Ringfort can go on: [`Event::Unread`](crate::Event::Unread).
    pub fn is_unread(&self) -> bool {
        matches!(self, RecoveryError::Shard(error) if error.is_unread())
    }

    /// Whether only the replica of one shard can't take part. A log that has lost its end is no such case: what is lost may
    /// be of every shard.
    fn is_of_one_table(&self) -> bool {
        match self {
            RecoveryError::Storage(error) => error.is_damage(),
            RecoveryError::Shard(error) => error.is_damage(),
            RecoveryError::TableBehind { .. }
            | RecoveryError::NobodyDecides { .. }
            | RecoveryError::Lost { .. } => true,
            RecoveryError::LogBehind { .. } | RecoveryError::LogShort { .. } => false,
        }
    }
}

/// Opens the log and this node's shards. `sessions` is the same on all nodes of a cluster.
pub fn begin(
    data: &DataDir,
    tables: &dyn Tables,
    wanted: &Wanted<'_>,
    options: LogOptions,
    sessions: SessionLimits,
) -> Result<Begun, RecoveryError> {
    let (log, mut stored) = data.open_log(wanted.born.cluster, options)?;
    let reader = log.reader();
    let (mut ready, mut behind, mut damaged) = (Vec::new(), BTreeMap::new(), Vec::new());
    let me = wanted.me;
    let mut replicas = BTreeMap::new();
    for (id, born) in wanted.shards {
        let known = stored.get(id);
        let peer = known.and_then(|known| known.replica).or_else(|| born.peer_on(me));
        let is_gone = known.is_some_and(|known| known.is_gone);
        let generation = known.map_or(0, |known| known.base.generation);
        if let Some(peer) = peer {
            replicas.insert(*id, FoundReplica { peer, is_gone, generation });
        }
    }
    for id in wanted.shards.keys() {
        if replicas.get(id).is_none_or(|found| found.is_gone) {
            // Of a replica that was here only its table may be left.
            tables.keep_generation(*id, NO_GENERATION)?;
            continue;
        }
        let found = match open_shard(data, tables, *id, stored.remove(id), wanted, sessions) {
            Ok(found) => found,
            Err(error) if error.is_of_one_table() => {
                damaged.push((*id, error));
                continue;
            }
            Err(error) => return Err(error),
        };
        if found.left() > 0 {
            behind.insert(*id, found);
        } else {
            match found.finish(&reader) {
                Ok(found) => ready.push(found),
                Err(error) if error.is_of_one_table() => damaged.push((*id, error)),
                Err(error) => return Err(error),
            }
        }
    }
    let total = behind.values().map(Ready::left).sum();
    Ok(Begun { log, replicas, ready, replay: Replay { reader, behind, done: 0, total }, damaged })
}

/// Opens a shard's table, which may be behind what is known to be committed.
fn open_shard(
    data: &DataDir,
    tables: &dyn Tables,
    id: ShardId,
    stored: Option<RecoveredShard>,
    wanted: &Wanted<'_>,
    sessions: SessionLimits,
) -> Result<Ready, RecoveryError> {
    if let Some(RecoveredShard { lost: Some(known), last, .. }) = stored {
        return Err(RecoveryError::Lost { log: data.log_place(), shard: id, last, known });
    }
    let born = wanted.shards[&id].peer_on(wanted.me).unwrap_or_default();
    let mut found = Opened { peer: born, ..Opened::default() };
    if let Some(stored) = stored {
        found.peer = stored.replica.unwrap_or(born);
        (found.hard_state, found.base) = (stored.hard_state, stored.base);
        (found.terms, found.last) = (stored.terms, stored.last);
    }
    let generation = found.base.generation;
    tables.keep_generation(id, generation)?;
    let table = tables.open_generation(id, generation)?;
    let shard = Shard::open_of_cluster(id, table, &wanted.shards[&id], Some(wanted.born), sessions)?;
    let applied = shard.applied();
    let (log, table) = (data.log_place(), shard.table().place());
    if shard.configuration().voters.is_empty() {
        return Err(RecoveryError::NobodyDecides { shard: id, table });
    }
    if applied < found.base.index {
        return Err(RecoveryError::TableBehind { log, table, shard: id, base: found.base.index, applied });
    }
    if applied > found.last {
        return Err(RecoveryError::LogBehind { log, table, shard: id, last: found.last, applied });
    }
    found.hard_state.commit = found.hard_state.commit.max(applied);
    if found.hard_state.commit > found.last {
        let (commit, applied) = (found.hard_state.commit, found.last);
        return Err(RecoveryError::LogShort { log, shard: id, commit, applied });
    }
    if planted::is(Bug::VoteNotPersisted) {
        found.hard_state.vote = PeerId(0);
    }
    Ok(Ready { shard, opened: found })
}

/// Shards that are being brought up to date.
#[derive(Debug)]
pub struct Replay {
    reader: LogReader,
    behind: BTreeMap<ShardId, Ready>,
    done: u64,
    total: u64,
}

impl Replay {
    /// Whether all shards are ready.
    pub fn is_done(&self) -> bool {
        self.behind.is_empty()
    }

    /// The shards that are not ready.
    pub fn shards(&self) -> impl Iterator<Item = &Shard> {
        self.behind.values().map(|behind| &behind.shard)
    }

    /// Goes on until all shards are ready, or `each` breaks, which hears of every step. What it has broken off can be
    /// gone on with.
    pub fn go_on(&mut self, each: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>) -> Result<(), RecoveryError> {
        let Replay { reader, behind, done, total } = self;
        let range = |behind: &Ready| (behind.shard.applied(), behind.opened.hard_state.commit);
        let wanted = behind.iter().map(|(id, behind)| (*id, range(behind))).collect();
        let mut failed: Option<RecoveryError> = None;
        reader.replay(&wanted, &mut |id, mut entry| {
            if planted::is(Bug::TableNotReplayed) {
                entry.payload.clear();
            }
            let Some(found) = behind.get_mut(&id) else {
                // It has turned out to be damaged.
                return ControlFlow::Continue(());
            };
            if let Err(error) = found.shard.apply(&entry, 0) {
                if !error.is_damage() {
                    failed = Some(error.into());
                    return ControlFlow::Break(());
                }
                *total -= found.left();
                behind.remove(&id);
                return each(Step::Damaged(id, error.into()));
            }
            let is_ready = found.left() == 0;
            *done += 1;
            let mut flow =
                each(Step::Applied(Progress { done: *done, total: *total, shard: id, entry: &entry }));
            if is_ready && let Some(shard) = behind.remove(&id) {
                let step = match shard.finish(reader) {
                    Ok(ready) => Step::Ready(Box::new(ready)),
                    Err(error) if error.is_of_one_table() => Step::Damaged(id, error),
                    Err(error) => {
                        failed = Some(error);
                        return ControlFlow::Break(());
                    }
                };
                if each(step).is_break() {
                    flow = ControlFlow::Break(());
                }
            }
            flow
        })?;
        failed.map_or(Ok(()), Err)
    }
}

impl Ready {
    /// Entries that its table lacks.
    fn left(&self) -> u64 {
        self.opened.hard_state.commit.0 - self.shard.applied().0
    }

    /// Everything is applied: reads what comes after it.
    fn finish(mut self, reader: &LogReader) -> Result<Ready, RecoveryError> {
        let Ready { shard, opened } = &mut self;
        (opened.applied, opened.revision, opened.clock) = (shard.applied(), shard.revision(), shard.clock());
        opened.sizes = (shard.keys_estimate(), shard.table().bytes_estimate());
        opened.configuration = shard.configuration().clone();
        opened.tail = tail(reader, shard.id(), opened.applied.next(), opened.last.next())?;
        Ok(self)
    }
}

/// The entries `from..to`, all of them.
fn tail(reader: &LogReader, shard: ShardId, from: Index, to: Index) -> Result<Vec<LogEntry>, StorageError> {
    let mut entries = Vec::new();
    let mut next = from;
    while next < to {
        let more = reader.entries(shard, next, to, usize::MAX)?;
        next = more.last().map_or(to, |entry| entry.index.next());
        entries.extend(more);
    }
    Ok(entries)
}
