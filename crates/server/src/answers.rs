//! From a token to whoever waits for it.
//!
//! A token's number says where its answer goes: connection number in the upper half, the connection's own slot
//! in the lower half. Connection 0 is shared by all single calls, each of which waits for one answer; every
//! session has a number of its own, never used again in this boot, and a [`Sink`] that collects answers until
//! its stream takes them all at once. A token of another node goes into that node's outbox.
//!
//! A single call's answer goes by way of the [`Desk`] of the runtime that asked, unless it comes from there.
//!
//! Invariants: whoever is gone gets nothing and holds nothing up; a session that does not take its answers is
//! cut off at [`ANSWER_BYTES_MAX`]. Values that another node read, and that a session does not take, take room of what the node has for large
//! answers, beyond the first few; whoever finds none there is told so instead.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::task::Waker;

use ringfort_types::limits::PIPELINED_ANSWERS_BYTES;
use ringfort_types::{Answer, NodeId, Reply, Token};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::delivery::Delivery;
use crate::desk::{self, Desk};
use crate::room::{LargeAnswers, Room};

use crate::outbox::{Item, Outbox};

/// Most bytes of answers that wait for one session to take them.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The connection that all single calls share.
const CALLS: u32 = 0;

/// Everyone who waits for an answer.
#[derive(Debug)]
pub(crate) struct Answers {
    me: NodeId,
    next_connection: AtomicU32,
    next_call: AtomicU32,
    sessions: RwLock<Sessions>,
    calls: Mutex<HashMap<u32, Caller>>,
    /// One a runtime that calls are made on.
    desks: Vec<Arc<Desk>>,
    /// One for each other node.
    outboxes: RwLock<BTreeMap<NodeId, Arc<Outbox>>>,
    /// The memory of large answers.
    pub(crate) large: LargeAnswers,
}

/// The sessions by their numbers.
#[derive(Debug, Default)]
struct Sessions {
    sinks: BTreeMap<u32, Arc<Sink>>,
    /// Nobody will be answered any more, those included that open from now on.
    closed: bool,
}

/// Who waits for the answer to a single call.
#[derive(Debug)]
struct Caller {
    sender: oneshot::Sender<Delivery>,
    /// None if it is on some other runtime.
    desk: Option<Arc<Desk>>,
}

impl Answers {
    /// Those of this node. Calls come from these runtimes, most of them.
    pub(crate) fn new<'a>(me: NodeId, runtimes: impl IntoIterator<Item = &'a Handle>) -> Answers {
        Answers {
            me,
            next_connection: AtomicU32::new(CALLS + 1),
            next_call: AtomicU32::new(0),
            sessions: RwLock::default(),
            calls: Mutex::default(),
            desks: runtimes.into_iter().map(|runtime| Arc::new(Desk::new(runtime))).collect(),
            outboxes: RwLock::default(),
            large: LargeAnswers::default(),
        }
    }

    /// The outbox to a node, if it is another one that we know.
    pub(crate) fn outbox(&self, node: NodeId) -> Option<Arc<Outbox>> {
        self.outboxes.read().unwrap_or_else(PoisonError::into_inner).get(&node).cloned()
    }

    /// Those to all other nodes that we know.
    pub(crate) fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.outboxes.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// There is another node from now on: its outbox.
    pub(crate) fn add_outbox(&self, node: NodeId) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(node));
        self.outboxes.write().unwrap_or_else(PoisonError::into_inner).insert(node, outbox.clone());
        outbox
    }

    /// It is gone.
    pub(crate) fn remove_outbox(&self, node: NodeId) {
        self.outboxes.write().unwrap_or_else(PoisonError::into_inner).remove(&node);
    }

    /// Its desks, in the order of the runtimes.
    pub(crate) fn desks(&self) -> impl Iterator<Item = &Arc<Desk>> {
        self.desks.iter()
    }

    /// A place for a new session's answers, and its number.
    pub(crate) fn open_session(&self) -> (u32, Arc<Sink>) {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        let sink = Arc::<Sink>::default();
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sink.lock().closed = sessions.closed;
        sessions.sinks.insert(number, sink.clone());
        (number, sink)
    }

    /// The session is gone.
    pub(crate) fn close_session(&self, number: u32) {
        self.sessions.write().unwrap_or_else(PoisonError::into_inner).sinks.remove(&number);
    }

    /// The token of a session's request.
    pub(crate) fn session_token(&self, connection: u32, slot: u32) -> Token {
        Token { origin: self.me, id: (u64::from(connection) << 32) | u64::from(slot) }
    }

    /// A token for one call, and where its answer comes.
    pub(crate) fn open_call(&self) -> (Token, oneshot::Receiver<Delivery>) {
        let (sender, receiver) = oneshot::channel();
        let slot = self.next_call.fetch_add(1, Ordering::Relaxed);
        // Slots come round after 2^32 calls; one that still waits then (none lives longer than a minute) is
        // dropped, and its caller told so.
        let here = desk::here();
        let desk = self.desks.iter().find(|desk| desk.is_at(here)).cloned();
        self.calls().insert(slot, Caller { sender, desk });
        (self.session_token(CALLS, slot), receiver)
    }

    /// Nobody waits for this call any more.
    pub(crate) fn close_call(&self, token: Token) {
        self.calls().remove(&(token.id as u32));
    }

    /// Hands over what became of these requests. Wakes each session once, however many of its requests there
    /// are, as long as they come together.
    pub(crate) fn deliver(&self, batch: impl IntoIterator<Item = (Token, Delivery)>) {
        let sessions = self.sessions.read().unwrap_or_else(PoisonError::into_inner);
        let mut current: Option<(u32, MutexGuard<'_, Collected>)> = None;
        let mut wakers: Vec<Waker> = Vec::new();
        let (mut calls, here) = (None, desk::here());
        let mut abroad: BTreeMap<NodeId, Vec<Item>> = BTreeMap::new();
        for (token, delivery) in batch {
            if token.origin != self.me {
                abroad.entry(token.origin).or_default().push(item(token, delivery));
                continue;
            }
            let (connection, slot) = ((token.id >> 32) as u32, token.id as u32);
            if connection == CALLS {
                let calls = calls.get_or_insert_with(|| self.calls());
                match calls.remove(&slot) {
                    Some(Caller { sender, desk: Some(desk) }) if !desk.is_at(here) => {
                        wakers.extend(desk.lay_down(sender, delivery));
                    }
                    Some(Caller { sender, .. }) => {
                        let _gone = sender.send(delivery);
                    }
                    None => {}
                }
                continue;
            }
            if current.as_ref().is_none_or(|(number, _)| *number != connection) {
                drop(current.take());
                current = sessions.sinks.get(&connection).map(|sink| (connection, sink.lock()));
            }
            if let Some((_, collected)) = &mut current {
                let delivery = self.admit(delivery, collected.bytes);
                collected.bytes += delivery.weight();
                collected.ready.push((slot, delivery));
                wakers.extend(collected.waker.take());
            }
        }
        drop(current);
        drop(sessions);
        drop(calls);
        for (node, items) in abroad {
            if let Some(outbox) = self.outbox(node) {
                outbox.push(items);
            }
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    /// What a session gets that holds so many bytes already: this, with room for it if it needs some.
    fn admit(&self, delivery: Delivery, held: usize) -> Delivery {
        let Delivery::Reply { reply: reply @ (Reply::Value { .. } | Reply::Values { .. }), leader, .. } =
            delivery
        else {
            return delivery;
        };
        let bytes = reply.weight();
        if held + bytes <= PIPELINED_ANSWERS_BYTES {
            return Delivery::Reply { reply, leader, room: Room::default() };
        }
        match self.large.try_take(bytes) {
            Some(room) => Delivery::Reply { reply, leader, room },
            None => Delivery::reply(Reply::Failed(self.large.none())),
        }
    }

    /// Nobody will be answered any more: calls fail, sessions end once they have taken what is there.
    pub(crate) fn close(&self) {
        self.calls().clear();
        let mut sessions = self.sessions.write().unwrap_or_else(PoisonError::into_inner);
        sessions.closed = true;
        for sink in sessions.sinks.values() {
            let mut collected = sink.lock();
            collected.closed = true;
            let waker = collected.waker.take();
            drop(collected);
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u32, Caller>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn item(token: Token, delivery: Delivery) -> Item {
    match delivery {
        Delivery::Reply { reply, .. } => Item::Message(Answer { id: token.id, reply }.into()),
        Delivery::Read(read) => Item::Read { id: token.id, read },
    }
}

/// Where one session's answers collect.
#[derive(Debug, Default)]
pub(crate) struct Sink {
    collected: Mutex<Collected>,
}

#[derive(Debug, Default)]
struct Collected {
    ready: Vec<(u32, Delivery)>,
    bytes: usize,
    waker: Option<Waker>,
    closed: bool,
}

/// Why a session gets no more answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It leaves more unread than a node will hold for it.
    TooSlow,
    /// The node has ended.
    Closed,
}

impl Sink {
    /// Moves everything collected into `into`, which is empty; if there is nothing, `waker` will be woken.
    pub(crate) fn take(&self, into: &mut Vec<(u32, Delivery)>, waker: &Waker) -> Result<(), Ended> {
        let mut collected = self.lock();
        if collected.bytes > ANSWER_BYTES_MAX {
            return Err(Ended::TooSlow);
        }
        if collected.ready.is_empty() {
            if collected.closed {
                return Err(Ended::Closed);
            }
            match &collected.waker {
                Some(known) if known.will_wake(waker) => {}
                _ => collected.waker = Some(waker.clone()),
            }
        } else {
            std::mem::swap(&mut collected.ready, into);
            collected.bytes = 0;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Collected> {
        self.collected.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::limits::LARGE_ANSWERS_BYTES;
    use ringfort_types::{Index, Receipt, Revision, Row};

    use super::*;

    fn written() -> Delivery {
        Delivery::reply(Reply::Written(Receipt::default()))
    }

    #[test]
    fn answers_find_their_session_their_call_and_their_node() {
        let answers = Answers::new(NodeId(1), []);
        let outbox = answers.add_outbox(NodeId(2));
        outbox.assign(1);
        outbox.open();
        let (first, first_sink) = answers.open_session();
        let (second, second_sink) = answers.open_session();
        let (call, mut receiver) = answers.open_call();
        let abroad = Token { origin: NodeId(2), id: 9 };
        let tokens = [
            answers.session_token(first, 7),
            answers.session_token(second, 7),
            call,
            abroad,
            answers.session_token(first, 8),
        ];
        answers.deliver(tokens.map(|token| (token, written())));

        let slots = |sink: &Sink| {
            let mut ready = Vec::new();
            sink.take(&mut ready, Waker::noop()).unwrap();
            ready.iter().map(|(slot, _)| *slot).collect::<Vec<_>>()
        };
        assert_eq!(slots(&first_sink), [7, 8]);
        assert_eq!(slots(&second_sink), [7]);
        assert!(receiver.try_recv().is_ok());
        assert_eq!(outbox.take_for_test(), 1);
    }

    #[test]
    fn who_is_gone_gets_nothing() {
        let answers = Answers::new(NodeId(1), []);
        let (number, sink) = answers.open_session();
        answers.close_session(number);
        let (call, _) = answers.open_call();
        answers.close_call(call);
        let stranger = Token { origin: NodeId(5), id: 0 };
        answers.deliver([answers.session_token(number, 0), call, stranger].map(|t| (t, written())));
        let mut ready = Vec::new();
        sink.take(&mut ready, Waker::noop()).unwrap();
        assert!(ready.is_empty());
    }

    #[test]
    fn sessions_end_once_they_have_taken_what_is_there_and_later_ones_at_once() {
        let answers = Answers::new(NodeId(1), []);
        let (number, sink) = answers.open_session();
        answers.deliver([(answers.session_token(number, 7), written())]);
        answers.close();
        let mut ready = Vec::new();
        assert_eq!(sink.take(&mut ready, Waker::noop()), Ok(()));
        assert_eq!(ready.len(), 1);
        assert_eq!(sink.take(&mut Vec::new(), Waker::noop()), Err(Ended::Closed));
        let (_, late) = answers.open_session();
        assert_eq!(late.take(&mut Vec::new(), Waker::noop()), Err(Ended::Closed));
    }

    #[test]
    fn a_session_that_takes_nothing_is_cut_off() {
        let answers = Answers::new(NodeId(1), []);
        let (number, sink) = answers.open_session();
        let row = Row { value: vec![0; ANSWER_BYTES_MAX / 2].into(), revision: Revision(1) };
        let reply = Reply::Value { row: Some(row), at: Index(1), revision: Revision(1) };
        let token = answers.session_token(number, 0);
        answers.deliver([(token, Delivery::reply(reply.clone())), (token, Delivery::reply(reply))]);
        assert_eq!(sink.take(&mut Vec::new(), Waker::noop()), Err(Ended::TooSlow));
    }

    #[test]
    fn values_that_nobody_takes_share_what_the_node_has_for_them() {
        let answers = Answers::new(NodeId(1), []);
        let sessions: Vec<_> = (0..4).map(|_| answers.open_session()).collect();
        let half = LARGE_ANSWERS_BYTES / 2 - 1024;
        for (number, _) in &sessions {
            let row = Row { value: vec![0; half].into(), revision: Revision(1) };
            let reply = Reply::Value { row: Some(row), at: Index(1), revision: Revision(1) };
            answers.deliver([(answers.session_token(*number, 0), Delivery::reply(reply))]);
        }
        let told = |sink: &Sink| {
            let mut ready = Vec::new();
            sink.take(&mut ready, Waker::noop()).unwrap();
            matches!(ready[0].1, Delivery::Reply { reply: Reply::Value { .. }, .. })
        };
        let got: Vec<bool> = sessions.iter().map(|(_, sink)| told(sink)).collect();
        assert_eq!(got, [true, true, false, false]);
        assert_eq!(answers.large.left(), LARGE_ANSWERS_BYTES, "what is taken gives its room back");
    }
}
