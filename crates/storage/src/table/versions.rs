//! Which versions of rows a flush keeps, and what it costs to keep readers' old ones.

use std::collections::VecDeque;

use lsm_tree::{InternalValue, UserKey};
use ringfort_types::Index;

/// Most flushes that are told apart; beyond it, the oldest two count as one.
const FLUSHES_MAX: usize = 256;

/// Of rows in order, each key's newest version first, those that a read at `keep_from` or above may see: not those which a
/// version hides that all of these reads see.
pub(super) fn needed(
    rows: impl Iterator<Item = lsm_tree::Result<InternalValue>>,
    keep_from: Index,
) -> impl Iterator<Item = lsm_tree::Result<InternalValue>> {
    let mut newer: Option<(UserKey, u64)> = None;
    rows.filter(move |row| {
        let Ok(InternalValue { key, .. }) = row else { return true };
        let is_hidden =
            newer.as_ref().is_some_and(|(newer, at)| *newer == key.user_key && *at <= keep_from.0);
        newer = Some((key.user_key.clone(), key.seqno));
        !is_hidden
    })
}

/// What has been written to disk since the oldest index that is readable, and what of it compactions could not drop.
#[derive(Debug, Default)]
pub(super) struct Retained {
    /// The highest index and the bytes of each flush, oldest first.
    flushes: VecDeque<(Index, u64)>,
    /// At most so many bytes of old versions have been merged with newer ones, and kept.
    undropped: u64,
}

impl Retained {
    /// A flush up to this index has written so many bytes.
    pub(super) fn flushed(&mut self, index: Index, bytes: u64, keep_from: Index) {
        self.flushes.push_back((index, bytes));
        self.forget(keep_from);
        if self.flushes.len() > FLUSHES_MAX
            && let Some((_, oldest)) = self.flushes.pop_front()
            && let Some((_, bytes)) = self.flushes.front_mut()
        {
            *bytes += oldest;
        }
    }

    /// A compaction has kept all versions.
    pub(super) fn merged_all(&mut self) {
        self.undropped = self.undropped.max(self.written_since(Index(0)));
    }

    /// No reader is below this index any more.
    pub(super) fn forget(&mut self, keep_from: Index) {
        while self.flushes.pop_front_if(|(index, _)| *index <= keep_from).is_some() {}
    }

    /// A compaction of everything has dropped what is out of date.
    pub(super) fn dropped_all(&mut self) {
        self.undropped = 0;
    }

    /// Bytes written to disk since this index, if it is readable.
    pub(super) fn written_since(&self, index: Index) -> u64 {
        self.flushes.iter().filter(|(last, _)| *last > index).map(|(_, bytes)| bytes).sum()
    }

    pub(super) fn undropped(&self) -> u64 {
        self.undropped
    }
}

#[cfg(test)]
mod tests {
    use lsm_tree::ValueType;

    use super::*;

    #[test]
    fn a_flush_keeps_what_its_readers_see_and_nothing_else() {
        let versions = [("a", 9), ("a", 7), ("a", 5), ("a", 3), ("b", 2), ("b", 1), ("c", 8)];
        let kept = |keep_from: u64| -> Vec<(String, u64)> {
            let rows = versions.iter().map(|(key, index)| {
                Ok(InternalValue::from_components(*key, "value", *index, ValueType::Value))
            });
            let needed = needed(rows, Index(keep_from)).map(|row| row.unwrap().key);
            needed.map(|key| (String::from_utf8(key.user_key.to_vec()).unwrap(), key.seqno)).collect()
        };
        let expected = |list: &[(&str, u64)]| {
            list.iter().map(|(key, index)| ((*key).to_owned(), *index)).collect::<Vec<_>>()
        };
        assert_eq!(kept(0), expected(&versions), "everything is still read");
        assert_eq!(kept(6), expected(&[("a", 9), ("a", 7), ("a", 5), ("b", 2), ("c", 8)]));
        assert_eq!(kept(7), expected(&[("a", 9), ("a", 7), ("b", 2), ("c", 8)]));
        assert_eq!(kept(9), expected(&[("a", 9), ("b", 2), ("c", 8)]));
    }

    #[test]
    fn what_is_retained_is_bounded_and_goes_with_its_readers() {
        let mut retained = Retained::default();
        for index in 1..=1_000 {
            retained.flushed(Index(index), 10, Index(0));
        }
        assert!(retained.flushes.len() <= FLUSHES_MAX);
        assert_eq!((retained.written_since(Index(0)), retained.undropped()), (10_000, 0));
        retained.merged_all();
        retained.forget(Index(990));
        assert_eq!((retained.written_since(Index(0)), retained.undropped()), (100, 10_000));
        assert_eq!(retained.written_since(Index(995)), 50);
        retained.dropped_all();
        assert_eq!(retained.undropped(), 0);
    }
}
