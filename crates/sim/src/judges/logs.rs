//! What each replica has written: not a judge, but what judges look at.

use std::collections::BTreeMap;

use ringfort_node::Opened;
use ringfort_types::{HardState, Index, Record, ShardId, Term};

/// The terms of a log's entries, as runs: each with the first index that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    runs: Vec<(Index, Term)>,
    last: Index,
}

impl Terms {
    /// The entry at this index has this term; those after it are gone.
    pub(crate) fn add(&mut self, index: Index, term: Term) {
        if index <= self.last {
            let kept = self.runs.partition_point(|(first, _)| *first < index);
            self.runs.truncate(kept);
        }
        if self.runs.last().is_none_or(|(_, last)| *last != term) {
            self.runs.push((index, term));
        }
        self.last = index;
    }

    /// The term of the entry at this index; 0 before the first one, and beyond the last one.
    pub(crate) fn at(&self, index: Index) -> Term {
        if index > self.last {
            return Term(0);
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        if after == 0 { Term(0) } else { self.runs[after - 1].1 }
    }

    /// The last entry's term and index: what "at least as up to date" compares (Raft, 5.4.1).
    pub(crate) fn end(&self) -> (Term, Index) {
        (self.at(self.last), self.last)
    }

    /// The first index up to `through` at which the other has another term.
    pub(crate) fn first_difference(&self, other: &Terms, through: Index) -> Option<Index> {
        let starts = |terms: &Terms| terms.runs.iter().map(|(first, _)| *first).collect::<Vec<_>>();
        let mut edges = [starts(self), starts(other), vec![self.last.next(), other.last.next()]].concat();
        edges.sort_unstable();
        edges.into_iter().find(|edge| *edge <= through && self.at(*edge) != other.at(*edge))
    }
}

/// One replica's log and hard state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ReplicaLog {
    /// As handed to the disk.
    pub(crate) written: Terms,
    pub(crate) written_state: HardState,
    /// As synced.
    pub(crate) synced: Terms,
    pub(crate) synced_state: HardState,
}

/// All replicas'.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    replicas: BTreeMap<(usize, ShardId), ReplicaLog>,
    none: ReplicaLog,
}

impl Logs {
    pub(crate) fn replica(&self, host: usize, shard: ShardId) -> &ReplicaLog {
        self.replicas.get(&(host, shard)).unwrap_or(&self.none)
    }

    pub(crate) fn wrote(&mut self, host: usize, record: &Record) {
        match record {
            Record::Entry(shard, entry) => {
                self.replicas.entry((host, *shard)).or_default().written.add(entry.index, entry.term);
            }
            Record::HardState(shard, state) => {
                self.replicas.entry((host, *shard)).or_default().written_state = *state;
            }
        }
    }

    pub(crate) fn synced(&mut self, host: usize, record: &Record) {
        match record {
            Record::Entry(shard, entry) => {
                self.replicas.entry((host, *shard)).or_default().synced.add(entry.index, entry.term);
            }
            Record::HardState(shard, state) => {
                self.replicas.entry((host, *shard)).or_default().synced_state = *state;
            }
        }
    }

    pub(crate) fn ended(&mut self, host: usize) {
        for ((at, _), replica) in &mut self.replicas {
            if *at == host {
                (replica.written, replica.written_state) = (replica.synced.clone(), replica.synced_state);
            }
        }
    }

    pub(crate) fn opened(&mut self, host: usize, shard: ShardId, found: &Opened) {
        let terms = Terms { runs: found.terms.clone(), last: found.last };
        let state = found.hard_state;
        let replica =
            ReplicaLog { written: terms.clone(), written_state: state, synced: terms, synced_state: state };
        self.replicas.insert((host, shard), replica);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_are_those_of_the_entries_written_last() {
        let mut terms = Terms::default();
        for (index, term) in [(1, 1), (2, 1), (3, 2), (4, 2), (3, 4)] {
            terms.add(Index(index), Term(term));
        }
        let at: Vec<u64> = (0..6).map(|index| terms.at(Index(index)).0).collect();
        assert_eq!(at, [0, 1, 1, 4, 0, 0]);
        assert_eq!(terms.end(), (Term(4), Index(3)));
    }

    #[test]
    fn logs_differ_where_terms_do_or_one_ends() {
        let log = |entries: &[u64]| {
            let mut terms = Terms::default();
            (1..).zip(entries).for_each(|(index, term)| terms.add(Index(index), Term(*term)));
            terms
        };
        let (a, b) = (log(&[1, 1, 2, 2, 3]), log(&[1, 1, 2]));
        assert_eq!(a.first_difference(&b, Index(3)), None);
        assert_eq!(a.first_difference(&b, Index(5)), Some(Index(4)));
        assert_eq!(a.first_difference(&log(&[1, 1, 3, 3, 3]), Index(5)), Some(Index(3)));
        assert_eq!(a.first_difference(&a.clone(), Index(9)), None);
    }
}
