//! Log matching: if two logs contain an entry with the same index and term, then the logs are identical in all
//! entries up through that index (Raft, figure 3). By induction over the index it is enough that such entries hold
//! the same bytes and come after entries of the same term.

use std::collections::BTreeMap;

use ringfort_types::{Index, LogEntry, ShardId, Term};
use xxhash_rust::xxh3::xxh3_64;

use super::{Broken, broken};

const NAME: &str = "log matching";

#[derive(Debug, Default)]
pub(crate) struct LogMatching {
    /// Of each entry that anybody ever wrote: the hash of its bytes, and the term of the one before it.
    written: BTreeMap<(ShardId, Index, Term), (u64, Term)>,
}

impl LogMatching {
    /// A replica writes an entry after one of the term `before`.
    pub(crate) fn wrote(
        &mut self,
        host: usize,
        shard: ShardId,
        entry: &LogEntry,
        before: Term,
    ) -> Option<Broken> {
        let this = (xxh3_64(&entry.payload), before);
        let first = *self.written.entry((shard, entry.index, entry.term)).or_insert(this);
        if first == this {
            return None;
        }
        let (node, index, term) = (host + 1, entry.index, entry.term);
        let how = if first.1 == before {
            "other bytes".to_owned()
        } else {
            format!("an entry of term {before} before it instead of one of term {}", first.1)
        };
        Some(broken!(NAME, "n{node} writes entry {index} of term {term} of shard {shard} with {how}"))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_types::EntryKind;

    use super::*;

    #[test]
    fn an_entry_with_other_bytes_or_another_past_is_found() {
        let entry = |payload: &'static str| LogEntry {
            index: Index(5),
            term: Term(2),
            kind: EntryKind::Normal,
            payload: Bytes::from_static(payload.as_bytes()),
        };
        let mut judge = LogMatching::default();
        assert_eq!(judge.wrote(0, ShardId(1), &entry("a"), Term(1)), None);
        assert_eq!(judge.wrote(1, ShardId(1), &entry("a"), Term(1)), None);
        assert!(judge.wrote(1, ShardId(1), &entry("b"), Term(1)).is_some());
        assert!(judge.wrote(2, ShardId(1), &entry("a"), Term(2)).is_some());
    }
}
