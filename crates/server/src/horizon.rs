//! How far back each shard's table stays readable.
//!
//! A read names an index, and a table keeps what reads at that index need only as long as it is told to: old versions of rows, on
//! disk. So the horizon is kept close. It is where the shard was [`RECENT`] ago, for reads that were given their index and are
//! on their way to the table, but no later than any index that is *held*: one that a scan has used within [`HELD`], or that a
//! digest mark has named since.
//!
//! Both kinds are noticed where they pass, on every node that has the shard: a scan leaves its trace with each
//! page, a mark as it is applied. A list stream that pauses longer asks for a row now and then (`gate::rows`). A list of few rows
//! that has got all that it may want of a shard with its first page holds nothing: nobody comes back for more (`readers`).
//!
//! A scan may go on for hours, and all that is written meanwhile stays on disk. So a held index can be *given up*, for a
//! [`Reason`] (`flush` looks for them): from then on whoever reads at it is told why. Who begins to read there, because nothing newer
//! is there to be read at, may.
//!
//! Indexes that are asked for soon after each other are held as one, the lowest of them, and so are all further ones once a
//! shard has [`HELD_MAX`]: that keeps more than is needed, and never less.

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
/// So long after an index has begun to be held, higher ones are held with it.
const TOGETHER: Duration = Duration::from_secs(1);
/// Most indexes of a shard that are held apart.
const HELD_MAX: usize = 512;

/// Why an index is not held any more, though somebody still reads at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Held reads have cost more disk than this many bytes.
    Disk(u64),
    /// The disk is full.
    DiskFull,
    /// It was held for [`HELD_READ_MS_MAX`].
    Time,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Disk(bytes) => {
                write!(f, "long reads held more than {} MiB on disk (--held-reads-mb)", bytes >> 20)
            }
            Reason::DiskFull => write!(f, "the disk is full"),
            Reason::Time => write!(f, "it was read for {} hours", HELD_LONG.as_secs() / 3600),
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
    /// Of each shard the highest index that was given up, which nobody goes on reading at, nor below it.
    given_up: BTreeMap<ShardId, (Index, Reason)>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    since: Instant,
    last: Instant,
}

/// Whether whoever reads at an index begins there or goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    Begins,
    GoesOn,
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

    /// Holds an index, by itself or with one below it. Says which.
    fn hold(&mut self, shard: ShardId, at: Index, now: Instant) -> bool {
        let of_shard = || self.held.range((shard, Index(0))..=(shard, Index(u64::MAX)));
        let is_crowded = || of_shard().count() >= HELD_MAX;
        let joined = match self.held.range((shard, Index(0))..=(shard, at)).next_back() {
            Some((place, held)) if place.1 == at || now - held.since < TOGETHER || is_crowded() => {
                Some((*place, *held))
            }
            // The lowest goes down.
            None if is_crowded() => of_shard().next().map(|(place, held)| (*place, *held)),
            _ => None,
        };
        let (index, since) = joined.map_or((at, now), |(place, held)| (place.1.min(at), held.since));
        if let Some((place, _)) = &joined {
            self.held.remove(place);
        }
        self.held.insert((shard, index), Held { since, last: now });
        joined.is_none()
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

    /// A shard is there from now on. Nobody has read it before, so it is as if it had been there when the others were last remembered.
    pub(crate) fn come(&self, shard: ShardId, applied: Index) {
        let mut state = self.state();
        if state.applied.is_empty() {
            state.applied.push_back((Instant::now(), Vec::new()));
        }
        if let Some((_, newest)) = state.applied.back_mut() {
            let at = shard.0 as usize;
            newest.resize(newest.len().max(at + 1), Index(0));
            newest[at] = applied;
        }
    }

    /// Keeps this index readable for a while from now on, and says whether it is held by itself; not if it has been given up.
    pub(crate) fn hold(&self, shard: ShardId, at: Index, reading: Reading) -> Result<bool, Reason> {
        let now = Instant::now();
        let mut state = self.state();
        if let Some((index, reason)) = state.given_up.get_mut(&shard)
            && at <= *index
        {
            if reading == Reading::GoesOn {
                return Err(*reason);
            }
            *index = Index(at.0.saturating_sub(1));
        }
        Ok(state.hold(shard, at, now))
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
        horizon.hold(ShardId(0), Index(1), Reading::Begins).unwrap();
        horizon.hold(ShardId(2), Index(2), Reading::Begins).unwrap();
        assert_eq!((horizon.keep_from(shard), horizon.held(shard)), (Index(10), None), "theirs, not its");
        horizon.hold(shard, Index(12), Reading::Begins).unwrap();
        horizon.hold(shard, Index(7), Reading::Begins).unwrap();
        assert_eq!((horizon.keep_from(shard), horizon.held(shard)), (Index(7), Some(Index(7))));
        assert_eq!(horizon.give_up_all(Reason::DiskFull), 4);
        assert_eq!(horizon.keep_from(shard), Index(10));
        std::thread::sleep(RECENT);
        assert_eq!(horizon.keep_from(shard), Index(20), "time passes when nothing is applied, too");
    }

    #[test]
    fn a_shard_that_has_come_is_readable_from_there_on_and_costs_the_others_nothing() {
        let horizon = Horizon::default();
        for shard in (0..1_000).rev() {
            horizon.come(ShardId(shard), Index(shard.into()));
        }
        assert_eq!((horizon.newest(ShardId(999)), horizon.keep_from(ShardId(7))), (Index(999), Index(7)));
        assert_eq!(horizon.state().applied.len(), 1, "one set for all of them");
        horizon.remember(vec![Index(5); 1_000]);
        // Another table of it.
        horizon.come(ShardId(3), Index(1));
        assert_eq!((horizon.newest(ShardId(3)), horizon.newest(ShardId(4))), (Index(1), Index(5)));
    }

    /// Each begins to be held so long before now, in seconds.
    fn held_since(horizon: &Horizon, shard: ShardId, held: &[(u64, u64)]) {
        let now = Instant::now();
        for (at, seconds) in held {
            let since = now.checked_sub(Duration::from_secs(*seconds)).unwrap();
            horizon.state().held.insert((shard, Index(*at)), Held { since, last: now });
        }
    }

    #[test]
    fn nobody_goes_on_at_what_is_given_up_and_the_rest_stays_held() {
        let (horizon, shard) = (Horizon::default(), ShardId(1));
        let goes_on = |shard, at| horizon.hold(shard, Index(at), Reading::GoesOn);
        held_since(&horizon, shard, &[(5, 9), (7, 8), (9, 7)]);
        assert!(horizon.give_up_old().is_empty(), "they are young");
        assert_eq!(horizon.give_up(shard, Reason::Disk(8 << 20)), Some(Index(5)));
        assert_eq!(horizon.held(shard), Some(Index(7)));
        assert_eq!(goes_on(shard, 5), Err(Reason::Disk(8 << 20)));
        assert_eq!(goes_on(shard, 7), Ok(false));
        horizon.release(shard, Index(7));
        assert_eq!(horizon.held(shard), Some(Index(9)));
        assert_eq!(goes_on(ShardId(2), 5), Ok(true), "another shard's index is another one");
        assert!(Reason::Disk(8 << 20).to_string().contains("8 MiB"));
    }

    /// A shard that nobody writes to has no newer index to begin at.
    #[test]
    fn who_begins_at_an_index_that_was_given_up_may_read_there() {
        let (horizon, shard) = (Horizon::default(), ShardId(1));
        held_since(&horizon, shard, &[(5, 9), (7, 8)]);
        assert_eq!(horizon.give_up_all(Reason::DiskFull), 2);
        assert_eq!(horizon.hold(shard, Index(7), Reading::GoesOn), Err(Reason::DiskFull));
        assert_eq!(horizon.hold(shard, Index(7), Reading::Begins), Ok(true));
        assert_eq!(horizon.hold(shard, Index(7), Reading::GoesOn), Ok(false));
        assert_eq!(horizon.hold(shard, Index(5), Reading::GoesOn), Err(Reason::DiskFull));
    }

    /// However many read at how many indexes: none is given up, and what each needs is held.
    #[test]
    fn indexes_that_are_asked_for_together_are_held_as_the_lowest_of_them() {
        let (horizon, shard) = (Horizon::default(), ShardId(1));
        let held = |horizon: &Horizon| horizon.state().held.keys().map(|(_, at)| at.0).collect::<Vec<_>>();
        for at in 100..100_000 {
            let begins = horizon.hold(shard, Index(at), Reading::Begins);
            assert_eq!(begins, Ok(!held(&horizon).is_empty() && held(&horizon).last() == Some(&at)));
        }
        assert_eq!(horizon.held(shard), Some(Index(100)));
        assert!(held(&horizon).len() <= 1 + HELD.as_secs() as usize, "{:?}", held(&horizon));

        let horizon = Horizon::default();
        let many: Vec<_> = (0..HELD_MAX as u64).map(|number| (1_000 + 10 * number, 20)).collect();
        held_since(&horizon, shard, &many);
        for at in [1_005, 1_000_000, 500] {
            assert_eq!(horizon.hold(shard, Index(at), Reading::GoesOn), Ok(false), "{at}");
        }
        let now = held(&horizon);
        assert_eq!((now.len(), now[0], now[1]), (HELD_MAX, 500, 1_010), "the lowest has gone down");
    }
}
