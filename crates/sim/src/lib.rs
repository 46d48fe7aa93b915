//! A cluster in one thread, with bad luck from a seed.
//!
//! The simulator drives the same [`Node`](ringfort_node::Node) as the server does, under the same contract
//! (`ringfort_node`'s `api`), with the real log on a simulated disk, the real state machines on tables in
//! memory, and a network that is a queue. Time is a number. Whatever happens next is the earliest thing in that
//! queue, and every choice comes from one generator, so a seed is a history: [`run`] gives the same trace, byte
//! for byte, each time. The test runs every seed twice and compares, which is what keeps everything below honest
//! about clocks, randomness and the order of maps.
//!
//! **A run** (`world`): the nodes are born, clients put, get and delete (`clients`), and things go wrong
//! (`faults`): processes are killed, power is lost between and during writes, syncs fail, links break, stall and
//! are cut one way or both, processes are paused, wall clocks jump. Then everything heals, and must work again.
//!
//! **What is checked.** While it runs (`safety`; each a property of the Raft paper or of the node's contract):
//! one leader a term; one vote a term, also across restarts; the same entry at the same index everywhere;
//! each request answered once, and in time. At the end (`verdict`): every shard takes a write soon; no
//! acknowledged write is missing; all replicas have the same digest at one index; and the history of each key
//! is linearizable ([`linearizable`]), a write whose outcome is unknown counting as one that may have happened
//! at any time after it was asked for, or never.
//!
//! Most runs have three nodes, some one, two, four or five; with more than three, some are without a replica of
//! some shards and pass requests on. [`failovers`] kills a leader again and again instead, and measures.
//!
//! Caveats. Tables lose what was not flushed, but are not torn (`lsm-tree` is believed); the log's disk is.
//! Nodes are not wiped and disks do not fill up or rot here yet. The birth goes through, if with crashes: lists
//! that differ are the node's own tests' business.

mod clients;
mod clock;
mod failover;
mod faults;
mod history;
mod host;
pub mod linearizable;
mod network;
mod plan;
mod power;
mod process;
mod random;
mod safety;
mod trace;
mod verdict;
mod world;

pub use failover::failovers;
pub use history::{Action, Operation};
pub use plan::{Fault, Plan, Plant};
pub use world::{Report, run};
