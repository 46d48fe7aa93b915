//! Newtypes for every number that names something.

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A node of this cluster. Those that it was born from are numbered from 1, in the order of their addresses; whoever joins later is
    /// given the next number. Never reused. 0 is no node.
    NodeId(u64)
);
id!(
    /// One replica's identity in Raft. Drawn from a counter in the layout and never used twice: a replica
    /// that is removed and added again is another peer. 0 is no peer.
    PeerId(u64)
);
id!(
    /// A Raft group. 0 is the meta group, which owns the layout; shards that hold keys count from 1.
    ShardId(u32)
);
id!(
    /// A hash slot, 0..16384, as in Redis Cluster.
    Slot(u16)
);
id!(
    /// Raft's term.
    Term(u64)
);
id!(
    /// A position in one shard's Raft log; the first entry has 1, and 0 is the state at birth.
    Index(u64)
);
id!(
    /// A shard's count of commands that changed something. Part of its state; never goes back.
    Revision(u64)
);
id!(
    /// Where a caller has put a write in an order of their own; counts from 1.
    Version(u64)
);
id!(
    /// The version of a layout; the first one has 1.
    Epoch(u64)
);
id!(
    /// Drawn at random when a data directory is made; tells a node from an earlier disk of the same name.
    Incarnation(u64)
);

impl ShardId {
    /// The meta group.
    pub const META: ShardId = ShardId(0);
}

impl Index {
    /// The index after this one.
    #[must_use]
    pub fn next(self) -> Index {
        Index(self.0 + 1)
    }
}
