//! What neither the compiler nor clippy checks.
//!
//! [`arrows`] looks at which crates depend on which, [`circles`] at the files of a crate, [`sources`] at every file, [`dependencies`] at what others have written, [`planted`] and [`scripts`] at what tests are made
//! of. Each rule says why in its finding, because
//! whoever meets it does so at the moment of breaking it. Rules that clippy can check are in the pure crates'
//! `clippy.toml`; [`bans`] sees to it that they all have the same one.

pub mod arrows;
pub mod bans;
pub mod circles;
pub mod dependencies;
pub mod planted;
pub mod scripts;
pub mod sources;

use std::fmt;
use std::path::Path;

use anyhow::Result;

/// One broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// File (relative to the workspace) and line, or crate.
    pub place: String,
    /// What is wrong, and why it matters.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// All findings in the workspace at `root`.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let metadata = arrows::metadata(root)?;
    let mut findings = arrows::check(&metadata)?;
    findings.extend(planted::check(&metadata)?);
    findings.extend(scripts::check(root)?);
    findings.extend(sources::check(root)?);
    findings.extend(bans::check(root)?);
    findings.extend(circles::check(root)?);
    findings.extend(dependencies::check(root)?);
    findings.sort();
    Ok(findings)
}
