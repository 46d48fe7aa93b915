//! Settings from flags, the environment and a file: which of them holds, what `config` says of them, and what is refused.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{free_ports, is_free, objects, refusal, ringfort, run, stderr, stdout};

/// A file of settings.
struct Settings {
    directory: tempfile::TempDir,
    path: PathBuf,
}

impl Settings {
    fn new(text: &str) -> Settings {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("ringfort.toml");
        fs::write(&path, text).expect("written");
        Settings { directory, path }
    }

    fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }
}

/// What `config` says about one setting.
fn said(command: &mut Command, setting: &str) -> Value {
    let output = run(command, b"");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let objects = objects(&output);
    let found = objects.iter().find(|object| object["setting"] == setting);
    found.unwrap_or_else(|| panic!("no {setting} in {objects:?}")).clone()
}

#[test]
fn a_flag_beats_the_environment_that_the_file_and_that_the_default() {
    let file = Settings::new("# all\ntimeout = '4s'\n\n[start]\ncache-mb = 8\npeers = ['n2=a:1', 'b:2']\n");
    let config = |more: &[&str]| ringfort(&[&["config", "--json"], more].concat());
    let timeout = |command: &mut Command| {
        let said = said(command, "timeout");
        let text = |field: &str| said[field].as_str().unwrap_or_default().to_owned();
        (text("value"), text("from"), text("variable"), said["line"].as_u64())
    };
    let expected = |value: &str, from: &str, variable: &str, line| {
        (value.to_owned(), from.to_owned(), variable.to_owned(), line)
    };
    assert_eq!(timeout(&mut config(&[])), expected("3s", "default", "", None));
    let with_file = ["--config", file.path()];
    assert_eq!(timeout(&mut config(&with_file)), expected("4s", "file", "", Some(2)));
    let mut named = config(&[]);
    assert_eq!(timeout(named.env("RINGFORT_CONFIG", file.path())), expected("4s", "file", "", Some(2)));
    let mut set = config(&with_file);
    set.env("RINGFORT_TIMEOUT", "5s");
    assert_eq!(timeout(&mut set), expected("5s", "environment", "RINGFORT_TIMEOUT", None));
    let mut empty = config(&with_file);
    assert_eq!(timeout(empty.env("RINGFORT_TIMEOUT", " ")), expected("4s", "file", "", Some(2)));
    for flag in [["--timeout", "6s", "config", "--json"], ["config", "--json", "--timeout", "6s"]] {
        let mut both = ringfort(&[&with_file[..], &flag].concat());
        both.env("RINGFORT_TIMEOUT", "5s");
        assert_eq!(timeout(&mut both), expected("6s", "flag", "", None));
    }

    // A command is asked about without what it would need to run.
    let give_up = said(&mut config(&["import", "--give-up", "7s"]), "import.give-up");
    assert_eq!((&give_up["value"], &give_up["from"]), (&"7s".into(), &"flag".into()));
    assert_eq!(said(&mut config(&["status"]), "status.shards")["value"], "false");

    // Of all commands that read, and of all that write.
    let who = said(&mut config(&["bench", "--reads-from", "replicas"]), "reads-from");
    assert_eq!((&who["value"], &who["from"]), (&"replicas".into(), &"flag".into()));
    assert_eq!(said(config(&[]).env("RINGFORT_READS_FROM", "replicas"), "reads-from")["from"], "environment");
    let copies = said(&mut config(&[]), "copies");
    assert_eq!((&copies["value"], &copies["from"]), (&Value::Null, &"default".into()));
    assert_eq!(said(&mut config(&["incr", "--copies", "2"]), "copies")["value"], "2");

    let start = |more: &[&str]| config(&[&with_file[..], &["start"], more].concat());
    let cache = said(&mut start(&[]), "start.cache-mb");
    assert_eq!((&cache["value"], &cache["line"]), (&"8".into(), &5.into()));
    assert_eq!(said(&mut start(&[]), "start.peers")["value"], "n2=a:1,b:2");
    let cache = said(start(&[]).env("RINGFORT_START_CACHE_MB", "9"), "start.cache-mb");
    assert_eq!((&cache["value"], &cache["variable"]), (&"9".into(), &"RINGFORT_START_CACHE_MB".into()));
    let cache = said(start(&["--cache-mb", "10"]).env("RINGFORT_START_CACHE_MB", "9"), "start.cache-mb");
    assert_eq!((&cache["value"], &cache["from"]), (&"10".into(), &"flag".into()));
}

#[test]
fn what_config_says_is_what_commands_do() {
    let file = Settings::new("addr = ['127.0.0.1:1', '127.0.0.1:2']\ntimeout = '200ms'\n");
    let reached = |command: &mut Command| {
        let (code, line) = refusal(&run(command, b""));
        assert_eq!(code, Some(3), "{line}");
        line.split(": connection").next().expect("it says whom").to_owned()
    };
    let get = ["--config", file.path(), "get", "k"];
    assert_eq!(reached(&mut ringfort(&get)), "can't reach 127.0.0.1:1, 127.0.0.1:2");
    let elsewhere = ("RINGFORT_ADDR", "127.0.0.1:3");
    assert_eq!(reached(ringfort(&get).env(elsewhere.0, elsewhere.1)), "can't reach 127.0.0.1:3");
    let mut flag = ringfort(&[&get[..], &["--addr", "127.0.0.1:4"]].concat());
    assert_eq!(reached(flag.env(elsewhere.0, elsewhere.1)), "can't reach 127.0.0.1:4");
    let mut before = ringfort(&[&["--addr", "127.0.0.1:5"], &get[..]].concat());
    assert_eq!(reached(before.env(elsewhere.0, elsewhere.1)), "can't reach 127.0.0.1:5");
    // For one command, without regard to the others.
    let check = Settings::new("addr = '127.0.0.1:1'\ntimeout = '1h'\n[check]\ntimeout = '100ms'\n");
    assert_eq!(reached(&mut ringfort(&["check", "--config", check.path()])), "can't reach 127.0.0.1:1");
    let mut status = ringfort(&["status", "--config", check.path()]);
    assert_eq!(reached(status.env("RINGFORT_STATUS_TIMEOUT", "100ms")), "can't reach 127.0.0.1:1");
}

#[test]
fn a_switch_that_is_on_can_be_switched_off() {
    let file = Settings::new("json = true\n");
    let version = |more: &[&str]| ringfort(&[&["version", "--config", file.path()], more].concat());
    let is_json = |command: &mut Command| {
        let output = run(command, b"");
        assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
        stdout(&output).starts_with('{')
    };
    assert!(!is_json(&mut ringfort(&["version"])));
    assert!(is_json(&mut version(&[])));
    assert!(!is_json(version(&[]).env("RINGFORT_JSON", "0")));
    assert!(!is_json(&mut version(&["--no-json"])));
    assert!(!is_json(version(&["--no-json"]).env("RINGFORT_JSON", "yes")));
    assert!(!is_json(&mut ringfort(&["--no-json", "--config", file.path(), "version"])));
    assert!(is_json(version(&["--json"]).env("RINGFORT_JSON", "off")));
    assert!(is_json(&mut version(&["--no-json", "--json"])), "the last one holds");
}

#[test]
fn what_can_not_be_set_is_refused_by_name_and_line() {
    let refused = |text: &str| {
        let file = Settings::new(text);
        // By a command that has no use for most of it.
        let (code, line) = refusal(&run(&mut ringfort(&["version", "--config", file.path()]), b""));
        assert_eq!(code, Some(2), "{line}");
        line.strip_prefix(file.path()).unwrap_or_else(|| panic!("which file? {line}")).to_owned()
    };
    assert_eq!(
        refused("timeout = '1s'\ntiemout = '2s'\n"),
        ":2: there is no setting `tiemout` at the top; did you mean `timeout`?"
    );
    assert_eq!(
        refused("[start]\nid = 'a'\ndata_dir = 'd'\n"),
        ":3: there is no setting `data_dir` in [start]; did you mean `data-dir`?"
    );
    assert_eq!(
        refused("shards = 4\n"),
        ":1: there is no setting `shards` at the top; it belongs in [dev] or [start] or [status]"
    );
    assert!(refused("[strat]\n").contains("did you mean [start]?"));
    assert!(refused("\n[dev]\nnodes = 0\n").starts_with(":3: `nodes`: invalid value '0'"));
    assert!(refused("timeout 3s\n").starts_with(":1: "));

    for (variable, value, arguments) in [
        ("RINGFORT_TIMEOUT", "3", &["get", "k"][..]),
        ("RINGFORT_START_LOG_LEVEL", "loud", &["start"]),
        ("RINGFORT_JSON", "maybe", &["version"]),
        ("RINGFORT_DEV_NODES", "many", &["dev"]),
    ] {
        let (code, line) = refusal(&run(ringfort(arguments).env(variable, value), b""));
        assert!(code == Some(2) && line.starts_with(&format!("{variable}: ")), "{line}");
        assert!(line.contains(value), "{line}");
    }
    let (code, line) = refusal(&run(&mut ringfort(&["get", "k", "--config", "/nowhere/c.toml"]), b""));
    assert!(code == Some(2) && line.contains("/nowhere/c.toml") && line.contains("--config"), "{line}");
    let (code, line) = refusal(&run(&mut ringfort(&["--json", "completions", "bash"]), b""));
    assert!(code == Some(2) && line.contains("--json") && line.contains("completions"), "{line}");
    // A mistyped variable may be somebody else's: it is pointed out where settings are asked for.
    let output = run(ringfort(&["config"]).env("RINGFORT_TIMOUT", "3s"), b"");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        stderr(&output),
        "ringfort: RINGFORT_TIMOUT is set, but is no setting; did you mean RINGFORT_TIMEOUT?\n"
    );
    assert!(stdout(&output).starts_with("setting"), "{}", stdout(&output));
}

/// One node by `start`, ended when it is dropped.
struct Alone(Child);

impl Alone {
    /// Starts it; what it says when it serves.
    fn start(command: &mut Command, directory: &Path) -> (Alone, String) {
        let command = command.current_dir(directory).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let mut said = String::new();
        let said_by = child.stdout.take().expect("piped");
        BufReader::new(said_by).read_line(&mut said).expect("it says that it serves");
        (Alone(child), said)
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_node_starts_by_its_file_or_its_environment_alone() {
    let port = free_ports(2);
    let address = format!("127.0.0.1:{port}");
    let file = Settings::new(&format!(
        "addr = '{address}'\njson = true\n[start]\nid = 'solo'\naddr = '{address}'\ndata-dir = 'here'\nshards = 4\n"
    ));
    let mut start = ringfort(&["start", "--config", file.path()]);
    // That is for clients.
    start.env("RINGFORT_ADDR", "127.0.0.1:1");
    let (node, said) = Alone::start(&mut start, file.directory.path());
    let said: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{said}: {error}"));
    assert_eq!((&said["name"], &said["address"]), (&"solo".into(), &address.as_str().into()));
    assert_eq!((&said["shards"], &said["nodes"]), (&4.into(), &1.into()));
    assert!(said["ready_ms"].is_u64() && file.directory.path().join("here").is_dir());
    let put = run(&mut ringfort(&["--config", file.path(), "put", "name", "Ada"]), b"");
    assert_eq!(objects(&put)[0]["copies"], 1);
    drop(node);

    let directory = tempfile::tempdir().expect("a directory");
    let address = format!("127.0.0.1:{}", port + 1);
    let mut start = ringfort(&["start"]);
    start.env("RINGFORT_START_ADDR", &address).env("RINGFORT_START_SHARDS", "2");
    start.env("RINGFORT_START_DATA_DIR", directory.path().join("there"));
    let (_node, said) = Alone::start(&mut start, directory.path());
    assert!(said.contains(&format!("serves on {address}: 1 node, 2 shards")), "{said}");
    assert!(directory.path().join("there").is_dir());
}

#[test]
fn dev_has_settings_of_its_own_and_its_nodes_have_none() {
    let base = free_ports(1);
    let file = Settings::new(&format!("[dev]\nnodes = 1\nbase-port = {base}\nshards = 2\n"));
    let mut dev = ringfort(&["dev", "--json", "--config", file.path()]);
    // Nodes that took this for theirs would not start.
    dev.env("RINGFORT_START_ADVERTISE", "nowhere").env("RINGFORT_START_PEERS", "127.0.0.1:1");
    dev.env("TMPDIR", file.directory.path());
    let output = run(&mut dev, b"put name Ada\nstatus\n");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let answers = objects(&output);
    assert_eq!((&answers[0]["key"], &answers[0]["copies"]), (&"name".into(), &1.into()));
    assert_eq!(answers[1]["shards"].as_array().map(Vec::len), Some(3), "two and the layout's");
    assert_eq!(answers[1]["nodes"][0]["address"], format!("127.0.0.1:{base}"));
    assert!(is_free(base));
}
