//! `ringfort rebuild NODE [--shard N]`
//!
//! The meta group gives the places of the node's replicas to fresh peers, and the groups' leaders and the node do the rest
//! (`ringfort-node`'s `renewal`). This asks for a few at a time, and waits for each until it has what its leader had committed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use ringfort_client::Client;
use ringfort_types::{
    ClusterState, Index, LayoutChange, NodeId, PeerId, Presence, Replica, ReplicaReport, ShardId, ShardState,
};
use ringfort_view::{is_damaged, name, presence_of};
use serde_json::json;

use crate::cluster::find_node;
use crate::connection::{Connect, with_client};
use crate::out::{Out, Output};
use crate::progress::Progress;
use crate::show;
use crate::stop::Stop;
use crate::waiting::once_all_are_heard;

/// Replicas that are made anew at a time.
const AT_ONCE: usize = 8;
/// How often it is looked how far they are.
const LOOK: Duration = Duration::from_millis(100);
/// How long nothing may have gone forward.
const PATIENCE: Duration = Duration::from_mins(1);

/// Make a node's replicas anew from the others
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort rebuild node2\n  ringfort rebuild node2 --shard 17\n\n\
    For a node whose stored data is not to be trusted any more. Each replica is taken out of its shard's group, begins \
    with nothing under a new number, takes what the shard's leader sends, and votes again once it has caught up. Meanwhile the \
    shard has a replica less, so all others have to be up and whole. A replica that a node itself finds damaged is made anew without \
    being asked for.\n\nJSON: an object for each replica that is whole again (shard, node, peer, seconds).")]
pub(crate) struct Rebuild {
    /// The node's name or number
    #[arg(value_name = "NODE")]
    node: String,
    /// Only this shard's replica
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// A replica that is being made anew.
struct UnderWay {
    before: PeerId,
    /// What the others had committed when it was asked for.
    goal: Index,
    /// What the leader had committed once its group had the new replica among its voters, and the old one no more.
    settled: Option<Index>,
    since: Instant,
}

pub(crate) fn run(rebuild: &Rebuild) -> Result<(), Stop> {
    with_client(&rebuild.connect, async |client| {
        let state = once_all_are_heard(&client).await?;
        let node = find_node(&state, &rebuild.node)?.id;
        let mut left = wanted(&state, node, rebuild.shard.map(ShardId))?;
        left.reverse();
        let total = left.len();
        let called = name(&state, node);
        let progress = Progress::new(None);
        let (mut out, mut under_way, mut moved) = (Out::new(), BTreeMap::new(), Instant::now());
        let mut done = 0;
        loop {
            while under_way.len() < AT_ONCE
                && let Some(shard) = left.pop()
            {
                under_way.insert(shard, ask(&client, shard, node).await?);
            }
            if under_way.is_empty() {
                break;
            }
            tokio::time::sleep(LOOK).await;
            let state = client.cluster_state().await?;
            for (shard, UnderWay { since, .. }) in
                under_way.extract_if(.., |shard, one| is_whole(&state, *shard, node, one))
            {
                (done, moved) = (done + 1, Instant::now());
                let seconds = since.elapsed().as_secs_f64();
                if rebuild.output.json {
                    let peer = replica(&state, shard, node).map_or(0, |report| report.peer.0);
                    let line = json!({ "shard": shard.0, "node": node.0, "peer": peer, "seconds": seconds });
                    out.line(line.to_string())?;
                }
                progress.say(&format!("{done} of {}", show::count(total as u64, "replica", "replicas")));
            }
            if moved.elapsed() > PATIENCE {
                let shards: Vec<String> = under_way.keys().map(ToString::to_string).collect();
                return Err(Stop::unavailable(format!(
                    "shards {} of {called} are asked for, and have not come further for {} s: it goes on once all their other \
                     replicas are up; see `ringfort status`",
                    shards.join(", "),
                    PATIENCE.as_secs()
                )));
            }
        }
        drop(progress);
        if !rebuild.output.json {
            let replicas = show::count(total as u64, "replica", "replicas");
            out.line(format!("{called} has made {replicas} anew"))?;
        }
        Ok(())
    })
}

/// The shards whose replicas on this node can be made anew now, or why not.
fn wanted(state: &ClusterState, node: NodeId, only: Option<ShardId>) -> Result<Vec<ShardId>, Stop> {
    let called = name(state, node);
    if presence_of(state, node) != Presence::Up {
        return Err(Stop::unavailable(format!(
            "{called} is not up: start it first, since it makes its replicas anew itself; if its disk is lost, `ringfort start` with \
             --join and --replace gives it all from the others"
        )));
    }
    let mut shards = Vec::new();
    for shard in state.shards.iter().filter(|shard| only.is_none_or(|only| only == shard.shard)) {
        if shard.replicas.iter().all(|(of, _)| *of != node) {
            continue;
        }
        let others = || shard.replicas.iter().map(|(of, _)| *of).filter(|of| *of != node);
        if others().count() == 0 {
            return Err(Stop::usage(format!(
                "{called} has the only replica of shard {}: there is nothing that it could be made anew from",
                shard.shard
            )));
        }
        if let Some(other) = others().find(|of| presence_of(state, *of) != Presence::Up) {
            return Err(Stop::unavailable(format!(
                "{} is not up, and shard {} can't do without its replica and the one that is made anew: start it first",
                name(state, other),
                shard.shard
            )));
        }
        if let Some(other) = others().find(|of| is_damaged(state, *of, shard.shard)) {
            return Err(Stop::unavailable(format!(
                "the replica of shard {} on {} is damaged, and being made anew itself: wait for that; see `ringfort status`",
                shard.shard,
                name(state, other)
            )));
        }
        shards.push(shard.shard);
    }
    match only {
        Some(only) if shards.is_empty() => Err(Stop::usage(format!(
            "{called} has no replica of shard {only}: see `ringfort cluster shards`"
        ))),
        _ => Ok(shards),
    }
}

/// Asks for one.
async fn ask(client: &Client, shard: ShardId, node: NodeId) -> Result<UnderWay, Stop> {
    let state = client.cluster_state().await?;
    let before = replica(&state, shard, node)
        .map(|report| report.peer)
        .ok_or_else(|| Stop::unavailable(format!("shard {shard} has no replica there any more")))?;
    let committed = group(&state, shard)
        .into_iter()
        .flat_map(|known| &known.replicas)
        .map(|(_, report)| report.committed);
    let goal = committed.max().unwrap_or_default();
    client.change_layout(LayoutChange::Renew { shard, replica: Replica { node, peer: before } }).await?;
    Ok(UnderWay { before, goal, settled: None, since: Instant::now() })
}

fn group(state: &ClusterState, shard: ShardId) -> Option<&ShardState> {
    state.shards.iter().find(|known| known.shard == shard)
}

/// What is said of the replica of this shard on this node.
fn replica(state: &ClusterState, shard: ShardId, node: NodeId) -> Option<&ReplicaReport> {
    let (_, report) = group(state, shard)?.replicas.iter().find(|(of, _)| *of == node)?;
    Some(report)
}

/// Whether the new replica has what the old one had, votes in its place, and all others know that: until then the group may need the old
/// one's vote, so that it could not do without another node.
fn is_whole(state: &ClusterState, shard: ShardId, node: NodeId, under_way: &mut UnderWay) -> bool {
    let is_new = |report: &ReplicaReport| {
        report.peer != under_way.before && report.applied > Index(0) && report.applied >= under_way.goal
    };
    let Some(group) = group(state, shard) else { return false };
    if !replica(state, shard, node).is_some_and(is_new) || is_damaged(state, node, shard) || group.is_moving {
        return false;
    }
    let leader = group.leader.and_then(|leader| replica(state, shard, leader));
    let Some(settled) = under_way.settled.or(leader.map(|leader| leader.committed)) else { return false };
    under_way.settled = Some(settled);
    group.replicas.iter().all(|(_, report)| report.committed >= settled)
}
