//! Why a node can't be made from its flags and its directory.

use ringfort_ring::RingError;

/// A node can't start like this. Wrong usage: exit code 2.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// Its own address is not in the list that it was given.
    #[error("{0} is not in its own list of nodes: add it, or correct --addr or --advertise")]
    NotListed(String),
    /// The flags disagree with what the directory was born with.
    #[error(
        "this data directory was born with the {what} {stored}, but the flags say {given}: \
         start it with its old flags, {flags}, or use another --data-dir"
    )]
    Conflict {
        /// What they disagree on.
        what: &'static str,
        /// What the directory says.
        stored: String,
        /// What the flags say.
        given: String,
        /// The flags that say what the directory says.
        flags: String,
    },
    /// The stored record can't be read or speaks of another directory.
    #[error(
        "the birth record in this data directory is damaged or was copied from another one: restore the directory"
    )]
    BirthRecord,
    /// The level in force in its cluster is none that this version knows.
    #[error("{0}")]
    Level(String),
    /// No layout can be made.
    #[error(transparent)]
    Ring(#[from] RingError),
}
