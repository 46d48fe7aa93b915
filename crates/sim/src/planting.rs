//! Each planted bug, and how soon it is found.

use ringfort_types::planted::{Bug, is_possible};

use crate::plan::Plan;
use crate::world::{Finding, run};

/// How a planted bug was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// How many seeds it took.
    pub seeds: u64,
    /// The plan that showed it.
    pub plan: Plan,
    /// What showed it first.
    pub finding: Finding,
}

/// Runs seeds from 0 on with this bug, until it is found or so many have been run.
///
/// # Panics
/// In a build that can't have bugs on purpose.
pub fn find_planted(bug: Bug, seeds_max: u64) -> Option<Found> {
    assert!(
        is_possible(),
        "this build has no planted bugs: it needs the feature `planted` and debug assertions"
    );
    (0..seeds_max).find_map(|seed| {
        let plan = Plan { plant: Some(bug), ..Plan::from_seed(seed) };
        let finding = run(&plan).findings.into_iter().next()?;
        Some(Found { seeds: seed + 1, plan, finding })
    })
}
