//! What came of it: counts and latencies, as they grow and at the end.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hdrhistogram::Histogram;
use ringfort_types::Failure;

/// What came of it.
#[derive(Debug)]
pub(super) struct Measured {
    pub(super) time: Duration,
    /// Requests answered.
    pub(super) done: u64,
    /// Gets among them that found no row.
    pub(super) missing: u64,
    pub(super) errors: u64,
    /// The first error.
    pub(super) failure: Option<Failure>,
    /// In microseconds, of requests answered.
    pub(super) latency: Histogram<u64>,
}

/// Counts, as they grow.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) done: AtomicU64,
    pub(super) missing: AtomicU64,
    pub(super) errors: AtomicU64,
    failure: Mutex<Option<Failure>>,
    /// One a client, so that tasks rarely wait for each other.
    latency: Vec<Mutex<Histogram<u64>>>,
}

impl Tally {
    pub(super) fn new(parts: usize) -> Tally {
        Tally {
            done: AtomicU64::new(0),
            missing: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            failure: Mutex::new(None),
            latency: (0..parts).map(|_| Mutex::new(histogram())).collect(),
        }
    }

    pub(super) fn answered(&self, part: usize, time: Duration) {
        self.done.fetch_add(1, Ordering::Relaxed);
        let mut latency = self.latency[part].lock().expect("recording does not panic");
        latency.saturating_record(time.as_micros() as u64);
    }

    pub(super) fn failed(&self, failure: Failure) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.failure.lock().expect("nothing panics here").get_or_insert(failure);
    }

    pub(super) fn measured(&self, time: Duration) -> Measured {
        let mut latency = histogram();
        for part in &self.latency {
            let part = part.lock().expect("recording does not panic");
            latency.add(&*part).expect("all histograms have the same bounds");
        }
        Measured {
            time,
            done: self.done.load(Ordering::Relaxed),
            missing: self.missing.load(Ordering::Relaxed),
            errors: self.errors.load(Ordering::Relaxed),
            failure: self.failure.lock().expect("nothing panics here").clone(),
            latency,
        }
    }
}

/// Microseconds to a day, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 24 * 3600 * 1_000_000, 3).expect("these bounds are allowed")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let tally = Tally::new(2);
        for micros in 1..=1000 {
            tally.answered(usize::from(micros % 2 == 0), Duration::from_micros(micros));
        }
        tally.failed(Failure::unknown(ringfort_types::Code::Unavailable, "first"));
        tally.failed(Failure::unknown(ringfort_types::Code::Unavailable, "second"));
        let measured = tally.measured(Duration::from_secs(1));
        assert_eq!((measured.done, measured.errors, measured.latency.len()), (1000, 2, 1000));
        assert_eq!(measured.latency.value_at_quantile(0.5), 500);
        assert_eq!(measured.failure.map(|failure| failure.message), Some("first".into()));
    }
}
