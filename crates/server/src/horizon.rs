//! How far back each shard's table stays readable.
//!
//! A read names an index, and a table keeps what reads at that index need only as long as it is told to: old versions of rows, on
//! disk. So the horizon is kept close. It is where the shard was [`RECENT`] ago, for reads that were given their index and are
//! on their way to the table, but no later than any index that is *held*: one that a scan has used within [`HELD`], or that a
//! digest mark has named since.
//!
//! Both kinds are noticed where they pass, on every node that has the shard: a scan leaves its trace with each
//! page, a mark as it is applied. A list stream that pauses longer asks for a row now and then (`gate::rows`).
//!
//! A scan may go on for hours, and all that is written meanwhile stays on disk. So a held index can be *given up*, for a
//! [`Reason`] (`flush` looks for them): from then on it can't be held again, and whoever reads at it is told why.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfort_types::limits::HELD_READ_MS_MAX;
use ringfort_types::{Index, ShardId};

/// How long an index stays readable after it was the newest.
pub(crate) const RECENT: Duration = Duration::from_millis(500);
/// How long it stays readable after a scan has used it, or a mark has named it.
pub(crate) const HELD: Duration = Duration::from_secs(30);
/// The longest time that an index can be held in all.
const HELD_LONG: Duration = Duration::from_millis(HELD_READ_MS_MAX);
/// Most indexes that are held; beyond it, one of the lowest shard's is given up.
const HELD_MAX: usize = 64 * 1024;

/// Why an index is not held any more, though somebody still reads at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Held reads have cost more disk than this many bytes.
    Disk(u64),
    /// The disk is full.
    DiskFull,
    /// It was held for [`HELD_READ_MS_MAX`].
    Time,
    /// More than [`HELD_MAX`] are held.
    Many,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Disk(bytes) => {
                write!(f, "long reads held more than {} MiB on disk (--held-reads-mb)", bytes >> 20)
            }
            Reason::DiskFull => write!(f, "the disk is full"),
            Reason::Time => write!(f, "it was read for {} hours", HELD_LONG.as_secs() / 3600),
            Reason::Many => write!(f, "more than {HELD_MAX} are read at once"),
        }
    }
}

/// The horizons of all local shards.
#[derive(Debug, Default)]
pub(crate) struct Horizon {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Applied indexes by shard number, oldest first; one set for each time that they were remembered.
    applied: VecDeque<(Instant, Vec<Index>)>,
    held: BTreeMap<(ShardId, Index), Held>,
    /// Of each shard the highest index that was given up. No lower one is held, nor is it again.
    given_up: BTreeMap<ShardId, (Index, Reason)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    since: Instant,
    last: Instant,
}

impl State {
    /// Forgets what reads may not ask for any more: the first set left is the newest that is [`RECENT`] old.
    fn forget(&mut self, now: Instant) {
        while self.applied.get(1).is_some_and(|(then, _)| now.duration_since(*then) >= RECENT) {
            self.applied.pop_front();
        }
        self.held.retain(|_, held| now.duration_since(held.last) < HELD);
    }

    /// The lowest index of this shard that is held.
    fn oldest(&self, shard: ShardId, now: Instant) -> Option<Index> {
        let mut held = self.held.range((shard, Index(0))..=(shard, Index(u64::MAX)));
        held.find(|(_, held)| now - held.last < HELD).map(|((_, index), _)| *index)
    }

    fn give_up(&mut self, shard: ShardId, index: Index, reason: Reason) {
        self.held.remove(&(shard, index));
        self.given_up.insert(shard, (index, reason));
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

    /// Keeps this index readable for a while from now on; not if it has been given up.
    pub(crate) fn hold(&self, shard: ShardId, at: Index) -> Result<(), Reason> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some((index, reason)) = state.given_up.get(&shard)
            && at <= *index
        {
            return Err(*reason);
        }
        if state.held.len() >= HELD_MAX
            && !state.held.contains_key(&(shard, at))
            && let Some(((shard, index), _)) = state.held.pop_first()
        {
            state.give_up(shard, index, Reason::Many);
        }
        state.held.entry((shard, at)).or_insert(Held { since: now, last: now }).last = now;
        Ok(())
    }

    /// This index is gone already.
    pub(crate) fn release(&self, shard: ShardId, at: Index) {
        self.state().held.remove(&(shard, at));
    }

    /// The lowest index of this shard that is held.
    pub(crate) fn held(&self, shard: ShardId) -> Option<Index> {
        self.state().oldest(shard, Instant::now())
    }

    /// Gives up the lowest index of this shard that is held, and says which that is.
    pub(crate) fn give_up(&self, shard: ShardId, reason: Reason) -> Option<Index> {
        let mut state = self.state();
        let index = state.oldest(shard, Instant::now())?;
        state.give_up(shard, index, reason);
        Some(index)
    }

    /// Gives up all that is held.
    pub(crate) fn give_up_all(&self, reason: Reason) -> usize {
        let mut state = self.state();
        let held: Vec<_> = state.held.keys().copied().collect();
        for (shard, index) in &held {
            state.give_up(*shard, *index, reason);
        }
        held.len()
    }

    /// Gives up what has been held for too long.
    pub(crate) fn give_up_old(&self) -> Vec<(ShardId, Index)> {
        let now = Instant::now();
        let mut state = self.state();
        state.forget(now);
        let held = state.held.iter();
        let old: Vec<_> =
            held.filter(|(_, held)| now - held.since >= HELD_LONG).map(|(place, _)| *place).collect();
        for (shard, index) in &old {
            state.give_up(*shard, *index, Reason::Time);
        }
        old
    }

    /// The lowest index at which this shard has to be readable.
    pub(crate) fn keep_from(&self, shard: ShardId) -> Index {
        let now = Instant::now();
        let mut state = self.state();
        state.forget(now);
        let aged = state.applied.front().and_then(|(_, applied)| applied.get(shard.0 as usize));
        let aged = aged.copied().unwrap_or_default();
        state.oldest(shard, now).map_or(aged, |held| aged.min(held))
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
        horizon.hold(ShardId(0), Index(1)).unwrap();
        horizon.hold(ShardId(2), Index(2)).unwrap();
        assert_eq!((horizon.keep_from(shard), horizon.held(shard)), (Index(10), None), "theirs, not its");
        horizon.hold(shard, Index(7)).unwrap();
        horizon.hold(shard, Index(12)).unwrap();
        assert_eq!((horizon.keep_from(shard), horizon.held(shard)), (Index(7), Some(Index(7))));
        assert_eq!(horizon.give_up_all(Reason::DiskFull), 4);
        assert_eq!(horizon.keep_from(shard), Index(10));
        std::thread::sleep(RECENT);
        assert_eq!(horizon.keep_from(shard), Index(20), "time passes when nothing is applied, too");
    }

    #[test]
    fn what_is_given_up_is_not_held_again_and_the_rest_stays_held() {
        let (horizon, shard) = (Horizon::default(), ShardId(1));
        for at in [5, 7, 9] {
            horizon.hold(shard, Index(at)).unwrap();
        }
        assert!(horizon.give_up_old().is_empty(), "they are young");
        assert_eq!(horizon.give_up(shard, Reason::Disk(8 << 20)), Some(Index(5)));
        assert_eq!(horizon.held(shard), Some(Index(7)));
        assert_eq!(horizon.hold(shard, Index(5)), Err(Reason::Disk(8 << 20)));
        assert_eq!(horizon.hold(shard, Index(7)), Ok(()));
        horizon.release(shard, Index(7));
        assert_eq!(horizon.held(shard), Some(Index(9)));
        assert_eq!(horizon.hold(ShardId(2), Index(5)), Ok(()), "another shard's index is another one");
        assert!(Reason::Disk(8 << 20).to_string().contains("8 MiB"));
    }
}
