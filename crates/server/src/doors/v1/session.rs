//! A session: requests pipelined on one stream, answers batched as they come.
//!
//! One object is both directions. Whenever HTTP/2 has room for more answers, it takes the frames that have come
//! in, puts all their requests into the [`Pipeline`], and makes one frame of all answers that have collected. So a client
//! that does not take its answers is not read from either.

use std::pin::Pin;
use std::task::{Context, Poll};

use ringfort_proto::session::{self, OpKind};
use ringfort_proto::v1;
use ringfort_types::limits::{GET_MANY_BYTES_MAX, GRPC_MESSAGE_BYTES_MAX};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::answers::Over;
use crate::gate::{Gate, Order, Pipeline};

/// Frames read before answers are looked after.
const FRAMES_PER_POLL: usize = 32;

// A frame has about a megabyte of answers, and one more.
const _: () = assert!(1024 * 1024 + GET_MANY_BYTES_MAX < GRPC_MESSAGE_BYTES_MAX);

/// One session's stream of answers, which also reads its requests.
pub(crate) struct Session {
    input: Option<Streaming<v1::SessionRequest>>,
    /// Each call with the client's number for it, and the kind of answer that it wants.
    calls: Pipeline<(u64, OpKind)>,
}

impl Session {
    pub(crate) fn new(gate: &Gate, input: Streaming<v1::SessionRequest>) -> Session {
        Session { input: Some(input), calls: gate.pipeline(Order::AsAnswered) }
    }

    /// Reads what has come in. `Err` if the stream broke; whoever broke it waits for nothing.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..FRAMES_PER_POLL {
            if !self.calls.has_room() {
                // An answer wakes us.
                return Ok(());
            }
            let Some(input) = &mut self.input else { return Ok(()) };
            match Pin::new(input).poll_next(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(Some(frame)) => self.submit(frame?),
                Poll::Ready(None) => {
                    self.input = None;
                    return Ok(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Ok(())
    }

    fn submit(&mut self, frame: v1::SessionRequest) {
        for op in frame.ops {
            match session::call_of(op.request, op.timeout_ms) {
                Ok((kind, call)) => self.calls.push((op.id, kind), call),
                Err(failure) => self.calls.refuse((op.id, OpKind::Get), failure),
            }
        }
        self.calls.submit();
    }
}

impl Stream for Session {
    type Item = Result<v1::SessionResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if let Err(status) = this.read(cx) {
            this.input = None;
            return Poll::Ready(Some(Err(status)));
        }
        let mut results = Vec::new();
        let answered = this.calls.poll_answers(cx, |(id, kind), answer| {
            let bytes = answer.reply.weight();
            results.push(session::result_of(id, kind, answer.leader, answer.reply));
            bytes
        });
        match answered {
            Poll::Ready(Err(Over::Closed)) => Poll::Ready(None),
            Poll::Ready(Err(Over::TooSlow)) => Poll::Ready(Some(Err(Status::resource_exhausted(
                "the session leaves too many answers unread: read them as they come",
            )))),
            Poll::Ready(Ok(())) => Poll::Ready(Some(Ok(v1::SessionResponse { results }))),
            Poll::Pending if this.input.is_none() && this.calls.under_way() == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
