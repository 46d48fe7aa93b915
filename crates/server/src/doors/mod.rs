//! The front doors: ports, and which protocol is spoken on each.
//!
//! All of them take their connections from `listener`, within bounds of their own and one for the node. Those that speak
//! gRPC share one port (`grpc`) and add their services there; a door with another protocol has a port to itself.

pub(crate) mod grpc;
pub(crate) mod listener;
mod refusals;
mod strangers;
mod throttle;

use std::sync::Arc;

use ringfort_proto::internal::peer_server::PeerServer;
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_types::limits::GRPC_MESSAGE_BYTES_MAX;
use tokio::net::TcpListener;

use crate::doors::grpc::Services;
use crate::doors::listener::{Incoming, Places};
use crate::kv::Service;
use crate::links::{FRAME_BYTES_MAX, Links, PeerService};
use crate::shared::Shared;

/// Opens all doors, until the node stops.
pub(crate) async fn serve(shared: Arc<Shared>, links: Arc<Links>, listener: TcpListener) {
    let places = Places::default();
    let incoming = Incoming::new("gRPC", listener, grpc::LIMITS, &places);
    let (serving, stopping) = (shared.serving.subscribe(), shared.stopping.subscribe());
    let mut services = Services::default();
    add_ringfort(&mut services, shared, links);
    grpc::serve(services, incoming, serving, stopping)
        .await
        .expect("the descriptors were compiled with this binary");
}

/// Ringfort's own services, for clients and among nodes.
fn add_ringfort(services: &mut Services, shared: Arc<Shared>, links: Arc<Links>) {
    let service = Service { shared: shared.clone() };
    services
        .describe(ringfort_proto::DESCRIPTORS)
        .add(
            KvServer::new(service.clone())
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add(
            ClusterServer::new(service)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX),
        )
        .add_hidden(
            PeerServer::new(PeerService { shared, links })
                .max_decoding_message_size(FRAME_BYTES_MAX)
                .max_encoding_message_size(FRAME_BYTES_MAX),
        );
}
