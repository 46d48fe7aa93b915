//! Which gRPC connections are in use: those with a call that is not answered yet.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use ringfort_proto::status::refused;
use ringfort_types::limits::UNTAKEN_ANSWERS_MAX;
use tonic::body::Body;
use tonic::{Code, Status};
use tower_service::Service;

use crate::doors::held::OneOfMany;
use crate::doors::places::{Closed, InUse, Standing};
use crate::links;

/// Calls of `S`, each of which holds its connection's place while it lasts.
#[derive(Clone)]
pub(crate) struct Calls<S>(pub(crate) S);

impl<S> Service<Request<Body>> for Calls<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = UnderWay<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> UnderWay<S::Future> {
        let Some(standing) = request.extensions().get::<Arc<Standing>>() else {
            return UnderWay::Served { answer: self.0.call(request), in_use: None };
        };
        let Some(in_use) = standing.begin(links::is_of_a_node(&request)) else {
            standing.close(Closed::NoPlace);
            return UnderWay::Refused;
        };
        if in_use.calls > UNTAKEN_ANSWERS_MAX {
            request.extensions_mut().insert(OneOfMany);
        }
        UnderWay::Served { answer: self.0.call(request), in_use: Some(in_use) }
    }
}

/// A call under way.
pub(crate) enum UnderWay<F> {
    Refused,
    Served { answer: F, in_use: Option<InUse> },
}

impl<F, E> Future for UnderWay<F>
where
    F: Future<Output = Result<Response<Body>, E>> + Unpin,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let UnderWay::Served { answer, in_use } = self.get_mut() else {
            let why = "this node has too many connections: close some, or ask another one";
            return Poll::Ready(Ok(refused(Code::Unavailable, why).into_http()));
        };
        let response = ready!(Pin::new(answer).poll(cx))?;
        let in_use = in_use.take();
        Poll::Ready(Ok(response.map(|body| Body::new(InUseBody { body, _in_use: in_use }))))
    }
}

/// An answer that is not given away yet.
struct InUseBody {
    body: Body,
    _in_use: Option<InUse>,
}

impl http_body::Body for InUseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
