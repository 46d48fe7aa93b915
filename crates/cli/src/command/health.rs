//! `ringfort health`
//!
//! One question to each node that is named, for whoever has to know about just these: a container's health check, a load
//! balancer, a script that waits. So it does not ask another node instead, and not twice.

use clap::Args;
use ringfort_client::{Health as Status, health, nodes_at};
use ringfort_types::Failure;

use crate::connection::Connect;
use crate::json::Object;
use crate::out::{Out, Output};
use crate::runtimes::Beside;
use crate::stop::Stop;

/// What `--addr` is here.
pub(crate) const ADDRESSES: &str = "Addresses of the nodes to ask, each once, separated by commas";

/// Ask nodes whether they serve, as load balancers do (`grpc.health.v1`)
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort health\n  ringfort health --addr 10.0.0.1:50051 --timeout 1s\n  \
    ringfort health --service ringfort.v1.KV      whether it knows a quorum, too\n  \
    until ringfort health --addr 127.0.0.1:50051; do sleep 1; done\n\n\
    It asks each address of --addr once, of a name each that it has, and no other node, and prints SERVING, NOT_SERVING (the node starts or stops) or \
    SERVICE_UNKNOWN; of several addresses, a line for each, with the address before it.\n\
    Exit codes: 0 all serve; 1 one does not, or has no such service; 3 one does not answer within --timeout.\n\n\
    A check of one node alone, as a container's, names it with --addr or in RINGFORT_HEALTH_ADDR, whatever RINGFORT_ADDR \
    lists.\n\n\
    JSON, an object an address: address, service (empty: all of them), status, or error if one of several does not answer."
)]
pub(crate) struct Health {
    /// A service of the node's, as ringfort.v1.KV or kv.KeyValue [default: all of them]
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    service: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &Health) -> Result<(), Stop> {
    let options = asked.connect.options_of_nobody()?;
    let answers = Beside::new()?.block_on(async {
        let nodes = nodes_at(&options).await;
        let asking = nodes.iter().cloned().map(|address| {
            let (service, options) = (asked.service.clone(), options.clone());
            tokio::spawn(async move { health(&address, &service, &options).await })
        });
        let mut answers = Vec::new();
        for asking in asking.collect::<Vec<_>>() {
            answers.push(asking.await.map_err(|_| Stop::unavailable("the asking broke down"))?);
        }
        Ok::<_, Stop>((nodes, answers))
    });
    let (nodes, answers) = answers?;
    tell(asked, nodes.iter().map(String::as_str).zip(answers))
}

/// Prints each answer; the worst of them is the exit code's.
fn tell<'a>(
    asked: &Health,
    answers: impl ExactSizeIterator<Item = (&'a str, Result<Status, Failure>)>,
) -> Result<(), Stop> {
    let several = answers.len() > 1;
    let mut out = Out::new();
    let (mut all_serve, mut silent) = (true, Vec::new());
    for (address, answer) in answers {
        let object = || Object::new().field("address", address).field("service", &asked.service);
        let line = match &answer {
            Ok(status) if asked.output.json => Some(object().field("status", status.name()).finish()),
            Ok(status) if several => Some(format!("{address} {}", status.name()).into_bytes()),
            Ok(status) => Some(status.name().as_bytes().to_vec()),
            // Of one alone, the error says it all.
            Err(failure) if several && asked.output.json => {
                Some(object().field("error", &failure.message).finish())
            }
            Err(_) => None,
        };
        line.map_or(Ok(()), |line| out.line(line))?;
        match answer {
            Ok(status) => all_serve &= status == Status::Serving,
            Err(failure) => silent.push(failure.message),
        }
    }
    match silent.is_empty() {
        false => Err(Stop::unavailable(silent.join("; "))),
        true if all_serve => Ok(()),
        true => Err(Stop::not_met()),
    }
}
