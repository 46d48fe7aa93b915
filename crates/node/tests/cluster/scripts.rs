//! Stories about nodes, told as scripts: `tests/scripts/*.script`, each with the commands and what comes of them.
//!
//! A script is compared with what happens now, line by line; `UPDATE_GOLDENFILES=1` writes it anew, and the
//! difference is then for people to judge. What is left out of the lines, [`crate::trace`] says. Time is virtual: it
//! passes in `run`, in ticks of 25 ms, and a message takes none. Lines of a `run` begin with the milliseconds since
//! the cluster was ready. Clients wait 1,000 ms for an answer.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::str::FromStr;

use bytes::Bytes;
use goldenscript::{Context, Runner};
use ringfort_types::{Consistency, Reply, Request, ShardId};

use crate::trace::{Trace, entry_shown};
use crate::world::{Disk, World, entries_of, get};

const CLIENT_WAITS_MS: u32 = 1_000;
const BEGIN: &str = "begin with `cluster`";
/// By then a new cluster has been born and its leaderships are where they belong.
const SETTLED_MS: u64 = 5_000;

macro_rules! stories {
    ($($name:ident)*) => {$(
        #[test]
        fn $name() {
            let path = concat!("tests/scripts/", stringify!($name), ".script");
            let told = goldenscript::run(&mut Story::default(), path);
            told.unwrap_or_else(|error| panic!("{path}: {error}"));
        }
    )*};
}

stories! {
    a_follower_reads_for_itself
    a_disk_of_an_hour_ago_is_refused
    a_lease_saves_the_question
    a_leader_cut_off_with_its_clients
    one_sync_acknowledges_many_shards
    one_sync_serves_many_shards
}

/// What a script may say. A node is named by its number.
#[derive(goldenscript::Command)]
enum Command {
    /// A cluster is born and settles down.
    Cluster {
        #[arg(key)]
        nodes: usize,
        #[arg(key)]
        shards: u32,
    },
    /// Clients of a node put `KEY=VALUE` each, all in one turn of the node.
    Put { node: usize, rows: Vec<(String, String)> },
    /// A client of a node asks for a key's value.
    Get { node: usize, key: String },
    /// The same, if the leader's lease is good enough.
    Leased { node: usize, key: String },
    /// A client of a node asks for what this node has.
    Stale { node: usize, key: String },
    /// Time passes, so many milliseconds.
    Run(u64),
    /// From now on a node and all others can't hear each other.
    CutOff(usize),
    /// All nodes can hear each other again.
    Heal,
    /// A node's disk takes in a batch and does not say that it is synced until `sync` or `disk NODE quick`.
    Disk(usize, Pace),
    /// A slow disk has synced the batch that it is busy with.
    Sync(usize),
    /// A node's process ends, as by kill -9.
    Kill(usize),
    /// It starts again.
    Start(usize),
    /// A copy is made of what a node has on disk.
    CopyDisk(usize),
    /// It is put back.
    PutBack(usize),
    /// Who leads, in each node's eyes.
    Leaders,
    /// What each node's log holds of each shard.
    Logs,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Slow,
    Quick,
}

impl FromStr for Pace {
    type Err = String;

    fn from_str(text: &str) -> Result<Pace, String> {
        match text {
            "slow" => Ok(Pace::Slow),
            "quick" => Ok(Pace::Quick),
            other => Err(format!("a disk is slow or quick, not {other}")),
        }
    }
}

#[derive(Default)]
struct Story {
    world: Option<World>,
    shards: u32,
    /// When the cluster was ready, on its clock.
    ready_ms: u64,
    copies: BTreeMap<usize, Disk>,
}

impl Runner for Story {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String, Box<dyn Error>> {
        if let Command::Cluster { nodes, shards } = command {
            let mut world = World::born_with_shards(*nodes, *shards);
            world.run(SETTLED_MS);
            (self.shards, self.ready_ms) = (*shards, world.now.monotonic_us / 1_000);
            world.trace = Some(Trace::default());
            self.world = Some(world);
            return self.leaders();
        }
        match command {
            Command::Leaders => return self.leaders(),
            Command::Logs => return self.logs(),
            command => self.carry_out(command)?,
        }
        let ready_ms = self.ready_ms;
        let timed = matches!(command, Command::Run(_));
        let trace = self.world()?.trace.as_mut().ok_or("the trace is off")?;
        let lines = std::mem::take(&mut trace.lines).into_iter();
        let shown = |(ms, line)| if timed { format!("{} ms: {line}\n", ms - ready_ms) } else { line + "\n" };
        Ok(lines.map(shown).collect())
    }
}

impl Story {
    fn world(&mut self) -> Result<&mut World, String> {
        self.world.as_mut().ok_or_else(|| BEGIN.to_owned())
    }

    fn carry_out(&mut self, command: &Command) -> Result<(), String> {
        let world = self.world.as_mut().ok_or(BEGIN)?;
        let nodes = world.nodes.len();
        let place = |node: &usize| match node {
            1.. if *node <= nodes => Ok(node - 1),
            _ => Err(format!("there is no node {node}: nodes are 1 to {nodes}")),
        };
        match command {
            Command::Put { node, rows } => {
                let put = |(key, value): &(String, String)| Request::put(key.clone(), value.clone());
                world.ask_all(place(node)?, rows.iter().map(put).collect(), CLIENT_WAITS_MS);
            }
            Command::Get { node, key } => {
                world.ask(place(node)?, get(key), CLIENT_WAITS_MS);
            }
            Command::Leased { node, key } => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let request = Request::Get { key, consistency: Consistency::Lease };
                world.ask(place(node)?, request, CLIENT_WAITS_MS);
            }
            Command::Stale { node, key } => {
                let key = Bytes::copy_from_slice(key.as_bytes());
                let request = Request::Get { key, consistency: Consistency::Stale };
                world.ask(place(node)?, request, CLIENT_WAITS_MS);
            }
            Command::Run(ms) => world.run(*ms),
            Command::CutOff(node) => world.cut_off(place(node)?),
            Command::Heal => world.heal(),
            Command::Disk(node, Pace::Slow) => {
                world.stuck.insert(place(node)?);
            }
            Command::Disk(node, Pace::Quick) => {
                world.stuck.remove(&place(node)?);
                world.finish_sync(place(node)?);
            }
            Command::Sync(node) => world.finish_sync(place(node)?),
            Command::Kill(node) => world.kill(place(node)?),
            Command::Start(node) => world.start(place(node)?),
            Command::CopyDisk(node) => {
                self.copies.insert(*node, world.disks[place(node)?].clone());
            }
            Command::PutBack(node) => {
                world.disks[place(node)?] = self.copies.remove(node).ok_or("there is no copy")?;
            }
            Command::Cluster { .. } | Command::Leaders | Command::Logs => {}
        }
        Ok(())
    }

    fn leaders(&mut self) -> Result<String, Box<dyn Error>> {
        let shards = self.shards;
        let world = self.world()?;
        let trace = world.trace.take();
        let mut told = String::new();
        for n in 0..world.nodes.len() {
            let Reply::Cluster(state) = world.ask_and_wait(n, Request::ClusterState) else {
                return Err(format!("node{} does not say how the cluster is", n + 1).into());
            };
            for shard in &state.shards[1..=shards as usize] {
                let leads = match shard.leader {
                    Some(leader) if leader.0 == n as u64 + 1 => "it leads".to_owned(),
                    Some(leader) => format!("node{leader} leads"),
                    None => "nobody leads".to_owned(),
                };
                let (shard, term) = (shard.shard, shard.term);
                writeln!(told, "node{}: {leads} shard {shard} in term {term}", n + 1)?;
            }
        }
        world.trace = trace;
        Ok(told)
    }

    fn logs(&mut self) -> Result<String, Box<dyn Error>> {
        let shards = self.shards;
        let world = self.world()?;
        let mut told = String::new();
        for (n, disk) in world.disks.iter().enumerate() {
            for shard in (1..=shards).map(ShardId) {
                let entries: Vec<String> =
                    entries_of(&disk.synced, shard).values().map(entry_shown).collect();
                writeln!(told, "node{}, shard {shard}: {}", n + 1, entries.join(" "))?;
            }
        }
        Ok(told)
    }
}
