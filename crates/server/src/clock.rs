//! The one place where a node's time is read.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringfort_types::Now;

/// Reads both clocks; its zero is when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    pub(crate) fn now(&self) -> Now {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_millis() as u64);
        Now { monotonic_us: self.start.elapsed().as_micros() as u64, wall_ms }
    }
}
