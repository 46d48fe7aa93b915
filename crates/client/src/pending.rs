//! The requests of one session that are not yet answered: those waiting to be sent, and those sent.
//!
//! A slab under one lock. A submitting task puts its request in and wakes the stream ([`Pending::submit`]); the
//! stream takes everything queued, up to a frame ([`Pending::take_frame`]); answers complete their callers
//! by number ([`Pending::complete`]); a sweep a few dozen times a second ends what is overdue, so that no request
//! needs a timer of its own ([`Pending::sweep`]).
//!
//! Invariants:
//! - a number is never used twice in a session: a slot's number grows by the slab's size each time, so that a late
//!   answer finds nobody rather than the wrong caller;
//! - what was still queued when the session broke or its deadline passed was surely not done; what had been sent
//!   may have been, unless it was a read;
//! - at most [`CONNECTION_REQUESTS_MAX`] requests are here, those whose callers have left included.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use ringfort_proto::session::op_of;
use ringfort_proto::v1::{SessionOp, SessionRequest};
use ringfort_types::limits::CONNECTION_REQUESTS_MAX;
use ringfort_types::{Call, Code, Failure, NodeId, Outcome, Reply};
use tokio::sync::{Notify, oneshot};

/// A frame is closed once its requests reach this many bytes (one request may be larger by itself).
const FRAME_BYTES_SOFT: usize = 256 * 1024;
/// Most requests in one frame.
const FRAME_REQUESTS_MAX: usize = 4096;

/// Why a request failed whose time is over.
pub(crate) const NO_ANSWER: &str = "no answer in time: no quorum, or the node hangs";

/// What comes back to a caller.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The node to ask next time, if the asked one had to pass the request on.
    pub(crate) leader: Option<NodeId>,
    /// The answer, or why there is none.
    pub(crate) reply: Reply,
}

#[derive(Debug)]
struct Slot {
    /// The number of the request that is or was last here.
    id: u64,
    deadline: Instant,
    /// Whether it may have an effect.
    write: bool,
    /// Still here until it is sent.
    queued: Option<Call>,
    /// `None` when the slot is free.
    caller: Option<oneshot::Sender<Answer>>,
}

#[derive(Debug)]
struct State {
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots to be sent, in order. May name slots whose request was swept meanwhile.
    queue: VecDeque<u32>,
    /// The stream, when it has found the queue empty.
    stream: Option<Waker>,
    /// Why no request is taken any more.
    closed: Option<Failure>,
    /// Whether the sweeping task sleeps until there is something to sweep.
    idle: bool,
}

/// All requests of one session.
#[derive(Debug)]
pub(crate) struct Pending {
    state: Mutex<State>,
    /// Told when `idle` ends.
    busy: Notify,
}

impl Pending {
    pub(crate) fn new() -> Pending {
        let state = State {
            slots: Vec::new(),
            free: Vec::new(),
            queue: VecDeque::new(),
            stream: None,
            closed: None,
            idle: false,
        };
        Pending { state: Mutex::new(state), busy: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code under this lock panics")
    }

    /// Queues a request; the answer comes over the channel. Fails if the session is broken or full.
    pub(crate) fn submit(&self, call: Call, deadline: Instant) -> Result<oneshot::Receiver<Answer>, Failure> {
        let (caller, answer) = oneshot::channel();
        let mut state = self.lock();
        if let Some(why) = &state.closed {
            return Err(why.clone());
        }
        let write = call.request.is_write();
        let place = if let Some(place) = state.free.pop() {
            let slot = &mut state.slots[place as usize];
            slot.id += CONNECTION_REQUESTS_MAX as u64;
            slot.deadline = deadline;
            slot.write = write;
            slot.queued = Some(call);
            slot.caller = Some(caller);
            place
        } else if state.slots.len() < CONNECTION_REQUESTS_MAX {
            let place = state.slots.len() as u32;
            // Number 0 is not used, so that an answer without a number finds nobody.
            let id = u64::from(place) + CONNECTION_REQUESTS_MAX as u64;
            state.slots.push(Slot { id, deadline, write, queued: Some(call), caller: Some(caller) });
            place
        } else {
            let message =
                format!("{CONNECTION_REQUESTS_MAX} requests to one node are unanswered: send fewer at once");
            return Err(Failure::rejected(Code::ResourceExhausted, message));
        };
        state.queue.push_back(place);
        let stream = state.stream.take();
        let was_idle = std::mem::take(&mut state.idle);
        drop(state);
        if was_idle {
            self.busy.notify_one();
        }
        if let Some(stream) = stream {
            stream.wake();
        }
        Ok(answer)
    }

    /// The next frame; pending while nothing is queued, `None` once the session is closed.
    pub(crate) fn take_frame(&self, context: &mut Context<'_>) -> Poll<Option<SessionRequest>> {
        let mut state = self.lock();
        let state = &mut *state;
        if state.closed.is_some() {
            return Poll::Ready(None);
        }
        let mut ops: Vec<SessionOp> = Vec::with_capacity(state.queue.len().min(FRAME_REQUESTS_MAX));
        let mut bytes = 0;
        let now = Instant::now();
        while bytes < FRAME_BYTES_SOFT && ops.len() < FRAME_REQUESTS_MAX {
            let Some(place) = state.queue.pop_front() else { break };
            let slot = &mut state.slots[place as usize];
            let wanted = slot.caller.as_ref().is_some_and(|caller| !caller.is_closed());
            let Some(call) = slot.queued.take().filter(|_| wanted) else {
                slot.caller = None;
                state.free.push(place);
                continue;
            };
            bytes += call.request.weight();
            match op_of(slot.id, call.within(time_for_node(slot.deadline, now))) {
                Ok(op) => ops.push(op),
                Err(failure) => {
                    if let Some(caller) = slot.caller.take() {
                        let _gone = caller.send(Answer { leader: None, reply: Reply::Failed(failure) });
                    }
                    state.free.push(place);
                }
            }
        }
        if ops.is_empty() {
            state.stream = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(ops.into()))
    }

    /// Hands answers to their callers. One that nobody waits for any more is dropped.
    pub(crate) fn complete(&self, answers: impl ExactSizeIterator<Item = (u64, Answer)>) {
        let mut done = Vec::with_capacity(answers.len());
        let mut state = self.lock();
        for (id, answer) in answers {
            let place = (id % CONNECTION_REQUESTS_MAX as u64) as usize;
            let Some(slot) = state.slots.get_mut(place) else { continue };
            if slot.id == id
                && slot.queued.is_none()
                && let Some(caller) = slot.caller.take()
            {
                state.free.push(place as u32);
                done.push((caller, answer));
            }
        }
        drop(state);
        // Callers are woken without the lock: the first thing they do is to submit the next request.
        for (caller, answer) in done {
            let _ = caller.send(answer);
        }
    }

    /// Ends every request whose deadline has passed. False if there is nothing left to sweep:
    /// [`Pending::until_busy`] then waits for the next request.
    pub(crate) fn sweep(&self, now: Instant) -> bool {
        let mut state = self.lock();
        if state.free.len() == state.slots.len() {
            state.idle = state.closed.is_none();
            return !state.idle;
        }
        let State { slots, free, queue, .. } = &mut *state;
        let mut unsent = false;
        for (place, slot) in slots.iter_mut().enumerate() {
            if slot.deadline > now {
                continue;
            }
            let Some(caller) = slot.caller.take() else { continue };
            let sent = slot.queued.take().is_none();
            if sent {
                free.push(place as u32);
            }
            unsent |= !sent;
            let why = Failure::rejected(Code::DeadlineExceeded, NO_ANSWER);
            let _ = caller.send(Answer { leader: None, reply: Reply::Failed(after(why, sent, slot.write)) });
        }
        if unsent {
            queue.retain(|&place| {
                let keep = slots[place as usize].queued.is_some();
                if !keep {
                    free.push(place);
                }
                keep
            });
        }
        true
    }

    /// Returns at the first request after an idle time, or when the session is closed.
    pub(crate) async fn until_busy(&self) {
        self.busy.notified().await;
    }

    /// Ends the session: every caller hears `why`, and no request is taken any more. What was sent and not answered may have been
    /// taken by the node, unless that is known.
    pub(crate) fn close(&self, why: &Failure, may_be_taken: bool) {
        let mut state = self.lock();
        if state.closed.is_some() {
            return;
        }
        state.closed = Some(why.clone());
        for slot in &mut state.slots {
            if let Some(caller) = slot.caller.take() {
                let sent = slot.queued.take().is_none();
                let failure = after(why.clone(), sent && may_be_taken, slot.write);
                let _ = caller.send(Answer { leader: None, reply: Reply::Failed(failure) });
            }
        }
        state.slots = Vec::new();
        state.queue = VecDeque::new();
        let stream = state.stream.take();
        drop(state);
        self.busy.notify_one();
        if let Some(stream) = stream {
            stream.wake();
        }
    }

    /// Whether the session has ended.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed.is_some()
    }
}

/// `why`, with the outcome that it has for this request.
fn after(why: Failure, sent: bool, write: bool) -> Failure {
    let outcome = if sent && write { Outcome::Unknown } else { Outcome::Rejected };
    Failure { outcome, ..why }
}

/// What the node is told of the deadline: a little less than there is, so that its own answer, which knows more,
/// comes before ours.
pub(crate) fn time_for_node(deadline: Instant, now: Instant) -> u32 {
    let left = u32::try_from(deadline.saturating_duration_since(now).as_millis()).unwrap_or(u32::MAX);
    (left - (left / 5).min(250)).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use ringfort_types::{Consistency, Index, Receipt, Request, Revision};

    use super::*;

    fn put(key: &'static str) -> Call {
        Request::put(key, "").into()
    }

    fn get(key: &'static str) -> Call {
        let key = Bytes::from_static(key.as_bytes());
        Request::Get { key, consistency: Consistency::Linearizable }.into()
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_mins(1)
    }

    fn ids(pending: &Pending) -> Vec<u64> {
        match pending.take_frame(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(frame)) => frame.ops.iter().map(|op| op.id).collect(),
            _ => Vec::new(),
        }
    }

    fn failure(answer: &mut oneshot::Receiver<Answer>) -> Failure {
        match answer.try_recv().expect("answered").reply {
            Reply::Failed(failure) => failure,
            other => panic!("not a failure: {other:?}"),
        }
    }

    fn written() -> Answer {
        Answer { leader: None, reply: Reply::Written(Receipt::default()) }
    }

    #[test]
    fn all_that_is_queued_goes_in_one_frame_in_order() {
        let pending = Pending::new();
        let _answers = [put("a"), get("b"), put("c")].map(|request| pending.submit(request, soon()).unwrap());
        let sent = ids(&pending);
        assert_eq!(sent.len(), 3);
        assert!(sent.is_sorted());
        assert!(ids(&pending).is_empty());
    }

    #[test]
    fn a_frame_is_bounded() {
        let pending = Pending::new();
        let value = Bytes::from(vec![0; FRAME_BYTES_SOFT]);
        let big = Call::from(Request::put("k", value));
        let _answers = [0; 3].map(|_| pending.submit(big.clone(), soon()).unwrap());
        assert_eq!((ids(&pending).len(), ids(&pending).len(), ids(&pending).len()), (1, 1, 1));
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_request_in_its_place() {
        let pending = Pending::new();
        let mut first = pending.submit(put("a"), Instant::now()).unwrap();
        let old = ids(&pending)[0];
        pending.sweep(Instant::now());
        assert_eq!(failure(&mut first).outcome, Outcome::Unknown);
        let mut second = pending.submit(put("b"), soon()).unwrap();
        let new = ids(&pending)[0];
        assert_eq!(old % CONNECTION_REQUESTS_MAX as u64, new % CONNECTION_REQUESTS_MAX as u64);
        pending.complete([(old, written())].into_iter());
        assert!(second.try_recv().is_err());
        pending.complete([(new, written())].into_iter());
        assert!(second.try_recv().is_ok());
    }

    #[test]
    fn only_a_write_that_was_sent_is_unknown() {
        let pending = Pending::new();
        let mut sent = [put("a"), get("b")].map(|request| pending.submit(request, soon()).unwrap());
        assert_eq!(ids(&pending).len(), 2);
        let mut queued = pending.submit(put("c"), soon()).unwrap();
        pending.close(&Failure::rejected(Code::Unavailable, "broke"), true);
        assert_eq!(failure(&mut sent[0]).outcome, Outcome::Unknown);
        assert_eq!(failure(&mut sent[1]).outcome, Outcome::Rejected);
        assert_eq!(failure(&mut queued).outcome, Outcome::Rejected);
        assert!(pending.submit(put("d"), soon()).is_err());
    }

    #[test]
    fn what_the_node_says_it_has_not_taken_is_not_unknown() {
        let pending = Pending::new();
        let mut sent = pending.submit(put("a"), soon()).unwrap();
        assert_eq!(ids(&pending).len(), 1);
        pending.close(&Failure::rejected(Code::Unavailable, "stopping"), false);
        assert_eq!(failure(&mut sent).outcome, Outcome::Rejected);
    }

    #[test]
    fn overdue_or_unwanted_requests_are_not_sent_and_free_their_places() {
        let pending = Pending::new();
        let mut late = pending.submit(put("a"), Instant::now()).unwrap();
        drop(pending.submit(put("b"), soon()).unwrap());
        pending.sweep(Instant::now());
        assert_eq!(failure(&mut late).outcome, Outcome::Rejected);
        assert!(ids(&pending).is_empty());
        let mut places: Vec<_> = [0; 2]
            .map(|_| pending.submit(put("c"), soon()).unwrap())
            .iter()
            .zip(ids(&pending))
            .map(|(_, id)| id % CONNECTION_REQUESTS_MAX as u64)
            .collect();
        places.sort_unstable();
        assert_eq!(places, [0, 1]);
    }

    #[test]
    fn there_is_a_limit() {
        let pending = Pending::new();
        let _answers: Vec<_> =
            (0..CONNECTION_REQUESTS_MAX).map(|_| pending.submit(get("a"), soon()).unwrap()).collect();
        assert_eq!(pending.submit(get("a"), soon()).unwrap_err().code, Code::ResourceExhausted);
        let sent = ids(&pending);
        let value = || Answer {
            leader: None,
            reply: Reply::Value { row: None, at: Index(1), revision: Revision(1) },
        };
        pending.complete(sent.iter().map(|&id| (id, value())).collect::<Vec<_>>().into_iter());
        assert!(pending.submit(get("a"), soon()).is_ok());
    }

    #[test]
    fn the_node_is_told_a_little_less() {
        let now = Instant::now();
        assert_eq!(time_for_node(now + Duration::from_secs(3), now), 2_750);
        assert_eq!(time_for_node(now + Duration::from_millis(500), now), 400);
        assert_eq!(time_for_node(now, now), 1);
    }
}
