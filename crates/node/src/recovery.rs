//! From what is on disk to shards that are up to date. The same for every driver.
//!
//! The log is opened, then each shard's table; what the log has beyond a table, up to what is known to be
//! committed, is applied in one pass over the log. Which generation of a table counts is in the log too, and others
//! are removed. Commit is the larger of what the log says and what the table
//! has: a table never has what is not committed, and the stored commit index may lag (DESIGN §6).

use std::collections::BTreeMap;

use ringfort_shard::{SessionLimits, Shard, ShardError};
use ringfort_storage::{DataDir, Log, LogOptions, LogReader, StorageError, Tables};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Index, LogEntry, PeerId, ShardId};

use crate::Opened;

/// What was found.
#[derive(Debug)]
pub struct Recovered {
    /// Ready for the next batch.
    pub log: Log,
    /// With everything applied that is known to be committed, in order of their numbers.
    pub shards: BTreeMap<ShardId, Shard>,
    /// For [`Event::Opened`](crate::Event::Opened).
    pub opened: BTreeMap<ShardId, Opened>,
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
        "the log ends at index {last} of shard {shard}, but its table is at {applied}: part of the log is \
         missing; restore the files, or remove this node from its cluster and start it with a new data directory"
    )]
    LogBehind {
        /// Whose.
        shard: ShardId,
        /// The log's last index.
        last: Index,
        /// The table's.
        applied: Index,
    },
    /// A table lacks what the log has let go of.
    #[error(
        "the log of shard {shard} begins after index {base}, but its table is at {applied} only: part of the table is \
         missing; restore the files, or remove this node from its cluster and start it with a new data directory"
    )]
    TableBehind {
        /// Whose.
        shard: ShardId,
        /// The last index that the log has let go of.
        base: Index,
        /// The table's.
        applied: Index,
    },
    /// The log lacks committed entries.
    #[error(
        "shard {shard} is known to be committed up to index {commit}, but the log brings it to {applied} only: part of \
         the log is missing; restore the files, or remove this node from its cluster and start it with a new data \
         directory"
    )]
    LogShort {
        /// Whose.
        shard: ShardId,
        /// What is known to be committed.
        commit: Index,
        /// How far the entries go.
        applied: Index,
    },
}

/// Opens the log and these shards, and brings the shards up to date. `each` hears of every entry that is
/// applied. `sessions` is the same on all nodes of a cluster.
pub fn recover(
    data: &DataDir,
    tables: &dyn Tables,
    cluster: u64,
    wanted: &[ShardId],
    options: LogOptions,
    sessions: SessionLimits,
    each: &mut dyn FnMut(Progress<'_>),
) -> Result<Recovered, RecoveryError> {
    let (log, mut stored) = data.open_log(cluster, options)?;
    let mut shards = BTreeMap::new();
    let mut opened = BTreeMap::new();
    let mut behind = BTreeMap::new();
    for id in wanted {
        let mut found = Opened::default();
        if let Some(stored) = stored.remove(id) {
            (found.hard_state, found.base) = (stored.hard_state, stored.base);
            (found.terms, found.last) = (stored.terms, stored.last);
        }
        let generation = found.base.generation;
        tables.keep_generation(*id, generation)?;
        let shard = Shard::open(*id, tables.open_generation(*id, generation)?, sessions)?;
        let applied = shard.applied();
        if applied < found.base.index {
            return Err(RecoveryError::TableBehind { shard: *id, base: found.base.index, applied });
        }
        if applied > found.last {
            return Err(RecoveryError::LogBehind { shard: *id, last: found.last, applied });
        }
        found.hard_state.commit = found.hard_state.commit.max(applied);
        if planted::is(Bug::VoteNotPersisted) {
            found.hard_state.vote = PeerId(0);
        }
        if found.hard_state.commit > applied {
            behind.insert(*id, (applied, found.hard_state.commit));
        }
        opened.insert(*id, found);
        shards.insert(*id, shard);
    }
    let reader = log.reader();
    replay(&reader, &behind, &mut shards, each)?;
    for (id, found) in &mut opened {
        let shard = &shards[id];
        found.applied = shard.applied();
        if found.applied < found.hard_state.commit {
            let (commit, applied) = (found.hard_state.commit, found.applied);
            return Err(RecoveryError::LogShort { shard: *id, commit, applied });
        }
        found.revision = shard.revision();
        found.clock = shard.clock();
        found.tail = tail(&reader, *id, found.applied.next(), found.last.next())?;
    }
    Ok(Recovered { log, shards, opened })
}

fn replay(
    reader: &LogReader,
    behind: &BTreeMap<ShardId, (Index, Index)>,
    shards: &mut BTreeMap<ShardId, Shard>,
    each: &mut dyn FnMut(Progress<'_>),
) -> Result<(), RecoveryError> {
    if behind.is_empty() {
        return Ok(());
    }
    let total = behind.values().map(|(after, through)| through.0 - after.0).sum();
    let mut done = 0;
    reader.replay(behind, &mut |id, mut entry| {
        if planted::is(Bug::TableNotReplayed) {
            entry.payload.clear();
        }
        let shard = shards.get_mut(&id).expect("only what was opened is replayed");
        shard.apply(&entry, 0);
        done += 1;
        each(Progress { done, total, shard: id, entry: &entry });
        Ok(())
    })?;
    Ok(())
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
