//! HTTP/1.1 (RFC 9112) for those who watch the node: monitoring, balancers, orchestrators. Nothing here changes anything.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200: the process lives |
//! | `/readyz` | 200 if all shards here are open and the node is not stopping, whatever other nodes do; else 503 with the reason |
//! | `/readyz?quorum=true` | 503 also if a shard's leader is not known here |
//! | `/metrics` | numbers, for Prometheus (`metrics`) |
//! | `/debug/state` | JSON: the cluster as this node knows it, what `ringfort status --json` prints |
//!
//! Where rights are enforced, the last two are for whoever may ask a node for its cluster's state: any user, known as on the other ports
//! by a certificate, or by a password or token in the header `authorization`. Orchestrators and balancers name no user.
//!
//! Only `GET` and `HEAD`. Text is for people, and ends with a line feed.
//!
//! Bounds: so many connections, apart from those of clients ([`HTTP_CONNECTIONS_MAX`]), each with one request at a time, whose head has
//! [`HEAD_BYTES_MAX`] at most and comes within [`HEAD_TIME`]; and so many large answers that are not taken yet, in which time
//! they are ([`HTTP_LARGE_ANSWERS_MAX`], [`HTTP_ANSWER_MS`]).
//!
//! [`HTTP_CONNECTIONS_MAX`]: ringfort_types::limits::HTTP_CONNECTIONS_MAX

mod answer;
mod metrics;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use hyper::body::Incoming as Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use ringfort_types::limits::{HTTP_ANSWER_MS, HTTP_CONNECTIONS_MAX, HTTP_LARGE_ANSWERS_MAX};
use ringfort_types::{Code, Failure, Verdict};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;

use self::answer::Answer;
pub(super) use self::metrics::Source;
use crate::authentication::{Authentication, Credentials, Decoded, Known};
use crate::doors::listener::{Connection, DoorLimits, Greeting, Incoming};
use crate::doors::places::Standing;
use crate::doors::ready::Ready;
use crate::doors::spread::{HandedOver, Runtimes};

/// What is shown there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpSettings {
    /// Whether each shard has metrics of its own.
    pub metrics_per_shard: bool,
}

/// The bounds of the port.
pub(super) const LIMITS: DoorLimits = DoorLimits {
    connections_max: HTTP_CONNECTIONS_MAX,
    greeting: Greeting::FirstByte,
    greeting_max: HEAD_TIME,
    full_answer: b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
};
/// What a client is told that begins without TLS where it is needed.
pub(super) const WITHOUT_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-type: text/plain\r\ncontent-length: 39\r\n\r\nThis port speaks TLS only: use https://";
/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How long it may take, also the next one's on a connection that is kept.
const HEAD_TIME: Duration = Duration::from_mins(1);
/// How long the node may take to say what it knows of the cluster.
const PATIENCE_MS: u32 = 1_000;
/// What there is.
const PATHS: &str = "/healthz, /readyz, /readyz?quorum=true, /metrics, /debug/state";

/// What all connections share.
#[derive(Clone, Debug)]
struct Watched {
    ready: Ready,
    authentication: Authentication,
    source: Source,
    /// A place for each large answer that is not taken yet.
    large: Arc<Semaphore>,
}

/// Serves until the node stops.
pub(super) async fn serve(
    ready: Ready,
    authentication: Authentication,
    source: Source,
    incoming: Incoming,
    runtimes: &Runtimes,
) {
    let stopping = ready.gate().stopping();
    let large = Arc::new(Semaphore::new(HTTP_LARGE_ANSWERS_MAX));
    let watched = Watched { ready, authentication, source, large };
    let serve = |connections| serve_all(watched.clone(), connections);
    runtimes.serve(incoming, stopping, serve).await;
}

/// Serves connections as they come, on the runtime that this runs on, to the end of each.
async fn serve_all(watched: Watched, mut connections: HandedOver) {
    let mut served = JoinSet::new();
    loop {
        tokio::select! {
            connection = connections.next() => match connection {
                Some(connection) => served.spawn(serve_one(watched.clone(), connection)),
                None => break,
            },
            Some(_ended) = served.join_next() => continue,
        };
    }
    while served.join_next().await.is_some() {}
}

/// Answers one request after the other, until its client, the node or somebody who needs the place ends it.
async fn serve_one(watched: Watched, connection: Connection) {
    let (standing, peer) = (connection.standing().clone(), connection.peer());
    let mut stopping: watch::Receiver<bool> = watched.ready.gate().stopping();
    let answering = |request| {
        let (watched, standing) = (watched.clone(), standing.clone());
        async move { Ok::<_, Infallible>(watched.answer(&request, &standing).await) }
    };
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(connection), service_fn(answering));
    let mut served = pin!(served);
    let mut is_ending = false;
    loop {
        tokio::select! {
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!("{peer} on the HTTP port: {error}");
                }
                return;
            }
            () = poll_fn(|cx| if standing.poll_closed(cx) { ().into() } else { std::task::Poll::Pending }) => return,
            _ = stopping.wait_for(|stopping| *stopping), if !is_ending => {
                is_ending = true;
                served.as_mut().graceful_shutdown();
            }
        }
    }
}

impl Watched {
    async fn answer(&self, request: &Request<Body>, standing: &Arc<Standing>) -> Response<Answer> {
        // It is in use until there is an answer, and given up for another one only while that waits to be taken.
        let Some(_in_use) = standing.begin(false) else {
            return text(StatusCode::SERVICE_UNAVAILABLE, "this connection is closing: make another one");
        };
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are answered here");
            answer.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return answer;
        }
        let path = request.uri().path();
        if matches!(path, "/metrics" | "/debug/state")
            && let Err(failure) = self.may_watch(request.headers(), standing).await
        {
            return refused(&failure);
        }
        match path {
            "/" => text(StatusCode::OK, &format!("Ringfort answers {PATHS}")),
            "/healthz" => text(StatusCode::OK, "ok"),
            "/readyz" => match wants_quorum(request.uri().query().unwrap_or_default()) {
                Ok(true) => readiness(self.ready.of_quorum().await),
                Ok(false) => readiness(self.ready.of_node()),
                Err(why) => text(StatusCode::BAD_REQUEST, &why),
            },
            "/metrics" => self.large(self.source.page(request.headers()), standing).await,
            "/debug/state" => self.large(self.state(), standing).await,
            path => text(StatusCode::NOT_FOUND, &format!("there is nothing at {path:.200}: ask for {PATHS}")),
        }
    }

    /// Whether rights, if they are enforced, are enough to see more than whether the node lives.
    async fn may_watch(&self, headers: &HeaderMap, standing: &Standing) -> Result<(), Failure> {
        let is_enforced = || {
            let layout = self.ready.gate().layout();
            layout.filter(|layout| layout.users.enforced)
        };
        if is_enforced().is_none() {
            return Ok(());
        }
        let who = match headers.get(header::AUTHORIZATION) {
            None => self.authentication.certified(standing.certified()),
            Some(said) => {
                let mut decoded = Decoded::default();
                let credentials = Credentials::of_header(said.as_bytes(), &mut decoded);
                match self.authentication.known(credentials, standing.from(), None) {
                    Known::Is(who) => who,
                    Known::Refused(failure) => return Err(failure),
                    Known::Soon(checking) => checking.await?,
                }
            }
        };
        let verdict =
            is_enforced().map(|layout| layout.users.judge(who, &ringfort_types::Request::ClusterState));
        verdict.and_then(Verdict::into_failure).map_or(Ok(()), Err)
    }

    /// The cluster as this node knows it.
    async fn state(&self) -> Result<(&'static str, Bytes), String> {
        let state = self.ready.gate().cluster(PATIENCE_MS).await.map_err(|failure| failure.message)?;
        let mut json = ringfort_view::json(&state).to_string();
        json.push('\n');
        Ok(("application/json", json.into()))
    }

    /// An answer that may be large, if there are not too many of them that nobody takes.
    async fn large(
        &self,
        made: impl Future<Output = Result<(&'static str, Bytes), String>>,
        standing: &Arc<Standing>,
    ) -> Response<Answer> {
        let Ok(place) = self.large.clone().try_acquire_owned() else {
            let why = format!(
                "{HTTP_LARGE_ANSWERS_MAX} answers have not been taken yet: take them, or try again later"
            );
            return text(StatusCode::SERVICE_UNAVAILABLE, &why);
        };
        match made.await {
            Ok((kind, bytes)) => {
                let time = Duration::from_millis(HTTP_ANSWER_MS);
                answered(StatusCode::OK, kind, Answer::held(bytes, place, standing.clone(), time))
            }
            Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
        }
    }
}

/// What a query says of the quorum.
fn wants_quorum(query: &str) -> Result<bool, String> {
    let mut said = query.split('&').filter_map(|part| part.strip_prefix("quorum="));
    match said.next_back() {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(format!("quorum={other:.200}: say true or false")),
    }
}

fn readiness(ready: Result<(), String>) -> Response<Answer> {
    match ready {
        Ok(()) => text(StatusCode::OK, "ready"),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

/// What somebody is told who is no user, or may not.
fn refused(failure: &Failure) -> Response<Answer> {
    if failure.code != Code::Unauthenticated {
        let status = if failure.code == Code::PermissionDenied {
            StatusCode::FORBIDDEN
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        return text(status, &failure.message);
    }
    let mut answer = text(StatusCode::UNAUTHORIZED, &failure.message);
    let challenge = header::HeaderValue::from_static("Basic realm=\"ringfort\"");
    answer.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    answer
}

fn text(status: StatusCode, line: &str) -> Response<Answer> {
    let bytes = Bytes::from(format!("{line}\n"));
    answered(status, "text/plain; charset=utf-8", Answer::small(bytes))
}

fn answered(status: StatusCode, kind: &'static str, answer: Answer) -> Response<Answer> {
    let mut response = Response::new(answer);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_says_whether_a_quorum_counts() {
        for (query, wants) in
            [("", false), ("quorum=true", true), ("a=b&quorum=true", true), ("quorum=false", false)]
        {
            assert_eq!(wants_quorum(query), Ok(wants), "{query}");
        }
        assert!(wants_quorum("quorum=1").is_err_and(|why| why.contains("say true or false")));
    }
}
