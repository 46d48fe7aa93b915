//! Who makes a call: its metadata says so, or its connection's certificate.
//!
//! A call whose user is known has their [`Principal`] among its extensions ([`asked_by`]); one of nobody has none. Credentials in the
//! metadata count more than a certificate, and wrong ones are refused whether or not rights are enforced.
//!
//! Health checks, server reflection and other nodes' calls ask for nothing that a user may or may not do: whatever they carry is left
//! alone.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::AUTHORIZATION;
use http::{Extensions, Request, Response};
use ringfort_proto::health::health_server::SERVICE_NAME as HEALTH;
use ringfort_proto::internal::peer_server::SERVICE_NAME as PEER;
use ringfort_proto::status::from_failure;
use ringfort_types::{Door, Failure, Principal};
use tonic::body::Body;
use tower_service::Service;

use crate::authentication::{Authentication, Checking, Credentials, Decoded, Known};
use crate::doors::places::Standing;
use crate::doors::refusals::Refused;
use crate::gate::{Asker, Gate};

/// What the names of server reflection begin with, in all its versions.
const REFLECTION: &str = "grpc.reflection.";

/// The gate for the user who makes this call.
pub(super) fn asked_by<M>(call: &tonic::Request<M>, gate: &Gate) -> Gate {
    let extensions = call.extensions();
    let who = extensions.get::<Principal>().copied().unwrap_or(Principal::NOBODY);
    gate.by(Asker { who, from: extensions.get::<Arc<Standing>>().map(|standing| standing.from()) })
}

/// Calls of `S`, each with its user.
#[derive(Clone)]
pub(crate) struct Authenticated<S> {
    calls: S,
    authentication: Authentication,
}

impl<S> Authenticated<S> {
    pub(crate) fn before(calls: S, authentication: Authentication) -> Authenticated<S> {
        Authenticated { calls, authentication }
    }

    /// Who makes this call.
    fn who<B>(&self, request: &Request<B>) -> Known {
        let standing = request.extensions().get::<Arc<Standing>>();
        let Some(header) = request.headers().get(AUTHORIZATION) else {
            let certified = standing.and_then(|standing| standing.certified());
            return Known::Is(self.authentication.certified(certified));
        };
        if is_exempt(request.uri().path()) {
            return Known::Is(Principal::NOBODY);
        }
        // Every connection has one; where there were none, nobody could be slowed.
        let Some(standing) = standing else { return Known::Is(Principal::NOBODY) };
        let mut decoded = Decoded::default();
        let credentials = Credentials::of_header(header.as_bytes(), &mut decoded);
        self.authentication.known(credentials, standing.from(), Some(door_of(request.uri().path())))
    }
}

/// The door whose package a call's path begins with.
fn door_of(path: &str) -> Door {
    match path.trim_start_matches('/').split('.').next() {
        Some("family") => Door::Family,
        Some("proto") => Door::Proto,
        Some("kvstore") => Door::KvStore,
        Some("kv") => Door::Kv,
        _ => Door::V1,
    }
}

fn is_exempt(path: &str) -> bool {
    let service =
        path.strip_prefix('/').and_then(|path| path.split_once('/')).map_or("", |(service, _)| service);
    service == HEALTH || service == PEER || service.starts_with(REFLECTION)
}

fn know(who: Principal, extensions: &mut Extensions) {
    if who != Principal::NOBODY {
        extensions.insert(who);
    }
}

impl<S> Service<Request<Body>> for Authenticated<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
    S::Future: Unpin,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Answer<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.calls.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Answer<S> {
        match self.who(&request) {
            Known::Is(who) => {
                know(who, request.extensions_mut());
                Answer::Called(self.calls.call(request))
            }
            Known::Refused(failure) => Answer::refused(failure, request),
            Known::Soon(checking) => {
                Answer::Checking(Some(Box::new(Checked { checking, calls: self.calls.clone(), request })))
            }
        }
    }
}

/// What becomes of a call.
pub(crate) enum Answer<S: Service<Request<Body>>> {
    Called(S::Future),
    Refused(Box<Refused>),
    /// Its password is being checked.
    Checking(Option<Box<Checked<S>>>),
}

/// A call whose password is being checked.
pub(crate) struct Checked<S> {
    checking: Checking,
    calls: S,
    request: Request<Body>,
}

impl<S: Service<Request<Body>>> Answer<S> {
    fn refused(failure: Failure, request: Request<Body>) -> Answer<S> {
        Answer::Refused(Box::new(Refused::new(from_failure(failure).into_http(), request)))
    }
}

// Nothing in it is pinned where it is.
impl<S: Service<Request<Body>>> Unpin for Answer<S> where S::Future: Unpin {}

impl<S> Future for Answer<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Unpin,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            match this {
                Answer::Called(answer) => return Pin::new(answer).poll(cx),
                Answer::Refused(refused) => return Pin::new(&mut **refused).poll(cx).map(Ok),
                Answer::Checking(waiting) => {
                    let checked = waiting.as_mut().expect("it waits until it is replaced");
                    ready!(checked.calls.poll_ready(cx))?;
                    let who = ready!(checked.checking.as_mut().poll(cx));
                    let mut checked = waiting.take().expect("it is there");
                    *this = match who {
                        Ok(who) => {
                            know(who, checked.request.extensions_mut());
                            Answer::Called(checked.calls.call(checked.request))
                        }
                        Err(failure) => Answer::refused(failure, checked.request),
                    };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_begins_with_its_doors_package() {
        for (path, door) in [
            ("/ringfort.v1.KV/Get", Door::V1),
            ("/family.FamilyService/Store", Door::Family),
            ("/proto.KV/Get", Door::Proto),
            ("/kvstore.v1.KVStore/Put", Door::KvStore),
            ("/kv.KeyValue/Get", Door::Kv),
        ] {
            assert_eq!(door_of(path), door, "{path}");
        }
    }

    #[test]
    fn who_watches_or_is_a_node_is_not_asked_who_they_are() {
        for path in [
            "/grpc.health.v1.Health/Check",
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            &format!("/{PEER}/Link"),
        ] {
            assert!(is_exempt(path), "{path}");
        }
        for path in ["/ringfort.v1.KV/Get", "/kv.KeyValue/Get", "/", "", "/grpc.health.v1.Healthy/Check"] {
            assert!(!is_exempt(path), "{path}");
        }
    }
}
