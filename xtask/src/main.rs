//! Development tasks: `cargo xtask <task>`.
//!
//! One entry for everything that is done to the project rather than by it. A task is a function of its
//! arguments that returns an error for people; adding one is adding a line to [`TASKS`].

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use xtask::{docker, instructions, tidy, upgrade};

/// A task's name, what it does, and how.
type Task = (&'static str, &'static str, fn(&[String]) -> Result<()>);

const TASKS: &[Task] = &[
    ("tidy", "check what neither the compiler nor clippy checks: crate arrows, file rules", run_tidy),
    ("sim", "run simulated clusters: --seed N, --seeds A..B, --plants, …; --help says all", run_sim),
    (
        "instructions",
        "count what a node spends on a put and a get, and compare; --update writes it down; needs valgrind",
        run_instructions,
    ),
    ("docker", "containers as a user runs them: build, faults, load balancer; needs docker", run_docker),
    (
        "upgrade",
        "run another commit's binary, [COMMIT] or the one before, and this one in one cluster",
        run_upgrade,
    ),
    ("fixture", "make data directories of the present level, for later versions to read", run_fixture),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let name = args.next().unwrap_or_default();
    let rest: Vec<String> = args.collect();
    let Some((_, _, task)) = TASKS.iter().find(|(known, ..)| *known == name) else {
        eprintln!("usage: cargo xtask <task> [arguments]\n\ntasks:");
        for (name, what, _) in TASKS {
            eprintln!("  {name:12} {what}");
        }
        return ExitCode::from(2);
    };
    match task(&rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo xtask {name}: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_tidy(args: &[String]) -> Result<()> {
    if let Some(extra) = args.first() {
        bail!("unexpected argument {extra}: tidy takes none");
    }
    let findings = tidy::check(&root())?;
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        count => bail!("{count} findings"),
    }
}

/// The simulator is a program of its own, so that `tidy` need not wait for the whole workspace to compile.
fn run_sim(args: &[String]) -> Result<()> {
    let status = Command::new(env!("CARGO"))
        .args([
            "run",
            "--quiet",
            "--profile",
            "sim",
            "--package",
            "ringfort-sim",
            "--features",
            "planted",
            "--",
        ])
        .args(args)
        .current_dir(root())
        .status()
        .context("can't start cargo")?;
    match status.code() {
        Some(0) => Ok(()),
        Some(1) => bail!("the simulation found something (see above)"),
        _ => bail!("the simulation did not run (see above)"),
    }
}

fn run_instructions(args: &[String]) -> Result<()> {
    instructions::run(&root(), args)
}

fn run_docker(args: &[String]) -> Result<()> {
    docker::run(&root(), args)
}

fn run_upgrade(args: &[String]) -> Result<()> {
    upgrade::run(&root(), args)
}

fn run_fixture(args: &[String]) -> Result<()> {
    upgrade::fixture(&root(), args)
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the workspace").to_owned()
}
