//! Wrong usage, limits, and nobody there: one line that says what is wrong, and the right exit code.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use crate::support::{free_ports, refusal, ringfort, run, stderr, stdout};

/// Runs it without input; the exit code and the error line.
fn refused(arguments: &[&str]) -> (Option<i32>, String) {
    refusal(&run(&mut ringfort(arguments), b""))
}

#[track_caller]
fn assert_refused(arguments: &[&str], code: i32, says: &str) {
    let (got, line) = refused(arguments);
    assert!(line.contains(says), "{arguments:?}: {line}");
    assert_eq!(got, Some(code), "{arguments:?}: {line}");
}

#[test]
fn help_and_version_are_no_failure() {
    for arguments in
        [&["--help"][..], &["--version"], &["put", "--help"], &["start", "-h"], &["help", "put"], &["help"]]
    {
        let output = run(&mut ringfort(arguments), b"");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{arguments:?}");
    }
    let asked = |arguments: &[&str]| stdout(&run(&mut ringfort(arguments), b""));
    assert_eq!(asked(&["help", "put"]), asked(&["put", "--help"]));
    assert_refused(&["help", "SCAN"], 2, "`ringfort list");
    let nothing = run(&mut ringfort(&[]), b"");
    assert_eq!(nothing.status.code(), Some(2));
    assert!(stderr(&nothing).contains("Usage"));
}

#[test]
fn wrong_usage_is_one_line_and_two() {
    assert_refused(&["fly"], 2, "unrecognized subcommand 'fly'");
    assert_refused(&["get"], 2, "<KEY>");
    assert_refused(&["put", "k"], 2, "<VALUE>");
    assert_refused(&["put", "k", "v", "--if-absent", "--if-value", "w"], 2, "'--if-absent' cannot be used");
    assert_refused(&["put", "k", "v", "--if-revision", "7", "--if-value", "w"], 2, "cannot be used");
    assert_refused(&["put", "k", "v", "--if-revision", "0"], 2, "--if-revision");
    assert_refused(&["delete", "k", "--if-revision", "7", "--if-present"], 2, "cannot be used");
    assert_refused(&["delete", "k", "--if-absent"], 2, "--if-absent");
    assert_refused(&["incr", "k", "1.5"], 2, "1.5");
    assert_refused(&["incr", "k", "9223372036854775808"], 2, "9223372036854775808");
    assert_refused(&["get", "k", "--consistency", "fresh"], 2, "linearizable, lease, stale");
    assert_refused(&["get", "k", "--stale", "--consistency", "linearizable"], 2, "cannot be used");
    assert_refused(&["get", "a", "b", "--raw"], 2, "--raw prints one value");
    assert_refused(&["--consistency", "stale", "put", "k", "v"], 2, "has no use for it");
    assert_refused(&["get", "k", "--reads-from", "followers"], 2, "leader, replicas");
    assert_refused(&["--reads-from", "replicas", "list"], 2, "has no use for it");
    assert_refused(&["put", "k", "v", "--copies", "0"], 2, "--copies");
    assert_refused(&["--copies", "2", "get", "k"], 2, "has no use for it");
    assert_refused(&["write", "--file", "/nowhere/changes"], 2, "/nowhere/changes");
    assert_refused(&["write", "--file", "/"], 2, "directory");
    assert_refused(&["get", "k", "--timeout", "5"], 2, "needs a unit");
    assert_refused(
        &["get", "--timeout", "-1s", "k"],
        2,
        "for '--timeout <TIME>': a duration is not negative",
    );
    assert_refused(
        &["--timeout", "-1s", "get", "k"],
        2,
        "for '--timeout <TIME>': a duration is not negative",
    );
    assert_refused(&["config", "get", "--timeout", "-1s"], 2, "a duration is not negative");
    assert_refused(&["list", "--limit", "-1"], 2, "'-1' for '--limit <N>'");
    assert_refused(&["list", "--prefix", "-a"], 2, "write --prefix=-a");
    assert_refused(&["get", "k", "--addr", "localhost"], 2, "has no port");
    assert_refused(&["--addr", "a b:1", "get", "k"], 2, "no host name has");
    assert_refused(&["--addr", "127.0.0.1:1", "start"], 2, "start --addr");
    assert_refused(&["bench", "--seconds", "0"], 2, "--seconds");
    assert_refused(
        &["bench", "--clients", "4", "--in-flight", "2"],
        2,
        "raise --in-flight or lower --clients",
    );
    assert_refused(&["bench", "--clients", "2", "--threads", "3"], 2, "raise --clients or lower --threads");
    assert_refused(&["start", "--socket-threads", "5"], 2, "--socket-threads");
    assert_refused(&["start", "--socket-threads", "0"], 2, "--socket-threads");
    assert_refused(&["list", "--limit", "many"], 2, "--limit");
    assert_refused(&["import", "/nowhere/rows.tsv"], 2, "/nowhere/rows.tsv");
    assert_refused(&["import", "/"], 2, "directory");
    assert_refused(&["import", "rows.csv"], 2, "say --format tsv or --format jsonl");
    assert_refused(&["import", "--format", "tsv", "/nowhere/rows.csv"], 2, "can't read /nowhere/rows.csv");
    assert_refused(&["export", "rows.tsv.zst"], 2, "`ringfort export - | zstd > FILE`");
    assert_refused(&["export", "/nowhere/rows.tsv"], 2, "/nowhere/rows.tsv");
    for place in ["/proc/x", "/proc/x/y", "/dev/null/x", "/dev/null"] {
        let (code, line) = refused(&["start", "--data-dir", place]);
        assert!(line.starts_with(&format!("can't make the data directory {place}: ")), "{line}");
        assert!(line.ends_with("choose another one (--data-dir)") && !line.contains("put it back"), "{line}");
        assert_eq!(code, Some(3), "{line}");
    }
    assert_refused(&["start", "--addr", "nonsense"], 2, "nonsense");
    assert_refused(&["start", "--addr", "::1:5"], 2, "brackets");
    assert_refused(&["start", "--text-addr", "::1:5"], 2, "brackets");
    assert_refused(&["start", "--advertise", "::1:5"], 2, "brackets");
    assert_refused(&["start", "--peers", "node2=::1:5"], 2, "brackets");
    assert_refused(&["get", "k", "--addr", "::1:5"], 2, "brackets");
    assert_refused(&["start", "--id", "a b", "--data-dir", "/nowhere"], 2, "a b");
    assert_refused(&["start", "--peers", "=127.0.0.1:50052"], 2, "no name");
    assert_refused(&["start", "--text-timeout", "5s"], 2, "--text-timeout without --text-addr");
    assert_refused(&["start", "--text-get-reply", "ok"], 2, "--text-get-reply without --text-addr");
    let port = format!("127.0.0.1:{}", free_ports(1));
    assert_refused(&["start", "--addr", &port, "--text-addr", &port], 2, "a port of its own");
    assert_refused(&["dev", "--nodes", "0"], 2, "--nodes");
    // Words of other stores.
    assert_refused(&["get", "--prefix", "k"], 2, "ringfort list --prefix");
    assert_refused(&["watch", "k"], 2, "no watch yet");
    assert_refused(&["put", "k", "v", "--lease", "7"], 2, "no time to live yet");
    assert_refused(&["member", "list"], 2, "ringfort status");
    assert_refused(&["move-leader", "2"], 2, "`ringfort cluster transfer SHARD NODE`");
    assert_refused(&["cluster", "keyslot", "k"], 2, "`ringfort where KEY`");
    assert_refused(&["SET", "k", "v"], 2, "lower case: `ringfort put`");
    assert_refused(&["snapshot", "restore", "f"], 2, "`ringfort import rows.tsv.gz`");
    assert_refused(&["put", "k", "v", "NX"], 2, "--if-absent");
    assert_refused(&["put", "-a", "b"], 2, "`ringfort put -- -a`");
    assert_refused(&["dev", "--nodes", "5", "--base-port", "65533"], 2, "65536");
    let output = run(ringfort(&["get", "k"]).env("RINGFORT_ADDR", "localhost"), b"");
    let (code, line) = refusal(&output);
    assert!(code == Some(2) && line.starts_with("RINGFORT_ADDR: "), "{line}");
}

#[test]
fn what_is_said_of_members_is_checked_before_anything_is_asked() {
    assert_refused(&["member", "add", "node4"], 2, "`ringfort start --id node4 --join 127.0.0.1:50051`");
    assert_refused(&["member", "remove", "node4"], 2, "`ringfort cluster remove NODE`");
    assert_refused(&["cluster", "forget", "node4"], 2, "`ringfort cluster remove NODE`");
    assert_refused(&["start", "--join-addr", "127.0.0.1:50051"], 2, "--join 127.0.0.1:50051");
    assert_refused(&["start", "--replace"], 2, "--join");
    assert_refused(&["start", "--zone", "a"], 2, "--join");
    assert_refused(&["start", "--bootstrap", "--join", "127.0.0.1:50051"], 2, "cannot be used");
    assert_refused(&["start", "--join", "127.0.0.1:1", "--peers", "127.0.0.1:2"], 2, "cannot be used");
    assert_refused(&["start", "--invited", "--join", "127.0.0.1:1"], 2, "cannot be used");
    assert_refused(&["start", "--invited", "--bootstrap"], 2, "cannot be used");
    assert_refused(&["start", "--invited", "--peers", "127.0.0.1:1"], 2, "cannot be used");
    assert_refused(&["start", "--invited", "--replace"], 2, "cannot be used");
    assert_refused(&["start", "--invited", "--addr", "127.0.0.1:0"], 2, "choose a port");
    assert_refused(&["start", "--replace-after", "5"], 2, "needs a unit");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "[start]\nbootstrap = true\njoin = '127.0.0.1:1'\n").expect("written");
    assert_refused(
        &["start", "--config", file.path().to_str().expect("plain")],
        2,
        "leave out --peers and --join",
    );
    std::fs::write(file.path(), "[start]\nbootstrap = true\ninvited = true\n").expect("written");
    assert_refused(
        &["start", "--config", file.path().to_str().expect("plain")],
        2,
        "leave out --bootstrap, --peers, --join",
    );
    assert_refused(&["cluster", "remove"], 2, "remove takes the name of one node");
    assert_refused(&["cluster", "drain", "node1", "node2"], 2, "drain takes the name of one node");
    assert_refused(&["cluster", "undrain", "node1", "--force"], 2, "--force is for");
    assert_refused(&["cluster", "nodes", "--no-wait"], 2, "--no-wait is for");
    assert_refused(&["cluster", "plan", "fly"], 2, "`join N`");
    assert_refused(&["cluster", "plan", "join", "0"], 2, "no number of nodes");
    assert_refused(&["cluster", "plan", "replicas", "65"], 2, "one from 1 to 64");
    assert_refused(&["cluster", "plan", "join", "1", "--weight", "0"], 2, "from 1 to 100");
    assert_refused(&["cluster", "plan", "join", "1", "--zone", "a b"], 2, "no name for a zone");
    assert_refused(&["cluster", "plan", "drain", "node1", "--zone", "a"], 2, "--weight and --zone are for");
    assert_refused(&["cluster", "nodes", "--weight", "2"], 2, "--weight and --zone are for");
}

#[test]
fn limits_hold_whether_or_not_anybody_is_there() {
    let key = "k".repeat(16 * 1024 + 1);
    let nobody = ["--addr", "127.0.0.1:1", "--timeout", "300ms"];
    let with = |arguments: &[&'static str]| [&nobody[..], arguments].concat();
    assert_refused(&with(&["put", "", "v"]), 2, "empty key");
    assert_refused(&with(&["get", ""]), 2, "empty key");
    assert_refused(&[&nobody[..], &["put", &key, "v"]].concat(), 2, "key of 16385 bytes");
    assert_refused(&[&nobody[..], &["list", "--prefix", &key]].concat(), 2, "16385 bytes");
    let value = vec![b'v'; 8 * 1024 * 1024 + 1];
    let (code, line) = refusal(&run(&mut ringfort(&with(&["put", "k", "-"])), &value));
    assert!(code == Some(2) && line.contains("8388608"), "{line}");
    let (code, line) = refusal(&run(&mut ringfort(&with(&["write"])), b"put\ta\t1\nput\tb\n"));
    assert!(code == Some(2) && line.starts_with("line 2: something is missing"), "{line}");
    let (code, line) = refusal(&run(&mut ringfort(&with(&["write"])), b""));
    assert!(code == Some(2) && line.contains("nothing to write"), "{line}");
    for (skip, input) in [("3", &b"a\t1\nb\t2\n"[..]), ("1", b"")] {
        let (code, line) = refusal(&run(&mut ringfort(&with(&["import", "-", "--skip", skip])), input));
        let rows = if skip == "3" { "2 rows" } else { "0 rows" };
        assert!(line.contains(&format!("which has {rows}: nothing was imported")), "{line}");
        assert!(code == Some(2) && line.matches("--skip").count() == 1, "{line}");
    }
    let (code, line) = refusal(&run(&mut ringfort(&with(&["import", "-"])), b"no tab here\n"));
    assert!(code == Some(2) && line.contains("line 1: no tab"), "{line}");
}

#[test]
fn a_rate_of_rebalancing_is_the_one_of_snapshots() {
    let (code, line) = refused(&["start", "--rebalance-rate", "0"]);
    assert!(code == Some(2) && line.contains("--snapshot-mb-per-s"), "{line}");
}

#[test]
fn nobody_there_is_three_and_names_the_addresses() {
    let nobody = ["--addr", "127.0.0.1:1,127.0.0.1:2", "--timeout", "300ms"];
    let commands: [&[&str]; 21] = [
        &["get", "k"],
        &["get", "k", "l"],
        &["put", "k", "v"],
        &["put", "k", "v", "--if-absent"],
        &["delete", "k"],
        &["incr", "k"],
        &["list"],
        &["status"],
        &["where", "k"],
        &["safe-to-stop", "node1"],
        &["rebuild", "node1"],
        &["log-level", "node1"],
        &["cluster", "shards"],
        &["cluster", "transfer", "3", "node1"],
        &["cluster", "set", "replicas=3"],
        &["cluster", "remove", "node1"],
        &["cluster", "drain", "node1"],
        &["cluster", "undrain", "node1"],
        &["cluster", "plan"],
        &["check"],
        &["bench"],
    ];
    for command in commands {
        let (code, line) = refused(&[&nobody[..], command].concat());
        assert_eq!(code, Some(3), "{command:?}: {line}");
        assert!(line.contains("127.0.0.1:1") && line.contains("127.0.0.1:2"), "{command:?}: {line}");
        assert!(line.contains("connection refused"), "{command:?}: {line}");
        assert!(!line.contains("outcome unknown"), "nothing was sent: {line}");
    }
}

/// What is on stderr, the exit code, and that it took no longer than a few seconds.
fn waits_for_nobody(arguments: &[&str]) -> String {
    let begun = Instant::now();
    let output = run(&mut ringfort(arguments), b"a\t1\nb\t2\n");
    assert!(begun.elapsed() < Duration::from_secs(8), "{arguments:?}: {:?}", begun.elapsed());
    assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", stderr(&output));
    stderr(&output)
}

#[test]
fn who_waits_says_for_whom_and_not_long_for_nobody() {
    for arguments in [&["import", "-"][..], &["check"]] {
        let said = waits_for_nobody(&[arguments, &["--addr", "127.0.0.1:1"]].concat());
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 2, "{said}");
        assert!(
            lines[0].starts_with("ringfort: waiting for a first answer: can't reach 127.0.0.1:1"),
            "{said}"
        );
        assert!(lines[1].contains("can't reach 127.0.0.1:1: connection refused"), "{said}");
    }
    let said = waits_for_nobody(&["import", "-", "--addr", "127.0.0.1:1"]);
    assert!(
        said.ends_with("acknowledged 0 rows, not written 2 rows, nothing sent from line 3 on\n"),
        "{said}"
    );
    // Somebody listens, and says nothing: that may change.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("bound").to_string();
    let said = waits_for_nobody(&["check", "--timeout", "4s", "--addr", &address]);
    assert!(
        said.contains(&format!("waiting for a first answer: can't reach {address}: it does not answer")),
        "{said}"
    );
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn an_import_that_can_not_begin_gives_its_account() {
    let arguments = ["import", "-", "--addr", "127.0.0.1:1", "--timeout", "100ms", "--give-up", "300ms"];
    let (code, line) = refusal(&run(&mut ringfort(&arguments), b"a\t1\nb\t2\n"));
    assert_eq!(code, Some(3), "{line}");
    assert!(line.contains("no row could be written for 300 ms"), "{line}");
    assert!(line.contains("acknowledged 0 rows, not written 2 rows, nothing sent from line 3 on"), "{line}");
    assert!(!line.contains("unknown"), "{line}");
}

#[test]
fn a_port_in_use_is_said_before_anything_starts() {
    let base = free_ports(3);
    let taken = TcpListener::bind(("127.0.0.1", base + 2)).expect("free");
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    let data = data.to_str().expect("a plain path");
    let address = format!("127.0.0.1:{}", base + 2);
    let (code, line) = refused(&["dev", "--base-port", &base.to_string(), "--data-dir", data]);
    assert!(code == Some(2) && line.contains(&address) && line.contains("--base-port"), "{line}");
    assert!(!std::path::Path::new(data).exists());
    let (code, line) = refused(&["start", "--addr", &address, "--data-dir", data]);
    assert!(code == Some(2) && line.contains(&address) && line.contains("in use"), "{line}");
    drop(taken);
}

#[test]
fn the_shell_needs_nobody_to_say_how_it_is_used() {
    let arguments = ["shell", "--addr", "127.0.0.1:1", "--timeout", "200ms"];
    let output = run(&mut ringfort(&arguments), b"\nput a\nget\nfly\nexit\nget never\n");
    let expected = "Usage: put <key> <value>\nUsage: get <key>\nCommands: put/get/list/exit, also delete/incr/status/where/safe-to-stop/transfer/cluster/help\n";
    assert_eq!(stdout(&output), expected);
    assert_eq!(output.status.code(), Some(2));
    let output = run(&mut ringfort(&arguments), b"get a\nfly");
    assert!(stdout(&output).starts_with("error: can't reach 127.0.0.1:1: connection refused"));
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(run(&mut ringfort(&arguments), b"").status.code(), Some(0));
}
