//! `cargo xtask sim`: `--seed N` prints a run's trace, `--seeds A..B` runs many and prints what was found,
//! `--failovers N` kills a leader so many times and prints how long its shard took no writes.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;

use ringfort_sim::{Plan, failovers, run};

const USAGE: &str = "usage: cargo xtask sim --seed N | --seeds A..B | --failovers N";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["--seed", seed] => match seed.parse() {
            Ok(seed) => one(seed),
            Err(_) => usage(),
        },
        ["--seeds", range] => match parse_range(range) {
            Some(range) => many(range),
            None => usage(),
        },
        ["--failovers", kills] => match kills.parse() {
            Ok(kills) => fail_over(kills),
            Err(_) => usage(),
        },
        _ => usage(),
    }
}

/// A leader killed again and again: how long its shard takes no writes.
fn fail_over(kills: usize) -> ExitCode {
    let (mut took_ms, report) = failovers(1, kills);

    took_ms.sort_unstable();
    let at =
        |percent: usize| took_ms.get((took_ms.len() * percent / 100).min(took_ms.len().saturating_sub(1)));
    println!(
        "{} kills: p50 {:?} ms, p99 {:?} ms, max {:?} ms",
        took_ms.len(),
        at(50),
        at(99),
        took_ms.last()
    );
    for finding in &report.findings {
        println!("    {finding}");
    }
    if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}

fn parse_range(text: &str) -> Option<Range<u64>> {
    let (from, to) = text.split_once("..")?;
    Some(from.parse().ok()?..to.parse().ok()?)
}

fn one(seed: u64) -> ExitCode {
    let report = run(&Plan::from_seed(seed));
    // Whoever reads only the beginning of a trace does no wrong.
    let _ = std::io::stdout().write_all(report.trace.as_bytes());
    for finding in &report.findings {
        println!("seed {seed} {finding}");
    }
    if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(seeds: Range<u64>) -> ExitCode {
    let mut bad = Vec::new();
    for seed in seeds {
        let report = run(&Plan::from_seed(seed));
        let (acknowledged, rejected, unknown) = report.requests;
        println!(
            "seed {seed}: {acknowledged} acknowledged, {rejected} rejected, {unknown} unknown; writable {} ms after \
             healing; {} findings",
            report.healed_ms,
            report.findings.len()
        );
        for finding in &report.findings {
            println!("    {finding}");
        }
        if !report.findings.is_empty() {
            bad.push(seed);
        }
    }
    if bad.is_empty() {
        return ExitCode::SUCCESS;
    }
    println!("findings in seeds {bad:?}; `cargo xtask sim --seed N` prints what happened");
    ExitCode::FAILURE
}
