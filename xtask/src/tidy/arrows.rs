//! Who may depend on whom: arrows point down only.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;

/// The crates from the bottom up. A crate may use those of lower layers; those of one layer do not know each
/// other.
const LAYERS: &[&[&str]] = &[
    &["ringfort-types"],
    &["ringfort-ring"],
    &["ringfort-storage"],
    &["ringfort-shard"],
    &["ringfort-consensus"],
    &["ringfort-node"],
    &["ringfort-proto", "ringfort-retry", "ringfort-tls", "ringfort-view"],
    &["ringfort-client"],
    &["ringfort-server", "ringfort-sim", "ringfort-instructions"],
    &["ringfort-cli", "example-rust", "ringfort-load"],
];

/// Tasks stand beside the tower and use none of it.
const BESIDE: &[&str] = &["xtask"];

/// Libraries that are the business of a few crates only, and why.
const RESERVED: &[(&str, &[&str], &str)] = &[
    ("tokio", SOCKETS, "everything below runs without threads and sockets"),
    ("tokio-stream", SOCKETS, "everything below runs without threads and sockets"),
    ("raft", &["ringfort-consensus"], "its types do not leave the crate that seals it"),
    ("lsm-tree", &["ringfort-storage"], "tables are reached through a trait"),
    (
        "getrandom",
        &["ringfort-retry", "ringfort-server", "ringfort-cli"],
        "randomness comes in from the driver",
    ),
    ("rustls", TLS, "files and certificates are read in one place"),
    ("tokio-rustls", TLS, "files and certificates are read in one place"),
    ("rand", &[], "randomness comes in from the driver"),
];

const SOCKETS: &[&str] =
    &["ringfort-server", "ringfort-client", "ringfort-tls", "ringfort-cli", "example-rust", "ringfort-load"];

const TLS: &[&str] = &["ringfort-tls", "ringfort-server"];

/// What cargo says about the workspace's own packages.
pub fn metadata(root: &Path) -> Result<Value> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output()
        .context("can't start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Findings in the metadata's packages and their direct dependencies of every kind.
pub fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for package in array(metadata, "packages")? {
        let name = text(package, "name")?;
        let mut found = |message: String| findings.push(Finding { place: name.to_owned(), message });
        if layer(name).is_none() && !BESIDE.contains(&name) {
            found("has no place in the order of crates: give it one in xtask/src/tidy/arrows.rs".to_owned());
        }
        for dependency in array(package, "dependencies")? {
            let used = text(dependency, "name")?;
            // A crate may use itself in its tests, with other features.
            if used == name {
                continue;
            }
            let points_down = match (layer(name), layer(used)) {
                (Some(above), Some(below)) => below < above,
                (None, Some(_)) => !BESIDE.contains(&name),
                (_, None) => !BESIDE.contains(&used),
            };
            if !points_down {
                found(format!("depends on {used}, but arrows between crates point down only"));
            }
            let reserved = RESERVED.iter().find(|(library, ..)| *library == used);
            if let Some((_, users, why)) = reserved
                && !users.contains(&name)
            {
                found(format!("depends on {used}, which {} may use: {why}", whom(users)));
            }
        }
    }
    Ok(findings)
}

fn layer(name: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&name))
}

fn whom(users: &[&str]) -> String {
    if users.is_empty() { "nobody".to_owned() } else { format!("only {}", users.join(", ")) }
}

fn array<'a>(value: &'a Value, field: &str) -> Result<&'a Vec<Value>> {
    value[field].as_array().with_context(|| format!("cargo metadata without {field}"))
}

fn text<'a>(value: &'a Value, field: &str) -> Result<&'a str> {
    value[field].as_str().with_context(|| format!("cargo metadata without {field}"))
}
