//! A node's clocks: near the world's, never equal to it.

use ringfort_types::Now;

use crate::random::Random;

/// The wall clock at the world's beginning, in milliseconds since 1970.
const WALL_MS: u64 = 1_800_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// Begins anywhere.
    monotonic_offset_us: u64,
    /// Thousandths of the world's speed.
    rate: u64,
    wall_offset_ms: i64,
}

impl Clock {
    pub(crate) fn new(random: &mut Random) -> Clock {
        Clock {
            monotonic_offset_us: random.below(1 << 40),
            rate: random.between(900, 1_100),
            wall_offset_ms: random.below(2_000) as i64 - 1_000,
        }
    }

    pub(crate) fn read(&self, world_us: u64) -> Now {
        let monotonic_us = world_us / 1_000 * self.rate + world_us % 1_000 * self.rate / 1_000;
        let wall_ms = (WALL_MS + world_us / 1_000).wrapping_add_signed(self.wall_offset_ms);
        Now { monotonic_us: self.monotonic_offset_us + monotonic_us, wall_ms }
    }

    /// How long the world takes for so much of this clock.
    pub(crate) fn world_us(&self, own_us: u64) -> u64 {
        own_us * 1_000 / self.rate
    }

    pub(crate) fn jump(&mut self, random: &mut Random) -> i64 {
        const TEN_MINUTES_MS: i64 = 600_000;
        let by_ms = random.below(2 * TEN_MINUTES_MS as u64) as i64 - TEN_MINUTES_MS;
        self.wall_offset_ms += by_ms;
        by_ms
    }
}
