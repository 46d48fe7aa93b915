//! Rows as a stream of gRPC messages, for a reader that may be slow or gone.
//!
//! Bounds: [`MESSAGES_WAITING`] messages wait for the client; one that takes nothing for [`LIST_IDLE_MS`] is cut off.

use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_proto::status;
use ringfort_types::limits::LIST_IDLE_MS;
use ringfort_types::{Code, Failure, Row};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::gate::{Gate, Rows, TOUCH_AFTER};

/// Messages that wait for the client to take them.
const MESSAGES_WAITING: usize = 1;

/// Makes messages of rows, some at a time, and sends them until there are no more, or the node stops.
pub(super) fn stream_rows<M, I>(
    gate: &Gate,
    mut rows: Rows,
    messages: impl Fn(Vec<(Bytes, Row)>) -> I + Send + Sync + 'static,
) -> ReceiverStream<Result<M, Status>>
where
    M: Send + 'static,
    I: IntoIterator<Item = Result<M, Failure>, IntoIter: Send> + Send,
{
    let (sender, receiver) = mpsc::channel(MESSAGES_WAITING);
    let mut stopping = gate.stopping();
    tokio::spawn(async move {
        let sending = async {
            while let Some(some) = rows.next().await? {
                for message in messages(some) {
                    send(&mut rows, &sender, message?).await?;
                }
            }
            Ok(())
        };
        let result = tokio::select! {
            result = sending => result,
            () = sender.closed() => return,
            _ = stopping.wait_for(|stopping| *stopping) => {
                Err(Failure::rejected(Code::Stopping, "the node is stopping: ask another one"))
            }
        };
        drop(rows);
        if let Err(failure) = result {
            let failed = Err(status::from_failure(failure));
            let _gone = sender.send_timeout(failed, Duration::from_millis(LIST_IDLE_MS)).await;
        }
    });
    ReceiverStream::new(receiver)
}

/// Sends a message, and meanwhile keeps readable what this stream still needs.
async fn send<M>(
    rows: &mut Rows,
    sender: &mpsc::Sender<Result<M, Status>>,
    message: M,
) -> Result<(), Failure> {
    let (mut message, started) = (Ok(message), Instant::now());
    let idle_max = Duration::from_millis(LIST_IDLE_MS);
    loop {
        rows.touch();
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
