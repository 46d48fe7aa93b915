//! Commands of docker and docker-compose, each with a time limit and with its output kept for whoever has to find out why.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// For what the engine does by itself.
pub(super) const QUICK: Duration = Duration::from_mins(1);
/// For making images: a release build takes minutes, and much longer on a machine that is busy.
pub(super) const SLOW: Duration = Duration::from_mins(90);
/// `timeout`'s exit code where the time was over.
const LATE: i32 = 124;
/// How long a killed command may take to clean up.
const GRACE: &str = "--kill-after=20";
/// How often to look whether something is so.
const LOOK: Duration = Duration::from_millis(200);

/// Refuses to begin where it can't go well.
pub(super) fn check() -> Result<()> {
    docker(&["version"]).context("there is no docker engine to talk to")?;
    let compose = ok(compose_command().arg("version")).context("there is no docker-compose")?;
    println!("docker: {}", compose.lines().next().unwrap_or_default());
    Ok(())
}

/// A command under a time limit, by coreutils' `timeout`.
pub(super) fn limited(program: &str, limit: Duration) -> Command {
    let mut command = Command::new("timeout");
    command.args([GRACE, &limit.as_secs().to_string(), program]);
    command
}

/// `docker-compose` where it is installed, since the older one is what has to be tried; else docker's plugin.
pub(super) fn compose_command() -> Command {
    let old =
        Command::new("docker-compose").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if old.is_ok_and(|status| status.success()) {
        return Command::new("docker-compose");
    }
    let mut plugin = Command::new("docker");
    plugin.arg("compose");
    plugin
}

/// What `docker` prints, if it ends well and soon.
pub(super) fn docker(arguments: &[&str]) -> Result<String> {
    ok(limited("docker", QUICK).args(arguments))
}

/// Builds an image from a Dockerfile's text and a folder.
pub(super) fn build(tag: &str, dockerfile: &Path, folder: &Path) -> Result<()> {
    // With this machine's own network: an engine's containers need not have one that leads anywhere.
    let mut command = limited("docker", SLOW);
    command.args(["build", "--network", "host", "--tag", tag, "--file"]).arg(dockerfile).arg(folder);
    ok(&mut command).map(drop)
}

/// What a command prints, if it ends well.
pub(super) fn ok(command: &mut Command) -> Result<String> {
    let output = run(command)?;
    if !output.status.success() {
        let how = match output.status.code() {
            Some(LATE) => "did not end in time".to_owned(),
            _ => format!("ended with {}", output.status),
        };
        bail!("{command:?} {how}:\n{}", last_lines(&output));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a command to its end, without input.
pub(super) fn run(command: &mut Command) -> Result<Output> {
    command.stdin(Stdio::null()).output().with_context(|| format!("can't run {command:?}"))
}

fn last_lines(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

/// Tries until it is so.
pub(super) fn eventually(what: &str, limit: Duration, mut so: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !so()? {
        if begun.elapsed() > limit {
            bail!("not within {} s: {what}", limit.as_secs());
        }
        std::thread::sleep(LOOK);
    }
    Ok(())
}
