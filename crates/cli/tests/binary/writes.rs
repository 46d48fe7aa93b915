//! Writes under conditions, of several keys, and increments; reads of several keys: against real nodes.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{Dev, objects, refusal, run, stderr, stdout};

/// The exit code, and what is on stdout and stderr.
fn said(output: &Output) -> (Option<i32>, String, String) {
    (output.status.code(), stdout(output), stderr(output))
}

fn ask(dev: &Dev, arguments: &[&str], input: &[u8]) -> (Option<i32>, String, String) {
    said(&run(&mut dev.command(arguments), input))
}

/// The one object that is printed, and nothing else.
fn object(dev: &Dev, arguments: &[&str], input: &[u8], code: i32) -> Value {
    let output = run(&mut dev.command(arguments), input);
    assert_eq!((output.status.code(), stderr(&output)), (Some(code), String::new()), "{arguments:?}");
    let objects = objects(&output);
    assert_eq!(objects.len(), 1, "{arguments:?}");
    objects[0].clone()
}

fn done() -> (Option<i32>, String, String) {
    (Some(0), "OK\n".into(), String::new())
}

fn not_done(found: &str) -> (Option<i32>, String, String) {
    (Some(1), String::new(), format!("not done: {found}\n"))
}

fn refused(dev: &Dev, arguments: &[&str], input: &[u8]) -> String {
    let output = run(&mut dev.command(arguments), input);
    let (code, line) = refusal(&output);
    assert_eq!((code, stdout(&output)), (Some(2), String::new()), "{arguments:?}: {line}");
    line
}

#[test]
fn writes_are_done_only_under_their_conditions() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());
    one_key(&dev);
    several_keys(&dev);
    counters(&dev);
    assert_eq!(dev.leave(), Some(0));
}

fn one_key(dev: &Dev) {
    let put = |value: &str, condition: &[&str]| ask(dev, &[&["put", "name", value], condition].concat(), b"");
    assert_eq!(put("Ada", &["--if-present"]), not_done("name is not there"));
    assert_eq!(put("Ada", &["--if-value", "Bo"]), not_done("name is not there"));
    assert_eq!(put("Ada", &["--if-absent"]), done());
    let revision = object(dev, &["get", "name", "--json"], b"", 0)["revision"].as_u64().expect("a number");
    let (has, number) = (format!("name has revision {revision}"), revision.to_string());
    assert_eq!(put("Bo", &["--if-absent"]), not_done(&has));
    assert_eq!(put("Bo", &["--if-value", "-Ada"]), not_done(&has));
    assert_eq!(put("Bo", &["--if-revision", &(revision + 1).to_string()]), not_done(&has));
    assert_eq!(dev.ok(&["get", "name"], b""), "Ada\n", "nothing was changed");
    assert_eq!(put("-Bo", &["--if-value", "Ada"]), done());
    assert_eq!(put("Cy", &["--if-value=-Bo"]), done());
    assert_eq!(put("Di", &["--if-revision", &number]).0, Some(1), "it has changed since");

    let delete = |condition: &[&str]| ask(dev, &[&["delete", "name"], condition].concat(), b"");
    assert_eq!(delete(&["--if-revision", &number]).0, Some(1));
    assert_eq!(delete(&["--if-value", "Ada"]).0, Some(1));
    let last = object(dev, &["put", "name", "Ed", "--if-present", "--json"], b"", 0);
    assert_eq!((&last["key"], &last["done"]), (&"name".into(), &true.into()));
    assert!(last["copies"].as_u64() >= Some(2) && last["revision"].as_u64() > Some(revision), "{last}");
    let refused = object(dev, &["put", "name", "Flo", "--if-absent", "--json"], b"", 1);
    assert_eq!(
        (&refused["key"], &refused["done"], &refused["revision"]),
        (&"name".into(), &false.into(), &last["revision"])
    );
    assert!(refused["index"].as_u64() > last["index"].as_u64(), "{refused}");
    assert_eq!(delete(&["--if-revision", &last["revision"].to_string()]), done());
    assert_eq!(delete(&["--if-present"]), not_done("name is not there"));
    let absent = object(dev, &["delete", "name", "--if-value", "Ed", "--json"], b"", 1);
    assert_eq!((&absent["done"], &absent["revision"]), (&false.into(), &Value::Null));
    assert_eq!(delete(&[]), done(), "there or not");

    // Bytes are bytes, and one line is one line.
    let odd = OsStr::from_bytes(b"a\nb\xff");
    let mut put = dev.command(&["put", "odd", "-", "--if-absent"]);
    assert_eq!(said(&run(&mut put, b"a\nb\xff")), done());
    let mut put = dev.command(&["put", "odd", "x", "--if-value"]);
    assert_eq!(said(&run(put.arg(odd), b"")), done());
    let mut put = dev.command(&["put", "x", "--if-present", "--"]);
    put.arg("y");
    assert_eq!(said(&run(&mut put, b"")), not_done("x is not there"));
    let mut delete = dev.command(&["delete", "--if-present"]);
    assert!(stderr(&run(delete.arg(odd), b"")).starts_with("not done: a\\nb"));
    assert_eq!(dev.ok(&["delete", "odd"], b""), "OK\n");
}

fn several_keys(dev: &Dev) {
    let write = |text: &str| ask(dev, &["write"], text.as_bytes());
    let text =
        "put\t{u}name\tA\\tB\tif-absent\nput\t{u}mail\ta@b\ndelete\t{u}draft\ncheck\t{u}lock\tif-absent\n";
    assert_eq!(write(text), done());
    let keys = ["get", "{u}mail", "{u}name"];
    assert_eq!(dev.ok(&keys, b""), "{u}mail\ta@b\n{u}name\tA\\tB\n", "in the order asked, escaped");
    let rows = objects(&run(&mut dev.command(&[&keys[..], &["--json"]].concat()), b""));
    let revision = &rows[0]["revision"];
    assert_eq!(revision, &rows[1]["revision"], "one write is one revision");
    assert_eq!(rows[1], json!({"key": "{u}name", "found": true, "value": "A\tB", "revision": revision}));

    // All or nothing; the first condition that is not met is named.
    let has = format!("{{u}}name has revision {revision}");
    assert_eq!(write("put\t{u}mail\tx\n"), done());
    assert_eq!(write("put\t{u}mail\ty\nput\t{u}name\tC\tif-absent\n"), not_done(&has));
    assert_eq!(write("delete\t{u}mail\ncheck\t{u}lock\tif-present"), not_done("{u}lock is not there"));
    assert_eq!(dev.ok(&["get", "{u}mail"], b""), "x\n");
    let refused_one = object(dev, &["write", "--json"], b"delete\t{u}mail\ncheck\t{u}name\tif-absent\n", 1);
    assert_eq!(
        (&refused_one["line"], &refused_one["key"], &refused_one["done"], &refused_one["revision"]),
        (&2.into(), &"{u}name".into(), &false.into(), revision)
    );
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = format!("put\t{{u}}name\tC\tif-revision={revision}\ndelete\t{{u}}mail\tif-value=x");
    fs::write(file.path(), text).expect("written");
    let path = file.path().to_str().expect("a plain path");
    let written = object(dev, &["write", "--json", "--file", path], b"", 0);
    assert!(written["done"] == true && written["revision"].as_u64() > revision.as_u64(), "{written}");
    assert_eq!(ask(dev, &["write", "--file", path], b"").0, Some(1), "it has changed since");

    // Those that are there, and those that are not.
    let some = ask(dev, &["get", "{u}mail", "{u}name", "else\t", "{u}name"], b"");
    let missing = "{u}mail\t(not found)\nelse\\t\t(not found)\n";
    assert_eq!(some, (Some(1), "{u}name\tC\n{u}name\tC\n".into(), missing.into()));
    let some = run(&mut dev.command(&["get", "{u}mail", "{u}name", "--json"]), b"");
    assert_eq!((some.status.code(), stderr(&some)), (Some(1), String::new()));
    assert_eq!(objects(&some)[0], json!({"key": "{u}mail", "found": false}));
    // Of many shards, and however fresh: in the order asked.
    let keys: Vec<String> = (0..100).rev().map(|n| format!("k{n}")).collect();
    let rows = keys.iter().fold(String::new(), |rows, key| rows + key + "\tvalue of " + key + "\n");
    dev.ok(&["import", "-"], rows.as_bytes());
    let all: Vec<&str> = std::iter::once("get").chain(keys.iter().map(String::as_str)).collect();
    assert_eq!(dev.ok(&all, b""), rows);
    assert_eq!(ask(dev, &[&all[..], &["--stale"]].concat(), b"").1.lines().count(), 100);
    assert_eq!(dev.ok(&[&all[..], &["--consistency", "lease"]].concat(), b""), rows);
    assert_eq!(dev.ok(&["get", "k7", "--consistency", "lease"], b""), "value of k7\n");

    // More than is read at one moment: said as what it is, not as something to try again.
    for key in ["{u}big", "{u}too"] {
        assert_eq!(said(&run(&mut dev.command(&["put", key, "-"]), &vec![b'x'; 5 * 1024 * 1024])), done());
    }
    assert!(refused(dev, &["get", "{u}big", "{u}too"], b"").contains("ask for fewer keys at once"));
    dev.ok(&["delete", "{u}big"], b"");
    assert_eq!(dev.ok(&["get", "{u}too"], b"").len(), 5 * 1024 * 1024 + 1);

    let line = refused(dev, &["write"], b"put\ta\t1\nput\tb\t2\nput\tc\t3\nput\td\t4\n");
    assert!(line.contains("of different shards") && line.contains("in braces, as in {user1}name"), "{line}");
    assert_eq!(ask(dev, &["get", "a", "b", "c", "d"], b"").1, "", "nothing was written");
    assert!(
        refused(dev, &["write"], b"put\t{u}a\t1\nput\t{u}a\t2\n").starts_with("line 2: its key is in line 1")
    );
    assert!(refused(dev, &["write"], b"").contains("nothing to write"));
    assert!(refused(dev, &["write"], b"put\t{u}a\t1\n{u}b\t2\n").starts_with("line 2: it begins with"));
}

fn counters(dev: &Dev) {
    let incr = |arguments: &[&str]| ask(dev, &[&["incr", "visits"], arguments].concat(), b"");
    let sum = |sum: &str| (Some(0), format!("{sum}\n"), String::new());
    assert_eq!(incr(&[]), sum("1"));
    assert_eq!(incr(&["41"]), sum("42"));
    assert_eq!(incr(&["-50"]), sum("-8"));
    let counted = object(dev, &["incr", "visits", "8", "--json"], b"", 0);
    assert_eq!((&counted["key"], &counted["value"]), (&"visits".into(), &0.into()));
    assert!(counted["copies"].as_u64() >= Some(2) && counted["revision"].as_u64() > Some(0), "{counted}");
    assert_eq!(dev.ok(&["get", "visits"], b""), "0\n");
    assert_eq!(incr(&["9223372036854775807"]), sum("9223372036854775807"));
    assert!(refused(dev, &["incr", "visits"], b"").contains("beyond 64 bits"));
    assert_eq!(dev.ok(&["get", "visits"], b""), "9223372036854775807\n", "it stays as it is");
    assert_eq!(dev.ok(&["put", "visits", "many"], b""), "OK\n");
    assert!(refused(dev, &["incr", "visits"], b"").contains("is not a decimal number"));
    assert_eq!(dev.ok(&["get", "visits"], b""), "many\n");

    let talk = run(&mut dev.command(&["shell"]), b"incr n\nincr n -3\nget n\nincr visits\nincr\n");
    let lines: Vec<_> = stdout(&talk).lines().map(str::to_owned).collect();
    assert_eq!(lines[..3], ["1", "-2", "n = -2"]);
    assert!(lines[3].starts_with("error: ") && lines[3].contains("is not a decimal number"), "{lines:?}");
    assert_eq!((lines[4].as_str(), talk.status.code()), ("Usage: incr <key> [<n>]", Some(2)));
    let talk = run(&mut dev.command(&["shell", "--json"]), b"incr n 5\nincr visits\n");
    let answers = objects(&talk);
    assert_eq!((&answers[0]["key"], &answers[0]["value"]), (&"n".into(), &3.into()));
    assert_eq!((&answers[1]["exit_code"], &answers[1]["outcome"]), (&2.into(), &"rejected".into()));
    assert_eq!(talk.status.code(), Some(2));
}

/// With two of three nodes down only a stale read is answered: what is asked for is what is done.
#[test]
fn a_read_is_as_fresh_as_a_flag_the_environment_or_a_file_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut dev = Dev::start(&directory.path().join("data"));
    dev.ok(&["import", "-"], b"a\t1\nb\t2\n");
    // Which asks every replica at an index that has them: now node1 has applied them too.
    dev.ok(&["check"], b"");
    assert_eq!(dev.say("kill node2"), "node2 is killed; `start node2` starts it again");
    assert_eq!(dev.say("kill node3"), "node3 is killed; `start node3` starts it again");
    let get = |more: &[&str], variable: &str| {
        let mut get = dev.command(&[&["get", "a", "--timeout", "1s"], more].concat());
        if !variable.is_empty() {
            get.env("RINGFORT_CONSISTENCY", variable);
        }
        let output = run(&mut get, b"");
        match output.status.code() {
            Some(0) => true,
            code => {
                assert_eq!((code, stdout(&output)), (Some(3), String::new()), "{}", stderr(&output));
                false
            }
        }
    };
    let file = directory.path().join("ringfort.toml");
    fs::write(&file, "consistency = 'stale'\n").expect("written");
    let file = ["--config", file.to_str().expect("a plain path")];
    assert!(!get(&[], "") && !get(&["b"], ""), "without a word, reads are linearizable");
    assert!(!get(&["--consistency", "lease"], "") && !get(&["b"], "lease"), "no lease outlives its quorum");
    assert!(get(&["--stale"], "") && get(&["--consistency", "stale"], "") && get(&["b", "--stale"], ""));
    assert!(get(&["--stale", "--reads-from", "replicas"], "lease"));
    assert!(get(&[], "stale") && get(&file, ""));
    assert!(!get(&file, "linearizable"), "the environment beats the file");
    assert!(!get(&["--consistency", "linearizable"], "stale"), "a flag beats the environment");
    assert!(get(&["--stale"], "linearizable"), "so does its short form");
    let talk = run(&mut dev.command(&["shell", "--consistency", "stale"]), b"get a\n");
    assert_eq!(stdout(&talk), "a = 1\n");
    let (code, line) = refusal(&run(dev.command(&["get", "a"]).env("RINGFORT_CONSISTENCY", "new"), b""));
    assert!(code == Some(2) && line.starts_with("RINGFORT_CONSISTENCY: "), "{line}");
}
