//! The body of an answer. A large one is given out in pieces, and holds its place until the last one: so what waits in memory for clients that
//! don't take it has a bound.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::AbortHandle;

use crate::doors::places::{Closed, Standing};

/// The library asks for the next piece when there is room for it.
const PIECE_BYTES: usize = 16 * 1024;

/// The body of an answer.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Bytes,
    _held: Option<Held>,
}

/// What a large answer holds until it has been taken.
#[derive(Debug)]
struct Held {
    _place: OwnedSemaphorePermit,
    /// Closes the connection when the time is over.
    too_late: AbortHandle,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.too_late.abort();
    }
}

impl Answer {
    /// A line or two.
    pub(super) fn small(bytes: Bytes) -> Answer {
        Answer { bytes, _held: None }
    }

    /// A large one, that is to be taken in time.
    pub(super) fn held(
        bytes: Bytes,
        place: OwnedSemaphorePermit,
        standing: Arc<Standing>,
        time: Duration,
    ) -> Answer {
        let closing = tokio::spawn(async move {
            tokio::time::sleep(time).await;
            standing.close(Closed::NothingTaken);
        });
        Answer { bytes, _held: Some(Held { _place: place, too_late: closing.abort_handle() }) }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let piece = self.bytes.len().min(PIECE_BYTES);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.len() as u64)
    }
}
