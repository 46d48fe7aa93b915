//! A session: requests pipelined on one stream, answers batched as they come.
//!
//! One object is both directions. Whenever HTTP/2 has room for more answers, it takes the frames that have come
//! in, puts all their requests on the core's queue at once, takes all answers that have collected, does the
//! reads among them, and makes one frame of them. So there is no task and no channel per request, and a client
//! that does not take its answers is not read from either.
//!
//! Invariants: each request is answered once; its slot is free for another only then. At most
//! [`CONNECTION_REQUESTS_MAX`] requests and [`CONNECTION_BYTES_MAX`] bytes of them are under way before reading
//! stops; the frame that crosses the bound is still taken, up to twice the number.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringfort_node::Incoming;
use ringfort_proto::session::{self, OpKind};
use ringfort_proto::v1;
use ringfort_types::limits::{CONNECTION_BYTES_MAX, CONNECTION_REQUESTS_MAX, GET_MANY_BYTES_MAX};
use ringfort_types::{Code, Failure, NodeId, Reply};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

use crate::answers::{Over, Sink, What};
use crate::shared::{Shared, busy};

/// A frame of answers is closed once it has this many bytes (one answer may be larger by itself).
const FRAME_BYTES_SOFT: usize = 1024 * 1024;
/// A frame of answers is closed once its reads have taken so long, which is looked at every so many answers: other
/// work waits for this thread.
const READING_MAX: Duration = Duration::from_millis(1);
const READS_PER_LOOK: usize = 16;
/// Frames read before answers are looked after.
const FRAMES_PER_POLL: usize = 32;

const _: () = assert!(FRAME_BYTES_SOFT + GET_MANY_BYTES_MAX < ringfort_types::limits::GRPC_MESSAGE_BYTES_MAX);

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The client's number for it.
    id: u64,
    kind: OpKind,
    bytes: u32,
}

/// One session's stream of answers, which also reads its requests.
pub(crate) struct Session {
    shared: Arc<Shared>,
    input: Option<Streaming<v1::SessionRequest>>,
    connection: u32,
    sink: Arc<Sink>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    bytes: usize,
    /// Collected, not yet sent; in reverse, so that the next is last.
    ready: Vec<(u32, What)>,
    /// Refused on arrival, not yet sent.
    refused: Vec<v1::SessionResult>,
    /// The last frame's requests, kept for its capacity.
    incoming: Vec<Incoming>,
}

impl Session {
    pub(crate) fn new(shared: Arc<Shared>, input: Streaming<v1::SessionRequest>) -> Session {
        let (connection, sink) = shared.answers.open_session();
        Session {
            shared,
            input: Some(input),
            connection,
            sink,
            slots: Vec::new(),
            free: Vec::new(),
            bytes: 0,
            ready: Vec::new(),
            refused: Vec::new(),
            incoming: Vec::new(),
        }
    }

    fn under_way(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Puts a frame's requests on the core's queue.
    fn submit(&mut self, frame: v1::SessionRequest) {
        let mut bytes = 0;
        for op in frame.ops {
            let (kind, call) = match session::call_of(op.request, op.timeout_ms) {
                Ok(call) => call,
                Err(failure) => {
                    self.refuse(op.id, OpKind::Get, failure);
                    continue;
                }
            };
            if self.under_way() >= 2 * CONNECTION_REQUESTS_MAX {
                let failure = Failure::rejected(
                    Code::ResourceExhausted,
                    format!(
                        "more than {CONNECTION_REQUESTS_MAX} requests unanswered on one session: send fewer at a time"
                    ),
                );
                self.refuse(op.id, kind, failure);
                continue;
            }
            let weight = call.weight();
            bytes += weight;
            let slot = self.hold(Slot { id: op.id, kind, bytes: weight as u32 });
            let token = self.shared.answers.session_token(self.connection, slot);
            self.incoming.push(Incoming { token, call });
        }
        if !self.incoming.is_empty() && !self.shared.inbox.push_requests(&mut self.incoming, bytes) {
            for incoming in std::mem::take(&mut self.incoming) {
                let slot = self.release(incoming.token.id as u32);
                self.refuse(slot.id, slot.kind, busy());
            }
        }
    }

    fn refuse(&mut self, id: u64, kind: OpKind, failure: Failure) {
        self.refused.push(session::result_of(id, kind, None, Reply::Failed(failure)));
    }

    fn hold(&mut self, slot: Slot) -> u32 {
        self.bytes += slot.bytes as usize;
        if let Some(at) = self.free.pop() {
            self.slots[at as usize] = slot;
            at
        } else {
            self.slots.push(slot);
            (self.slots.len() - 1) as u32
        }
    }

    fn release(&mut self, at: u32) -> Slot {
        let slot = self.slots[at as usize];
        self.bytes -= slot.bytes as usize;
        self.free.push(at);
        slot
    }

    /// Reads what has come in. `Err` if the stream broke; whoever broke it waits for nothing.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<(), Status> {
        for _ in 0..FRAMES_PER_POLL {
            if self.under_way() >= CONNECTION_REQUESTS_MAX || self.bytes >= CONNECTION_BYTES_MAX {
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

    /// The next frame of answers; empty if there are none.
    fn answers(&mut self, cx: &mut Context<'_>) -> Result<Vec<v1::SessionResult>, Over> {
        let mut results = std::mem::take(&mut self.refused);
        if self.ready.is_empty() {
            self.sink.take(&mut self.ready, cx.waker())?;
            self.ready.reverse();
        }
        results.reserve(self.ready.len());
        let (mut bytes, started) = (0, Instant::now());
        while bytes < FRAME_BYTES_SOFT
            && (!results.len().is_multiple_of(READS_PER_LOOK) || started.elapsed() < READING_MAX)
            && let Some((at, what)) = self.ready.pop()
        {
            let slot = self.release(at);
            let (reply, leader): (Reply, Option<NodeId>) = match what {
                What::Reply { reply, leader } => (reply, leader),
                What::Read(read) => (self.shared.readers.query(&read), None),
            };
            bytes += reply.weight();
            results.push(session::result_of(slot.id, slot.kind, leader, reply));
        }
        Ok(results)
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
        match this.answers(cx) {
            Err(Over::Closed) => Poll::Ready(None),
            Err(Over::TooSlow) => Poll::Ready(Some(Err(Status::resource_exhausted(
                "the session leaves too many answers unread: read them as they come",
            )))),
            Ok(results) if !results.is_empty() => Poll::Ready(Some(Ok(v1::SessionResponse { results }))),
            Ok(_) if this.input.is_none() && this.under_way() == 0 => Poll::Ready(None),
            Ok(_) => Poll::Pending,
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shared.answers.close_session(self.connection);
    }
}
