//! What a node counts as it works, for those who watch it.
//!
//! Whoever does something adds to a number here; whoever is asked for all of them (`doors::http`) reads them. What can be asked for when it is
//! wanted (how full a queue is, how many connections are open) is not counted here.
//!
//! Invariant: to add takes no lock and waits for nobody.

mod histogram;
mod requests;
mod slowest;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

pub(crate) use histogram::{Counted, Histogram};
pub(crate) use requests::{Begun, Kind, Operation, Requests, code_name, door_name};
pub(crate) use slowest::Slowest;

/// A number, most often one that grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What another one counts it to be.
    pub(crate) fn set(&self, number: u64) {
        self.0.store(number, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What a node counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) requests: Requests,
    /// Writes to the log, each with its sync.
    pub(crate) log_syncs: Histogram,
    pub(crate) log_bytes: Counter,
    pub(crate) log_records: Counter,
    /// Bytes of the log's files, as of the last look.
    pub(crate) log_size: Counter,
    /// Entries that were applied to tables.
    pub(crate) applied: Counter,
    pub(crate) flushes: Histogram,
    pub(crate) compactions: Histogram,
    pub(crate) slow_requests: Counter,
    /// Of TLS.
    pub(crate) handshakes: Arc<Handshakes>,
    /// How long requests waited for the core.
    pub(crate) core_wait: Slowest,
    /// How long writes and syncs of the log took.
    pub(crate) log_sync: Slowest,
    /// How long committed entries waited for the thread that applies them.
    pub(crate) apply_wait: Slowest,
}

/// Handshakes of TLS at this node's ports.
#[derive(Debug, Default)]
pub(crate) struct Handshakes {
    pub(crate) done: Counter,
    /// Or not begun.
    pub(crate) failed: Counter,
}

/// What was sent to another node, and what is known of its clock.
#[derive(Debug, Default)]
pub(crate) struct PeerMetrics {
    pub(crate) messages: Counter,
    pub(crate) bytes: Counter,
    clock: Clock,
}

#[derive(Debug)]
struct Clock(AtomicI64);

impl Default for Clock {
    fn default() -> Clock {
        Clock(AtomicI64::new(i64::MIN))
    }
}

impl PeerMetrics {
    /// Its clock is so many microseconds ahead of this node's.
    pub(crate) fn set_clock_offset(&self, us: Option<i64>) {
        self.clock.0.store(us.unwrap_or(i64::MIN), Ordering::Relaxed);
    }

    /// The same, if it is known.
    pub(crate) fn clock_offset(&self) -> Option<i64> {
        let us = self.clock.0.load(Ordering::Relaxed);
        (us != i64::MIN).then_some(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_which_nothing_is_known_has_no_offset() {
        let peer = PeerMetrics::default();
        assert_eq!(peer.clock_offset(), None);
        peer.set_clock_offset(Some(-5));
        assert_eq!(peer.clock_offset(), Some(-5));
    }
}
