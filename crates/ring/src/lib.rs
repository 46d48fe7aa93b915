//! Key to slot to shard to replicas: the cluster's map, and how it is drawn. Pure.
//!
//! A key belongs to a *slot* (`ringfort_types::slot_of`), a slot to a *shard*, a shard has *replicas* on
//! nodes. Which slots a shard owns and where its replicas are is written down in a [`Layout`], explicitly:
//! nobody recomputes it from hashes, so the hashing can change without moving a key. A layout has an *epoch*;
//! the meta group (shard 0) owns the latest one, and a message from a node with another epoch is noticed.
//!
//! **How it is drawn.** Nodes stand on a ring of hashes, each at many points, more if it has more weight.
//! A shard's point is hashed onto the same ring, and the nodes met clockwise from there are its *walk*: its
//! order of preference among all nodes (Karger et al., 1997). [`place()`] deals replicas along the walks, so
//! that the copies of a shard are spread over zones as evenly as there are zones and nodes in them, and every node gets its
//! fair share, rounded up or down: of what its zone may have at most of each shard, by weight. The first replica is the
//! preferred leader; leaders are dealt likewise.
//!
//! **Where the walks would overload a node**, replicas dealt earlier are shifted along a shortest augmenting
//! path. One always exists: giving every node `share / shards` of every shard meets the bounds, and a
//! transportation problem with a fractional solution has a whole one. Shares are such that zones are kept apart: where weights and
//! zones contradict each other, weights yield.
//!
//! **How it changes.** Bounded loads and little movement contradict each other in a function of the members
//! alone: one more node makes replicas spill over from node to node all around the ring (Mirrokni et al.,
//! "Consistent Hashing with Bounded Loads", 2016, give the price of a slack of a tenth). So a change starts from
//! where the replicas are: [`place_from`] moves what has lost its node, what exceeds `ceil(1.1 × share)`, what shares its zone
//! and need not, and what gives a newcomer its share, and nothing else. Whoever joins N others is given at most that bound, and
//! nobody else is given anything; that is at most 1.25/(N+1) of all replicas, once a fair share is some seven
//! replicas (below that, rounding to whole replicas is more than the difference).
//!
//! **How a shard gets there.** A layout says where replicas *should* be. Its group's leader goes there in steps, each of
//! which is an entry of the group's log; [`next_step`] says which comes next.
//!
//! Deliberately absent: clocks, randomness, I/O, and whether a learner has caught up: that is measured by whoever leads.
//!
//! Caveats: `place` is made for up to 64 nodes and 4,096 shards, and takes some tens of milliseconds there. Zones are
//! one level deep.

mod assignment;
mod codec;
mod copies;
mod layout;
mod place;
mod plan;
mod steps;
mod walk;

pub use codec::LayoutHead;
pub use copies::effective_copies;
pub use layout::{Layout, Member, NoPlace, RingError, ShardLayout};
pub use place::{place, place_from};
pub use steps::{NextStep, Progress, next_step};

/// Heaviest node. The lightest has 1; weights say how much of the load a node takes compared to others.
pub const WEIGHT_MAX: u32 = 100;
/// Most nodes in the meta group.
pub const META_NODES_MAX: u32 = 5;
