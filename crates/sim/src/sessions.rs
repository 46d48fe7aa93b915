//! Stamped writes: clients that number some of their writes, send them again until they know what came of them, and now
//! and then send a copy on its way besides, through any node, that may arrive long after.
//!
//! Shards remember very little here, so that sessions are forgotten while they are in use.

use std::collections::BTreeMap;

use ringfort_shard::SessionLimits;
use ringfort_types::{Code, HybridClock, Outcome, Reply, Request, ShardId, Stamp};

use crate::clients::Asker;
use crate::judges::REPEATED_IN_ORDER;
use crate::world::{Next, World};

/// What a shard remembers in these runs.
pub(crate) const LIMITS: SessionLimits = SessionLimits { sessions: 5, outcomes: 12, session_outcomes: 3 };

/// How often a client sends one write before it gives up on it, and on its session.
const SENDS_MAX: u32 = 8;
/// How much later a copy may be sent, in microseconds.
const COPY_LATER_US: u64 = 4_000_000;

/// A client's session with one shard.
#[derive(Debug)]
struct Session {
    client: u128,
    opened: HybridClock,
    /// The last sequence that was answered.
    last: u64,
    floor: u64,
}

/// A write that its client does not know the outcome of yet.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub(crate) shard: ShardId,
    pub(crate) stamp: Stamp,
    pub(crate) request: Request,
    /// When it was sent first.
    pub(crate) invoked_us: u64,
    sends: u32,
    has_copy: bool,
}

impl Pending {
    pub(crate) fn was_sent_again(&self) -> bool {
        self.has_copy || self.sends > 1
    }
}

/// All sessions of a run's clients.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    open: BTreeMap<(usize, ShardId), Session>,
    /// By client.
    pending: BTreeMap<usize, Pending>,
    made: u64,
}

impl World {
    /// What a client sends to have this write done once: the write with its stamp, or a question first.
    pub(crate) fn stamped(&mut self, client: usize, request: Request) -> (Option<Stamp>, Request) {
        let Some(shard) = self.shard_of(&request) else { return (None, request) };
        let steps = self.random.between(1, 2);
        let (lags, copies) = (self.random.chance(40), self.random.chance(50));
        let Some(session) = self.sessions.open.get_mut(&(client, shard)) else {
            return (None, Request::OpenSession { shard });
        };
        if !lags || session.last > session.floor + 5 {
            session.floor = session.last;
        }
        let stamp = Stamp {
            client: session.client,
            sequence: session.last + steps,
            prev: session.last,
            floor: session.floor,
            opened: session.opened,
        };
        let pending = Pending {
            shard,
            stamp,
            request: request.clone(),
            invoked_us: self.now_us,
            sends: 1,
            has_copy: copies,
        };
        self.sessions.pending.insert(client, pending);
        if copies {
            // Some at once, so that both come into one entry.
            let longest_us = self.random.pick(&[1, 100_000, COPY_LATER_US]);
            let after_us = self.random.below(longest_us);
            self.schedule(after_us, Next::Copy { stamp, request: Box::new(request.clone()) });
        }
        (Some(stamp), request)
    }

    /// What a client still has to send again.
    pub(crate) fn again(&mut self, client: usize) -> Option<(Stamp, Request)> {
        let pending = self.sessions.pending.get_mut(&client)?;
        pending.sends += 1;
        // By now it knows what came of everything before, and says so: perhaps that was too much to remember.
        pending.stamp.floor = pending.stamp.prev;
        Some((pending.stamp, pending.request.clone()))
    }

    /// A copy of a write is sent.
    pub(crate) fn send_copy(&mut self, stamp: Stamp, request: Request) {
        if self.is_calm {
            return;
        }
        let host = self.draw_host();
        self.ask_stamped(Asker::Copy, host, Some(stamp), request, 1_000);
    }

    pub(crate) fn session_opened(&mut self, client: usize, shard: ShardId, clock: HybridClock) {
        self.sessions.made += 1;
        let number = (client as u128) << 64 | u128::from(self.sessions.made);
        let session = Session { client: number, opened: clock, last: 0, floor: 0 };
        self.sessions.open.insert((client, shard), session);
    }

    /// A client has heard of the write that it waits for, or has waited long enough. What it then knows: the reply, if
    /// that says what came of it; that nobody will tell it; or nothing yet (`None`), and it will send it again.
    pub(crate) fn heard_stamped(
        &mut self,
        client: usize,
        reply: Option<&Reply>,
    ) -> Option<(Pending, Option<Reply>)> {
        let pending = self.sessions.pending.get(&client)?.clone();
        let is_known = match reply {
            Some(Reply::Failed(failure)) => match failure.code {
                Code::SessionGap => {
                    let what = format_args!("client {client} sends in order, and is told: {failure}");
                    self.find(REPEATED_IN_ORDER, what);
                    false
                }
                // Of the write itself, whose outcome this is.
                Code::OutOfRange | Code::FailedPrecondition => failure.outcome == Outcome::Rejected,
                _ => false,
            },
            Some(_) => true,
            None => false,
        };
        let is_expired =
            |reply: &&Reply| matches!(reply, Reply::Failed(failure) if failure.code == Code::SessionExpired);
        let expired = reply.filter(is_expired).cloned();
        if is_known {
            self.sessions.pending.remove(&client);
            let session = self.sessions.open.get_mut(&(client, pending.shard))?;
            session.last = pending.stamp.sequence;
            return Some((pending, reply.cloned()));
        }
        (expired.is_some() || self.is_calm || pending.sends >= SENDS_MAX).then(|| {
            // It, or a copy, may have been done, or may still be: the session can't go on.
            self.sessions.pending.remove(&client);
            self.sessions.open.remove(&(client, pending.shard));
            (pending, expired)
        })
    }

    /// Nobody sends anything again.
    pub(crate) fn take_pending(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.sessions.pending).into_values().collect()
    }
}
