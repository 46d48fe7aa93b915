//! Processes of two versions in one cluster, in some seeds: each start of a host is one of either, so hosts are upgraded, and go back, again
//! and again. The level rises when all members happen to be of the later version; a process of the earlier one has to end then, and its
//! host goes on with the later one.
//!
//! What is looked at: nobody goes by a layout whose level it does not know, and nobody ends for a level twice. That levels
//! never fall `judges::layouts` sees to.

use ringfort_types::{Level, Levels};

use crate::judges::NODE_GOES_ON;
use crate::random::Random;
use crate::world::World;

const EARLIER: Levels = Levels { min: Level(1), max: Level(1) };
const LATER: Levels = Levels { min: Level(1), max: Level(2) };
/// How many of a hundred processes are of the later version.
const LATER_PERCENT: u64 = 70;
/// Until a host whose process did not know the level in force is started with one that does, at most, in microseconds.
const UPGRADED_US: u64 = 2_000_000;

impl World {
    /// What the next process of a host knows. Drawn apart from everything else, so that other seeds are as they were.
    pub(crate) fn levels_of_next(&self, at: usize) -> Levels {
        if !self.plan.mixes_levels {
            return Levels::KNOWN;
        }
        let host = &self.hosts[at];
        let mut random = Random::new(self.plan.seed ^ ((at as u64) << 48) ^ (host.life << 8) ^ 0x6c65_7665);
        let is_later = host.is_upgraded || self.is_calm || random.chance(LATER_PERCENT);
        if is_later { LATER } else { EARLIER }
    }

    /// The highest level that a host which joins knows.
    pub(crate) fn level_of_newcomers(&self) -> Level {
        if self.plan.mixes_levels { LATER.max } else { Level::MAX }
    }

    /// Whether a process of the earlier version may be refused for this reason. (Whoever went by the level first may be gone already, so
    /// it is not looked for.)
    pub(crate) fn is_for_level(&self, why: &str) -> bool {
        self.plan.mixes_levels && why.contains("is in force in this cluster")
    }

    /// A process can't go on, for this reason. Whether it has to end because of the level.
    pub(crate) fn ends_for_level(&mut self, at: usize, why: &str) -> bool {
        if self.hosts[at].is_upgraded || !self.is_for_level(why) {
            return false;
        }
        self.log(format_args!("n{} is upgraded", at + 1));
        self.hosts[at].is_upgraded = true;
        let after_us = self.random.below(UPGRADED_US);
        self.restart_after(at, false, after_us);
        true
    }

    /// A process goes by a layout in which this level is in force.
    pub(crate) fn look_at_level(&mut self, at: usize, levels: Levels, level: Level) {
        if !levels.contain(level) {
            self.find(NODE_GOES_ON, format_args!("n{} goes by level {level}, and knows {levels}", at + 1));
        }
    }
}
