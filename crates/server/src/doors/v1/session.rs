//! A session: requests pipelined on one stream, answers batched as they come.
//!
//! One object is both directions. Whenever HTTP/2 has room for more answers, it takes the frames that have come
//! in, puts all their requests into the [`Pipeline`], and makes one frame of all answers that have collected. So a client
//! that does not take its answers is not read from either.
//!
//! A frame that can't be read ends the session, but not before all that came before it is answered. Nor does a node that stops end
//! it before: frames that come in the last moments are answered that it is stopping. So whatever a session that has ended so has not answered
//! was never taken, and its status says that with the outcome `rejected`.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ringfort_proto::session::{self, OpKind};
use ringfort_proto::v1::FRAME_OPS_MAX;
use ringfort_proto::{sized, status, v1};
use ringfort_types::limits::{GET_MANY_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX, SESSION_STOP_MS};
use ringfort_types::{Code, Failure};
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::answers::Ended;
use crate::gate::{Gate, Order, Pipeline};

/// Frames read before answers are looked after.
const FRAMES_PER_POLL: usize = 32;

/// How long a node that stops goes on turning down the frames of a client that has not heard of it yet, or has not heeded it.
const REST_MAX: Duration = Duration::from_millis(SESSION_STOP_MS);

// A frame has about a megabyte of answers, and one more.
const _: () = assert!(1024 * 1024 + GET_MANY_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);

/// One session's stream of answers, which also reads its requests.
pub(crate) struct Session {
    input: Option<Streaming<v1::SessionRequest>>,
    /// Each call with the client's number for it, and the kind of answer that it wants.
    calls: Pipeline<(u64, OpKind)>,
    /// The largest frame of answers that the client takes.
    bytes_max: usize,
    /// Frames of answers that the client has not taken yet.
    frames: VecDeque<v1::SessionResponse>,
    /// Since the node has ended: until when frames that were on their way are still waited for.
    rest: Option<Pin<Box<Sleep>>>,
    /// Why nothing more is read. The client is told once all else is answered.
    broken: Option<Status>,
}

impl Session {
    pub(crate) fn new(gate: &Gate, input: Streaming<v1::SessionRequest>) -> Session {
        Session {
            input: Some(input),
            calls: gate.pipeline(Order::AsAnswered),
            bytes_max: GRPC_MESSAGE_BYTES_MAX,
            frames: VecDeque::new(),
            rest: None,
            broken: None,
        }
    }

    /// Reads what has come in.
    fn read(&mut self, cx: &mut Context<'_>) {
        for _ in 0..FRAMES_PER_POLL {
            if !self.calls.has_room() {
                // An answer wakes us.
                return;
            }
            let Some(input) = &mut self.input else { return };
            match Pin::new(input).poll_next(cx) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(frame))) => self.submit(frame),
                Poll::Ready(Some(Err(status))) => self.stop_reading(Some(status::from_transport(status))),
                Poll::Ready(None) => self.stop_reading(None),
            }
        }
        cx.waker().wake_by_ref();
    }

    fn stop_reading(&mut self, broken: Option<Status>) {
        self.input = None;
        self.broken = broken;
    }

    fn submit(&mut self, frame: v1::SessionRequest) {
        let asked = Some(frame.max_message_bytes).filter(|bytes| *bytes != 0);
        let sized = asked.map(sized::bytes_max).transpose();
        if let Ok(Some(bytes_max)) = sized {
            self.bytes_max = bytes_max;
        }
        for op in frame.ops {
            let call = session::call_of(op.request, op.timeout_ms);
            match sized.clone().and(call) {
                Ok((kind, call)) => self.calls.push((op.id, kind), call),
                Err(failure) => self.calls.refuse((op.id, OpKind::Get), failure),
            }
        }
        let surplus = frame.surplus.len();
        for id in frame.surplus {
            self.calls.refuse((id, OpKind::Get), too_many());
        }
        if frame.surplus_count > surplus {
            self.stop_reading(Some(status::from_failure(too_many())));
        }
        self.calls.submit();
    }
}

/// Said to each request of a frame that is beyond the bound.
fn too_many() -> Failure {
    let why = format!(
        "a frame has at most {FRAME_OPS_MAX} requests, each part of an atomic write and each key of several that are read at once \
         counted as one more: send this one in another frame"
    );
    Failure::rejected(Code::InvalidArgument, why)
}

impl Stream for Session {
    type Item = Result<v1::SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Some(frame) = this.frames.pop_front() {
            return Poll::Ready(Some(Ok(frame)));
        }
        this.read(cx);
        let mut results = Vec::new();
        let answered = this.calls.poll_answers(cx, |(id, kind), answer| {
            let bytes = answer.reply.weight();
            results.push(session::result_of(id, kind, answer.leader, answer.reply));
            bytes
        });
        match answered {
            // All that was read is answered, and all that is to come.
            Poll::Ready(Err(Ended::Closed)) if this.input.is_none() => {
                Poll::Ready(this.broken.take().map(Err))
            }
            Poll::Ready(Err(Ended::Closed)) => {
                let rest = this.rest.get_or_insert_with(|| Box::pin(sleep(REST_MAX)));
                ready!(rest.as_mut().poll(cx));
                let why =
                    "the node is stopping: ask another one for what is not answered, which was not taken";
                let failure = Failure::rejected(Code::Stopping, why);
                Poll::Ready(Some(Err(status::from_failure(failure))))
            }
            Poll::Ready(Err(Ended::TooSlow)) => {
                let why = "the session leaves too many answers unread: read them as they come";
                let failure = Failure::unknown(Code::ResourceExhausted, why);
                Poll::Ready(Some(Err(status::from_failure(failure))))
            }
            Poll::Ready(Ok(())) => {
                this.frames = sized::session_frames(results, this.bytes_max);
                Poll::Ready(this.frames.pop_front().map(Ok))
            }
            Poll::Pending if this.input.is_none() && this.calls.under_way() == 0 => {
                Poll::Ready(this.broken.take().map(Err))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}
