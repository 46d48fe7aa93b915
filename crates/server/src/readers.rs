//! Reads from the tables, by whoever asks, and how far back they may go.
//!
//! A list stream reads every page of a shard at the index of its first page. So compaction keeps what the
//! scans of the last [`KEEP`] need, wherever those scans were asked from: the trace that each page leaves here
//! is what holds their versions, and a stream that pauses longer asks for a row now and then.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ringfort_shard::ShardReader;
use ringfort_types::{Code, Failure, Index, Reply, Request, ShardId};

use crate::answers::ReadAt;

/// How long an index stays readable after it was the newest, or was last read by a scan.
pub(crate) const KEEP: Duration = Duration::from_secs(30);
/// Most scans of this node's replicas that are remembered; beyond it, the oldest is forgotten.
const SCANS_MAX: usize = 64 * 1024;

/// All local shards' tables, once they are open.
#[derive(Debug, Default)]
pub(crate) struct Readers {
    shards: OnceLock<Vec<Option<ShardReader>>>,
    /// When each index was last read by a scan.
    scans: Mutex<BTreeMap<(ShardId, Index), Instant>>,
}

impl Readers {
    /// The tables are open. Happens once.
    pub(crate) fn open(&self, readers: impl IntoIterator<Item = ShardReader>) {
        let mut shards = Vec::new();
        for reader in readers {
            let at = reader.shard().0 as usize;
            shards.resize(shards.len().max(at + 1), None);
            shards[at] = Some(reader);
        }
        let _again = self.shards.set(shards);
    }

    /// Whether this read may take so long that it should not hold up other work on its thread.
    pub(crate) fn is_long(request: &Request) -> bool {
        !matches!(request, Request::Get { .. })
    }

    /// Does the read.
    pub(crate) fn query(&self, read: &ReadAt) -> Reply {
        if Self::is_long(&read.request) {
            self.trace(read.shard, read.at);
        }
        let reader = self.shards.get().and_then(|shards| shards.get(read.shard.0 as usize)?.as_ref());
        match reader {
            Some(reader) => reader.query(&read.request, read.at),
            None => {
                Reply::Failed(Failure::rejected(Code::Unavailable, "this node has no replica of that shard"))
            }
        }
    }

    /// The lowest index that a scan of this shard still reads.
    pub(crate) fn oldest_scan(&self, shard: ShardId) -> Option<Index> {
        let now = Instant::now();
        let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        scans.retain(|_, last| now.duration_since(*last) < KEEP);
        scans
            .range((shard, Index(0))..)
            .next()
            .filter(|((at, _), _)| *at == shard)
            .map(|((_, index), _)| *index)
    }

    fn trace(&self, shard: ShardId, at: Index) {
        let mut scans = self.scans.lock().unwrap_or_else(PoisonError::into_inner);
        if scans.len() >= SCANS_MAX && !scans.contains_key(&(shard, at)) {
            scans.pop_first();
        }
        scans.insert((shard, at), Instant::now());
    }
}
