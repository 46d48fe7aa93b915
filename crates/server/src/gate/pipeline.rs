//! One connection's calls, many under way at a time.
//!
//! The door pushes calls as they come in and takes answers as they are there; all that is pushed between two submits goes to
//! the core in one exchange, and all answers that have collected are handed over in one. So there is no task and no channel
//! for a call, unless it has to be tried again.
//!
//! **Order.** As answered: each call for itself, as on a `ringfort.v1` session, whose clients number them. Program order:
//! answers are handed over in the order in which the calls were pushed, and a call waits for the earlier ones that touch the
//! same slot if either of them writes ([`ProgramOrder`]), so that a client which sends `SET k 1`, `SET k 2`, `GET k` at once
//! reads 2. A read is done when its turn comes to be handed over, and holds up later writes until then: its index may be gone
//! by that time, and a later one would show them.
//!
//! **Memory.** A read's value is fetched when it is handed over, if there is room for it ([`Handed`]); what a connection was handed
//! it has taken when it asks for more. Who finds no room for [`ROOM_WAIT_MAX`] is told so.
//!
//! Invariants: each call is answered once; its place is free for another only then. At most [`CONNECTION_REQUESTS_MAX`]
//! calls and [`CONNECTION_BYTES_MAX`] bytes of them are under way before [`Pipeline::has_room`] says no; what is pushed
//! beyond twice the number is refused.

use std::collections::{BTreeMap, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringfort_node::Incoming;
use ringfort_node::order::ProgramOrder;
use ringfort_types::limits::{
    CALL_TIMEOUT_DEFAULT_MS, CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, PIPELINED_BYTES_MAX,
};
use ringfort_types::{Call, Code, Failure, Principal, Reply};
use tokio::task::JoinSet;

use super::retry::{self, Once};
use super::{Answer, Asker, Gate, failure_of, not_taken, stopped};
use crate::answers::{Ended, Sink};
use crate::audit::{Act, Record};
use crate::delivery::{Delivery, ReadAt};
use crate::metrics::{Begun, Operation};
use crate::room::{Handed, Room};
use crate::shares::{Share, UnderWay};

/// Answers are handed over in pieces of this many bytes (one may be larger by itself).
const ANSWERS_BYTES_SOFT: usize = 1024 * 1024;
/// A piece ends once its reads have taken so long, which is looked at every so many answers: other work waits for this
/// thread.
const READING_MAX: Duration = Duration::from_millis(1);
const READS_PER_LOOK: usize = 16;
/// How long an answer waits for room.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(CALL_TIMEOUT_DEFAULT_MS as u64);

/// What waits for room; none has come of it if there was none in time.
type Waiting = Pin<Box<dyn Future<Output = Option<Room>> + Send>>;

/// In which order a connection's calls take effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Any.
    AsAnswered,
    /// As they were sent, wherever that can be seen.
    Program,
}

/// A call's place, from when it is pushed until its answer is handed over.
struct Place<T> {
    /// The door's; `None` while the place is free.
    tag: Option<T>,
    /// None of what goes no further.
    begun: Option<Begun>,
    /// What will be written of it in the audit log.
    record: Option<Box<Record>>,
    bytes: usize,
    /// Of its user's, or its address's.
    share: Option<Share>,
    /// Whether calls may wait for it in program order.
    is_ordered: bool,
    /// What it takes to try it again, if it has a session of this node's.
    once: Option<Box<Once>>,
    /// What is asked if nobody can answer it in time.
    instead: Option<Box<Call>>,
    /// What has come of it.
    come: Option<Come>,
}

/// What has come of a call that is not handed over yet.
enum Come {
    Answer(Answer),
    Read(ReadAt),
}

/// A call that waits for earlier ones of its connection.
struct Held {
    call: Call,
    deadline: Instant,
}

/// One connection's calls.
pub(crate) struct Pipeline<T> {
    gate: Gate,
    /// Where it is counted what its user has under way.
    under_way_of: Option<Arc<UnderWay>>,
    connection: u32,
    sink: Arc<Sink>,
    places: Vec<Place<T>>,
    free: Vec<u32>,
    bytes: usize,
    order: Option<ProgramOrder>,
    /// By place, while program order holds a call back.
    held: BTreeMap<u32, Held>,
    /// Places in the order in which their answers are handed over; without an order, only of those that have come.
    due: VecDeque<u32>,
    /// To be submitted.
    incoming: Vec<Incoming>,
    incoming_bytes: usize,
    /// Kept for its capacity.
    collected: Vec<(u32, Delivery)>,
    /// Those that are being tried again.
    tries: JoinSet<(u32, Answer)>,
    handed: Handed,
    /// For the next answer that is due.
    waiting: Option<Waiting>,
}

impl<T: Send + 'static> Pipeline<T> {
    pub(super) fn new(gate: Gate, order: Order) -> Pipeline<T> {
        let (connection, sink) = gate.shared.answers.open_session();
        Pipeline {
            under_way_of: gate.shared.shares.of(gate.asker),
            gate,
            connection,
            sink,
            places: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            order: (order == Order::Program).then(ProgramOrder::default),
            held: BTreeMap::new(),
            due: VecDeque::new(),
            incoming: Vec::new(),
            incoming_bytes: 0,
            collected: Vec::new(),
            tries: JoinSet::new(),
            handed: Handed::default(),
            waiting: None,
        }
    }

    /// What is pushed from now on is this user's.
    pub(crate) fn is_by(&mut self, who: Principal) {
        self.gate = self.gate.by(Asker { who, ..self.gate.asker });
        self.under_way_of = self.gate.shared.shares.of(self.gate.asker);
    }

    /// Whether more should be read from the connection. An answer makes room: also where others take all that there is, since
    /// nobody needs to wait who has nothing under way.
    pub(crate) fn has_room(&self) -> bool {
        let node_has_room = || self.gate.shared.pipelined.load(Ordering::Relaxed) < PIPELINED_BYTES_MAX;
        self.under_way() < CONNECTION_REQUESTS_MAX
            && self.bytes < CONNECTION_BYTES_MAX
            && (self.bytes == 0 || node_has_room())
    }

    /// Calls that are not answered yet, or whose answers are not handed over.
    pub(crate) fn under_way(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether the answers that were handed over last take room from others until they are gone.
    pub(crate) fn has_room_taken(&self) -> bool {
        self.handed.is_large()
    }

    /// Takes in a call. It goes to the node with the next [`submit`](Pipeline::submit), or once those before it allow it.
    pub(crate) fn push(&mut self, tag: T, call: Call) {
        self.push_with(tag, call, None);
    }

    /// The same for a read; if nobody can answer it in time, another one takes its place.
    pub(crate) fn push_or(&mut self, tag: T, call: Call, instead: Call) {
        self.push_with(tag, call, Some(Box::new(self.gate.own(instead))));
    }

    fn push_with(&mut self, tag: T, call: Call, instead: Option<Box<Call>>) {
        if self.under_way() >= 2 * CONNECTION_REQUESTS_MAX {
            let failure = Failure::rejected(
                Code::ResourceExhausted,
                format!(
                    "more than {CONNECTION_REQUESTS_MAX} requests unanswered on one connection: send fewer at a time"
                ),
            );
            return self.refuse(tag, failure);
        }
        let call = self.gate.own(call);
        let share = match self.gate.shared.shares.enter(self.under_way_of.as_ref(), call.weight()) {
            Ok(share) => share,
            Err(failure) => return self.refuse(tag, failure),
        };
        let record = match self.gate.record(Act::Request(&call.request)) {
            Ok(record) => record,
            Err(failure) => return self.refuse(tag, failure),
        };
        let begun = Begun::now(self.gate.door, Operation::of(&call.request));
        let at = self.hold(tag, Some(begun), call.weight());
        self.places[at as usize].record = record;
        self.places[at as usize].instead = instead;
        self.places[at as usize].share = share;
        if let Some(order) = &mut self.order {
            self.places[at as usize].is_ordered = true;
            if !order.may_go(at, &call.request) {
                let deadline = Instant::now() + Duration::from_millis(call.timeout_ms.into());
                self.held.insert(at, Held { call, deadline });
                return;
            }
        }
        self.start(at, call);
    }

    /// Answers a call that goes no further, in its turn.
    pub(crate) fn refuse(&mut self, tag: T, failure: Failure) {
        let at = self.hold(tag, None, 0);
        self.come(at, Come::Answer(Answer::failed(failure)));
    }

    /// Puts what was pushed on the core's queue.
    pub(crate) fn submit(&mut self) {
        let bytes = std::mem::take(&mut self.incoming_bytes);
        if self.incoming.is_empty() || self.gate.shared.inbox.push_requests(&mut self.incoming, bytes) {
            return;
        }
        for incoming in std::mem::take(&mut self.incoming) {
            self.settle(incoming.token.id as u32, Answer::failed(not_taken(&self.gate.shared)));
        }
    }

    /// Hands over answers as they are there, in pieces; `each` returns the size of what it made of one. Pending if there is
    /// none. Whoever asks has let go of the answers before.
    pub(crate) fn poll_answers(
        &mut self,
        cx: &mut Context<'_>,
        mut each: impl FnMut(T, Answer) -> usize,
    ) -> Poll<Result<(), Ended>> {
        self.handed.taken();
        match self.collect(cx) {
            Ok(()) => {}
            // What is under way is told that nobody knows any more, and only then is it over.
            Err(Ended::Closed) if self.under_way() > 0 => self.give_up(),
            Err(over) => return Poll::Ready(Err(over)),
        }
        let mut room = match self.poll_room(cx) {
            Poll::Ready(room) => room,
            Poll::Pending => return Poll::Pending,
        };
        let (mut bytes, mut count, started) = (0, 0_usize, Instant::now());
        while let Some(&at) = self.due.front()
            && let Some(come) = self.places[at as usize].come.take()
        {
            let answer = match come {
                Come::Answer(answer) => answer,
                Come::Read(read) => {
                    let reply = self.gate.shared.query(&read);
                    let wanted = reply.weight();
                    let large = &self.gate.shared.answers.large;
                    let of = self.under_way_of.as_ref();
                    if !self.handed.has_room(wanted, large, std::mem::take(&mut room), of) {
                        // Not to be held while it waits.
                        drop(reply);
                        self.places[at as usize].come = Some(Come::Read(read));
                        self.wait_for_room(wanted);
                        break;
                    }
                    self.leave(at);
                    Answer::from(reply)
                }
            };
            self.due.pop_front();
            self.handed.hold(answer.room.clone());
            if let Some(begun) = self.places[at as usize].begun {
                self.gate.shared.answered(begun, &answer.reply, answer.leader);
            }
            if let Some(record) = self.places[at as usize].record.take() {
                record.ended(failure_of(&answer.reply));
            }
            bytes += each(self.release(at), answer);
            count += 1;
            let is_long = || count.is_multiple_of(READS_PER_LOOK) && started.elapsed() >= READING_MAX;
            if bytes >= ANSWERS_BYTES_SOFT || is_long() {
                break;
            }
        }
        // What waited for those that are answered now.
        self.submit();
        if count > 0 {
            return Poll::Ready(Ok(()));
        }
        // The core may have had no room for what was submitted.
        self.collect_tries(cx);
        if self.waiting.is_some()
            || self.due.front().is_some_and(|at| self.places[*at as usize].come.is_some())
        {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn wait_for_room(&mut self, bytes: usize) {
        let large = self.gate.shared.answers.large.clone();
        let of = self.under_way_of.clone();
        let waiting = async move { tokio::time::timeout(ROOM_WAIT_MAX, large.wait(bytes, of)).await.ok() };
        self.waiting = Some(Box::pin(waiting));
    }

    /// The room that was waited for; none if none was wanted, or if there was none in time, which the answer says then.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Room> {
        let Some(waiting) = &mut self.waiting else { return Poll::Ready(Room::default()) };
        let Poll::Ready(room) = waiting.as_mut().poll(cx) else { return Poll::Pending };
        self.waiting = None;
        if room.is_none()
            && let Some(&at) = self.due.front()
        {
            self.places[at as usize].come =
                Some(Come::Answer(Answer::failed(self.gate.shared.answers.large.none())));
            self.leave(at);
        }
        Poll::Ready(room.unwrap_or_default())
    }

    /// Takes in what has come of calls, until there is no more: then what comes later wakes.
    fn collect(&mut self, cx: &mut Context<'_>) -> Result<(), Ended> {
        let mut collected = std::mem::take(&mut self.collected);
        loop {
            self.sink.take(&mut collected, cx.waker())?;
            if collected.is_empty() {
                break;
            }
            for (at, delivery) in collected.drain(..) {
                match delivery {
                    Delivery::Reply { reply, leader, room } => {
                        self.settle(at, Answer { reply, leader, room });
                    }
                    Delivery::Read(read) => self.come(at, Come::Read(read)),
                }
            }
        }
        self.collected = collected;
        self.collect_tries(cx);
        Ok(())
    }

    fn collect_tries(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(tried)) = self.tries.poll_join_next(cx) {
            let (at, answer) = tried.expect("a retry does not panic, and is aborted only with its pipeline");
            self.finish(at, answer);
        }
    }

    /// The node has ended: answers everything that is under way.
    fn give_up(&mut self) {
        self.tries.abort_all();
        for at in std::mem::take(&mut self.held).into_keys() {
            self.come(at, Come::Answer(Answer::failed(not_taken(&self.gate.shared))));
        }
        for at in 0..self.places.len() as u32 {
            let place = &mut self.places[at as usize];
            place.is_ordered = false;
            if place.tag.is_some() && place.come.is_none() {
                self.come(at, Come::Answer(Answer::failed(stopped())));
            }
        }
    }

    /// Sends a call on its way.
    fn start(&mut self, at: u32, mut call: Call) {
        if self.gate.stamps(&call) {
            let Some(once) = retry::begin(&self.gate.shared, &mut call) else {
                // The shard's clock is to be asked for first.
                let shared = self.gate.shared.clone();
                self.tries.spawn(async move { (at, retry::once(&shared, call).await) });
                return;
            };
            self.places[at as usize].once = Some(once);
        }
        let token = self.gate.shared.answers.session_token(self.connection, at);
        self.incoming_bytes += call.weight();
        self.incoming.push(Incoming { token, call });
    }

    /// An attempt has been answered: that is the call's answer, unless it is to be tried again.
    fn settle(&mut self, at: u32, answer: Answer) {
        let place = &mut self.places[at as usize];
        if let Some(instead) = place.instead.take_if(|_| is_unanswered(&answer)) {
            return self.start(at, *instead);
        }
        let Some(once) = place.once.take() else { return self.finish(at, answer) };
        match once.answered(&self.gate.shared, answer) {
            Ok(answer) => self.finish(at, answer),
            Err(again) => {
                let shared = self.gate.shared.clone();
                self.tries.spawn(async move { (at, again.go_on(&shared).await) });
            }
        }
    }

    /// A call is answered.
    fn finish(&mut self, at: u32, answer: Answer) {
        self.come(at, Come::Answer(answer));
        self.leave(at);
    }

    fn come(&mut self, at: u32, come: Come) {
        self.places[at as usize].come = Some(come);
        if self.order.is_none() {
            self.due.push_back(at);
        }
    }

    /// Those that waited for a call go on their way.
    fn leave(&mut self, at: u32) {
        if !std::mem::take(&mut self.places[at as usize].is_ordered) {
            return;
        }
        let mut go = Vec::new();
        if let Some(order) = &mut self.order {
            order.done(at, &mut go);
        }
        for next in go {
            let Held { call, deadline } = self.held.remove(&next).expect("what waits is held");
            let left_ms = deadline.saturating_duration_since(Instant::now()).as_millis() as u32;
            if left_ms == 0 {
                let why =
                    "its time was over before the requests sent before it were answered; nothing was done";
                self.settle(next, Answer::failed(Failure::rejected(Code::DeadlineExceeded, why)));
            } else {
                self.start(next, call.within(left_ms));
            }
        }
    }

    fn hold(&mut self, tag: T, begun: Option<Begun>, bytes: usize) -> u32 {
        self.bytes += bytes;
        self.gate.shared.pipelined.fetch_add(bytes, Ordering::Relaxed);
        let place = Place {
            tag: Some(tag),
            begun,
            record: None,
            bytes,
            share: None,
            is_ordered: false,
            once: None,
            instead: None,
            come: None,
        };
        let at = if let Some(at) = self.free.pop() {
            self.places[at as usize] = place;
            at
        } else {
            self.places.push(place);
            (self.places.len() - 1) as u32
        };
        if self.order.is_some() {
            self.due.push_back(at);
        }
        at
    }

    fn release(&mut self, at: u32) -> T {
        let place = &mut self.places[at as usize];
        self.bytes -= place.bytes;
        place.share = None;
        self.gate.shared.pipelined.fetch_sub(place.bytes, Ordering::Relaxed);
        self.free.push(at);
        place.tag.take().expect("a place in use has its tag")
    }
}

/// Whether nobody could be asked.
fn is_unanswered(answer: &Answer) -> bool {
    let Reply::Failed(failure) = &answer.reply else { return false };
    matches!(failure.code, Code::Unavailable | Code::DeadlineExceeded | Code::NotLeader | Code::DataLoss)
}

impl<T> Drop for Pipeline<T> {
    fn drop(&mut self) {
        self.gate.shared.pipelined.fetch_sub(self.bytes, Ordering::Relaxed);
        self.gate.shared.answers.close_session(self.connection);
    }
}
