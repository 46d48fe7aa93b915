//! The keys of a run, and what clients have come to know of them.
//!
//! Most are put, deleted, and written under conditions, each value unlike any other; some share a part in braces, so that
//! several of them can be written and read at once; a few are only raised, each time by another power of two; a few are
//! written in an order of their clients' own, with versions; and some belong to one connection each (`pipes`), which alone
//! writes them.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{Revision, Row};

/// Groups of keys with one part in braces, and the keys of each.
const GROUPS: usize = 2;
pub(crate) const GROUP_KEYS: usize = 3;
/// Beside the keys of the first group.
const COUNTERS: usize = 3;
const VERSIONED: usize = 3;
/// An i64 has no more powers of two.
const RAISES_MAX: u32 = 62;
/// Groups of keys that a connection has, each of one slot, and the keys of each.
const PIPE_GROUPS: usize = 2;
const PIPE_GROUP_KEYS: usize = 2;

/// A key that is only raised.
#[derive(Debug)]
struct Counter {
    key: Bytes,
    raises: u32,
}

/// A key that is only written with versions.
#[derive(Debug)]
struct Versioned {
    key: Bytes,
    /// The highest that anybody has drawn.
    newest: u64,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Keys {
    pub(crate) plain: Vec<Bytes>,
    groups: Vec<Vec<Bytes>>,
    counters: Vec<Counter>,
    versioned: Vec<Versioned>,
    /// By connection.
    piped: Vec<[Vec<Bytes>; PIPE_GROUPS]>,
    /// What a key was when somebody last heard of it.
    seen: BTreeMap<Bytes, Option<Row>>,
    /// The value that a key had at a revision.
    values: BTreeMap<(Bytes, Revision), Bytes>,
}

impl Keys {
    pub(crate) fn new(plain: usize, pipes: usize) -> Keys {
        let some = |count: usize, name: &dyn Fn(usize) -> String| -> Vec<Bytes> {
            (0..count).map(|number| Bytes::from(name(number))).collect()
        };
        let counters = some(COUNTERS, &|number| format!("key{{t0}}s{number}"));
        let versioned = some(VERSIONED, &|number| format!("keyv{number}"));
        let group = |group| some(GROUP_KEYS, &|number| format!("key{{t{group}}}{number}"));
        let of_pipe = |pipe| {
            std::array::from_fn(|group| {
                some(PIPE_GROUP_KEYS, &|number| format!("key{{p{pipe}.{group}}}{number}"))
            })
        };
        Keys {
            plain: some(plain, &|number| format!("key{number}")),
            groups: (0..GROUPS).map(group).collect(),
            counters: counters.into_iter().map(|key| Counter { key, raises: 0 }).collect(),
            versioned: versioned.into_iter().map(|key| Versioned { key, newest: 0 }).collect(),
            piped: (0..pipes).map(of_pipe).collect(),
            seen: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Bytes> {
        let counters = self.counters.iter().map(|counter| &counter.key);
        let versioned = self.versioned.iter().map(|versioned| &versioned.key);
        let piped = self.piped.iter().flatten().flatten();
        self.settable().chain(counters).chain(versioned).chain(piped).cloned().collect()
    }

    /// Those that may have any value.
    pub(crate) fn settable(&self) -> impl Iterator<Item = &Bytes> {
        self.plain.iter().chain(self.groups.iter().flatten())
    }

    /// Keys of one slot.
    pub(crate) fn group(&self, luck: u64) -> &[Bytes] {
        &self.groups[luck as usize % GROUPS]
    }

    /// The first group, beside which the counters are.
    pub(crate) fn group_of_counters(&self) -> &[Bytes] {
        &self.groups[0]
    }

    pub(crate) fn counters(&self) -> usize {
        self.counters.len()
    }

    /// A counter, and by how much it is to be raised next; `None` if there is no power of two left.
    pub(crate) fn raise(&mut self, counter: usize) -> (Bytes, Option<i64>) {
        let Counter { key, raises } = &mut self.counters[counter];
        if *raises == RAISES_MAX {
            return (key.clone(), None);
        }
        *raises += 1;
        (key.clone(), Some(1 << (*raises - 1)))
    }

    /// A key that has versions, and its newest one.
    pub(crate) fn versioned(&mut self, luck: u64) -> (Bytes, &mut u64) {
        let Versioned { key, newest } = &mut self.versioned[luck as usize % VERSIONED];
        (key.clone(), newest)
    }

    /// Whether this key is only written with versions.
    pub(crate) fn is_versioned(&self, key: &Bytes) -> bool {
        self.versioned.iter().any(|versioned| versioned.key == key)
    }

    /// Keys of one slot that this connection alone writes.
    pub(crate) fn piped(&self, pipe: usize, luck: u64) -> &[Bytes] {
        &self.piped[pipe][luck as usize % PIPE_GROUPS]
    }

    /// Somebody has seen what a key is.
    pub(crate) fn saw(&mut self, key: &Bytes, row: Option<&Row>) {
        if let Some(row) = row {
            self.values.insert((key.clone(), row.revision), row.value.clone());
        }
        self.seen.insert(key.clone(), row.cloned());
    }

    /// What a key was when somebody last heard of it, if it was there.
    pub(crate) fn seen(&self, key: &Bytes) -> Option<Row> {
        self.seen.get(key).cloned().flatten()
    }

    /// The value that a key had at this revision, if anybody has seen that.
    pub(crate) fn value(&self, key: &Bytes, revision: Revision) -> Option<Bytes> {
        self.values.get(&(key.clone(), revision)).cloned()
    }
}
