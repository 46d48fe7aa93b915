//! Files of one crate that import each other in circles can only be understood all at once.
//!
//! What counts is the imports at the top of a file. A module and those below it belong together anyway.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// The crates without circles. In `node` all files know `Node`, and in the others a file is part of its folder.
const CRATES: &[&str] = &["cli", "client", "proto", "server", "types"];

/// Circles with a reason, which stands in ARCHITECTURE.md.
const KNOWN: &[(&str, &[&str])] = &[("server", &["disk_watch", "shared"])];

/// Findings in the sources of these crates.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    for name in CRATES {
        let folder = root.join("crates").join(name).join("src");
        let mut sources = BTreeMap::new();
        read(&folder, &[], &mut sources).with_context(|| format!("can't read {}", folder.display()))?;
        for circle in circles(&imports(&sources)) {
            let files: Vec<String> = circle.iter().map(|module| module.join("/")).collect();
            if !KNOWN
                .iter()
                .any(|(of, known)| of == name && files.iter().map(String::as_str).eq(known.iter().copied()))
            {
                let message = format!(
                    "{} import each other in a circle: move what both need to a file below them",
                    files.join(", ")
                );
                findings.push(Finding { place: format!("crates/{name}/src"), message });
            }
        }
    }
    Ok(findings)
}

type Module = Vec<String>;

/// The text of each module below a folder.
fn read(folder: &Path, above: &[String], sources: &mut BTreeMap<Module, String>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned();
        let module: Module = above.iter().cloned().chain([stem.clone()]).collect();
        if path.is_dir() {
            read(&path, &module, sources)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let module = if stem == "mod" { above.to_vec() } else { module };
            if !["lib", "main"].contains(&stem.as_str()) {
                sources.insert(module, fs::read_to_string(&path)?);
            }
        }
    }
    Ok(())
}

/// Which modules each one imports from, but for those above and below it.
fn imports(sources: &BTreeMap<Module, String>) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut imports = BTreeMap::new();
    for (module, text) in sources {
        let mut uses = BTreeSet::new();
        for path in text.split("\nuse ").skip(1).filter_map(|rest| rest.split(';').next()) {
            for path in spread(&path.split_whitespace().collect::<String>()) {
                let mut path: Module = path.split("::").map(str::to_owned).collect();
                match path.first().map(String::as_str) {
                    Some("crate") => drop(path.remove(0)),
                    Some("super") => {
                        let above = module[..module.len() - 1].to_vec();
                        path.splice(0..1, above);
                    }
                    _ => continue,
                }
                let known = (1..=path.len()).rev().map(|length| &path[..length]);
                let found = known.into_iter().find(|part| sources.contains_key(*part));
                uses.extend(found.map(<[String]>::to_vec));
            }
        }
        uses.retain(|used| !used.starts_with(module) && !module.starts_with(used));
        imports.insert(module.clone(), uses);
    }
    imports
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn spread(path: &str) -> Vec<String> {
    let Some((front, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let (mut depth, mut parts, mut part) = (0, Vec::new(), String::new());
    for letter in rest.chars() {
        match letter {
            '}' if depth == 0 => break,
            ',' if depth == 0 => parts.push(std::mem::take(&mut part)),
            _ => {
                depth += i32::from(letter == '{') - i32::from(letter == '}');
                part.push(letter);
            }
        }
    }
    parts.push(part);
    let parts = parts.into_iter().filter(|part| !part.is_empty());
    parts
        .flat_map(|part| spread(&part).into_iter().map(|part| format!("{front}{part}")).collect::<Vec<_>>())
        .collect()
}

/// The sets of modules that can all be reached from each other.
fn circles(imports: &BTreeMap<Module, BTreeSet<Module>>) -> BTreeSet<BTreeSet<Module>> {
    let reached = |from: &Module| {
        let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(module) = next.pop() {
            next.extend(
                imports.get(module).into_iter().flatten().filter(|used| reached.insert((*used).clone())),
            );
        }
        reached
    };
    let all: BTreeMap<&Module, BTreeSet<Module>> =
        imports.keys().map(|module| (module, reached(module))).collect();
    let circle = |module: &Module| {
        let others = all[module]
            .iter()
            .filter(|other| all.get(*other).is_some_and(|reached| reached.contains(module)));
        others.cloned().collect::<BTreeSet<Module>>()
    };
    imports.keys().map(circle).filter(|circle| circle.len() > 1).collect()
}
