//! Many Raft groups in one process, as one deterministic function over events.
//!
//! [`Node::handle`] takes an event and the time; [`Node::take_effects`] says what is to be done about
//! everything handled since the last call (one *turn*). A node reads no clock, draws no random number and
//! opens nothing: a driver (`server` for real, `sim` in simulation) carries the effects out and reports back.

mod api;

pub use api::{Answered, ApplyJob, Config, Effect, Event, Identity, Incoming, Opened, ReadJob, TableStats};
