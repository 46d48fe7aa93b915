//! What each replica has written: not a judge, but what judges look at.
//!
//! A log may begin anywhere. What its node lets go of is forgotten here only when the node itself has forgotten it,
//! with its next start; what comes before the base then is in a table that nothing takes away.

use std::collections::BTreeMap;

use ringfort_node::Opened;
use ringfort_types::{HardState, Index, PeerId, Record, ShardId, Term};

/// The terms of a log's entries, as runs: each with the first index that has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Terms {
    /// What comes before the first entry: an index and its term.
    base: (Index, Term),
    runs: Vec<(Index, Term)>,
    last: Index,
}

impl Terms {
    /// A log that begins after this index of this term.
    pub(crate) fn after(index: Index, term: Term) -> Terms {
        Terms { base: (index, term), runs: Vec::new(), last: index }
    }

    /// As a node has found it.
    pub(crate) fn found(found: &Opened) -> Terms {
        let base = (found.base.index, found.base.term);
        Terms { base, runs: found.terms.clone(), last: found.last }
    }

    /// Whether there is an entry of this term at this index, or the index is in the table that goes with the log.
    pub(crate) fn has(&self, index: Index, term: Term) -> bool {
        index <= self.base.0 || self.at(index) == term
    }

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

    /// The term of the entry at this index, or of the base; 0 before that, and beyond the last one.
    pub(crate) fn at(&self, index: Index) -> Term {
        if index > self.last || index < self.base.0 {
            return Term(0);
        }
        if index == self.base.0 {
            return self.base.1;
        }
        let after = self.runs.partition_point(|(first, _)| *first <= index);
        if after == 0 { Term(0) } else { self.runs[after - 1].1 }
    }

    /// The last entry's term and index: what "at least as up to date" compares (Raft, 5.4.1).
    pub(crate) fn end(&self) -> (Term, Index) {
        (self.at(self.last), self.last)
    }

    /// The first index up to `through` at which the other has another term, where both have terms.
    pub(crate) fn first_difference(&self, other: &Terms, through: Index) -> Option<Index> {
        let starts = |terms: &Terms| terms.runs.iter().map(|(first, _)| *first).collect::<Vec<_>>();
        let known = self.base.0.max(other.base.0);
        let ends = vec![known.next(), self.last.next(), other.last.next()];
        let mut edges = [starts(self), starts(other), ends].concat();
        edges.sort_unstable();
        let both = known.next()..=through;
        edges.into_iter().find(|edge| both.contains(edge) && self.at(*edge) != other.at(*edge))
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
    /// The replica that takes its place, once the record is handed to the disk and as long as it is not known to be synced.
    pub(crate) anew: Option<PeerId>,
}

/// All replicas'.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    replicas: BTreeMap<(usize, ShardId), ReplicaLog>,
    none: ReplicaLog,
    /// What replicas had synced that were made anew, as of the last time. Its acknowledgements may be on their way for a moment.
    forgotten: BTreeMap<(usize, ShardId), Terms>,
    /// What those had synced whose disk was put back as it was before, likewise.
    put_back: BTreeMap<(usize, ShardId), Terms>,
}

impl Logs {
    pub(crate) fn replica(&self, host: usize, shard: ShardId) -> &ReplicaLog {
        self.replicas.get(&(host, shard)).unwrap_or(&self.none)
    }

    /// Whether a host has an entry, or had it when its replica was made anew.
    pub(crate) fn has_synced(&self, host: usize, shard: ShardId, index: Index, term: Term) -> bool {
        let before = [&self.forgotten, &self.put_back].map(|before| before.get(&(host, shard)));
        let is_before = before.into_iter().flatten().any(|terms| terms.has(index, term));
        self.replica(host, shard).synced.has(index, term) || is_before
    }

    /// The replica of a host is made anew.
    pub(crate) fn forgets(&mut self, host: usize, shard: ShardId) {
        let synced = self.replica(host, shard).synced.clone();
        self.forgotten.insert((host, shard), synced);
    }

    /// A host's disk is put back as it was before. Its acknowledgements may be on their way, too.
    pub(crate) fn put_back(&mut self, host: usize) {
        for ((at, shard), replica) in &self.replicas {
            if *at == host {
                self.put_back.insert((host, *shard), replica.synced.clone());
            }
        }
    }

    pub(crate) fn wrote(&mut self, host: usize, record: &Record) {
        if let Record::Replica(_, peer) | Record::Gone(_, peer) = record {
            self.of(host, record).anew = Some(*peer);
        }
        let ReplicaLog { written, written_state, .. } = self.of(host, record);
        note(record, written, written_state);
    }

    pub(crate) fn synced(&mut self, host: usize, record: &Record) {
        if let Record::Replica(..) | Record::Gone(..) = record {
            self.of(host, record).anew = None;
        }
        let ReplicaLog { synced, synced_state, .. } = self.of(host, record);
        note(record, synced, synced_state);
    }

    fn of(&mut self, host: usize, record: &Record) -> &mut ReplicaLog {
        let (Record::Entry(shard, _)
        | Record::HardState(shard, _)
        | Record::Base(shard, _)
        | Record::Installed(shard, _)
        | Record::Replica(shard, _)
        | Record::Lost(shard, _)
        | Record::Gone(shard, _)) = record;
        self.replicas.entry((host, *shard)).or_default()
    }

    pub(crate) fn ended(&mut self, host: usize) {
        for ((at, _), replica) in &mut self.replicas {
            if *at == host {
                (replica.written, replica.written_state) = (replica.synced.clone(), replica.synced_state);
            }
        }
    }

    pub(crate) fn opened(&mut self, host: usize, shard: ShardId, found: &Opened) {
        let terms = Terms::found(found);
        let state = found.hard_state;
        let replica = ReplicaLog {
            written: terms.clone(),
            written_state: state,
            synced: terms,
            synced_state: state,
            anew: None,
        };
        self.replicas.insert((host, shard), replica);
    }
}

fn note(record: &Record, terms: &mut Terms, state: &mut HardState) {
    match record {
        Record::Entry(_, entry) => terms.add(entry.index, entry.term),
        Record::HardState(_, new) => *state = *new,
        // Nodes leave it to their logs.
        Record::Base(..) | Record::Replica(..) | Record::Lost(..) | Record::Gone(..) => {}
        Record::Installed(_, base) => *terms = Terms::after(base.index, base.term),
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
