//! `ringfort check`
//!
//! A digest is a mark in a shard's log: at its index, every replica of the shard has seen the same history, so all of
//! them must hash to the same. Anything else means that a replica is damaged, and no majority vote says which.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use clap::Args;
use ringfort_client::{Client, Digest};
use ringfort_types::{ClusterState, Code, Failure, Index, NodeId, Presence, ShardId};
use ringfort_view::{key_shards, name};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::connection::{Connect, with_client};
use crate::json::Object;
use crate::out::{self, Out, Output};
use crate::progress::Progress;
use crate::show;
use crate::stop::Stop;
use crate::waiting::nobody_there;

/// Shards that are hashed at once. Each hash reads a whole shard.
const SHARDS_AT_ONCE: usize = 8;
/// Who fails after more than this has let time go by, and is not just restarting.
const LATE: Duration = Duration::from_secs(1);
/// How long a replica may take over its hash, unless somebody says otherwise.
pub(crate) const TIMEOUT_DEFAULT: &str = "30s";

/// Compare all replicas of all shards, each at one index of its log
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ringfort check && echo all is well\n\n\
    Exit code 3: some replicas differ, or could not be asked. JSON: an object for each shard (shard, index, agree, \
    replicas with node, hash and rows, or error), then one for all (shards, rows, differing, not_asked, agree).")]
pub(crate) struct Check {
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(check: &Check) -> Result<(), Stop> {
    with_client(&check.connect, async |client| {
        let state = Arc::new(tokio::select! {
            state = client.cluster_state() => state?,
            stop = nobody_there(&client) => return Err(stop),
        });
        let (progress, total) = (Progress::new(None), key_shards(&state).count());
        let turns = Arc::new(Semaphore::new(SHARDS_AT_ONCE));
        let late = Late::default();
        let mut asking = JoinSet::new();
        for shard in key_shards(&state) {
            let replicas: Vec<NodeId> = shard.replicas.iter().map(|(node, _)| *node).collect();
            asking.spawn(ask(
                client.clone(),
                state.clone(),
                turns.clone(),
                late.clone(),
                shard.shard,
                replicas,
            ));
        }
        let mut shards = Vec::new();
        while let Some(hashed) = asking.join_next().await {
            shards.push(hashed.map_err(|_| Stop::unavailable("the check broke down"))?);
            progress.say(&format!("{} of {}", shards.len(), show::count(total as u64, "shard", "shards")));
        }
        drop(progress);
        shards.sort_unstable_by_key(|hashed| hashed.shard);
        judge(&state, &shards, check.output.json)
    })
}

/// One shard's hashes.
#[derive(Debug)]
struct Hashed {
    shard: ShardId,
    at: Index,
    replicas: BTreeMap<NodeId, Result<Digest, Failure>>,
}

/// Nodes that have let a question's time go by. They are not asked again: all of it is to be over in that time, about.
#[derive(Clone, Debug, Default)]
struct Late(Arc<Mutex<BTreeMap<NodeId, Failure>>>);

impl Late {
    fn of(&self, node: NodeId) -> Option<Failure> {
        self.nodes().get(&node).cloned()
    }

    fn note(&self, node: NodeId, digest: &Result<Digest, Failure>) {
        if let Err(failure) = digest {
            self.nodes().entry(node).or_insert_with(|| failure.clone());
        }
    }

    fn nodes(&self) -> MutexGuard<'_, BTreeMap<NodeId, Failure>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(
    client: Client,
    state: Arc<ClusterState>,
    turns: Arc<Semaphore>,
    late: Late,
    shard: ShardId,
    nodes: Vec<NodeId>,
) -> Hashed {
    let _turn = turns.acquire().await.expect("the semaphore is never closed");
    let at = match client.digest(shard).await {
        Ok(receipt) => receipt.index,
        Err(failure) => {
            let replicas = nodes.into_iter().map(|node| (node, Err(failure.clone()))).collect();
            return Hashed { shard, at: Index(0), replicas };
        }
    };
    let mut asking = JoinSet::new();
    for node in nodes {
        let (client, late) = (client.clone(), late.clone());
        let known_down = state.nodes.iter().any(|known| known.id == node && known.presence == Presence::Down);
        asking.spawn(async move {
            if known_down {
                let why = "it is down";
                return (node, Err(Failure::rejected(Code::Unavailable, why)));
            }
            if let Some(failure) = late.of(node) {
                return (node, Err(failure));
            }
            let begun = Instant::now();
            let digest = client.digest_at(node, shard, at).await;
            if begun.elapsed() > LATE {
                late.note(node, &digest);
            }
            (node, digest)
        });
    }
    let mut replicas = BTreeMap::new();
    while let Some(Ok((node, digest))) = asking.join_next().await {
        replicas.insert(node, digest);
    }
    Hashed { shard, at, replicas }
}

/// Prints what differs (as JSON, every shard), and says how it is.
fn judge(state: &ClusterState, shards: &[Hashed], json: bool) -> Result<(), Stop> {
    let mut out = Out::new();
    let mut differing = 0;
    let mut rows = 0;
    // For each node that could not be asked: how many replicas, and why the first of them.
    let mut silent: BTreeMap<NodeId, (u64, String)> = BTreeMap::new();
    for hashed in shards {
        let mut answers = Vec::new();
        for (node, answer) in &hashed.replicas {
            match answer {
                Ok(digest) => answers.push((*node, *digest)),
                Err(failure) => {
                    silent.entry(*node).or_insert_with(|| (0, failure.to_string())).0 += 1;
                }
            }
        }
        rows += answers.first().map_or(0, |(_, digest)| digest.rows);
        let differs = answers.iter().any(|(_, digest)| *digest != answers[0].1);
        differing += usize::from(differs);
        if json {
            out.line(object(state, hashed, !differs).finish())?;
        } else if differs {
            let each: Vec<_> = answers
                .iter()
                .map(|(node, digest)| {
                    let rows = show::count(digest.rows, "row", "rows");
                    format!("{} has {:016x} ({rows})", name(state, *node), digest.hash)
                })
                .collect();
            out.line(format!("shard {} at index {}: {}", hashed.shard, hashed.at, each.join(", ")))?;
        }
    }
    let total = shards.len();
    if json {
        let not_asked: u64 = silent.values().map(|(count, _)| count).sum();
        let counts = Object::new().field("shards", total).field("rows", rows).field("differing", differing);
        let agree = differing == 0 && not_asked == 0;
        out.line(counts.field("not_asked", not_asked).field("agree", agree).finish())?;
    }
    if differing > 0 {
        return Err(Stop::unavailable(format!(
            "the replicas of {differing} of {} DIFFER: keep all data directories as they are, and find out which is right",
            show::count(total as u64, "shard", "shards")
        )));
    }
    if !silent.is_empty() {
        let each: Vec<_> = silent
            .iter()
            .map(|(node, (count, why))| {
                format!("{} ({}: {why})", name(state, *node), show::count(*count, "replica", "replicas"))
            })
            .collect();
        let asked = shards.iter().any(|hashed| hashed.replicas.values().any(Result::is_ok));
        let told = if asked {
            "could not ask every replica; those asked agree"
        } else {
            "could not ask any replica, so nothing is known"
        };
        return Err(Stop::unavailable(format!("{told}. Not asked: {}", each.join(", "))));
    }
    if json {
        return Ok(());
    }
    let counts = shards.iter().map(|hashed| hashed.replicas.len());
    let (least, most) = (counts.clone().min().unwrap_or(0), counts.max().unwrap_or(0));
    let each = if least == most { most.to_string() } else { format!("{least} to {most}") };
    let replicas = if most == 1 { "replica" } else { "replicas" };
    out::line(format!(
        "{}, {each} {replicas} each: all replicas agree ({})",
        show::count(total as u64, "shard", "shards"),
        show::count(rows, "row", "rows")
    ))
}

/// One shard, with each of its replicas.
fn object(state: &ClusterState, hashed: &Hashed, agree: bool) -> Object {
    let replicas: Vec<_> = hashed
        .replicas
        .iter()
        .map(|(node, answer)| match answer {
            Ok(digest) => {
                let hash = format!("{:016x}", digest.hash);
                json!({ "node": name(state, *node), "hash": hash, "rows": digest.rows })
            }
            Err(failure) => json!({ "node": name(state, *node), "error": failure.to_string() }),
        })
        .collect();
    Object::new()
        .field("shard", hashed.shard.0)
        .field("index", hashed.at.0)
        .field("agree", agree)
        .field("replicas", replicas)
}

#[cfg(test)]
mod tests {
    use ringfort_types::NodeState;

    use super::*;

    fn hashed(shard: u32, replicas: &[(u64, Option<u64>)]) -> Hashed {
        let answer = |hash: Option<u64>| {
            hash.map(|hash| Digest { hash, rows: 2 }).ok_or(Failure::rejected(Code::Unavailable, "gone"))
        };
        let replicas = replicas.iter().map(|&(node, hash)| (NodeId(node), answer(hash))).collect();
        Hashed { shard: ShardId(shard), at: Index(7), replicas }
    }

    #[test]
    fn disagreement_and_silence_are_told_apart() {
        let node = |id| NodeState { id: NodeId(id), name: format!("n{id}"), ..NodeState::default() };
        let state = ClusterState { nodes: vec![node(1), node(2)], ..ClusterState::default() };
        assert_eq!(judge(&state, &[hashed(1, &[(1, Some(9)), (2, Some(9))])], false), Ok(()));
        let differ = judge(&state, &[hashed(1, &[(1, Some(9)), (2, Some(8))])], false).unwrap_err();
        assert!(differ.code == 3 && differ.message.contains("1 of 1 shard DIFFER"), "{differ:?}");
        let silent = judge(&state, &[hashed(1, &[(1, Some(9)), (2, None)])], false).unwrap_err();
        assert!(silent.code == 3 && silent.message.contains("n2 (1 replica: gone)"), "{silent:?}");
    }
}
