//! Trying again without doing twice: what the sender of a write needs so that it takes effect once.
//!
//! Two have this in common: the client library, for its own writes, and a node, for writes of clients that have never heard of
//! sessions. Both take a [`Session`] from their [`Sessions`], send the write with its stamp, and ask [`Tries`] what a failure
//! means: to try again at some time, or to give up, and with which outcome. Then they say what became of the session: the
//! write is done, or was surely never done, or nobody knows, and then the session is dropped.
//!
//! Time comes in from the caller, who also sleeps. Random numbers come from the operating system: two senders must never have
//! one session.
//!
//! Deliberately absent: sockets, threads, and anything on disk. A process that starts again begins sessions of its own.

mod sessions;
mod tries;

pub use sessions::{Session, Sessions};
pub use tries::{Tries, is_of_lost_session};
