//! The nodes of a cluster on this machine: processes of this same binary, each with a port, a directory and a log file.
//!
//! They must never outlive us, however we end. On every path that Rust sees, [`Nodes`] ends them when it is dropped. On
//! those that it does not (SIGKILL, an abort), the operating system closes the pipes that we hold at their stdins, and at
//! that they stop by themselves (`start --stop-on-stdin-eof`). They are in process groups of their own, so that a Ctrl+C
//! meant for the shell does not reach them.

use std::fs::{self, File};
use std::io::{IsTerminal, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ringfort_client::Client;
use ringfort_types::{ClusterState, Presence, is_name};
use ringfort_view::key_shards;

use crate::leftovers;
use crate::settings;
use crate::show;
use crate::stop::Stop;

/// How long the nodes may take to be ready. Large directories take a while.
const READY_MAX: Duration = Duration::from_mins(2);
/// How long a node may take to stop before it is killed.
const STOP_MAX: Duration = Duration::from_secs(6);
/// How often processes are looked at while they start or stop.
const LOOK: Duration = Duration::from_millis(20);
/// How far from the end of a node's log its last line is looked for.
const LAST_WORDS_BYTES: u64 = 8 * 1024;

/// The nodes, and where they keep their things. Dropping it ends all of them.
#[derive(Debug)]
pub(crate) struct Nodes {
    all: Vec<Node>,
    directory: PathBuf,
    /// Whether the directory goes with us.
    temporary: bool,
    /// Says that a temporary directory is somebody's.
    _lock: Option<File>,
    shards: u32,
    replicas: u32,
}

#[derive(Debug)]
struct Node {
    name: String,
    address: String,
    /// Whether it has joined the others, instead of having been born with them.
    joins: bool,
    /// Its process, while it runs. Our end of its stdin is in here: as long as it is open, the node lives.
    child: Option<Child>,
}

impl Nodes {
    /// Nodes that listen on these addresses, none of them started yet. Without a directory they keep their things in a
    /// temporary one. Shards and replicas are those of a new cluster.
    pub(crate) fn new(
        addresses: Vec<String>,
        directory: Option<&Path>,
        shards: u32,
        replicas: u32,
    ) -> Result<Nodes, Stop> {
        let failed = |at: &Path, error: std::io::Error| {
            let at = at.display();
            Stop::usage(format!("can't make a directory at {at}: {error}; choose one with --data-dir"))
        };
        let (directory, lock) = if let Some(directory) = directory {
            fs::create_dir_all(directory).map_err(|error| failed(directory, error))?;
            (directory.to_owned(), None)
        } else {
            let temporary = std::env::temp_dir();
            let claimed = leftovers::claim_new(leftovers::DEV, &temporary)
                .map_err(|error| failed(&temporary, error))?;
            (claimed.0, Some(claimed.1))
        };
        let temporary = lock.is_some();
        let node =
            |(at, address)| Node { name: format!("node{}", at + 1), address, joins: false, child: None };
        let all = addresses.into_iter().enumerate().map(node).collect();
        Ok(Nodes { all, directory, temporary, _lock: lock, shards, replicas })
    }

    /// Where they listen.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.all.iter().map(|node| node.address.clone()).collect()
    }

    fn log(&self, node: &Node) -> PathBuf {
        self.directory.join(format!("{}.log", node.name))
    }

    /// Starts each node's process.
    pub(crate) fn start_all(&mut self) -> Result<(), Stop> {
        for at in 0..self.all.len() {
            self.start(at)?;
        }
        Ok(())
    }

    fn start(&mut self, at: usize) -> Result<(), Stop> {
        let node = &self.all[at];
        let failed = |what: &str, error: std::io::Error| {
            Stop::unavailable(format!("can't start {}: {what}: {error}", node.name))
        };
        let binary = std::env::current_exe().map_err(|error| failed("this program's file", error))?;
        let log = File::options().create(true).append(true).open(self.log(node));
        let log = log.map_err(|error| failed("its log file", error))?;
        let errors = log.try_clone().map_err(|error| failed("its log file", error))?;
        let others = || self.all.iter().filter(|peer| !peer.joins && peer.name != node.name);
        let peers: Vec<String> = if node.joins {
            others().map(|peer| peer.address.clone()).collect()
        } else {
            others().map(|peer| format!("{}={}", peer.name, peer.address)).collect()
        };
        let mut command = Command::new(binary);
        // What is set for `start` is for nodes that somebody starts, not for these.
        settings::forget_environment(&mut command);
        command
            .args(["start", "--stop-on-stdin-eof", "--log-level", "info", "--id", &node.name])
            .args(["--addr", &node.address, "--http", "off"])
            .arg("--data-dir")
            .arg(self.directory.join(&node.name))
            .args(["--shards", &self.shards.to_string(), "--replicas", &self.replicas.to_string()])
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .process_group(0);
        if !peers.is_empty() {
            command.args([if node.joins { "--join" } else { "--peers" }, &peers.join(",")]);
        }
        let child = command.spawn().map_err(|error| failed("its process", error))?;
        self.all[at].child = Some(child);
        Ok(())
    }

    /// Waits until every node is there and every shard led.
    pub(crate) async fn until_ready(&mut self, client: &Client) -> Result<(), Stop> {
        let begun = Instant::now();
        let interactive = std::io::stderr().is_terminal();
        let mut told = !interactive;
        loop {
            if let Some((node, status)) = self.ended() {
                let why = last_line(&self.log(&self.all[node]));
                return Err(Stop {
                    code: status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(3),
                    message: format!("{} ended while it started: {why}", self.all[node].name),
                });
            }
            if let Ok(Ok(state)) = tokio::time::timeout(Duration::from_secs(1), client.cluster_state()).await
                && key_shards(&state).count() > 0
                && key_shards(&state).all(|shard| shard.leader.is_some())
                && self.all.iter().all(|node| is_up(&state, &node.address))
            {
                return Ok(());
            }
            if begun.elapsed() > READY_MAX {
                let logs = self.directory.display();
                self.temporary = false;
                return Err(Stop::unavailable(format!(
                    "the nodes are not ready after {}; their logs are in {logs}",
                    show::span(READY_MAX)
                )));
            }
            if !told && begun.elapsed() > Duration::from_secs(1) {
                told = true;
                let nodes = show::count(self.all.len() as u64, "node", "nodes");
                let _ = writeln!(std::io::stderr(), "starting {nodes} …");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Says on stderr where they are.
    pub(crate) fn welcome(&self) {
        let first = &self.all[0].address;
        let others = match self.all.len() {
            1 => "",
            2 => " and the next port",
            _ => " and the next ports",
        };
        let kept = if self.temporary { "data, until you leave," } else { "data" };
        let _ = writeln!(
            std::io::stderr(),
            "{} on {first}{others}; {kept} and logs in {}. Type help.",
            show::count(self.all.len() as u64, "node", "nodes"),
            self.directory.display()
        );
    }

    /// Says on stderr that they are about to be ended.
    pub(crate) fn say_stopping(&self) {
        let nodes = show::count(self.all.len() as u64, "node", "nodes");
        let _nobody_reads = writeln!(std::io::stderr(), "stopping {nodes} …");
    }

    /// The first process that has ended without being told to.
    fn ended(&mut self) -> Option<(usize, ExitStatus)> {
        for (at, node) in self.all.iter_mut().enumerate() {
            if let Some(child) = &mut node.child
                && let Ok(Some(status)) = child.try_wait()
            {
                node.child = None;
                return Some((at, status));
            }
        }
        None
    }

    /// Lines about processes that have ended since the last look.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let mut notices = Vec::new();
        while let Some((at, status)) = self.ended() {
            let name = &self.all[at].name;
            let how = match status.signal() {
                Some(signal) => format!("was ended by signal {signal}"),
                None => format!("ended: {}", last_line(&self.log(&self.all[at]))),
            };
            // What it was given, or has, can't be right: it would end again.
            let again = match status.code() {
                Some(2) => String::new(),
                _ => format!("; `start {name}` starts it again"),
            };
            notices.push(format!("{name} {how}{again}"));
        }
        notices
    }

    fn find(&self, name: &str) -> Result<usize, Stop> {
        self.all.iter().position(|node| node.name == name).ok_or_else(|| {
            let names: Vec<_> = self.all.iter().map(|node| node.name.as_str()).collect();
            let are = if names.len() == 1 { "node is" } else { "nodes are" };
            Stop::usage(format!("there is no {name}: the {are} {}", names.join(", ")))
        })
    }

    /// Ends one node's process at once, as a crash would.
    pub(crate) fn kill(&mut self, name: &str) -> Result<String, Stop> {
        let at = self.find(name)?;
        let Some(mut child) = self.all[at].child.take() else {
            return Err(Stop::usage(format!("{name} does not run; `start {name}` starts it")));
        };
        end(&mut child);
        Ok(format!("{name} is killed; `start {name}` starts it again"))
    }

    /// Starts one node's process again.
    pub(crate) fn start_again(&mut self, name: &str) -> Result<String, Stop> {
        let at = self.find(name)?;
        if self.all[at].child.is_some() {
            return Err(Stop::usage(format!("{name} runs already")));
        }
        self.start(at)?;
        Ok(format!("{name} is starting"))
    }

    /// Starts the process of one more node, which joins the others. One whose directory is there from before comes back as what it was.
    pub(crate) fn add(&mut self, name: Option<&str>) -> Result<String, Stop> {
        let is_taken = |name: &str| self.all.iter().any(|node| node.name == name);
        let numbered = (self.all.len() + 1..).map(|number| format!("node{number}"));
        let name = match name {
            Some(name) if !is_name(name) => {
                return Err(Stop::usage(format!(
                    "{name:?} is no name for a node: use 1 to 64 letters, digits, '-', '_' or '.'"
                )));
            }
            Some(name) if is_taken(name) => {
                return Err(Stop::usage(format!("there is a node {name}, or was one: choose another name")));
            }
            Some(name) => name.to_owned(),
            None => numbered.into_iter().find(|name| !is_taken(name)).unwrap_or_default(),
        };
        let address = self.next_address()?;
        self.all.push(Node { name: name.clone(), address: address.clone(), joins: true, child: None });
        if let Err(stop) = self.start(self.all.len() - 1) {
            self.all.pop();
            return Err(stop);
        }
        Ok(format!("{name} is starting on {address}, and joins; status shows it when it has"))
    }

    /// The port behind the last one.
    fn next_address(&self) -> Result<String, Stop> {
        let last = self.all.last().and_then(|node| node.address.rsplit_once(':'));
        let next = last.and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?.checked_add(1)?)));
        let Some((host, port)) = next else {
            return Err(Stop::usage("there is no port left above those of the other nodes"));
        };
        let address = format!("{host}:{port}");
        match TcpListener::bind(&address) {
            Ok(_free) => Ok(address),
            Err(error) => Err(Stop::usage(format!(
                "can't listen on {address}, the next port: {error}; stop what listens there"
            ))),
        }
    }

    /// Ends all processes: if their data is to be kept, as an operator would, else at once.
    pub(crate) fn stop(&mut self) {
        if !self.temporary {
            for node in &mut self.all {
                if let Some(child) = &mut node.child {
                    drop(child.stdin.take());
                }
            }
            let until = Instant::now() + STOP_MAX;
            while Instant::now() < until && self.all.iter_mut().any(Node::runs) {
                std::thread::sleep(LOOK);
            }
        }
        for node in &mut self.all {
            if let Some(mut child) = node.child.take() {
                end(&mut child);
            }
        }
    }
}

impl Node {
    fn runs(&mut self) -> bool {
        if let Some(child) = &mut self.child
            && matches!(child.try_wait(), Ok(Some(_)))
        {
            self.child = None;
        }
        self.child.is_some()
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.stop();
        if self.temporary {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }
}

fn is_up(state: &ClusterState, address: &str) -> bool {
    state.nodes.iter().any(|node| node.address == address && node.presence == Presence::Up)
}

/// Kills a process and waits for its end.
fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What a node said last, without its prefix.
fn last_line(log: &Path) -> String {
    let mut end = Vec::new();
    if let Ok(mut file) = File::open(log) {
        let length = file.metadata().map_or(0, |about| about.len());
        let _ = file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS_BYTES)));
        let _ = file.take(LAST_WORDS_BYTES).read_to_end(&mut end);
    }
    let text = String::from_utf8_lossy(&end);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it did not say why");
    line.strip_prefix("ringfort: ").unwrap_or(line).to_owned()
}
