//! `cargo xtask docker`: the Dockerfile, the compose file and its profile with `HAProxy` and Prometheus as a user runs them, with TLS and
//! without, with nodes stopped, killed, hung and cut off meanwhile.
//!
//! Needs a docker engine, docker-compose 1.29 or later, Python 3, and, for base images that are not there and can't be pulled
//! ([`images`]), root and debootstrap. [`engine`] runs commands, [`cluster`] is the compose project and its clients,
//! [`story`] is what is tried. Everything has a time limit, and containers, networks, volumes and built images are removed
//! however it ends; base images stay, since they are what takes long.

mod cluster;
mod engine;
mod feed;
mod images;
mod story;

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};

use cluster::Cluster;

const USAGE: &str = "usage: cargo xtask docker [--keep]\n\n  --keep  leave the built images, so that the next run builds on them";

/// Runs all of it.
pub fn run(root: &Path, arguments: &[String]) -> Result<()> {
    let keep = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => false,
        ["--keep"] => true,
        _ => bail!("{USAGE}"),
    };
    let begun = Instant::now();
    engine::check()?;
    images::make_missing(root)?;
    let cluster = Cluster::new(root, keep)?;
    story::tell(&cluster)?;
    drop(cluster);
    println!("docker: all of it in {} s", begun.elapsed().as_secs());
    Ok(())
}

/// Does one thing, and says how long it took.
fn step<T>(what: &str, does: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("docker: {what}");
    let begun = Instant::now();
    let done = does();
    let outcome = if done.is_ok() { "done" } else { "FAILED" };
    println!("docker:   {outcome} after {:.1} s", begun.elapsed().as_secs_f64());
    done
}
