//! `--reads-from`: whom reads are asked of. A node that hangs is noticed only by those who ask it.

use std::process::Command;

use crate::support::{eventually, objects, run, stderr};
use crate::trio::Trio;

/// Two nodes that serve, with a row for each of so many keys, and one that is stopped in its tracks and leads nothing.
fn with_one_hanging(keys: &[String]) -> Trio {
    let trio = Trio::start();
    let rows = keys.iter().fold(String::new(), |rows, key| rows + key + "\tvalue\n");
    let imported = run(&mut trio.command(&["import", "-"]), rows.as_bytes());
    assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    let node = trio.nodes[2].as_ref().expect("it runs").id().to_string();
    assert!(Command::new("kill").args(["-STOP", &node]).status().expect("kill runs").success());
    trio
}

/// A command whose answers come from those two.
fn command(trio: &Trio, arguments: &[&str]) -> Command {
    let mut command = trio.command(arguments);
    command.env("RINGFORT_ADDR", trio.addresses()[..2].join(","));
    // Too short for a read to be asked of a second node.
    command.args(["--timeout", "1s"]);
    command
}

#[test]
fn reads_are_asked_of_whom_a_flag_or_the_environment_says() {
    let keys: Vec<String> = (0..60).map(|n| format!("key-{n:012}")).collect();
    let trio = with_one_hanging(&keys);
    let get: Vec<&str> = std::iter::once("get").chain(keys.iter().map(String::as_str)).collect();
    let code = |command: &mut Command| run(command, b"").status.code();
    let with = |more: &[&str]| command(&trio, &[&get[..], more].concat());
    eventually("the leaders answer", || code(&mut with(&[])) == Some(0));

    assert_eq!(code(&mut with(&["--reads-from", "replicas"])), Some(3), "one of three hangs");
    assert_eq!(code(&mut with(&["--reads-from", "replicas", "--stale"])), Some(3));
    assert_eq!(code(with(&[]).env("RINGFORT_READS_FROM", "replicas")), Some(3));
    let mut flag = with(&["--reads-from", "leader"]);
    eventually("a flag beats the environment", || {
        code(flag.env("RINGFORT_READS_FROM", "replicas")) == Some(0)
    });
    let mut lease = with(&["--reads-from", "replicas", "--consistency", "lease"]);
    eventually("lease reads go to the leader", || code(&mut lease) == Some(0));

    // One key often enough, in one process, that it is everybody's turn.
    let often = format!("get {}\n", keys[0]).repeat(3);
    let shell =
        |who| run(&mut command(&trio, &["shell", "--reads-from", who]), often.as_bytes()).status.code();
    assert_eq!(shell("replicas"), Some(3));
    eventually("a shell asks leaders", || shell("leader") == Some(0));

    let bench = |more: &[&str]| {
        let bench = ["bench", "--workload", "get", "--skip-load", "--keys", "60", "--seconds", "2", "--json"];
        let measured = run(&mut command(&trio, &[&bench[..], more].concat()), b"");
        objects(&measured)[0].clone()
    };
    let spread = bench(&["--reads-from", "replicas", "--consistency", "stale"]);
    assert!(spread["errors"].as_u64() > Some(0), "{spread}");
    assert_eq!((&spread["reads_from"], &spread["consistency"]), (&"replicas".into(), &"stale".into()));
    let led = bench(&[]);
    assert_eq!((led.get("reads_from"), led.get("consistency")), (None, None), "{led}");
    assert_eq!(led["errors"], 0, "{led}");
}
