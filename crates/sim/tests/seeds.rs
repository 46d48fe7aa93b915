//! Some seeds of each kind, some of them twice. `.ci/run` runs many more, in a faster build.

use ringfort_sim::{Fault, Plan, Report, Times, failovers, run, run_many, shrink};

fn assert_clean(report: &Report) {
    let seed = report.seed;
    let findings: Vec<String> = report.findings.iter().map(ToString::to_string).collect();
    assert!(findings.is_empty(), "seed {seed}, as this test draws its plan\n{}", findings.join("\n"));
}

/// Whoever else is busy: the second run of each seed has other neighbours.
#[test]
fn each_seed_gives_the_same_trace_every_time() {
    let alone: Vec<u64> = (0..6).map(|seed| run(&Plan::from_seed(seed)).hash).collect();
    let tally = run_many(0..6, &Plan::from_seed, 3, Times::Twice, &|report| {
        assert_eq!(report.hash, alone[report.seed as usize], "seed {}", report.seed);
    });
    assert_eq!((tally.runs, tally.unequal), (12, Vec::new()));
}

#[test]
fn a_trace_that_is_kept_is_the_same_history() {
    let plan = Plan::from_seed(4);
    let (silent, told) = (run(&plan), run(&Plan { keeps_trace: true, ..plan }));
    assert_eq!(silent.hash, told.hash);
    assert!(silent.trace.is_empty());
    for line in
        ["seed 4: ", "planned: Strike", "n1 starts, boot 1", "asks n", "is durable", "everything heals"]
    {
        assert!(told.trace.contains(line), "there is no {line:?} in the trace");
    }
}

#[test]
fn nothing_is_lost_whatever_goes_wrong() {
    let mut acknowledged = 0;
    for seed in 1_000..1_020 {
        let report = run(&Plan::from_seed(seed));
        assert_clean(&report);
        assert!(report.lived_ms >= 60_000, "{}", report.lived_ms);
        acknowledged += report.requests.0;
    }
    assert!(acknowledged > 20_000, "only {acknowledged}: the clients hardly do anything");
}

#[test]
fn the_worst_of_everything_at_once() {
    let faults = [
        Fault::Kill,
        Fault::KillDuringWrite,
        Fault::PowerLoss,
        Fault::PowerLossDuringWrite,
        Fault::Blackout,
        Fault::FailedSync,
        Fault::DiskFull,
        Fault::DiskHangs,
        Fault::DiskSlow,
        Fault::Isolate,
        Fault::OneWay,
        Fault::ReorderFrames,
        Fault::Pause,
    ];
    for seed in 0..8 {
        let mut plan = Plan { nodes: 3, shards: 8, ..Plan::from_seed(seed) };
        plan.schedule(&faults, 100, 300);
        assert_clean(&run(&plan));
    }
}

#[test]
fn when_nothing_goes_wrong_nothing_is_in_doubt() {
    for (seed, nodes) in [(1, 1), (2, 3), (3, 3), (4, 1)] {
        let report = run(&Plan::calm(seed, nodes));
        assert_clean(&report);
        let (acknowledged, _, unknown) = report.requests;
        assert!(acknowledged > 50 && unknown == 0, "seed {seed}: {:?}", report.requests);
    }
}

#[test]
fn a_killed_leader_is_replaced_within_a_second() {
    let (mut took_ms, report) = failovers(1, 60);
    assert_clean(&report);
    took_ms.sort_unstable();
    assert!(took_ms[..59].iter().all(|ms| *ms <= 1_000), "{took_ms:?}");
}

/// A schedule without its strikes is a run without faults, and a finding that needs none is shrunk to none.
#[cfg(debug_assertions)]
#[test]
fn a_finding_is_shrunk_to_what_it_needs() {
    use ringfort_types::planted::Bug;

    let plan = Plan { plant: Some(Bug::AckBeforeSync), ..Plan::from_seed(0) };
    assert!(plan.strikes.len() > 5);
    let finding = run(&plan).findings.remove(0);
    let (smallest, found) = shrink(&plan, &finding);
    assert_eq!((smallest.strikes.len(), found.invariant), (0, finding.invariant));

    let plan = Plan { plant: Some(Bug::TableNotReplayed), ..Plan::from_seed(0) };
    let finding = run(&plan).findings.remove(0);
    let (smallest, found) = shrink(&plan, &finding);
    assert_eq!(found.invariant, finding.invariant);
    let numbers: Vec<usize> = smallest.strikes.iter().map(|strike| strike.number).collect();
    assert_eq!(numbers.len(), 1, "one crash is enough: {:?}", smallest.strikes);
    assert!(run(&plan.keeping(&numbers)).findings.contains(&found));
    assert_clean(&run(&Plan { plant: None, ..plan }.keeping(&numbers)));
}

/// `cargo xtask sim --chain` makes longer ones.
#[test]
fn a_chain_of_changes_leaves_three_copies_of_everything_and_nothing_else() {
    let report = run(&Plan::chain(1, 12));
    assert_clean(&report);
    assert!(report.epochs > 6, "{} epochs", report.epochs);
}

/// The plan of a seed in which members move, without the ambushes that came later.
fn unswapped(seed: u64) -> Plan {
    let mut plan = Plan::from_seed(seed);
    let swaps = [Fault::Benight, Fault::Retire, Fault::Misinform, Fault::Antedate];
    plan.strikes.retain(|strike| !swaps.contains(&strike.fault));
    plan
}

/// Seeds that have found something once.
#[test]
fn what_was_found_once_is_not_found_again() {
    // What a learner was to reach was from an earlier leadership.
    assert_clean(&run(&Plan::before_moves(179_599_100_180_525)));
    // A node was taken away for good while another one's damaged disk was not in its place.
    assert_clean(&run(&Plan::before_moves(179_599_100_180_704)));
    // The only replica of a shard was to go, and to come back before it had gone.
    assert_clean(&run(&Plan::before_moves(179_599_486_010_340)));
    // The judges': an acknowledgement on its way from a disk that was put back meanwhile; a level whose first node was gone.
    assert_clean(&run(&Plan::before_moves(179_600_413_010_126)));
    assert_clean(&run(&Plan::before_moves(179_600_413_010_066)));
    // The judges': a disk that was put back, and whose node decided alone then, went on by itself until it was told.
    assert_clean(&run(&Plan::before_moves(37)));
    // Of two that changed places one refused the other, since the layout had not been changed for a while.
    assert_clean(&run(&unswapped(179_602_877_200_127)));
    // Of two that changed places one did not take it that the other one can be where it was itself.
    assert_clean(&run(&Plan::from_seed(179_603_462_590_083)));
    assert_clean(&run(&Plan::from_seed(179_603_462_590_150)));
    // The simulator's: who moved was not told where one was that had come back to its first address.
    assert_clean(&run(&Plan::from_seed(179_603_324_780_929)));
    // The judges': of two writes in doubt, reads that were under way together saw the later one first.
    assert_clean(&run(&Plan::from_seed(179_603_462_590_213)));
    // The judges': a disk that had hung let go of an old election while a leader was to hand over.
    assert_clean(&run(&Plan::from_seed(179_604_164_041_737)));
    // Where a member was heard to be, late, was not forgotten.
    assert_clean(&run(&Plan::from_seed(179_604_497_530_946)));
    // A member was not looked for where it said it was, since another one, gone for good, had the address.
    assert_clean(&run(&Plan::from_seed(179_604_497_531_987)));
    // A shard was to go back to nodes whose replicas its group had not given up yet, as other peers.
    assert_clean(&run(&Plan::from_seed(179_605_359_340_351)));
    // Of a group that was to have other replicas on its own nodes, one that was there was to go first, and not the one that was missed.
    assert_clean(&run(&Plan::from_seed(179_605_871_261_061)));
    // Of two of a node's own requests that waited for copies one never heard what came of it.
    assert_clean(&run(&Plan::from_seed(179_607_098_640_721)));
    // A group went into a joint configuration with a voter that was behind, and was found to be damaged before it had caught up.
    assert_clean(&run(&Plan::from_seed(179_607_914_030_540)));
    // The judges': a disk that was put back, and whose node decided alone then, showed itself as leader until it was told.
    assert_clean(&run(&Plan::from_seed(179_608_013_650_208)));
    // A replica that had a change of its group in its log, never committed, and was removed since, did not believe it.
    assert_clean(&run(&Plan::from_seed(179_608_053_490_211)));
    // A node that was about to end went on reporting, and did not say any more that it was elsewhere.
    assert_clean(&run(&Plan::from_seed(179_605_454_781_503)));
    // The simulator's: a slow process with a slow disk took twelve seconds for a sync, and did not notice.
    assert_clean(&run(&Plan::from_seed(179_604_497_530_970)));
    // The judges': a write that was done for a guest was told again once they had gone.
    assert_clean(&run(&Plan::from_seed(179_609_736_810_006)));
    // The judges': who was asked to stop while it stood still had less time to.
    let few = [2, 4, 7, 12, 16, 17, 18, 20, 24, 25, 26, 27, 28, 29, 30];
    assert_clean(&run(&Plan::from_seed(179_608_211_391_635).keeping(&few)));
    // A damaged replica was not made anew as long as another node's disk was too slow for a leader's.
    assert_clean(&run(&Plan::before_moves(179_603_324_780_426)));
    // A leader that was forgotten where it had been reported was not told again, since nothing about it had changed.
    assert_clean(&run(&Plan::before_moves(179_602_135_410_031)));
}
