//! Exports and lists that are read slowly while everything is overwritten, and nodes are killed, against real processes.

use std::fmt::Write;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::node::Node;
use crate::support::{eventually, ringfort, run, stderr};
use crate::trio::Trio;

const ROWS: usize = 30_000;

/// All rows, as written for the so-manieth time.
fn rows(turn: usize) -> String {
    let (mut rows, value) = (String::new(), "v".repeat(300));
    for row in 0..ROWS {
        writeln!(rows, "row{row:06}\t{turn}{value}").expect("memory");
    }
    rows
}

fn write(node: &Node, turn: usize) {
    let imported = run(&mut ringfort(&["--addr", &node.address, "import", "-"]), rows(turn).as_bytes());
    assert!(imported.status.success(), "{}", stderr(&imported));
}

/// A command whose first rows have been read, and which waits for somebody to read on.
struct Slow {
    child: Child,
    read: Vec<u8>,
}

impl Slow {
    fn start(node: &Node, arguments: &[&str]) -> Slow {
        let mut command = ringfort(&["--addr", &node.address]);
        command.args(arguments);
        Slow::run(command)
    }

    fn run(mut command: Command) -> Slow {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut slow = Slow { child: command.spawn().expect("starts"), read: vec![0; 64 * 1024] };
        slow.child.stdout.as_mut().expect("piped").read_exact(&mut slow.read).expect("the first rows");
        slow
    }

    /// The exit code, all rows, and what was said on stderr.
    fn read_on(mut self) -> (Option<i32>, String, String) {
        let mut said = String::new();
        self.child.stdout.take().expect("piped").read_to_end(&mut self.read).expect("rows");
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("text");
        let code = self.child.wait().expect("ends").code();
        (code, String::from_utf8(self.read).expect("text"), said)
    }
}

#[test]
fn a_slow_export_is_whole_and_of_one_moment_however_much_is_written() {
    let node = Node::start_with(&["--memtable-mb", "1"]);
    write(&node, 0);
    let export = Slow::start(&node, &["export", "-"]);
    for turn in 1..=4 {
        write(&node, turn);
    }
    let (code, exported, said) = export.read_on();
    assert_eq!(code, Some(0), "{said}");
    assert!(exported == rows(0), "{} rows, not all as they were", exported.lines().count());
}

#[test]
fn a_read_that_costs_too_much_disk_ends_or_goes_on_if_that_was_asked_for() {
    let node = Node::start_with(&["--memtable-mb", "1", "--held-reads-mb", "4"]);
    write(&node, 0);
    let plain = Slow::start(&node, &["export", "-"]);
    let resumed = Slow::start(&node, &["export", "-", "--json", "--format", "tsv", "--resume"]);
    let limited = Slow::start(&node, &["list", "--resume", "--limit", "29999"]);
    write(&node, 1);
    write(&node, 2);
    eventually("the node says so", || {
        let said = node.said();
        said.contains("given up, the last one of shard") && said.contains(": long reads held more than 4 MiB")
    });

    let (code, exported, said) = plain.read_on();
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("--held-reads-mb") && said.contains("--resume"), "{said}");
    assert!(rows(0).starts_with(&exported), "what there is, is of one moment");

    let (code, exported, said) = resumed.read_on();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("goes on behind key \"row0") && said.contains("\"resumed\":1"), "{said}");
    let keys = |rows: &str| rows.lines().map(|row| row[..9].to_owned()).collect::<Vec<_>>();
    assert_eq!(keys(&exported), keys(&rows(0)), "each row once, in order");
    let (before, after) = (rows(0), rows(2));
    let old = exported.lines().zip(before.lines()).take_while(|(row, old)| row == old).count();
    assert!(old > 0 && old < ROWS, "{old} rows of the first moment");
    assert!(exported.lines().zip(after.lines()).skip(old).all(|(row, new)| row == new), "two moments");

    let (code, listed, said) = limited.read_on();
    assert_eq!((code, listed.lines().count()), (Some(0), 29_999), "{said}");
    assert!(said.contains("goes on behind key"), "{said}");
}

const LARGE_ROWS: usize = 3_000;

/// Fewer rows with more in them, as written for the so-manieth time. Most of them are not on their way yet when an export waits for its
/// reader.
fn large_rows(turn: usize) -> String {
    let (mut rows, value) = (String::new(), "v".repeat(12_000));
    for row in 0..LARGE_ROWS {
        writeln!(rows, "row{row:06}\t{turn}{value}").expect("memory");
    }
    rows
}

fn overwrite(trio: &Trio, turn: usize) {
    let imported = run(&mut trio.command(&["import", "-"]), large_rows(turn).as_bytes());
    assert!(imported.status.success(), "{}", stderr(&imported));
}

/// Starts a node again, and waits until it serves.
fn start_again(trio: &mut Trio, node: usize) {
    trio.start_node(node);
    eventually("it serves", || trio.said(node).contains("serves on"));
}

/// Whichever node has served it by then: each is killed once.
#[test]
fn an_export_is_whole_and_of_one_moment_although_its_node_is_killed_and_all_is_overwritten() {
    let mut trio = Trio::start_with(|_| ["--memtable-mb", "1"].map(str::to_owned).to_vec());
    overwrite(&trio, 0);
    for victim in 0..3 {
        let before = 2 * victim;
        let export = Slow::run(trio.command(&["export", "-"]));
        // Until another node keeps for it what it reads, too.
        std::thread::sleep(Duration::from_secs(1));
        overwrite(&trio, before + 1);
        overwrite(&trio, before + 2);
        trio.kill(victim);
        let (code, exported, said) = export.read_on();
        assert_eq!(code, Some(0), "node{} was killed: {said}", victim + 1);
        assert!(exported == large_rows(before), "{} rows, not all as they were", exported.lines().count());
        start_again(&mut trio, victim);
    }
}

/// Nobody keeps what it reads for long.
#[test]
fn an_export_whose_node_is_killed_ends_with_the_way_on_or_goes_on_if_that_was_asked_for() {
    let flags = ["--memtable-mb", "1", "--held-reads-mb", "1"];
    let mut trio = Trio::start_with(|_| flags.map(str::to_owned).to_vec());
    overwrite(&trio, 0);
    for victim in 0..3 {
        let before = 2 * victim;
        let plain = Slow::run(trio.command(&["export", "-"]));
        let resumed = Slow::run(trio.command(&["export", "-", "--resume"]));
        overwrite(&trio, before + 1);
        overwrite(&trio, before + 2);
        trio.kill(victim);

        let (code, exported, said) = plain.read_on();
        assert_eq!(code, Some(3), "node{} was killed: {said}", victim + 1);
        assert!(said.lines().count() == 1 && said.contains("--resume"), "{said}");
        assert!(large_rows(before).starts_with(&exported), "what there is, is of one moment");

        let (code, exported, said) = resumed.read_on();
        assert_eq!(code, Some(0), "node{} was killed: {said}", victim + 1);
        assert!(said.contains("goes on behind key \"row00"), "{said}");
        let keys = |rows: &str| rows.lines().map(|row| row[..9].to_owned()).collect::<Vec<_>>();
        assert_eq!(keys(&exported), keys(&large_rows(0)), "each row once, in order");
        start_again(&mut trio, victim);
    }
}
