//! Runs the shipped binary: single commands, and clusters by `ringfort dev`.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The binary under test, in an environment without settings of its own, but for the HTTP port, of which all nodes would have the same,
/// and for slow requests.
pub(crate) fn ringfort(arguments: &[&str]) -> Command {
    let mut command = binary(Path::new(env!("CARGO_BIN_EXE_ringfort")), arguments);
    command.env("RINGFORT_START_HTTP", "off");
    // A machine that builds is slow now and then.
    command.env("RINGFORT_START_SLOW_REQUEST", "off");
    command
}

/// The same of another binary.
pub(crate) fn binary(at: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(at);
    command.args(arguments).env_remove("HOME");
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("RINGFORT_")) {
        command.env_remove(name);
    }
    command
}

/// Waits for a process that has to end by itself. One that does not is killed, and that is a failure.
pub(crate) fn ended(child: &mut Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be asked") {
            return status;
        }
        if begun.elapsed() > Duration::from_mins(1) {
            child.kill().expect("it runs");
            child.wait().expect("it was killed");
            panic!("process {} has not ended within a minute", child.id());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command with this on its stdin, to its end.
pub(crate) fn run(command: &mut Command, input: &[u8]) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // A command may well end without reading all of it.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("ends");
    writer.join().expect("writes");
    output
}

pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is on stdout: one object a line, and nothing else.
pub(crate) fn objects(output: &Output) -> Vec<serde_json::Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
    let objects: Vec<serde_json::Value> = stdout(output).lines().map(parse).collect();
    assert!(objects.iter().all(serde_json::Value::is_object), "{objects:?}");
    objects
}

/// The exit code and the one line on stderr, without `ringfort: `.
pub(crate) fn refusal(output: &Output) -> (Option<i32>, String) {
    let text = stderr(output);
    let line = text.strip_prefix("ringfort: ").unwrap_or_else(|| panic!("not an error line: {text:?}"));
    let line = line.strip_suffix('\n').unwrap_or_else(|| panic!("no end: {text:?}"));
    assert!(!line.contains('\n'), "more than one line: {text:?}");
    (output.status.code(), line.to_owned())
}

/// The same command, in a process that may have so many files open, and can't have that raised.
pub(crate) fn with_open_files(limit: u32, command: &Command) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).env_remove("HOME");
    limited
}

/// SIGTERM: asks it to stop.
pub(crate) fn ask_to_stop(child: &Child) {
    kill_process(Pid::from_child(child), Signal::TERM).expect("it runs");
}

/// Compiles `NAME.c` beside this file into a library for `LD_PRELOAD`.
pub(crate) fn preloadable(name: &str, directory: &Path) -> PathBuf {
    let library = directory.join(name).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/binary").join(name).with_extension("c");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&library).arg(source).arg("-ldl");
    assert!(compiler.status().expect("there is a C compiler").success());
    library
}

/// A copy of a directory, with what is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copied");
        }
    }
}

/// The first of so many free ports in a row. Below the range from which the system takes ports for connections.
pub(crate) fn free_ports(count: u16) -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 15_000 + (std::process::id() % 1000) as u16 * 10;
    loop {
        let base = start + NEXT.fetch_add(count, Ordering::Relaxed) % 2_000;
        if (base..base + count).all(is_free) {
            return base;
        }
    }
}

pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// Tries until it is so, for ten seconds.
pub(crate) fn eventually(what: &str, mut so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(10), "not within ten seconds: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Ports of a cluster by `ringfort dev`: for three nodes, and one that joins.
const DEV_PORTS: u16 = 4;

/// A cluster by `ringfort dev`, and its shell.
pub(crate) struct Dev {
    pub(crate) child: Child,
    pub(crate) base_port: u16,
    shell: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Dev {
    /// Three nodes with data in this directory, ready.
    pub(crate) fn start(directory: &Path) -> Dev {
        let mut dev = Dev::start_as(directory, &["--shards", "16"]);
        assert_eq!(dev.say("put ready yes"), "Stored and replicated");
        assert_eq!(dev.say("delete ready"), "Deleted");
        dev
    }

    /// Three nodes with data in this directory, as these flags say. Ready when the shell first answers.
    pub(crate) fn start_as(directory: &Path, flags: &[&str]) -> Dev {
        let base_port = free_ports(DEV_PORTS);
        let mut command = ringfort(&["dev", "--base-port", &base_port.to_string(), "--data-dir"]);
        command.arg(directory).args(flags).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("starts");
        let shell = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().expect("piped"));
        Dev { child, base_port, shell, answers }
    }

    /// Says one line to the shell; its answer has one line.
    pub(crate) fn say(&mut self, line: &str) -> String {
        let shell = self.shell.as_mut().expect("open until the end");
        writeln!(shell, "{line}").expect("the shell reads");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the shell answers");
        answer.trim_end_matches('\n').to_owned()
    }

    pub(crate) fn address(&self, node: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + node - 1)
    }

    /// A command that talks to this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = ringfort(arguments);
        command.env("RINGFORT_ADDR", format!("{},{},{}", self.address(1), self.address(2), self.address(3)));
        command
    }

    /// Runs it; its stdout, if it ends well.
    pub(crate) fn ok(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = run(&mut self.command(arguments), input);
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Leaves the shell, and waits for the end of all.
    pub(crate) fn leave(mut self) -> Option<i32> {
        drop(self.shell.take());
        ended(&mut self.child).code()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        drop(self.shell.take());
        let _ = self.child.wait();
    }
}
