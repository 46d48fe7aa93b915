//! One connection's calls, many under way at a time.
//!
//! The door pushes calls as they come in and takes answers as they are there; all that is pushed between two submits goes to
//! the core in one exchange, and all answers that have collected are handed over in one. So there is no task and no channel
//! for a call, unless it has to be tried again.
//!
//! **Order.** As answered: each call for itself, as on a `ringfort.v1` session, whose clients number them. Program order: a
//! call waits for the earlier ones of its connection that touch the same slot, if either of them writes
//! ([`ProgramOrder`]), so that a client which sends `SET k 1`, `SET k 2`, `GET k` at once reads 2.
//!
//! Invariants: each call is answered once; its slot is free for another only then. At most [`CONNECTION_REQUESTS_MAX`] calls
//! and [`CONNECTION_BYTES_MAX`] bytes of them are under way before [`Pipeline::has_room`] says no; what is pushed beyond
//! twice the number is refused.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringfort_node::{Incoming, ProgramOrder};
use ringfort_types::limits::{CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX};
use ringfort_types::{Call, Code, Failure};
use tokio::task::JoinSet;

use super::retry::{self, Once};
use super::{Answer, Gate, busy};
use crate::answers::{Over, Sink};
use crate::delivery::Delivery;

/// Answers are handed over in pieces of this many bytes (one may be larger by itself).
const ANSWERS_BYTES_SOFT: usize = 1024 * 1024;
/// A piece ends once its reads have taken so long, which is looked at every so many answers: other work waits for this
/// thread.
const READING_MAX: Duration = Duration::from_millis(1);
const READS_PER_LOOK: usize = 16;

/// In which order a connection's calls take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any.
    AsAnswered,
    /// As they were sent, wherever that can be seen.
    Program,
}

/// A call under way.
struct Slot<T> {
    /// The door's; `None` while the slot is free.
    tag: Option<T>,
    bytes: usize,
    /// What it takes to try it again, if it has a session of this node's.
    once: Option<Box<Once>>,
}

/// A call that waits for earlier ones of its connection.
struct Held {
    call: Call,
    deadline: Instant,
}

/// One connection's calls.
pub(crate) struct Pipeline<T> {
    gate: Gate,
    connection: u32,
    sink: Arc<Sink>,
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
    bytes: usize,
    order: Option<ProgramOrder<u32>>,
    /// By slot, while program order holds a call back.
    held: std::collections::BTreeMap<u32, Held>,
    /// To be submitted.
    incoming: Vec<Incoming>,
    incoming_bytes: usize,
    /// Collected, not yet handed over; in reverse, so that the next is last.
    ready: Vec<(u32, Delivery)>,
    /// Answered, not yet handed over.
    done: VecDeque<(T, Answer)>,
    /// Those that are being tried again.
    tries: JoinSet<(u32, Answer)>,
}

impl<T: Send + 'static> Pipeline<T> {
    pub(super) fn new(gate: Gate, order: Order) -> Pipeline<T> {
        let (connection, sink) = gate.shared.answers.open_session();
        Pipeline {
            gate,
            connection,
            sink,
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            order: (order == Order::Program).then(ProgramOrder::default),
            held: std::collections::BTreeMap::new(),
            incoming: Vec::new(),
            incoming_bytes: 0,
            ready: Vec::new(),
            done: VecDeque::new(),
            tries: JoinSet::new(),
        }
    }

    /// Whether more should be read from the connection. An answer makes room.
    pub(crate) fn has_room(&self) -> bool {
        self.under_way() < CONNECTION_REQUESTS_MAX && self.bytes < CONNECTION_BYTES_MAX
    }

    /// Whether every call has been answered, and the answer handed over.
    pub(crate) fn is_empty(&self) -> bool {
        self.under_way() == 0 && self.done.is_empty()
    }

    fn under_way(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes in a call. It goes to the node with the next [`submit`](Pipeline::submit), or once those before it allow it.
    pub(crate) fn push(&mut self, tag: T, call: Call) {
        if self.under_way() >= 2 * CONNECTION_REQUESTS_MAX {
            let failure = Failure::rejected(
                Code::ResourceExhausted,
                format!(
                    "more than {CONNECTION_REQUESTS_MAX} requests unanswered on one connection: send fewer at a time"
                ),
            );
            return self.refuse(tag, failure);
        }
        let call = Call { door: self.gate.door, ..call };
        let at = self.hold(tag, call.weight());
        if let Some(order) = &mut self.order
            && !order.enter(at, &call.request)
        {
            let deadline = Instant::now() + Duration::from_millis(call.timeout_ms.into());
            self.held.insert(at, Held { call, deadline });
            return;
        }
        self.start(at, call);
    }

    /// Answers a call that goes no further.
    pub(crate) fn refuse(&mut self, tag: T, failure: Failure) {
        self.done.push_back((tag, Answer::failed(failure)));
    }

    /// Puts what was pushed on the core's queue.
    pub(crate) fn submit(&mut self) {
        let bytes = std::mem::take(&mut self.incoming_bytes);
        if self.incoming.is_empty() || self.gate.shared.inbox.push_requests(&mut self.incoming, bytes) {
            return;
        }
        for incoming in std::mem::take(&mut self.incoming) {
            self.settle(incoming.token.id as u32, Answer::failed(busy()));
        }
    }

    /// Hands over answers as they are there, in pieces; `each` returns the size of what it made of one. Pending if there is
    /// none.
    pub(crate) fn poll_answers(
        &mut self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(T, Answer) -> usize,
    ) -> Poll<Result<(), Over>> {
        while let Poll::Ready(Some(tried)) = self.tries.poll_join_next(cx) {
            let (at, answer) = tried.expect("a retry does not panic, and is aborted only with its pipeline");
            self.finish(at, answer);
        }
        if self.ready.is_empty() {
            if let Err(over) = self.sink.take(&mut self.ready, cx.waker()) {
                return Poll::Ready(Err(over));
            }
            self.ready.reverse();
        }
        let (mut bytes, mut count, started) = (0, 0_usize, Instant::now());
        while bytes < ANSWERS_BYTES_SOFT
            && (!count.is_multiple_of(READS_PER_LOOK) || started.elapsed() < READING_MAX)
        {
            if let Some((tag, answer)) = self.done.pop_front() {
                bytes += each(tag, answer);
                count += 1;
                continue;
            }
            let Some((at, delivery)) = self.ready.pop() else { break };
            let answer = match delivery {
                Delivery::Reply { reply, leader } => Answer { reply, leader },
                Delivery::Read(read) => Answer { reply: self.gate.shared.readers.query(&read), leader: None },
            };
            self.settle(at, answer);
        }
        // What waited for those that are answered now.
        self.submit();
        if count > 0 {
            return Poll::Ready(Ok(()));
        }
        if !self.ready.is_empty() || !self.done.is_empty() {
            cx.waker().wake_by_ref();
        }
        if !self.tries.is_empty() {
            // Began in this poll, perhaps: it must know whom to wake.
            if let Poll::Ready(Some(tried)) = self.tries.poll_join_next(cx) {
                let (at, answer) = tried.expect("as above");
                self.finish(at, answer);
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }

    /// Sends a call on its way.
    fn start(&mut self, at: u32, mut call: Call) {
        if self.gate.stamps(&call) {
            match retry::begin(&self.gate.shared, &mut call) {
                Some(once) => self.slots[at as usize].once = Some(Box::new(once)),
                None => {
                    // The shard's clock is to be asked for first.
                    let shared = self.gate.shared.clone();
                    self.tries.spawn(async move { (at, retry::once(&shared, call).await) });
                    return;
                }
            }
        }
        let token = self.gate.shared.answers.session_token(self.connection, at);
        self.incoming_bytes += call.weight();
        self.incoming.push(Incoming { token, call });
    }

    /// A call has come back: that is its answer, unless it is to be tried again.
    fn settle(&mut self, at: u32, answer: Answer) {
        let Some(once) = self.slots[at as usize].once.take() else { return self.finish(at, answer) };
        match retry::settle(&self.gate.shared, *once, answer) {
            Ok(answer) => self.finish(at, answer),
            Err(again) => {
                let shared = self.gate.shared.clone();
                self.tries.spawn(async move { (at, again.go_on(&shared).await) });
            }
        }
    }

    /// A call is answered. Those that waited for it go on their way.
    fn finish(&mut self, at: u32, answer: Answer) {
        let tag = self.release(at);
        self.done.push_back((tag, answer));
        let Some(order) = &mut self.order else { return };
        for next in order.leave(at) {
            let Held { call, deadline } = self.held.remove(&next).expect("what waits is held");
            let left_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u32;
            if left_ms == 0 {
                let why = "its time was over before the requests sent before it were answered; nothing was done";
                self.finish(next, Answer::failed(Failure::rejected(Code::DeadlineExceeded, why)));
            } else {
                self.start(next, call.within(left_ms));
            }
        }
    }

    fn hold(&mut self, tag: T, bytes: usize) -> u32 {
        self.bytes += bytes;
        let slot = Slot { tag: Some(tag), bytes, once: None };
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        }
    }

    fn release(&mut self, at: u32) -> T {
        let slot = &mut self.slots[at as usize];
        self.bytes -= slot.bytes;
        self.free.push(at);
        slot.tag.take().expect("a slot under way has its tag")
    }
}

impl<T> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.gate.shared.answers.close_session(self.connection);
    }
}
