//! Health as gRPC means it (`grpc.health.v1`): what balancers and orchestrators ask of a node. What is so says `ready`.

use std::collections::HashMap;
use std::sync::Arc;

use ringfort_proto::health::health_check_response::ServingStatus;
use ringfort_proto::health::health_server::Health;
use ringfort_proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use ringfort_proto::status::{refused, set_cluster};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Response, Status};

use crate::doors::ready::{LOOK, Ready};

/// The service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    ready: Ready,
    /// Every name, and whether it needs a quorum.
    names: Arc<HashMap<&'static str, bool>>,
}

impl Service {
    /// Of a node that has these services, some of which need a quorum.
    pub(super) fn new(ready: Ready, services: impl IntoIterator<Item = (&'static str, bool)>) -> Service {
        let names = services.into_iter().chain([("", false)]).collect();
        Service { ready, names: Arc::new(names) }
    }

    async fn status(&self, needs_quorum: bool) -> ServingStatus {
        let ready = if needs_quorum { self.ready.of_quorum().await } else { self.ready.of_node() };
        if ready.is_ok() { ServingStatus::Serving } else { ServingStatus::NotServing }
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
        let mut answer = Response::new(said(self.status(*needs_quorum).await));
        set_cluster(answer.metadata_mut(), self.ready.gate().cluster_number());
        Ok(answer)
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
            let (mut leaving, mut stopping) =
                (service.ready.gate().leaving(), service.ready.gate().stopping());
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
