//! Large messages on their way in from gRPC clients, which may send half of one and then nothing.
//!
//! A message of more than [`LARGE_MESSAGE_BYTES`] that does not come at once takes as much of [`ARRIVING_BYTES`] as it has until it is
//! whole, before any of it goes further: gRPC says a message's length in front of it. Who finds none there waits, and is not read from
//! meanwhile. A message has [`MESSAGE_TIME`] to come whole, and [`CROWDED_TIME`] while others wait. Frames between nodes wait for no
//! client, and are bounded by their senders.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use ringfort_proto::status;
use ringfort_types::limits::{ARRIVING_BYTES, GRPC_MESSAGE_BYTES_MAX, LARGE_MESSAGE_BYTES};
use ringfort_types::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep, sleep, timeout};
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::links;

/// How long a message may take to come whole, once it has room.
const MESSAGE_TIME: Duration = Duration::from_secs(30);
/// The same, while others wait for room.
const CROWDED_TIME: Duration = Duration::from_secs(5);
/// How long it may wait for room.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(10);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_millis(250);
/// What stands in front of a message: whether it is compressed, and its length in four bytes (gRPC over HTTP/2,
/// "Length-Prefixed-Message").
const PREFIX_BYTES: usize = 5;

/// What a node has for them.
#[derive(Clone, Debug)]
struct Room(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    bytes: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What a message has of it.
struct Place {
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Default for Room {
    fn default() -> Room {
        Room(Arc::new(Parts {
            bytes: Arc::new(Semaphore::new(ARRIVING_BYTES)),
            waiting: AtomicUsize::new(0),
        }))
    }
}

impl Room {
    /// Waits for so much; `None` if there is none in time.
    async fn wait(self, bytes: usize) -> Option<Place> {
        let Parts { bytes: all, waiting } = &*self.0;
        let _counted = Counted::among(waiting);
        let permit = timeout(ROOM_WAIT_MAX, all.clone().acquire_many_owned(bytes as u32)).await.ok()?;
        Some(Place { since: Instant::now(), _permit: permit.expect("the semaphore is never closed") })
    }

    fn time_left(&self, place: &Place) -> Duration {
        let is_crowded = self.0.waiting.load(Ordering::Relaxed) > 0;
        let time = if is_crowded { CROWDED_TIME } else { MESSAGE_TIME };
        time.saturating_sub(place.since.elapsed())
    }
}

/// Waits for a place; there is none if none was free in time.
type Waiting = Pin<Box<dyn Future<Output = Option<Place>> + Send>>;

/// One that waits, as others see it.
struct Counted<'a>(&'a AtomicUsize);

impl Counted<'_> {
    fn among(waiting: &AtomicUsize) -> Counted<'_> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Counted(waiting)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

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
        if links::is_of_a_node(&request) {
            return self.calls.call(request);
        }
        self.calls.call(request.map(|body| Body::new(ArrivingBody::new(body, self.room.clone()))))
    }
}

/// A call's messages, in the pieces in which they come.
struct ArrivingBody {
    body: Body,
    room: Room,
    prefix: Prefix,
    /// Bytes of the message under way that have not come.
    missing: usize,
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
    fn new(body: Body, room: Room) -> ArrivingBody {
        ArrivingBody {
            body,
            room,
            prefix: Prefix::default(),
            missing: 0,
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
        self.place = None;
        loop {
            let length = self.prefix.take(&mut piece)?;
            if length > piece.len() {
                self.missing = length - piece.len();
                // What is longer than any may be is refused at once by its prefix.
                let needs_room = (LARGE_MESSAGE_BYTES + 1..=GRPC_MESSAGE_BYTES_MAX).contains(&length);
                return needs_room.then_some(length);
            }
            piece = &piece[length..];
        }
    }

    /// There is nothing to read now: an error once that has been so for too long.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Some(place) = &self.place else { return Poll::Pending };
        loop {
            let left = self.room.time_left(place);
            if left.is_zero() {
                let why = "the message has not come whole in its time (30 s, or 5 s while others wait): send it again";
                return Poll::Ready(Failure::rejected(Code::DeadlineExceeded, why));
            }
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(left.min(LOOK))));
            ready!(look.as_mut().poll(cx));
            self.look = None;
        }
    }
}

impl http_body::Body for ArrivingBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let failed = |failure| Poll::Ready(Some(Err(status::from_failure(failure))));
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
        (sender, ArrivingBody::new(body, room.clone()))
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
}
