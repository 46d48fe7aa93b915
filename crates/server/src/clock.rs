//! The one place where a node's time is read.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ringfort_types::Now;

use crate::StartError;

/// Years that a clock may show at a start: one that shows another was never set (a board without a battery begins in 1970), and the
/// HTTP library below `tonic` aborts the process over some of them.
const YEARS: std::ops::Range<u64> = 2024..2200;
const YEAR: Duration = Duration::from_secs(31_556_952);

/// Reads both clocks; its zero is when it was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        Clock { start: Instant::now() }
    }

    /// Refuses a clock that was never set. One that jumps later is lived through.
    pub(crate) fn check() -> Result<(), StartError> {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let year = 1970 + since_1970.as_secs() / YEAR.as_secs();
        if YEARS.contains(&year) {
            return Ok(());
        }
        let (side, bound) =
            if year < YEARS.start { ("before", YEARS.start) } else { ("after", YEARS.end - 1) };
        Err(StartError::Usage(format!(
            "this machine's clock shows a year {side} {bound} (`date -u` prints it): set it, by hand or over the network (`timedatectl \
             set-ntp true`), then start the node"
        )))
    }

    pub(crate) fn now(&self) -> Now {
        let wall_ms = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |wall| wall.as_millis() as u64);
        Now { monotonic_us: self.start.elapsed().as_micros() as u64, wall_ms }
    }
}
