//! How a node's disk does.

/// Whether a node can write. One that can't should lead nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskState {
    /// It writes and syncs.
    #[default]
    Working,
    /// There is no room on it.
    Full,
    /// A sync does not return; of another node, or it is done long after the others.
    Hung,
}
