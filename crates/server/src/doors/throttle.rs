//! Log lines for what outsiders can cause as often as they like: one in ten seconds, with a count of the rest.
//!
//! The first line of a burst is written at once and says all there is to say. What follows within [`WINDOW`] is only counted; when the
//! window ends, one line says how many there were, and begins the next window. So a burst's last count is never lost, and a flood
//! costs two lines in the first ten seconds and one in each ten after.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Within this time there is one line.
const WINDOW: Duration = Duration::from_secs(10);

/// One kind of line.
#[derive(Debug)]
pub(crate) struct Throttle {
    /// What is counted, in the plural and as a sentence: "connections were turned away".
    what: String,
    window: Mutex<Window>,
}

impl Throttle {
    pub(crate) fn new(what: impl Into<String>) -> Arc<Throttle> {
        Arc::new(Throttle { what: what.into(), window: Mutex::default() })
    }

    /// It has happened: writes this line, or counts it. To be called on a runtime, for the line that comes later.
    pub(crate) fn warn(self: &Arc<Self>, line: impl FnOnce() -> String) {
        let next = self.with(|window| window.happened(Instant::now()));
        match next {
            Next::Write => tracing::warn!("{}", line()),
            Next::WriteCountAt(ends) => {
                let throttle = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep_until(ends.into()).await;
                    let count = throttle.with(|window| window.count_written(Instant::now()));
                    tracing::warn!("{count} more {} in {} s", throttle.what, WINDOW.as_secs());
                });
            }
            Next::Count => {}
        }
    }

    fn with<T>(&self, then: impl FnOnce(&mut Window) -> T) -> T {
        then(&mut self.window.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What to do about one occurrence.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Write,
    WriteCountAt(Instant),
    Count,
}

#[derive(Debug, Default)]
struct Window {
    ends: Option<Instant>,
    /// Happened since the last line.
    count: u64,
}

impl Window {
    fn happened(&mut self, now: Instant) -> Next {
        match self.ends {
            // Whoever is to write a count has it written, however late.
            Some(ends) if now < ends || self.count > 0 => {
                self.count += 1;
                if self.count == 1 { Next::WriteCountAt(ends) } else { Next::Count }
            }
            _ => {
                self.ends = Some(now + WINDOW);
                Next::Write
            }
        }
    }

    fn count_written(&mut self, now: Instant) -> u64 {
        self.ends = Some(now + WINDOW);
        std::mem::take(&mut self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_none_is_missing_from_the_counts() {
        let (mut window, begun) = (Window::default(), Instant::now());
        let (mut lines, mut told, mut count_due) = (0, 0, None);
        // One each millisecond, for 35 seconds.
        for ms in 0..35_000 {
            let now = begun + Duration::from_millis(ms);
            if count_due.is_some_and(|due| due <= now) {
                count_due = None;
                lines += 1;
                told += window.count_written(now);
            }
            match window.happened(now) {
                Next::Write => (lines, told) = (lines + 1, told + 1),
                Next::WriteCountAt(due) => {
                    let earlier = count_due.replace(due);
                    assert!(earlier.is_none(), "one line is due at a time");
                }
                Next::Count => {}
            }
        }
        assert_eq!(lines, 4, "at 0, 10, 20 and 30 s");
        assert_eq!(told + window.count, 35_000);
        assert!(count_due.is_some(), "the last ones will be told too");
    }

    #[test]
    fn what_happens_rarely_is_written_each_time_at_once() {
        let (mut window, begun) = (Window::default(), Instant::now());
        for n in 0..5 {
            assert_eq!(window.happened(begun + n * WINDOW), Next::Write);
        }
    }
}
