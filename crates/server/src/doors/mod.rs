//! The front doors: ports, and which protocol is spoken on each.
//!
//! A door turns bytes into calls and answers into bytes; everything else is the `gate`'s. All of them take their connections
//! from `listener`, within bounds of their own and one for the node. Those that speak gRPC share one port (`grpc`) and add
//! their services there: `v1`, which is Ringfort's own, and `family`, `proto`, `kvstore` and `kv`, which other systems'
//! clients know, each named after its package. Doors with other protocols have ports to themselves: `text`, and `http` for those
//! who watch the node. Where the node has several
//! threads for sockets, `spread` says which of them a connection belongs to.

mod arriving;
mod authenticated;
mod crowd;
mod deadline;
mod family;
mod floods;
mod frames;
pub(crate) mod grpc;
mod guard;
mod health;
mod held;
pub(crate) mod http;
mod in_use;
mod kv;
mod kvstore;
pub(crate) mod listener;
pub(crate) mod places;
mod proto;
mod ready;
mod reflection;
mod refusals;
mod socket;
pub(crate) mod spread;
mod strangers;
mod stream;
pub(crate) mod text;
pub(crate) mod throttle;
pub(crate) mod tolerance;
mod utf8;
mod v1;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use ringfort_proto::family::family_service_server::FamilyServiceServer;
use ringfort_proto::family::storage_service_server::StorageServiceServer;
use ringfort_proto::internal::peer_server::PeerServer;
use ringfort_proto::kv::cluster_server::ClusterServer as KvClusterServer;
use ringfort_proto::kv::key_value_server::KeyValueServer;
use ringfort_proto::kvstore::kv_store_server::KvStoreServer;
use ringfort_proto::kvstore::replicator_server::ReplicatorServer;
use ringfort_proto::proto_kv::kv_server::KvServer as ProtoKvServer;
use ringfort_proto::status::{refused, stream_timeout_ms};
use ringfort_proto::v1::cluster_server::ClusterServer;
use ringfort_proto::v1::kv_server::KvServer;
use ringfort_tls::{NodeTls, Protocol};
use ringfort_types::limits::{
    CALL_TIMEOUT_MAX_MS, GRPC_MESSAGE_BYTES_MAX, HTTP_CONNECTIONS_MAX, INVITING_DEFAULT_MS,
};
use ringfort_types::{Door, Principal, shown};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use self::grpc::Services;
use self::guard::Guard;
use self::http::HttpSettings;
use self::listener::Incoming;
use self::places::Places;
use self::ready::Ready;
use self::spread::Runtimes;
use self::text::TextSettings;
use self::tolerance::Tolerance;
use crate::authentication::Authentication;
use crate::gate::Gate;
use crate::links::{Links, PeerService};
use crate::outbox::FRAME_BYTES_MAX;
use crate::shared::Shared;

/// The sockets of all doors.
pub(crate) struct Ports {
    /// For gRPC.
    pub(crate) grpc: TcpListener,
    /// For the text protocol, if it is wanted.
    pub(crate) text: Option<(TcpListener, TextSettings)>,
    /// For those who watch the node, if that is wanted.
    pub(crate) http: Option<(TcpListener, HttpSettings)>,
    /// What TLS is spoken with, on all of them.
    pub(crate) tls: Option<NodeTls>,
}

impl Ports {
    /// The same sockets once more, for doors that close before the node's own open.
    pub(crate) fn again(&self) -> io::Result<Ports> {
        let again =
            |listener: &TcpListener| TcpListener::from_std(listener.as_fd().try_clone_to_owned()?.into());
        let text =
            self.text.as_ref().map(|(listener, settings)| io::Result::Ok((again(listener)?, *settings)));
        let http =
            self.http.as_ref().map(|(listener, settings)| io::Result::Ok((again(listener)?, *settings)));
        let tls = self.tls.clone();
        Ok(Ports { grpc: again(&self.grpc)?, text: text.transpose()?, http: http.transpose()?, tls })
    }
}

/// Opens all doors, until the node stops.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    links: Arc<Links>,
    ports: Ports,
    places: Places,
    tolerance: Tolerance,
    runtimes: Runtimes,
) {
    let gate = |door| Gate::new(shared.clone(), door);
    let authentication = Authentication::new(shared.clone());
    let reads_fall_back = ports.text.as_ref().is_some_and(|(_, settings)| settings.stale_after.is_some());
    // They end with this.
    let mut beside = JoinSet::new();
    beside.spawn(tolerance::advise(gate(Door::Text), tolerance.clone(), reads_fall_back));
    for (desk, runtime) in shared.answers.desks().zip(runtimes.handles()) {
        beside.spawn_on(desk.clone().serve(), runtime);
    }
    let guard = |door, protocol, without_tls| {
        let handshakes = shared.metrics.handshakes.clone();
        ports.tls.clone().map(|tls| Guard::new(door, tls, protocol, without_tls, handshakes))
    };
    let guarded = guard("gRPC", Protocol::Grpc, grpc::WITHOUT_TLS);
    let incoming = Incoming::new("gRPC", ports.grpc, grpc::LIMITS, &places, guarded);
    let text_settings = ports.text.as_ref().map(|(_, settings)| *settings);
    let text_incoming = ports.text.map(|(listener, _)| {
        let guarded = guard("text", Protocol::Text, text::WITHOUT_TLS);
        Incoming::new("text", listener, text::LIMITS, &places, guarded)
    });
    let mut used = vec![incoming.places().clone()];
    used.extend(text_incoming.iter().map(|incoming| incoming.places().clone()));
    let text = async {
        if let (Some(incoming), Some(settings)) = (text_incoming, text_settings) {
            let talks = text::Talks {
                gate: gate(Door::Text),
                authentication: authentication.clone(),
                settings,
                tolerance: tolerance.clone(),
            };
            text::serve(talks, incoming, &runtimes).await;
        }
    };
    let ready = Ready::new(gate(Door::V1).by(Principal::NODE));
    let http = async {
        if let Some((listener, settings)) = ports.http {
            // Who watches the node has places of their own: it is when clients have all others that it matters.
            let guarded = guard("HTTP", Protocol::Http, http::WITHOUT_TLS);
            let places = Places::new(HTTP_CONNECTIONS_MAX, 1);
            let incoming = Incoming::new("HTTP", listener, http::LIMITS, &places, guarded);
            used.push(incoming.places().clone());
            let source =
                http::Source { shared: shared.clone(), places: used, per_shard: settings.metrics_per_shard };
            http::serve(ready.clone(), authentication.clone(), source, incoming, &runtimes).await;
        }
    };
    let mut services = Services::default();
    services.describe(ringfort_proto::DESCRIPTORS);
    add_services(&mut services, &gate, &tolerance);
    services.add_hidden(
        PeerServer::new(PeerService { shared: shared.clone(), links })
            .max_decoding_message_size(FRAME_BYTES_MAX)
            .max_encoding_message_size(FRAME_BYTES_MAX),
    );
    let grpc = grpc::serve(services, incoming, ready.clone(), authentication.clone(), &runtimes);
    let (grpc, (), ()) = tokio::join!(grpc, text, http);
    grpc.expect("the descriptors were compiled with this binary");
}

/// The services that clients know.
fn add_services(services: &mut Services, gate: &impl Fn(Door) -> Gate, tolerance: &Tolerance) {
    /// A service with the same bounds as all have.
    macro_rules! bounded {
        ($server:ident, $service:expr) => {
            $server::new($service)
                .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX)
                .max_encoding_message_size(GRPC_MESSAGE_BYTES_MAX)
        };
    }
    let v1 = v1::Service { gate: gate(Door::V1) };
    services.add_of_quorum(bounded!(KvServer, v1.clone())).add(bounded!(ClusterServer, v1));
    let family = family::Service { gate: gate(Door::Family), tolerance: tolerance.clone() };
    services
        .add_of_quorum(bounded!(FamilyServiceServer, family.clone()))
        .add_of_quorum(bounded!(StorageServiceServer, family));
    services.add_of_quorum(bounded!(ProtoKvServer, proto::Service { gate: gate(Door::Proto) }));
    let kvstore = kvstore::Service { gate: gate(Door::KvStore) };
    services
        .add_of_quorum(bounded!(KvStoreServer, kvstore.clone()))
        .add_of_quorum(bounded!(ReplicatorServer, kvstore));
    let kv = kv::Service { gate: gate(Door::Kv) };
    services.add_of_quorum(bounded!(KeyValueServer, kv.clone())).add(bounded!(KvClusterServer, kv));
}

/// How long to try to make a node a member for a call.
fn inviting_ms(metadata: &MetadataMap) -> u32 {
    stream_timeout_ms(metadata).unwrap_or(INVITING_DEFAULT_MS).min(CALL_TIMEOUT_MAX_MS)
}

/// A key that is not there, to those who are told so by a status.
fn not_there(key: &str) -> Status {
    refused(Code::NotFound, format!("there is no key \"{}\"", shown(key.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Clients refuse a status whose message is beyond some kilobytes, and say something else instead.
    #[test]
    fn a_long_key_is_not_told_whole() {
        for key in ["k".repeat(16 * 1024), "é".repeat(8 * 1024)] {
            assert!(not_there(&key).message().len() < 500);
        }
    }
}
