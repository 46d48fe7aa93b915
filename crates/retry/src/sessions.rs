//! Sessions: what lets a write be sent again without being done again.
//!
//! A session numbers writes to one shard, and the shard remembers what came of them (`ringfort_shard`, `sessions`).
//! Ours have one write under way at a time: a sender keeps as many sessions with a shard as it has writes there at
//! once, and takes one that is idle, or begins another. Then no write ever waits for one before it, the shard has at
//! most one outcome to remember for each, and nothing has to be sent again in order (docs/decisions/0004).
//!
//! A session whose write ended in doubt is not used any more, because that write may still be on its way; nor is one
//! that the shard has forgotten. Beginning one needs the shard's clock, which is asked for once and then good for many.
//!
//! A process that starts again begins sessions of its own, and what became of its predecessor's last writes is as unknown as
//! if it had been another client.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use ringfort_types::{Code, Failure, HybridClock, ShardId, Stamp};

/// A session with one shard.
#[derive(Debug)]
pub struct Session {
    shard: ShardId,
    client: u128,
    opened: HybridClock,
    /// Writes that are over.
    done: u64,
}

impl Session {
    /// The number of the write that is under way or comes next.
    pub fn stamp(&self) -> Stamp {
        let Session { client, opened, done, .. } = *self;
        Stamp { client, sequence: done + 1, prev: done, floor: done, opened }
    }
}

/// The sessions with one shard that have nothing under way.
#[derive(Debug, Default)]
struct Pool {
    /// The one used last is used next, so that those of a busy hour are forgotten afterwards.
    idle: Vec<Session>,
    /// What the shard's clock said when it was last asked.
    opened: Option<HybridClock>,
}

/// All sessions of a client.
#[derive(Debug, Default)]
pub struct Sessions {
    pools: Mutex<BTreeMap<ShardId, Pool>>,
}

impl Sessions {
    fn pools(&self) -> MutexGuard<'_, BTreeMap<ShardId, Pool>> {
        self.pools.lock().expect("no code under this lock panics")
    }

    /// A session with this shard; `None` if its clock has to be asked for.
    pub fn take(&self, shard: ShardId) -> Result<Option<Session>, Failure> {
        let opened = {
            let mut pools = self.pools();
            let pool = pools.entry(shard).or_default();
            if let Some(session) = pool.idle.pop() {
                return Ok(Some(session));
            }
            pool.opened
        };
        opened.map(|opened| begin(shard, opened)).transpose()
    }

    /// A new session with this shard, whose clock says so.
    pub fn open(&self, shard: ShardId, opened: HybridClock) -> Result<Session, Failure> {
        let mut pools = self.pools();
        let pool = pools.entry(shard).or_default();
        pool.opened = pool.opened.max(Some(opened));
        drop(pools);
        begin(shard, opened)
    }

    /// The session's write was done, once.
    pub fn done(&self, mut session: Session) {
        session.done += 1;
        self.unused(session);
    }

    /// The session's write was surely not done, and is not on its way either.
    pub fn unused(&self, session: Session) {
        self.pools().entry(session.shard).or_default().idle.push(session);
    }

    /// The shard does not know this session any more. Most likely it has forgotten the idle ones too, and whatever is
    /// opened by the same clock.
    pub fn forgotten(&self, session: &Session) {
        self.pools().remove(&session.shard);
    }
}

fn begin(shard: ShardId, opened: HybridClock) -> Result<Session, Failure> {
    let mut client = [0; 16];
    getrandom::fill(&mut client).map_err(|error| {
        Failure::rejected(
            Code::Unavailable,
            format!("no random number for a session from the operating system: {error}"),
        )
    })?;
    Ok(Session { shard, client: u128::from_le_bytes(client), opened, done: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARD: ShardId = ShardId(3);

    #[test]
    fn a_session_has_one_write_at_a_time_and_counts_those_that_were_done() {
        let sessions = Sessions::default();
        assert!(sessions.take(SHARD).unwrap().is_none());
        let first = sessions.open(SHARD, HybridClock(7)).unwrap();
        let second = sessions.take(SHARD).unwrap().expect("the clock is known");
        let stamp =
            |session: &Session| (session.stamp().client, session.stamp().sequence, session.stamp().prev);
        let (one, two) = (stamp(&first), stamp(&second));
        assert_ne!(one.0, two.0);
        assert_eq!((one.1, one.2, first.stamp().opened), (1, 0, HybridClock(7)));
        sessions.done(first);
        let again = sessions.take(SHARD).unwrap().expect("one is idle");
        assert_eq!(stamp(&again), (one.0, 2, 1));
        assert_eq!(again.stamp().floor, 1);
        sessions.unused(again);
        assert_eq!(sessions.take(SHARD).unwrap().map(|session| stamp(&session)), Some((one.0, 2, 1)));
    }

    #[test]
    fn what_is_dropped_is_not_used_again() {
        let sessions = Sessions::default();
        let doubtful = sessions.open(SHARD, HybridClock(7)).unwrap().stamp().client;
        assert_ne!(sessions.take(SHARD).unwrap().map(|session| session.stamp().client), Some(doubtful));
    }

    #[test]
    fn after_one_was_forgotten_the_clock_is_asked_for_again() {
        let sessions = Sessions::default();
        let (first, second) = (sessions.open(SHARD, HybridClock(7)), sessions.open(SHARD, HybridClock(7)));
        sessions.done(second.unwrap());
        sessions.forgotten(&first.unwrap());
        assert!(sessions.take(SHARD).unwrap().is_none());
        let next = sessions.open(SHARD, HybridClock(9)).unwrap();
        assert_eq!((next.stamp().sequence, next.stamp().opened), (1, HybridClock(9)));
    }
}
