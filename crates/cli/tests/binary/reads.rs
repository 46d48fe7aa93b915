//! `--reads-from`: whom reads are asked of. A node that hangs is noticed only by those who had asked it before.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use crate::support::{eventually, objects, run, stderr};
use crate::trio::Trio;

const KEYS: usize = 60;

/// Three nodes with a row for each of some keys, the first of which leads nothing.
fn with_rows() -> Trio {
    let trio = Trio::start();
    let set = run(&mut trio.command(&["cluster", "set", "leader-preference=highest-id"]), b"");
    assert_eq!(set.status.code(), Some(0), "{}", stderr(&set));
    eventually("the third leads", || {
        let shards = objects(&run(&mut trio.command(&["cluster", "shards", "--json"]), b""));
        shards.iter().all(|shard| shard["leader"] == 3)
    });
    let rows: String = (0..KEYS).flat_map(|n| [key(n), "\tvalue\n".to_owned()]).collect();
    let imported = run(&mut trio.command(&["import", "-"]), rows.as_bytes());
    assert_eq!(imported.status.code(), Some(0), "{}", stderr(&imported));
    trio
}

fn key(n: usize) -> String {
    format!("key-{n:012}")
}

fn command(trio: &Trio, arguments: &[&str]) -> Command {
    let mut command = trio.command(arguments);
    // Too short for a read to be asked of a second node.
    command.args(["--timeout", "1s"]);
    command
}

/// Whether a shell that has read all keys reads them all again while a node hangs that leads nothing.
fn reads_on_beside_one_that_hangs(trio: &Trio, shell: &mut Command) -> bool {
    let mut shell = shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    let mut input = shell.stdin.take().expect("piped");
    let mut answers = BufReader::new(shell.stdout.take().expect("piped")).lines();
    let all: String = (0..KEYS).map(|n| ["get ", &key(n), "\n"].concat()).collect();
    input.write_all(all.as_bytes()).expect("it reads");
    for n in 0..KEYS {
        let answer = answers.next().expect("an answer").expect("text");
        assert_eq!(answer, format!("{} = value", key(n)));
    }
    trio.stop(0);
    input.write_all(all.as_bytes()).expect("it reads");
    drop(input);
    let rest = answers.map_while(Result::ok).filter(|answer| answer.ends_with(" = value")).count();
    shell.wait().expect("it ends");
    trio.go_on(0);
    eventually("it takes part again", || {
        let state = run(&mut trio.command(&["safe-to-stop", "node2"]), b"");
        state.status.code() == Some(0)
    });
    rest == KEYS
}

#[test]
fn reads_are_asked_of_whom_a_flag_or_the_environment_says() {
    let trio = with_rows();
    let shell = |more: &[&str]| command(&trio, &[&["shell"], more].concat());
    let goes_on = |shell: &mut Command| reads_on_beside_one_that_hangs(&trio, shell);
    assert!(!goes_on(&mut shell(&["--reads-from", "replicas"])), "one of three hangs");
    assert!(!goes_on(&mut shell(&["--reads-from", "replicas", "--consistency", "stale"])));
    assert!(!goes_on(shell(&[]).env("RINGFORT_READS_FROM", "replicas")));
    assert!(goes_on(&mut shell(&[])), "the leaders answer");
    let mut flag = shell(&["--reads-from", "leader"]);
    assert!(goes_on(flag.env("RINGFORT_READS_FROM", "replicas")), "a flag beats the environment");
    let lease = &["--reads-from", "replicas", "--consistency", "lease"];
    assert!(goes_on(&mut shell(lease)), "lease reads go to the leader");

    let bench = |more: &[&str]| {
        let bench = ["bench", "--workload", "get", "--skip-load", "--keys", "60", "--seconds", "1", "--json"];
        let measured = run(&mut command(&trio, &[&bench[..], more].concat()), b"");
        objects(&measured)[0].clone()
    };
    let spread = bench(&["--reads-from", "replicas", "--consistency", "stale"]);
    assert_eq!((&spread["reads_from"], &spread["consistency"]), (&"replicas".into(), &"stale".into()));
    let led = bench(&[]);
    assert_eq!((led.get("reads_from"), led.get("consistency")), (None, None), "{led}");
    assert_eq!(led["errors"], 0, "{led}");
}
