//! `ringfort safe-to-stop NODE`

use clap::Args;

use crate::connection::{Connect, with_client};
use crate::out::{self, Output};
use crate::safety::safety;
use crate::stop::Stop;

/// Tell whether a node can be stopped while every shard keeps a majority that is up and has caught up
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort safe-to-stop node2\n  ringfort safe-to-stop node2 --json\n  \
    until ringfort safe-to-stop node2; do sleep 5; done\n\n\
    A replica on another node counts if that node has reported since the command began, its disk takes writes, and the replica takes \
    part and has all that was committed then. It takes a second or so, reserves nothing, and is about one node: ask again before \
    you stop another.\n\n\
    Exit codes: 0 it is safe; 1 it is not, and stdout says which shards, why, and what to do; 2 there is no such node; 3 it could not \
    be found out.\n\n\
    JSON, one object: node, name, safe, shards (of keys), unsafe_shards (each shard, replicas, needed, left, led, and missing: node, \
    name, why, behind).")]
pub(crate) struct SafeToStop {
    /// The node's name, address or number
    #[arg(value_name = "NODE")]
    node: String,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(asked: &SafeToStop) -> Result<(), Stop> {
    let timeout = asked.connect.timeout();
    let found = with_client(&asked.connect, async |client| safety(&client, &asked.node, timeout).await)?;
    if asked.output.json {
        out::line(found.json())?;
    } else {
        out::line(found.text())?;
    }
    if found.is_safe() { Ok(()) } else { Err(Stop::not_met()) }
}
