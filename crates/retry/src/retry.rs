//! One request on its way: its attempts, and the session that it is numbered in.
//!
//! A session is taken for the first attempt and kept for the others, since a write is recognised by its number. At the end
//! it goes back to the pool only if it is sure what the shard has counted (the table on the crate's first page).

use std::time::Instant;

use ringfort_types::{Failure, HybridClock, Request, ShardId, Stamp};

use crate::sessions::{Session, Sessions};
use crate::tries::{Tries, is_of_lost_session};

/// One request, between two attempts or during one. Dropping it before its end gives its session up.
#[derive(Debug)]
pub struct Retry {
    tries: Tries,
    in_session: bool,
    /// The one that all attempts so far were numbered in.
    session: Option<Session>,
}

impl Retry {
    /// `in_session`: the request is a write, and is to be numbered.
    pub fn new(request: &Request, in_session: bool, begun: Instant, deadline: Instant) -> Retry {
        Retry { tries: Tries::new(request, in_session, begun, deadline), in_session, session: None }
    }

    /// Whether it has to have a session before it is asked for.
    pub fn wants_session(&self) -> bool {
        self.in_session && self.session.is_none()
    }

    /// Takes a session with the request's shard. False if the shard's clock has to be asked for first, for
    /// [`Retry::open_session`].
    pub fn take_session(&mut self, sessions: &Sessions, shard: ShardId) -> Result<bool, Failure> {
        self.session = sessions.take(shard)?;
        Ok(self.session.is_some())
    }

    /// Begins a new session with the request's shard, whose clock says so.
    pub fn open_session(
        &mut self,
        sessions: &Sessions,
        shard: ShardId,
        clock: HybridClock,
    ) -> Result<(), Failure> {
        self.session = Some(sessions.open(shard, clock)?);
        Ok(())
    }

    /// The write's number, the same for each attempt; `None` without a session.
    pub fn stamp(&self) -> Option<Stamp> {
        self.session.as_ref().map(Session::stamp)
    }

    /// It was answered.
    pub fn done(self, sessions: &Sessions) {
        if let Some(session) = self.session {
            sessions.done(session);
        }
    }

    /// An attempt has failed, or what had to come before it: when it is time for another, or else what came of the request.
    pub fn failed(
        &mut self,
        sessions: &Sessions,
        failure: Failure,
        now: Instant,
    ) -> Result<Instant, Failure> {
        if is_of_lost_session(&failure)
            && let Some(session) = self.session.take()
        {
            sessions.forgotten(&session);
        }
        self.tries.failed(failure, now).inspect_err(|_| {
            // Of what ended otherwise nobody knows here whether the shard has counted it.
            let session = self.session.take();
            if let Some(session) = session.filter(|_| self.tries.is_untouched()) {
                sessions.unused(session);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringfort_types::{Code, Outcome};

    use super::*;

    const SHARD: ShardId = ShardId(3);

    /// A put, and the pool with the one session that it has taken.
    fn put() -> (Retry, Sessions, Instant) {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let request = Request::put("k", "v");
        let mut retry = Retry::new(&request, true, now, now + Duration::from_secs(2));
        assert!(retry.wants_session() && retry.stamp().is_none());
        assert_eq!(retry.take_session(&sessions, SHARD), Ok(false), "no clock is known");
        retry.open_session(&sessions, SHARD, HybridClock(7)).unwrap();
        assert!(!retry.wants_session());
        (retry, sessions, now)
    }

    /// Whose session the next write gets, and the write's number in it; `None` if a clock has to be asked for.
    fn next(sessions: &Sessions) -> Option<(u128, u64)> {
        let session = sessions.take(SHARD).unwrap()?;
        Some((session.stamp().client, session.stamp().sequence))
    }

    fn refused() -> Failure {
        Failure::rejected(Code::Unavailable, "no quorum")
    }

    fn doubt() -> Failure {
        Failure::unknown(Code::DeadlineExceeded, "no answer")
    }

    #[test]
    fn every_attempt_has_the_same_number_and_an_answered_one_counts() {
        let (mut retry, sessions, now) = put();
        let stamp = retry.stamp().unwrap();
        assert_eq!(stamp.sequence, 1);
        assert!(retry.failed(&sessions, doubt(), now).is_ok());
        assert_eq!(retry.stamp(), Some(stamp));
        retry.done(&sessions);
        assert_eq!(next(&sessions), Some((stamp.client, 2)));
    }

    #[test]
    fn a_session_whose_write_was_turned_away_to_the_end_is_used_again_with_the_same_number() {
        let (mut retry, sessions, now) = put();
        let client = retry.stamp().unwrap().client;
        let late = now + Duration::from_secs(2);
        assert_eq!(retry.failed(&sessions, refused(), late), Err(refused()));
        assert_eq!(next(&sessions), Some((client, 1)));
    }

    #[test]
    fn a_write_that_its_user_may_not_make_leaves_its_number_to_the_next_one() {
        for code in [Code::PermissionDenied, Code::Unauthenticated] {
            let denied = || Failure::rejected(code, "no");
            let (mut retry, sessions, now) = put();
            let client = retry.stamp().unwrap().client;
            assert_eq!(retry.failed(&sessions, denied(), now), Err(denied()), "it is not tried again");
            assert_eq!(next(&sessions), Some((client, 1)));
            // After an attempt whose fate is not known, nobody knows.
            let (mut retry, sessions, now) = put();
            let client = retry.stamp().unwrap().client;
            assert!(retry.failed(&sessions, doubt(), now).is_ok());
            let end = Failure { outcome: Outcome::Unknown, ..denied() };
            assert_eq!(retry.failed(&sessions, denied(), now), Err(end));
            assert_ne!(next(&sessions).expect("the clock is known").0, client);
        }
    }

    #[test]
    fn a_session_whose_write_ended_in_doubt_or_in_a_verdict_is_not_used_again() {
        let verdict = || Failure::rejected(Code::OutOfRange, "beyond 64 bits");
        for end in [doubt(), verdict()] {
            let (mut retry, sessions, now) = put();
            let client = retry.stamp().unwrap().client;
            let late = now + Duration::from_secs(2);
            assert_eq!(retry.failed(&sessions, end.clone(), late), Err(end));
            assert_ne!(next(&sessions).expect("the clock is known").0, client);
        }
    }

    #[test]
    fn a_write_that_nobody_has_tried_goes_on_in_another_session_when_the_shard_has_forgotten_its_own() {
        let (mut retry, sessions, now) = put();
        let client = retry.stamp().unwrap().client;
        let expired = Failure::rejected(Code::SessionExpired, "open a new one");
        assert!(retry.failed(&sessions, expired, now).is_ok());
        assert!(retry.wants_session());
        assert_eq!(retry.take_session(&sessions, SHARD), Ok(false), "the clock is asked for again");
        retry.open_session(&sessions, SHARD, HybridClock(9)).unwrap();
        assert_ne!(retry.stamp().unwrap().client, client);
    }

    #[test]
    fn what_is_not_numbered_never_wants_a_session() {
        let now = Instant::now();
        let sessions = Sessions::default();
        let mut retry = Retry::new(&Request::ClusterState, false, now, now + Duration::from_secs(2));
        assert!(!retry.wants_session() && retry.stamp().is_none());
        assert!(retry.failed(&sessions, refused(), now).is_ok());
        retry.done(&sessions);
        assert_eq!(next(&sessions), None);
    }
}
