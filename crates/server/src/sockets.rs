//! All services on one port.

use std::sync::Arc;

use ringfort_proto::internal::peer_server::PeerServer;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic_health::server::{HealthReporter, health_reporter};
use tonic_reflection::server::{Builder, Error};

use crate::doors::v1::Service;
use crate::gate::Gate;
use crate::links::{FRAME_BYTES_MAX, Links, PeerService};
use crate::listener::{
    CONNECTION_WINDOW, HEADER_BYTES_MAX, Incoming, PING_EVERY, PING_MAX, RESETS_MAX, STREAM_WINDOW,
    STREAMS_MAX,
};
use crate::shared::Shared;

/// Serves until the node stops, then ends what is under way in good order.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    links: Arc<Links>,
    listener: TcpListener,
) -> Result<(), Error> {
    let (health, health_service) = health_reporter();
    let service = Service { gate: Gate::new(shared.clone(), ringfort_types::Door::V1) };
    let reflection = || {
        Builder::configure()
            .register_encoded_file_descriptor_set(ringfort_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let mut stopping = shared.stopping.subscribe();
    let reporting = tokio::spawn(report_health(shared.clone(), health));
    let served = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(Some(false))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADER_BYTES_MAX)
        .http2_max_pending_accept_reset_streams(Some(RESETS_MAX))
        .http2_max_local_error_reset_streams(Some(RESETS_MAX))
        .http2_keepalive_interval(Some(PING_EVERY))
        .http2_keepalive_timeout(Some(PING_MAX))
        .add_service(
            KvServer::new(service.clone())
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(
            ClusterServer::new(service)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_service(
            PeerServer::new(PeerService { shared: shared.clone(), links })
                .max_decoding_message_size(FRAME_BYTES_MAX)
                .max_encoding_message_size(FRAME_BYTES_MAX),
        )
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .add_service(health_service)
        .serve_with_incoming_shutdown(Incoming::new(listener), async move {
            let _sender_lives_as_long = stopping.wait_for(|stopping| *stopping).await;
        })
        .await;
    reporting.abort();
    if let Err(error) = served {
        tracing::warn!("a connection ended badly: {error}");
    }
    Ok(())
}

/// Says "serving" from the moment that requests are served until the node stops.
async fn report_health(shared: Arc<Shared>, health: HealthReporter) {
    use tonic_health::ServingStatus::{NotServing, Serving};
    let (mut serving, mut stopping) = (shared.serving.subscribe(), shared.stopping.subscribe());
    let set = async |status| {
        for service in ["", "ringfort.v1.KV", "ringfort.v1.Cluster"] {
            health.set_service_status(service, status).await;
        }
    };
    set(NotServing).await;
    if serving.wait_for(|serving| *serving).await.is_ok() {
        set(Serving).await;
        if stopping.wait_for(|stopping| *stopping).await.is_ok() {
            set(NotServing).await;
        }
    }
}
