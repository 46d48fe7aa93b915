//! Another version of the binary and this one in one cluster: its nodes are restarted one by one under load, from the other to this
//! one and back. `RINGFORT_TEST_OTHER` names the other one; without it, it is this one, so that the test itself is tried. `cargo xtask upgrade`
//! builds it from an earlier commit.

use std::path::PathBuf;
use std::process::Output;

use crate::rolling::{restart, under_load};
use crate::support::{eventually, run, stdout};
use crate::trio::Trio;

/// How a node says which level is in force: `level = auto (level 1 is in force)`.
fn level_in_force(trio: &Trio) -> u16 {
    let told = stdout(&run(&mut trio.command(&["cluster", "set", "--json"]), b""));
    let told: serde_json::Value =
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{told}: {error}"));
    told["level"].as_u64().expect("a number") as u16
}

fn set_level(trio: &Trio, level: &str) {
    let output = set(trio, level);
    assert!(output.status.success(), "{output:?}");
}

fn set(trio: &Trio, level: &str) -> Output {
    run(&mut trio.command(&["cluster", "set", &format!("level={level}")]), b"")
}

#[test]
fn two_versions_take_each_others_place_node_by_node() {
    let other = std::env::var_os("RINGFORT_TEST_OTHER").map(PathBuf::from);
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    trio.binaries = [0, 1, 2].map(|_| other.clone());
    trio.start_all();
    // So that there is a way back: it rises no further than it has come.
    eventually("it is held back where it is", || {
        let level = level_in_force(&trio).to_string();
        set(&trio, &level).status.success()
    });
    let level = level_in_force(&trio);
    under_load(&mut trio, |trio| {
        for node in 0..3 {
            trio.binaries[node] = None;
            restart(trio, node);
        }
        assert_eq!(level_in_force(trio), level);
        for node in 0..3 {
            trio.binaries[node].clone_from(&other);
            restart(trio, node);
        }
        // And for good.
        for node in 0..3 {
            trio.binaries[node] = None;
            restart(trio, node);
        }
        set_level(trio, "auto");
    });
    let output = run(&mut trio.command(&["check"]), b"");
    assert!(output.status.success(), "{output:?}");
}
