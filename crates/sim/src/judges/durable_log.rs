//! What was synced is there after every crash: a restarted replica's log is at least as up to date as what it had
//! synced (Raft, 5.4.1), its term no lower, its vote the same (figure 2: "persistent state on all servers"). An
//! unsynced batch may have survived besides.

use ringfort_node::Opened;
use ringfort_types::{PeerId, ShardId};

use super::logs::{ReplicaLog, Terms};
use super::{Broken, broken};

const NAME: &str = "what was synced survives";

/// A replica has been opened.
pub(crate) fn opened(host: usize, shard: ShardId, before: &ReplicaLog, found: &Opened) -> Option<Broken> {
    if before.anew == Some(found.peer) {
        // The batch in which another replica takes its place was not synced, and yet it is there.
        return None;
    }
    let node = host + 1;
    let log = Terms::found(found);
    if log.end() < before.synced.end() {
        let ((term, index), (was_term, was_index)) = (log.end(), before.synced.end());
        return Some(broken!(
            NAME,
            "n{node}: the log of shard {shard} ends at {index} of term {term} after a restart; {was_index} of term {was_term} \
             had been synced"
        ));
    }
    let (state, was) = (found.hard_state, before.synced_state);
    let forgot_vote = state.term == was.term && was.vote != PeerId(0) && state.vote != was.vote;
    (state.term < was.term || forgot_vote).then(|| {
        broken!(NAME, "n{node}: shard {shard} has {state:?} after a restart, and had synced {was:?}")
    })
}

#[cfg(test)]
mod tests {
    use ringfort_types::{HardState, Index, Term};

    use super::*;

    #[test]
    fn a_log_that_is_shorter_or_older_is_found() {
        let synced_state = HardState { term: Term(2), vote: PeerId(3), commit: Index(0) };
        let mut before = ReplicaLog { synced_state, ..ReplicaLog::default() };
        for (index, term) in [(1, 1), (2, 1), (3, 2)] {
            before.synced.add(Index(index), Term(term));
        }
        let finds = |terms: &[(u64, u64)], last, term, vote| {
            let found = Opened {
                hard_state: HardState { term: Term(term), vote: PeerId(vote), commit: Index(0) },
                terms: terms.iter().map(|(first, term)| (Index(*first), Term(*term))).collect(),
                last: Index(last),
                ..Opened::default()
            };
            opened(0, ShardId(1), &before, &found).is_some()
        };
        assert!(!finds(&[(1, 1), (3, 2)], 3, 2, 3));
        assert!(!finds(&[(1, 1), (3, 2)], 5, 2, 3), "an unsynced batch has survived");
        assert!(!finds(&[(1, 1), (2, 4)], 2, 4, 1), "and so may one that overwrites");
        assert!(finds(&[(1, 1)], 2, 2, 3));
        assert!(finds(&[], 0, 2, 3));
        assert!(finds(&[(1, 1), (3, 2)], 3, 2, 0));
        assert!(finds(&[(1, 1), (3, 2)], 3, 1, 3));
    }
}
