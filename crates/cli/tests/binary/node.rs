//! One process of the shipped binary that serves alone.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::{eventually, free_ports, ringfort};

/// Whatever is to happen at once has so long.
pub(crate) const SOON: Duration = Duration::from_secs(5);

/// One node that serves.
pub(crate) struct Node {
    pub(crate) address: String,
    directory: tempfile::TempDir,
    pub(crate) child: Child,
}

impl Node {
    pub(crate) fn start() -> Node {
        Node::start_with(&[])
    }

    pub(crate) fn start_with(flags: &[&str]) -> Node {
        Node::start_as(flags, |command| command)
    }

    /// The command changed before it is run.
    pub(crate) fn start_as(flags: &[&str], change: impl FnOnce(Command) -> Command) -> Node {
        let directory = tempfile::tempdir().expect("a directory");
        let address = format!("127.0.0.1:{}", free_ports(1));
        let log = File::create(directory.path().join("log")).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = ringfort(&["start", "--addr", &address, "--shards", "2", "--data-dir"]);
        command.arg(directory.path().join("data")).args(flags);
        let mut command = change(command);
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let node = Node { address, child: command.spawn().expect("starts"), directory };
        eventually("it serves", || node.said().contains("serves on"));
        node
    }

    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).expect("it listens");
        stream.set_read_timeout(Some(SOON)).expect("a time-out");
        stream
    }

    /// All that it says to this before it closes, in good order.
    pub(crate) fn told(&self, said: &[u8]) -> String {
        let mut stream = self.connect();
        stream.write_all(said).expect("sent");
        let mut told = Vec::new();
        stream.read_to_end(&mut told).expect("closed, and not reset");
        String::from_utf8(told).expect("text")
    }

    /// Its memory, in bytes.
    pub(crate) fn resident(&self) -> u64 {
        resident(&self.child)
    }
}

/// A process's memory, in bytes.
pub(crate) fn resident(child: &Child) -> u64 {
    let path = format!("/proc/{}/statm", child.id());
    let statm = std::fs::read_to_string(path).expect("it runs");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()).expect("a number") * 4096
}

impl Drop for Node {
    fn drop(&mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}
