//! A cluster in one thread, with bad luck from a seed.
//!
//! The simulator drives the same [`Node`](ringfort_node::Node) as the server does, under the same contract
//! (`ringfort_node`'s `api`), with the real log on a simulated disk, the real state machines on tables in
//! memory, and a network that is a queue. Time is a number. Whatever happens next is the earliest thing in that
//! queue, and every choice comes from one generator, so a seed is a history: [`run`] gives the same trace, byte
//! for byte, each time. That is what keeps everything below honest about clocks, randomness and the order of maps.
//!
//! **A run** (`world`): the nodes are born, clients put, get, delete and list, write several keys at once and under
//! conditions, raise counters (`clients`, `requests`), send some writes again and again (`sessions`), or several things at a
//! time over one connection (`pipes`), and things go wrong (`plan` draws what and when, `faults` does it); some clusters
//! change their shape (`members`). Then everything heals, and must work again (`verdict`).
//!
//! **What is judged** (`judges`, one file for each promise): while it runs, what nodes write and say and answer;
//! at the end, that every shard takes a write soon, that nothing acknowledged is missing, that all replicas are
//! level, and that the history of each key is linearizable ([`linearizable`]), a write whose outcome is
//! unknown counting as one that may have happened at any time after it was asked for, or never. Besides, every entry is
//! applied a second time by a model as plain as can be, which says what each command must be answered
//! (`judges::replay`).
//!
//! **That it would be found.** [`find_planted`] puts a bug into the code on purpose and runs seeds until some judge
//! objects.
//!
//! [`failovers`] kills a leader again and again instead, and measures. `docs/simulation.md` tells how to read a
//! trace, and what this can't find.
//!
//! Caveats. Tables lose what was not flushed, but are not torn (`lsm-tree` is believed); the log's disk is. The birth
//! goes through, if with crashes: lists that differ are the node's own tests' business. What lies between sockets
//! and node (`server`, `client`, `proto`) is not simulated.

mod ambushes;
mod clients;
mod clock;
mod corruption;
mod data;
mod exams;
mod failover;
mod faults;
mod fragile;
mod history;
mod host;
mod judges;
mod keys;
mod levels;
mod many;
mod members;
mod moves;
mod network;
mod opening;
mod pipes;
mod plan;
mod planting;
mod power;
mod process;
mod random;
mod recall;
mod requests;
mod rights;
mod sessions;
mod shrink;
mod tables;
mod trace;
mod verdict;
mod world;

pub use failover::failovers;
pub use history::{Action, Operation};
pub use judges::linearizable;
pub use many::{Tally, Times, run_many};
pub use plan::{Fault, Plan, Strike};
pub use planting::{Found, find_planted};
pub use shrink::shrink;
pub use world::{Finding, Report, run};
