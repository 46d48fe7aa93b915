//! What others have written, and comes along: licences, sources and banned crates, by deny.toml's lists.
//!
//! `cargo deny check` looks at more (advisories, versions, other platforms), and needs its own download. This needs nothing but cargo, so
//! nobody brings in a licence without noticing. It looks at what is built on this platform, the tests' own dependencies among it.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use toml::Table;

use super::Finding;

/// Deepest parentheses of a licence.
const DEPTH_MAX: usize = 8;

/// Findings about what the workspace at `root` depends on.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let deny = fs::read_to_string(root.join("deny.toml")).context("can't read deny.toml")?;
    judge(&deny, &metadata(root)?)
}

/// What cargo says about all packages that are built here.
fn metadata(root: &Path) -> Result<Value> {
    let rustc = Command::new("rustc").arg("-vV").output().context("can't start rustc")?;
    let version = String::from_utf8_lossy(&rustc.stdout).into_owned();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", host])
        .current_dir(root)
        .output()
        .context("can't start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Findings in the metadata's packages, by this deny.toml.
pub fn judge(deny: &str, metadata: &Value) -> Result<Vec<Finding>> {
    let rules = Rules::read(deny)?;
    let packages = metadata["packages"].as_array().context("no `packages` in cargo's metadata")?;
    let mut findings = Vec::new();
    for package in packages {
        let name = package["name"].as_str().context("no `name` in cargo's metadata")?;
        let mut found = |message: String| findings.push(Finding { place: name.to_owned(), message });
        if let Some((_, why)) = rules.banned.iter().find(|(banned, _)| banned == name) {
            found(format!("is banned by deny.toml: {why}"));
        }
        match package["license"].as_str() {
            None => found("names no licence: what it may be used for is not known".to_owned()),
            Some(licence) => match rules.allows(licence) {
                Ok(true) => {}
                Ok(false) => found(format!(
                    "has the licence {licence}, which deny.toml does not allow: use another crate, or allow it there with its reason"
                )),
                Err(why) => found(format!("has a licence that can't be read, {licence:?}: {why}")),
            },
        }
        match package["source"].as_str() {
            // It is ours.
            None => {
                for dependency in package["dependencies"].as_array().into_iter().flatten() {
                    if dependency["req"] == "*" && dependency["path"].is_null() {
                        let used = dependency["name"].as_str().unwrap_or_default();
                        found(format!("takes any version of {used}: say which"));
                    }
                }
            }
            Some(source) => {
                let registry = source.strip_prefix("registry+");
                if !registry
                    .is_some_and(|registry| rules.registries.iter().any(|allowed| allowed == registry))
                {
                    found(format!("comes from {source}, and not from a registry that deny.toml allows"));
                }
            }
        }
    }
    Ok(findings)
}

/// What deny.toml says.
struct Rules {
    licences: Vec<String>,
    /// With the reason.
    banned: Vec<(String, String)>,
    registries: Vec<String>,
}

impl Rules {
    fn read(deny: &str) -> Result<Rules> {
        let all: Table = deny.parse().context("deny.toml is no TOML")?;
        let list = |section: &str, field: &str| {
            let list =
                all.get(section).and_then(|section| section.get(field)).and_then(toml::Value::as_array);
            list.with_context(|| format!("deny.toml has no list `{field}` in [{section}]"))
        };
        let texts = |section: &str, field: &str| -> Result<Vec<String>> {
            let texts = list(section, field)?.iter().map(|text| text.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().with_context(|| format!("`{field}` in [{section}] has no texts"))
        };
        let banned = list("bans", "deny")?.iter().map(|ban| {
            let text = |field: &str| ban.get(field).and_then(toml::Value::as_str).map(str::to_owned);
            let name = text("crate").context("a ban in deny.toml has no `crate`")?;
            let why = text("reason").with_context(|| format!("the ban of {name} has no `reason`"))?;
            Ok((name, why))
        });
        Ok(Rules {
            licences: texts("licenses", "allow")?,
            banned: banned.collect::<Result<_>>()?,
            registries: texts("sources", "allow-registry")?,
        })
    }

    /// Whether one may do so with what is allowed.
    fn allows(&self, licence: &str) -> Result<bool> {
        let spaced = licence.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        let mut rest = &words[..];
        let allowed = self.any(&mut rest, 0)?;
        ensure!(rest.is_empty(), "what is `{}`?", rest.join(" "));
        Ok(allowed)
    }

    /// `a OR b`, which binds less than `AND`.
    fn any(&self, words: &mut &[&str], depth: usize) -> Result<bool> {
        let mut allowed = self.all(words, depth)?;
        while words.first() == Some(&"OR") {
            *words = &words[1..];
            allowed |= self.all(words, depth)?;
        }
        Ok(allowed)
    }

    fn all(&self, words: &mut &[&str], depth: usize) -> Result<bool> {
        let mut allowed = self.one(words, depth)?;
        while words.first() == Some(&"AND") {
            *words = &words[1..];
            allowed &= self.one(words, depth)?;
        }
        Ok(allowed)
    }

    /// A licence, perhaps with an exception, or something in parentheses.
    fn one(&self, words: &mut &[&str], depth: usize) -> Result<bool> {
        ensure!(depth < DEPTH_MAX, "too many parentheses");
        let (first, rest) = words.split_first().context("it ends too soon")?;
        *words = rest;
        if *first == "(" {
            let allowed = self.any(words, depth + 1)?;
            ensure!(words.first() == Some(&")"), "a parenthesis is open");
            *words = &words[1..];
            return Ok(allowed);
        }
        ensure!(!matches!(*first, ")" | "OR" | "AND" | "WITH"), "there is a {first} too many");
        let mut licence = (*first).to_owned();
        if let [with @ "WITH", exception, rest @ ..] = &**words {
            licence = format!("{licence} {with} {exception}");
            *words = rest;
        }
        Ok(self.licences.contains(&licence))
    }
}
