//! Large messages on their way in from gRPC clients, which may send half of one and then nothing.
//!
//! A message of more than [`LARGE_MESSAGE_BYTES`] that does not come at once takes as much of [`ARRIVING_BYTES`] as it has until it is
//! whole, before any of it goes further: gRPC says a message's length in front of it. Who finds none there waits, and is not read from
//! meanwhile. A message has [`MESSAGE_TIME`] to come whole, the only one of a unary call from the call's beginning on; a large one has
//! only [`CROWDED_TIME`] while others wait, and none has more than its call's deadline leaves. Who stands still gives its room back
//! then, whether somebody reads from it or not.
//!
//! Frames between nodes are bounded by their senders and wait for no client, once the first has said who is there.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use ringfort_proto::status;
use ringfort_types::limits::{
    ARRIVING_BYTES, GRPC_MESSAGE_BYTES_MAX, LARGE_MESSAGE_BYTES, MESSAGE_CROWDED_MS, MESSAGE_MS,
    MESSAGE_ROOM_MS,
};
use ringfort_types::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::doors::crowd::Crowd;
use crate::links;

/// How long a message may take to come whole, once it has room.
const MESSAGE_TIME: Duration = Duration::from_millis(MESSAGE_MS);
/// The same, while others wait for room.
const CROWDED_TIME: Duration = Duration::from_millis(MESSAGE_CROWDED_MS);
/// How long it may wait for room.
const ROOM_WAIT_MAX: Duration = Duration::from_millis(MESSAGE_ROOM_MS);
/// So much earlier than its deadline, or a fifth of it, a call ends whose message has not come, before the transport's timer ends it
/// without an outcome.
const EARLIER: Duration = Duration::from_millis(100);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_millis(250);
/// What stands in front of a message: whether it is compressed, and its length in four bytes (gRPC over HTTP/2,
/// "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// Methods whose clients send when they like. All others' have one message, which has to come.
const STREAMS: [&str; 2] = ["/Session", "/ServerReflectionInfo"];

/// What a node has for them.
#[derive(Clone, Debug)]
struct Room(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    bytes: Arc<Semaphore>,
    waiting: Crowd,
}

type Permit = Arc<Mutex<Option<OwnedSemaphorePermit>>>;

fn take(permit: &Permit) {
    permit.lock().unwrap_or_else(PoisonError::into_inner).take();
}

/// What a message has of it, until its time is over.
struct Place {
    since: Instant,
    permit: Permit,
    watch: AbortHandle,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.watch.abort();
        take(&self.permit);
    }
}

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Parts { bytes: Arc::new(Semaphore::new(ARRIVING_BYTES)), waiting: Crowd::default() }))
    }
}

impl Room {
    /// Waits for so much; `None` if there is none in time.
    async fn wait(self, bytes: usize) -> Option<Place> {
        let Parts { bytes: all, waiting } = &*self.0;
        let _waiting = waiting.join();
        let permit = timeout(ROOM_WAIT_MAX, all.clone().acquire_many_owned(bytes as u32)).await.ok()?;
        let permit = Arc::new(Mutex::new(Some(permit.expect("the semaphore is never closed"))));
        let since = Instant::now();
        let watch = tokio::spawn(self.clone().watch(since, permit.clone())).abort_handle();
        Some(Place { since, permit, watch })
    }

    fn time_left(&self, since: Instant) -> Duration {
        let time = if self.0.waiting.is_there() { CROWDED_TIME } else { MESSAGE_TIME };
        time.saturating_sub(since.elapsed())
    }

    /// Takes it back when its time is over: nobody may read from the one that has it.
    async fn watch(self, since: Instant, permit: Permit) {
        loop {
            let left = self.time_left(since);
            if left.is_zero() {
                take(&permit);
                return;
            }
            sleep(left.min(LOOK)).await;
        }
    }
}

/// Waits for a place; there is none if none was free in time.
type Waiting = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

/// Calls of `S`, whose messages come in bounded memory.
#[derive(Clone)]
pub(crate) struct Arriving<S> {
    calls: S,
    room: Room,
}

impl<S> Arriving<S> {
    pub(crate) fn before(calls: S) -> Arriving<S> {
        Arriving { calls, room: Room::default() }
    }
}

impl<S> Service<Request<Body>> for Arriving<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> S::Future {
        let from = if links::is_of_a_node(&request) { From::Node } else { From::Client };
        let may_be_silent = || STREAMS.iter().any(|method| request.uri().path().ends_with(method));
        let within = match status::asked(request.headers()) {
            Some(asked) => Some(asked.saturating_sub((asked / 5).min(EARLIER))),
            None if may_be_silent() => None,
            None => Some(MESSAGE_TIME),
        };
        let until = within.map(|within| Instant::now() + within);
        let room = self.room.clone();
        self.calls.call(request.map(|body| Body::new(ArrivingBody::new(body, room, from, until))))
    }
}

/// Who sends a call's messages.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Client,
    Node,
}

/// A call's messages, in the pieces in which they come.
struct ArrivingBody {
    body: Body,
    room: Room,
    from: From,
    /// The first message has to be whole then.
    until: Option<Instant>,
    /// One is.
    is_known: bool,
    prefix: Prefix,
    /// Bytes of the message under way that have not come.
    missing: usize,
    /// Since when it is under way.
    since: Option<Instant>,
    /// Its place, if it needs one.
    place: Option<Place>,
    /// A piece that waits for a place.
    held: Option<(Bytes, Waiting)>,
    look: Option<Pin<Box<Sleep>>>,
}

/// A message's prefix, as far as it has come.
#[derive(Default)]
struct Prefix {
    bytes: [u8; PREFIX_BYTES],
    count: usize,
}

impl Prefix {
    /// Takes what belongs to it off the front; the message's length once it is whole.
    fn take(&mut self, from: &mut &[u8]) -> Option<usize> {
        let count = from.len().min(PREFIX_BYTES - self.count);
        let (mine, rest) = from.split_at(count);
        self.bytes[self.count..][..count].copy_from_slice(mine);
        *from = rest;
        self.count += count;
        let [_, length @ ..] = self.bytes;
        let is_whole = self.count == PREFIX_BYTES;
        is_whole.then(|| {
            self.count = 0;
            u32::from_be_bytes(length) as usize
        })
    }
}

impl ArrivingBody {
    fn new(body: Body, room: Room, from: From, until: Option<Instant>) -> ArrivingBody {
        ArrivingBody {
            body,
            room,
            from,
            until,
            is_known: false,
            prefix: Prefix::default(),
            missing: 0,
            since: None,
            place: None,
            held: None,
            look: None,
        }
    }

    /// Looks through a piece; the bytes that a message needs room for which it begins and does not end.
    fn pass(&mut self, mut piece: &[u8]) -> Option<usize> {
        let passed = piece.len().min(self.missing);
        self.missing -= passed;
        piece = &piece[passed..];
        if self.missing > 0 {
            return None;
        }
        self.is_known |= passed > 0;
        (self.place, self.since) = (None, None);
        loop {
            let Some(length) = self.prefix.take(&mut piece) else {
                self.since = (self.prefix.count > 0).then(Instant::now);
                return None;
            };
            if length > piece.len() {
                self.missing = length - piece.len();
                self.since = Some(Instant::now());
                return self.needs_room(length).then(|| length.min(GRPC_MESSAGE_BYTES_MAX));
            }
            self.is_known = true;
            piece = &piece[length..];
        }
    }

    fn needs_room(&self, length: usize) -> bool {
        match self.from {
            // What is longer than any may be is refused at once by its prefix.
            From::Client => (LARGE_MESSAGE_BYTES + 1..=GRPC_MESSAGE_BYTES_MAX).contains(&length),
            From::Node => length > LARGE_MESSAGE_BYTES && !self.is_known,
        }
    }

    /// How long it may be until more comes; `None` for as long as the client likes.
    fn time_left(&self) -> Option<Duration> {
        if self.is_known && self.from == From::Node {
            return None;
        }
        let until = self.until.filter(|_| !self.is_known);
        let deadline = until.map(|until| until.saturating_duration_since(Instant::now()));
        let whole = match (&self.place, self.since) {
            (Some(place), _) => Some(self.room.time_left(place.since)),
            (None, since) => since.map(|since| MESSAGE_TIME.saturating_sub(since.elapsed())),
        };
        deadline.into_iter().chain(whole).min()
    }

    /// There is nothing to read now: an error once that has been so for too long.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        loop {
            let Some(left) = self.time_left() else { return Poll::Pending };
            if left.is_zero() {
                return Poll::Ready(late());
            }
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(left.min(LOOK))));
            ready!(look.as_mut().poll(cx));
            self.look = None;
        }
    }

    /// Whether its room has been taken back.
    fn is_over(&self) -> bool {
        let permit = |place: &Place| place.permit.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        self.place.as_ref().is_some_and(permit)
    }
}

fn late() -> Failure {
    let why = "the message has not come whole in its time (the call's deadline, or 30 s, or 5 s for a large one while others wait): \
               send it again";
    Failure::rejected(Code::DeadlineExceeded, why)
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let failed = |failure| Poll::Ready(Some(Err(status::from_failure(failure))));
        if self.is_over() {
            return failed(late());
        }
        if self.held.is_none() {
            let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => frame,
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => return failed(ready!(self.poll_time(cx))),
            };
            let Some(piece) = frame.data_ref() else { return Poll::Ready(Some(Ok(frame))) };
            let piece = piece.clone();
            let Some(wanted) = self.pass(&piece) else { return Poll::Ready(Some(Ok(frame))) };
            self.held = Some((piece, Box::pin(self.room.clone().wait(wanted))));
        }
        let (piece, waiting) = self.held.as_mut().expect("a piece is held");
        let (piece, place) = (piece.clone(), ready!(waiting.as_mut().poll(cx)));
        self.held = None;
        let Some(place) = place else {
            let why =
                "too many large messages are on their way to this node: try again later, or ask another node";
            return failed(Failure::rejected(Code::ResourceExhausted, why));
        };
        self.place = Some(place);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.held.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use http_body::Body as _;
    use tokio::sync::mpsc;
    use tokio_stream::StreamExt;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    fn message(bytes: usize) -> Bytes {
        [&[0][..], &(bytes as u32).to_be_bytes(), &vec![7; bytes]].concat().into()
    }

    /// A body that gets its pieces one by one.
    fn body(room: &Room) -> (mpsc::UnboundedSender<Bytes>, ArrivingBody) {
        let (sender, receiver) = mpsc::unbounded_channel::<Bytes>();
        let frames = UnboundedReceiverStream::new(receiver).map(|piece| Ok::<_, Status>(Frame::data(piece)));
        let body = Body::new(http_body_util::StreamBody::new(frames));
        (sender, ArrivingBody::new(body, room.clone(), From::Client, None))
    }

    async fn next(body: &mut ArrivingBody) -> Option<Result<Bytes, Status>> {
        let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
        Some(frame.map(|frame| frame.into_data().unwrap()))
    }

    fn left(room: &Room) -> usize {
        room.0.bytes.available_permits()
    }

    #[tokio::test]
    async fn messages_pass_however_they_are_cut_and_hold_room_only_while_they_come() {
        let large = 3 * LARGE_MESSAGE_BYTES;
        let all = [message(1), message(0), message(large), message(5)].concat();
        for piece_bytes in [1, 3, 7, 1_000, 16_384, all.len()] {
            let room = Room::default();
            let (sender, mut body) = body(&room);
            let (mut came, mut least) = (Vec::new(), usize::MAX);
            for piece in all.chunks(piece_bytes) {
                sender.send(Bytes::copy_from_slice(piece)).unwrap();
                came.extend_from_slice(&next(&mut body).await.unwrap().unwrap());
                least = least.min(left(&room));
            }
            drop(sender);
            assert!(next(&mut body).await.is_none());
            assert_eq!(came, all);
            assert_eq!(left(&room), ARRIVING_BYTES);
            let held = if piece_bytes == all.len() { 0 } else { large };
            assert_eq!(least, ARRIVING_BYTES - held, "pieces of {piece_bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_messages_end_and_make_room_for_others() {
        let room = Room::default();
        let half = message(ARRIVING_BYTES / 8).slice(..LARGE_MESSAGE_BYTES);
        let mut stalled = Vec::new();
        for _ in 0..8 {
            let (sender, mut body) = body(&room);
            sender.send(half.clone()).unwrap();
            assert!(next(&mut body).await.unwrap().is_ok());
            stalled.push((sender, tokio::spawn(async move { next(&mut body).await })));
        }
        assert_eq!(left(&room), 0);
        let began = Instant::now();
        let (sender, mut body) = body(&room);
        sender.send(half.clone()).unwrap();
        assert!(
            next(&mut body).await.unwrap().is_ok(),
            "it waits for those that stand still, and they are ended"
        );
        assert!(began.elapsed() <= CROWDED_TIME + LOOK, "{:?}", began.elapsed());
        for (_sender, ended) in stalled {
            let status = ended.await.unwrap().unwrap().unwrap_err();
            assert_eq!(status::to_failure(&status).code, Code::DeadlineExceeded);
        }
        let status = next(&mut body).await.unwrap().unwrap_err();
        assert!(began.elapsed() >= MESSAGE_TIME, "nobody waits any more");
        assert_eq!(status::to_failure(&status).outcome, ringfort_types::Outcome::Rejected);
        drop(body);
        assert_eq!(left(&room), ARRIVING_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_not_read_from_gives_its_room_back_too_and_small_halves_have_an_end() {
        let room = Room::default();
        let (sender, mut large) = body(&room);
        sender.send(message(ARRIVING_BYTES / 8).slice(..LARGE_MESSAGE_BYTES)).unwrap();
        assert!(next(&mut large).await.unwrap().is_ok());
        assert!(left(&room) < ARRIVING_BYTES);
        sleep(MESSAGE_TIME + LOOK).await;
        assert_eq!(left(&room), ARRIVING_BYTES);
        sender.send(vec![7; 9].into()).unwrap();
        assert!(next(&mut large).await.unwrap().is_err(), "its time is over, though more has come");

        let (sender, mut small) = body(&room);
        sender.send(message(100).slice(..3)).unwrap();
        assert!(next(&mut small).await.unwrap().is_ok());
        assert!(next(&mut small).await.unwrap().is_err());
        let (_sender, frames) = (sender, body(&room));
        let mut late = ArrivingBody { until: Some(Instant::now() + Duration::from_secs(2)), ..frames.1 };
        let begun = Instant::now();
        assert!(next(&mut late).await.unwrap().is_err());
        assert!(begun.elapsed() <= Duration::from_secs(2) + LOOK);
        let (sender, mut idle) = body(&room);
        sender.send(message(100)).unwrap();
        assert!(next(&mut idle).await.unwrap().is_ok());
        let waiting = timeout(Duration::from_hours(1), next(&mut idle)).await;
        assert!(waiting.is_err(), "a stream may be silent between messages");
    }
}
