//! Three processes of the shipped binary.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{ask_to_stop, binary, ended, eventually, free_ports, ringfort, with_open_files};

/// Three nodes by `ringfort start`, each with a directory of its own.
pub(crate) struct Trio {
    pub(crate) base: u16,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) nodes: [Option<Child>; 3],
    /// Flags besides those that every node has.
    pub(crate) more: [Vec<String>; 3],
    /// Where those are that have moved.
    pub(crate) moved: [Option<String>; 3],
    /// How many files a node may have open, if that is few.
    pub(crate) open_files: Option<u32>,
    /// Binaries in place of the one under test.
    pub(crate) binaries: [Option<PathBuf>; 3],
}

impl Trio {
    pub(crate) fn start() -> Trio {
        Trio::start_with(|_| Vec::new())
    }

    /// With more flags for each of them.
    pub(crate) fn start_with(more: impl FnMut(usize) -> Vec<String>) -> Trio {
        let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
        trio.more = [0, 1, 2].map(more);
        trio.start_all();
        trio
    }

    pub(crate) fn start_all(&mut self) {
        for node in 0..3 {
            self.start_node(node);
        }
        eventually("all serve", || (0..3).all(|node| self.said(node).contains("serves on")));
    }

    /// None of them started yet.
    pub(crate) fn idle(directory: tempfile::TempDir) -> Trio {
        Trio {
            base: free_ports(3),
            directory,
            nodes: [None, None, None],
            more: Default::default(),
            moved: Default::default(),
            open_files: None,
            binaries: Default::default(),
        }
    }

    pub(crate) fn address(&self, node: usize) -> String {
        let born = || format!("127.0.0.1:{}", self.base + node as u16);
        self.moved[node].clone().unwrap_or_else(born)
    }

    pub(crate) fn addresses(&self) -> Vec<String> {
        (0..3).map(|node| self.address(node)).collect()
    }

    pub(crate) fn log(&self, node: usize) -> std::path::PathBuf {
        self.directory.path().join(format!("node{}.log", node + 1))
    }

    pub(crate) fn said(&self, node: usize) -> String {
        std::fs::read_to_string(self.log(node)).unwrap_or_default()
    }

    /// Its flags, with data in this directory.
    pub(crate) fn flags(&self, node: usize, data: &Path, shards: u32) -> std::process::Command {
        let others = (0..3).filter(|other| *other != node);
        let peers: Vec<_> =
            others.map(|other| format!("node{}={}", other + 1, self.address(other))).collect();
        let id = format!("node{}", node + 1);
        let arguments = ["start", "--id", &id];
        let other = self.binaries[node].as_ref();
        let mut command = other.map_or_else(|| ringfort(&arguments), |other| binary(other, &arguments));
        command.args(["--addr", &self.address(node), "--peers", &peers.join(",")]);
        command.args(["--shards", &shards.to_string(), "--replicas", "3", "--data-dir"]).arg(data);
        command
    }

    pub(crate) fn start_node(&mut self, node: usize) {
        let data = self.directory.path().join(format!("node{}", node + 1));
        let log = File::create(self.log(node)).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = self.flags(node, &data, 16);
        command.args(&self.more[node]);
        if let Some(limit) = self.open_files {
            command = with_open_files(limit, &command);
        }
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts");
        self.nodes[node] = Some(child);
    }

    /// SIGKILL: no destructor runs, nothing is flushed.
    pub(crate) fn kill(&mut self, node: usize) {
        if let Some(mut child) = self.nodes[node].take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    /// SIGSTOP: it hangs. Its connections stay, and the system takes new ones for it.
    pub(crate) fn stop(&self, node: usize) {
        let child = self.nodes[node].as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::STOP).expect("it runs");
    }

    /// SIGCONT: it goes on where it was stopped.
    pub(crate) fn go_on(&self, node: usize) {
        let child = self.nodes[node].as_ref().expect("it is stopped");
        kill_process(Pid::from_child(child), Signal::CONT).expect("it is stopped");
    }

    /// SIGTERM: it hands over, answers what it has taken, and ends.
    pub(crate) fn terminate(&mut self, node: usize) {
        let mut child = self.nodes[node].take().expect("it runs");
        ask_to_stop(&child);
        assert!(ended(&mut child).success());
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = ringfort(arguments);
        command.env("RINGFORT_ADDR", self.addresses().join(","));
        command
    }
}

impl Drop for Trio {
    fn drop(&mut self) {
        for node in 0..3 {
            self.kill(node);
        }
    }
}
