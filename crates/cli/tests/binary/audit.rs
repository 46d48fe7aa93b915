//! The audit log, through the shipped binary: who asked for what, and what came of it; no secret; a full disk; a file that is moved away.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::http::{a_free_address, get};
use crate::node::Node;
use crate::support::{eventually, ringfort, run, stderr, stdout};

/// A node with an audit log, and files with secrets.
struct Audited {
    node: Node,
    text: String,
    http: String,
    files: tempfile::TempDir,
}

impl Audited {
    /// With these flags besides `--audit`.
    fn start(flags: &[&str]) -> Audited {
        Audited::start_at(tempfile::tempdir().expect("a directory"), flags)
    }

    fn start_at(files: tempfile::TempDir, flags: &[&str]) -> Audited {
        let (text, http) = (a_free_address(), a_free_address());
        let file = files.path().join("audit").to_str().expect("plain").to_owned();
        let own = ["--id", "node1", "--text-addr", &text, "--http", &http, "--audit", &file];
        Audited { node: Node::start_with(&[&own[..], flags].concat()), text, http, files }
    }

    fn path(&self) -> PathBuf {
        self.files.path().join("audit")
    }

    fn command(&self, user: Option<&str>, arguments: &[&str]) -> Command {
        let mut command = ringfort(&[&["--addr", &self.node.address, "--timeout", "3s"], arguments].concat());
        if let Some(user) = user {
            command.env("RINGFORT_USER", user).env("RINGFORT_PASSWORD_FILE", self.files.path().join(user));
        }
        command
    }

    fn ask(&self, user: Option<&str>, arguments: &[&str]) -> Output {
        run(&mut self.command(user, arguments), b"")
    }

    #[track_caller]
    fn ok(&self, user: Option<&str>, arguments: &[&str]) -> String {
        let output = self.ask(user, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// A user with a password, which is in the file of that name.
    fn add(&self, by: Option<&str>, user: &str) {
        let file = self.files.path().join(user);
        std::fs::write(&file, format!("pass word of {user}\n")).expect("written");
        self.ok(by, &["user", "add", user, "--new-password-file", file.to_str().expect("plain")]);
    }

    /// `root` may do everything to the cluster, and `bob` may read and write `app/`; rights are enforced.
    fn enforce(&self) {
        // The level rises once the node has said that it knows it.
        eventually("there can be users", || self.ask(None, &["user", "enforce", "off"]).status.success());
        self.add(None, "root");
        self.ok(None, &["user", "grant", "root", "cluster"]);
        self.ok(None, &["user", "enforce", "on"]);
        self.add(Some("root"), "bob");
        self.ok(Some("root"), &["user", "grant", "bob", "read", "app/"]);
        self.ok(Some("root"), &["user", "grant", "bob", "write", "app/"]);
    }

    fn lines(&self) -> Vec<Value> {
        lines(&self.path())
    }

    /// A line in which all of this is so, as soon as there is one.
    #[track_caller]
    fn has(&self, wanted: &[(&str, Value)]) -> Value {
        let find = || {
            let is = |line: &Value| wanted.iter().all(|(field, value)| line[*field] == *value);
            self.lines().into_iter().find(is)
        };
        eventually(&format!("a line with {wanted:?}"), || find().is_some());
        find().expect("it was there")
    }

    fn dropped(&self) -> u64 {
        self.dropped_as("/metrics")
    }

    /// The same, of which a user asks who has this token.
    fn dropped_by(&self, token: &str) -> u64 {
        self.dropped_as(&format!("/metrics HTTP/1.1\r\nauthorization: Bearer {token}\r\nx:"))
    }

    fn dropped_as(&self, asked: &str) -> u64 {
        let page = get(&self.http, asked).1;
        let value = page.lines().find_map(|line| line.strip_prefix("ringfort_audit_dropped_total "));
        value
            .and_then(|value| Some(value.parse::<f64>().ok()? as u64))
            .unwrap_or_else(|| panic!("no such number: {page}"))
    }

    fn say(&self, lines: &str, answers: usize) -> Vec<String> {
        let mut stream = TcpStream::connect(&self.text).expect("it listens");
        stream.write_all(lines.as_bytes()).expect("sent");
        BufReader::new(stream).lines().take(answers).map(|line| line.expect("an answer")).collect()
    }
}

fn lines(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")))
        .collect()
}

fn is(text: &str) -> Value {
    Value::from(text)
}

#[test]
fn administration_and_refusals_are_written_and_no_secret() {
    let audited = Audited::start(&[]);
    audited.enforce();
    let add = audited.has(&[("change", is("add user bob with a password"))]);
    for (field, value) in [
        ("node", "node1"),
        ("user", "root"),
        ("from", "127.0.0.1"),
        ("door", "v1"),
        ("operation", "change_layout"),
        ("outcome", "ok"),
    ] {
        assert_eq!(add[field], value, "{add}");
    }
    assert!(add["allowed"] == true && add.get("code").is_none(), "{add}");
    let time = add["time"].as_str().expect("a time");
    assert!(time.len() == "2026-01-02T03:04:05.678Z".len() && time.ends_with('Z'), "{time}");
    audited.has(&[("change", is("grant user bob read \"app/\"")), ("user", is("root"))]);
    audited.has(&[("change", is("rights are enforced")), ("user", Value::Null)]);
    let token = audited.ok(Some("root"), &["user", "token", "bob"]);
    audited.has(&[("change", is("user bob has a new token"))]);
    audited.ok(Some("root"), &["log-level", "node1", "info"]);
    audited.has(&[
        ("operation", is("set_log_level")),
        ("change", is("log level info")),
        ("user", is("root")),
    ]);
    audited.ok(Some("root"), &["cluster", "transfer", "1", "node1"]);
    audited.has(&[("operation", is("transfer")), ("change", is("shard 1 is led by node1"))]);

    // What may be done is not written, what may not is.
    audited.ok(Some("bob"), &["put", "app/a", "hidden value"]);
    audited.ok(Some("bob"), &["get", "app/a"]);
    assert!(!audited.ask(Some("bob"), &["put", "other/b", "hidden value"]).status.success());
    let refused = audited.has(&[("operation", is("put")), ("user", is("bob")), ("prefix", is("other/b"))]);
    assert_eq!(
        (&refused["allowed"], &refused["outcome"], &refused["code"], &refused["keys"]),
        (&false.into(), &is("rejected"), &is("permission_denied"), &1.into())
    );
    assert!(!audited.ask(Some("bob"), &["list", "--prefix", "other/"]).status.success());
    audited.has(&[("operation", is("list")), ("prefix", is("other/")), ("allowed", false.into())]);
    assert!(!audited.ask(Some("bob"), &["cluster", "set", "leader-preference=highest-id"]).status.success());
    audited.has(&[
        ("change", is("leader-preference=highest-id")),
        ("user", is("bob")),
        ("allowed", false.into()),
    ]);
    assert!(!audited.ask(None, &["get", "app/a"]).status.success());
    audited.has(&[("code", is("unauthenticated")), ("user", Value::Null), ("allowed", false.into())]);

    // Wrong credentials, at both ports.
    std::fs::write(audited.files.path().join("eve"), "a guess\n").expect("written");
    assert!(!audited.ask(Some("eve"), &["get", "app/a"]).status.success());
    let wrong = |door: &str, user: &str| {
        let is_so = [
            ("operation", is("authenticate")),
            ("door", is(door)),
            ("user", is(user)),
            ("from", is("127.0.0.1")),
            ("code", is("unauthenticated")),
            ("allowed", false.into()),
        ];
        audited.has(&is_so);
    };
    wrong("v1", "eve");
    let said = audited.say("AUTH bob a guess\n", 1);
    assert!(said[0].contains("password or token is wrong"), "{said:?}");
    wrong("text", "bob");
    // So many wrong ones may have slowed this address.
    eventually("bob is known", || {
        audited.say("AUTH bob pass word of bob\nSET other/c hidden value\n", 2)[0] == "OK"
    });
    let is_so =
        [("door", is("text")), ("prefix", is("other/c")), ("user", is("bob")), ("from", is("127.0.0.1"))];
    audited.has(&is_so);

    let all = std::fs::read_to_string(audited.path()).expect("there");
    let secret = token.trim().rsplit('.').next().expect("digits");
    for hidden in ["hidden value", "pass word", "guess", "$argon2id", secret] {
        assert!(!all.contains(hidden), "{hidden:?} in {all}");
    }
    let written = |line: &&Value| line["operation"] == "put" && line["allowed"] == true;
    assert!(!audited.lines().iter().any(|line| written(&line)), "{all}");
    let mode = std::fs::metadata(audited.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(audited.dropped_by(token.trim()) == 0);
}

#[test]
fn reads_and_writes_are_written_if_that_is_wanted() {
    for (which, has_reads) in [("writes", false), ("all", true)] {
        let audited = Audited::start(&["--audit-requests", which]);
        audited.ok(None, &["put", "app/a", "hidden value"]);
        audited.ok(None, &["get", "app/a"]);
        audited.ok(None, &["list", "--prefix", "ap"]);
        assert_eq!(audited.say("SET 7 hidden value\nGET 7\n", 2), ["OK", "hidden value"]);
        assert!(!audited.ask(None, &["incr", "app/a"]).status.success(), "it is no number");
        let put = audited.has(&[("operation", is("put")), ("prefix", is("app/a")), ("outcome", is("ok"))]);
        assert!(put["keys"] == 1 && put["user"].is_null() && put["from"] == "127.0.0.1", "{put}");
        audited.has(&[("operation", is("put")), ("door", is("text")), ("prefix", is("7"))]);
        let is_so =
            [("operation", is("increment")), ("code", is("failed_precondition")), ("allowed", true.into())];
        audited.has(&is_so);
        let both = run(&mut audited.command(None, &["write"]), b"put\t{app/}one\t1\nput\t{app/}two\t2\n");
        assert!(both.status.success(), "{}", stderr(&both));
        let many = audited.has(&[("operation", is("multi_write"))]);
        assert!(many["keys"] == 2 && many["prefix"] == "{app/}", "{many}");
        if has_reads {
            audited.has(&[("operation", is("get")), ("prefix", is("app/a"))]);
            audited.has(&[("operation", is("get")), ("door", is("text")), ("prefix", is("7"))]);
            audited.has(&[("operation", is("list")), ("prefix", is("ap")), ("outcome", is("ok"))]);
        }
        let all = std::fs::read_to_string(audited.path()).expect("there");
        assert!(!all.contains("hidden value") && all.contains("\"operation\":\"get\"") == has_reads, "{all}");
    }
}

/// Whoever moves it and says so has it made again at once, though nothing is asked for.
#[test]
fn a_hang_up_has_the_file_opened_again_and_ends_nothing() {
    let mut audited = Audited::start(&["--audit-requests", "writes"]);
    audited.ok(None, &["put", "before", "v"]);
    let moved = audited.files.path().join("audit.1");
    std::fs::rename(audited.path(), &moved).expect("moved");
    assert!(!audited.path().exists());
    kill_process(Pid::from_child(&audited.node.child), Signal::HUP).expect("it runs");
    eventually("it is there again", || audited.path().exists());
    assert!(audited.node.said().contains("is opened again"), "{}", audited.node.said());
    audited.ok(None, &["put", "after", "v"]);
    eventually("lines go there", || lines(&audited.path()).iter().any(|line| line["prefix"] == "after"));
    assert!(lines(&moved).iter().any(|line| line["prefix"] == "before"));
    assert_eq!(audited.node.child.try_wait().expect("it can be asked"), None);
}

#[test]
fn a_file_that_is_moved_away_is_made_again() {
    let audited = Audited::start(&["--audit-requests", "writes"]);
    audited.ok(None, &["put", "before", "1"]);
    audited.has(&[("prefix", is("before"))]);
    let moved = audited.files.path().join("audit.1");
    std::fs::rename(audited.path(), &moved).expect("moved");
    eventually("there is a new one", || {
        audited.ok(None, &["put", "after", "1"]);
        audited.path().exists()
    });
    audited.has(&[("prefix", is("after"))]);
    assert!(lines(&moved).iter().any(|line| line["prefix"] == "before"));
    assert!(!audited.lines().iter().any(|line| line["prefix"] == "before"));
}

#[test]
fn with_a_full_disk_lines_are_dropped_and_counted() {
    let files = tempfile::tempdir().expect("a directory");
    symlink("/dev/full", files.path().join("audit")).expect("linked");
    let audited = Audited::start_at(files, &["--audit-requests", "writes"]);
    // The line of the start is one.
    eventually("it is counted", || audited.dropped() == 1);
    audited.ok(None, &["put", "lost", "1"]);
    eventually("it is counted", || audited.dropped() == 2);
    let said = audited.node.said();
    assert!(
        said.contains("takes no lines (No space left on device")
            && said.contains("ringfort_audit_dropped_total")
    );
    // Room again.
    std::fs::remove_file(audited.path()).expect("removed");
    eventually("it is written again", || {
        audited.ok(None, &["put", "kept", "1"]);
        audited.lines().iter().any(|line| line["prefix"] == "kept")
    });
    assert!(!audited.lines().iter().any(|line| line["prefix"] == "lost"));
}

#[test]
fn with_a_full_disk_what_must_be_audited_is_refused() {
    let files = tempfile::tempdir().expect("a directory");
    symlink("/dev/full", files.path().join("audit")).expect("linked");
    let audited = Audited::start_at(files, &["--audit-required", "--audit-requests", "writes"]);
    let refused = |arguments: &[&str]| {
        let output = audited.ask(None, arguments);
        let said = stderr(&output);
        assert!(!output.status.success(), "{arguments:?} was carried out");
        let path = audited.path();
        assert!(said.contains("takes no lines") && said.contains(path.to_str().expect("plain")), "{said}");
    };
    refused(&["put", "a", "1"]);
    refused(&["cluster", "set", "leader-preference=highest-id"]);
    refused(&["log-level", "node1", "debug"]);
    // Nothing was done; what needs no line goes on.
    assert!(!audited.ask(None, &["get", "a"]).status.success());
    assert!(audited.ok(None, &["cluster", "set"]).contains("leader-preference = ring"));
    assert!(!audited.ok(None, &["log-level", "node1"]).contains("debug"));
    assert_eq!(audited.say("SET 7 hello\n", 1)[0].split(':').next(), Some("ERROR rejected"));
    // Room again.
    std::fs::remove_file(audited.path()).expect("removed");
    eventually("it goes on", || audited.ask(None, &["put", "a", "1"]).status.success());
    audited.ok(None, &["cluster", "set", "leader-preference=highest-id"]);
    // The line is there when the answer is, and one before it was begun.
    let change = |line: &&Value| line["change"] == "leader-preference=highest-id";
    let lines = audited.lines();
    let outcomes: Vec<&Value> = lines.iter().filter(change).map(|line| &line["outcome"]).collect();
    assert_eq!(outcomes, ["begun", "ok"]);
    assert_eq!(lines[0]["operation"], "start", "it was kept");
    assert!(audited.dropped() == 0);
}

#[test]
fn a_start_whose_audit_log_can_not_be_opened_is_refused() {
    let files = tempfile::tempdir().expect("a directory");
    let data = files.path().join("data");
    let start = |flags: &[&str]| {
        let mut command = ringfort(&["start", "--addr", &a_free_address(), "--data-dir"]);
        let output = run(command.arg(&data).args(flags), b"");
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        assert!(!data.exists(), "nothing was made");
        stderr(&output)
    };
    let absent = files.path().join("absent/audit");
    let said = start(&["--audit", absent.to_str().expect("plain")]);
    assert!(
        said.contains("--audit") && said.contains("absent/audit") && said.contains("No such file"),
        "{said}"
    );
    assert!(start(&["--audit-required"]).contains("--audit-required: say where the audit log is"));
    assert!(start(&["--audit-requests", "all"]).contains("--audit-requests: say where the audit log is"));
}
