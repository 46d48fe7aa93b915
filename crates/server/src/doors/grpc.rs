//! The gRPC port: HTTP/2's settings, and the services of all doors that speak gRPC.
//!
//! A door adds its services to a [`Services`]; the names that clients, health checks and refusals see are taken from
//! them. Every port that [`serve`] serves also has server reflection and health checks.
//!
//! Bounds (PITFALLS 21): so many streams, header bytes and resets a connection, which `h2` enforces with GOAWAY; pings, so
//! that a client that lives says something, and a vanished one's connection goes too. Connections themselves are `listener`'s business, what is no gRPC is that of
//! `strangers` (no HTTP/2) and `refusals` (HTTP/2, but no call that is known).

use std::convert::Infallible;
use std::future::pending;
use std::time::Duration;

use http::{Request, Response};
use prost::DecodeError;
use ringfort_proto::health::health_server::HealthServer;
use ringfort_types::limits::{
    CALL_HEADER_BYTES_MAX, CALL_WINDOW_BYTES, CONNECTION_STREAMS_MAX, CONNECTION_WINDOW_BYTES,
    DOOR_CONNECTIONS_MAX, GREETING_MS, PING_MS,
};
use tokio_stream::StreamExt;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tower_service::Service;

use crate::authentication::Authentication;
use crate::doors::arriving::Arriving;
use crate::doors::authenticated::Authenticated;
use crate::doors::deadline::Deadlines;
use crate::doors::health;
use crate::doors::held::HeldAnswers;
use crate::doors::in_use::Calls;
use crate::doors::listener::{DoorLimits, Greeting, Incoming};
use crate::doors::ready::Ready;
use crate::doors::reflection::{self, Alpha};
use crate::doors::refusals::Refusals;
use crate::doors::spread::{HandedOver, Runtimes};
use crate::doors::strangers::Strangers;

/// Resets that a connection may have unprocessed, and cause by its own errors, before it is closed.
const RESETS_MAX: usize = 256;

/// The bounds of a gRPC port.
pub(crate) const LIMITS: DoorLimits = DoorLimits {
    connections_max: DOOR_CONNECTIONS_MAX,
    greeting: Greeting::Http2,
    greeting_max: Duration::from_millis(GREETING_MS),
    full_answer: b"",
};

/// What a client is told that begins HTTP/2 without TLS where it is needed: GOAWAY for inadequate security, with a reason that most clients show
/// (RFC 9113, sections 6.8 and 7). Without the SETTINGS that come first: after these, gRPC's C core takes the connection for a good one that has
/// ended, and connects again and again until the call's time is over.
pub(super) const WITHOUT_TLS: &[u8] =
    b"\0\0\x47\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0cthis port speaks TLS only: give the client the CA's certificate";

/// What tonic's generated servers are.
pub(crate) trait GrpcService:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcService for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// The services of one port.
#[derive(Default)]
pub(crate) struct Services {
    routes: RoutesBuilder,
    /// With whether it needs a quorum.
    names: Vec<(&'static str, bool)>,
    hidden: Vec<&'static str>,
    descriptors: Vec<&'static [u8]>,
}

impl Services {
    /// Adds one for clients: they are told of it.
    pub(crate) fn add<S>(&mut self, service: S) -> &mut Services
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.names.push((S::NAME, false));
        self.route(service)
    }

    /// Adds one for clients that is healthy only while there is a quorum.
    pub(crate) fn add_of_quorum<S>(&mut self, service: S) -> &mut Services
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.names.push((S::NAME, true));
        self.route(service)
    }

    /// Adds one that clients need not know of.
    pub(crate) fn add_hidden<S>(&mut self, service: S) -> &mut Services
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.hidden.push(S::NAME);
        self.route(service)
    }

    fn route<S>(&mut self, service: S) -> &mut Services
    where
        S: GrpcService,
        S::Future: Send + 'static,
    {
        self.routes.add_service(service);
        self
    }

    /// Adds what server reflection tells of services: an encoded `FileDescriptorSet`.
    pub(crate) fn describe(&mut self, descriptors: &'static [u8]) -> &mut Services {
        self.descriptors.push(descriptors);
        self
    }

    /// Adds what every port has: server reflection (last, for it tells of all others) and health checks of the services
    /// that are there already.
    fn complete(&mut self, ready: Ready) -> Result<(), DecodeError> {
        let health = health::Service::new(ready, self.names.clone());
        self.add(HealthServer::new(health));
        let names = self.names.iter().map(|(name, _)| *name);
        let reflection = reflection::service(names, &self.descriptors)?;
        self.add(reflection.clone()).add_hidden(Alpha(reflection));
        Ok(())
    }

    /// The packages of those that clients are told of, in the order in which they were added.
    fn packages(&self) -> String {
        let mut packages: Vec<&str> = Vec::new();
        for (package, _) in self.names.iter().filter_map(|(name, _)| name.rsplit_once('.')) {
            if !packages.contains(&package) {
                packages.push(package);
            }
        }
        packages.join(", ")
    }
}

/// Serves until the node stops, then ends what is under way in good order.
pub(super) async fn serve(
    mut services: Services,
    incoming: Incoming,
    ready: Ready,
    authentication: Authentication,
    runtimes: &Runtimes,
) -> Result<(), DecodeError> {
    let stopping = ready.gate().stopping();
    services.complete(ready)?;
    let packages = services.packages();
    let mut strangers = Strangers::new(&packages);
    let incoming = incoming.filter_map(move |arrived| match arrived {
        Ok(connection) if !connection.understood() => {
            strangers.take(connection);
            None
        }
        greeted => Some(greeted),
    });
    let names = services.names.into_iter().map(|(name, _)| name).chain(services.hidden).collect();
    let routes = services.routes.routes().prepare();
    let known = Refusals::before(routes, names, &packages);
    let held = HeldAnswers(Arriving::before(known));
    let calls = Calls(Deadlines(Authenticated::before(held, authentication)));
    runtimes.serve(incoming, stopping, |connections| serve_all(calls.clone(), connections)).await;
    Ok(())
}

/// Serves connections as they come, on the runtime that this runs on; when no more come, ends what is under way in good order.
async fn serve_all<S>(calls: S, connections: HandedOver)
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    // Windows are fixed, so that one stream's throughput does not depend on a probe; wide, so that a frame of requests does not wait
    // for an update; and no wider, since so much of a connection's that nobody reads from now is in memory. One stream that is not
    // read from leaves room for others.
    let served = Server::builder()
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_adaptive_window(Some(false))
        .max_concurrent_streams(CONNECTION_STREAMS_MAX)
        .http2_max_header_list_size(CALL_HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(Duration::from_millis(PING_MS)))
        // It is `listener` that ends connections, when nothing at all moves: the answer may come behind much else.
        .http2_keepalive_timeout(Some(Duration::from_hours(24)))
        // That there are no more connections is the signal: whichever was handed over before is served.
        .serve_with_incoming_shutdown(calls, connections.map(Ok::<_, Infallible>), pending())
        .await;
    if let Err(error) = served {
        tracing::warn!("a connection ended badly: {error}");
    }
}
