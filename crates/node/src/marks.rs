//! What nodes remember of each other's logs, so that a disk that is older than it was is noticed before anybody counts what its node
//! says (ADR 0009).
//!
//! An image put back, a copy of a directory and a disk that has lost what it had synced are consistent in themselves: only others can
//! know. Each frame says which process speaks, with which batch the log ended when it began, and which one is synced
//! ([`LogMark`]). Everybody keeps the highest that was heard of each node. If a process begins below that,
//!
//! - whoever remembers does not listen to its replicas, and says what it remembers ([`LogRecall`]);
//! - the node uses none of the replicas that it has found. Its log says so of each ([`Record::Lost`]), and they are made anew as other peers
//!   (`renewal`), as long as more than half of all are whole elsewhere;
//! - then it keeps, durably, what is missing to the number that is remembered, and adds it to what it says of its log from then on. So it
//!   is listened to again, and the next start is no matter.
//!
//! The same tells two processes apart that run on copies of one directory: the one that came later is refused, once both have gone on
//! speaking for a while.
//!
//! Invariants:
//! - nobody counts a vote, an acknowledgement or a confirmation of a process that began below what it remembers;
//! - a number that is told was synced, and none is told twice for different batches of a directory that was not put back.
//!
//! What nobody remembers can't be noticed: a node that runs alone, or what was written after the last frame that anybody has got who
//! is there. The memory is kept every five seconds, for the case that all nodes start again.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{
    LogMark, LogRecall, NodeId, PeerId, PeerMessage, Record, Refusal, RefusalKind, ShardId,
};

use crate::Effect;
use crate::node::Node;

/// How often what is remembered is kept, if it has changed.
pub(crate) const KEEP_TICKS: u64 = 5_000 / TICK_MS;
/// A process that has not been heard of for so long may have ended. (Each speaks every second.)
const SILENT_US: u64 = 2_500_000;
/// For so long another process of the same node has been speaking besides, when it is refused.
const SECOND_US: u64 = 3_000_000;
/// And the first one must have been heard of so long after it.
const FIRST_US: u64 = 2_000_000;
/// A node is told again what is remembered after so long.
const RECALL_US: u64 = 500_000;
const VERSION: u8 = 1;

/// What is remembered of another node.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// The process that is listened to; 0 if none was ever heard of.
    process: u64,
    /// The highest batch that it, or one before it, has told.
    synced: u64,
    /// When this process was last heard of, unless its connection was lost since. Not kept.
    heard_us: Option<u64>,
    /// Another process that speaks for the same node, and since when. Not kept.
    second: Option<(u64, u64)>,
    /// When a process was last told that its log was further once. Not kept.
    recalled_us: Option<u64>,
}

impl Known {
    fn may_live(&self, now_us: u64) -> bool {
        self.heard_us.is_some_and(|heard_us| now_us.saturating_sub(heard_us) <= SILENT_US)
    }
}

/// What came of a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Heard {
    /// Its process is listened to.
    Good,
    /// It is not, or not yet.
    Unheard,
    /// Its node's log was further once.
    Older {
        /// This far.
        synced: u64,
    },
    /// It is the second process of its node.
    Second,
}

/// This node's own log.
#[derive(Debug)]
struct OwnLog {
    /// The last batch that was found in it.
    began: u64,
    synced: u64,
    /// The replicas that it had then, and that are in use.
    found: BTreeMap<ShardId, PeerId>,
}

/// The replicas that were found are given up.
#[derive(Debug)]
struct Renouncing {
    /// The number that others remember.
    to: u64,
    /// The node's number of the batch that says so of each replica; none once it is durable.
    recorded_in: Option<u64>,
}

/// What this node remembers, and what others may hold against it.
#[derive(Debug)]
pub(crate) struct Marks {
    process: u64,
    /// What is added to the numbers of this node's log where others are told of them.
    ahead: u64,
    own: Option<OwnLog>,
    renouncing: Option<Renouncing>,
    renounced: BTreeMap<ShardId, PeerId>,
    others: BTreeMap<NodeId, Known>,
    kept: Bytes,
    /// What is being kept, and the number to be added that is in it.
    keeping: Option<(Bytes, u64)>,
}

impl Marks {
    /// Of a process that has drawn this number, and remembers nothing.
    pub(crate) fn none(process: u64) -> Marks {
        Marks {
            process,
            ahead: 0,
            own: None,
            renouncing: None,
            renounced: BTreeMap::new(),
            others: BTreeMap::new(),
            kept: Bytes::new(),
            keeping: None,
        }
    }

    /// With what the one before it has kept.
    pub(crate) fn with(mut self, kept: &Bytes) -> Result<Marks, Malformed> {
        self.kept = kept.clone();
        let mut reader = Reader::new(kept.clone());
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of what is remembered of other nodes"));
        }
        self.ahead = reader.varint()?;
        for _ in 0..reader.count(10)? {
            let node = NodeId(reader.varint()?);
            let (process, synced) = (reader.u64()?, reader.varint()?);
            self.others.insert(node, Known { process, synced, ..Known::default() });
        }
        reader.finish()?;
        Ok(self)
    }

    fn encode(&self, ahead: u64) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        put_varint(&mut out, ahead);
        put_varint(&mut out, self.others.len() as u64);
        for (node, known) in &self.others {
            put_varint(&mut out, node.0);
            out.put_u64_le(known.process);
            put_varint(&mut out, known.synced);
        }
        out.freeze()
    }

    /// What this node says of its own log.
    pub(crate) fn own(&self) -> LogMark {
        self.own.as_ref().map_or(LogMark::NONE, |own| LogMark {
            process: self.process,
            began: own.began + self.ahead,
            synced: own.synced + self.ahead,
        })
    }

    /// The log is open.
    pub(crate) fn opened(&mut self, batch: u64, found: BTreeMap<ShardId, PeerId>) {
        self.own = Some(OwnLog { began: batch, synced: batch, found });
    }

    /// One of the node's batches is durable: the log's number for it.
    fn persisted(&mut self, number: u64, batch: u64) {
        if let Some(own) = &mut self.own {
            own.synced = batch;
        }
        if let Some(renouncing) = &mut self.renouncing {
            renouncing.recorded_in.take_if(|recorded_in| *recorded_in <= number);
        }
    }

    /// Whether this replica was found in a directory that is older than it was.
    pub(crate) fn is_renounced(&self, shard: ShardId, peer: PeerId) -> bool {
        self.renounced.get(&shard) == Some(&peer)
    }

    /// Whether replicas are being given up: until that is durable, none is made anew.
    pub(crate) fn is_renouncing(&self) -> bool {
        self.renouncing.is_some()
    }

    /// Whether this process speaks for its node, as far as it can be known.
    fn hear(&mut self, node: NodeId, mark: LogMark, now_us: u64) -> Heard {
        if mark.process == 0 {
            return Heard::Unheard;
        }
        let known = self.others.entry(node).or_default();
        if known.process == mark.process {
            known.synced = known.synced.max(mark.synced);
            known.heard_us = Some(now_us);
            return Heard::Good;
        }
        if known.may_live(now_us) {
            return match known.second {
                Some((process, since_us)) if process == mark.process => {
                    let goes_on = known.heard_us.is_some_and(|heard_us| heard_us >= since_us + FIRST_US);
                    if goes_on && now_us >= since_us + SECOND_US { Heard::Second } else { Heard::Unheard }
                }
                _ => {
                    known.second = Some((mark.process, now_us));
                    Heard::Unheard
                }
            };
        }
        if mark.began < known.synced && !planted::is(Bug::OldImageAccepted) {
            return Heard::Older { synced: known.synced };
        }
        let synced = known.synced.max(mark.synced);
        *known = Known { process: mark.process, synced, heard_us: Some(now_us), ..Known::default() };
        Heard::Good
    }

    /// Whether a node is to be told what is remembered of it: not with every frame.
    fn is_recall_due(&mut self, node: NodeId, now_us: u64) -> bool {
        let Some(known) = self.others.get_mut(&node) else { return false };
        let is_due = known.recalled_us.is_none_or(|recalled_us| now_us >= recalled_us + RECALL_US);
        if is_due {
            known.recalled_us = Some(now_us);
        }
        is_due
    }

    /// The connection to a node was lost: its process may have ended.
    pub(crate) fn lost(&mut self, node: NodeId) {
        if let Some(known) = self.others.get_mut(&node) {
            known.heard_us = None;
        }
    }

    /// It is no member any more, and its number is never given to another one.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.others.remove(&node);
    }

    /// Somebody remembers more of this node's log than there was when this process began. The replicas that it found then, if this is
    /// so, and how far the log came.
    fn recall(&mut self, recall: LogRecall) -> Option<(BTreeMap<ShardId, PeerId>, u64)> {
        let own = self.own.as_mut().filter(|_| recall.process == self.process)?;
        let to = self.renouncing.as_ref().map_or(own.began + self.ahead, |renouncing| renouncing.to);
        if recall.synced <= to {
            return None;
        }
        let recorded_in = self.renouncing.take().and_then(|renouncing| renouncing.recorded_in);
        self.renouncing = Some(Renouncing { to: recall.synced, recorded_in });
        let found = std::mem::take(&mut own.found);
        self.renounced.extend(&found);
        Some((found, own.began))
    }

    /// The node's number of the batch that says so of each replica.
    fn renounced_in(&mut self, number: u64) {
        if let Some(renouncing) = &mut self.renouncing {
            renouncing.recorded_in = renouncing.recorded_in.max((number > 0).then_some(number));
        }
    }

    /// What is to be kept, if that has changed.
    fn keep(&mut self) -> Option<Bytes> {
        if self.keeping.is_some() {
            return None;
        }
        let mut ahead = self.ahead;
        if let (Some(own), Some(Renouncing { to, recorded_in: None })) = (&self.own, &self.renouncing) {
            ahead = ahead.max(to - own.began);
        }
        let bytes = self.encode(ahead);
        if bytes == self.kept {
            return None;
        }
        self.keeping = Some((bytes.clone(), ahead));
        Some(bytes)
    }

    /// What was to be kept is durable, or could not be written.
    fn kept(&mut self, is_kept: bool) {
        let Some((bytes, ahead)) = self.keeping.take().filter(|_| is_kept) else { return };
        (self.kept, self.ahead) = (bytes, ahead);
        if let (Some(own), Some(renouncing)) = (&self.own, &self.renouncing)
            && own.began + ahead >= renouncing.to
        {
            self.renouncing = None;
        }
    }
}

/// What was kept ([`Effect::SaveMarks`]) of a node's log: the highest batch.
pub fn remembered_in(kept: &Bytes, node: NodeId) -> Option<u64> {
    let marks = Marks::none(0).with(kept).ok()?;
    marks.others.get(&node).map(|known| known.synced)
}

/// Whether a message counts for something only if its node has all that it ever had.
pub(crate) fn speaks_for_replicas(message: &PeerMessage) -> bool {
    match message {
        PeerMessage::Raft(_)
        | PeerMessage::ReadProbe(_)
        | PeerMessage::ReadProbeReply(_)
        | PeerMessage::ReadIndex(_)
        | PeerMessage::ReadIndexReply(_)
        | PeerMessage::Report(_)
        | PeerMessage::SnapshotChunk(_)
        | PeerMessage::SnapshotReply(_)
        | PeerMessage::GroupTold(_) => true,
        PeerMessage::Hello(_)
        | PeerMessage::Refused(_)
        | PeerMessage::Forward(_)
        | PeerMessage::Answer(_)
        | PeerMessage::LayoutWanted(_)
        | PeerMessage::LayoutSent(_)
        | PeerMessage::GroupWanted(_)
        | PeerMessage::LogRecall(_) => false,
    }
}

impl Node {
    /// What this node says of its own log, in each frame.
    pub fn log_mark(&self) -> LogMark {
        self.marks.own()
    }

    /// A member speaks: whether its replicas are listened to.
    pub(crate) fn hear_mark(&mut self, link: u64, from: NodeId, mark: LogMark) -> bool {
        let now_us = self.now.monotonic_us;
        match self.marks.hear(from, mark, now_us) {
            Heard::Good => true,
            Heard::Unheard => false,
            Heard::Older { synced } => {
                if self.marks.is_recall_due(from, now_us) {
                    self.send(from, LogRecall { process: mark.process, synced }.into());
                    self.out.last.push(Effect::Notice(format!(
                        "the disk of {} is older than it was: its log ended with batch {} when it started, and it has told {synced} before; \
                         its replicas are not listened to until they are made anew",
                        self.called(from),
                        mark.began
                    )));
                }
                false
            }
            Heard::Second => {
                let reason = format!(
                    "another process speaks as {} and went first: two of them run on copies of one data directory. Go on with one of them \
                     only, and start the other one on an empty directory with a name of its own and --join",
                    self.called(from)
                );
                let refusal = Refusal { kind: RefusalKind::SecondProcess, reason };
                self.out.first.push(Effect::Refuse { link, refusal });
                false
            }
        }
    }

    /// Gives up the replicas that this process has found, if somebody remembers more of its log than it has found.
    pub(crate) fn handle_log_recall(&mut self, from: NodeId, recall: LogRecall) {
        let Some((found, began)) = self.marks.recall(recall) else { return };
        let reason = format!(
            "the data directory is older than it was: its log ended with batch {began} when this process started, and {} remembers {} of \
             it. It was put back from an image or a copy, or the disk has lost what it had synced",
            self.called(from),
            recall.synced
        );
        self.out.last.push(Effect::Notice(format!(
            "{reason}. Nothing that it has is used: its replicas are made anew from the other nodes, as long as those have whole ones. \
             If they don't, stop this node and put its own directory back as it was"
        )));
        let mut batch = 0;
        for (shard, peer) in found {
            let slot = &self.slots[shard.0 as usize];
            if slot.own.is_none_or(|own| own.peer != peer || own.is_gone) {
                continue;
            }
            self.commit.add(shard, vec![Record::Lost(shard, Record::ALL_LOST)], None, &mut batch);
            // It hands nothing over: whatever it may say is nobody's word.
            let _gone = self.be_damaged(shard, reason.clone());
            self.slots[shard.0 as usize].abdicating = None;
        }
        self.marks.renounced_in(batch);
        self.serve_if_all_open();
        self.go_on_renouncing();
    }

    /// Once the log says that the replicas are given up, the numbers that are told go on from what is remembered.
    pub(crate) fn go_on_renouncing(&mut self) {
        if self.marks.renouncing.as_ref().is_some_and(|renouncing| renouncing.recorded_in.is_none()) {
            self.keep_marks();
        }
    }

    /// Now and then, and before the end.
    pub(crate) fn keep_marks(&mut self) {
        if let Some(bytes) = self.marks.keep() {
            self.out.last.push(Effect::SaveMarks(bytes));
        }
    }

    pub(crate) fn handle_marks_saved(&mut self, is_kept: bool) {
        let was_renouncing = self.marks.is_renouncing();
        self.marks.kept(is_kept);
        if was_renouncing && is_kept {
            // Something else may have been on its way.
            self.go_on_renouncing();
            self.send_reports();
        }
    }

    pub(crate) fn log_persisted(&mut self, number: u64, batch: u64) {
        self.marks.persisted(number, batch);
        self.go_on_renouncing();
    }
}
