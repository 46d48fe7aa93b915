//! A replica whose table is damaged takes no part (`ringfort_node`'s `damage`): it follows nobody, votes for nobody, reads and
//! applies nothing. All that it may still do is hand over what it led when its node heard of the damage.

use std::collections::BTreeMap;

use ringfort_consensus::inspect::{Seen, SeenKind};
use ringfort_types::{Index, ShardId, Term};

use super::one_leader::speaks_as_leader;
use super::{Broken, broken};

const NAME: &str = "a replica whose table is damaged takes no part";

/// Those whose nodes know, each with its term when they heard of it.
#[derive(Debug, Default)]
pub(crate) struct Damaged {
    known: BTreeMap<(usize, ShardId), Term>,
}

impl Damaged {
    /// A node has heard of it, and has finished that turn.
    pub(crate) fn heard(&mut self, host: usize, shard: ShardId, term: Term) {
        self.known.entry((host, shard)).or_insert(term);
    }

    /// A process has ended. The next one does not know before it meets the damage itself.
    pub(crate) fn ended(&mut self, host: usize) {
        self.known.retain(|(of, _), _| *of != host);
    }

    /// Another replica has taken its place.
    pub(crate) fn begun(&mut self, host: usize, shard: ShardId) {
        self.known.remove(&(host, shard));
    }

    /// A replica says something.
    pub(crate) fn said(&self, host: usize, shard: ShardId, seen: &Seen) -> Option<Broken> {
        let term = *self.known.get(&(host, shard))?;
        let hands_over = speaks_as_leader(seen) && seen.term <= term;
        // Who still leads says so to who would stand against it. That binds nobody.
        let refuses = seen.reject && matches!(seen.kind, SeenKind::PreVoteReply | SeenKind::VoteReply);
        // So does Raft to who led in an earlier term: this acknowledges nothing.
        let names_its_term =
            seen.kind == SeenKind::AppendReply && seen.index == Index(0) && seen.term <= term;
        (!hands_over && !refuses && !names_its_term)
            .then(|| broken!(NAME, "n{} says \"{seen}\" in shard {shard}", host + 1))
    }

    /// Its table is to be used.
    pub(crate) fn used(&self, host: usize, shard: ShardId, what: &str) -> Option<Broken> {
        let is_known = self.known.contains_key(&(host, shard));
        is_known.then(|| broken!(NAME, "n{} {what} shard {shard}", host + 1))
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Index, PeerId};

    use super::*;

    #[test]
    fn a_damaged_replica_may_hand_over_and_nothing_else() {
        let says = |kind, term| Seen {
            kind,
            from: PeerId(1),
            to: PeerId(2),
            term: Term(term),
            index: Index(0),
            log_term: Term(0),
            commit: Index(0),
            entries: 0,
            reject: false,
        };
        let mut judge = Damaged::default();
        let shard = ShardId(1);
        assert_eq!(judge.said(0, shard, &says(SeenKind::VoteReply, 3)), None);
        judge.heard(0, shard, Term(3));
        assert_eq!(judge.said(0, shard, &says(SeenKind::TimeoutNow, 3)), None);
        assert_eq!(judge.said(0, shard, &says(SeenKind::Heartbeat, 4)).unwrap().invariant, NAME);
        assert_eq!(judge.said(0, shard, &says(SeenKind::VoteReply, 4)).unwrap().invariant, NAME);
        assert_eq!(judge.said(0, shard, &Seen { reject: true, ..says(SeenKind::PreVoteReply, 4) }), None);
        assert_eq!(judge.said(0, shard, &says(SeenKind::AppendReply, 3)), None);
        let acknowledges = Seen { index: Index(7), ..says(SeenKind::AppendReply, 3) };
        assert_eq!(judge.said(0, shard, &acknowledges).unwrap().invariant, NAME);
        assert_eq!(judge.said(1, shard, &says(SeenKind::VoteReply, 4)), None);
        assert!(judge.used(0, shard, "reads").is_some() && judge.used(0, ShardId(2), "reads").is_none());
        judge.ended(0);
        assert_eq!(judge.used(0, shard, "reads"), None);
    }
}
