//! `cargo xtask sim`: one run, or many, or a look at the simulator itself.

use std::fmt::Write as _;
use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ringfort_sim::{Finding, Plan, Report, Tally, Times, failovers, find_planted, run, run_many, shrink};
use ringfort_types::planted::{Bug, is_possible};

const USAGE: &str = "\
usage: cargo xtask sim --seed N [--trace] [--keep STRIKES] [--plant BUG]
       cargo xtask sim --seeds A..B [--twice] [--cores N]
       cargo xtask sim --fresh COUNT [--cores N]
       cargo xtask sim --plants [SEEDS] [--plant BUG] [--shrink]
       cargo xtask sim --failovers KILLS
       cargo xtask sim --chain CHANGES --seed N|--seeds A..B|--fresh COUNT

--seed        one run of 60 simulated seconds: its plan, what came of it, the hash of everything that happened
  --trace     every event of it instead, line by line
  --keep      with these strikes of its schedule only, as in 3,17; `none` for none
  --plant     with this bug put in on purpose
--seeds       many runs on all cores; a finding is shrunk to the few strikes that it needs
  --twice     each seed twice: the hashes must be equal
--fresh       so many seeds that nobody has run yet (they are printed)
--plants      each planted bug, or this one, and how many seeds (200) it takes to find it
  --shrink    with the few strikes that the finding needs, which takes a hundred runs for each
--chain       of three nodes whose cluster changes its shape so many times in a row: hosts join, members leave, are drained,
              killed, and lost and replaced; nothing else goes wrong, and clients go on
--failovers   kills a leader so many times, and prints how long its shard took no writes

exit code: 0 nothing found, 1 something found, 2 wrong usage";

/// Findings that are shrunk; more would only take time.
const SHRUNK_MAX: usize = 3;
/// Seeds that a planted bug may take.
const PLANT_SEEDS: u64 = 200;

/// What was asked for.
#[derive(Default)]
struct Options {
    seed: Option<u64>,
    seeds: Option<Range<u64>>,
    fresh: Option<u64>,
    failovers: Option<usize>,
    plants: Option<u64>,
    keep: Option<Vec<usize>>,
    plant: Option<Bug>,
    cores: Option<usize>,
    chain: Option<usize>,
    trace: bool,
    twice: bool,
    shrink: bool,
}

impl Options {
    fn plan(&self, seed: u64) -> Plan {
        let alone = || Plan::from_seed(seed);
        self.chain.map_or_else(alone, |changes| Plan::chain(seed, changes))
    }
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let options = match parse(&args) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("{error}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // Whoever reads only the beginning of what is printed does no wrong, so panics on a closed pipe are not wanted, nor
    // are the backtraces of those that a run turns into findings.
    std::panic::set_hook(Box::new(|_| {}));
    let cores = options
        .cores
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    let times = if options.twice { Times::Twice } else { Times::Once };
    let clean = match &options {
        Options { seed: Some(seed), .. } => one(*seed, &options),
        Options { seeds: Some(seeds), .. } => many(seeds.clone(), &options, cores, times),
        Options { fresh: Some(count), .. } => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // A tenth of a second each, so that two who begin at different times have different ones.
            let from = now.as_millis() as u64 / 100 * 10_000;
            many(from..from + count, &options, cores, times)
        }
        Options { plants: Some(seeds), .. } => plants(*seeds, options.plant, options.shrink),
        Options { failovers: Some(kills), .. } => fail_over(*kills),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    if clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(args: &[String]) -> Result<Options, String> {
    let mut options = Options::default();
    let mut args = args.iter().peekable();
    while let Some(arg) = args.next() {
        let mut value = |what: &str| args.next().ok_or_else(|| format!("{arg} needs {what}"));
        match arg.as_str() {
            "--seed" => options.seed = Some(number(value("a number")?)?),
            "--seeds" => {
                let text = value("a range, as in 0..100")?;
                let bounds = text
                    .split_once("..")
                    .ok_or_else(|| format!("{text} is no range: give one as in 0..100"))?;
                options.seeds = Some(number(bounds.0)?..number(bounds.1)?);
            }
            "--fresh" => options.fresh = Some(number(value("a number")?)?),
            "--failovers" => options.failovers = Some(number(value("a number")?)? as usize),
            "--chain" => options.chain = Some(number(value("a number")?)? as usize),
            "--cores" => options.cores = Some(number(value("a number")?)? as usize),
            "--keep" => {
                let text = value("strikes, as in 3,17")?;
                let numbers = text.split(',').filter(|part| *part != "none");
                let numbers: Result<Vec<u64>, String> = numbers.map(number).collect();
                options.keep = Some(numbers?.into_iter().map(|number| number as usize).collect());
            }
            "--plant" => options.plant = Some(value("a bug")?.parse()?),
            "--plants" => {
                let seeds = args.next_if(|next| !next.starts_with("--"));
                options.plants = Some(seeds.map_or(Ok(PLANT_SEEDS), |text| number(text))?);
            }
            "--trace" => options.trace = true,
            "--twice" => options.twice = true,
            "--shrink" => options.shrink = true,
            "--help" | "-h" => return Err("the simulator".to_owned()),
            other => return Err(format!("there is no {other}")),
        }
    }
    if options.plant.is_some() && options.seed.is_none() && options.plants.is_none() {
        return Err("a bug is planted in one --seed, or looked for with --plants".to_owned());
    }
    if (options.plant.is_some() || options.plants.is_some()) && !is_possible() {
        return Err(
            "this build has no planted bugs: use `cargo xtask sim`, which makes one that has".to_owned()
        );
    }
    Ok(options)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is no number"))
}

fn print(text: &str) {
    // Whoever has stopped reading does no wrong.
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

fn one(seed: u64, options: &Options) -> bool {
    let mut plan = options.plan(seed);
    if let Some(keep) = &options.keep {
        plan = plan.keeping(keep);
    }
    plan.plant = options.plant;
    plan.keeps_trace = options.trace;
    let report = run(&plan);
    if options.trace {
        print(&report.trace);
    } else {
        let mut text = String::new();
        for strike in &plan.strikes {
            let _ = writeln!(
                text,
                "strike {:>3} at {:>5} ms: {:?}, n{} (n{}), {} ms",
                strike.number,
                strike.at_ms,
                strike.fault,
                strike.host + 1,
                strike.other + 1,
                strike.for_ms
            );
        }
        print(&text);
    }
    let (acknowledged, rejected, unknown) = report.requests;
    print(&format!(
        "seed {seed}: {} nodes, {} shards, {} epochs; {acknowledged} acknowledged, {rejected} rejected, {unknown} unknown; writable {} ms \
         after the healing; hash {:016x}\n",
        plan.nodes, plan.shards, report.epochs, report.healed_ms, report.hash
    ));
    for finding in &report.findings {
        print(&format!("seed {seed} {finding}\n"));
    }
    report.findings.is_empty()
}

fn many(seeds: Range<u64>, options: &Options, cores: usize, times: Times) -> bool {
    print(&format!("seeds {}..{} on {cores} cores\n", seeds.start, seeds.end));
    let began = Instant::now();
    let tally = run_many(seeds, &|seed| options.plan(seed), cores, times, &|report: &Report| {
        for finding in report.findings.iter().take(3) {
            print(&format!("seed {}: {finding}\n", report.seed));
        }
    });
    sum_up(&tally, began.elapsed().as_secs_f64(), cores);
    for (plan, finding) in tally.bad.iter().take(SHRUNK_MAX) {
        show_smallest(plan, finding, options.chain);
    }
    for seed in &tally.unequal {
        print(&format!("seed {seed}: two runs of it differ\n"));
    }
    tally.bad.is_empty() && tally.unequal.is_empty()
}

fn sum_up(tally: &Tally, took_s: f64, cores: usize) {
    let hours = tally.lived_ms as f64 / 3_600_000.0;
    let speed = hours * 3_600.0 / took_s;
    let (acknowledged, rejected, unknown) = tally.requests;
    print(&format!(
        "{} runs, {hours:.1} simulated hours in {took_s:.1} s: {:.2} seeds/s, {:.3} simulated hours/s, {speed:.0} × life, {:.0} \
         × on each core\n{acknowledged} requests acknowledged, {rejected} rejected, {unknown} unknown; writable at most {} ms \
         after the healing; findings in {} seeds\n",
        tally.runs,
        tally.runs as f64 / took_s,
        hours / took_s,
        speed / cores as f64,
        tally.healed_ms_max,
        tally.bad.len()
    ));
}

fn show_smallest(plan: &Plan, finding: &Finding, chain: Option<usize>) {
    let (smallest, finding) = shrink(plan, finding);
    let seed = plan.seed;
    print(&format!("\nseed {seed}: {}\n  {finding}\n", finding.invariant));
    print(&format!("  {} of {} strikes are enough:\n", smallest.strikes.len(), plan.strikes.len()));
    for strike in &smallest.strikes {
        let (host, other) = (strike.host + 1, strike.other + 1);
        let (number, at_ms, for_ms) = (strike.number, strike.at_ms, strike.for_ms);
        print(&format!(
            "    {number:>3} at {at_ms:>5} ms: {:?}, n{host} (n{other}), {for_ms} ms\n",
            strike.fault
        ));
    }
    print(&format!("  cargo xtask sim --seed {seed} --keep {}", keep(&smallest)));
    print(&chain.map_or(String::new(), |changes| format!(" --chain {changes}")));
    print(&smallest.plant.map_or(String::new(), |bug| format!(" --plant {bug}")));
    print(" --trace\n");
}

fn keep(plan: &Plan) -> String {
    let numbers: Vec<String> = plan.strikes.iter().map(|strike| strike.number.to_string()).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(",") }
}

/// Each planted bug, or one: how many seeds it took, and what found it.
fn plants(seeds_max: u64, one: Option<Bug>, shrinks: bool) -> bool {
    print("| planted bug | seeds | found by | at | to see it |\n|---|---|---|---|---|\n");
    let mut all = true;
    for bug in Bug::ALL.iter().filter(|bug| one.is_none_or(|one| one == **bug)) {
        let Some(found) = find_planted(*bug, seeds_max) else {
            all = false;
            print(&format!("| `{bug}` | **not found in {seeds_max}** | | | |\n"));
            continue;
        };
        let seed = found.plan.seed;
        let (finding, kept) = if shrinks {
            let (smallest, finding) = shrink(&found.plan, &found.finding);
            (finding, format!("--keep {} ", keep(&smallest)))
        } else {
            (found.finding, String::new())
        };
        print(&format!(
            "| `{bug}` | {} | {} | {} ms | `--seed {seed} {kept}--plant {bug}` |\n",
            found.seeds, finding.invariant, finding.at_ms,
        ));
    }
    all
}

/// A leader killed again and again: how long its shard takes no writes.
fn fail_over(kills: usize) -> bool {
    let (mut took_ms, report) = failovers(1, kills);

    took_ms.sort_unstable();
    let at =
        |percent: usize| took_ms.get((took_ms.len() * percent / 100).min(took_ms.len().saturating_sub(1)));
    print(&format!(
        "{} kills: p50 {:?} ms, p99 {:?} ms, max {:?} ms\n",
        took_ms.len(),
        at(50),
        at(99),
        took_ms.last()
    ));
    for finding in &report.findings {
        print(&format!("    {finding}\n"));
    }
    report.findings.is_empty()
}
