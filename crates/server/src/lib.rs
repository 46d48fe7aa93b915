//! The driver of a real node: sockets, threads, disk and clock around [`ringfort_node::Node`].
//!
//! A node is a function from events to effects. This crate brings the events in and carries the effects out.
//!
//! **Threads.** The *core* owns the node (`core`); it is a task or a thread, as there is one thread for sockets or more.
//! The *log* thread appends and syncs (`log`), the *apply* thread owns the shards (`apply`), the *flush* thread
//! writes tables to disk (`flush`), one ends when all that is on disk is open (`open`), and two more read and write tables that go from node to node (`snapshots`). Sockets live on the tokio
//! runtime of whoever calls [`start`], or on several ([`start_on`]), of which a connection belongs to one (`doors`); on a machine with few
//! processors, one thread is best. They hand over through queues that are emptied in one exchange
//! (`queue`), and wake each other only when the other one sleeps.
//!
//! **A write** comes in at a door (`doors`), which makes a call of it; the `gate` puts it on the core's inbox. It becomes an
//! entry in the turn's batch for the log thread and, in frames made by `links` out of an `outbox`, in the followers' logs. Once
//! it is committed, the apply thread applies it and hands the receipt to whoever holds its token (`answers`): a connection's
//! pipeline, which hands all that has collected to its door at once, or, by way of a `desk`, a single call.
//!
//! **A read** takes the same way in; what comes back from the core is an index to read at (`delivery`), and the task that asked
//! reads the table itself (`readers`). Lists merge pages of all shards (`gate::rows`).
//!
//! **A start** (`config`, `open`): flags are checked, the port is bound, the directory locked; then the node is
//! made, and says what to open. Each shard is served as soon as it is ready. A directory whose node was never born with
//! its peers waits for them; one that is to be invited by a member waits before it is a node (`invited`).
//!
//! **Without any node** (`recover`): a new cluster from what is left on the disks of stopped nodes.
//!
//! Invariants: nothing is unbounded (`queue`, `gate`, `outbox`, `doors` name theirs); the core
//! waits for no disk and no socket; a failed sync ends the process (`error`).
//!
//! Caveats. Without TLS whoever reaches the port can do anything that peers do, so a port beyond loopback is opened then only when the
//! operator says so (`exposure`); and clients are asked who they are (`authentication`) only once rights are enforced. Who asked for what is
//! written if the operator wants it (`audit`).

mod answers;
mod apply;
mod audit;
mod authentication;
mod budget;
mod certificates;
mod clock;
mod config;
mod core;
mod delivery;
mod descriptors;
mod desk;
mod disk_watch;
mod doors;
mod error;
mod exposure;
mod fetch;
mod figures;
mod flush;
mod gate;
mod horizon;
mod impostors;
mod invitation;
mod invite;
mod invited;
mod join;
mod links;
mod log;
mod log_levels;
mod metrics;
mod network;
mod open;
mod outbox;
mod peer_clock;
mod ports;
mod queue;
mod readers;
pub mod recover;
mod room;
mod running;
mod shared;
mod shares;
mod slow;
mod snapshots;
mod space;
mod threads;
mod whereabouts;

pub use audit::{AuditConfig, AuditedRequests};
pub use authentication::{Token, hash_password};
pub use config::{Config, HttpConfig, REPLICAS_DEFAULT, SHARDS_DEFAULT, TextConfig};
pub use doors::http::HttpSettings;
pub use doors::text::{GetReply, TextSettings};
pub use error::{StartError, last_words};
pub use log_levels::LogLevels;
pub use ringfort_tls::NodeFiles;
pub use running::{Observer, Running, Summary, start, start_on};
