//! One question to one node: does it serve? Asked of `grpc.health.v1`, as load balancers ask it.
//!
//! Unlike everything else here it is asked once, on a connection of its own, and of this node only: no retries, and no
//! other node that would do as well. A node says "serving" when it serves every shard that it has, until it is asked to stop.

use ringfort_proto::health::HealthCheckRequest;
use ringfort_proto::health::health_check_response::ServingStatus;
use ringfort_proto::health::health_client::HealthClient;
use ringfort_tls::Way;
use ringfort_types::Failure;
use tonic::transport::Channel;

use crate::Options;
use crate::names::addresses_of;
use crate::one_node::{ask, silent};
use ringfort_proto::reason::{BROKE, reason};
use ringfort_proto::status::cluster;

/// What is said of a node that closes a connection before it has answered anything.
const CLOSED: &str = "it closes the connection before it answers: it may have too many";
/// The same, if no TLS is spoken. A node that wants it says so, but that may be lost with the connection.
const CLOSED_PLAIN: &str = "it closes the connection before it answers: it may have too many, or speak TLS only (then give the CA of its cluster with --ca)";

/// What a node says about a service of its.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It takes requests.
    Serving,
    /// It starts, or stops.
    NotServing,
    /// It has no service of this name.
    ServiceUnknown,
    /// None of these.
    Unknown,
}

impl Health {
    /// As `grpc.health.v1` writes it.
    pub fn name(self) -> &'static str {
        match self {
            Health::Serving => "SERVING",
            Health::NotServing => "NOT_SERVING",
            Health::ServiceUnknown => "SERVICE_UNKNOWN",
            Health::Unknown => "UNKNOWN",
        }
    }
}

/// The addresses that these options' stand for: a name that has several is that many nodes. One that is not known in time stays as it is.
pub async fn nodes_at(options: &Options) -> Vec<String> {
    let way = options.way();
    let mut nodes = Vec::new();
    for address in &options.addresses {
        let found = addresses_of(address, &way, options.timeout).await;
        let new: Vec<String> = found.into_iter().filter(|node| !nodes.contains(node)).collect();
        nodes.extend(new);
    }
    nodes
}

/// Asks the node at `address` about `service`, or about all of it if that is empty. A failure if there was no answer in the options' time.
pub async fn health(address: &str, service: &str, options: &Options) -> Result<Health, Failure> {
    ask(address, options, async |channel| {
        let request = HealthCheckRequest { service: service.to_owned() };
        match HealthClient::new(channel).check(request).await {
            Ok(answer) => Ok(match answer.into_inner().status() {
                ServingStatus::Serving => Health::Serving,
                ServingStatus::NotServing => Health::NotServing,
                ServingStatus::ServiceUnknown => Health::ServiceUnknown,
                ServingStatus::Unknown => Health::Unknown,
            }),
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Health::ServiceUnknown),
            Err(status) => Err(silent(
                address,
                &match std::error::Error::source(&status) {
                    // Made here, not by the node.
                    Some(source) => reason(source),
                    None => format!("it answers {:?}: {}", status.code(), status.message()),
                },
            )),
        }
    })
    .await
}

/// Has any call answered over this connection, or says why not. The cluster that the node belongs to, 0 if it does not say so. What a node says about its health does not matter: whoever
/// starts or stops says itself what it can't do.
pub(crate) async fn takes_calls(channel: Channel, way: &Way) -> Result<u64, String> {
    let status = match HealthClient::new(channel).check(HealthCheckRequest::default()).await {
        Ok(answer) => return Ok(cluster(answer.metadata())),
        Err(status) => status,
    };
    match std::error::Error::source(&status) {
        Some(source) => Err(match reason(source) {
            why if why == BROKE && matches!(way, Way::Plain) => CLOSED_PLAIN.to_owned(),
            why if why == BROKE => CLOSED.to_owned(),
            why => why,
        }),
        None if status.code() == tonic::Code::Unavailable => Err(status.message().to_owned()),
        // A server without health checks is one that answers.
        None => Ok(0),
    }
}
