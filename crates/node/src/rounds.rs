//! Rounds of reads: one question to each peer for all shards that have reads waiting.
//!
//! What the `raft` crate does with a heartbeat per group and follower, a node that leads many groups does here
//! with one message per peer (`docs/decisions/0002-read-probes.md`). The argument is that of ReadIndex (Raft
//! thesis, 6.4): the read takes the leader's commit index *before* the question is sent; whoever confirms the
//! term *after* it was sent had given no vote for a later one until then; so a majority's word means that no
//! later leader existed when the question was sent, and no write that the index misses was acknowledged.
//!
//! A round's number is bound to the boot count (PITFALLS 16b). Lost rounds are asked again by timer.

use std::collections::BTreeMap;

use ringfort_types::limits::READ_ROUNDS_MAX;
use ringfort_types::{ReadProbeReply, ShardId};

/// A round that is not settled after this long is given up, and its reads are asked about anew.
const ROUND_US_MAX: u64 = 150_000;

#[derive(Debug)]
struct UnderWay {
    began_us: u64,
    /// Those that no majority has confirmed yet.
    shards: Vec<ShardId>,
}

#[derive(Debug)]
pub(crate) struct Rounds {
    boot: u64,
    last: u64,
    under_way: BTreeMap<u64, UnderWay>,
}

impl Rounds {
    pub(crate) fn new(boot: u64) -> Rounds {
        Rounds { boot, last: 0, under_way: BTreeMap::new() }
    }

    pub(crate) fn boot(&self) -> u64 {
        self.boot
    }

    /// Whether a further round may begin; otherwise the reads wait and share the next one.
    pub(crate) fn may_begin(&self) -> bool {
        self.under_way.len() < READ_ROUNDS_MAX
    }

    /// The number of the next round.
    pub(crate) fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(crate) fn begun(&mut self, number: u64, now_us: u64, shards: Vec<ShardId>) {
        if !shards.is_empty() {
            self.under_way.insert(number, UnderWay { began_us: now_us, shards });
        }
    }

    /// Takes in an answer: the shards whose term one more replica confirms.
    pub(crate) fn answered(&self, reply: &ReadProbeReply) -> Vec<ShardId> {
        if reply.boot != self.boot {
            return Vec::new();
        }
        let Some(round) = self.under_way.get(&reply.round) else { return Vec::new() };
        round.shards.iter().filter(|shard| !reply.refused.contains(shard)).copied().collect()
    }

    /// Keeps the shards of a round that still wait; a round without any is over.
    pub(crate) fn settle(&mut self, number: u64, mut waits: impl FnMut(ShardId) -> bool) {
        if let Some(round) = self.under_way.get_mut(&number) {
            round.shards.retain(|shard| waits(*shard));
            if round.shards.is_empty() {
                self.under_way.remove(&number);
            }
        }
    }

    /// Ends rounds that take too long: their shards.
    pub(crate) fn take_overdue(&mut self, now_us: u64) -> Vec<(u64, Vec<ShardId>)> {
        self.under_way
            .extract_if(.., |_, round| now_us.saturating_sub(round.began_us) > ROUND_US_MAX)
            .map(|(number, round)| (number, round.shards))
            .collect()
    }
}
