//! From a run with a finding to a smaller one that still shows it: fewer things that go wrong.
//!
//! Delta debugging (Zeller and Hildebrandt, 2002, `ddmin`) over the schedule: parts of it are left out as long as
//! some finding about the same invariant remains. Leaving one out changes what happens afterwards, so the result is
//! small and not surely the smallest.

use crate::plan::{Plan, Strike};
use crate::world::{Finding, run};

/// Runs that are spent on one finding.
const RUNS_MAX: usize = 100;

/// A plan that shows a finding about the same invariant with as few strikes as can be, and that finding.
pub fn shrink(plan: &Plan, finding: &Finding) -> (Plan, Finding) {
    let mut best = (plan.clone(), finding.clone());
    let mut runs = 0;
    let mut shows = |strikes: &[Strike]| -> Option<Finding> {
        if runs >= RUNS_MAX {
            return None;
        }
        runs += 1;
        let report = run(&Plan { strikes: strikes.to_vec(), ..plan.clone() });
        report.findings.into_iter().find(|found| found.invariant == finding.invariant)
    };
    let mut strikes: Vec<Strike> = plan.strikes.clone();
    // What comes after the finding can't have led to it.
    let before: Vec<Strike> =
        strikes.iter().filter(|strike| strike.at_ms <= finding.at_ms).copied().collect();
    let mut parts = 2;
    if before.len() < strikes.len()
        && let Some(found) = shows(&before)
    {
        strikes = before;
        best = (Plan { strikes: strikes.clone(), ..plan.clone() }, found);
    }
    while !strikes.is_empty() {
        let size = strikes.len().div_ceil(parts);
        let smaller = (0..strikes.len()).step_by(size).find_map(|from| {
            let left: Vec<Strike> = [&strikes[..from], &strikes[(from + size).min(strikes.len())..]].concat();
            let found = shows(&left)?;
            Some((left, found))
        });
        match smaller {
            Some((left, found)) => {
                strikes = left;
                best = (Plan { strikes: strikes.clone(), ..plan.clone() }, found);
                parts = parts.saturating_sub(1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(strikes.len()),
        }
    }
    best
}
