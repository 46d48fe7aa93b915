//! How long something took, counted without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the buckets, in microseconds: from what a read out of memory takes to the time of most calls.
const BOUNDS_US: [u64; 17] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
    2_500_000, 5_000_000, 10_000_000,
];

/// Durations by how long they are.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// One for each bound, and one for what is beyond the last.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The bounds in seconds, the last one infinite, each with how many are in its bucket alone.
    pub(crate) buckets: Vec<(f64, u64)>,
    /// How many there are.
    pub(crate) count: u64,
    /// Their sum in seconds.
    pub(crate) sum: f64,
}

impl Histogram {
    /// One more.
    pub(crate) fn record(&self, took: Duration) {
        let took_us = took.as_micros() as u64;
        let bucket = BOUNDS_US.partition_point(|bound| *bound < took_us);
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(took_us, Ordering::Relaxed);
    }

    /// As of now.
    pub(crate) fn counted(&self) -> Counted {
        let bounds = BOUNDS_US.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Counted { buckets, count, sum: self.sum_us.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        for us in [0, 50, 51, 10_000_000, 10_000_001] {
            histogram.record(Duration::from_micros(us));
        }
        let counted = histogram.counted();
        let filled: Vec<_> = counted.buckets.iter().filter(|(_, count)| *count > 0).copied().collect();
        assert_eq!(filled, [(0.000_05, 2), (0.000_1, 1), (10.0, 1), (f64::INFINITY, 1)]);
        assert_eq!(counted.count, 5);
        assert!((counted.sum - 20.000_102).abs() < 1e-9);
    }
}
