//! What must hold at every moment. Each check says which promise it is about.

use std::collections::BTreeMap;

use ringfort_types::{ClusterState, HardState, Index, LogEntry, NodeId, PeerId, Record, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64;

/// What has been seen so far.
#[derive(Debug, Default)]
pub(crate) struct Safety {
    /// Of each entry that was applied anywhere, its term and the hash of its bytes.
    applied: BTreeMap<(ShardId, Index), (Term, u64)>,
    /// Each replica's last hard state that was made durable.
    hard_states: BTreeMap<(usize, ShardId), HardState>,
    leaders: BTreeMap<(ShardId, Term), NodeId>,
}

impl Safety {
    /// State machine safety (Raft, figure 3): no two nodes ever apply different entries at one index.
    pub(crate) fn applied(&mut self, host: usize, shard: ShardId, entry: &LogEntry) -> Vec<String> {
        let this = (entry.term, xxh3_64(&entry.payload));
        let first = *self.applied.entry((shard, entry.index)).or_insert(this);
        if first == this {
            return Vec::new();
        }
        let (index, term) = (entry.index, entry.term);
        vec![format!(
            "n{} applies an entry of term {term} at index {index} of shard {shard}, where one of term {} was \
             applied before (or the same term's with other bytes)",
            host + 1,
            first.0
        )]
    }

    /// One vote a term, and terms never fall (Raft, 5.1 and 5.2), also across restarts.
    pub(crate) fn synced(&mut self, host: usize, records: &[Record]) -> Vec<String> {
        let mut broken = Vec::new();
        for record in records {
            let Record::HardState(shard, state) = record else { continue };
            let before = self.hard_states.insert((host, *shard), *state).unwrap_or_default();
            if state.term < before.term {
                broken
                    .push(format!("n{}: term of shard {shard} falls from {before:?} to {state:?}", host + 1));
            }
            let voted = before.vote != PeerId(0);
            if state.term == before.term && voted && state.vote != before.vote {
                broken.push(format!("n{} votes twice in shard {shard}: {before:?}, {state:?}", host + 1));
            }
        }
        broken
    }

    /// Election safety (Raft, figure 3): one leader a term.
    pub(crate) fn seen(&mut self, state: &ClusterState) -> Vec<String> {
        let mut broken = Vec::new();
        for shard in &state.shards {
            let Some(leader) = shard.leader else { continue };
            let first = *self.leaders.entry((shard.shard, shard.term)).or_insert(leader);
            if first != leader {
                broken.push(format!(
                    "shard {} has two leaders in term {}: {first}, and {leader} as node {} has it",
                    shard.shard, shard.term, state.node
                ));
            }
        }
        broken
    }
}
