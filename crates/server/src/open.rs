//! From what is on disk to shards that are up to date.
//!
//! The log is opened, then each shard's table; what the log has beyond a table, up to what is known to be
//! committed, is applied in one pass over the log. Commit is the larger of what the log says and what the table
//! has: a table never has what is not committed, and the stored commit index may lag (DESIGN §6).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ringfort_node::Opened;
use ringfort_shard::Shard;
use ringfort_storage::{DataDir, Log, LogOptions, Tables};
use ringfort_types::{Index, ShardId};

use crate::StartError;

/// A start that takes longer than this says so, and again each time.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was found.
pub(crate) struct Found {
    pub(crate) log: Log,
    pub(crate) shards: Vec<Shard>,
    pub(crate) opened: BTreeMap<ShardId, Opened>,
}

/// Opens the log and these shards, and brings the shards up to date.
pub(crate) fn open(
    data: &DataDir,
    tables: &dyn Tables,
    cluster: u64,
    wanted: &[ShardId],
) -> Result<Found, StartError> {
    let started = Instant::now();
    let (log, mut recovered) = data.open_log(cluster, LogOptions::default())?;
    let mut shards = BTreeMap::new();
    let mut opened = BTreeMap::new();
    let mut behind = BTreeMap::new();
    for id in wanted {
        let shard = Shard::open(*id, tables.open(*id)?)?;
        let found = recovered.remove(id);
        let (mut hard_state, terms, last) =
            found.map(|found| (found.hard_state, found.terms, found.last)).unwrap_or_default();
        let applied = shard.applied();
        if applied > last {
            return Err(StartError::LogBehind { shard: id.0, last: last.0, applied: applied.0 });
        }
        hard_state.commit = hard_state.commit.max(applied);
        if hard_state.commit > applied {
            behind.insert(*id, (applied, hard_state.commit));
        }
        opened.insert(*id, Opened { hard_state, terms, last, ..Opened::default() });
        shards.insert(*id, shard);
    }
    let reader = log.reader();
    if !behind.is_empty() {
        let total: u64 = behind.values().map(|(after, through)| through.0 - after.0).sum();
        let (mut done, mut said) = (0u64, started);
        reader.replay(&behind, &mut |id, entry| {
            if let Some(shard) = shards.get_mut(&id) {
                shard.apply(&entry, 0);
            }
            done += 1;
            if done.is_multiple_of(1024) && said.elapsed() > PATIENCE {
                said = Instant::now();
                tracing::info!("replaying the log: {done} of {total} entries");
            }
            Ok(())
        })?;
    }
    for (id, found) in &mut opened {
        let shard = &shards[id];
        found.applied = shard.applied();
        found.revision = shard.revision();
        found.clock = shard.clock();
        if found.last > found.applied {
            found.tail = tail(&reader, *id, found.applied.next(), found.last.next())?;
        }
    }
    if started.elapsed() > PATIENCE {
        tracing::info!("opened {} shards in {:.1} s", shards.len(), started.elapsed().as_secs_f64());
    }
    Ok(Found { log, shards: shards.into_values().collect(), opened })
}

/// The entries `from..to`, all of them.
fn tail(
    reader: &ringfort_storage::LogReader,
    shard: ShardId,
    from: Index,
    to: Index,
) -> Result<Vec<ringfort_types::LogEntry>, StartError> {
    let mut entries = Vec::with_capacity((to.0 - from.0) as usize);
    let mut next = from;
    while next < to {
        let more = reader.entries(shard, next, to, usize::MAX)?;
        next = more.last().map_or(to, |entry| entry.index.next());
        entries.extend(more);
    }
    Ok(entries)
}
