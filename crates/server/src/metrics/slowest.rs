//! The longest time that something took of late.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// As many seconds are remembered.
const SECONDS: usize = 64;

/// The longest of each of the last seconds.
#[derive(Debug)]
pub(crate) struct Slowest {
    made: Instant,
    /// By the second modulo their number: the second in the upper half, milliseconds in the lower one.
    seconds: [AtomicU64; SECONDS],
}

impl Default for Slowest {
    fn default() -> Slowest {
        Slowest { made: Instant::now(), seconds: std::array::from_fn(|_| AtomicU64::new(0)) }
    }
}

impl Slowest {
    /// It took so long, and ends now.
    pub(crate) fn record(&self, took: Duration) {
        let ms = took.as_millis().min(u128::from(u32::MAX)) as u64;
        if ms > 0 {
            self.record_at(self.made.elapsed().as_secs(), ms);
        }
    }

    fn record_at(&self, second: u64, ms: u64) {
        let place = &self.seconds[second as usize % SECONDS];
        // A later second is a greater number, and so is a longer time in the same one.
        place.fetch_max((second << 32) | ms, Ordering::Relaxed);
    }

    /// The longest that has ended within this time, to the second.
    pub(crate) fn within(&self, time: Duration) -> Duration {
        self.since(self.made.elapsed().as_secs(), time.as_secs() + 1)
    }

    fn since(&self, second: u64, seconds: u64) -> Duration {
        let places = self.seconds.iter().map(|place| place.load(Ordering::Relaxed));
        let recent = places.filter(|place| (place >> 32) + seconds >= second);
        Duration::from_millis(recent.map(|place| place & u64::from(u32::MAX)).max().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_of_late_counts() {
        let slowest = Slowest::default();
        for (second, ms) in [(100, 7), (100, 5), (102, 3)] {
            slowest.record_at(second, ms);
        }
        let since = |second, seconds| slowest.since(second, seconds).as_millis();
        assert_eq!([since(102, 2), since(102, 1), since(104, 1)], [7, 3, 0]);
        // The same place, a turn later.
        slowest.record_at(100 + SECONDS as u64, 1);
        assert_eq!(since(100 + SECONDS as u64, 5), 1);
    }
}
