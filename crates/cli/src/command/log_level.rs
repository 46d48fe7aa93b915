//! `ringfort log-level NODE [FILTER]`

use clap::Args;
use ringfort_client::set_log_level;

use crate::cluster::find_node;
use crate::connection::{Connect, with_options};
use crate::json::Object;
use crate::logging;
use crate::out::{self, Output};
use crate::stop::Stop;

/// Show or change which lines a node logs, while it runs
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort log-level node2\n  ringfort log-level node2 info\n  \
    ringfort log-level node2 warn,ringfort_server::links=debug,ringfort_server::open=info\n\n\
    A filter is a level (error, warn, info, debug, trace: this and all that is more severe), or levels for single modules, separated by \
    commas; the most exact one counts. The node goes by it until it is started again, by its --log-level then. Modules are named in \
    each line at debug, and in JSON lines.\n\n\
    JSON, one object: node, before, now.")]
pub(crate) struct LogLevel {
    /// The node's name, address or number
    #[arg(value_name = "NODE")]
    node: String,
    /// What it is to log from now on; without it, only what it logs is told
    #[arg(value_name = "FILTER", value_parser = logging::check)]
    filter: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &LogLevel) -> Result<(), Stop> {
    let options = asked.connect.options()?;
    let filter = asked.filter.as_deref().unwrap_or_default();
    let (name, before) = with_options(options.clone(), async |client| {
        let state = client.cluster_state().await?;
        let node = find_node(&state, &asked.node)?;
        Ok((node.name.clone(), set_log_level(&node.address, filter, &options).await?))
    })?;
    let now = asked.filter.as_ref().unwrap_or(&before);
    if asked.output.json {
        return out::line(
            Object::new().field("node", &name).field("before", &before).field("now", now).finish(),
        );
    }
    match &asked.filter {
        Some(filter) => out::line(format!("{name} logs {filter} from now on, and logged {before}")),
        None => out::line(format!("{name} logs {before}")),
    }
}
