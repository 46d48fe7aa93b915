//! Atomic writes: what is to be changed, under which conditions, and what came of it.

use bytes::Bytes;
use ringfort_types::{Change, Condition, Index, Part, Receipt, Revision};

/// Changes of several keys of one shard that happen all or not at all. Keys that belong together have the same part in
/// braces, as in `{user1}name` and `{user1}mail`: then they are of one shard.
///
/// ```
/// use ringfort_client::{Condition, Write};
///
/// let rename = Write::new()
///     .put_if("{user1}name", "Ada", Condition::Value("Augusta".into()))
///     .delete("{user1}draft")
///     .check("{user1}locked", Condition::Absent);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    pub(crate) parts: Vec<Part>,
}

impl Write {
    /// Nothing yet. Each key may be named once.
    #[must_use]
    pub fn new() -> Write {
        Write::default()
    }

    /// Sets a key.
    #[must_use]
    pub fn put(self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Write {
        self.part(key, None, Change::put(value))
    }

    /// Sets a key, under a condition on it.
    #[must_use]
    pub fn put_if(self, key: impl Into<Bytes>, value: impl Into<Bytes>, condition: Condition) -> Write {
        self.part(key, Some(condition), Change::put(value))
    }

    /// Removes a key, there or not.
    #[must_use]
    pub fn delete(self, key: impl Into<Bytes>) -> Write {
        self.part(key, None, Change::DELETE)
    }

    /// Removes a key, under a condition on it.
    #[must_use]
    pub fn delete_if(self, key: impl Into<Bytes>, condition: Condition) -> Write {
        self.part(key, Some(condition), Change::DELETE)
    }

    /// Adds to a key's value, which is a decimal number; a key that is not there counts as 0. The sums of all such parts are
    /// in [`Receipt::sums`](ringfort_types::Receipt::sums), in their order.
    #[must_use]
    pub fn add(self, key: impl Into<Bytes>, by: i64) -> Write {
        self.part(key, None, Change::Add(by))
    }

    /// Adds to a key's value, under a condition on it.
    #[must_use]
    pub fn add_if(self, key: impl Into<Bytes>, by: i64, condition: Condition) -> Write {
        self.part(key, Some(condition), Change::Add(by))
    }

    /// Leaves a key as it is, and makes all that is to be done depend on it.
    #[must_use]
    pub fn check(self, key: impl Into<Bytes>, condition: Condition) -> Write {
        self.part(key, Some(condition), Change::Keep)
    }

    fn part(mut self, key: impl Into<Bytes>, condition: Option<Condition>, change: Change) -> Write {
        self.parts.push(Part { key: key.into(), condition, change });
        self
    }
}

/// What came of a write under conditions. That they were not met is no failure, but one of two answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "a condition may not have been met"]
pub enum Decision {
    /// They were met, and it was done.
    Done(Receipt),
    /// One was not met, and nothing was changed.
    NotMet(NotMet),
}

/// The first condition that was not met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotMet {
    /// Its place in the write, from 0.
    pub part: usize,
    /// Its key.
    pub key: Bytes,
    /// The key's revision; `None` if it is not there.
    pub revision: Option<Revision>,
    /// The index in the shard's log at which that was found.
    pub at: Index,
}
