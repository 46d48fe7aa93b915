//! Short deadlines: a call whose time is over is told its outcome, before the transport's own timer ends it without one.
//!
//! A node looks at deadlines now and then and leaves itself a margin (`ringfort_proto::status::timeout_ms`). That is too seldom
//! for a deadline shorter than [`SHORT`]: those have a timer of their own here.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use ringfort_proto::status;
use ringfort_types::{Code, Failure};
use tokio::time::Sleep;
use tonic::body::Body;
use tower_service::Service;

/// From this one on the node is in time by itself.
const SHORT: Duration = Duration::from_secs(1);
/// So much earlier than the transport's timer and the client's is the answer: a fifth of the time, at most this.
const EARLIER_MAX: Duration = Duration::from_millis(5);

/// Calls of `S`, answered in time.
#[derive(Clone)]
pub(crate) struct Deadlines<S>(pub(crate) S);

impl<S> Service<Request<Body>> for Deadlines<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = InTime<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> InTime<S::Future> {
        let asked = status::asked(request.headers()).filter(|asked| *asked < SHORT);
        let timer = asked.map(|asked| {
            let left = asked.saturating_sub((asked / 5).min(EARLIER_MAX));
            Box::pin(tokio::time::sleep(left))
        });
        InTime { answer: self.0.call(request), timer }
    }
}

/// An answer, or that there was none in time.
pub(crate) struct InTime<F> {
    answer: F,
    timer: Option<Pin<Box<Sleep>>>,
}

impl<F, E> Future for InTime<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let InTime { answer, timer } = self.get_mut();
        if let Poll::Ready(answer) = Pin::new(answer).poll(cx) {
            return Poll::Ready(answer);
        }
        let Some(timer) = timer else { return Poll::Pending };
        ready!(timer.as_mut().poll(cx));
        let why = "the call's time is over; if it was a write, it may have taken effect, or may still";
        let failure = Failure::unknown(Code::DeadlineExceeded, why);
        // Whatever the call was: its time is over.
        Poll::Ready(Ok(status::from_write_failure(failure).into_http()))
    }
}
