//! Many Raft groups in one process, as one deterministic function over events.
//!
//! [`Node::handle`] takes an event and the time; [`Node::take_effects`] says what is to be done about
//! everything handled since the last call (one *turn*). A node reads no clock, draws no random number and
//! opens nothing: a driver (`server` for real, `sim` in simulation) carries the effects out and reports back.
//! [`api`] is the contract.
//!
//! **A turn.** Requests are put to their shards (`routing`). Then each shard that has something new makes one
//! Raft entry of this turn's writes, and says what it has to send, to make durable and to apply (`turn`,
//! `replica`). All shards' records become one batch of the log (`persist`): one sync serves them all. All
//! shards' waiting reads (`reads`) become one question to each peer (`rounds`).
//!
//! **Where a request is.** With a replica here (`replica`), with another node (`forwards`), or waiting for
//! somebody to lead its shard (`Slot::waiting`). It is answered exactly once: by the driver from a job, or
//! with [`Effect::Reply`].
//!
//! **Recovery** (`recovery`): what every driver does to get from the disk to shards that are up to date. It
//! reads through the traits that the driver hands in.
//!
//! **Snapshots** (`snapshots`): how a table gets to a replica whose log can't be brought up to date any more.
//!
//! **Transfers** (`transfer`): leaderships that an operator moves.
//!
//! **Survivors** (`survivors`): which copy of a shard is the best one of those that are left where there is no majority any more, and what
//! it may lack.
//!
//! **Birth** (`birth`): no group starts before the full map of nodes is synced on each of them.
//!
//! **Program order** (`order`): what a driver holds back of one connection, so that its calls take effect in the order in
//! which they were made.
//!
//! **Renewal** (`renewal`): a replica that is damaged is made anew from the others. **Marks** (`marks`): a disk that is older than it was
//! is noticed by the others.
//!
//! **Reports** (`reports`): what every node tells every other each second, as differences.
//!
//! Caveats. Every node reports to every other, which is meant for tens of nodes: at rest a few bytes each second, but for each shard
//! that is written to a line.

mod abdicate;
mod admission;
mod api;
mod birth;
mod damage;
mod error;
mod figures;
mod follow;
mod forwards;
mod held;
mod layout;
mod leave;
mod levels;
mod load;
mod marks;
mod moving;
mod node;
pub mod order;
mod peers;
mod pending;
mod persist;
mod reads;
mod rebalance;
pub mod recovery;
mod renewal;
mod replica;
mod reports;
mod rounds;
mod routing;
mod said;
mod skipped;
mod slow_disk;
mod snapshots;
mod state;
pub mod survivors;
mod transfer;
mod turn;

pub use api::{
    Answered, ApplyJob, Config, Effect, Event, FoundReplica, Identity, Incoming, Opened, ReadJob, Stored,
    TableStats,
};
pub use birth::{begun_anew, born_numbers, is_joined, is_member, joined, read_birth, read_joined};
pub use error::NodeError;
pub use figures::{Counts, Figures, OtherFigures};
pub use load::Load;
pub use marks::remembered_in;
pub use node::Node;
pub use reports::Heard;
