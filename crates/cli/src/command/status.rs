//! `ringfort status`

use clap::Args;

use crate::cluster::{json, render, shard_table};
use crate::connection::{Connect, with_client};
use crate::out::{self, Output};
use crate::stop::Stop;

/// Show the nodes, who leads what, how far replicas lag, keys and bytes (~: estimates)
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort status\n  ringfort status --shards\n  ringfort status --json\n\n\
    JSON: one object with everything, the shards too."
)]
pub(crate) struct Status {
    /// A line for each shard too
    #[arg(long)]
    shards: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(status: &Status) -> Result<(), Stop> {
    let state = with_client(&status.connect, async |client| Ok(client.cluster_state().await?))?;
    if status.output.json {
        return out::line(json(&state).to_string());
    }
    let mut text = render(&state);
    if status.shards {
        text.push('\n');
        text.push_str(&shard_table(&state));
    }
    out::line(text.trim_end())
}
