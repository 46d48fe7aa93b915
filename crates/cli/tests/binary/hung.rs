//! Nodes that hang (SIGSTOP): the system takes connections for them, and they answer nothing.

use std::fmt::Write;
use std::io::Read;
use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::support::{eventually, preloadable, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

/// So many rows in key order, as `export` writes them.
fn rows(count: u32, value_bytes: usize) -> String {
    let value = "v".repeat(value_bytes);
    (0..count).fold(String::new(), |mut text, number| {
        writeln!(text, "row{number:06}\t{value}").expect("memory");
        text
    })
}

/// Three nodes that have these rows, and lead.
fn trio_with(rows: &str) -> Trio {
    let trio = Trio::start();
    assert!(run(&mut trio.command(&["import", "-"]), rows.as_bytes()).status.success());
    eventually("all are led", || stdout(&run(&mut trio.command(&["status"]), b"")).contains("all led"));
    trio
}

#[test]
fn every_command_leaves_a_first_node_that_hangs() {
    let text = rows(1_000, 10);
    let trio = trio_with(&text);
    trio.stop(0);
    let listed = text.lines().take(3).fold(String::new(), |text, line| text + line + "\n");
    let commands: &[(&[&str], &str)] = &[
        (&["get", "row000001"], "vvvvvvvvvv\n"),
        (&["put", "row000001", "vvvvvvvvvv"], "OK\n"),
        (&["list", "--limit", "3"], &listed),
        (&["export", "-"], &text),
        (&["get", "row000001", "row000002"], "row000001\tvvvvvvvvvv\nrow000002\tvvvvvvvvvv\n"),
    ];
    // At first the others have not missed it yet; then its shards are led by them.
    for round in ["before an election", "after it"] {
        for (command, expected) in commands {
            let begun = Instant::now();
            let output = run(&mut trio.command(command), b"");
            assert!(stdout(&output) == *expected, "{command:?} {round}: {}", stderr(&output));
            let took = begun.elapsed();
            println!("{command:?} {round}: {took:?}");
            let most = if round == "after it" { 1_500 } else { 3_000 };
            assert!(took < Duration::from_millis(most), "{command:?} {round}: {took:?}");
        }
    }
    let begun = Instant::now();
    let status = stdout(&run(&mut trio.command(&["status"]), b""));
    assert!(status.contains("node3") && begun.elapsed() < Duration::from_millis(1_500), "{status}");
    let (code, line) = refusal(&run(&mut trio.command(&["check"]), b""));
    println!("check: {:?}: {line}", begun.elapsed());
    assert!(code == Some(3) && line.contains("those asked agree. Not asked: node1"), "{line}");
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());

    trio.go_on(0);
    eventually("it is welcome again", || run(&mut trio.command(&["check"]), b"").status.code() == Some(0));
}

#[test]
fn the_time_out_is_the_whole_time() {
    let trio = trio_with("k\tv\n");
    for node in 0..3 {
        trio.stop(node);
    }
    for command in [
        &["status"][..],
        &["list"],
        &["check"],
        &["export", "-"],
        &["get", "k"],
        &["put", "k", "v"],
        &["get", "k", "l"],
    ] {
        let begun = Instant::now();
        let output = run(&mut trio.command(&[&["--timeout", "1s"], command].concat()), b"");
        let (took, (code, line)) = (begun.elapsed(), refusal(&output));
        println!("{command:?}: {took:?}: {line}");
        assert!(code == Some(3) && stdout(&output).is_empty(), "{command:?}: {line}");
        assert!(
            took > Duration::from_millis(700) && took < Duration::from_millis(1_400),
            "{command:?}: {took:?}"
        );
    }
}

#[test]
fn an_export_goes_on_at_another_node_when_its_node_hangs() {
    let text = rows(8_000, 4_000);
    let trio = trio_with(&text);
    let mut export = ringfort(&["export", "-", "--addr", &trio.address(0)]);
    let mut export = export.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdout = export.stdout.take().expect("piped");
    let mut exported = vec![0; 1_000_000];
    stdout.read_exact(&mut exported).expect("it writes");
    trio.stop(0);
    // What is written now is not of the moment of the export.
    for key in ["row007999", "row004000", "a", "z"] {
        let put = run(&mut trio.command(&["put", key, "new"]), b"");
        assert_eq!(put.status.code(), Some(0), "{}", stderr(&put));
    }
    let begun = Instant::now();
    stdout.read_to_end(&mut exported).expect("it writes");
    println!("the rest: {:?}", begun.elapsed());
    let mut said = String::new();
    export.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
    assert_eq!(export.wait().expect("ends").code(), Some(0), "{said}");
    assert!(exported == text.as_bytes(), "not the rows that there were: {} bytes", exported.len());
}

#[test]
fn a_name_with_several_addresses_is_as_many_nodes() {
    let node = Node::start();
    let directory = tempfile::tempdir().expect("a directory");
    let library = preloadable("names", directory.path());
    let port = node.address.rsplit(':').next().expect("a port");
    // The first of them takes connections and says nothing.
    let _silent = TcpListener::bind(format!("127.0.0.2:{port}")).expect("all of 127.0.0.0/8 is this machine");
    let address = format!("cluster.test:{port}");
    for command in [&["put", "k", "v"][..], &["get", "k"], &["list"], &["status"], &["check"]] {
        let begun = Instant::now();
        let mut command = ringfort(&[&["--addr", &address], command].concat());
        let output = run(command.env("LD_PRELOAD", &library), b"");
        println!("{command:?}: {:?}", begun.elapsed());
        assert_eq!(output.status.code(), Some(0), "{command:?}: {}", stderr(&output));
        assert!(begun.elapsed() < Duration::from_millis(1_500), "{command:?}: {:?}", begun.elapsed());
    }
    // Each of them is asked for its health.
    let mut health = ringfort(&["--addr", &address, "--timeout", "1s", "health"]);
    let asked = run(health.env("LD_PRELOAD", &library), b"");
    assert_eq!(asked.status.code(), Some(3), "one of them is silent");
    assert_eq!(stdout(&asked), format!("{} SERVING\n", node.address));
    assert!(stderr(&asked).contains(&format!("127.0.0.2:{port}")), "{}", stderr(&asked));
}
