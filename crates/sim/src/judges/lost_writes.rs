//! No acknowledged write is lost: a last read of a key does not see an older write, or one that never was. This follows
//! from linearizability too; it is judged by itself because it is the promise that matters most, and is said in
//! words that help.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::history::{Action, Operation};

use super::{Broken, broken};

const NAME: &str = "no acknowledged write is lost";

/// The client that reads everything at the end.
pub(crate) const LAST_READER: u64 = u64::MAX;

/// The keys of a finished history whose last read does not show the last acknowledged write.
pub(crate) fn find(history: &[Operation]) -> Vec<Broken> {
    let mut keys: BTreeMap<&Bytes, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let is_raised = |operation: &&Operation| matches!(operation.action, Action::Add { .. });
    // The value of one that is raised is what several writes have made together: that is for `linearizable` to judge.
    let others = keys.into_values().filter(|operations| !operations.iter().any(is_raised));
    others.flat_map(|operations| find_of_key(&operations)).collect()
}

fn find_of_key(operations: &[&Operation]) -> Vec<Broken> {
    let mut lost = Vec::new();
    for read in operations.iter().filter(|read| read.client == LAST_READER) {
        let Action::Get(seen) = &read.action else { continue };
        let writes = operations.iter().filter(|write| {
            let is_write = !matches!(write.action, Action::Get(_));
            is_write && write.invoked_us < read.invoked_us
        });
        let made = |write: &&&Operation| match (&write.action, seen) {
            (Action::Put(value) | Action::Swap { put: Some(value), .. }, Some(seen)) => value == seen,
            (Action::Delete | Action::Swap { put: None, .. }, None) => true,
            _ => false,
        };
        let acknowledged = writes.clone().filter(|write| write.returned_us.is_some());
        let newest = acknowledged.max_by_key(|write| write.invoked_us);
        let is_overwritten = |source: &Operation| newest.is_some_and(|newest| source.precedes(newest));
        // Absence is also how it all began.
        let untouched = seen.is_none() && newest.is_none();
        if !untouched && writes.clone().filter(made).all(|source| is_overwritten(source)) {
            lost.push(broken!(NAME, "a write to {:?} is lost: {seen:?} is read at the end", read.key));
        }
    }
    lost
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_last_read_must_show_the_last_write() {
        let value = |text: &'static str| Bytes::from_static(text.as_bytes());
        let operation = |client, action, invoked_us, returned_us| Operation {
            client,
            key: value("k"),
            action,
            invoked_us,
            returned_us,
        };
        let history = |seen: Option<&'static str>, returned_us| {
            vec![
                operation(1, Action::Put(value("a")), 1, Some(2)),
                operation(1, Action::Put(value("b")), 3, returned_us),
                operation(LAST_READER, Action::Get(seen.map(value)), 9, Some(10)),
            ]
        };
        assert!(find(&history(Some("b"), Some(4))).is_empty());
        assert!(find(&history(Some("a"), None)).is_empty(), "b is in doubt");
        assert_eq!(find(&history(Some("a"), Some(4))).len(), 1);
        assert_eq!(find(&history(None, None)).len(), 1);
        assert_eq!(find(&history(Some("c"), None)).len(), 1);
    }
}
