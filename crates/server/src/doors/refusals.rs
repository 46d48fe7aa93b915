//! HTTP/2 requests that are no calls of a service here, and what they are answered.
//!
//! `tonic` checks neither method nor content type, and says nothing with its UNIMPLEMENTED. gRPC's HTTP/2 specification wants a
//! response that no other HTTP client takes for a success: 415 for a foreign content type. A request that is no POST gets
//! 405, as from other gRPC servers. An unknown service or method is UNIMPLEMENTED, with a message that says what there is: most
//! often a client is older or newer than the node, or means another port.
//!
//! What `tonic` itself refuses (a message that can't be decoded, is compressed, too large, or missing) has not reached the node. It gets
//! that outcome here, and the code that gRPC's documents name, where `tonic` has another: every status that a service here makes has an
//! outcome already.
//!
//! An answer that comes before its request has ended resets the stream, which HTTP/2 allows (RFC 9113, 8.1). Not every client shows it then:
//! curl 7.88.1 loses two of three. So what is refused here is read first, as far as it is short and comes soon.
//!
//! A good call pays for two comparisons of short strings, one count of a reference, and one look into the answer's headers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use ringfort_proto::status::{self, refused};
use tokio::time::Sleep;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower_service::Service;

const GRPC: &[u8] = b"application/grpc";
/// So much of a request that is refused is read, for at most so long.
const READ_BYTES_MAX: usize = 1024 * 1024;
const READ_TIME: Duration = Duration::from_secs(1);
/// Most characters of a client's own words that an answer repeats.
const REPEATED_CHARS_MAX: usize = 100;

/// The services of a port, behind the check of what reaches them.
#[derive(Clone)]
pub(crate) struct Refusals {
    routes: Routes,
    served: Arc<Served>,
}

/// What there is, for those who ask for something else.
pub(crate) struct Served {
    services: Vec<&'static str>,
    packages: String,
}

impl Refusals {
    /// These services, of these packages.
    pub(crate) fn before(routes: Routes, services: Vec<&'static str>, packages: &str) -> Refusals {
        Refusals { routes, served: Arc::new(Served { services, packages: packages.to_owned() }) }
    }
}

impl Service<Request<Body>> for Refusals {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request<Body>>::poll_ready(&mut self.routes, cx)
    }

    fn call(&mut self, request: Request<Body>) -> Answer {
        if request.method() != Method::POST {
            return Answer::refused(not_a_post(), request);
        }
        if !request.headers().get(CONTENT_TYPE).is_some_and(is_grpc) {
            return Answer::refused(not_grpc(), request);
        }
        if !self.served.has_service_of(request.uri().path()) {
            let why = self.served.explain(request.uri().path());
            return Answer::refused(refused(Code::Unimplemented, why).into_http(), request);
        }
        let path = request.uri().path_and_query().cloned();
        Answer::Routed { answer: self.routes.call(request), path, served: self.served.clone() }
    }
}

/// What becomes of a request.
#[expect(clippy::large_enum_variant, reason = "a good call is the large one, and should not pay for a box")]
pub(crate) enum Answer {
    Refused(Refused),
    Routed {
        answer: <Routes as Service<Request<Body>>>::Future,
        path: Option<PathAndQuery>,
        served: Arc<Served>,
    },
}

impl Answer {
    fn refused(response: Response<Body>, request: Request<Body>) -> Answer {
        Answer::Refused(Refused::new(response, request))
    }
}

/// A refusal, once what there is of its request is read.
pub(crate) struct Refused {
    response: Option<Response<Body>>,
    rest: Body,
    bytes_left: usize,
    until: Pin<Box<Sleep>>,
}

impl Refused {
    pub(crate) fn new(response: Response<Body>, request: Request<Body>) -> Refused {
        let until = Box::pin(tokio::time::sleep(READ_TIME));
        Refused { response: Some(response), rest: request.into_body(), bytes_left: READ_BYTES_MAX, until }
    }
}

impl Future for Refused {
    type Output = Response<Body>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Response<Body>> {
        let this = &mut *self;
        if poll_rest(&mut this.rest, &mut this.bytes_left, cx).is_pending() {
            ready!(this.until.as_mut().poll(cx));
        }
        Poll::Ready(this.response.take().expect("not polled after it was ready"))
    }
}

/// Reads a request's body: ready when it has ended, or is not worth waiting for.
fn poll_rest(rest: &mut Body, bytes_left: &mut usize, cx: &mut Context<'_>) -> Poll<()> {
    while let Some(Ok(frame)) = ready!(Pin::new(&mut *rest).poll_frame(cx)) {
        match bytes_left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(left) => *bytes_left = left,
            None => break,
        }
    }
    Poll::Ready(())
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Answer::Refused(refused) => Pin::new(refused).poll(cx).map(Ok),
            Answer::Routed { answer, path, served } => {
                let Ok(response) = ready!(Pin::new(answer).poll(cx));
                if is_unexplained(&response) {
                    let path = path.as_ref().map_or("", PathAndQuery::path);
                    return Poll::Ready(Ok(refused(Code::Unimplemented, served.explain(path)).into_http()));
                }
                let headers = response.headers();
                if !is_ok(headers)
                    && !headers.contains_key(status::OUTCOME)
                    && let Some(refused) = Status::from_header_map(headers)
                {
                    return Poll::Ready(Ok(status::from_transport(refused).into_http()));
                }
                Poll::Ready(Ok(response))
            }
        }
    }
}

impl Served {
    fn has_service_of(&self, path: &str) -> bool {
        let service = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        service.is_some_and(|(service, _)| self.services.contains(&service))
    }

    /// Why there is no such method.
    fn explain(&self, path: &str) -> String {
        let packages = &self.packages;
        let parts = path.strip_prefix('/').and_then(|path| path.split_once('/'));
        let Some((service, method)) = parts.filter(|(service, _)| !service.is_empty()) else {
            return format!(
                "{} is not the path of a method, which is /PACKAGE.SERVICE/METHOD; packages served here: {packages}",
                shortened(path)
            );
        };
        if self.services.contains(&service) {
            if method.is_empty() {
                return format!("the path names no method of {service}: it is /{service}/METHOD");
            }
            let method = shortened(method);
            return format!(
                "{service} has no method {method} on this node, which may run another version; packages served here: {packages}"
            );
        }
        format!("there is no service {} on this port; packages served here: {packages}", shortened(service))
    }
}

/// `application/grpc`, alone or with a subtype or parameters; `application/grpc-web` is another protocol.
fn is_grpc(content_type: &HeaderValue) -> bool {
    let given = content_type.as_bytes();
    given.len() >= GRPC.len()
        && given[..GRPC.len()].eq_ignore_ascii_case(GRPC)
        && matches!(given.get(GRPC.len()), None | Some(b'+' | b';'))
}

/// Whether a call has, or may still have, an answer: only one that fails without any has its status in the headers.
fn is_ok(headers: &HeaderMap) -> bool {
    headers.get(Status::GRPC_STATUS).is_none_or(|status| status == "0")
}

/// UNIMPLEMENTED, and no word why: said by the router, or by the service's generated code.
fn is_unexplained(response: &Response<Body>) -> bool {
    let headers = response.headers();
    headers
        .get(Status::GRPC_STATUS)
        .is_some_and(|status| Code::from_bytes(status.as_bytes()) == Code::Unimplemented)
        && !headers.contains_key(Status::GRPC_MESSAGE)
}

fn not_a_post() -> Response<Body> {
    let mut response = refusal(
        StatusCode::METHOD_NOT_ALLOWED,
        "a gRPC call is a POST: use a gRPC client, such as grpcurl\n",
    );
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

fn not_grpc() -> Response<Body> {
    refusal(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "a gRPC call has the content type application/grpc: use a gRPC client, such as grpcurl\n",
    )
}

fn refusal(status: StatusCode, line: &'static str) -> Response<Body> {
    let mut response = Response::new(Body::new(line.to_owned()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// A client's words, as far as an answer repeats them.
fn shortened(text: &str) -> String {
    match text.char_indices().nth(REPEATED_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
