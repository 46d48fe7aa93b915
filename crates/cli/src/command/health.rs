//! `ringfort health`
//!
//! One question to one node, for whoever has to know about just this one: a container's health check, a load balancer, a
//! script that waits for it. So it does not ask another node instead, and not twice.

use clap::Args;
use ringfort_client::{Health as Status, health};

use crate::connection::{Connect, runtime};
use crate::json::Object;
use crate::out::{self, Output};
use crate::stop::Stop;

/// Ask one node whether it serves, as load balancers do (`grpc.health.v1`)
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort health\n  ringfort health --addr 10.0.0.1:50051 --timeout 1s\n  \
    ringfort health --service ringfort.v1.KV      whether it knows a quorum, too\n  \
    until ringfort health --addr 127.0.0.1:50051; do sleep 1; done\n\n\
    It asks once, and prints SERVING, NOT_SERVING (the node starts or stops) or SERVICE_UNKNOWN.\n\
    Exit codes: 0 serving; 1 not serving, or no such service; 3 no answer within --timeout.\n\n\
    JSON: address, service (empty: all of them), status."
)]
pub(crate) struct Health {
    /// A service of the node's, ringfort.v1.KV or ringfort.v1.Cluster [default: all of them]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &Health) -> Result<(), Stop> {
    let options = asked.connect.options();
    let [address] = &options.addresses[..] else {
        let first = &options.addresses[0];
        return Err(Stop::usage(format!(
            "health asks one node, and {} are named: name one, as in `ringfort health --addr {first}`",
            options.addresses.len()
        )));
    };
    let runtime = runtime(1)?;
    let status = runtime.block_on(health(address, &asked.service, options.timeout));
    runtime.shutdown_background();
    let status = status?;
    out::line(if asked.output.json {
        let object = Object::new().field("address", address).field("service", &asked.service);
        object.field("status", status.name()).finish()
    } else {
        status.name().as_bytes().to_vec()
    })?;
    match status {
        Status::Serving => Ok(()),
        Status::NotServing | Status::ServiceUnknown | Status::Unknown => Err(Stop::not_met()),
    }
}
