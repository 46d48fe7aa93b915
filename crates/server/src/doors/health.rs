//! Health as gRPC means it (`grpc.health.v1`): what balancers and orchestrators ask of a node.
//!
//! A node serves once all its shards are open, until it is asked to stop, which is told before any leadership goes. A service that
//! needs a quorum serves while, besides, a leader of every shard is known: a node that is cut off from the others gets no calls from
//! who heeds that. It is looked at only when somebody asks, or watches, and at most every [`LOOK`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ringfort_proto::health::health_check_response::ServingStatus;
use ringfort_proto::health::health_server::Health;
use ringfort_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use ringfort_proto::status::refused;
use tokio::sync::{Mutex, mpsc};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::gate::Gate;

/// How often it is looked whether there is a quorum.
const LOOK: Duration = Duration::from_millis(500);
/// How long the node may take to say so.
const PATIENCE_MS: u32 = 1_000;

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    gate: Gate,
    /// Every name, and whether it needs a quorum.
    names: Arc<HashMap<&'static str, bool>>,
    /// When it was looked at last whether there is a quorum, and was one.
    quorum: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Service {
    /// Of a node that has these services, some of which need a quorum.
    pub(super) fn new(gate: Gate, services: impl IntoIterator<Item = (&'static str, bool)>) -> Service {
        let names = services.into_iter().chain([("", false)]).collect();
        Service { gate, names: Arc::new(names), quorum: Arc::default() }
    }

    async fn status(&self, needs_quorum: bool) -> ServingStatus {
        let serves = self.gate.is_serving() && !self.gate.is_leaving();
        if serves && (!needs_quorum || self.has_quorum().await) {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        }
    }

    /// One look for all who ask meanwhile.
    async fn has_quorum(&self) -> bool {
        let mut last = self.quorum.lock().await;
        if let Some((at, had)) = *last
            && at.elapsed() < LOOK
        {
            return had;
        }
        let state = self.gate.cluster(PATIENCE_MS).await;
        let has = state.is_ok_and(|state| state.shards.iter().all(|shard| shard.leader.is_some()));
        *last = Some((Instant::now(), has));
        has
    }
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Service {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        call: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = call.into_inner().service;
        let Some(needs_quorum) = self.names.get(name.as_str()) else {
            return Err(refused(Code::NotFound, "there is no service of this name here"));
        };
        Ok(Response::new(said(self.status(*needs_quorum).await)))
    }

    async fn list(&self, _call: Request<HealthListRequest>) -> Result<Response<HealthListResponse>, Status> {
        let (node, with_quorum) = (self.status(false).await, self.status(true).await);
        let status = |needs_quorum| said(if needs_quorum { with_quorum } else { node });
        let statuses =
            self.names.iter().map(|(name, needs_quorum)| ((*name).to_owned(), status(*needs_quorum)));
        Ok(Response::new(HealthListResponse { statuses: statuses.collect() }))
    }

    async fn watch(&self, call: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let name = call.into_inner().service;
        let needs_quorum = self.names.get(name.as_str()).copied();
        let (sender, receiver) = mpsc::channel(1);
        let service = self.clone();
        tokio::spawn(async move {
            let (mut leaving, mut stopping) = (service.gate.leaving(), service.gate.stopping());
            let mut last = None;
            loop {
                let now = match needs_quorum {
                    Some(needs_quorum) => service.status(needs_quorum).await,
                    None => ServingStatus::ServiceUnknown,
                };
                if last.replace(now) != Some(now) && sender.send(Ok(said(now))).await.is_err() {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(LOOK) => {}
                    _ = leaving.changed() => {}
                    // What it had to say has been said when it was asked to stop.
                    _ = stopping.wait_for(|stopping| *stopping) => return,
                    () = sender.closed() => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
