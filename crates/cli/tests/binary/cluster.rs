//! Every command against real nodes, by `ringfort dev`.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use crate::support::{
    Dev, ask_to_stop, eventually, free_ports, is_free, objects, refusal, ringfort, run, stderr, stdout,
};
use crate::trio::Trio;

/// So many rows in key order, as `export` writes them, with bytes that need escaping.
fn rows(count: u32) -> String {
    lines((0..count).map(|n| format!("row-{n:06}\tvalue {n} \\t\\n\\r\\\\ é")))
}

fn lines(lines: impl Iterator<Item = impl AsRef<str>>) -> String {
    lines.fold(String::new(), |text, line| text + line.as_ref() + "\n")
}

#[test]
fn dev_from_a_pipe_answers_and_leaves_nothing() {
    let base = free_ports(3);
    let temporary = tempfile::tempdir().expect("a directory");
    let mut dev = ringfort(&["dev", "--shards", "8", "--base-port", &base.to_string()]);
    dev.env("TMPDIR", temporary.path());
    let output =
        run(&mut dev, b"put name Ada\nget name\nput name Ada Lovelace\nlist\ndelete name\nget name\n");
    let expected = "Stored and replicated\nname = Ada\nStored and replicated\nname = Ada Lovelace\nDeleted\n(not found)\n";
    assert_eq!((stdout(&output), stderr(&output)), (expected.into(), String::new()));
    assert_eq!(output.status.code(), Some(0));
    assert!((base..base + 3).all(is_free), "a node is still there");
    assert_eq!(fs::read_dir(temporary.path()).expect("there").count(), 0, "something is left");
}

#[test]
fn every_command_does_what_it_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());

    assert_eq!(dev.ok(&["put", "name", "Ada"], b""), "OK\n");
    assert_eq!(dev.ok(&["get", "name"], b""), "Ada\n");
    assert_eq!(dev.ok(&["get", "name", "--raw"], b""), "Ada");
    for node in 1..=3 {
        let output = run(&mut ringfort(&["--addr", &dev.address(node), "get", "name"]), b"");
        assert_eq!(stdout(&output), "Ada\n", "node {node}");
    }
    assert_eq!(dev.ok(&["put", "minus", "-5"], b""), "OK\n");
    assert_eq!(dev.ok(&["get", "minus"], b""), "-5\n");
    let value: Vec<u8> = (0..=255).cycle().take(3 * 1024 * 1024).collect();
    assert_eq!(dev.ok(&["put", "blob", "-"], &value), "OK\n");
    let blob = run(&mut dev.command(&["get", "--raw", "blob"]), b"");
    assert!(blob.stdout == value, "a value comes back as it went");
    assert_eq!(dev.ok(&["delete", "blob"], b""), "OK\n");
    assert_eq!(dev.ok(&["delete", "blob"], b""), "OK\n");
    let missing = run(&mut dev.command(&["get", "blob"]), b"");
    assert_eq!((missing.status.code(), stderr(&missing)), (Some(1), "(not found)\n".into()));
    assert!(missing.stdout.is_empty());
    assert_eq!(dev.ok(&["delete", "name"], b"") + &dev.ok(&["delete", "minus"], b""), "OK\nOK\n");

    let text = rows(5000);
    assert!(dev.ok(&["import", "-"], text.as_bytes()).starts_with("imported 5000 rows, "));
    let exported = run(&mut dev.command(&["export", "-"]), b"");
    assert!(stdout(&exported) == text, "export gives back what import took");
    assert!(stderr(&exported).starts_with("exported 5000 rows, "));
    let file = directory.path().join("rows.tsv");
    let name = file.to_str().expect("a plain path");
    assert!(dev.ok(&["export", name], b"").starts_with("exported 5000 rows, "));
    assert!(fs::read_to_string(&file).expect("written") == text);
    assert!(dev.ok(&["import", name, "--skip", "4998"], b"").starts_with("imported 2 rows, "));
    let listed = dev.ok(&["list", "--prefix", "row-00001", "--limit", "3"], b"");
    assert_eq!(listed, lines(text.lines().skip(10).take(3)));
    let keys = dev.ok(&["list", "--keys-only", "--from", "row-004998"], b"");
    assert_eq!(keys, "row-004998\nrow-004999\n");
    assert_eq!(dev.ok(&["list", "--limit", "0"], b""), "");
    a_reader_who_has_seen_enough_is_no_failure(&dev);

    let (code, line) = refusal(&run(&mut dev.command(&["import", "-"]), b"a\t1\nb\t2\nc 3\nd\t4\n"));
    assert_eq!(code, Some(2), "{line}");
    assert!(line.contains("line 3: no tab") && line.contains("acknowledged 2 rows"), "{line}");
    assert!(line.ends_with("nothing sent from line 3 on; go on with --skip 2"), "{line}");
    // A key that comes twice ends with its later value, however many rows are in flight.
    let twice = lines((0..2000).map(|n| format!("same\t{n}")));
    assert!(dev.ok(&["import", "-"], twice.as_bytes()).starts_with("imported 2000 rows, "));
    assert_eq!(dev.ok(&["get", "same"], b""), "1999\n");

    assert_eq!(dev.ok(&["check"], b""), "16 shards, 3 replicas each: all replicas agree (5003 rows)\n");
    let status = dev.ok(&["status"], b"");
    assert!(status.contains("node2") && status.contains("16 shards, all led"), "{status}");
    let shards = dev.ok(&["status", "--shards"], b"");
    assert_eq!(shards.lines().filter(|line| line.contains("node1@")).count(), 17, "{shards}");
    let json = dev.ok(&["status", "--json"], b"");
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(
        (json["nodes"].as_array().map(Vec::len), json["shards"].as_array().map(Vec::len)),
        (Some(3), Some(17))
    );

    for (transport, workload) in
        [("session", "put"), ("unary", "get"), ("session", "mixed"), ("session", "put-if")]
    {
        let shape = ["--clients", "2", "--in-flight", "8", "--keys", "100", "--seconds", "1", "--json"];
        let what = ["bench", "--workload", workload, "--transport", transport];
        let json = dev.ok(&[&what[..], &shape[..]].concat(), b"");
        let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        assert!(json["ops_per_sec"].as_f64().is_some_and(|rate| rate > 10.0), "{json}");
        assert!(json["latency_us"]["p999"].as_u64() >= json["latency_us"]["p50"].as_u64(), "{json}");
        assert_eq!(json["errors"], 0, "{json}");
        assert_eq!((json.get("consistency"), json.get("at_most_once")), (None, None), "{json}");
    }
    benches_say_what_was_asked_for(&dev);
    benches_clean_up(&dev);
    the_shell_reads_quotes_and_knows_words_of_others(&dev);
    let talk =
        run(&mut dev.command(&["shell"]), b"PUT k  two words\nget k\ndelete k\nget k\nlist row-00000 2\n");
    let mut expected = "Stored and replicated\nk = two words\nDeleted\n(not found)\n".to_owned();
    expected.push_str("row-000000 = value 0 \t\n\r\\ é\nrow-000001 = value 1 \t\n\r\\ é\n");
    assert_eq!((stdout(&talk), talk.status.code()), (expected, Some(0)));

    let base = dev.base_port;
    assert_eq!(dev.leave(), Some(0));
    assert!((base..base + 3).all(is_free), "a node is still there");
}

fn benches_say_what_was_asked_for(dev: &Dev) {
    let bench = |workload: &str, more: &[&str]| {
        let what = ["bench", "--workload", workload, "--seconds", "1"];
        run(&mut dev.command(&[&what[..], more].concat()), b"")
    };
    let words =
        stdout(&bench("get", &["--keys", "50", "--consistency", "lease", "--reads-from", "replicas"]));
    assert!(words.starts_with("get over session, lease reads: 1 client, "), "{words}");
    let words = stdout(&bench("mixed", &["--keys", "50", "--reads-from", "replicas", "--at-most-once"]));
    assert!(words.starts_with("mixed over session, reads from replicas, writes at most once: "), "{words}");
    let words = stdout(&bench("put", &["--keys", "50", "--consistency", "stale"]));
    assert!(words.starts_with("put over session: "), "puts are not stale: {words}");

    // A condition that does not hold is no put.
    let missing = bench("put-if", &["--keys", "100000000", "--in-flight", "1", "--skip-load", "--json"]);
    assert_eq!(missing.status.code(), Some(3));
    let found: serde_json::Value = serde_json::from_str(&stdout(&missing)).expect("JSON");
    assert!(found["ops"] == 0 && found["errors"].as_u64() > Some(0), "{found}");
    assert!(stderr(&missing).contains("leave --skip-load out"), "{}", stderr(&missing));
}

fn benches_clean_up(dev: &Dev) {
    let bench = |workload: &str, more: &[&str]| {
        let what = ["bench", "--workload", workload, "--keys", "100", "--seconds", "1"];
        run(&mut dev.command(&[&what[..], more].concat()), b"")
    };
    let keys = || dev.ok(&["list", "--keys-only", "--prefix", "key-"], b"");
    assert_eq!(bench("put", &["--clean"]).status.code(), Some(0));
    assert_eq!(keys(), "");
    let (code, line) = refusal(&bench("get", &["--skip-load"]));
    assert!(code == Some(2) && line.contains("no run has left keys here"), "{line}");
    dev.ok(&["put", "key-000000000007", "v"], b"");
    let sparse = bench("get", &["--skip-load"]);
    let said = stderr(&sparse);
    assert!(sparse.status.success() && said.contains("found no row: leave --skip-load out"), "{said}");
    let counted: serde_json::Value =
        serde_json::from_str(&stdout(&bench("get", &["--skip-load", "--json"]))).expect("JSON");
    let (missing, all) =
        (counted["missing"].as_u64().expect("counted"), counted["ops"].as_u64().expect("counted"));
    assert!(0 < missing && missing < all, "{counted}");
    let loaded: serde_json::Value =
        serde_json::from_str(&stdout(&bench("get", &["--clean", "--json"]))).expect("JSON");
    assert_eq!((&loaded["missing"], keys()), (&0.into(), String::new()), "{loaded}");

    // A signal ends the measuring, and not the cleaning.
    let mut command = dev.command(&["bench", "--seconds", "600", "--keys", "1000", "--clean"]);
    let bench = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    eventually("it puts keys", || keys().lines().count() > 100);
    ask_to_stop(&bench);
    let interrupted = bench.wait_with_output().expect("it ends");
    assert_eq!(interrupted.status.code(), Some(3));
    assert!(stdout(&interrupted).contains(" ops/s "), "{}", stdout(&interrupted));
    assert_eq!(keys(), "");
}

fn the_shell_reads_quotes_and_knows_words_of_others(dev: &Dev) {
    let lines = br#"put "my key" two words
get 'my key'
put q "a\x41\"b"
get q
list "my" 1
quit now
get "my key
keys
kill node1
delete "my key"
delete q
exit
get never
"#;
    let talk = run(&mut dev.command(&["shell"]), lines);
    let text = stdout(&talk);
    let answers: Vec<&str> = text.lines().collect();
    assert_eq!(
        answers[..5],
        [
            "Stored and replicated",
            "my key = two words",
            "Stored and replicated",
            "q = aA\"b",
            "my key = two words"
        ]
    );
    assert_eq!(answers[5], "Usage: exit");
    assert!(answers[6].contains("a quote is not closed"), "{text}");
    assert!(answers[7].starts_with("list [<prefix>]") && answers[8].contains("`ringfort dev`"), "{text}");
    assert_eq!((&answers[9..], talk.status.code()), (&["Deleted", "Deleted"][..], Some(2)));
}

fn a_reader_who_has_seen_enough_is_no_failure(dev: &Dev) {
    let mut list =
        dev.command(&["list"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut first = String::new();
    BufReader::with_capacity(64, list.stdout.take().expect("piped")).read_line(&mut first).expect("a row");
    assert!(first.starts_with("row-000000\t"));
    let mut errors = String::new();
    list.stderr.take().expect("piped").read_to_string(&mut errors).expect("ends");
    assert_eq!((list.wait().expect("ends").code(), errors), (Some(0), String::new()));
}

#[test]
fn nodes_come_and_go_and_nothing_is_lost() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(directory.path());
    let text = rows(2000);
    assert_eq!(dev.say("kill node1"), "node1 is killed; `start node1` starts it again");
    assert_eq!(dev.say("kill node1"), "error: node1 does not run; `start node1` starts it");
    assert!(dev.say("kill node9").contains("the nodes are node1, node2, node3"));
    assert!(dev.ok(&["import", "-"], text.as_bytes()).starts_with("imported 2000 rows, "));
    let (code, line) = refusal(&run(&mut dev.command(&["check"]), b""));
    assert!(code == Some(3) && line.contains("node1 (16 replicas"), "{line}");

    assert!(dev.say("stop node2").contains("kill <node>"));
    assert!(dev.say("kill node2").contains("killed"));
    let mut status = Vec::new();
    eventually("it is known that nobody leads", || {
        let output = run(&mut dev.command(&["status"]), b"");
        let nobody = stdout(&output).contains("NONE HAS A LEADER");
        status.push((output.status.code(), stderr(&output), stdout(&output)));
        nobody
    });
    let (code, line, shown) = status.last().expect("one at least");
    // (The level may not have risen yet, which is said below that.)
    assert!(shown.lines().any(|line| line.ends_with("lag not known")), "{shown}");
    assert!(
        *code == Some(3) && line.starts_with("ringfort: no shard has a leader: nothing can be written"),
        "{line}"
    );
    for command in [&["get", "row-000001"][..], &["put", "row-000001", "x"], &["list"]] {
        let command = [&["--timeout", "1s"], command].concat();
        let output = run(&mut dev.command(&command), b"");
        assert_eq!((output.status.code(), stdout(&output)), (Some(3), String::new()), "{command:?}");
        refusal(&output);
    }
    assert_eq!(dev.say("start node1"), "node1 is starting");
    assert_eq!(dev.say("start node2"), "node2 is starting");
    eventually("all replicas agree", || {
        run(&mut dev.command(&["check", "--timeout", "2s"]), b"").status.code() == Some(0)
    });
    let after = dev.ok(&["export", "-"], b"");
    // The put without a quorum may have happened.
    let changed = text.replace("row-000001\tvalue 1 \\t\\n\\r\\\\ é", "row-000001\tx");
    assert!(after == text || after == changed, "acknowledged rows are there");
}

#[test]
fn what_a_killed_dev_leaves_goes_with_the_next_one() {
    let base = free_ports(3);
    let temporary = tempfile::tempdir().expect("a directory");
    let dev = || {
        let mut dev = ringfort(&["dev", "--shards", "4", "--base-port", &base.to_string()]);
        dev.env("TMPDIR", temporary.path());
        dev
    };
    let left = || fs::read_dir(temporary.path()).expect("there").count();
    let mut killed = dev().stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
    eventually("its nodes run", || !(base..base + 3).any(is_free));
    killed.kill().expect("it runs");
    killed.wait().expect("it ends");
    assert_eq!(left(), 1, "nobody could remove it");
    // Its nodes may still be stopping.
    let next = run(&mut dev(), b"put name Ada\n");
    assert_eq!(
        (stdout(&next), next.status.code()),
        ("Stored and replicated\n".into(), Some(0)),
        "{}",
        stderr(&next)
    );
    assert!(stderr(&next).contains("which a killed `ringfort dev` had left"), "{}", stderr(&next));
    assert_eq!(left(), 0);
}

#[test]
fn a_dev_that_is_asked_to_end_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut command =
        ringfort(&["dev", "--shards", "4", "--base-port", &free_ports(3).to_string(), "--data-dir"]);
    command.arg(directory.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut dev = command.spawn().expect("starts");
    writeln!(dev.stdin.as_mut().expect("piped"), "get nothing").expect("it reads");
    let mut answer = String::new();
    BufReader::new(dev.stdout.as_mut().expect("piped")).read_line(&mut answer).expect("it answers");
    // As long as that is open, it is not the end of its input that ends it.
    let stdin = dev.stdin.take();
    ask_to_stop(&dev);
    let output = dev.wait_with_output().expect("ends");
    drop(stdin);
    assert_eq!((stderr(&output).as_str(), output.status.code()), ("stopping 3 nodes …\n", Some(3)));
}

#[test]
fn nodes_end_with_a_dev_that_is_killed() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(directory.path());
    dev.child.kill().expect("it runs");
    let base = dev.base_port;
    eventually("the nodes end", || (base..base + 3).all(is_free));
}

#[test]
fn who_has_not_been_heard_of_since_a_start_is_unknown_and_not_down() {
    let mut trio = Trio::start();
    for node in 0..3 {
        trio.kill(node);
    }
    trio.start_node(0);
    let states = || {
        let output = run(&mut ringfort(&["status", "--json", "--addr", &trio.address(0)]), b"");
        let state = objects(&output).pop()?;
        let nodes = state["nodes"].as_array().filter(|nodes| nodes.len() == 3)?;
        Some(nodes.iter().map(|node| node["state"].as_str().expect("a word").to_owned()).collect::<Vec<_>>())
    };
    let mut first = None;
    eventually("it tells of the cluster", || {
        first = states();
        first.is_some()
    });
    assert_eq!(first.expect("told"), ["up", "unknown", "unknown"]);
    eventually("then they are down", || states().is_some_and(|states| states == ["up", "down", "down"]));
    // And whoever asks for a comparison at the start is not told that nobody is there.
    trio.kill(0);
    trio.start_all();
    let checked = run(&mut trio.command(&["check"]), b"");
    assert!(checked.status.success(), "{}{}", stdout(&checked), stderr(&checked));
}

/// On a terminal, whatever is typed or pasted ahead is one command a line, in order, and none gets lost.
#[test]
fn lines_that_are_pasted_into_the_shell_are_commands_each() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());
    let shell = dev.command(&["shell"]);
    let program = shell.get_program().to_str().expect("a plain path");
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &format!("{program} shell"), "/dev/null"]);
    terminal.env("RINGFORT_ADDR", dev.address(1)).env("TERM", "xterm").env("HOME", directory.path());
    let pasted = "put a 1\rput b 2\rput c 3\r\x1b[200~put d 4\rput e 5\nput f 6\x1b[201~\rget f\rexit\r";
    let output = run(&mut terminal, pasted.as_bytes());
    assert!(output.status.success(), "{output:?}");
    let shown = stdout(&output);
    assert_eq!(shown.matches("Stored and replicated").count(), 6, "{shown}");
    let rows = stdout(&run(&mut dev.command(&["list"]), b""));
    assert_eq!(rows, "a\t1\nb\t2\nc\t3\nd\t4\ne\t5\nf\t6\n");
    // A byte that is no text costs the line, and not the shell; a tab in a value is one.
    let mut talk = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("script runs");
    let (mut typed, shown) = (talk.stdin.take().expect("piped"), talk.stdout.take().expect("piped"));
    typed.write_all(b"put a \xff\rput b 7\r").expect("it reads");
    let shown = BufReader::new(shown).split(b'\n').map(|line| line.expect("it reads"));
    let mut shown = shown.map(|line| String::from_utf8_lossy(&line).into_owned());
    assert!(shown.any(|line| line.contains("error: that is not UTF-8: the line is forgotten")));
    typed.write_all(b"put t a\tb\rexit\r").expect("it reads");
    assert_eq!(shown.filter(|line| line.contains("Stored and replicated")).count(), 1);
    assert!(talk.wait().expect("it ends").success());
    let rows = stdout(&run(&mut dev.command(&["list"]), b""));
    assert_eq!(rows, "a\t1\nb\t2\nc\t3\nd\t4\ne\t5\nf\t6\nt\ta\\tb\n");
}
