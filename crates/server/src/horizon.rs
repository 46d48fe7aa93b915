//! How far back each shard's table stays readable.
//!
//! A read names an index, and a table keeps what reads at that index need only as long as it is told to: old
//! versions of rows on disk, and flushed memtables in memory. So the horizon is kept close. It is where the shard
//! was [`RECENT`] ago, for reads that were given their index and are on their way to the table, but no later than
//! any index that is *held*: one that a scan has used within [`HELD`], or that a digest mark has named since.
//!
//! Both kinds are noticed where they pass, on every node that has the shard: a scan leaves its trace with each
//! page, a mark as it is applied. A list stream that pauses longer asks for a row now and then (`gate::rows`).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfort_types::{Index, ShardId};

/// How long an index stays readable after it was the newest.
pub(crate) const RECENT: Duration = Duration::from_millis(500);
/// How long it stays readable after a scan has used it, or a mark has named it.
pub(crate) const HELD: Duration = Duration::from_secs(30);
/// Most indexes that are held; beyond it, one of the lowest shard's is given up.
const HELD_MAX: usize = 64 * 1024;

/// The horizons of all local shards.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Applied indexes by shard number, oldest first; one set for each time that they were remembered.
    applied: VecDeque<(Instant, Vec<Index>)>,
    /// When each index was last asked for.
    held: BTreeMap<(ShardId, Index), Instant>,
}

impl State {
    /// Forgets what was remembered earlier than reads may still ask for: the first set left is the newest that old.
    fn forget(&mut self, now: Instant) {
        while self.applied.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= RECENT) {
            self.applied.pop_front();
        }
    }
}

impl Horizon {
    /// Remembers how far each shard is now; its place in the list is its number.
    pub(crate) fn remember(&self, applied: Vec<Index>) {
        let now = Instant::now();
        let mut state = self.state();
        state.applied.push_back((now, applied));
        state.forget(now);
    }

    /// Keeps this index readable for a while from now on.
    pub(crate) fn hold(&self, shard: ShardId, at: Index) {
        let mut state = self.state();
        if state.held.len() >= HELD_MAX && !state.held.contains_key(&(shard, at)) {
            state.held.pop_first();
        }
        state.held.insert((shard, at), Instant::now());
    }

    /// Gives up all that is held: what it keeps in memory has become too much.
    pub(crate) fn let_go(&self) -> usize {
        std::mem::take(&mut self.state().held).len()
    }

    /// The lowest index at which this shard has to be readable.
    pub(crate) fn keep_from(&self, shard: ShardId) -> Index {
        let now = Instant::now();
        let mut state = self.state();
        state.held.retain(|_, last| now.duration_since(*last) < HELD);
        state.forget(now);
        let aged = state.applied.front().and_then(|(_, applied)| applied.get(shard.0 as usize));
        let aged = aged.copied().unwrap_or_default();
        let oldest = state.held.range((shard, Index(0))..=(shard, Index(u64::MAX))).next();
        oldest.map_or(aged, |((_, held), _)| aged.min(*held))
    }

    /// An applied index of this shard not long ago.
    pub(crate) fn newest(&self, shard: ShardId) -> Index {
        let state = self.state();
        let newest = state.applied.back().and_then(|(_, applied)| applied.get(shard.0 as usize));
        newest.copied().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_stays_and_the_rest_follows_what_was_applied() {
        let horizon = Horizon::default();
        let shard = ShardId(1);
        assert_eq!(horizon.keep_from(shard), Index(0));
        horizon.remember(vec![Index(3), Index(10)]);
        horizon.remember(vec![Index(4), Index(20)]);
        assert_eq!(horizon.keep_from(shard), Index(10), "the newest is too new");
        assert_eq!(horizon.newest(shard), Index(20));
        horizon.hold(ShardId(0), Index(1));
        horizon.hold(ShardId(2), Index(2));
        assert_eq!(horizon.keep_from(shard), Index(10), "other shards' holds are theirs");
        horizon.hold(shard, Index(7));
        horizon.hold(shard, Index(12));
        assert_eq!(horizon.keep_from(shard), Index(7));
        assert_eq!(horizon.let_go(), 4);
        assert_eq!(horizon.keep_from(shard), Index(10));
        std::thread::sleep(RECENT);
        assert_eq!(horizon.keep_from(shard), Index(20), "time passes when nothing is applied, too");
    }
}
