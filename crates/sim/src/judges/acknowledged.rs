//! Acknowledged means synced on a majority (DESIGN §4; Raft, 5.3), in its log or in the table that took the place of
//! the beginning of its log; and a receipt names no more copies than there are, and of the other replicas those that were
//! not known to have one.

use std::collections::BTreeSet;

use ringfort_types::{Configuration, NodeId, Receipt};

use super::{Broken, Logs, broken};
use crate::network::host_of;

const NAME: &str = "what is acknowledged is synced on a majority";

/// A client has been given this receipt of a shard. It was committed by one of the first configurations; the others have come since, and
/// its copies may have been counted by them. Who is asked again may tell it so late that replicas of the first ones have been made anew: then
/// it is on a majority of a later one.
pub(crate) fn given(
    logs: &Logs,
    (committed, since): (&[Configuration], &[Configuration]),
    receipt: &Receipt,
) -> Option<Broken> {
    let has = |node| logs.has_synced(host_of(node), receipt.shard, receipt.index, receipt.term);
    let has_quorum = |group: &Configuration| group.is_quorum(|peer| group.node_of(peer).is_some_and(has));
    let copies = |group: &Configuration| group.deciding().filter(|replica| has(replica.node)).count();
    let groups = || committed.iter().chain(since);
    let most = groups().map(copies).max().unwrap_or_default();
    let deciding: BTreeSet<NodeId> =
        groups().flat_map(Configuration::deciding).map(|replica| replica.node).collect();
    if !groups().any(has_quorum) {
        return Some(broken!(
            NAME,
            "{receipt:?} is acknowledged, and synced on {most} of {} replicas",
            deciding.len()
        ));
    }
    let least = groups().map(Configuration::least_quorum).min().unwrap_or_default();
    // Where the group has changed, some that were counted may be gone by now.
    let most = if groups().count() == 1 { most } else { deciding.len() };
    if receipt.copies < least || receipt.copies as usize > most {
        return Some(broken!(NAME, "{receipt:?} speaks of {} copies; there are {most}", receipt.copies));
    }
    let lacking: BTreeSet<NodeId> = receipt.lacking.iter().copied().collect();
    let count = lacking.len() + receipt.copies as usize;
    // Where the group has changed it can't be told which of its configurations this was said by.
    let is_all = if groups().count() == 1 { count == deciding.len() } else { count <= deciding.len() };
    let is_wrong = lacking.len() != receipt.lacking.len()
        || !lacking.iter().all(|node| deciding.contains(node))
        || !lacking.is_empty() && !is_all;
    is_wrong.then(|| broken!(NAME, "{receipt:?} does not name those of {deciding:?} that lack a copy"))
}

#[cfg(test)]
mod tests {
    use ringfort_types::{EntryKind, Index, LogEntry, PeerId, Record, Replica, Revision, ShardId, Term};

    use super::*;

    #[test]
    fn too_few_copies_are_found() {
        let replica = |number| Replica { node: NodeId(number), peer: PeerId(number) };
        let group = [Configuration::born((1..=3).map(replica).collect())];
        let group = (&group[..], &[][..]);
        let mut logs = Logs::default();
        let entry = LogEntry {
            index: Index(1),
            term: Term(1),
            kind: EntryKind::Normal,
            payload: bytes::Bytes::new(),
        };
        let record = Record::Entry(ShardId(1), entry);
        let receipt = |copies| Receipt {
            shard: ShardId(1),
            term: Term(1),
            index: Index(1),
            revision: Revision(1),
            copies,
            ..Receipt::default()
        };
        logs.synced(0, &record);
        assert!(given(&logs, group, &receipt(2)).is_some());
        logs.synced(2, &record);
        assert_eq!(given(&logs, group, &receipt(2)), None);
        assert!(given(&logs, group, &receipt(3)).is_some());
        assert!(given(&logs, group, &receipt(1)).is_some());
        let lacking = |nodes: &[u64]| {
            let lacking = nodes.iter().map(|node| NodeId(*node)).collect();
            given(&logs, group, &Receipt { lacking, ..receipt(2) })
        };
        assert_eq!(lacking(&[2]), None);
        for wrong in [&[4][..], &[2, 2], &[1, 2]] {
            assert!(lacking(wrong).is_some(), "{wrong:?}");
        }
    }
}
