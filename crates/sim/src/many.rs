//! Many seeds, on all cores.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::plan::Plan;
use crate::world::{Finding, Report, run};

/// What came of many runs.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many runs.
    pub runs: u64,
    /// How much time passed in them, in milliseconds.
    pub lived_ms: u64,
    /// Requests that were acknowledged, rejected, and of unknown outcome.
    pub requests: (u64, u64, u64),
    /// The longest that any took to heal, in milliseconds.
    pub healed_ms_max: u64,
    /// Seeds with findings, in order: the plan, and the first finding.
    pub bad: Vec<(Plan, Finding)>,
    /// Seeds of which two runs differed, in order.
    pub unequal: Vec<u64>,
}

/// How many runs to make of each seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// One.
    Once,
    /// Two, whose hashes must be equal; the second ones in the opposite order, so that they have other neighbours.
    Twice,
}

/// Runs the plans of these seeds, on so many cores, and tells of each report as it comes.
pub fn run_many(
    seeds: Range<u64>,
    plan: &(dyn Fn(u64) -> Plan + Sync),
    cores: usize,
    times: Times,
    each: &(dyn Fn(&Report) + Sync),
) -> Tally {
    let count = seeds.end.saturating_sub(seeds.start);
    let total = if times == Times::Twice { 2 * count } else { count };
    let next = AtomicU64::new(0);
    let tally = Mutex::new((Tally::default(), std::collections::BTreeMap::<u64, u64>::new()));
    let work = || {
        loop {
            let turn = next.fetch_add(1, Ordering::Relaxed);
            if turn >= total {
                return;
            }
            let place = if turn < count { turn } else { 2 * count - 1 - turn };
            let plan = plan(seeds.start + place);
            let report = run(&plan);
            each(&report);
            let mut tally = tally.lock().expect("whoever counts does not panic");
            let (tally, hashes) = &mut *tally;
            tally.add(plan, &report);
            if *hashes.entry(report.seed).or_insert(report.hash) != report.hash {
                tally.unequal.push(report.seed);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..cores.max(1) {
            scope.spawn(work);
        }
        work();
    });
    let (mut tally, _) = tally.into_inner().expect("whoever counts does not panic");
    tally.bad.sort_by_key(|(plan, _)| plan.seed);
    tally.bad.dedup_by_key(|(plan, _)| plan.seed);
    tally.unequal.sort_unstable();
    tally
}

impl Tally {
    fn add(&mut self, plan: Plan, report: &Report) {
        self.runs += 1;
        self.lived_ms += report.lived_ms;
        self.requests.0 += report.requests.0;
        self.requests.1 += report.requests.1;
        self.requests.2 += report.requests.2;
        self.healed_ms_max = self.healed_ms_max.max(report.healed_ms);
        if let Some(first) = report.findings.first() {
            self.bad.push((plan, first.clone()));
        }
    }
}
