//! One process of the shipped binary.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{ended, eventually, free_ports, ringfort, run, stderr};

/// A node that is a cluster by itself.
pub(crate) struct Solo {
    pub(crate) address: String,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) node: Option<Child>,
}

impl Solo {
    pub(crate) fn new() -> Solo {
        let address = format!("127.0.0.1:{}", free_ports(1));
        Solo { address, directory: tempfile::tempdir().expect("a directory"), node: None }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    pub(crate) fn said(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = ringfort(&["start", "--addr", &self.address, "--shards", "4", "--data-dir"]);
        command.arg(self.data());
        command
    }

    pub(crate) fn spawn(&mut self, mut command: Command) {
        let log = fs::File::create(self.directory.path().join("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        self.node = Some(command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts"));
        eventually("it serves", || self.said().contains("serves on"));
    }

    pub(crate) fn start(&mut self) {
        self.spawn(self.command());
    }

    /// Starts it, which has to fail, and gives what it says.
    pub(crate) fn refuses(&self) -> String {
        let output = run(&mut self.command(), b"");
        assert_ne!(output.status.code(), Some(0), "it came up: {}", stderr(&output));
        stderr(&output)
    }

    pub(crate) fn ask(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = run(ringfort(arguments).env("RINGFORT_ADDR", &self.address), input);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        String::from_utf8(output.stdout).expect("text")
    }

    pub(crate) fn fill(&self) {
        let rows: Vec<_> = (0..300).map(|n| format!("key{n}\t{}\n", "v".repeat(3000))).collect();
        self.ask(&["import", "-"], rows.concat().as_bytes());
    }

    pub(crate) fn stop(&mut self, signal: Signal) {
        let mut node = self.node.take().expect("it runs");
        kill_process(Pid::from_child(&node), signal).expect("it runs");
        ended(&mut node);
    }

    /// The log's last segment.
    pub(crate) fn segment(&self) -> PathBuf {
        let log = self.data().join("lane-0/log");
        let names = fs::read_dir(&log).expect("a log").map(|entry| entry.expect("an entry").path());
        names.filter(|path| path.extension().is_some_and(|found| found == "log")).max().expect("a segment")
    }
}

impl Drop for Solo {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            let _gone = node.kill();
            let _gone = node.wait();
        }
    }
}
