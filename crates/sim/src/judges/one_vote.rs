//! One vote a term, also across restarts, and terms never fall (Raft, 5.1 and 5.2; figure 2: `currentTerm` and
//! `votedFor` are persistent).

use std::collections::BTreeMap;

use ringfort_consensus::inspect::{Seen, SeenKind};
use ringfort_types::{HardState, PeerId, ShardId, Term};

use super::{Broken, broken};

const NAME: &str = "one vote a term";

#[derive(Debug, Default)]
pub(crate) struct OneVote {
    /// Whom each replica has voted for, as it told.
    votes: BTreeMap<(PeerId, ShardId, Term), PeerId>,
}

/// A replica has made its hard state durable.
pub(crate) fn synced(host: usize, shard: ShardId, before: HardState, now: HardState) -> Option<Broken> {
    let node = host + 1;
    if now.term < before.term {
        return Some(broken!(NAME, "n{node}: the term of shard {shard} falls from {before:?} to {now:?}"));
    }
    let voted = before.vote != PeerId(0);
    (now.term == before.term && voted && now.vote != before.vote)
        .then(|| broken!(NAME, "n{node} votes twice in shard {shard}: {before:?}, {now:?}"))
}

impl OneVote {
    /// A replica gives its vote, to itself when it asks for others'.
    pub(crate) fn said(&mut self, host: usize, shard: ShardId, seen: &Seen) -> Option<Broken> {
        let vote = match seen.kind {
            SeenKind::VoteReply if !seen.reject => seen.to,
            SeenKind::Vote => seen.from,
            _ => return None,
        };
        let first = *self.votes.entry((seen.from, shard, seen.term)).or_insert(vote);
        (first != vote).then(|| {
            let (node, term) = (host + 1, seen.term);
            broken!(NAME, "n{node} votes for {first} and for {vote} in term {term} of shard {shard}")
        })
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::Index;

    use super::*;

    fn state(term: u64, vote: u64) -> HardState {
        HardState { term: Term(term), vote: PeerId(vote), commit: Index(0) }
    }

    #[test]
    fn a_second_vote_and_a_falling_term_are_found() {
        let judge = |before, now| synced(0, ShardId(1), before, now).map(|broken| broken.invariant);
        assert_eq!(judge(state(3, 0), state(3, 2)), None);
        assert_eq!(judge(state(3, 2), state(4, 1)), None);
        assert_eq!(judge(state(3, 2), state(3, 1)), Some(NAME));
        assert_eq!(judge(state(3, 2), state(3, 0)), Some(NAME));
        assert_eq!(judge(state(3, 2), state(2, 2)), Some(NAME));
    }
}
