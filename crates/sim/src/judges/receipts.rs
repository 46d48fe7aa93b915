//! A shard's revisions name its changes: no two acknowledged writes have one, and later entries have higher ones
//! (DESIGN §1).

use std::collections::BTreeMap;

use ringfort_types::{Index, Receipt, Revision, ShardId};

use super::{Broken, broken};

const NAME: &str = "revisions name changes, in order";

#[derive(Debug, Default)]
pub(crate) struct Receipts {
    given: BTreeMap<ShardId, BTreeMap<Revision, Index>>,
}

impl Receipts {
    /// A write has been acknowledged.
    pub(crate) fn given(&mut self, receipt: &Receipt) -> Vec<Broken> {
        let shard = self.given.entry(receipt.shard).or_default();
        let mut broken = Vec::new();
        if shard.insert(receipt.revision, receipt.index).is_some() {
            broken.push(broken!(NAME, "two writes have the revision of {receipt:?}"));
        }
        let before = shard.range(..receipt.revision).next_back();
        let after = shard.range(Revision(receipt.revision.0 + 1)..).next();
        if before.is_some_and(|(_, index)| *index > receipt.index)
            || after.is_some_and(|(_, index)| *index < receipt.index)
        {
            broken.push(broken!(NAME, "{receipt:?} is out of order: {before:?} before, {after:?} after"));
        }
        broken
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::Term;

    use super::*;

    #[test]
    fn a_revision_given_twice_or_out_of_order_is_found() {
        let mut judge = Receipts::default();
        let mut give = |index, revision| {
            let (shard, term) = (ShardId(1), Term(1));
            let (index, revision) = (Index(index), Revision(revision));
            judge.given(&Receipt { shard, term, index, revision, ..Receipt::default() }).is_empty()
        };
        assert!(give(5, 7) && give(5, 8) && give(9, 10) && give(7, 9));
        assert!(!give(9, 10));
        assert!(!give(4, 11));
        assert!(!give(10, 1));
    }
}
