//! The driver of a real node: sockets, threads, disk and clock around [`ringfort_node::Node`].
//!
//! A node is a function from events to effects. This crate brings the events in and carries the effects out.
//!
//! **Threads.** The *core* owns the node (`core`); it is a task or a thread, as the runtime has one worker or more.
//! The *log* thread appends and syncs (`log`), the *apply* thread owns the shards (`apply`), the *flush* thread
//! writes tables to disk (`flush`), one ends when all that is on disk is open (`open`), and two more read and write tables that go from node to node (`snapshots`). Sockets live on the tokio runtime of whoever calls [`start`]; on a machine with
//! few processors, one worker thread is best. They hand over through queues that are emptied in one exchange
//! (`queue`), and wake each other only when the other one sleeps.
//!
//! **A write** comes in on a session's stream (`session`) or as a call (`kv`), becomes a request on the core's
//! inbox, an entry in the turn's batch for the log thread and, in frames made by `links` out of an `outbox`, in
//! the followers' logs. Once it is committed, the apply thread applies it and hands the receipt to whoever
//! holds its token (`answers`): the session's stream, which makes one frame of all that has collected.
//!
//! **A read** takes the same way in; what comes back from the core is an index to read at, and the stream or
//! call that asked reads the table itself (`readers`). `List` merges pages of all shards (`list`).
//!
//! **A start** (`config`, `open`): flags are checked, the port is bound, the directory locked; then the node is
//! made, and says what to open. Each shard is served as soon as it is ready. A directory whose node was never born with
//! its peers waits for them.
//!
//! Invariants: nothing is unbounded (`queue`, `session`, `outbox`, `doors` name their bounds); the core
//! waits for no disk and no socket; a failed sync ends the process (`error`).
//!
//! Caveats. There is no encryption and no authentication yet: whoever reaches the port can do anything,
//! including what peers do.

mod answers;
mod apply;
mod clock;
mod config;
mod core;
mod descriptors;
mod doors;
mod error;
mod fetch;
mod flush;
mod horizon;
mod kv;
mod links;
mod list;
mod log;
mod open;
mod outbox;
mod queue;
mod readers;
mod running;
mod session;
mod shared;
mod snapshots;

pub use config::Config;
pub use error::StartError;
pub use running::{Running, Summary, start};
