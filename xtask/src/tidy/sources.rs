//! Rules for every file: openings, length, leftovers, who touches files, paths of somebody's machine.
//!
//! Lines are looked at as text. Comments are exempt from the rules about code, strings are not: a rule's own
//! words are put together from halves here, so that this file does not find itself.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Finding;

/// Longest source file, in lines, not counting its tests.
const LINES_MAX: usize = 600;

/// Folders that hold nothing of ours.
const SKIPPED: &[&str] = &["target", ".git", "__pycache__", "node_modules", ".venv"];

/// Words that a finished file does not hold, and why.
const LEFTOVERS: &[(&str, &str)] = &[
    (concat!("to", "do!("), "a stub promises what is not there: leave it out, or write it"),
    (concat!("unimple", "mented!("), "a stub promises what is not there: leave it out, or write it"),
    (concat!("db", "g!("), "left over from looking for something"),
    (concat!("#[ign", "ore"), "a test that is not run proves nothing: mend or remove it"),
    (concat!("un", "safe "), "nothing here may be unsafe"),
    (concat!("allow(un", "safe_code"), "nothing here may be unsafe"),
];

/// Where files may be touched: the real disk, what the system tells of a thread or the process, certificates, what stands before people, tasks,
/// tests.
const FILES_ALLOWED: &[&str] = &[
    "crates/storage/src/disk/",
    "crates/server/src/audit/file.rs",
    "crates/server/src/disk_watch.rs",
    "crates/server/src/doors/http/metrics/process.rs",
    "crates/server/src/doors/guard/tests.rs",
    "crates/tls/src/files.rs",
    "crates/cli/",
    "xtask/",
];

/// Files that are checked for machine paths besides Rust sources.
const TEXTS: &[&str] = &["rs", "toml", "md", "proto", "py", "sh", "yml", "yaml"];

/// Findings in all files under `root`.
pub fn check(root: &Path) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    visit(root, root, &mut findings)?;
    Ok(findings)
}

fn visit(root: &Path, folder: &Path, findings: &mut Vec<Finding>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("can't list {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                visit(root, &path, findings)?;
            }
            continue;
        }
        let extension = path.extension().unwrap_or_default().to_string_lossy().into_owned();
        if !TEXTS.contains(&extension.as_str()) && !path.starts_with(root.join(".ci")) {
            continue;
        }
        let text = fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))?;
        let place = path.strip_prefix(root).expect("below the root").to_string_lossy().replace('\\', "/");
        look_at(&place, &text, extension == "rs", findings);
    }
    Ok(())
}

fn look_at(place: &str, text: &str, is_rust: bool, findings: &mut Vec<Finding>) {
    let is_test = place.split('/').any(|part| part == "tests");
    let found = |line: usize, message: String| Finding { place: format!("{place}:{line}"), message };

    if is_rust {
        if !text.starts_with("//!") {
            findings.push(found(1, "opens without `//!`: say what the file is for, and why this way".into()));
        }
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        if !is_test && lines > LINES_MAX {
            let message = format!("{lines} lines: a file holds one idea, {LINES_MAX} lines at most");
            findings.push(found(lines, message));
        }
    }
    let mut in_tests = is_test;
    for (number, line) in (1..).zip(text.lines()) {
        in_tests |= line == "#[cfg(test)]";
        if !in_tests && let Some(path) = machine_path(line) {
            findings.push(found(number, format!("{path} is a path of somebody's machine")));
        }
        if !is_rust || line.trim_start().starts_with("//") {
            continue;
        }
        for (word, why) in LEFTOVERS {
            if line.contains(word) {
                findings.push(found(number, format!("{why} (`{}`)", word.trim())));
            }
        }
        let may_touch_files = in_tests
            || place.ends_with("/build.rs")
            || FILES_ALLOWED.iter().any(|allowed| place.starts_with(allowed));
        if touches_files(line) && !may_touch_files {
            let why = "uses std::fs: data files are touched by storage's FileDisk and by the cli only";
            findings.push(found(number, why.into()));
        }
    }
}

fn touches_files(line: &str) -> bool {
    let grouped = line.contains("use std::{")
        && line.split(['{', ',', '}']).any(|part| {
            let part = part.trim();
            part == "fs" || part.starts_with("fs::")
        });
    grouped || line.contains(concat!("std", "::fs")) || line.contains(concat!("tokio", "::fs"))
}

fn machine_path(line: &str) -> Option<&'static str> {
    const TEMPORARY: &str = concat!("/t", "mp/");
    const HERE: &str = concat!("/wo", "rk");
    if line.contains(TEMPORARY) {
        return Some(TEMPORARY);
    }
    let starts_there = |at: usize| {
        let before = line[..at].chars().next_back();
        let after = line[at + HERE.len()..].chars().next();
        !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '}'))
            && !after.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '-'))
    };
    line.match_indices(HERE).any(|(at, _)| starts_there(at)).then_some(HERE)
}
