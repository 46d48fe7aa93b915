//! What makes a write take effect once, however often it has to be asked for: whoever asks needs a session to number it
//! in, and a rule that says when it may be asked for again.
//!
//! Two ask: the client library, and a node on behalf of clients that have never heard of sessions. What lies between
//! them and the shard differs (a network here, a queue there), what may be concluded from a failure does not; so it
//! stands here, below both.
//!
//! - [`Sessions`] is the pool of sessions that somebody has, by shard; each numbers one write at a time;
//! - [`Retry`] is one request: it judges what came back (whether to ask again, and when, or what came of the request in
//!   the end), and knows in which state a session may be given back:
//!
//! | how the write ended | its session |
//! |---|---|
//! | answered | counts it, and is free for the next |
//! | every attempt was turned away | did not count it, and is free for the next |
//! | any other way, or nobody waits for it any more | is not used again: the write may still be on its way |
//! | the shard has forgotten the session | goes, and so do the idle ones of this shard |
//!
//! One request, from its beginning to its end (the sleeping and the asking are the caller's):
//!
//! ```
//! use std::time::{Duration, Instant};
//! use ringfort_retry::{Retry, Sessions};
//! # use ringfort_types::{Failure, HybridClock, Receipt, Reply, Request, ShardId, Stamp};
//! # fn ask(_: &Request, _: Option<Stamp>) -> Result<Reply, Failure> { Ok(Reply::Written(Receipt::default())) }
//! # fn ask_for_clock(_: ShardId) -> Result<HybridClock, Failure> { Ok(HybridClock(7)) }
//! # fn write(sessions: &Sessions, request: &Request, shard: ShardId) -> Result<Reply, Failure> {
//! let begun = Instant::now();
//! let mut retry = Retry::new(request, true, begun, begun + Duration::from_secs(3));
//! loop {
//!     let answer = if retry.wants_session() && !retry.take_session(sessions, shard)? {
//!         // A request `OpenSession`, asked like any other. It may fail like any other.
//!         ask_for_clock(shard).and_then(|clock| retry.open_session(sessions, shard, clock))
//!     } else {
//!         Ok(())
//!     };
//!     match answer.and_then(|()| ask(request, retry.stamp())) {
//!         Ok(reply) => {
//!             retry.done(sessions);
//!             return Ok(reply);
//!         }
//!         Err(failure) => {
//!             let next = retry.failed(sessions, failure, Instant::now())?;
//!             std::thread::sleep(next - Instant::now());
//!         }
//!     }
//! }
//! # }
//! # write(&Sessions::default(), &Request::put("k", "v"), ShardId(1)).unwrap();
//! ```
//!
//! Bounds: as many sessions as writes were under way at once, which is up to the caller; attempts end at the deadline, with
//! pauses between them.
//!
//! Deliberately absent: reading a clock, sleeping, sockets, and whom to ask. The one thing that is not a function of its input is
//! a session's number, which the operating system draws.

mod retry;
mod sessions;
mod tries;

pub use retry::Retry;
pub use sessions::Sessions;
