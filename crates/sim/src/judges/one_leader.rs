//! Election safety: at most one leader can be elected in a given term (Raft, figure 3; proof in the thesis, 3.6).

use std::collections::BTreeMap;

use ringfort_consensus::inspect::{Seen, SeenKind};
use ringfort_types::{ClusterState, ShardId, Term};

use super::{Broken, broken};

const NAME: &str = "one leader a term";

/// Whoever sends entries, snapshots or heartbeats leads.
pub(crate) fn speaks_as_leader(seen: &Seen) -> bool {
    matches!(seen.kind, SeenKind::Append | SeenKind::Snapshot | SeenKind::Heartbeat | SeenKind::TimeoutNow)
}

#[derive(Debug, Default)]
pub(crate) struct OneLeader {
    leaders: BTreeMap<(ShardId, Term), usize>,
}

impl OneLeader {
    /// A node speaks as a leader. Whether it is the first that is heard of in its term.
    pub(crate) fn said(&mut self, host: usize, shard: ShardId, seen: &Seen) -> Result<bool, Broken> {
        match self.leaders.insert((shard, seen.term), host) {
            None => Ok(true),
            Some(other) if other == host => Ok(false),
            Some(other) => Err(broken!(
                NAME,
                "n{} and n{} both lead shard {shard} in term {}",
                other + 1,
                host + 1,
                seen.term
            )),
        }
    }

    /// Who spoke as this shard's leader in this term.
    pub(crate) fn of(&self, shard: ShardId, term: Term) -> Option<usize> {
        self.leaders.get(&(shard, term)).copied()
    }

    /// Who spoke as this shard's leader in the latest term that had one.
    pub(crate) fn latest(&self, shard: ShardId) -> Option<usize> {
        let mut terms = self.leaders.range((shard, Term(0))..=(shard, Term(u64::MAX)));
        terms.next_back().map(|(_, host)| *host)
    }

    /// A node tells clients who leads. It may have seen a leader that has not said anything yet.
    pub(crate) fn shown(&mut self, state: &ClusterState) -> Vec<Broken> {
        let mut broken = Vec::new();
        for shard in &state.shards {
            let Some(leader) = shard.leader else { continue };
            let shown = leader.0 as usize - 1;
            if let Some(known) = self.leaders.get(&(shard.shard, shard.term))
                && *known != shown
            {
                broken.push(broken!(
                    NAME,
                    "shard {} is led by n{} in term {}, but n{} shows {leader}",
                    shard.shard,
                    known + 1,
                    shard.term,
                    state.node
                ));
            }
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Index, PeerId};

    use super::*;

    #[test]
    fn a_second_leader_of_a_term_is_found() {
        let heartbeat = |term| Seen {
            kind: SeenKind::Heartbeat,
            from: PeerId(1),
            to: PeerId(2),
            term: Term(term),
            index: Index(0),
            log_term: Term(0),
            commit: Index(0),
            entries: 0,
            reject: false,
        };
        let mut judge = OneLeader::default();
        assert_eq!(judge.said(0, ShardId(1), &heartbeat(3)), Ok(true));
        assert_eq!(judge.said(0, ShardId(1), &heartbeat(3)), Ok(false));
        assert_eq!(judge.said(1, ShardId(1), &heartbeat(4)), Ok(true));
        assert_eq!(judge.said(1, ShardId(2), &heartbeat(3)), Ok(true));
        assert_eq!((judge.latest(ShardId(1)), judge.latest(ShardId(3))), (Some(1), None));
        assert_eq!(judge.said(1, ShardId(1), &heartbeat(3)).unwrap_err().invariant, NAME);
    }
}
