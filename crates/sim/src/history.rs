//! What clients asked for, when, and what came of it.

use bytes::Bytes;

/// What was done to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set to this value. No two operations of a history set the same.
    Put(Bytes),
    /// Removed.
    Delete,
    /// Found to be this.
    Get(Option<Bytes>),
    /// Found to be this, and set to another value or removed, with nothing in between.
    Swap {
        /// What it was.
        saw: Option<Bytes>,
        /// What it is now. No two operations of a history set the same value.
        put: Option<Bytes>,
    },
    /// Raised by a power of two, by which nothing else has raised this key: so its value tells who has. Keys that are
    /// raised are only got besides.
    Add {
        /// By so much.
        by: i64,
        /// To this; `None` if nobody knows.
        gave: Option<i64>,
    },
}

/// One request that was not rejected, on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose.
    pub client: u64,
    /// Which key.
    pub key: Bytes,
    /// What was done, or seen.
    pub action: Action,
    /// When it was asked for.
    pub invoked_us: u64,
    /// When the answer was there. `None` if there was none, or one that says that the outcome is unknown: a write
    /// that may have happened at any time since, or may still, or never. Gets always have an answer.
    pub returned_us: Option<u64>,
}

impl Operation {
    /// Whether it was over before the other one began.
    pub fn precedes(&self, other: &Operation) -> bool {
        self.returned_us.is_some_and(|returned| returned < other.invoked_us)
    }
}
