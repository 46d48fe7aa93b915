//! Bugs on purpose stay where they belong: only the simulator may switch on the feature that compiles them, and no
//! crate has it on by default. A release build leaves them out a second time, by its lack of debug assertions
//! (`ringfort-types`'s `planted`).

use anyhow::{Context, Result};
use serde_json::Value;

use super::Finding;

/// The feature, and who may use it.
const FEATURE: &str = "planted";
const SIMULATOR: &str = "ringfort-sim";

/// Findings in the metadata's packages: dependencies that switch it on, and features that imply it.
pub fn check(metadata: &Value) -> Result<Vec<Finding>> {
    let packages = metadata["packages"].as_array().context("no `packages` in cargo's metadata")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("no `name` in cargo's metadata")?;
        let mut found = |message: String| findings.push(Finding { place: name.to_owned(), message });
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let switched_on = texts(&dependency["features"]).any(|feature| feature == FEATURE);
            if switched_on && !(name == SIMULATOR && dependency["kind"] == "dev") {
                let used = dependency["name"].as_str().unwrap_or_default();
                found(format!("depends on {used} with bugs on purpose, which only {SIMULATOR}'s tests may"));
            }
        }
        for (feature, implied) in package["features"].as_object().into_iter().flatten() {
            let implies = texts(implied).any(|other| other == FEATURE || other.ends_with("/planted"));
            if implies && !(name == SIMULATOR && feature == FEATURE) {
                found(format!(
                    "its feature `{feature}` switches on bugs on purpose, which only {SIMULATOR} may"
                ));
            }
        }
    }
    Ok(findings)
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}
