//! When a replica that hears nothing stands for election.
//!
//! The replica first in line for a shard waits 500–600 ms, the second 650–750 ms, and so on: the first one
//! alive usually wins unopposed. While there is a leader, those behind it in line move up by one. Inside its
//! band a replica's wait depends on the attempt, so that two that collided once part ways. All of it is a
//! function of the arguments: no generator, equal runs.
//!
//! The first [`PHASE_TICKS`] of a band are left out. Others refuse a pre-vote until they have heard nothing for the
//! shortest timeout themselves, and their ticks are out of phase with ours: who asks a tick too early is refused
//! by all, and waits for a whole timeout more.

use ringfort_types::limits::{ELECTION_BAND_MS, ELECTION_MS, ELECTION_RANK_MS, GROUP_REPLICAS_MAX, TICK_MS};
use ringfort_types::{PeerId, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Ticks of the shortest election timeout.
pub const ELECTION_TICKS: usize = (ELECTION_MS / TICK_MS) as usize;

/// By how many ticks two nodes' clocks and the leader's last words to them may be apart.
const PHASE_TICKS: u64 = 2;

/// Ticks without a word from a leader after which the replica of this rank (0: first in line) stands.
pub fn timeout_ticks(shard: ShardId, peer: PeerId, rank: u32, term: Term, attempt: u64) -> usize {
    let mut input = [0u8; 28];
    input[..4].copy_from_slice(&shard.0.to_le_bytes());
    input[4..12].copy_from_slice(&peer.0.to_le_bytes());
    input[12..20].copy_from_slice(&term.0.to_le_bytes());
    input[20..].copy_from_slice(&attempt.to_le_bytes());
    let drawn =
        PHASE_TICKS + xxh3_64_with_seed(&input, 0x5249_4e47) % (ELECTION_BAND_MS / TICK_MS + 1 - PHASE_TICKS);
    let rank_ms = u64::from(rank) * ELECTION_RANK_MS;
    ELECTION_TICKS + (rank_ms / TICK_MS + drawn) as usize
}

/// More ticks than anybody ever waits, however large the group: the last in line has all others that decide before it, the
/// voters and the outgoing ones.
pub const TICKS_BOUND: usize = {
    let last_rank_ms = 2 * GROUP_REPLICAS_MAX as u64 * ELECTION_RANK_MS;
    ELECTION_TICKS + ((last_rank_ms + ELECTION_BAND_MS) / TICK_MS) as usize + 1
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_of_different_ranks_never_overlap() {
        for rank in 0..5u32 {
            for attempt in 0..200 {
                let ticks = timeout_ticks(ShardId(7), PeerId(9), rank, Term(3), attempt) as u64;
                let low = ELECTION_MS + u64::from(rank) * ELECTION_RANK_MS;
                assert!((low..=low + ELECTION_BAND_MS).contains(&(ticks * TICK_MS)));
            }
        }
    }

    #[test]
    fn the_bound_is_above_every_wait() {
        for attempt in 0..200 {
            let ticks = timeout_ticks(ShardId(7), PeerId(9), 2 * GROUP_REPLICAS_MAX as u32, Term(3), attempt);
            assert!(ticks < TICKS_BOUND);
        }
    }

    #[test]
    fn attempts_part_ways() {
        let of =
            |peer| (0..8).map(|n| timeout_ticks(ShardId(1), PeerId(peer), 0, Term(1), n)).collect::<Vec<_>>();
        assert_ne!(of(1), of(2));
    }
}
