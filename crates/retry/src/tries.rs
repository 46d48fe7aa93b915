//! The attempts at one request: when to make another, and what to say if none succeeds.
//!
//! | what came back | a read, or a write of a session | another write |
//! |---|---|---|
//! | refused, never sent, "not available", "too much at once" | again | again |
//! | sent, and then the connection broke or no answer came | again | *unknown*: never again |
//! | the session is not known any more | with a new one; *unknown* if there is doubt | |
//! | over a limit, not possible in this state, data lost | fails | fails |
//!
//! "Again" is until the deadline, with a pause that grows from 5 to 100 ms. Doubt about a write stays, whatever comes
//! later, unless the shard itself says what came of it.

use std::time::{Duration, Instant};

use ringfort_types::{Code, Failure, Outcome, Request};

/// Pause before the second attempt; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// No further attempt is made with less time than this left, or than a fifth of the whole: a node that is asked so late
/// could not say in time what became of it, and a write that surely did not happen would end as unknown.
const ATTEMPT_MIN: Duration = Duration::from_millis(300);
/// A read asks so many replicas that can't read their tables.
const LOSSES_MAX: u32 = 4;

/// The attempts at one request.
#[derive(Debug)]
pub(crate) struct Tries {
    troubles: Troubles,
    /// When the last attempt may begin.
    last: Instant,
    pause: Duration,
}

impl Tries {
    /// `in_session`: it takes effect once, however often it is sent.
    pub(crate) fn new(request: &Request, in_session: bool, begun: Instant, deadline: Instant) -> Tries {
        let whole = deadline - begun;
        let last = begun + whole.saturating_sub(ATTEMPT_MIN.min(whole / 5));
        Tries { troubles: Troubles::new(request, in_session), last, pause: PAUSE_MIN }
    }

    /// Whether all attempts were turned away before anything came of them.
    pub(crate) fn is_untouched(&self) -> bool {
        !self.troubles.unknown && !self.troubles.is_final
    }

    /// An attempt has failed: when it is time for another, or else what came of the request.
    pub(crate) fn failed(&mut self, failure: Failure, now: Instant) -> Result<Instant, Failure> {
        self.troubles.add(failure)?;
        let next = now + self.pause;
        if next >= self.last {
            return Err(self.troubles.verdict());
        }
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(next)
    }
}

/// Whether a shard says so of a session that it does not know any more. Then a write that nobody has tried may begin
/// another.
pub(crate) fn is_of_lost_session(failure: &Failure) -> bool {
    matches!(failure.code, Code::SessionExpired | Code::SessionGap)
}

/// What it would mean to do a request twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Nothing: it reads, or it is a digest mark, which changes nothing.
    Harmless,
    /// It can't be: its session sees to that.
    InSession,
    /// Perhaps something that nobody wanted.
    OnceOnly,
}

/// What has gone wrong with a request so far.
#[derive(Debug)]
struct Troubles {
    /// Whether an attempt may have had an effect.
    unknown: bool,
    kind: Kind,
    /// Replicas that could not read it: another one may be well.
    losses: u32,
    /// It ended for a reason that no other attempt would mend.
    is_final: bool,
    /// The last failure that said more than that there was no time, or else the last one.
    said: Option<Failure>,
}

impl Troubles {
    fn new(request: &Request, in_session: bool) -> Troubles {
        let kind = match request {
            _ if in_session => Kind::InSession,
            // Nothing is done twice by a transfer; but whoever asks is told if it may yet succeed.
            request if request.takes_stamp() || request.is_transfer() => Kind::OnceOnly,
            _ => Kind::Harmless,
        };
        Troubles { unknown: false, kind, losses: 0, is_final: false, said: None }
    }

    /// Takes note of a failed attempt; an error ends the request.
    fn add(&mut self, failure: Failure) -> Result<(), Failure> {
        self.unknown |= self.kind != Kind::Harmless && failure.outcome == Outcome::Unknown;
        let in_session = self.kind == Kind::InSession;
        // Only the shard's own state machine says these of a write that it took in, and the same each time.
        let is_verdict = matches!(failure.code, Code::FailedPrecondition | Code::OutOfRange);
        if in_session && is_verdict && failure.outcome == Outcome::Rejected {
            self.is_final = true;
            return Err(failure);
        }
        self.losses += u32::from(failure.code == Code::DataLoss);
        let transient = match failure.code {
            Code::DataLoss => self.kind == Kind::Harmless && self.losses < LOSSES_MAX,
            Code::Unavailable
            | Code::NotLeader
            | Code::Stopping
            | Code::ResourceExhausted
            | Code::DeadlineExceeded => !self.unknown || in_session,
            Code::SessionExpired | Code::SessionGap => in_session && !self.unknown,
            _ => false,
        };
        if !transient {
            // Whoever says that the user may not has not looked at the write: its number is free for another one.
            let is_untouched = matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied);
            self.is_final = !is_untouched;
            return Err(Failure { outcome: self.outcome(), ..failure });
        }
        if failure.code != Code::DeadlineExceeded || self.said.is_none() {
            self.said = Some(failure);
        }
        Ok(())
    }

    /// The failure of a request whose time is over.
    fn verdict(&mut self) -> Failure {
        let outcome = self.outcome();
        let said = self.said.take().expect("a request is given up after a failure, not before");
        Failure { outcome, ..said }
    }

    fn outcome(&self) -> Outcome {
        if self.unknown { Outcome::Unknown } else { Outcome::Rejected }
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeId, ShardId};

    use super::*;

    fn put() -> Request {
        Request::put("k", "")
    }

    fn refused() -> Failure {
        Failure::rejected(Code::Unavailable, "no quorum")
    }

    fn doubt() -> Failure {
        Failure::unknown(Code::DeadlineExceeded, "no answer")
    }

    fn expired() -> Failure {
        Failure::rejected(Code::SessionExpired, "open a new one")
    }

    /// A put that begins now and has two seconds.
    fn tries(in_session: bool) -> (Tries, Instant) {
        let now = Instant::now();
        (Tries::new(&put(), in_session, now, now + Duration::from_secs(2)), now)
    }

    fn after_ms(next: Result<Instant, Failure>, now: Instant) -> Result<u128, Failure> {
        next.map(|next| (next - now).as_millis())
    }

    #[test]
    fn pauses_grow_up_to_a_tenth_of_a_second() {
        let (mut tries, now) = tries(false);
        let pauses: Vec<_> = (0..7).map(|_| after_ms(tries.failed(refused(), now), now).unwrap()).collect();
        assert_eq!(pauses, [5, 10, 20, 40, 80, 100, 100]);
    }

    #[test]
    fn a_write_that_surely_did_not_happen_is_not_sent_again_too_late_to_be_answered() {
        let (mut tries, begun) = tries(false);
        let at = |ms| begun + Duration::from_millis(ms);
        assert_eq!(tries.failed(refused(), at(1_694)), Ok(at(1_699)));
        assert_eq!(tries.failed(refused(), at(1_699)), Err(refused()));
        let mut short = Tries::new(&put(), false, begun, at(250));
        assert_eq!(
            short.failed(refused(), at(190)),
            Ok(at(195)),
            "a short time-out has room for more than one attempt"
        );
        assert_eq!(short.failed(refused(), at(195)), Err(refused()));
    }

    #[test]
    fn doubt_about_a_write_ends_it_unless_it_is_of_a_session_and_stays() {
        let (mut plain, now) = tries(false);
        assert_eq!(plain.failed(doubt(), now), Err(doubt()));
        let (mut once, now) = tries(true);
        assert!(once.failed(doubt(), now).is_ok());
        let late = now + Duration::from_secs(2);
        assert_eq!(once.failed(refused(), late), Err(Failure { outcome: Outcome::Unknown, ..refused() }));
    }

    #[test]
    fn doubt_about_a_transfer_is_told() {
        let now = Instant::now();
        let request = Request::Transfer { shard: ShardId(3), to: NodeId(2) };
        let mut transfer = Tries::new(&request, false, now, now + Duration::from_secs(2));
        assert!(transfer.failed(refused(), now).is_ok(), "somebody else may lead");
        assert_eq!(transfer.failed(doubt(), now), Err(doubt()));
    }

    #[test]
    fn a_forgotten_session_is_replaced_only_before_there_is_doubt() {
        let (mut fresh, now) = tries(true);
        assert!(fresh.failed(refused(), now).is_ok());
        assert!(fresh.failed(expired(), now).is_ok());
        let (mut doubtful, now) = tries(true);
        assert!(doubtful.failed(doubt(), now).is_ok());
        let end = doubtful.failed(expired(), now);
        assert_eq!(end, Err(Failure { outcome: Outcome::Unknown, ..expired() }));
        let (mut plain, now) = tries(false);
        assert_eq!(plain.failed(expired(), now), Err(expired()));
    }

    #[test]
    fn what_the_shard_says_of_the_write_itself_ends_doubt() {
        let too_large = Failure::rejected(Code::OutOfRange, "beyond 64 bits");
        let (mut tries, now) = tries(true);
        assert!(tries.failed(doubt(), now).is_ok());
        assert_eq!(tries.failed(too_large.clone(), now), Err(too_large));
    }

    #[test]
    fn it_is_untouched_only_as_long_as_every_attempt_was_turned_away() {
        let (mut tries, now) = tries(true);
        let late = now + Duration::from_secs(2);
        assert!(tries.failed(refused(), late).is_err() && tries.is_untouched());
        assert!(tries.failed(doubt(), now).is_ok() && !tries.is_untouched());
    }
}
