//! One machine: what survives its process, and the process if there is one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use ringfort_node::recovery::Replay;
use ringfort_node::{ApplyJob, Event, Node, ReadJob};
use ringfort_ring::Layout;
use ringfort_shard::Shard;
use ringfort_storage::{DataDir, Log, SimDisk, SnapshotReader, SnapshotWriter};
use ringfort_types::{Base, Configuration, Incarnation, Index, Levels, LogEntry, PeerId, Record, ShardId};

use crate::clock::Clock;
use crate::fragile::FragileTables;
use crate::power::PluggedDisk;
use crate::random::Random;

/// A replica that has nothing yet, in place of another one.
#[derive(Clone, Debug)]
pub(crate) struct Begin {
    pub(crate) shard: ShardId,
    pub(crate) peer: PeerId,
    /// Its table's.
    pub(crate) generation: u64,
    /// That of the table before, if there was one.
    pub(crate) replaces: Option<u64>,
    pub(crate) born: Arc<Layout>,
}

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
    /// Seals the log, if nothing was written since the batch with this number.
    Seal {
        after: u64,
    },
    Apply(Vec<ApplyJob>),
    /// Puts a table that has arrived in place of another.
    Install {
        shard: ShardId,
        base: Base,
    },
    /// Begins a replica that has nothing yet.
    Begin(Begin),
    /// Closes a shard for good.
    End {
        shard: ShardId,
        generation: u64,
    },
    /// Holds a table for a snapshot.
    TakeSnapshot {
        shard: ShardId,
        transfer: u64,
    },
    ReadChunk {
        transfer: u64,
    },
    StoreChunk {
        shard: ShardId,
        generation: u64,
        chunk: Bytes,
    },
    DropTable {
        shard: ShardId,
        generation: u64,
    },
    /// Lets go of what the log has beyond its budget.
    Collect,
    Read(ReadJob),
    SaveBirth(Bytes),
    Open {
        born: Arc<Layout>,
        shards: BTreeMap<ShardId, Configuration>,
    },
    SaveLayout(Arc<Layout>, Vec<String>),
    SaveMarks(Bytes),
    /// Goes on with bringing shards up to date.
    Replay,
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

/// Bytes of a log that have changed.
#[derive(Clone, Debug)]
pub(crate) struct Rot {
    pub(crate) path: String,
    /// Where, and by which exclusive or.
    pub(crate) changes: Vec<(u64, u8)>,
}

impl Rot {
    /// Changes them, or puts them back as they were.
    pub(crate) fn turn_over(&self, disk: &SimDisk) {
        for (offset, mask) in &self.changes {
            disk.damage(&self.path, *offset, *mask);
        }
    }
}

/// Indexes of each table: by shard and generation.
pub(crate) type Sealed = BTreeMap<(ShardId, u64), Vec<Index>>;

/// What a data directory and its tables are.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    disk: PluggedDisk,
    tables: FragileTables,
    sealed: Sealed,
}

/// Whether a machine is one of those that should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is.
    Here,
    /// Its node has ended as no member of the cluster any more. Its disk is still there.
    Removed,
    /// It was lost for good, and another one takes its place.
    Lost,
}

/// One machine.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself, in any combination")]
pub(crate) struct Host {
    /// Its node's name: that of another one if it has taken its place.
    pub(crate) name: String,
    pub(crate) fate: Fate,
    /// Where it is, or will be at its next start.
    pub(crate) address: String,
    /// Where it began.
    pub(crate) first_address: String,
    /// Where it was, and will be again, while nobody finds it where it is.
    pub(crate) strayed_from: Option<String>,
    /// How often it has gone to another address.
    pub(crate) moves: u32,
    /// Addresses that its processes are told, besides what their layouts have.
    pub(crate) told: Vec<String>,
    pub(crate) disk: PluggedDisk,
    pub(crate) tables: FragileTables,
    /// Where each table could be found after a crash, besides its durable index.
    pub(crate) sealed: Sealed,
    pub(crate) clock: Clock,
    /// Rises whenever a process begins or ends; work of an earlier life is void.
    pub(crate) life: u64,
    /// It is known to need the later of two versions (`levels`).
    pub(crate) is_upgraded: bool,
    pub(crate) process: Option<Process>,
    /// The process stands still. Rises with every pause, so that only the last one's end counts.
    pub(crate) paused: Option<u64>,
    pub(crate) pauses: u64,
    pub(crate) stalled: VecDeque<Work>,
    /// What happens in its next write, and how long it is gone then, in microseconds.
    pub(crate) trap: Option<(Trap, u64)>,
    /// There is no room on its disk.
    pub(crate) lacks_room: bool,
    /// No sync ends before this.
    pub(crate) hangs_until_us: u64,
    /// Syncs are slow before this.
    pub(crate) slow_until_us: u64,
    /// Everything takes this many times as long.
    pub(crate) slowness: u64,
    pub(crate) rot: Option<Rot>,
    /// Its own directory, while it runs with another one.
    pub(crate) shelf: Option<Shelf>,
    /// It has run with another one: frames of that time may still be on their way.
    pub(crate) was_shelved: bool,
    /// A copy of its directory and tables, with the log's last batch in it.
    pub(crate) image: Option<(Shelf, u64)>,
    /// Its disk was put back as it was before.
    pub(crate) is_older: bool,
    /// The layouts that were kept, in order.
    pub(crate) layouts: Vec<Arc<Layout>>,
    /// The one that its next process begins with in place of the last.
    pub(crate) old_layout: Option<Arc<Layout>>,
}

/// Shards that are being brought up to date.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) replay: Replay,
    /// Until then it is dawdled.
    pub(crate) until_us: u64,
    /// Entries of shards that are not ready.
    pub(crate) replayed: Vec<(ShardId, LogEntry)>,
}

/// One life of a node.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself, in any combination")]
pub(crate) struct Process {
    pub(crate) dir: DataDir,
    pub(crate) incarnation: Incarnation,
    pub(crate) node: Node,
    pub(crate) levels: Levels,
    pub(crate) log: Option<Log>,
    /// Those that are open.
    pub(crate) shards: BTreeMap<ShardId, Shard>,
    /// Those to which nothing can be applied any more, or that could not be opened.
    pub(crate) lost: BTreeSet<ShardId>,
    /// The damage that the node was told of: which shards, and whether they are readable.
    pub(crate) met: BTreeSet<(ShardId, bool)>,
    /// Those of this turn.
    pub(crate) newly_damaged: Vec<ShardId>,
    /// The others, once the log is open.
    pub(crate) opening: Option<Opening>,
    /// Which generation of its table each shard uses.
    pub(crate) generations: BTreeMap<ShardId, u64>,
    /// Tables that are held for snapshots, with the number of the next chunk.
    pub(crate) held: BTreeMap<u64, (SnapshotReader, u64)>,
    /// Tables that are being made of chunks.
    pub(crate) writers: BTreeMap<(ShardId, u64), SnapshotWriter>,
    /// Chunks are stored in order: the next ones not before this.
    pub(crate) stores_until_us: u64,
    pub(crate) turn_is_due: bool,
    /// Entries are applied in order: the next ones not before this.
    pub(crate) applies_until_us: u64,
    pub(crate) is_serving: bool,
    pub(crate) is_stopping: bool,
    /// Its ticks since it has heard of that.
    pub(crate) stopping_ticks: Option<u64>,
    /// A batch waits for room on the disk.
    pub(crate) is_full: bool,
    /// Since when a batch waits for a disk that hangs.
    pub(crate) hangs_since_us: Option<u64>,
    /// The node was told so.
    pub(crate) is_hung: bool,
    /// The last batch that was written.
    pub(crate) last_batch: u64,
    /// The layout that it went by at the end of its last turn.
    pub(crate) went_by: Option<Arc<Layout>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl Host {
    pub(crate) fn new(number: usize, random: &mut Random) -> Host {
        Host {
            address: format!("10.0.0.{}:50051", number + 1),
            first_address: format!("10.0.0.{}:50051", number + 1),
            strayed_from: None,
            moves: 0,
            told: Vec::new(),
            disk: PluggedDisk::default(),
            tables: FragileTables::default(),
            sealed: BTreeMap::new(),
            clock: Clock::new(random),
            life: 0,
            is_upgraded: false,
            process: None,
            paused: None,
            pauses: 0,
            stalled: VecDeque::new(),
            trap: None,
            slowness: 1,
            name: format!("node{}", number + 1),
            fate: Fate::Here,
            layouts: Vec::new(),
            old_layout: None,
            rot: None,
            shelf: None,
            was_shelved: false,
            image: None,
            is_older: false,
            lacks_room: false,
            hangs_until_us: 0,
            slow_until_us: 0,
        }
    }

    /// Whether its process takes requests, and goes on doing so.
    pub(crate) fn is_serving(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.is_serving && !process.is_stopping)
    }

    pub(crate) fn fill_up(&mut self) {
        self.lacks_room = true;
        self.disk.disk.set_capacity(Some(0));
    }

    pub(crate) fn make_room(&mut self) {
        self.lacks_room = false;
        self.disk.disk.set_capacity(None);
    }

    /// Keeps a copy of what is on its disk.
    pub(crate) fn take_image(&mut self) {
        let Some(log) = self.process.as_ref().and_then(|process| process.log.as_ref()) else { return };
        let batch = log.last_batch();
        let copy = Shelf { disk: self.disk.fork(), tables: self.tables.fork(), sealed: BTreeMap::new() };
        self.image = Some((copy, batch));
    }

    /// Puts a copy in place of what is on its disk.
    pub(crate) fn put_back(&mut self, Shelf { disk, tables, sealed }: Shelf) {
        self.make_room();
        (self.disk, self.tables, self.sealed) = (disk, tables, sealed);
        self.is_older = true;
    }

    /// Puts its directory aside and gives it an empty one.
    pub(crate) fn shelve(&mut self) {
        self.make_room();
        self.was_shelved = true;
        let (disk, tables, sealed) = (&mut self.disk, &mut self.tables, &mut self.sealed);
        self.shelf = Some(Shelf {
            disk: std::mem::take(disk),
            tables: std::mem::take(tables),
            sealed: std::mem::take(sealed),
        });
    }

    /// Gives it its own directory back.
    pub(crate) fn unshelve(&mut self) {
        let Some(Shelf { disk, tables, sealed }) = self.shelf.take() else { return };
        (self.disk, self.tables, self.sealed) = (disk, tables, sealed);
    }
}
