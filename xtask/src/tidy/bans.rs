//! The pure crates have one clippy configuration: the workspace's, and bans on clocks, threads, files, sockets,
//! the environment and unordered maps.
//!
//! Clippy reads the first `clippy.toml` that it finds from the crate's directory upwards, and no other, so each
//! pure crate needs the whole. That they stay the same is checked here.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// Crates that are functions of their input.
pub const PURE: &[&str] = &["types", "ring", "shard", "consensus", "node"];

/// Findings about the configurations under `root`.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let common = fs::read_to_string(root.join("clippy.toml")).context("can't read clippy.toml")?;
    let mut findings = Vec::new();
    let mut first: Option<String> = None;
    for name in PURE {
        let place = format!("crates/{name}/clippy.toml");
        let mut found =
            |message: &str| findings.push(Finding { place: place.clone(), message: message.into() });
        let Ok(text) = fs::read_to_string(root.join(&place)) else {
            found("is missing: a pure crate bans clocks, threads, files and unordered maps");
            continue;
        };
        if !common.lines().all(|line| text.lines().any(|own| own == line)) {
            found(
                "lacks something of the workspace's clippy.toml, which clippy does not read for this crate",
            );
        }
        if first.get_or_insert_with(|| text.clone()) != &text {
            found("differs from that of the other pure crates: they are to be the same");
        }
    }
    Ok(findings)
}
