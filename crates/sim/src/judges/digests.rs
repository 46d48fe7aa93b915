//! Replicas that have applied the same entries have the same rows: the state machine is deterministic (Raft, 2;
//! PITFALLS 4).

use std::collections::BTreeMap;

use ringfort_types::{Index, ShardId};

use super::{Broken, broken};

const NAME: &str = "replicas at one index have the same rows";
const SESSIONS: &str = "replicas at one index remember the same sessions";
/// How often a digest is taken, in entries.
const EVERY: u64 = 8;

/// Whether a digest is to be taken at this index.
pub(crate) fn is_due(index: Index) -> bool {
    index.0.is_multiple_of(EVERY)
}

#[derive(Debug, Default)]
pub(crate) struct Digests {
    /// The first one's hash and rows at an index, and whose.
    first: BTreeMap<(ShardId, Index), (usize, (u64, u64))>,
    /// The first one's hash of its sessions at an index, and whose.
    sessions: BTreeMap<(ShardId, Index), (usize, u64)>,
}

impl Digests {
    pub(crate) fn taken(
        &mut self,
        host: usize,
        shard: ShardId,
        index: Index,
        digest: (u64, u64),
    ) -> Option<Broken> {
        let (other, first) = *self.first.entry((shard, index)).or_insert((host, digest));
        (first != digest).then(|| {
            let (one, two) = (other + 1, host + 1);
            broken!(
                NAME,
                "n{one} and n{two} differ in shard {shard} at {index}: {:016x} of {} rows, {:016x} of {} rows",
                first.0,
                first.1,
                digest.0,
                digest.1
            )
        })
    }
}

impl Digests {
    /// As above, for what is remembered of sessions.
    pub(crate) fn sessions_taken(
        &mut self,
        host: usize,
        shard: ShardId,
        index: Index,
        hash: u64,
    ) -> Option<Broken> {
        let (other, first) = *self.sessions.entry((shard, index)).or_insert((host, hash));
        let (one, two) = (other + 1, host + 1);
        (first != hash).then(|| {
            broken!(SESSIONS, "n{one} and n{two} remember different sessions in shard {shard} at {index}")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_differ_are_found() {
        let mut judge = Digests::default();
        assert_eq!(judge.taken(0, ShardId(1), Index(8), (1, 2)), None);
        assert_eq!(judge.taken(1, ShardId(1), Index(8), (1, 2)), None);
        assert_eq!(judge.taken(1, ShardId(2), Index(8), (3, 2)), None);
        assert!(judge.taken(2, ShardId(1), Index(8), (3, 2)).is_some());
        assert_eq!(judge.sessions_taken(0, ShardId(1), Index(8), 1), None);
        assert_eq!(judge.sessions_taken(1, ShardId(1), Index(8), 1), None);
        assert!(judge.sessions_taken(2, ShardId(1), Index(8), 2).is_some());
    }
}
