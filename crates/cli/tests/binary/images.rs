//! Data directories that are put back as they were before.

use std::fs;
use std::path::PathBuf;

use crate::support::{copy, eventually, run, stdout};
use crate::trio::Trio;

/// What a node says once that has found out.
const OLDER: &str = "the data directory is older than it was: its log ended with batch";

fn directory(trio: &Trio, node: usize) -> PathBuf {
    trio.directory.path().join(format!("node{}", node + 1))
}

fn load(trio: &Trio, value: &str) {
    let rows: String = (0..2_000).map(|i| format!("key{i:05}\t{value}\n")).collect();
    let output = run(&mut trio.command(&["import", "-"]), rows.as_bytes());
    assert!(output.status.success(), "{output:?}");
}

fn assert_whole(trio: &Trio, value: &str) {
    let mut last = None;
    eventually("all replicas agree", || {
        let output = run(&mut trio.command(&["check"]), b"");
        let agrees = output.status.success();
        last = Some(output);
        agrees
    });
    let listed = stdout(&run(&mut trio.command(&["list"]), b""));
    let rows: Vec<&str> = listed.lines().collect();
    assert_eq!(rows.len(), 2_000, "{last:?}");
    assert!(rows.iter().all(|row| row.ends_with(value)), "an older value is back");
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

fn put_back(trio: &Trio, node: usize, image: &PathBuf) {
    fs::remove_dir_all(directory(trio, node)).expect("it was there");
    copy(image, &directory(trio, node));
}

#[test]
fn a_node_on_an_older_directory_is_made_anew_by_itself() {
    let mut trio = Trio::start();
    load(&trio, "before");
    let image = take_image(&mut trio, 2);
    load(&trio, "after");
    trio.kill(2);
    put_back(&trio, 2, &image);
    trio.start_node(2);
    eventually("it has noticed", || trio.said(2).contains(OLDER));
    assert_whole(&trio, "after");
    eventually("nothing is damaged any more", || {
        let state = stdout(&run(&mut trio.command(&["status", "--json"]), b""));
        !state.contains("\"damaged\":true") && !state.contains("takes no part")
    });
    assert_eq!(trio.said(2).matches(OLDER).count(), 1, "it says so once:\n{}", trio.said(2));
    assert!(trio.said(0).contains("the disk of node3 is older than it was"), "{}", trio.said(0));

    // Nor is it an older disk at any later start.
    trio.terminate(2);
    trio.start_node(2);
    eventually("it serves again", || trio.said(2).contains("serves on"));
    assert_whole(&trio, "after");
    assert!(!trio.said(2).contains(OLDER), "{}", trio.said(2));
}

#[test]
fn an_older_directory_is_noticed_though_all_nodes_start_again() {
    let mut trio = Trio::start();
    load(&trio, "before");
    let image = take_image(&mut trio, 2);
    load(&trio, "after");
    // Until then the others may have kept nothing of it.
    std::thread::sleep(std::time::Duration::from_millis(6_000));
    (0..3).for_each(|node| trio.kill(node));
    put_back(&trio, 2, &image);
    trio.start_all();
    eventually("it has noticed", || trio.said(2).contains(OLDER));
    assert_whole(&trio, "after");
}
