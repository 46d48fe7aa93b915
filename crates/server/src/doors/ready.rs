//! Whether calls should come here: what health checks answer, by gRPC and by HTTP.
//!
//! A node serves once all its shards are open, until it is asked to stop, which is told before any leadership goes. What needs a quorum is
//! served while, besides, a leader of every shard is known: a node that is cut off from the others gets no calls from who heeds that. It
//! is looked at only when somebody asks, or watches, and at most every [`LOOK`].

use std::sync::Arc;
use std::time::Duration;

use ringfort_types::ShardId;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::gate::Gate;

/// How often it is looked whether there is a quorum.
pub(super) const LOOK: Duration = Duration::from_millis(500);
/// Most shards that are named in one answer.
const NAMED_MAX: usize = 8;
/// How long the node may take to say so.
const PATIENCE_MS: u32 = 1_000;

/// Of one node. A clone looks no more often.
#[derive(Clone, Debug)]
pub(super) struct Ready {
    gate: Gate,
    quorum: Arc<Mutex<Option<Look>>>,
}

/// What was found when it was looked last.
#[derive(Clone, Debug)]
struct Look {
    at: Instant,
    found: Result<(), String>,
}

impl Ready {
    pub(super) fn new(gate: Gate) -> Ready {
        Ready { gate, quorum: Arc::default() }
    }

    /// Whether the node serves, or why not.
    pub(super) fn of_node(&self) -> Result<(), String> {
        self.gate.not_serving().map_or(Ok(()), Err)
    }

    /// Whether it does, and every shard has a leader; or why not. One look for all who ask meanwhile.
    pub(super) async fn of_quorum(&self) -> Result<(), String> {
        self.of_node()?;
        let mut last = self.quorum.lock().await;
        if let Some(Look { at, found }) = &*last
            && at.elapsed() < LOOK
        {
            return found.clone();
        }
        let found = self.look().await;
        *last = Some(Look { at: Instant::now(), found: found.clone() });
        found
    }

    async fn look(&self) -> Result<(), String> {
        let state = self.gate.cluster(PATIENCE_MS).await.map_err(|failure| failure.message)?;
        let unled = state.shards.iter().filter(|shard| shard.leader.is_none()).map(|shard| shard.shard);
        let unled: Vec<ShardId> = unled.collect();
        match &unled[..] {
            [] => Ok(()),
            some => {
                let named: Vec<String> = some.iter().take(NAMED_MAX).map(ShardId::to_string).collect();
                let more = if some.len() > NAMED_MAX { ", …" } else { "" };
                Err(format!(
                    "this node knows no leader of {} of {} shards (0 is the meta group): {}{more}",
                    some.len(),
                    state.shards.len(),
                    named.join(", ")
                ))
            }
        }
    }

    /// The door's way to the node.
    pub(super) fn gate(&self) -> &Gate {
        &self.gate
    }
}
