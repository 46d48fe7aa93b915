//! Machines that are not as they should be: a clock that was never set, a log that nobody reads.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{ask_to_stop, eventually, free_ports, preloadable, refusal, ringfort, run};

#[test]
fn a_clock_that_was_never_set_is_refused_at_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let library = preloadable("wrong_clock", directory.path());
    let address = format!("127.0.0.1:{}", free_ports(1));
    let data = directory.path().join("data");
    for (shows, says) in [
        ("-86400", "a year before 2024"),
        ("12", "a year before 2024"),
        ("1700000000", "a year before 2024"),
        ("7300000000", "a year after 2199"),
        ("400000000000", "a year after 2199"),
    ] {
        let mut start = ringfort(&["start", "--addr", &address, "--data-dir"]);
        start.arg(&data).env("LD_PRELOAD", &library).env("CLOCK_SHOWS", shows);
        let (code, line) = refusal(&run(&mut start, b""));
        assert_eq!(code, Some(2), "{shows}: {line}");
        assert!(
            line.contains(says) && line.contains("`date -u`") && line.contains("set it"),
            "{shows}: {line}"
        );
    }
    assert!(!data.exists(), "nothing was touched");
}

/// A node whose stdout and stderr are this.
fn start(address: &str, data: &std::path::Path, output: impl Fn() -> Stdio) -> Child {
    let mut start = ringfort(&["start", "--addr", address, "--shards", "4", "--report-every", "20ms"]);
    start.args(["--log-level", "trace", "--data-dir"]).arg(data);
    start.stdin(Stdio::null()).stdout(output()).stderr(output()).spawn().expect("starts")
}

/// It serves for as long as we ask, and stops in good order.
fn serves_and_stops(mut node: Child, address: &str) {
    let put = |value: &str| {
        let mut put = ringfort(&["--addr", address, "put", "key", value]);
        put.output().expect("runs").status.success()
    };
    eventually("it serves", || put("first"));
    for number in 0..100 {
        assert!(put(&number.to_string()), "write {number}");
    }
    ask_to_stop(&node);
    let until = Instant::now() + Duration::from_secs(10);
    let status = loop {
        match node.try_wait().expect("a child") {
            Some(status) => break status,
            None if Instant::now() < until => std::thread::sleep(Duration::from_millis(20)),
            None => {
                node.kill().expect("it runs");
                panic!("it does not stop");
            }
        }
    };
    assert!(status.success(), "{status}");
}

#[test]
fn a_log_that_nobody_reads_costs_lines_and_nothing_else() {
    let directory = tempfile::tempdir().expect("a directory");
    let address = format!("127.0.0.1:{}", free_ports(1));
    // Pipes that nobody drains: full after 64 KiB.
    let kept = std::cell::RefCell::new(Vec::new());
    let node = start(&address, &directory.path().join("full"), || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        kept.borrow_mut().push(reader);
        writer.into()
    });
    serves_and_stops(node, &address);
    // Pipes whose reader has gone.
    let node = start(&address, &directory.path().join("gone"), || {
        let (_reader, writer) = std::io::pipe().expect("a pipe");
        writer.into()
    });
    serves_and_stops(node, &address);
    // A file on a disk that is full.
    let node = start(&address, &directory.path().join("no-room"), || {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        full.into()
    });
    serves_and_stops(node, &address);
}

#[test]
fn a_node_that_can_not_be_reached_is_named_with_the_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let base = free_ports(2);
    let (own, other) = (format!("127.0.0.1:{base}"), format!("127.0.0.1:{}", base + 1));
    let mut start = ringfort(&["start", "--addr", &own, "--peers", &other, "--data-dir"]);
    start
        .arg(directory.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut node = start.spawn().expect("starts");
    let errors = node.stderr.take().expect("piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(errors));
    let line = lines.find(|line| line.as_ref().is_ok_and(|line| line.contains("can't reach")));
    node.kill().expect("it runs");
    node.wait().expect("it ends");
    let line = line.expect("there is one").expect("text");
    assert!(line.contains(&format!("can't reach {other}: connection refused")), "{line}");
}
