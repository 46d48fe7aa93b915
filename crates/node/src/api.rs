//! The contract between a node and its driver: what comes in, what goes out, and what the driver owes.
//!
//! The driver's duties:
//! - hand over events one at a time, in any order, with a reading of the clock; call `take_effects` after each
//!   batch of events (a turn) and carry the effects out in order. Each peer's frames should come in the order in
//!   which they were sent, because that is fast; a node bears it when they are late, missing or repeated, except
//!   that a [`PeerMessage::Forward`] must not come twice (it would be done twice);
//! - [`Effect::Persist`]: append the records to the shared log as one batch and sync it *before* reporting
//!   [`Event::Persisted`]. The node has at most one under way. A failed sync ends the process;
//! - [`Effect::Apply`]: apply the jobs in order, answer their waiters, and report [`Event::Applied`];
//! - [`Effect::Read`]: read at the named index, and answer. That index is applied by then;
//! - an answer to a [`Token`] of another node goes to that node as [`PeerMessage::Answer`];
//! - [`Effect::Send`] may lose messages. When a connection breaks, which loses a suffix of what was sent on it, it
//!   reports [`Event::PeerLost`] and, once connected again, [`Event::PeerUp`];
//! - whatever layout the meta group's table here has is reported with [`Event::Layout`], when it is opened or put in place and when
//!   an entry has changed it;
//! - a shard can be read and applied to before [`Event::Opened`] names it, and the log drops nothing that it had
//!   of the shard until then;
//! - whatever the log drops, beyond what each table holds durably, is reported with [`Event::Compacted`]. A
//!   [`Effect::Fetch`] of what is gone is answered with no entries;
//! - snapshots: [`Effect::TakeSnapshot`] and [`Effect::ReadChunk`] where a table comes from, [`Effect::StoreChunk`]
//!   where it goes, [`Effect::Install`] in the order of [`Effect::Apply`]. Each is reported as its text says, also when
//!   it came to nothing. A table that no start finds named in the log is removed by that start
//!   ([`begin`](crate::recovery::begin) sees to it);
//! - [`Event::Tick`] comes every [`TICK_MS`](ringfort_types::limits::TICK_MS); ticks that were missed are
//!   dropped.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::{
    Base, Call, Configuration, DiskSpace, DiskState, HardState, HybridClock, Incarnation, Index, Levels,
    LogEntry, NodeId, PeerFrame, PeerId, PeerMessage, Record, Reply, Request, Revision, ShardId, Term, Token,
};

/// How a node was told to be born. All listed nodes must agree on everything but `me`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's advertised address; one of `addresses`.
    pub address: String,
    /// All nodes' advertised addresses, sorted, without repetition. A node's [`NodeId`] is its place in this
    /// list, from 1.
    pub addresses: Vec<String>,
    /// The names given for them, in the same order; empty where none was given. This node's own is there.
    pub names: Vec<String>,
    /// Shards of the cluster.
    pub shards: u32,
    /// Copies of each shard that were asked for.
    pub replicas: u32,
    /// How long a node is not heard of until its replicas are made anew elsewhere, in milliseconds.
    pub replace_after_ms: u64,
    /// The levels that this process knows: [`Levels::KNOWN`], but in tests that mix versions.
    pub levels: Levels,
}

/// Who this node is, from its data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn when the directory was made.
    pub incarnation: Incarnation,
    /// How often it has been started, this time included.
    pub boot: u64,
    /// What the last [`Effect::SaveBirth`] said, if there was one.
    pub birth: Option<Bytes>,
    /// What the last [`Effect::SaveLayout`] said that has become durable; `None` also if it is lost.
    pub layout: Option<Bytes>,
    /// A number that this process has drawn at random, not 0.
    pub process: u64,
    /// What the last [`Effect::SaveMarks`] said that has become durable.
    pub marks: Option<Bytes>,
}

/// A request from a client of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Where the answer goes; its origin is this node. Not in use for another request.
    pub token: Token,
    /// The call, not yet validated. Its time-out begins now.
    pub call: Call,
}

/// What the driver found on disk for one shard, and has applied to its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Which replica this is.
    pub peer: PeerId,
    /// The last hard state in the log; zeroes if there is none.
    pub hard_state: HardState,
    /// What comes before the log's first entry.
    pub base: Base,
    /// The log's terms: each with the first index that has it, ascending. Empty if the log is.
    pub terms: Vec<(Index, Term)>,
    /// The last index in the log; the base's if it is empty.
    pub last: Index,
    /// The table's last applied index, after everything up to `hard_state.commit` has been replayed.
    pub applied: Index,
    /// The shard's revision at `applied`.
    pub revision: Revision,
    /// The stamp of the last entry up to `applied` that had one.
    pub clock: HybridClock,
    /// Estimated rows of the table, and bytes.
    pub sizes: (u64, u64),
    /// Who belonged to its group at `applied`: this replica too, unless it is new, and the log says so later, or the group has gone
    /// on without it.
    pub configuration: Configuration,
    /// The entries after `applied`, up to `last`.
    pub tail: Vec<LogEntry>,
}

/// Estimates about one shard's table, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TableStats {
    /// Which shard.
    pub shard: ShardId,
    /// Its revision.
    pub revision: Revision,
    /// Estimated rows.
    pub keys_estimate: u64,
    /// Estimated bytes.
    pub bytes_estimate: u64,
}

/// The replica of a shard that this node has, or had, as its log names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundReplica {
    /// Who it is in its group.
    pub peer: PeerId,
    /// Whether it is no more.
    pub is_gone: bool,
    /// The generation of its table.
    pub generation: u64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A tick has passed.
    Tick,
    /// Clients ask.
    Requests(Vec<Incoming>),
    /// Another node speaks.
    Peer {
        /// The connection that it came in on, by the driver's own number: where a refusal goes.
        link: u64,
        /// What it says.
        frame: PeerFrame,
    },
    /// A connection to this node has been made: what is sent from now on should arrive.
    PeerUp(NodeId),
    /// The connection to this node is gone, and with it whatever was under way.
    PeerLost(NodeId),
    /// [`Effect::SaveBirth`] is durable.
    BirthSaved,
    /// [`Effect::Open`] has begun. Comes before anything else is said of replicas.
    Replicas {
        /// The replicas that this node has, or had.
        replicas: BTreeMap<ShardId, FoundReplica>,
        /// The log's number of the last batch that was found in it; 0 if it is empty.
        batch: u64,
    },
    /// [`Effect::Open`] is done for these shards: perhaps for none, or for a part of those that are left.
    Opened(BTreeMap<ShardId, Opened>),
    /// The meta group's table here has this layout: it has been opened or put in place, or an entry has changed it.
    Layout(Arc<Layout>),
    /// [`Effect::Persist`] is durable.
    Persisted {
        /// Its number.
        number: u64,
        /// The log's number for it, which goes on from one process to the next.
        batch: u64,
    },
    /// What came of [`Effect::SaveMarks`]: whether they are kept. If not, it is tried again.
    MarksSaved(bool),
    /// These shards' tables have reached these indexes.
    Applied(Vec<(ShardId, Index)>),
    /// What came of writes that are [`ApplyJob::held`].
    Replied(Vec<(ShardId, Token, Reply)>),
    /// The entries that [`Effect::Fetch`] asked for; may be fewer, from the first one on.
    Fetched {
        /// Whose.
        shard: ShardId,
        /// From the index asked for, without gaps.
        entries: Vec<LogEntry>,
    },
    /// There is no room on the disk, a sync takes seconds, or all is well again. A batch or a table that could not be
    /// written for lack of room is tried again until it can; a sync that hangs is waited for.
    Disk(DiskState),
    /// So much room the disk has. Told now and then.
    Space(DiskSpace),
    /// This shard's table is damaged: it could not be opened, or an entry could not be applied, or a read has met a place that
    /// is not what was written. Nothing more is to be expected of it, except that reads go on if they can.
    Damaged {
        /// Which shard.
        shard: ShardId,
        /// What is wrong, with the file, and what to do.
        reason: String,
        /// Entries can still be applied, and other places read.
        is_readable: bool,
    },
    /// This shard's log holds a committed entry that this version can't read. Nothing more is to be expected of its table.
    Unread {
        /// Which shard.
        shard: ShardId,
        /// Which entry, what is not known about it, and what to do.
        reason: String,
    },
    /// The log has dropped these shards' entries up to here.
    Compacted(Vec<(ShardId, Base)>),
    /// A table's state at this index is being held for [`Effect::ReadChunk`].
    SnapshotTaken {
        /// The number that it was asked for under.
        transfer: u64,
        /// The index.
        index: Index,
    },
    /// Part of it.
    ChunkRead {
        /// Which snapshot's.
        transfer: u64,
        /// Its place, from 0.
        number: u64,
        /// Its bytes, and whether it is the last one. `None` if it can't be read.
        chunk: Option<(Bytes, bool)>,
    },
    /// What came of [`Effect::StoreChunk`].
    ChunkStored {
        /// Whose.
        shard: ShardId,
        /// The table that it went into.
        generation: u64,
        /// What came of it.
        outcome: Stored,
    },
    /// [`Effect::Install`] is done.
    Installed {
        /// Whose.
        shard: ShardId,
        /// The table's index.
        index: Index,
        /// The shard's revision there.
        revision: Revision,
        /// The stamp of the last entry up to there that had one.
        clock: HybridClock,
    },
    /// How large the tables are; about once a second.
    Stats(Vec<TableStats>),
    /// The process should end: hand leadership over, then report [`Effect::Stopped`].
    Stop,
}

/// What came of a chunk of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The table grows.
    More,
    /// The table is complete, and all of it durable.
    Complete {
        /// The index that it is at, as its state row has it.
        index: Index,
        /// Who belonged to the group there, likewise.
        configuration: Configuration,
    },
    /// It could not be stored: damaged, out of order, or for lack of room. The table is of no use.
    Refused,
}

/// A committed entry to be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyJob {
    /// To which shard.
    pub shard: ShardId,
    /// The entry.
    pub entry: LogEntry,
    /// Who waits for its commands, in their order; empty if nobody does, else one for each command
    /// ([`Token::NOBODY`] for those who have given up: drop their answers).
    pub waiters: Vec<Token>,
    /// How many replicas are known to have synced it, for the receipts.
    pub copies: u32,
    /// Those of the waiters whose replies come back with [`Event::Replied`], because more copies than these were asked for, or
    /// because an earlier try of theirs is in doubt.
    pub held: Vec<Token>,
}

/// A read to be answered from a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadJob {
    /// Who asks.
    pub token: Token,
    /// Which shard.
    pub shard: ShardId,
    /// The index to read at.
    pub at: Index,
    /// `Get`, `GetMany`, `OpenSession`, `Scan` or `DigestAt`.
    pub request: Request,
}

/// An answer for a client of this node, or for another node's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// Whose request.
    pub token: Token,
    /// The answer.
    pub reply: Reply,
    /// The node that leads the key's shard, if the request had to be passed on to it: asking there is
    /// quicker.
    pub leader: Option<NodeId>,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Keep these bytes as [`Identity::birth`], durably, then report [`Event::BirthSaved`].
    SaveBirth(Bytes),
    /// The cluster is born: open the log and these shards' tables, replay, and report [`Event::Opened`], of each
    /// shard as soon as it is ready.
    Open {
        /// What the cluster was born with: its number, for file headers and peer frames, and the layout that the meta group begins with.
        born: Arc<Layout>,
        /// All shards, the meta group among them, each with the configuration that it was born with. Which have a replica here the log
        /// says; if it does not, those do that were born with one here.
        shards: BTreeMap<ShardId, Configuration>,
    },
    /// The log says, durably, that this node's replica of a shard is another one from now on, which has nothing yet. Apply nothing more to
    /// the one before, begin an empty table of this generation, remove the other, and report [`Event::Opened`] for the shard. In the order
    /// of [`Effect::Apply`]; what was applied to the one before is not reported any more after that.
    Begin {
        /// Whose.
        shard: ShardId,
        /// The new replica.
        peer: PeerId,
        /// Its table's.
        generation: u64,
        /// The generation of the table of the one before, if there was one.
        replaces: Option<u64>,
        /// What the cluster was born with: the log begins with who belonged to the group then.
        born: Arc<Layout>,
    },
    /// The log says, durably, that this node has no replica of this shard any more. Apply nothing more to it, read nothing from it, and
    /// remove its table. In the order of [`Effect::Apply`]; what was applied to it is not reported any more after that.
    End {
        /// Whose.
        shard: ShardId,
        /// The generation of its table.
        generation: u64,
    },
    /// Keep this layout as [`Identity::layout`], when there is time for it: whoever has lost it is given it by another node. A later
    /// one takes its place.
    SaveLayout {
        /// Later than all before it.
        layout: Arc<Layout>,
        /// Lines for the operator, once that was tried: whoever reads them may end the node and start it again by what is kept.
        told: Vec<String>,
    },
    /// Keep these bytes as [`Identity::marks`], durably, then report [`Event::MarksSaved`]. One at a time.
    SaveMarks(Bytes),
    /// Append to the log as one batch, sync, then report [`Event::Persisted`].
    Persist {
        /// Its number, from 1 in each boot.
        number: u64,
        /// In order.
        records: Vec<Record>,
    },
    /// Send to this node.
    Send {
        /// To whom.
        to: NodeId,
        /// In order.
        messages: Vec<PeerMessage>,
    },
    /// Apply, answer the waiters, report [`Event::Applied`].
    Apply(Vec<ApplyJob>),
    /// Read and answer.
    Read(Vec<ReadJob>),
    /// Answer.
    Reply(Vec<Answered>),
    /// Read old entries from the log and report [`Event::Fetched`].
    Fetch {
        /// Whose.
        shard: ShardId,
        /// The first one wanted.
        from: Index,
        /// One past the last one wanted.
        to: Index,
        /// At most about so many bytes, but at least one entry.
        bytes_max: usize,
    },
    /// Hold this shard's table as it is between two entries, its state row written, and report
    /// [`Event::SnapshotTaken`].
    TakeSnapshot {
        /// Whose.
        shard: ShardId,
        /// A number for it.
        transfer: u64,
    },
    /// Read the next chunk of what is held, no faster than the operator allows, and report [`Event::ChunkRead`].
    ReadChunk {
        /// Which snapshot.
        transfer: u64,
    },
    /// Hold it no longer.
    DropSnapshot {
        /// Which snapshot.
        transfer: u64,
    },
    /// Add a chunk to a shard's table of this generation, which begins empty with the first one, and report
    /// [`Event::ChunkStored`]. In order.
    StoreChunk {
        /// Whose.
        shard: ShardId,
        /// A generation that is not in use, and never was.
        generation: u64,
        /// In `storage`'s format.
        chunk: Bytes,
    },
    /// Remove this table, which is not in use.
    DropTable {
        /// Whose.
        shard: ShardId,
        /// Which generation.
        generation: u64,
    },
    /// The shard's table is the one of this generation from now on: the log says so, durably. Put it in place of the
    /// other, before any later [`Effect::Apply`] and after all earlier ones, remove the other, and report
    /// [`Event::Installed`].
    Install {
        /// Whose.
        shard: ShardId,
        /// The index that the table is at, and its generation.
        base: Base,
    },
    /// Answer on this incoming connection with a frame that holds this one message, a [`PeerMessage::Refused`] or a
    /// [`PeerMessage::LogRecall`], then close it. (The other side may not be on this node's list at all, or elsewhere, so there may be no
    /// other way to reach it. Its driver hands that frame to its node as [`Event::Peer`].)
    Refuse {
        /// The incoming connection.
        link: u64,
        /// What it says.
        with: PeerMessage,
    },
    /// The replica of this shard takes no part any more, and nothing will be applied to it. What the log keeps for its table may
    /// go, if the log outgrows its budget because of it.
    Retire(ShardId),
    /// A line for the operator.
    Notice(String),
    /// All local shards are open, or known to be damaged. Comes once. (Requests are taken from birth on.)
    Serving,
    /// A cluster that is born has refused this node, whose directory was made by this very start and holds no log: it may be
    /// removed, since nobody will ever ask for it. Comes before [`Effect::Refused`].
    Discard,
    /// This node must not go on, for this reason: end the process with exit code 2.
    Refused(String),
    /// This node is no member of its cluster any more, and nobody needs what it has: end the process.
    Removed,
    /// Leadership is handed over as far as it could be: the process may end.
    Stopped,
}
