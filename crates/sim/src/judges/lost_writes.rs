//! No acknowledged write is lost: a last read of a key does not see an older write, or one that never was. This follows
//! from linearizability too; it is judged by itself because it is the promise that matters most, and is said in
//! words that help.

use crate::history::{Action, Operation};

use super::{Broken, broken};

const NAME: &str = "no acknowledged write is lost";

/// The client that reads everything at the end.
pub(crate) const LAST_READER: u64 = u64::MAX;

/// The keys of a finished history whose last read does not show the last acknowledged write.
pub(crate) fn find(history: &[Operation]) -> Vec<Broken> {
    let mut lost = Vec::new();
    let is_last = |read: &Operation| read.client == LAST_READER;
    for read in history.iter().filter(|read| is_last(read)) {
        let Action::Get(seen) = &read.action else { continue };
        let is_raised = |add: &Operation| matches!(add.action, Action::Add { .. }) && add.key == read.key;
        if history.iter().any(is_raised) {
            // Its value is what several writes have made together: that is for `linearizable` to judge.
            continue;
        }
        let writes = history.iter().filter(|write| {
            let is_write = !matches!(write.action, Action::Get(_));
            is_write && write.key == read.key && write.invoked_us < read.invoked_us
        });
        let made = |write: &&Operation| match (&write.action, seen) {
            (Action::Put(value) | Action::Swap { put: Some(value), .. }, Some(seen)) => value == seen,
            (Action::Delete | Action::Swap { put: None, .. }, None) => true,
            _ => false,
        };
        let sources: Vec<&Operation> = writes.clone().filter(made).collect();
        // Absence is also how it all began.
        let untouched = seen.is_none() && writes.clone().all(|write| write.returned_us.is_none());
        let overwritten = |source: &Operation| {
            writes.clone().any(|write| write.returned_us.is_some() && source.precedes(write))
        };
        if !untouched && sources.iter().all(|source| overwritten(source)) {
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
