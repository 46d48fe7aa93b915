//! One Raft group, sealed: the `raft` crate inside, Ringfort's types outside.
//!
//! The crate `raft` 0.7 (the one under `TiKV`) is a state machine free of I/O: messages, ticks and proposals
//! go in, a `Ready` comes out. This crate drives it, so that no other sees its types, and turns its rules of
//! use into types:
//!
//! - **Persist before send.** [`Group::take_turn`] returns messages that may go at once and, separately,
//!   records to be synced together with an [`Unsynced`] ticket. What depends on them (votes, answers to
//!   appends) sits inside the ticket and comes out of [`Group::release`] only for a [`Synced`], which a
//!   driver's report of a finished sync is the only reason to make (Raft, figure 2: "updated on stable
//!   storage before responding to RPCs"). The leader's appends need not wait (Ongaro's thesis, 10.2.1).
//! - **Less waits than the crate would let wait.** It puts everything a follower says behind the sync.
//!   Answers to heartbeats and pre-votes promise only a term, so they wait for an unsynced term or vote and
//!   not for entries ([`codec::waits_for_entries`]).
//! - **A commit index is no reason to sync.** It is written along with the next record that is.
//!
//! Election timeouts come from the shard, peer, term and attempt, in a band by the replica's rank
//! ([`election`]), never from a generator: the same history gives the same elections.
//!
//! Reads are not here: the node confirms leadership for all its groups in one message
//! (`docs/decisions/0002-read-probes.md`); this crate only says whether a leader may ask
//! ([`Group::read_index`]).
//!
//! **Old entries may be gone** ([`Group::compact`]). A follower that needs them is named in [`Turn::behind`]; once it
//! is said to have a table's data ([`Group::snapshot_delivered`]), the leader tells it to go on from there. The follower's side is
//! a record, [`Record::Installed`](ringfort_types::Record), and what comes out of [`Group::take_installed`] when that
//! is synced.
//!
//! **Who belongs to a group changes** by entries of its log ([`Group::propose_change`], [`Group::apply_change`]); `group::change`
//! says how, and what must not be forgotten meanwhile.
//!
//! Caveats. Nobody asks for a change of configuration yet. The `raft` crate draws its own election
//! timeout from a global generator whenever its role changes; we overwrite it before each tick, the only
//! place where it is looked at.

pub mod codec;
pub mod election;
mod group;
pub mod inspect;
mod log;

pub use group::{Fetch, Group, GroupConfig, Outgoing, Restored, Synced, Turn, Unsynced};
