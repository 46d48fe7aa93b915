//! One pipelined stream to one node.
//!
//! Two halves around [`Pending`]: the outgoing one is polled by the HTTP/2 connection itself and takes whatever is
//! queued as one frame, so that frames grow with the load and nothing is copied between tasks; the incoming one is a
//! task that completes callers and sweeps overdue requests. The session ends when the stream does, for
//! whatever reason; a new one is a new [`Session`].

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringfort_proto::session::reply_of;
use ringfort_proto::status::to_failure;
use ringfort_proto::v1::SessionRequest;
use ringfort_proto::v1::kv_client::KvClient;
use ringfort_types::limits::GRPC_MESSAGE_BYTES_MAX;
use ringfort_types::{Call, Code, Failure, Outcome};
use tokio::sync::oneshot;
use tokio_stream::Stream;
use tonic::Status;

use crate::credentials::Authorized;
use crate::pending::{Answer, Pending};
use ringfort_proto::reason::reason;

/// How often overdue requests are looked for. A time-out is late by at most this much.
const SWEEP: Duration = Duration::from_millis(25);

/// The stream's handle. Dropping it ends the stream.
#[derive(Debug)]
pub(crate) struct Session {
    pending: Arc<Pending>,
}

impl Session {
    /// Opens a stream over `channel`. Requests may be submitted at once.
    pub(crate) fn open(channel: Authorized, address: String) -> Session {
        let pending = Arc::new(Pending::new());
        tokio::spawn(run(channel, address, pending.clone()));
        Session { pending }
    }

    /// Sends a request; the answer comes over the channel, at the latest a little after the deadline.
    pub(crate) fn submit(&self, call: Call, deadline: Instant) -> Result<oneshot::Receiver<Answer>, Failure> {
        self.pending.submit(call, deadline)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.pending.is_closed()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.pending.close(&Failure::rejected(Code::Unavailable, "the connection was closed"), true);
    }
}

/// What is queued, as a stream of frames.
struct Outgoing(Arc<Pending>);

impl Stream for Outgoing {
    type Item = SessionRequest;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<SessionRequest>> {
        self.0.take_frame(context)
    }
}

async fn run(channel: Authorized, address: String, pending: Arc<Pending>) {
    let mut client = KvClient::new(channel)
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let ended = tokio::select! {
        biased;
        ended = receive(&mut client, &pending) => ended,
        () = sweep(&pending) => return,
    };
    let mut why = to_failure(&ended);
    let broke = std::error::Error::source(&ended);
    let cause = broke.map_or_else(|| why.message.clone(), reason);
    if why.code == Code::Unauthenticated {
        // The session was never opened; whoever asks again has to be somebody else.
        return pending.close(&why, false);
    }
    why.message = format!("lost the connection to {address}: {cause}");
    // What the stream's end says is not what a request failed of: that is up to each of them. But a node that rejects the rest of
    // a stream has answered all that it has taken of it.
    why.code = Code::Unavailable;
    pending.close(&why, broke.is_some() || why.outcome == Outcome::Unknown);
}

/// Completes callers until the stream ends; returns why it did.
async fn receive(client: &mut KvClient<Authorized>, pending: &Arc<Pending>) -> Status {
    let mut incoming = match client.session(Outgoing(pending.clone())).await {
        Ok(response) => response.into_inner(),
        Err(status) => return status,
    };
    loop {
        match incoming.message().await {
            Ok(Some(frame)) => pending.complete(frame.results.into_iter().map(|result| {
                let (id, leader, reply) = reply_of(result);
                (id, Answer { leader, reply })
            })),
            Ok(None) => return Status::unavailable("the node closed the stream"),
            Err(status) => return status,
        }
    }
}

/// Ends overdue requests until the session is closed.
async fn sweep(pending: &Pending) {
    while !pending.is_closed() {
        if pending.sweep(Instant::now()) {
            tokio::time::sleep(SWEEP).await;
        } else {
            pending.until_busy().await;
        }
    }
}
