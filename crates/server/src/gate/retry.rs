//! Writes of clients that have no sessions: each gets one of this node's, so that it may be tried again after any failure
//! and takes effect once (`ringfort_retry`).
//!
//! The node itself asks again elsewhere when a node that it has passed such a write on to is gone. What comes back here is
//! what that can't mend: a shard without a leader, a full queue, a session that its shard has forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfort_retry::Retry;
use ringfort_types::{Call, Failure, Principal, Reply, Request, ShardId};

use super::Answer;
use crate::shared::Shared;

/// A write that takes effect once, between its attempts or during one.
pub(super) struct Once {
    call: Call,
    shard: ShardId,
    retry: Retry,
    deadline: Instant,
}

/// A write that is to be tried again, and when.
pub(super) struct Again {
    once: Box<Once>,
    at: Instant,
}

impl Once {
    fn new(shard: ShardId, call: &Call) -> Box<Once> {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(call.timeout_ms.into());
        let retry = Retry::new(&call.request, true, begun, deadline);
        Box::new(Once { call: call.clone(), shard, retry, deadline })
    }

    fn left_ms(&self) -> u32 {
        (self.deadline.saturating_duration_since(Instant::now()).as_millis() as u32).max(1)
    }

    /// An attempt was answered: that is the write's answer, or there is to be another.
    pub(super) fn answered(mut self: Box<Self>, shared: &Shared, answer: Answer) -> Result<Answer, Again> {
        let Reply::Failed(failure) = answer.reply else {
            self.retry.done(&shared.sessions);
            return Ok(answer);
        };
        // In a process that ends nobody would carry out another.
        let now = if shared.is_stopping() { self.deadline } else { Instant::now() };
        match self.retry.failed(&shared.sessions, failure, now) {
            Ok(at) => Err(Again { once: self, at }),
            Err(end) => Ok(Answer::failed(end)),
        }
    }

    /// One attempt.
    async fn attempt(&mut self, shared: &Arc<Shared>) -> Answer {
        if self.retry.wants_session()
            && let Err(failure) = self.open(shared).await
        {
            return Answer::failed(failure);
        }
        let (stamp, timeout_ms) = (self.retry.stamp(), self.left_ms());
        super::ask(shared, Call { stamp, timeout_ms, ..self.call.clone() }).await
    }

    /// Takes a session with the shard, whose clock is asked for if it is not known.
    async fn open(&mut self, shared: &Arc<Shared>) -> Result<(), Failure> {
        if self.retry.take_session(&shared.sessions, self.shard)? {
            return Ok(());
        }
        let request = Request::OpenSession { shard: self.shard };
        let call = Call { who: Principal::NODE, ..request.into() };
        match super::ask(shared, call.within(self.left_ms())).await.reply {
            Reply::Opened { clock } => self.retry.open_session(&shared.sessions, self.shard, clock),
            other => Err(other.into_failure()),
        }
    }

    async fn run(mut self: Box<Self>, shared: &Arc<Shared>) -> Answer {
        loop {
            let answer = self.attempt(shared).await;
            match self.answered(shared, answer) {
                Ok(answer) => return answer,
                Err(again) => {
                    tokio::time::sleep_until(again.at.into()).await;
                    self = again.once;
                }
            }
        }
    }
}

impl Again {
    /// Tries until it is done, or its time is over.
    pub(super) async fn go_on(self, shared: &Arc<Shared>) -> Answer {
        tokio::time::sleep_until(self.at.into()).await;
        self.once.run(shared).await
    }
}

/// Carries out a write once, however often it has to be asked for.
pub(super) async fn once(shared: &Arc<Shared>, call: Call) -> Answer {
    match shard_of(shared, &call) {
        Some(of) => Once::new(of, &call).run(shared).await,
        None => super::ask(shared, call).await,
    }
}

/// Gives a write its place in a session, if there is one at hand.
pub(super) fn begin(shared: &Shared, call: &mut Call) -> Option<Box<Once>> {
    let of = shard_of(shared, call)?;
    let mut once = Once::new(of, call);
    once.retry.take_session(&shared.sessions, of).ok().filter(|taken| *taken)?;
    call.stamp = once.retry.stamp();
    Some(once)
}

/// Before the cluster is born there is none, and the node says so.
fn shard_of(shared: &Shared, call: &Call) -> Option<ShardId> {
    Some(shared.layout()?.shard_of_slot(call.request.slot()?))
}
