//! Time as the pure crates see it: a reading handed in by the driver, and the hybrid clock made from it.

/// One reading of both clocks, taken by the driver just before it hands over an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Microseconds on a clock that never goes back; its zero means nothing.
    pub monotonic_us: u64,
    /// Milliseconds since 1970-01-01 UTC on a clock that may jump.
    pub wall_ms: u64,
}

/// A leader's stamp on an entry: 48 bits of wall-clock milliseconds, 16 bits of counter.
///
/// Rises strictly within a shard, whatever the wall clock does, and is the only time that apply knows
/// (Kulkarni et al., "Logical Physical Clocks", 2014, reduced to what one writer needs).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HybridClock(pub u64);

impl HybridClock {
    /// The stamp for the next entry: the wall clock if it is ahead of every earlier stamp, else just after
    /// the last one.
    #[must_use]
    pub fn next(self, now: Now) -> HybridClock {
        HybridClock((now.wall_ms << 16).max(self.0 + 1))
    }

    /// The wall-clock part, in milliseconds since 1970.
    pub fn wall_ms(self) -> u64 {
        self.0 >> 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rises_when_the_wall_clock_stands_still_or_jumps_back() {
        let at = |wall_ms| Now { monotonic_us: 0, wall_ms };
        let first = HybridClock::default().next(at(1_000));
        let second = first.next(at(1_000));
        let third = second.next(at(10));
        assert!(first < second && second < third);
        assert_eq!(third.wall_ms(), 1_000);
        assert_eq!(third.next(at(2_000)).wall_ms(), 2_000);
    }
}
