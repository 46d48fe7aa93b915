//! Sessions: what lets a write be sent again without being done again.
//!
//! A session numbers writes to one shard, and the shard remembers what came of them (`ringfort_shard`, `sessions`).
//! Ours have one write under way at a time: a client keeps as many sessions with a shard as it has writes there at
//! once, and takes one that is idle, or begins another. Then no write ever waits for one before it, the shard has at
//! most one outcome to remember for each, and nothing has to be sent again in order (docs/decisions/0004).
//!
//! A session whose write ended in doubt is not used any more, because that write may still be on its way; nor is one
//! that the shard has forgotten. Beginning one needs the shard's clock, which is asked for once and then good for many.
//!
//! Deliberately absent: anything on disk. A process that starts again begins sessions of its own, and what became of its
//! predecessor's last writes is as unknown as if it had been another client.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use ringfort_types::{Code, Failure, HybridClock, ShardId, Stamp};

/// A session with one shard.
#[derive(Debug)]
pub(crate) struct Writer {
    shard: ShardId,
    client: u128,
    opened: HybridClock,
    /// Writes that are over.
    done: u64,
}

impl Writer {
    /// The number of the write that is under way or comes next.
    pub(crate) fn stamp(&self) -> Stamp {
        let Writer { client, opened, done, .. } = *self;
        Stamp { client, sequence: done + 1, prev: done, floor: done, opened }
    }
}

/// The sessions with one shard that have nothing under way.
#[derive(Debug, Default)]
struct Pool {
    /// The one used last is used next, so that those of a busy hour are forgotten afterwards.
    idle: Vec<Writer>,
    /// What the shard's clock said when it was last asked.
    opened: Option<HybridClock>,
}

/// All sessions of a client.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    pools: Mutex<BTreeMap<ShardId, Pool>>,
}

impl Writers {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<ShardId, Pool>> {
        self.pools.lock().expect("no code under this lock panics")
    }

    /// A session with this shard; `None` if its clock has to be asked for.
    pub(crate) fn take(&self, shard: ShardId) -> Result<Option<Writer>, Failure> {
        let opened = {
            let mut pools = self.pools();
            let pool = pools.entry(shard).or_default();
            if let Some(writer) = pool.idle.pop() {
                return Ok(Some(writer));
            }
            pool.opened
        };
        opened.map(|opened| begin(shard, opened)).transpose()
    }

    /// A new session with this shard, whose clock says so.
    pub(crate) fn open(&self, shard: ShardId, opened: HybridClock) -> Result<Writer, Failure> {
        let mut pools = self.pools();
        let pool = pools.entry(shard).or_default();
        pool.opened = pool.opened.max(Some(opened));
        drop(pools);
        begin(shard, opened)
    }

    /// The session's write was done, once.
    pub(crate) fn done(&self, mut writer: Writer) {
        writer.done += 1;
        self.unused(writer);
    }

    /// The session's write was surely not done, and is not on its way either.
    pub(crate) fn unused(&self, writer: Writer) {
        self.pools().entry(writer.shard).or_default().idle.push(writer);
    }

    /// The shard does not know this session any more. Most likely it has forgotten the idle ones too, and whatever is
    /// opened by the same clock.
    pub(crate) fn forgotten(&self, writer: &Writer) {
        self.pools().remove(&writer.shard);
    }
}

fn begin(shard: ShardId, opened: HybridClock) -> Result<Writer, Failure> {
    let mut client = [0; 16];
    getrandom::fill(&mut client).map_err(|error| {
        Failure::rejected(
            Code::Unavailable,
            format!("no random number for a session from the operating system: {error}"),
        )
    })?;
    Ok(Writer { shard, client: u128::from_le_bytes(client), opened, done: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_session_has_one_write_at_a_time_and_counts_those_that_were_done() {
        let writers = Writers::default();
        assert!(writers.take(SHARD).unwrap().is_none());
        let first = writers.open(SHARD, HybridClock(7)).unwrap();
        let second = writers.take(SHARD).unwrap().expect("the clock is known");
        let stamp = |writer: &Writer| (writer.stamp().client, writer.stamp().sequence, writer.stamp().prev);
        let (one, two) = (stamp(&first), stamp(&second));
        assert_ne!(one.0, two.0);
        assert_eq!((one.1, one.2, first.stamp().opened), (1, 0, HybridClock(7)));
        writers.done(first);
        let again = writers.take(SHARD).unwrap().expect("one is idle");
        assert_eq!(stamp(&again), (one.0, 2, 1));
        assert_eq!(again.stamp().floor, 1);
        writers.unused(again);
        assert_eq!(writers.take(SHARD).unwrap().map(|writer| stamp(&writer)), Some((one.0, 2, 1)));
    }

    #[test]
    fn what_is_dropped_is_not_used_again() {
        let writers = Writers::default();
        let doubtful = writers.open(SHARD, HybridClock(7)).unwrap().stamp().client;
        assert_ne!(writers.take(SHARD).unwrap().map(|writer| writer.stamp().client), Some(doubtful));
    }

    #[test]
    fn after_one_was_forgotten_the_clock_is_asked_for_again() {
        let writers = Writers::default();
        let (first, second) = (writers.open(SHARD, HybridClock(7)), writers.open(SHARD, HybridClock(7)));
        writers.done(second.unwrap());
        writers.forgotten(&first.unwrap());
        assert!(writers.take(SHARD).unwrap().is_none());
        let next = writers.open(SHARD, HybridClock(9)).unwrap();
        assert_eq!((next.stamp().sequence, next.stamp().opened), (1, HybridClock(9)));
    }
}
