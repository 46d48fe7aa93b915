//! One machine: what survives its process, and the process if there is one.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringfort_node::{ApplyJob, Event, Node, ReadJob};
use ringfort_shard::Shard;
use ringfort_storage::{DataDir, Log, MemoryTables};
use ringfort_types::{Incarnation, Index, Record, ShardId};

use crate::clock::Clock;
use crate::power::PluggedDisk;

/// Something that a process does, at a time of its own.
#[derive(Debug)]
pub(crate) enum Work {
    Tick,
    /// Hands an event to the node.
    Hear(Event),
    /// Ends a turn: takes the node's effects.
    Turn,
    /// Writes and syncs a batch of the log.
    Sync {
        number: u64,
        records: Vec<Record>,
    },
    Apply(Vec<ApplyJob>),
    Read(ReadJob),
    SaveBirth(Bytes),
    Open {
        cluster: u64,
        shards: Vec<ShardId>,
    },
    Fetch {
        shard: ShardId,
        from: Index,
        to: Index,
        bytes_max: usize,
    },
    /// Reports the tables' sizes.
    Stats,
    /// Ends, as the node has asked for it.
    Exit,
}

/// How a host goes down during its next write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trap {
    Kill,
    PowerLoss,
    FailedSync,
}

/// One machine.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) address: String,
    pub(crate) disk: PluggedDisk,
    pub(crate) tables: MemoryTables,
    /// Where each table could be found after a crash, besides its durable index.
    pub(crate) sealed: BTreeMap<ShardId, Vec<Index>>,
    pub(crate) clock: Clock,
    /// Rises whenever a process begins or ends; work of an earlier life is void.
    pub(crate) life: u64,
    pub(crate) process: Option<Process>,
    /// The process stands still. Rises with every pause, so that only the last one's end counts.
    pub(crate) paused: Option<u64>,
    pub(crate) pauses: u64,
    pub(crate) stalled: VecDeque<Work>,
    pub(crate) trap: Option<Trap>,
}

/// One life of a node.
pub(crate) struct Process {
    pub(crate) dir: DataDir,
    pub(crate) incarnation: Incarnation,
    pub(crate) node: Node,
    pub(crate) log: Option<Log>,
    pub(crate) shards: BTreeMap<ShardId, Shard>,
    pub(crate) turn_is_due: bool,
    /// Entries are applied in order: the next ones not before this.
    pub(crate) applies_until_us: u64,
    pub(crate) is_serving: bool,
    pub(crate) is_stopping: bool,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Host {
    /// Whether its process takes requests, and goes on doing so.
    pub(crate) fn is_serving(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_serving && !process.is_stopping)
    }
}
