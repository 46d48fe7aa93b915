//! `--copies`: a write waits for as many disks as it is told, and says so if it could not.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::support::{eventually, objects, refusal, ringfort, run, stderr, stdout};
use crate::trio::Trio;

const FEW: &str = "ringfort: written, but only 2 of 3 copies are on disk so far\n";

/// The exit code, and what is on stdout and stderr.
fn said(command: &mut Command, input: &[u8]) -> (Option<i32>, String, String) {
    let output = run(command, input);
    (output.status.code(), stdout(&output), stderr(&output))
}

fn done() -> (Option<i32>, String, String) {
    (Some(0), "OK\n".into(), String::new())
}

/// What is printed as ever, and what is said beside it.
fn too_few(printed: &str) -> (Option<i32>, String, String) {
    (Some(3), printed.into(), FEW.into())
}

fn value(trio: &Trio, key: &str) -> String {
    said(&mut trio.command(&["get", key]), b"").1
}

#[test]
fn a_write_waits_for_as_many_disks_as_it_is_told() {
    let mut trio = Trio::start();
    let put = |trio: &Trio, more: &[&str]| said(&mut trio.command(&[&["put", "{c}k"], more].concat()), b"");
    eventually("it is written to", || put(&trio, &["0"]) == done());
    assert_eq!(put(&trio, &["1", "--copies", "3"]), done());
    let all = objects(&run(&mut trio.command(&["put", "{c}k", "2", "--copies", "3", "--json"]), b""));
    assert_eq!(all[0]["copies"], 3);
    let (code, line) = refusal(&run(&mut trio.command(&["put", "{c}k", "3", "--copies", "4"]), b""));
    assert!(code == Some(2) && line.contains("4 copies were asked for"), "{line}");
    assert!(line.contains("has 3 replicas: nothing was written"), "{line}");
    assert_eq!(value(&trio, "{c}k"), "2\n");

    trio.kill(2);
    eventually("its shards are led by others", || put(&trio, &["4", "--timeout", "1s"]) == done());
    every_write_says_that_it_has_too_few(&trio);
    a_flag_the_environment_or_a_file_says_how_many(&trio);
    trio.start_node(2);
    eventually("it is back", || put(&trio, &["5", "--copies", "3"]) == done());
}

fn every_write_says_that_it_has_too_few(trio: &Trio) {
    let ask = |arguments: &[&str], input: &[u8]| {
        said(&mut trio.command(&[arguments, &["--copies", "3", "--timeout", "1s"]].concat()), input)
    };
    assert_eq!(ask(&["put", "{c}a", "Ada"], b""), too_few("OK\n"));
    assert_eq!(value(trio, "{c}a"), "Ada\n", "the write stands");
    assert_eq!(ask(&["put", "{c}a", "Bo", "--if-value", "Ada"], b""), too_few("OK\n"));
    assert_eq!(value(trio, "{c}a"), "Bo\n");
    let (code, _, said) = ask(&["put", "{c}a", "Cy", "--if-value", "Ada"], b"");
    assert!(code == Some(1) && said.starts_with("not done: "), "what is not done has no copies: {said}");
    assert_eq!(ask(&["delete", "{c}a"], b""), too_few("OK\n"));
    assert_eq!(value(trio, "{c}a"), "");
    assert_eq!(ask(&["incr", "{c}n", "7"], b""), too_few("7\n"));
    assert_eq!(ask(&["write"], b"put\t{c}a\tDi\ndelete\t{c}n\n"), too_few("OK\n"));
    assert_eq!((value(trio, "{c}a"), value(trio, "{c}n")), ("Di\n".into(), String::new()));

    let (code, printed, said) = ask(&["put", "{c}a", "Ed", "--json"], b"");
    let receipt: Value = serde_json::from_str(&printed).expect("one object");
    assert_eq!((code, said.as_str()), (Some(3), FEW));
    assert_eq!((&receipt["done"], &receipt["copies"]), (&true.into(), &2.into()));

    let (code, printed, said) = ask(&["shell"], b"put {c}a Flo\nincr {c}n\ndelete {c}n\nget {c}a\n");
    assert_eq!(printed, "Stored and replicated\n1\nDeleted\n{c}a = Flo\n");
    assert_eq!((code, said), (Some(3), FEW.repeat(3)));
}

fn a_flag_the_environment_or_a_file_says_how_many(trio: &Trio) {
    let file = trio.directory.path().join("ringfort.toml");
    fs::write(&file, "copies = 3\n").expect("written");
    let file = file.to_str().expect("a plain path");
    let put = |more: &[&str], variable: &str| {
        let mut put = trio.command(&[&["put", "{c}s", "x", "--timeout", "1s"], more].concat());
        put.env("RINGFORT_COPIES", variable);
        said(&mut put, b"")
    };
    assert_eq!(put(&[], "3"), too_few("OK\n"));
    assert_eq!(put(&["--config", file], ""), too_few("OK\n"));
    assert_eq!(put(&["--config", file], "2"), done(), "the environment beats the file");
    assert_eq!(put(&["--copies", "1"], "3"), done(), "a flag beats the environment");
    let config = run(ringfort(&["config", "--json"]).env("RINGFORT_COPIES", "3"), b"");
    let said = objects(&config).into_iter().find(|object| object["setting"] == "copies").expect("it is one");
    assert_eq!((&said["value"], &said["variable"]), (&"3".into(), &"RINGFORT_COPIES".into()));
}
