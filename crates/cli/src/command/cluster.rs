//! `ringfort cluster nodes | shards | set [SETTING=VALUE] | transfer SHARD NODE`

use std::time::Duration;

use clap::{Args, ValueEnum};
use ringfort_client::Client;
use ringfort_types::{ClusterState, LayoutChange, LeaderPreference};
use serde_json::json;

use crate::cluster::{node_json, node_table, shard_json, shard_table};
use crate::connection::{Connect, with_client};
use crate::out::{self, Out, Output};
use crate::stop::Stop;
use crate::transfer::transfer;

/// Until the node that was asked is asked again whether it goes by what was set, and how often.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: u32 = 100;

/// Show the nodes or the shards, change a setting of the whole cluster, or transfer a leadership
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort cluster nodes\n  ringfort cluster shards --json\n  \
    ringfort cluster set                                  the settings as they are\n  \
    ringfort cluster set leader-preference=highest-id\n  \
    ringfort cluster transfer 3 node2                     has node2 lead shard 3\n\n\
    Settings:\n  leader-preference  which replica leads a shard, if it can: ring, the first in line, which spreads leaders evenly over\n                     \
    the nodes (the default); or highest-id, the one on the node with the highest number that is up, as a bully election\n                     \
    would have it. Leadership moves within seconds, without a failed write\n\n\
    A setting is kept by the cluster itself: it holds for all nodes, and after restarts.\n\n\
    `transfer` is done once the node leads. It then keeps that leadership for ten minutes, if it can: until it stops, another transfer, or \
    a change of leader-preference; after that, leaders are balanced again. A node that is down, damaged or not caught up is refused (exit code 3, \
    as if the outcome is unknown), one that has no replica of the shard too (2). Shard 0 is the meta group.\n\n\
    JSON: an object a line; numbers of nodes are those of `cluster nodes`. Of `transfer`: shard, node, name, term, led_already, kept_ms.")]
pub(crate) struct Cluster {
    /// nodes, shards, set or transfer
    #[arg(value_name = "ACTION")]
    action: Action,
    /// SETTING=VALUE after set, SHARD NODE after transfer
    #[arg(value_name = "WORD", num_args = 0..=2)]
    words: Vec<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// A line for each node
    Nodes,
    /// A line for each shard
    Shards,
    /// Show the cluster's settings, or change one
    Set,
    /// Have another node lead a shard
    Transfer,
}

pub(crate) fn run(cluster: &Cluster) -> Result<(), Stop> {
    let words: Vec<&str> = cluster.words.iter().map(String::as_str).collect();
    let change = match (cluster.action, &words[..]) {
        (Action::Transfer, [shard, node]) => return hand_over(cluster, shard, node),
        (Action::Transfer, _) => {
            return Err(Stop::usage("name a shard and a node, as in `ringfort cluster transfer 3 node2`"));
        }
        (Action::Set, [setting]) => Some(preference_of(setting)?),
        (Action::Set, [_, more, ..]) => {
            return Err(Stop::usage(format!(
                "one setting at a time: leave {more:?} out, or set it after the first"
            )));
        }
        (_, [word, ..]) => {
            return Err(Stop::usage(format!("{word:?} is for `ringfort cluster set`: leave it out")));
        }
        (_, []) => None,
    };
    let state = with_client(&cluster.connect, async |client| match change {
        Some(preference) => prefer(&client, preference).await,
        None => Ok(client.cluster_state().await?),
    })?;
    if cluster.output.json {
        let mut out = Out::new();
        for line in lines(cluster.action, &state) {
            out.line(line.to_string())?;
        }
        return Ok(());
    }
    let text = match cluster.action {
        Action::Nodes => node_table(&state),
        Action::Shards => shard_table(&state),
        Action::Set => format!("leader-preference = {}", state.leader_preference),
        Action::Transfer => unreachable!("it has returned"),
    };
    out::line(text.trim_end())
}

fn lines(action: Action, state: &ClusterState) -> Vec<serde_json::Value> {
    match action {
        Action::Nodes => state.nodes.iter().map(|node| node_json(state, node)).collect(),
        Action::Shards => state.shards.iter().map(|shard| shard_json(state, shard)).collect(),
        Action::Set => vec![json!({ "leader_preference": state.leader_preference.to_string() })],
        Action::Transfer => unreachable!("it has returned"),
    }
}

fn hand_over(cluster: &Cluster, shard: &str, node: &str) -> Result<(), Stop> {
    let done = with_client(&cluster.connect, async |client| transfer(&client, shard, node).await)?;
    if cluster.output.json { out::line(done.json()) } else { out::line(done.text()) }
}

fn preference_of(setting: &str) -> Result<LeaderPreference, Stop> {
    let Some((name, value)) = setting.split_once('=') else {
        return Err(Stop::usage(format!("{setting:?} has no value: write SETTING=VALUE, as in {EXAMPLE}")));
    };
    match name.trim() {
        "leader-preference" => value.trim().parse().map_err(Stop::usage),
        other => Err(Stop::usage(format!("no setting of a cluster is called {other:?}: there is {EXAMPLE}"))),
    }
}

const EXAMPLE: &str = "leader-preference=ring";

/// Changes it, and waits until a node that is asked goes by it.
async fn prefer(client: &Client, wanted: LeaderPreference) -> Result<ClusterState, Stop> {
    client.change_layout(LayoutChange::Prefer(wanted)).await?;
    for _ in 0..LOOKS {
        let state = client.cluster_state().await?;
        if state.leader_preference == wanted {
            return Ok(state);
        }
        tokio::time::sleep(LOOK).await;
    }
    Err(Stop::unavailable(
        "it is set, but the node that was asked does not go by it yet: look again with `ringfort cluster set`",
    ))
}
