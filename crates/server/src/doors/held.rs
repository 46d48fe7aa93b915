//! Large answers on their way to gRPC clients, which may take their time, or nothing at all.
//!
//! A door puts the [`Room`] of its answer into the response ([`response`]). Here the response's body keeps it until the HTTP/2 library has
//! taken all of it, which it is given in pieces of [`PIECE_BYTES`], so that the library itself never holds much more than a client
//! takes. Of an answer that nobody takes anything of for [`ANSWER_IDLE_MS`] the bytes are dropped, and its stream is reset when the
//! library next asks. While the connection takes other things, the answer may be behind them in the library's queue, and has
//! [`ANSWER_QUEUED_MS`]. The same holds for a session's stream of answers ([`stream`]), which holds its room itself. Each stream takes
//! some kilobytes besides, and the library may never ask again: a connection that has many calls under way is closed once nothing of one
//! of its answers is taken for as long.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::{Request, Response};
use http_body::Frame;
use ringfort_types::limits::{ANSWER_IDLE_MS, ANSWER_QUEUED_MS};
use tokio::task::AbortHandle;
use tokio::time::Instant;
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;
use tower_service::Service;

use crate::doors::frames::{self, Elsewhere};
use crate::doors::places::{Closed, Standing};
use crate::room::Room;

/// What the HTTP/2 library is given at a time.
const PIECE_BYTES: usize = 64 * 1024;
const IDLE_MAX: Duration = Duration::from_millis(ANSWER_IDLE_MS);
const QUEUED_MAX: Duration = Duration::from_millis(ANSWER_QUEUED_MS);

/// A door's answer, with what it holds.
pub(super) fn response<M>(message: M, room: Room) -> tonic::Response<M> {
    let mut response = tonic::Response::new(message);
    if room.is_some() {
        response.extensions_mut().insert(room);
    }
    response
}

/// A response of these frames, whose client is to take what there is in it.
pub(super) fn stream<M>(
    frames: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> tonic::Response<Elsewhere<M>> {
    let mut response = frames::response(frames);
    response.extensions_mut().insert(Room::default());
    response
}

/// Goes with a call whose connection has more than `UNTAKEN_ANSWERS_MAX` under way.
#[derive(Clone)]
pub(super) struct OneOfMany;

/// Answers of `S`, held as long as they are in memory.
#[derive(Clone)]
pub(crate) struct HeldAnswers<S>(pub(crate) S);

impl<S> Service<Request<Body>> for HeldAnswers<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Held<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Held<S::Future> {
        let is_full = request.extensions_mut().remove::<OneOfMany>().is_some();
        let from = request.extensions().get::<Arc<Standing>>().cloned();
        let from = from.map(|connection| Asker { connection, is_full });
        Held { answer: self.0.call(request), from }
    }
}

/// An answer that is to be held, if it is a large one, a stream, or one of many.
pub(crate) struct Held<F> {
    answer: F,
    from: Option<Asker>,
}

/// Whose answer it is.
struct Asker {
    connection: Arc<Standing>,
    /// It has many under way.
    is_full: bool,
}

impl<F, E> Future for Held<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut response = ready!(Pin::new(&mut self.answer).poll(cx))?;
        frames::put_body(&mut response);
        let room = response.extensions_mut().remove::<Room>();
        let from = self.from.take();
        if room.is_none() && !from.as_ref().is_some_and(|from| from.is_full) {
            return Poll::Ready(Ok(response));
        }
        let room = room.unwrap_or_default();
        Poll::Ready(Ok(response.map(|body| Body::new(HeldBody::new(body, room, from)))))
    }
}

/// The body of such an answer.
struct HeldBody {
    state: Arc<Mutex<State>>,
    watch: AbortHandle,
}

/// What is left of it; nothing once nobody has taken any for too long.
struct State {
    rest: Option<Rest>,
    /// Since when there is something to take; `None` while the client waits for more.
    waits: Option<Instant>,
}

struct Rest {
    body: Body,
    /// Of the body's last frame.
    piece: Bytes,
    /// Whether that is not all of it.
    is_cut: bool,
    _room: Room,
}

impl HeldBody {
    fn new(body: Body, room: Room, from: Option<Asker>) -> HeldBody {
        let rest = Some(Rest { body, piece: Bytes::new(), is_cut: false, _room: room });
        let state = Arc::new(Mutex::new(State { rest, waits: Some(Instant::now()) }));
        let watch = tokio::spawn(watch(state.clone(), from)).abort_handle();
        HeldBody { state, watch }
    }
}

impl Drop for HeldBody {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

/// Drops what nobody takes: the library may never ask for it again.
async fn watch(state: Arc<Mutex<State>>, from: Option<Asker>) {
    loop {
        let waits = lock(&state).waits;
        let left = waits.map_or(IDLE_MAX, |since| time_left(since, from.as_ref()));
        if left.is_zero() {
            lock(&state).rest = None;
            if let Some(full) = from.filter(|from| from.is_full) {
                full.connection.close(Closed::NothingTaken);
            }
            return;
        }
        tokio::time::sleep(left).await;
    }
}

/// How long an answer may still wait of which nothing has been taken since then.
fn time_left(since: Instant, from: Option<&Asker>) -> Duration {
    let taken = from.map_or(since, |from| from.connection.taken().max(since));
    let idle = IDLE_MAX.saturating_sub(taken.elapsed());
    idle.min(QUEUED_MAX.saturating_sub(since.elapsed()))
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl http_body::Body for HeldBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut state = lock(&self.state);
        let State { rest, waits } = &mut *state;
        *waits = None;
        let Some(rest) = rest else {
            let why = "the client has taken nothing of the answer for too long";
            return Poll::Ready(Some(Err(Status::cancelled(why))));
        };
        if rest.piece.is_empty() {
            match ready!(Pin::new(&mut rest.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => rest.piece = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                other => return Poll::Ready(other),
            }
        }
        *waits = Some(Instant::now());
        if rest.piece.len() <= PIECE_BYTES && !rest.is_cut {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut rest.piece)))));
        }
        // A copy, since the last piece that waits for the client would keep all of the answer in memory, and the room is gone then.
        let piece = Bytes::copy_from_slice(&rest.piece[..rest.piece.len().min(PIECE_BYTES)]);
        rest.piece.advance(piece.len());
        rest.is_cut = !rest.piece.is_empty();
        if !rest.is_cut {
            // What is empty keeps in memory what it was a part of.
            rest.piece = Bytes::new();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use http_body::Body as _;
    use ringfort_types::limits::TAKEN_BYTES_MIN;

    use super::*;
    use crate::doors::places::{Entered, Places};
    use crate::room::LargeAnswers;

    /// A connection with a call that it waits for.
    async fn connection(is_full: bool) -> (Entered, Asker) {
        let door = Places::default().at_door("test", 1);
        let entered = door.enter(door.ticket([127, 0, 0, 1].into(), false).unwrap()).await.unwrap();
        let connection = entered.standing().clone();
        (entered, Asker { connection, is_full })
    }

    fn is_closed(connection: &Entered) -> bool {
        connection.standing().poll_closed(&Context::from_waker(Waker::noop()))
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_in_the_queue_waits_as_long_as_its_connection_takes_something() {
        let answers = LargeAnswers::default();
        let large = 10 * PIECE_BYTES;
        let before = answers.left();
        for stops in [true, false] {
            let (connection, from) = connection(true).await;
            let mut held = HeldBody::new(body(vec![7; large]), answers.wait(large, None).await, Some(from));
            let mut next = async || poll_fn(|cx| Pin::new(&mut held).poll_frame(cx)).await.unwrap();
            next().await.unwrap();
            let first = Instant::now();
            while first.elapsed() + IDLE_MAX < QUEUED_MAX {
                connection.standing().take(TAKEN_BYTES_MIN);
                tokio::time::sleep(IDLE_MAX.mul_f32(0.9)).await;
                assert!(!is_closed(&connection) && answers.left() < before);
            }
            next().await.unwrap();
            let second = Instant::now();
            while !is_closed(&connection) {
                let bytes = if stops { TAKEN_BYTES_MIN - 1 } else { TAKEN_BYTES_MIN };
                if !stops || second.elapsed() < Duration::from_secs(1) {
                    connection.standing().take(bytes);
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let wanted = if stops { IDLE_MAX } else { QUEUED_MAX };
            assert!(
                (wanted..wanted + Duration::from_secs(2)).contains(&second.elapsed()),
                "{:?}",
                second.elapsed()
            );
            assert_eq!(answers.left(), before);
            assert!(next().await.is_err());
        }
    }

    /// Of one frame.
    fn body(bytes: Vec<u8>) -> Body {
        Body::new(http_body_util::Full::new(Bytes::from(bytes)))
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_comes_in_pieces_and_one_that_nobody_takes_is_dropped() {
        let answers = LargeAnswers::default();
        let large = 10 * PIECE_BYTES + 1;
        let before = answers.left();
        let mut held = HeldBody::new(body(vec![7; large]), answers.wait(large, None).await, None);
        let mut next = async || poll_fn(|cx| Pin::new(&mut held).poll_frame(cx)).await;
        let mut bytes = 0;
        while let Some(frame) = next().await {
            let data = frame.unwrap().into_data().unwrap();
            assert!(data.len() <= PIECE_BYTES);
            bytes += data.len();
            // A slow client is no idle one.
            tokio::time::sleep(IDLE_MAX / 2).await;
        }
        assert_eq!(bytes, large);
        drop(held);
        tokio::task::yield_now().await;
        assert_eq!(answers.left(), before);

        let mut held = HeldBody::new(body(vec![7; large]), answers.wait(large, None).await, None);
        assert!(poll_fn(|cx| Pin::new(&mut held).poll_frame(cx)).await.unwrap().is_ok());
        tokio::time::sleep(IDLE_MAX + Duration::from_secs(1)).await;
        assert_eq!(answers.left(), before, "its room is given back although nobody asked again");
        assert!(poll_fn(|cx| Pin::new(&mut held).poll_frame(cx)).await.unwrap().is_err());
    }
}
