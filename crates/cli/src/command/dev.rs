//! `ringfort dev`: a cluster on this machine, for as long as its shell is open.

use std::io::IsTerminal;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use ringfort_client::Options;
use ringfort_types::Consistency;
use ringfort_types::limits::{BIRTH_NODES_MAX, SHARDS_MAX};

use crate::connection::with_options;
use crate::leftovers;
use crate::nodes::Nodes;
use crate::out::Output;
use crate::shell::{self, Quotes};
use crate::signals::Signals;
use crate::stop::Stop;
use crate::writing::Writing;

/// Run a cluster on this machine, with a shell in front; it ends with the shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort dev\n  printf 'put name Ada\\nget name\\n' | ringfort dev\n  \
    ringfort dev --data-dir ./data        keeps its data for the next time\n\n\
    Meanwhile, in another terminal, every other command finds it without --addr. `kill node2` and `start node2` \
    in its shell end a node as kill -9 does, and start it again; `node add` starts one more, which joins, and `cluster remove node4` \
    removes it. With --data-dir, one that has joined is not started the next time, until `node add` is said again.")]
pub(crate) struct Dev {
    /// How many nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=BIRTH_NODES_MAX as i64))]
    nodes: u16,
    /// The first node's port; the others have the next ones
    #[arg(long, value_name = "PORT", default_value_t = 50051, value_parser = clap::value_parser!(u16).range(1..))]
    base_port: u16,
    /// Keep data and logs here; without it, they go to a temporary directory, which is removed at the end
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Shards of a new cluster
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=i64::from(SHARDS_MAX)))]
    shards: u32,
    /// Copies of each key, for a new cluster
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=BIRTH_NODES_MAX as i64))]
    replicas: u32,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(dev: &Dev) -> Result<(), Stop> {
    let addresses = addresses(dev)?;
    leftovers::clear(leftovers::DEV, &std::env::temp_dir());
    ports_are_free(&addresses)?;
    let mut nodes = Nodes::new(addresses, dev.data_dir.as_deref(), dev.shards, dev.replicas)?;
    nodes.start_all()?;
    let mut options = Options::new(nodes.addresses());
    options.timeout = Duration::from_secs(5);
    let json = dev.output.json;
    with_options(options, async move |client| {
        let mut signals = Signals::new()?;
        tokio::select! {
            ready = nodes.until_ready(&client) => ready?,
            asked = signals.next() => {
                nodes.say_stopping();
                return Err(asked.stop());
            }
        }
        if std::io::stdin().is_terminal() {
            nodes.welcome();
        }
        let talked = shell::talk(
            &client,
            Consistency::Linearizable,
            Writing::default(),
            Some(&mut nodes),
            Quotes::Around,
            json,
        )
        .await;
        if talked.is_ok() && std::io::stdin().is_terminal() {
            nodes.say_stopping();
        }
        nodes.stop();
        talked
    })
}

fn addresses(dev: &Dev) -> Result<Vec<String>, Stop> {
    let last = dev.base_port.checked_add(dev.nodes - 1).ok_or_else(|| {
        Stop::usage(format!("{} nodes from port {} on do not fit below 65536", dev.nodes, dev.base_port))
    })?;
    Ok((dev.base_port..=last).map(|port| format!("127.0.0.1:{port}")).collect())
}

/// Refuses before anything is started if a port is taken.
fn ports_are_free(addresses: &[String]) -> Result<(), Stop> {
    for address in addresses {
        if let Err(error) = TcpListener::bind(address) {
            let why = match error.kind() {
                std::io::ErrorKind::AddrInUse => "it is in use".to_owned(),
                _ => error.to_string(),
            };
            return Err(Stop::usage(format!(
                "can't listen on {address}: {why}; stop what listens there, or choose other ports with --base-port"
            )));
        }
    }
    Ok(())
}
