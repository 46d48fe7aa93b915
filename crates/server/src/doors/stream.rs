//! Rows as a stream of gRPC messages, for a reader that may be slow or gone.
//!
//! Bounds: [`MESSAGES_WAITING`] messages wait for the client; one that takes nothing for [`LIST_IDLE_MS`] is cut off. What the
//! HTTP/2 library has taken it holds until the client reads it, which nobody here can hasten: so the room of a large row is
//! given back only when the library asks for the next message, or the stream is gone.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use ringfort_proto::status;
use ringfort_types::limits::LIST_IDLE_MS;
use ringfort_types::{Code, Failure};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use crate::gate::{self, Batch, Gate, Rows, TOUCH_AFTER};

/// Messages that wait for the client to take them.
const MESSAGES_WAITING: usize = 1;

/// A message on its way, and what is to be held as long as it is in memory.
type Message<M> = (Result<M, Status>, Option<OwnedSemaphorePermit>);

/// The messages, as the client takes them.
#[derive(Debug)]
pub(crate) struct Messages<M> {
    receiver: mpsc::Receiver<Message<M>>,
    /// The last message's.
    held: Option<OwnedSemaphorePermit>,
    /// Why there are no more, if not all have come. It waits as long as the client likes: without it the stream would seem whole.
    failed: oneshot::Receiver<Status>,
}

impl<M> Stream for Messages<M> {
    type Item = Result<M, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.held = None;
        let Some((message, held)) = ready!(self.receiver.poll_recv(cx)) else {
            return Poll::Ready(self.failed.try_recv().ok().map(Err));
        };
        self.held = held;
        Poll::Ready(Some(message))
    }
}

/// Makes messages of rows, some at a time, and sends them until there are no more, or the node stops.
pub(super) fn stream_rows<M, I>(
    gate: &Gate,
    mut rows: Rows,
    messages: impl Fn(Batch) -> I + Send + Sync + 'static,
) -> Messages<M>
where
    M: Send + 'static,
    I: IntoIterator<Item = Result<M, Failure>, IntoIter: Send> + Send,
{
    let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
    let (failing, failed) = oneshot::channel();
    let mut stopping = gate.stopping();
    tokio::spawn(async move {
        let sending = async {
            while let Some(mut batch) = rows.next().await? {
                let mut large = batch.large.take();
                // A large row comes alone, so that it makes one message.
                for message in messages(batch) {
                    send(&mut rows, &sender, (Ok(message?), large.take())).await?;
                }
            }
            Ok(())
        };
        let result = tokio::select! {
            result = sending => result,
            () = sender.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(gate::stopping())
            }
        };
        drop(rows);
        if let Err(failure) = result {
            let _gone = failing.send(status::from_failure(failure));
        }
        // The client sees the end only now that it is known why.
        drop(sender);
    });
    Messages { receiver, held: None, failed }
}

/// Sends a message, and meanwhile keeps readable what this stream still needs.
async fn send<M>(
    rows: &mut Rows,
    sender: &mpsc::Sender<Message<M>>,
    mut message: Message<M>,
) -> Result<(), Failure> {
    let started = Instant::now();
    let idle_max = Duration::from_millis(LIST_IDLE_MS);
    loop {
        rows.touch().await;
        let left = idle_max.saturating_sub(started.elapsed());
        match sender.send_timeout(message, left.min(TOUCH_AFTER)).await {
            Ok(()) => return Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(unsent)) if started.elapsed() < idle_max => {
                message = unsent;
            }
            Err(_) => {
                return Err(Failure::rejected(
                    Code::ResourceExhausted,
                    "the list's reader has taken nothing for 30 seconds: read faster, or go on from the last key",
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test]
    async fn a_stream_that_failed_says_so_however_late_it_is_read() {
        let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
        let (failing, failed) = oneshot::channel();
        let mut messages = Messages { receiver, held: None, failed };
        sender.try_send((Ok(1), None)).unwrap();
        failing.send(Status::resource_exhausted("too slow")).unwrap();
        drop(sender);
        assert_eq!(messages.next().await.unwrap().unwrap(), 1);
        assert_eq!(messages.next().await.unwrap().unwrap_err().message(), "too slow");
        assert!(messages.next().await.is_none());
    }
}
