//! `--json`: what every command prints is one object a line, and bytes that are not text come through.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use serde_json::{Value, json};

use crate::support::{Dev, eventually, objects, run, stderr, stdout};

fn all(dev: &Dev, arguments: &[&str], input: &[u8]) -> Vec<Value> {
    let output = run(&mut dev.command(arguments), input);
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
    objects(&output)
}

fn one(dev: &Dev, arguments: &[&str]) -> Value {
    let objects = all(dev, arguments, b"");
    assert_eq!(objects.len(), 1, "{arguments:?}");
    objects[0].clone()
}

#[test]
fn every_command_speaks_json() {
    let directory = tempfile::tempdir().expect("a directory");
    let dev = Dev::start(directory.path());

    let first = one(&dev, &["put", "name", "Ada", "--json"]);
    let second = one(&dev, &["--json", "put", "name", "Grace"]);
    let number = |object: &Value, field: &str| {
        object[field].as_u64().unwrap_or_else(|| panic!("no {field} in {object}"))
    };
    assert_eq!((&first["key"], &second["key"]), (&"name".into(), &"name".into()));
    assert_eq!(number(&first, "shard"), number(&second, "shard"));
    assert_eq!(number(&first, "revision") + 1, number(&second, "revision"));
    assert!(number(&first, "index") < number(&second, "index") && number(&second, "term") > 0);
    assert!((2..=3).contains(&number(&second, "copies")), "{second}");

    let read = one(&dev, &["get", "name", "--json"]);
    assert_eq!((&read["found"], &read["value"]), (&true.into(), &"Grace".into()));
    assert_eq!(number(&read, "revision"), number(&second, "revision"));
    assert!(number(&read, "index") >= number(&second, "index"), "{read}");
    assert!(number(&read, "shard_revision") >= number(&second, "revision"), "{read}");
    let deleted = one(&dev, &["delete", "name", "--json"]);
    assert_eq!(number(&deleted, "revision"), number(&second, "revision") + 1);
    let missing = run(&mut dev.command(&["get", "name", "--json"]), b"");
    assert_eq!((missing.status.code(), stderr(&missing)), (Some(1), String::new()));
    let missing = &objects(&missing)[0];
    assert_eq!((&missing["found"], missing.get("value")), (&false.into(), None));
    // A flag beats the environment, also where they exclude each other.
    one(&dev, &["put", "raw", "first", "--json"]);
    let raw_put = one(&dev, &["put", "raw", "bytes", "--json"]);
    let raw = run(dev.command(&["get", "raw", "--raw"]).env("RINGFORT_JSON", "1"), b"");
    assert_eq!(stdout(&raw), "bytes");

    let odd: &OsStr = OsStr::from_bytes(b"odd\xff");
    let put = run(dev.command(&["put", "--json"]).arg(odd).arg("-"), b"a\xfe");
    let odd_put = objects(&put)[0].clone();
    assert_eq!(odd_put["key_base64"], "b2Rk/w==");
    let read = run(dev.command(&["get", "--json"]).arg(odd), b"");
    assert_eq!(objects(&read)[0]["value_base64"], "Yf4=");
    assert_eq!(
        all(&dev, &["list", "--json"], b""),
        [
            json!({"key_base64": "b2Rk/w==", "value_base64": "Yf4=", "revision": odd_put["revision"]}),
            json!({"key": "raw", "value": "bytes", "revision": raw_put["revision"]})
        ]
    );
    assert_eq!(
        one(&dev, &["list", "--json", "--keys-only", "--prefix", "r"]),
        json!({"key": "raw", "revision": raw_put["revision"]})
    );

    let shards = all(&dev, &["check", "--json"], b"");
    let sum = shards.last().expect("a sum");
    assert_eq!((shards.len(), &sum["agree"]), (17, &true.into()), "16 shards and their sum: {shards:?}");
    assert_eq!((&sum["rows"], &sum["not_asked"]), (&2.into(), &0.into()));
    assert_eq!(shards[3]["replicas"].as_array().map(Vec::len), Some(3));
    assert_eq!(shards[3]["replicas"][0]["hash"], shards[3]["replicas"][2]["hash"]);
    assert_eq!(one(&dev, &["status", "--json"])["nodes"].as_array().map(Vec::len), Some(3));
    // Each node tells all others how much room its disk has.
    eventually("it is known of all", || {
        let state = one(&dev, &["status", "--json"]);
        let room = |node: &Value| [&node["disk_free_bytes"], &node["disk_total_bytes"]].map(Value::as_u64);
        state["nodes"]
            .as_array()
            .expect("nodes")
            .iter()
            .all(|node| matches!(room(node), [Some(free), Some(total)] if 0 < free && free < total))
    });

    let talk = b"put k v\nget k\nlist k\ndelete k\nget k\nstatus\nhelp\n";
    let answers = all(&dev, &["shell", "--json"], talk);
    assert_eq!((&answers[0]["key"], number(&answers[0], "copies") > 0), (&"k".into(), true));
    assert_eq!((&answers[1]["value"], &answers[1]["revision"]), (&"v".into(), &answers[0]["revision"]));
    let revision = &answers[0]["revision"];
    assert_eq!(answers[2..4], [json!({"key": "k", "value": "v", "revision": revision}), json!({"rows": 1})]);
    assert_eq!(answers[5]["found"], false);
    assert!(answers[6]["nodes"].is_array() && answers[7]["message"].is_string());
    let wrong = run(&mut dev.command(&["shell", "--json"]), b"put k\n");
    assert_eq!(objects(&wrong), [json!({"error": "Usage: put <key> <value>", "exit_code": 2})]);
    assert_eq!(wrong.status.code(), Some(2));
    let late = run(
        &mut dev.command(&["shell", "--json", "--addr", "127.0.0.1:1", "--timeout", "100ms"]),
        b"get k\n",
    );
    let late = &objects(&late)[0];
    assert_eq!((&late["outcome"], &late["exit_code"]), (&"rejected".into(), &3.into()));

    let imported = all(&dev, &["import", "-", "--json"], b"a\t1\nb\t22\n");
    assert_eq!((&imported[0]["rows"], &imported[0]["bytes"]), (&2.into(), &5.into()));
    assert!(imported[0]["seconds"].is_number());
    let exported = run(&mut dev.command(&["export", "-", "--json"]), b"");
    let revision_of = |key: &str| one(&dev, &["get", key, "--json"])["revision"].clone();
    assert_eq!(
        objects(&exported)[..2],
        [
            json!({"key": "a", "value": "1", "revision": revision_of("a")}),
            json!({"key": "b", "value": "22", "revision": revision_of("b")})
        ]
    );
    let sum: Value = serde_json::from_str(&stderr(&exported)).expect("one object");
    assert_eq!(sum["rows"], 4);
    let tsv = run(&mut dev.command(&["export", "-", "--json", "--format", "tsv"]), b"");
    assert!(stdout(&tsv).starts_with("a\t1\nb\t22\n"), "what is asked for beats what is guessed");
    assert_eq!(dev.leave(), Some(0));
}
