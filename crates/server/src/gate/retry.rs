//! Writes of clients that have no sessions: each gets one of this node's, so that it may be tried again after any failure
//! and takes effect once (`ringfort_retry`).
//!
//! The node itself asks again elsewhere when a node that it has passed such a write on to is gone. What comes back here is
//! what that can't mend: a shard without a leader, a full queue, a session that its shard has forgotten.

use std::sync::Arc;
use std::time::{Duration, Instant};

use ringfort_retry::{Session, Tries, is_of_lost_session};
use ringfort_types::{Call, Failure, Reply, Request, ShardId};

use super::{Answer, mismatched};
use crate::shared::Shared;

/// A write that takes effect once, between its attempts or during one.
pub(super) struct Once {
    call: Call,
    shard: ShardId,
    session: Option<Session>,
    tries: Tries,
    deadline: Instant,
}

/// A write that is to be tried again, and when.
pub(super) struct Again {
    once: Box<Once>,
    at: Instant,
}

impl Once {
    fn new(shard: ShardId, call: &Call) -> Once {
        let begun = Instant::now();
        let deadline = begun + Duration::from_millis(call.timeout_ms.into());
        let tries = Tries::new(&call.request, true, begun, deadline);
        Once { call: call.clone(), shard, session: None, tries, deadline }
    }

    fn left_ms(&self) -> u32 {
        (self.deadline.saturating_duration_since(Instant::now()).as_millis() as u32).max(1)
    }

    /// An attempt was answered: that is the write's answer, or there is to be another.
    fn answered(mut self: Box<Self>, shared: &Shared, answer: Answer) -> Result<Answer, Again> {
        let failure = match answer.reply {
            Reply::Failed(failure) => failure,
            reply => {
                if let Some(session) = self.session.take() {
                    shared.sessions.done(session);
                }
                return Ok(Answer { reply, ..answer });
            }
        };
        if is_of_lost_session(&failure)
            && let Some(session) = self.session.take()
        {
            shared.sessions.forgotten(&session);
        }
        match self.tries.failed(failure, Instant::now()) {
            Ok(at) => Err(Again { once: self, at }),
            Err(end) => {
                // Of what ended otherwise nobody knows here whether the shard has counted it.
                if self.tries.is_untouched()
                    && let Some(session) = self.session.take()
                {
                    shared.sessions.unused(session);
                }
                Ok(Answer::failed(end))
            }
        }
    }

    /// One attempt.
    async fn attempt(&mut self, shared: &Arc<Shared>) -> Answer {
        if self.session.is_none() {
            match self.open(shared).await {
                Ok(session) => self.session = Some(session),
                Err(failure) => return Answer::failed(failure),
            }
        }
        let stamp = self.session.as_ref().map(Session::stamp);
        super::ask(shared, Call { stamp, timeout_ms: self.left_ms(), ..self.call.clone() }).await
    }

    /// A session with the shard, whose clock is asked for if it is not known.
    async fn open(&self, shared: &Arc<Shared>) -> Result<Session, Failure> {
        if let Some(session) = shared.sessions.take(self.shard)? {
            return Ok(session);
        }
        let request = Request::OpenSession { shard: self.shard };
        match super::ask(shared, Call::from(request).within(self.left_ms())).await.reply {
            Reply::Opened { clock } => shared.sessions.open(self.shard, clock),
            Reply::Failed(failure) => Err(failure),
            _ => Err(mismatched()),
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
        Some(of) => Box::new(Once::new(of, &call)).run(shared).await,
        None => super::ask(shared, call).await,
    }
}

/// Gives a write its place in a session, if there is one at hand.
pub(super) fn begin(shared: &Shared, call: &mut Call) -> Option<Box<Once>> {
    let of = shard_of(shared, call)?;
    let session = shared.sessions.take(of).ok().flatten()?;
    let once = Once { session: Some(session), ..Once::new(of, call) };
    call.stamp = once.session.as_ref().map(Session::stamp);
    Some(Box::new(once))
}

/// The answer to its first attempt has come.
pub(super) fn settle(shared: &Shared, once: Box<Once>, answer: Answer) -> Result<Answer, Again> {
    once.answered(shared, answer)
}

/// Before the cluster is born there is none, and the node says so.
fn shard_of(shared: &Shared, call: &Call) -> Option<ShardId> {
    Some(shared.layout()?.shard_of_slot(call.request.slot()?))
}
