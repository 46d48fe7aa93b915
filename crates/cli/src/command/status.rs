//! `ringfort status`

use clap::Args;
use ringfort_view::json;

use crate::cluster::{judge, render, shard_table};
use crate::connection::{Connect, with_client};
use crate::out::{self, Output};
use crate::stop::Stop;

/// Show the nodes, who leads what, how far replicas lag, keys and bytes (~: estimates)
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort status\n  ringfort status --shards\n  ringfort status --json\n\n\
    Exit code 3: some shard has no leader (a line on stderr says what to do), or no node answers. JSON: one object with \
    everything, the shards too; lag is null for a shard without a leader."
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
    let text = if status.output.json {
        json(&state).to_string()
    } else if status.shards {
        format!("{}\n{}", render(&state), shard_table(&state))
    } else {
        render(&state)
    };
    out::line(text.trim_end())?;
    judge(&state)
}
