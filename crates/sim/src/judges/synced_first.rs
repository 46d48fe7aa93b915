//! What others may build on is synced before it is said: terms, votes, entries taken (Raft, figure 2: "updated on
//! stable storage before responding to RPCs"; DESIGN §6).

use ringfort_consensus::inspect::{Seen, SeenKind};
use ringfort_types::ShardId;

use super::logs::ReplicaLog;
use super::{Broken, broken};

const NAME: &str = "a term, a vote and entries are synced before they are spoken of";

/// A replica says something.
pub(crate) fn said(host: usize, shard: ShardId, replica: &ReplicaLog, seen: &Seen) -> Option<Broken> {
    let state = replica.synced_state;
    // A later term is synced already: what is said now was true once, and binds nobody any more.
    if state.term > seen.term {
        return None;
    }
    let is_synced = match seen.kind {
        // A pre-vote names a term that nobody is in yet (Raft thesis, 9.6).
        SeenKind::PreVote | SeenKind::PreVoteReply => true,
        SeenKind::Vote => state.term == seen.term && state.vote == seen.from,
        SeenKind::VoteReply if !seen.reject => state.term == seen.term && state.vote == seen.to,
        SeenKind::AppendReply if !seen.reject => {
            state.term == seen.term && replica.synced.end().1 >= seen.index
        }
        _ => state.term == seen.term,
    };
    (!is_synced).then(|| {
        let (node, end) = (host + 1, replica.synced.end());
        broken!(
            NAME,
            "n{node} says \"{seen}\" in shard {shard}, but has synced {state:?} and entries up to {}",
            end.1
        )
    })
}

#[cfg(test)]
mod tests {
    use ringfort_types::{HardState, Index, PeerId, Term};

    use super::*;

    #[test]
    fn what_is_not_synced_may_not_be_said() {
        let synced_state = HardState { term: Term(3), vote: PeerId(2), commit: Index(0) };
        let mut replica = ReplicaLog { synced_state, ..ReplicaLog::default() };
        replica.synced.add(Index(1), Term(3));
        let says = |kind, term, index, to| {
            let seen = Seen {
                kind,
                from: PeerId(1),
                to: PeerId(to),
                term: Term(term),
                index: Index(index),
                log_term: Term(0),
                commit: Index(0),
                entries: 0,
                reject: false,
            };
            said(0, ShardId(1), &replica, &seen).is_none()
        };
        assert!(says(SeenKind::VoteReply, 3, 0, 2));
        assert!(!says(SeenKind::VoteReply, 3, 0, 3));
        assert!(!says(SeenKind::VoteReply, 4, 0, 2));
        assert!(says(SeenKind::AppendReply, 3, 1, 2));
        assert!(!says(SeenKind::AppendReply, 3, 2, 2));
        assert!(says(SeenKind::AppendReply, 2, 2, 2));
        assert!(!says(SeenKind::HeartbeatReply, 4, 0, 2));
        assert!(says(SeenKind::PreVote, 4, 0, 2));
        assert!(!says(SeenKind::Vote, 3, 0, 2));
    }
}
