//! Data directories that are put back as they were before.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::{copy, ended, eventually, free_ports, ringfort, run, stdout};
use crate::trio::Trio;

const OLDER: &str = "the data directory is older than it was: its log ends with batch";

fn directory(trio: &Trio, node: usize) -> PathBuf {
    trio.directory.path().join(format!("node{}", node + 1))
}

fn load(trio: &Trio, value: &str) {
    let row = |i| format!("key{i:05}\t{value}\n");
    let rows = (0..2_000).map(row).collect::<Vec<String>>().concat();
    let output = run(&mut trio.command(&["import", "-"]), rows.as_bytes());
    assert!(output.status.success(), "{output:?}");
}

fn assert_whole(trio: &Trio, value: &str) {
    // Replicas may be on their way, eight at a time.
    let begun = Instant::now();
    loop {
        let output = run(&mut trio.command(&["check"]), b"");
        if output.status.success() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_mins(1), "{output:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
    let listed = stdout(&run(&mut trio.command(&["list"]), b""));
    let rows: Vec<&str> = listed.lines().collect();
    assert_eq!(rows.len(), 2_000);
    assert!(rows.iter().all(|row| row.ends_with(value)), "an older value is back");
}

/// The other two have it all.
fn assert_whole_without(trio: &Trio, value: &str) {
    let mut listed = String::new();
    eventually("the others serve", || {
        let output = run(&mut trio.command(&["list"]), b"");
        listed = stdout(&output);
        output.status.success()
    });
    assert_eq!(listed.lines().filter(|row| row.ends_with(value)).count(), 2_000);
}

/// A copy of a stopped node's directory, which then goes on.
fn take_image(trio: &mut Trio, node: usize) -> PathBuf {
    trio.terminate(node);
    let image = trio.directory.path().join("image");
    copy(&directory(trio, node), &image);
    trio.start_node(node);
    eventually("it serves again", || trio.said(node).contains("serves on"));
    image
}

fn put_back(trio: &Trio, node: usize, image: &Path) {
    fs::remove_dir_all(directory(trio, node)).expect("it was there");
    copy(image, &directory(trio, node));
}

/// It ends with exit code 2, and says what to do.
fn assert_refused(trio: &mut Trio, node: usize) {
    let mut child = trio.nodes[node].take().expect("it was started");
    assert_eq!(ended(&mut child).code(), Some(2), "{}", trio.said(node));
    let said = trio.said(node);
    for says in [OLDER, "Put it back as it was", "ringfort start --id node3 --addr", "--replace"] {
        assert!(said.contains(says), "{says}: {said}");
    }
}

#[test]
fn a_node_on_an_older_directory_is_refused_and_the_printed_command_makes_the_cluster_whole() {
    let mut trio = Trio::start();
    load(&trio, "before");
    let image = take_image(&mut trio, 2);
    load(&trio, "after");
    // Nobody listens to a process in its first seconds if the one before it may not have ended yet. What nobody has heard of its log
    // nobody can hold against it.
    assert_whole(&trio, "after");
    trio.kill(2);
    let as_it_was = trio.directory.path().join("as-it-was");
    fs::rename(directory(&trio, 2), &as_it_was).expect("it was there");
    copy(&image, &directory(&trio, 2));
    trio.start_node(2);
    assert_refused(&mut trio, 2);
    let noticed = |node| trio.said(node).contains("the data directory of node3 is older than it was");
    assert!(noticed(0) || noticed(1), "{}", trio.said(0));

    // As it was last it is let in.
    fs::remove_dir_all(directory(&trio, 2)).expect("it was there");
    fs::rename(&as_it_was, directory(&trio, 2)).expect("it was there");
    trio.start_node(2);
    eventually("it serves again", || trio.said(2).contains("serves on"));
    assert_whole(&trio, "after");

    // Lost for good, and put back on another machine: the command that was printed, with an empty directory.
    trio.kill(2);
    put_back(&trio, 2, &image);
    let elsewhere = format!("127.0.0.1:{}", free_ports(1));
    trio.moved[2] = Some(elsewhere.clone());
    trio.start_node(2);
    assert_refused(&mut trio, 2);
    let said = trio.said(2);
    assert!(said.contains(&format!("--addr {elsewhere} ")), "{said}");
    let command = said.split("ringfort start ").nth(1).expect("a command");
    let command = command.split(", with a directory").next().expect("its end").replace("DIR", "EMPTY");
    let empty = trio.directory.path().join("empty");
    let words: Vec<String> =
        command.split_whitespace().map(|word| word.replace("EMPTY", &empty.display().to_string())).collect();
    let log = fs::File::create(trio.log(2)).expect("a log");
    let errors = log.try_clone().expect("a log");
    let child = ringfort(&["start"]).args(&words).stdout(log).stderr(errors).spawn().expect("starts");
    trio.nodes[2] = Some(child);
    let begun = Instant::now();
    while !trio.said(2).contains("serves on") {
        assert!(begun.elapsed() < Duration::from_mins(1), "{command}: {}", trio.said(2));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_whole(&trio, "after");
}

#[test]
fn an_older_directory_is_refused_though_all_nodes_start_again() {
    let mut trio = Trio::start();
    load(&trio, "before");
    let image = take_image(&mut trio, 2);
    load(&trio, "after");
    assert_whole(&trio, "after");
    // Until then the others may have kept nothing of it.
    std::thread::sleep(Duration::from_secs(6));
    (0..3).for_each(|node| trio.kill(node));
    put_back(&trio, 2, &image);
    (0..3).for_each(|node| trio.start_node(node));
    assert_refused(&mut trio, 2);
    assert_whole_without(&trio, "after");
}
