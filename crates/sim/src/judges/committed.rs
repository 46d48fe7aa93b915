//! State machine safety: if a replica has applied an entry at a given index, no other will ever apply a different
//! one for it (Raft, figure 3). So what is committed is never lost or changed.

use std::collections::BTreeMap;

use ringfort_types::{Index, LogEntry, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64;

use super::logs::Terms;
use super::{Broken, broken};

const NAME: &str = "what is committed is never changed";

/// What is known to be committed in one shard.
#[derive(Debug, Default)]
pub(crate) struct CommittedLog {
    pub(crate) terms: Terms,
    /// By index, from 1: the hash of its bytes, and a term in which, or before which, it was committed.
    entries: Vec<(u64, Term)>,
}

impl CommittedLog {
    /// The last index that was surely committed before this term.
    pub(crate) fn through_before(&self, term: Term) -> Index {
        let last = self.entries.iter().rposition(|(_, committed)| *committed < term);
        Index(last.map_or(0, |at| at as u64 + 1))
    }
}

#[derive(Debug, Default)]
pub(crate) struct Committed {
    shards: BTreeMap<ShardId, CommittedLog>,
}

impl Committed {
    pub(crate) fn of(&self, shard: ShardId) -> Option<&CommittedLog> {
        self.shards.get(&shard)
    }

    /// A replica's log begins after an entry of this term.
    pub(crate) fn has(&self, host: usize, shard: ShardId, index: Index, term: Term) -> Option<Broken> {
        let was = self.shards.get(&shard).map_or(Term(0), |log| log.terms.at(index));
        (was != term).then(|| {
            let node = host + 1;
            broken!(
                NAME,
                "n{node}: the log of shard {shard} begins after {index} of term {term}, where one of term {was} was committed"
            )
        })
    }

    /// A replica in this term applies an entry. Whether it is the first.
    pub(crate) fn applied(
        &mut self,
        host: usize,
        shard: ShardId,
        entry: &LogEntry,
        term: Term,
    ) -> Result<bool, Broken> {
        let log = self.shards.entry(shard).or_default();
        let hash = xxh3_64(&entry.payload);
        let (node, index) = (host + 1, entry.index);
        if index.0 > log.entries.len() as u64 + 1 {
            return Err(broken!(
                NAME,
                "n{node} applies entry {index} of shard {shard}, and nobody has applied the one before"
            ));
        }
        let Some((first, committed)) = log.entries.get_mut(index.0 as usize - 1) else {
            log.entries.push((hash, term));
            log.terms.add(index, entry.term);
            return Ok(true);
        };
        *committed = term.min(*committed);
        let was = log.terms.at(index);
        if (*first, was) == (hash, entry.term) {
            return Ok(false);
        }
        Err(broken!(
            NAME,
            "n{node} applies an entry of term {} at index {index} of shard {shard}, where one of term {was} was applied \
             before (if the terms are equal, the bytes differ)",
            entry.term
        ))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_types::EntryKind;

    use super::super::leader_completeness::LeaderCompleteness;
    use super::super::logs::ReplicaLog;
    use super::*;

    fn entry(index: u64, term: u64, payload: &'static str) -> LogEntry {
        let payload = Bytes::from_static(payload.as_bytes());
        LogEntry { index: Index(index), term: Term(term), kind: EntryKind::Normal, payload }
    }

    #[test]
    fn a_changed_entry_is_found() {
        let mut judge = Committed::default();
        assert_eq!(judge.applied(0, ShardId(1), &entry(1, 1, "a"), Term(1)), Ok(true));
        assert_eq!(judge.applied(1, ShardId(1), &entry(1, 1, "a"), Term(1)), Ok(false));
        assert!(judge.applied(2, ShardId(1), &entry(1, 2, "a"), Term(2)).is_err());
        assert!(judge.applied(2, ShardId(1), &entry(1, 1, "b"), Term(1)).is_err());
        assert!(judge.applied(2, ShardId(1), &entry(3, 1, "c"), Term(1)).is_err());
        assert_eq!(judge.has(0, ShardId(1), Index(1), Term(1)), None);
        assert!(judge.has(0, ShardId(1), Index(1), Term(2)).is_some());
        assert!(judge.has(0, ShardId(1), Index(2), Term(1)).is_some());
    }

    #[test]
    fn a_leader_without_a_committed_entry_is_found() {
        let mut committed = Committed::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2)] {
            assert_eq!(committed.applied(0, ShardId(1), &entry(index, term, ""), Term(term)), Ok(true));
        }
        let mut replica = ReplicaLog::default();
        replica.written.add(Index(1), Term(1));
        replica.written.add(Index(2), Term(1));
        let leads = |term, replica: &ReplicaLog| {
            let log = committed.of(ShardId(1));
            LeaderCompleteness::default().leads(1, ShardId(1), Term(term), replica, log)
        };
        assert_eq!(leads(2, &replica), None, "entry 3 was committed in term 2, not before");
        assert!(leads(3, &replica).is_some());
        replica.written.add(Index(3), Term(2));
        assert_eq!(leads(3, &replica), None);
        replica.written.add(Index(2), Term(3));
        assert!(leads(4, &replica).is_some());
    }
}
