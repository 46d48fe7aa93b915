//! Every golden script is run: a `.script` that no test names would be believed and prove nothing.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// Findings about `crates/*/tests/scripts/*.script` under `root`.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in names(&root.join("crates"))? {
        let tests = root.join("crates").join(&name).join("tests");
        let scripts = tests.join("scripts");
        if !scripts.is_dir() {
            continue;
        }
        let mut sources = String::new();
        read_sources(&tests, &mut sources)?;
        for script in names(&scripts)? {
            let stem = script.strip_suffix(".script").unwrap_or(&script);
            if !sources.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == stem) {
                findings.push(Finding {
                    place: format!("crates/{name}/tests/scripts/{script}"),
                    message: "is run by no test: name it where the crate's other scripts are named"
                        .to_owned(),
                });
            }
        }
    }
    Ok(findings)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

fn read_sources(folder: &Path, out: &mut String) -> Result<()> {
    for name in names(folder)? {
        let path = folder.join(&name);
        if path.is_dir() {
            read_sources(&path, out)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            *out += &fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        }
    }
    Ok(())
}
