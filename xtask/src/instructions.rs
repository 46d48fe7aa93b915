//! Instructions that a node spends on a put and a get, compared with those that are written down: a guard against work that creeps in, which
//! does not depend on how fast the machine is, or how busy.
//!
//! callgrind counts them in `ringfort-instructions`, a load on three nodes in one process. Two runs on one machine come to the same number but
//! for a few. The number depends on the compiler (`rust-toolchain.toml` pins it), and a little on the C library, whose allocator and memory
//! copies are counted too; the copies that it has for newer processors are turned off. Where it differs by more than the allowance, the cause is in the
//! code, or whoever raised the compiler writes the new number down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// Where they are written down.
const PLACE: &str = "benches/instructions.toml";
/// How far a number may be from that, in percent, either way.
const ALLOWANCE_PERCENT: u64 = 5;
/// Of each kind.
const OPERATIONS: u64 = 50_000;
/// What is counted: functions of the program.
const COUNTED: &[&str] = &["handle_event", "handle_frame", "end_turn"];
const PACKAGE: &str = "ringfort-instructions";
const PROFILE: &str = "counted";
/// Copies as every x86-64 has them; other processors know nothing of these.
const TUNABLES: &str =
    "glibc.cpu.hwcaps=-AVX2,-AVX,-AVX512F,-AVX512VL,-AVX512BW,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-EVEX";

/// Instructions of one of three nodes, for a call of their clients'.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instructions {
    /// For a put.
    pub put: u64,
    /// For a linearizable get.
    pub get: u64,
}

impl Instructions {
    fn each(self) -> [(&'static str, u64); 2] {
        [("put", self.put), ("get", self.get)]
    }
}

/// Counts, and compares with what is written down or, with `--update`, writes down.
pub fn run(root: &Path, args: &[String]) -> Result<()> {
    let is_update = match args {
        [] => false,
        [flag] if flag == "--update" => true,
        _ => bail!("usage: cargo xtask instructions [--update]"),
    };
    let program = build(root)?;
    let counted = Instructions { put: count(&program, "put")?, get: count(&program, "get")? };
    let place = root.join(PLACE);
    if is_update {
        fs::write(&place, written(counted)).with_context(|| format!("can't write {PLACE}"))?;
        println!("{PLACE}: {} instructions for a put, {} for a get", counted.put, counted.get);
        return Ok(());
    }
    let text = fs::read_to_string(&place).with_context(|| format!("can't read {PLACE}"))?;
    let expected: Instructions = toml::from_str(&text).with_context(|| format!("can't read {PLACE}"))?;
    let verdicts = compare(expected, counted);
    for verdict in &verdicts {
        println!("{}", verdict.line);
    }
    if verdicts.iter().all(|verdict| verdict.is_within) {
        return Ok(());
    }
    bail!(
        "a number is not what {PLACE} has (see above; `cargo xtask instructions --update` writes these down)"
    )
}

/// What came of comparing one number.
#[derive(Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it is within the allowance.
    pub is_within: bool,
    /// For people.
    pub line: String,
}

/// Compares the numbers that were counted with those that are written down.
pub fn compare(expected: Instructions, counted: Instructions) -> Vec<Verdict> {
    let of = |((name, expected), (_, counted)): ((&str, u64), (&str, u64))| {
        let percent = (counted as f64 / expected as f64 - 1.0) * 100.0;
        let is_within = counted.abs_diff(expected) * 100 <= expected * ALLOWANCE_PERCENT;
        let what = match percent {
            _ if is_within => "as written down",
            percent if percent < 0.0 => "cheaper: write it down with --update, lest it is lost again unseen",
            _ => "dearer: find out why, or say why it is worth that and write it down with --update",
        };
        let line = format!(
            "a {name}: {counted} instructions of a node, {expected} expected ({percent:+.1} %): {what}"
        );
        Verdict { is_within, line }
    };
    expected.each().into_iter().zip(counted.each()).map(of).collect()
}

/// As they are written down.
pub fn written(instructions: Instructions) -> String {
    let Instructions { put, get } = instructions;
    format!(
        "# Instructions of one of three nodes for a call of their clients', which `cargo xtask instructions` counts and\n\
         # compares with these, {ALLOWANCE_PERCENT} % either way. With --update it writes them here.\n\
         put = {put}\n\
         get = {get}\n"
    )
}

/// The program, and where it is.
fn build(root: &Path) -> Result<PathBuf> {
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--profile", PROFILE, "--package", PACKAGE])
        .current_dir(root)
        .status()
        .context("can't start cargo")?;
    if !status.success() {
        bail!("{PACKAGE} does not compile");
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(root.join(target).join(PROFILE).join(PACKAGE))
}

/// Instructions for one call of this kind.
fn count(program: &Path, kind: &str) -> Result<u64> {
    let out = program.with_extension(format!("{kind}.callgrind"));
    let mut command = Command::new("valgrind");
    command.args(["--tool=callgrind", "--quiet", "--collect-atstart=no"]);
    for function in COUNTED {
        command.arg(format!("--toggle-collect=*counted::{function}*"));
    }
    command.arg(format!("--callgrind-out-file={}", out.display())).arg(program);
    command.args([kind, &OPERATIONS.to_string()]).env("GLIBC_TUNABLES", TUNABLES).stdout(Stdio::null());
    let status = command.status().context("can't start valgrind, which Debian's package of that name has")?;
    if !status.success() {
        bail!("{PACKAGE} {kind} did not come to its end under callgrind: {status}");
    }
    let text = fs::read_to_string(&out).with_context(|| format!("can't read {}", out.display()))?;
    per_call(&text).with_context(|| format!("{} is not what callgrind writes", out.display()))
}

/// Instructions for each of the calls, out of a file of callgrind's.
fn per_call(text: &str) -> Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("totals:")).context("it has no totals")?;
    let total: u64 = line.split_whitespace().next().context("it has no total")?.parse()?;
    if total < OPERATIONS {
        bail!("{total} instructions: none of {COUNTED:?} was found in the program");
    }
    Ok(total / OPERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPECTED: Instructions = Instructions { put: 20_000, get: 4_000 };

    #[test]
    fn a_number_may_be_a_twentieth_off_and_no_more() {
        for (counted, within) in [(21_000, true), (21_001, false), (19_000, true), (18_999, false)] {
            let verdicts = compare(EXPECTED, Instructions { put: counted, ..EXPECTED });
            assert_eq!([verdicts[0].is_within, verdicts[1].is_within], [within, true], "{counted}");
        }
        let verdicts = compare(EXPECTED, Instructions { put: 10_000, get: 8_000 });
        assert!(verdicts[0].line.contains("-50.0 %") && verdicts[0].line.contains("cheaper"), "{verdicts:?}");
        assert!(verdicts[1].line.contains("+100.0 %") && verdicts[1].line.contains("dearer"), "{verdicts:?}");
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        assert_eq!(toml::from_str::<Instructions>(&written(EXPECTED)).unwrap(), EXPECTED);
    }

    #[test]
    fn a_run_in_which_nothing_was_counted_is_no_number() {
        assert_eq!(per_call("events: Ir\ntotals: 1000000050\n").unwrap(), 20_000);
        assert!(per_call("events: Ir\ntotals: 0\n").unwrap_err().to_string().contains("end_turn"));
        assert!(per_call("events: Ir\n").is_err());
    }
}
