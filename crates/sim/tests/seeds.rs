//! Seeds, some of them twice; and bugs on purpose, all of which must be found.

use ringfort_sim::{Fault, Plan, Plant, Report, failovers, run};

fn assert_clean(report: &Report) {
    let (seed, findings) = (report.seed, report.findings.join("\n"));
    assert!(findings.is_empty(), "cargo xtask sim --seed {seed}\n{findings}");
}

#[test]
fn each_seed_gives_the_same_trace_every_time() {
    for seed in 0..60 {
        let (first, second) = (run(&Plan::from_seed(seed)), run(&Plan::from_seed(seed)));
        assert!(first.trace == second.trace, "seed {seed} differs: {}", first_difference(&first, &second));
        assert_eq!(first.findings, second.findings);
        assert_clean(&first);
    }
}

fn first_difference(first: &Report, second: &Report) -> String {
    let mut lines = first.trace.lines().zip(second.trace.lines());
    lines.find(|(a, b)| a != b).map_or_else(|| "in length".to_owned(), |(a, b)| format!("{a}\n{b}"))
}

#[test]
fn nothing_is_lost_whatever_goes_wrong() {
    let mut acknowledged = 0;
    for seed in 1_000..1_240 {
        let report = run(&Plan::from_seed(seed));
        assert_clean(&report);
        acknowledged += report.requests.0;
    }
    assert!(acknowledged > 50_000, "only {acknowledged}: the clients hardly do anything");
}

#[test]
fn the_worst_of_everything_at_once() {
    for seed in 0..40 {
        let mut plan = Plan::from_seed(seed);
        plan.nodes = 3;
        plan.fault_gap_ms = 400;
        plan.faults = vec![
            Fault::Kill,
            Fault::KillDuringWrite,
            Fault::PowerLoss,
            Fault::PowerLossDuringWrite,
            Fault::Blackout,
            Fault::FailedSync,
            Fault::Isolate,
            Fault::OneWay,
            Fault::BreakLink,
            Fault::Pause,
        ];
        assert_clean(&run(&plan));
    }
}

#[test]
fn when_nothing_goes_wrong_nothing_is_in_doubt() {
    for (seed, nodes) in [(1, 1), (2, 3), (3, 3), (4, 1)] {
        let report = run(&Plan::calm(seed, nodes));
        assert_clean(&report);
        let (acknowledged, _, unknown) = report.requests;
        assert!(acknowledged > 50 && unknown == 0, "{:?}", report.requests);
    }
}

/// The first of some seeds under which a planted bug is found.
fn found_with(plant: Plant, faults: &[Fault]) -> (u64, Vec<String>) {
    for seed in 0..100 {
        let plan = Plan { nodes: 3, plant: Some(plant), faults: faults.to_vec(), ..Plan::from_seed(seed) };
        let report = run(&Plan { first_fault_ms: 2_500, chaos_ms: 10_000, fault_gap_ms: 1_000, ..plan });
        if !report.findings.is_empty() {
            return (seed, report.findings);
        }
    }
    panic!("{plant:?} was not found under a hundred seeds");
}

#[test]
fn a_skipped_sync_is_found() {
    found_with(Plant::SkipSync, &[Fault::Blackout, Fault::PowerLoss]);
}

#[test]
fn a_stale_read_is_found() {
    let (_, findings) = found_with(Plant::StaleRead, &[]);
    assert!(findings.iter().any(|finding| finding.contains("linearizable")), "{findings:?}");
}

#[test]
fn a_forgotten_vote_is_found() {
    let (_, findings) = found_with(Plant::ForgetVote, &[Fault::Kill, Fault::Isolate, Fault::BreakLink]);
    assert!(findings.iter().any(|finding| finding.contains("votes twice")), "{findings:?}");
}

#[test]
fn rows_lost_by_one_replica_are_found() {
    let (_, findings) = found_with(Plant::LoseRows, &[]);
    assert!(findings.iter().any(|finding| finding.contains("differ at")), "{findings:?}");
}

#[test]
fn a_killed_leader_is_replaced_within_a_second() {
    let (mut took_ms, report) = failovers(1, 60);
    assert_clean(&report);
    took_ms.sort_unstable();
    assert!(took_ms[..59].iter().all(|ms| *ms <= 1_000), "{took_ms:?}");
}
