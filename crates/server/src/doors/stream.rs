//! Rows as a stream of gRPC messages, for a reader that may be slow or gone.
//!
//! Bounds: [`FRAMES_WAITING`] frames wait for the client; one that takes nothing for [`LIST_IDLE_MS`] is cut off. What the
//! HTTP/2 library has taken it holds until the client reads it, which nobody here can hasten, and it takes one frame more than it has
//! room for (`findings/hyper_two_frames.sh`). So it is given a large row in pieces, which are copies: the row and its room are gone once
//! the last piece is taken, or the reader is cut off.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use prost::Message;
use ringfort_proto::status;
use ringfort_types::limits::LIST_IDLE_MS;
use ringfort_types::{Code, Failure};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use super::frames::{self, Elsewhere};
use crate::gate::{self, Batch, Gate, Rows, TOUCH_AFTER};

/// Frames that wait for the client to take them.
const FRAMES_WAITING: usize = 1;

/// The frames of a list, as the client takes them.
#[derive(Debug)]
struct Frames {
    receiver: mpsc::Receiver<Bytes>,
    /// Why there are no more, if not all have come. It waits as long as the client likes: without it the stream would seem whole.
    failed: oneshot::Receiver<Status>,
}

impl Stream for Frames {
    type Item = Result<Bytes, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let frame = ready!(self.receiver.poll_recv(cx)).map(Ok);
        Poll::Ready(frame.or_else(|| self.failed.try_recv().ok().map(Err)))
    }
}

/// Makes messages of rows, some at a time, and sends them until there are no more, or the node stops.
pub(super) fn stream_rows<M, I>(
    gate: &Gate,
    mut rows: Rows,
    messages: impl Fn(Batch) -> I + Send + Sync + 'static,
) -> tonic::Response<Elsewhere<M>>
where
    M: Message + 'static,
    I: IntoIterator<Item = Result<M, Failure>, IntoIter: Send> + Send,
{
    let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
    let (failing, failed) = oneshot::channel();
    let mut stopping = gate.stopping();
    tokio::spawn(async move {
        let sending = async {
            while let Some(mut batch) = rows.next().await? {
                let large = batch.large.take();
                let (frame, failed) = frame_of(messages(batch));
                if large.is_some() {
                    for piece in frame.chunks(rows.frame_bytes()) {
                        send(&mut rows, &sender, Bytes::copy_from_slice(piece)).await?;
                    }
                } else if !frame.is_empty() {
                    send(&mut rows, &sender, frame).await?;
                }
                failed?;
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
    frames::response(Frames { receiver, failed })
}

/// These messages as one frame, up to the first of which there is none.
fn frame_of<M: Message>(
    messages: impl IntoIterator<Item = Result<M, Failure>>,
) -> (Bytes, Result<(), Failure>) {
    let mut buffer = BytesMut::new();
    let put = |message: Result<M, Failure>| message.map(|message| frames::put_message(&message, &mut buffer));
    let all = messages.into_iter().try_for_each(put);
    (buffer.freeze(), all)
}

/// Sends a frame, and meanwhile keeps readable what this stream still needs.
async fn send(rows: &mut Rows, sender: &mpsc::Sender<Bytes>, mut frame: Bytes) -> Result<(), Failure> {
    let started = Instant::now();
    let idle_max = Duration::from_millis(LIST_IDLE_MS);
    loop {
        rows.touch().await;
        let left = idle_max.saturating_sub(started.elapsed());
        match sender.send_timeout(frame, left.min(TOUCH_AFTER)).await {
            Ok(()) => return Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(unsent)) if started.elapsed() < idle_max => {
                frame = unsent;
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
        let (sender, receiver) = mpsc::channel(FRAMES_WAITING);
        let (failing, failed) = oneshot::channel();
        let mut frames = Frames { receiver, failed };
        sender.try_send("rows".into()).unwrap();
        failing.send(Status::resource_exhausted("too slow")).unwrap();
        drop(sender);
        assert_eq!(frames.next().await.unwrap().unwrap(), "rows");
        assert_eq!(frames.next().await.unwrap().unwrap_err().message(), "too slow");
        assert!(frames.next().await.is_none());
    }
}
