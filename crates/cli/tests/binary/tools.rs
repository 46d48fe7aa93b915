//! What helps with the program itself: completions, man pages, the version.

use std::fs;
use std::process::{Command, Stdio};

use crate::support::{objects, refusal, ringfort, run, stdout};

const COMMANDS: [&str; 27] = [
    "certs",
    "user",
    "cluster",
    "where",
    "safe-to-stop",
    "rebuild",
    "recover",
    "start",
    "dev",
    "put",
    "get",
    "delete",
    "incr",
    "write",
    "list",
    "import",
    "export",
    "status",
    "health",
    "log-level",
    "check",
    "shell",
    "bench",
    "config",
    "completions",
    "man",
    "version",
];

#[test]
fn completions_know_every_command_and_its_flags() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&mut ringfort(&["completions", shell]), b"");
        assert_eq!(output.status.code(), Some(0), "{shell}");
        let script = stdout(&output);
        assert!(COMMANDS.iter().all(|command| script.contains(command)), "{shell}");
        assert!(script.contains("give-up") && script.contains("memtable-mb"), "{shell}");
        assert!(!script.contains("stop-on-stdin-eof"), "{shell}: that is not for people");
    }
    let (code, line) = refusal(&run(&mut ringfort(&["completions", "tcsh"]), b""));
    assert!(code == Some(2) && line.contains("bash, zsh, fish"), "{line}");
}

#[test]
fn bash_completes_with_its_script() {
    let directory = tempfile::tempdir().expect("a directory");
    let script = directory.path().join("ringfort.bash");
    fs::write(&script, run(&mut ringfort(&["completions", "bash"]), b"").stdout).expect("written");
    let complete = |words: &str, last: usize| {
        let ask = format!(
            "source \"$0\"; COMP_WORDS=({words}); COMP_CWORD={last}; _ringfort ringfort \"${{COMP_WORDS[$COMP_CWORD]}}\" \
             \"${{COMP_WORDS[$COMP_CWORD-1]}}\"; printf '%s ' \"${{COMPREPLY[@]}}\""
        );
        let mut bash = Command::new("bash");
        bash.args(["--norc", "-c", &ask]).arg(&script).stdin(Stdio::null());
        match bash.output() {
            Ok(output) => Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()),
            // A machine without it has nothing to complete in.
            Err(_) => None,
        }
    };
    let Some(exports) = complete("ringfort exp", 1) else { return };
    assert_eq!(exports, "export");
    assert_eq!(complete("ringfort import --give", 2).as_deref(), Some("--give-up"));
    assert_eq!(complete("ringfort put k v --if-a", 4).as_deref(), Some("--if-absent"));
    assert_eq!(complete("ringfort get k --consistency s", 4).as_deref(), Some("stale"));
    assert_eq!(complete("ringfort get k --reads-from r", 4).as_deref(), Some("replicas"));
    assert_eq!(complete("ringfort safe", 1).as_deref(), Some("safe-to-stop"));
    assert_eq!(complete("ringfort cluster t", 2).as_deref(), Some("transfer"));
    assert_eq!(complete("ringfort cluster un", 2).as_deref(), Some("undrain"));
    assert_eq!(complete("ringfort cluster remove node4 --fo", 4).as_deref(), Some("--force"));
    assert_eq!(complete("ringfort cluster plan join 1 --we", 5).as_deref(), Some("--weight"));
    assert_eq!(complete("ringfort start --joi", 2).as_deref(), Some("--join"));
    assert_eq!(complete("ringfort completions f", 2).as_deref(), Some("fish"));
}

#[test]
fn man_writes_a_page_for_every_command() {
    let directory = tempfile::tempdir().expect("a directory");
    let out = directory.path().join("share/man1");
    let output = run(ringfort(&["man", "--out"]).arg(&out), b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(stdout(&output), format!("wrote 31 pages to {}\n", out.display()));
    let page = |name: &str| fs::read_to_string(out.join(name)).unwrap_or_else(|_| panic!("no page {name}"));
    assert_eq!(fs::read_dir(&out).expect("made").count(), 31);
    for command in COMMANDS {
        let page = page(&format!("ringfort-{command}.1"));
        assert!(page.contains(&format!(".TH ringfort-{command} 1")), "{page:.200}");
    }
    assert!(page("ringfort-start.1").contains("RINGFORT_START_DATA_DIR"));
    assert!(page("ringfort-get.1").contains("RINGFORT_CONSISTENCY"));
    assert!(page("ringfort-write.1").contains("RINGFORT_COPIES"));
    assert!(page("ringfort-start.1").contains("RINGFORT_START_REPLACE_AFTER"));
    assert!(!page("ringfort-put.1").contains("RINGFORT_PUT_IF"), "what is done this once is no setting");
    assert!(!page("ringfort-cluster.1").contains("RINGFORT_CLUSTER"), "nor is this");
    assert!(!page("ringfort-start.1").contains("eof"), "hidden flags are not for people");
    let main = run(&mut ringfort(&["man"]), b"");
    assert!(main.status.success() && stdout(&main) == page("ringfort.1"));
    let again = run(&mut ringfort(&["man", "--json", "--out", out.to_str().expect("a plain path")]), b"");
    assert_eq!(objects(&again)[0]["pages"], 31);
    let (code, line) = refusal(&run(&mut ringfort(&["man", "--out", "/dev/null/pages"]), b""));
    assert!(code == Some(2) && line.contains("/dev/null/pages") && line.contains("--out"), "{line}");
}

#[test]
fn version_tells_how_it_was_built_and_nothing_of_where_or_when() {
    let text = stdout(&run(&mut ringfort(&["version"]), b""));
    let facts = &objects(&run(&mut ringfort(&["version", "--json"]), b""))[0];
    let short = stdout(&run(&mut ringfort(&["--version"]), b""));
    let fact = |name: &str| facts[name].as_str().unwrap_or_else(|| panic!("no {name} in {facts}")).to_owned();
    assert_eq!(short, format!("ringfort {}\n", env!("CARGO_PKG_VERSION")));
    assert!(text.starts_with(&short), "{text}");
    for name in ["target", "profile", "rustc"] {
        assert!(text.contains(&format!("\n{name}: {}\n", fact(name))), "{text}");
        assert!(!fact(name).is_empty() && fact(name) != "unknown" && !fact(name).contains('/'), "{text}");
    }
    assert!(fact("target").contains(std::env::consts::ARCH), "{text}");
    assert_eq!(fact("version"), env!("CARGO_PKG_VERSION"));
    assert!(fact("rustc").starts_with(|c: char| c.is_ascii_digit()), "{text}");
}
