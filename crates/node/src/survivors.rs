//! Which copy of a shard is the best one of those that are left, where a majority of its group is lost for good, and what it may lack.
//!
//! The best copy is the one that could have led: of the highest last term, and of these the one with the highest last index (Raft §5.4.1). It
//! has every entry that is acknowledged as long as a majority of those who decide is among the survivors, by the same argument as a
//! leader has (§5.4.3). Who decides is said by the configurations that may have been in force when its last entries were acknowledged: the one
//! at the commit index that it knows, and each that an entry beyond it would put in force. Two that follow each other share a majority
//! ([`next_step`](ringfort_ring::next_step)), so the last one speaks for entries that nobody here has, too.
//!
//! Entries beyond the commit index are kept. Whether they are committed can't be known: if they were, somebody may have been told so, and
//! if not, a write in doubt may take effect.
//!
//! Caveats. A disk that is older than it was can't be told from one that is not, if those who would remember are lost. What is damaged
//! counts for nothing, though it may have been a later copy.

use ringfort_types::{Configuration, ConfigurationChange, Entry, EntryKind, Index, LogEntry, PeerId, Term};

use crate::recovery::Ready;

/// A whole copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Survivor {
    /// Which replica of the shard it is.
    pub peer: PeerId,
    /// Its last entry's term.
    pub term: Term,
    /// Its last entry's index.
    pub last: Index,
    /// Up to where it knows that entries are committed.
    pub commit: Index,
    /// Who belonged to the group at the commit index, and then after each change among the entries beyond it.
    pub configurations: Vec<Configuration>,
}

impl Survivor {
    /// A replica that has been brought up to date with what it knows to be committed. An error says why an entry beyond that can't be
    /// applied.
    pub fn of(ready: &Ready) -> Result<Survivor, String> {
        let opened = &ready.opened;
        let mut configurations = vec![opened.configuration.clone()];
        for entry in &opened.tail {
            let before = configurations.last().expect("one at least");
            let unread = |why: String| format!("entry {} of its log can't be read: {why}", entry.index);
            configurations.extend(configuration_after(before, entry).map_err(unread)?);
        }
        Ok(Survivor {
            peer: opened.peer,
            term: opened.terms.last().map_or(opened.base.term, |(_, term)| *term),
            last: opened.last,
            commit: opened.applied,
            configurations,
        })
    }

    /// Those who decide by its last configuration, and are not among these.
    pub fn missing(&self, survivors: &[Survivor]) -> Vec<ringfort_types::Replica> {
        let Some(last) = self.configurations.last() else { return Vec::new() };
        let is_here = |peer| survivors.iter().any(|survivor| survivor.peer == peer);
        last.deciding().filter(|replica| !is_here(replica.peer)).collect()
    }
}

/// The configuration that an entry puts in force, if it does; an error if it can't be applied.
fn configuration_after(before: &Configuration, entry: &LogEntry) -> Result<Option<Configuration>, String> {
    match entry.kind {
        EntryKind::Configuration => {
            let change =
                ConfigurationChange::decode(entry.payload.clone()).map_err(|error| error.to_string())?;
            before.after(&change, entry.index).map(Some).map_err(|error| error.to_string())
        }
        EntryKind::Normal if entry.payload.is_empty() => Ok(None),
        EntryKind::Normal => {
            Entry::decode(entry.payload.clone()).map(|_| None).map_err(|error| error.to_string())
        }
    }
}

/// The place of the best copy. None if there is none.
pub fn best(survivors: &[Survivor]) -> Option<usize> {
    let rank = |survivor: &Survivor| (survivor.term, survivor.last, survivor.commit);
    // The first of those that are equal.
    (0..survivors.len()).rev().max_by_key(|place| rank(&survivors[*place]))
}

/// Whether the best of these copies has all that was acknowledged.
pub fn is_complete(survivors: &[Survivor]) -> bool {
    let is_here = |peer| survivors.iter().any(|survivor| survivor.peer == peer);
    best(survivors).is_some_and(|best| {
        let configurations = &survivors[best].configurations;
        configurations.iter().all(|configuration| configuration.is_quorum(is_here))
    })
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeId, Replica};

    use super::*;

    fn group(peers: &[u64]) -> Configuration {
        let replica = |peer: &u64| Replica { node: NodeId(*peer), peer: PeerId(*peer) };
        Configuration::born(peers.iter().map(replica).collect())
    }

    fn survivor(peer: u64, term: u64, last: u64, configurations: &[&[u64]]) -> Survivor {
        Survivor {
            peer: PeerId(peer),
            term: Term(term),
            last: Index(last),
            commit: Index(0),
            configurations: configurations.iter().map(|peers| group(peers)).collect(),
        }
    }

    #[test]
    fn the_highest_term_comes_before_the_longest_log() {
        let of = |ends: &[(u64, u64)]| {
            let survivors = (1..).zip(ends).map(|(peer, (term, last))| survivor(peer, *term, *last, &[&[1]]));
            best(&survivors.collect::<Vec<_>>())
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1, 9), (2, 3)]), Some(1));
        assert_eq!(of(&[(2, 3), (2, 4), (1, 9)]), Some(1));
        assert_eq!(of(&[(2, 4), (2, 4)]), Some(0));
    }

    #[test]
    fn nothing_is_lost_only_with_a_majority_of_all_who_may_have_decided() {
        let trio: &[&[u64]] = &[&[1, 2, 3]];
        assert!(!is_complete(&[]));
        assert!(!is_complete(&[survivor(1, 1, 5, trio)]));
        assert!(is_complete(&[survivor(1, 1, 5, trio), survivor(3, 1, 4, trio)]));
        // A learner, or one who was removed, decides nothing.
        assert!(!is_complete(&[survivor(1, 1, 5, trio), survivor(4, 1, 4, trio)]));
        // The second configuration may be in force already, or not yet.
        let changing: &[&[u64]] = &[&[1, 2, 3], &[1, 4, 5]];
        assert!(!is_complete(&[survivor(1, 1, 5, changing), survivor(2, 1, 5, changing)]));
        assert!(!is_complete(&[survivor(1, 1, 5, changing), survivor(4, 1, 5, changing)]));
        let three = [1, 2, 4].map(|peer| survivor(peer, 1, 5, changing));
        assert!(is_complete(&three));
        assert_eq!(three[0].missing(&three).iter().map(|replica| replica.peer.0).collect::<Vec<_>>(), [5]);
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Configuration { outgoing: group(&[1, 2, 3]).voters, ..group(&[3, 4, 5]) };
        let of = |peers: &[u64]| {
            let one =
                |peer: &u64| Survivor { configurations: vec![joint.clone()], ..survivor(*peer, 1, 5, &[]) };
            is_complete(&peers.iter().map(one).collect::<Vec<_>>())
        };
        assert!(!of(&[1, 2]) && !of(&[4, 5]) && of(&[2, 3, 4]) && of(&[1, 2, 4, 5]));
    }

    #[test]
    fn changes_beyond_the_commit_are_followed() {
        let entry = |kind, payload| LogEntry { index: Index(7), term: Term(1), kind, payload };
        let learner = Replica { node: NodeId(9), peer: PeerId(9) };
        let change = ConfigurationChange::AddLearner(learner).encode();
        let after = configuration_after(&group(&[1]), &entry(EntryKind::Configuration, change));
        assert_eq!(after.unwrap().unwrap().learners, [learner]);
        let opening = configuration_after(&group(&[1]), &entry(EntryKind::Normal, bytes::Bytes::new()));
        assert_eq!(opening, Ok(None));
        let garbage = bytes::Bytes::from_static(b"\xff\xff");
        assert!(configuration_after(&group(&[1]), &entry(EntryKind::Normal, garbage)).is_err());
    }
}
