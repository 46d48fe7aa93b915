//! The bounded queue in front of the core, and the plain ones in front of its helpers.
//!
//! Both hand over everything that waits in one exchange of vectors, so that a busy consumer takes the lock
//! once a turn, and a producer wakes it only if it sleeps: while it works, a push is a lock and a copy.
//!
//! Invariants: what clients send is refused, not queued, beyond [`REQUESTS_MAX`] and [`REQUEST_BYTES_MAX`];
//! what peers send makes their readers wait beyond [`PEER_BYTES_MAX`]; the rest is bounded by what the node
//! has under way. Producers never block on a full queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ringfort_node::{Event, Incoming};
use ringfort_types::PeerFrame;

/// Most requests that wait for the core.
pub(crate) const REQUESTS_MAX: usize = 64 * 1024;
/// Most bytes of requests that wait for the core.
pub(crate) const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes of peers' frames that wait for the core before their readers pause.
pub(crate) const PEER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most requests handed to the core in one turn; more wait for the next.
const TURN_REQUESTS_MAX: usize = 8 * 1024;

/// Everything that waits for the core.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    state: Mutex<InboxState>,
}

#[derive(Debug, Default)]
struct InboxState {
    events: Vec<Event>,
    requests: Vec<Incoming>,
    request_bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
    peer_bytes: usize,
    /// How often requests found no room.
    refused: u64,
    /// Set while the core sleeps.
    waker: Option<Waker>,
    closed: bool,
}

/// How full the inbox is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InboxLoad {
    pub(crate) requests: usize,
    pub(crate) request_bytes: usize,
    /// Of peers' frames.
    pub(crate) peer_bytes: usize,
    /// How often requests found no room.
    pub(crate) refused: u64,
}

impl InboxState {
    fn has_room(&mut self, requests: usize, bytes: usize) -> bool {
        let has_room =
            self.requests.len() + requests <= REQUESTS_MAX && self.request_bytes + bytes <= REQUEST_BYTES_MAX;
        self.refused += u64::from(!has_room);
        has_room && !self.closed
    }
}

/// What the core is to handle in one turn.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    /// Everything but clients' requests, in the order of arrival.
    pub(crate) events: Vec<Event>,
    /// Clients' requests, of all connections.
    pub(crate) requests: Vec<Incoming>,
    /// How long the first of them has waited.
    pub(crate) waited: Duration,
}

impl Inbox {
    /// Adds an event of this node's own threads.
    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        state.events.push(event);
        wake(state);
    }

    /// Adds an event that the core need not be woken for, unless `urgent` says so afterwards: it is seen
    /// before the core next sleeps. (Asked afterwards, so that whoever begins to wait in between finds the event.)
    pub(crate) fn push_quietly(&self, event: Event, urgent: &AtomicBool) {
        self.lock().events.push(event);
        if urgent.load(Ordering::SeqCst) {
            wake(self.lock());
        }
    }

    /// Adds a peer's frame of so many bytes.
    pub(crate) fn push_frame(&self, link: u64, frame: PeerFrame, bytes: usize) {
        let mut state = self.lock();
        state.events.push(Event::Peer { link, frame });
        state.peer_bytes += bytes;
        wake(state);
    }

    /// Whether a peer's reader should pause before the next frame.
    pub(crate) fn peers_must_wait(&self) -> bool {
        self.lock().peer_bytes > PEER_BYTES_MAX
    }

    /// How full it is.
    pub(crate) fn load(&self) -> InboxLoad {
        let state = self.lock();
        InboxLoad {
            requests: state.requests.len(),
            request_bytes: state.request_bytes,
            peer_bytes: state.peer_bytes,
            refused: state.refused,
        }
    }

    /// Adds clients' requests of so many bytes, and leaves `requests` empty; or, if they don't fit, returns
    /// false and leaves it alone.
    #[must_use]
    pub(crate) fn push_requests(&self, requests: &mut Vec<Incoming>, bytes: usize) -> bool {
        let mut state = self.lock();
        if !state.has_room(requests.len(), bytes) {
            return false;
        }
        state.since.get_or_insert_with(Instant::now);
        state.requests.append(requests);
        state.request_bytes += bytes;
        wake(state);
        true
    }

    /// Adds one request of so many bytes; false if it does not fit.
    #[must_use]
    pub(crate) fn push_request(&self, request: Incoming, bytes: usize) -> bool {
        let mut state = self.lock();
        if !state.has_room(1, bytes) {
            return false;
        }
        state.since.get_or_insert_with(Instant::now);
        state.requests.push(request);
        state.request_bytes += bytes;
        wake(state);
        true
    }

    /// Ends the core's next `take`.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        wake(state);
    }

    /// Waits for something to do.
    pub(crate) fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if !state.events.is_empty() || !state.requests.is_empty() || state.closed {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Moves what there is into `turn`, which is empty. False once the inbox is closed.
    pub(crate) fn take(&self, turn: &mut Turn) -> bool {
        let mut state = self.lock();
        state.waker = None;
        std::mem::swap(&mut state.events, &mut turn.events);
        state.peer_bytes = 0;
        turn.waited = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        if state.requests.len() <= TURN_REQUESTS_MAX {
            std::mem::swap(&mut state.requests, &mut turn.requests);
            state.request_bytes = 0;
        } else {
            turn.requests.extend(state.requests.drain(..TURN_REQUESTS_MAX));
            // Of these it is not known when they came.
            state.since = Some(Instant::now());
            state.request_bytes = state.requests.iter().map(|incoming| incoming.call.weight()).sum();
        }
        !state.closed
    }

    fn lock(&self) -> MutexGuard<'_, InboxState> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

fn wake(mut state: MutexGuard<'_, InboxState>) {
    if let Some(waker) = state.waker.take() {
        drop(state);
        waker.wake();
    }
}

/// A queue to one helper thread, which takes all that waits at once.
#[derive(Debug)]
pub(crate) struct Queue<T> {
    state: Mutex<QueueState<T>>,
    ready: Condvar,
}

#[derive(Debug)]
struct QueueState<T> {
    items: Vec<T>,
    /// When the first of them came.
    since: Option<Instant>,
    /// How long the first of those that were taken last had waited.
    waited: Duration,
    sleeping: bool,
    closed: bool,
}

/// Why [`Queue::take`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// There is something.
    Items,
    /// The deadline has passed, and there is nothing.
    Nothing,
    /// The queue is closed and empty.
    Closed,
}

impl<T> Default for Queue<T> {
    fn default() -> Queue<T> {
        let (items, since, waited) = (Vec::new(), None, Duration::ZERO);
        let state = QueueState { items, since, waited, sleeping: false, closed: false };
        Queue { state: Mutex::new(state), ready: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Adds an item. Ignored once the queue is closed.
    pub(crate) fn push(&self, item: T) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        state.since.get_or_insert_with(Instant::now);
        state.items.push(item);
        if std::mem::take(&mut state.sleeping) {
            drop(state);
            self.ready.notify_one();
        }
    }

    /// How many items wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().items.len()
    }

    /// No more items; the thread takes what is there and ends.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_one();
    }

    /// Waits for items and moves all of them into `items`, which is empty.
    pub(crate) fn take(&self, items: &mut Vec<T>, deadline: Option<Instant>) -> Taken {
        let mut state = self.lock();
        while state.items.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            state.sleeping = true;
            state = match deadline {
                None => self.ready.wait(state).expect("no holder of the lock panics"),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        state.sleeping = false;
                        return Taken::Nothing;
                    }
                    self.ready.wait_timeout(state, left).expect("no holder of the lock panics").0
                }
            };
            state.sleeping = false;
        }
        std::mem::swap(&mut state.items, items);
        state.waited = state.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        Taken::Items
    }

    /// How long the first of those that were taken last had waited.
    pub(crate) fn waited(&self) -> Duration {
        self.lock().waited
    }

    fn lock(&self) -> MutexGuard<'_, QueueState<T>> {
        self.state.lock().expect("no holder of the lock panics")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;
    use std::thread;

    use bytes::Bytes;
    use ringfort_types::{Consistency, NodeId, Request, Token};

    use super::*;

    fn incoming(id: u64) -> Incoming {
        Incoming {
            token: Token { origin: NodeId(1), id },
            call: Request::Get { key: Bytes::from_static(b"k"), consistency: Consistency::Linearizable }
                .into(),
        }
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(5)
    }

    #[test]
    fn the_inbox_refuses_requests_beyond_its_bounds_and_keeps_events() {
        let inbox = Inbox::default();
        let mut many: Vec<_> = (0..REQUESTS_MAX as u64).map(incoming).collect();
        assert!(inbox.push_requests(&mut many, 1));
        assert!(many.is_empty());
        assert!(!inbox.push_requests(&mut vec![incoming(0)], 1));
        inbox.push(Event::BirthSaved);
        let mut turn = Turn::default();
        assert!(inbox.take(&mut turn));
        assert_eq!((turn.events.len(), turn.requests.len()), (1, TURN_REQUESTS_MAX));
        assert!(inbox.push_requests(&mut vec![incoming(0)], 1));
        assert!(!inbox.push_requests(&mut vec![incoming(0)], REQUEST_BYTES_MAX));
        let InboxLoad { requests, refused, .. } = inbox.load();
        assert_eq!((requests, refused), (REQUESTS_MAX - TURN_REQUESTS_MAX + 1, 2));
    }

    #[test]
    fn the_inbox_wakes_the_core_once_and_quiet_events_only_if_urgent() {
        struct Count(AtomicUsize);
        impl Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        let waker = Waker::from(count.clone());
        let mut cx = Context::from_waker(&waker);
        let woken = || count.0.load(Ordering::Relaxed);
        let inbox = Inbox::default();
        let mut turn = Turn::default();

        assert!(inbox.poll_ready(&mut cx).is_pending());
        inbox.push(Event::BirthSaved);
        inbox.push(Event::BirthSaved);
        assert_eq!(woken(), 1);
        assert!(inbox.poll_ready(&mut cx).is_ready());
        assert!(inbox.take(&mut turn));

        assert!(inbox.poll_ready(&mut cx).is_pending());
        inbox.push_quietly(Event::BirthSaved, &AtomicBool::new(false));
        assert_eq!(woken(), 1);
        inbox.push_quietly(Event::BirthSaved, &AtomicBool::new(true));
        assert_eq!(woken(), 2);
        inbox.close();
        assert!(!inbox.take(&mut turn));
        assert!(!inbox.push_request(incoming(0), 1));
    }

    #[test]
    fn a_queue_hands_over_everything_in_order_and_empties_before_it_ends() {
        let queue = Arc::new(Queue::default());
        let other = queue.clone();
        let thread = thread::spawn(move || {
            let (mut all, mut items) = (Vec::new(), Vec::new());
            while other.take(&mut items, None) == Taken::Items {
                all.append(&mut items);
            }
            all
        });
        (0..1_000).for_each(|n| queue.push(n));
        queue.close();
        queue.push(1_000);
        assert_eq!(thread.join().unwrap(), (0..1_000).collect::<Vec<_>>());
        assert_eq!(queue.take(&mut Vec::new(), Some(soon())), Taken::Closed);
        assert_eq!(Queue::<u8>::default().take(&mut Vec::new(), Some(soon())), Taken::Nothing);
    }
}
