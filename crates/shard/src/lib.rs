//! One shard's state machine: committed entries in, rows in a table, replies out.
//!
//! [`Shard`] is the one writer of a shard's [`Table`](ringfort_storage::Table); [`ShardReader`]s, as many as are
//! wanted, answer questions at a named index meanwhile. Both are functions of the log alone: two replicas that
//! have applied the same entries hold the same rows, byte for byte, which [`Request::DigestAt`] lets anyone check.
//!
//! **An entry is applied whole.** Its commands count one after the other, each that changes something raising
//! the *revision* by one; then the final value of each key is written once, at the entry's index. So a read at
//! any index sees all of an entry or nothing of it. A plain put or delete never looks at what was there; a condition or
//! an addition looks at the table as the entry before left it, and at what the earlier commands of its own entry have
//! changed on top of that (`draft`). A write is one command, and one revision, however many keys it changes.
//!
//! **A caller may have an order of its own**: it gives its writes versions, under the condition that the key's is not newer.
//! A deleted key leaves a tombstone with its version, so that an older write that comes late does not bring it back. A
//! tombstone counts for a day ([`TOMBSTONE_MS`](ringfort_types::limits::TOMBSTONE_MS)) of the shard's own clock.
//!
//! **A stamped command is done once** ([`Stamp`], `sessions`): when it comes again, it is told again what came of it
//! (`outcome`).
//!
//! **The meta group** keeps the cluster's layout. It is a shard without slots whose commands change that one row
//! ([`Shard::open_of_cluster`]); what it has come to is handed out with the entry that did it ([`Applied::layout`]).
//!
//! **What becomes durable names its own index.** The table is its own journal of nothing: what it had not
//! flushed is replayed from the shared log. [`Shard::seal`] writes the *state row* (applied index, revision,
//! clock, configuration) and the sessions that have changed at the applied index and then seals the memtable, so that data and the
//! index it stands for are flushed together or not at all (etcd 3.5 kept them apart, and lost sync: issue 13766).
//!
//! Invariants:
//! - indexes rise by one from entry to entry; the revision never falls; so does the clock within a shard;
//! - applying fails only if a row that a condition or an addition needs can't be read: the entry is committed, and what
//!   the other replicas make of it this one can't know, so it ends. A domain failure is a reply, and an entry that can't be
//!   understood is a broken invariant and panics with what was found;
//! - a row or state row of an unknown version is refused, never guessed at.
//!
//! How many keys there are is estimated from a sample of them, which costs a hash for each change and no read (`sample`).
//!
//! Deliberately absent, for now: expiry of rows, and the removal of tombstones that have ended. The places in the formats
//! are kept: a kind of table keys, a flag on rows.
//!
//! Caveats: a delete of a key that is not there raises the revision too (knowing would take a read), and so
//! does each of several puts of one key in one entry, although only the last leaves a row.
//! A digest is of the rows; sessions have a hash of their own ([`Shard::sessions_hash`]).
//!
//! [`Stamp`]: ringfort_types::Stamp
//! [`Request::DigestAt`]: ringfort_types::Request::DigestAt

mod draft;
mod error;
mod outcome;
mod query;
mod row;
mod sample;
mod sessions;
mod shard;
mod state;

pub use error::ShardError;
pub use query::ShardReader;
pub use sessions::SessionLimits;
pub use shard::{Applied, Shard, configuration_of};
