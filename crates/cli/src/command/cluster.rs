//! `ringfort cluster nodes | shards | set [SETTING=VALUE] | transfer SHARD NODE | remove NODE | drain NODE | undrain NODE | plan [...]`

use clap::Args;

use crate::administration::{Action, Flags, Order, carry_out};
use crate::connection::{Connect, with_client};
use crate::out::{Out, Output};
use crate::plan::Joining;
use crate::stop::Stop;

/// Show the nodes or the shards; change a setting, a leader, or which nodes have replicas
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort cluster nodes\n  ringfort cluster shards --json\n  \
    ringfort cluster set                                  the settings as they are\n  \
    ringfort cluster set leader-preference=highest-id\n  \
    ringfort cluster set replicas=5\n  \
    ringfort cluster set level=1                          holds the level back during an upgrade\n  \
    ringfort cluster transfer 3 node2                     has node2 lead shard 3\n  \
    ringfort cluster plan remove node4                    what would move, before anything does\n  \
    ringfort cluster plan join 2\n  \
    ringfort cluster plan join 1 --weight 2 --zone b      if it is started with these flags\n  \
    ringfort cluster remove node4                         empties it; then it is no member any more\n  \
    ringfort cluster drain node4                          empties it; it stays a member\n  \
    ringfort cluster undrain node4\n\n\
    Settings:\n  \
    leader-preference=ring        the first in line leads a shard: leaders are spread evenly (the default)\n  \
    leader-preference=highest-id  the node with the highest number that is up leads, as a bully\n                                \
    election would have it. Leadership moves within seconds, without a failed write\n  \
    replicas=N                    copies of each key, made or removed while the cluster serves. An even\n                                \
    number is rounded, and with fewer nodes there are fewer\n  \
    level=auto                    the level in force rises as far as all nodes know it (the default)\n  \
    level=N                       no further than this, so that nodes can go back to the version before;\n                                \
    `ringfort version` says which levels a binary knows\n\n\
    A setting is kept by the cluster itself: it holds for all nodes, and after restarts.\n\n\
    `transfer` is done once the node leads. It then keeps that leadership for ten minutes, if it can: until it stops, another transfer, or \
    a change of leader-preference; after that, leaders are balanced again. A node that is down, damaged or not caught up is refused (exit code 3, \
    as if the outcome is unknown), one that has no replica of the shard too (2). Shard 0 is the meta group.\n\n\
    `remove` and `drain` put a node's replicas on the others, and wait until the node has none. They are refused if each shard would \
    have fewer copies (exit code 2), or if too many other replicas are down (3); --force does it all the same. A node that is down can be removed \
    like any other. Whoever interrupts them ends the wait, and nothing else. A node joins with `ringfort start --join HOST:PORT`.\n\n\
    JSON: an object a line; numbers of nodes are those of `cluster nodes`. Of `transfer`: shard, node, name, term, led_already, kept_ms. Of `remove`, \
    `drain` and `undrain`: node, name, standing, done, seconds. Of `plan`: nodes, shards, replicas, replicas_then, copied, dropped, bytes_to_copy, \
    moving, copies, copies_then, why, down, refused.")]
pub(crate) struct Cluster {
    /// nodes, shards, set, transfer, remove, drain, undrain or plan
    #[arg(value_name = "ACTION")]
    action: Action,
    /// SETTING=VALUE after set, SHARD NODE after transfer, NODE after remove, drain and undrain, what to plan for after plan
    #[arg(value_name = "WORD", num_args = 0..=2)]
    words: Vec<String>,
    /// Remove or drain a node though copies or majorities are at stake
    #[arg(long)]
    force: bool,
    /// Do not wait until a node has been removed, drained or given replicas
    #[arg(long)]
    no_wait: bool,
    /// Of the nodes that join, after plan join: how much each takes compared to others, 1 to 100
    #[arg(long, value_name = "N")]
    weight: Option<u32>,
    /// Of the nodes that join, after plan join: where they are
    #[arg(long, value_name = "NAME")]
    zone: Option<String>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(cluster: &Cluster) -> Result<(), Stop> {
    let words: Vec<&str> = cluster.words.iter().map(String::as_str).collect();
    let joining = Joining { weight: cluster.weight, zone: cluster.zone.as_deref() };
    let flags = Flags { force: cluster.force, wait: !cluster.no_wait, joining };
    let order = Order::read(cluster.action, &words, flags)?;
    let answer = with_client(&cluster.connect, async |client| carry_out(&client, &order).await)?;
    let mut out = Out::new();
    if cluster.output.json {
        answer.json.iter().try_for_each(|line| out.line(line))
    } else {
        out.line(answer.text.trim_end())
    }
}
