//! Opening what is on disk, with a word now and then when it takes long.

use std::time::{Duration, Instant};

use ringfort_node::recovery::{Recovered, recover};
use ringfort_shard::SessionLimits;
use ringfort_storage::{DataDir, LogOptions, Tables};
use ringfort_types::ShardId;

use crate::StartError;

/// A start that takes longer than this says so, and again each time.
const PATIENCE: Duration = Duration::from_secs(1);

/// Opens the log and these shards, and brings the shards up to date.
pub(crate) fn open(
    data: &DataDir,
    tables: &dyn Tables,
    cluster: u64,
    wanted: &[ShardId],
    options: LogOptions,
) -> Result<Recovered, StartError> {
    let started = Instant::now();
    let mut said = started;
    let sessions = SessionLimits::default();
    let found = recover(data, tables, cluster, wanted, options, sessions, &mut |progress| {
        if progress.done.is_multiple_of(1024) && said.elapsed() > PATIENCE {
            said = Instant::now();
            let (done, total) = (progress.done, progress.total);
            tracing::info!("replaying the log: {} % ({done} of {total} entries)", done * 100 / total);
        }
    })?;
    if started.elapsed() > PATIENCE {
        tracing::info!("opened {} shards in {:.1} s", found.shards.len(), started.elapsed().as_secs_f64());
    }
    Ok(found)
}
