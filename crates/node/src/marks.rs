//! What nodes remember of each other's logs, so that a disk that is older than it was is noticed before anybody counts what its node
//! says (ADR 0009).
//!
//! An image put back, a copy of a directory and a disk that has lost what it had synced are consistent in themselves: only others can
//! know. Each frame says which process speaks, with which batch the log ended when it began, and which one is synced
//! ([`LogMark`]). Everybody keeps the highest that was heard of each node. If a process begins below that, whoever remembers does not listen
//! to its replicas, and says what it remembers ([`LogRecall`]); and the process ends. What it has is of no use: it has forgotten votes and
//! acknowledgements, and replicas of its may have begun since that it knows nothing of. Its node is lost, as with its disk, and another one
//! can take its place; or its own directory is put back.
//!
//! The same tells two processes apart that run on copies of one directory: the one that came later is refused, once both have gone on
//! speaking for a while.
//!
//! Invariants:
//! - nobody counts a vote, an acknowledgement or a confirmation of a process that began below what it remembers;
//! - a number that is told was synced;
//! - who was refused so is refused at each start, without a word from anybody, as long as the directory is the same: its log grows with each
//!   start, and would pass for the one that was lost.
//!
//! What nobody remembers can't be noticed: a node that runs alone, or what was written after the last frame that anybody has got who
//! is there. The memory is kept every five seconds, for the case that all nodes start again.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::TICK_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint};
use ringfort_types::{Incarnation, LogMark, LogRecall, NodeId, PeerMessage, Refusal, RefusalKind};

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
const VERSION: u8 = 2;
/// Says neither whose it is nor whether it was refused.
const VERSION_1: u8 = 1;
const REASON_BYTES_MAX: usize = 4 * 1024;

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

/// What this node remembers, and what others may hold against it.
#[derive(Debug)]
pub(crate) struct Marks {
    incarnation: Incarnation,
    process: u64,
    /// Why this directory's log must not be gone on with.
    refused: Option<String>,
    /// Once the log is open: the last batch that was found in it, and the last one that is synced.
    own: Option<(u64, u64)>,
    others: BTreeMap<NodeId, Known>,
    kept: Bytes,
    /// What is being kept.
    keeping: Option<Bytes>,
}

impl Marks {
    /// Of a process of this directory that has drawn this number, and remembers nothing.
    pub(crate) fn none(incarnation: Incarnation, process: u64) -> Marks {
        Marks {
            incarnation,
            process,
            refused: None,
            own: None,
            others: BTreeMap::new(),
            kept: Bytes::new(),
            keeping: None,
        }
    }

    /// With what the one before it has kept.
    pub(crate) fn with(mut self, kept: &Bytes) -> Result<Marks, Malformed> {
        let expected = self.incarnation;
        self.kept = kept.clone();
        self.read(kept)?;
        if self.incarnation == expected { Ok(self) } else { Err(Malformed("it is another node's")) }
    }

    fn read(&mut self, kept: &Bytes) -> Result<(), Malformed> {
        let mut reader = Reader::new(kept.clone());
        match reader.u8()? {
            VERSION_1 => {}
            VERSION => {
                self.incarnation = Incarnation(reader.u64()?);
                let reason = reader.bytes(REASON_BYTES_MAX)?;
                let reason =
                    String::from_utf8(reason.to_vec()).map_err(|_| Malformed("a reason that is no text"))?;
                self.refused = Some(reason).filter(|reason| !reason.is_empty());
            }
            _ => return Err(Malformed("unknown version of what is remembered of other nodes")),
        }
        for _ in 0..reader.count(10)? {
            let node = NodeId(reader.varint()?);
            let (process, synced) = (reader.u64()?, reader.varint()?);
            self.others.insert(node, Known { process, synced, ..Known::default() });
        }
        reader.finish()
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_u8(VERSION);
        out.put_u64_le(self.incarnation.0);
        put_bytes(&mut out, self.refused.as_deref().unwrap_or_default().as_bytes());
        put_varint(&mut out, self.others.len() as u64);
        for (node, known) in &self.others {
            put_varint(&mut out, node.0);
            out.put_u64_le(known.process);
            put_varint(&mut out, known.synced);
        }
        out.freeze()
    }

    /// What this node says of its own log.
    fn own(&self) -> LogMark {
        self.own.map_or(LogMark::NONE, |(began, synced)| LogMark { process: self.process, began, synced })
    }

    /// This process.
    pub(crate) fn process(&self) -> u64 {
        self.process
    }

    /// The process of another node that is listened to; 0 if none was ever heard of.
    pub(crate) fn process_of(&self, node: NodeId) -> u64 {
        self.others.get(&node).map_or(0, |known| known.process)
    }

    /// The log is open, and ends with this batch.
    pub(crate) fn opened(&mut self, batch: u64) {
        self.own = Some((batch, batch));
    }

    /// This batch is durable.
    pub(crate) fn persisted(&mut self, batch: u64) {
        if let Some((_, synced)) = &mut self.own {
            *synced = batch;
        }
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

    /// What is to be kept, if that has changed.
    fn keep(&mut self) -> Option<Bytes> {
        let bytes = self.encode();
        if self.keeping.is_some() || bytes == self.kept {
            return None;
        }
        self.keeping = Some(bytes.clone());
        Some(bytes)
    }

    /// What was to be kept is durable, or could not be written.
    fn kept(&mut self, is_kept: bool) {
        if let Some(bytes) = self.keeping.take().filter(|_| is_kept) {
            self.kept = bytes;
        }
    }

    /// Why this directory must not be started on.
    pub(crate) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }
}

/// What was kept ([`Effect::SaveMarks`]) of a node's log: the highest batch.
pub fn remembered_in(kept: &Bytes, node: NodeId) -> Option<u64> {
    let mut marks = Marks::none(Incarnation(0), 0);
    marks.read(kept).ok()?;
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
        | PeerMessage::ReportChanges(_)
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
        | PeerMessage::LogRecall(_)
        | PeerMessage::ReportReply(_)
        | PeerMessage::Unknown(_) => false,
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
                    // Its address is not believed either, so its own connection may be the only way to it.
                    let with = LogRecall { process: mark.process, synced }.into();
                    self.out.first.push(Effect::Refuse { link, with });
                    let notice = format!(
                        "the data directory of {} is older than it was: its log ended with batch {} when it started, and had {synced} \
                         before; its replicas are not listened to",
                        self.called(from),
                        mark.began
                    );
                    self.out.last.push(Effect::Notice(notice));
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
                self.out.first.push(Effect::Refuse { link, with: refusal.into() });
                false
            }
        }
    }

    /// This process must not go on, if somebody remembers more of its log than it has found.
    pub(crate) fn handle_log_recall(&mut self, from: NodeId, recall: LogRecall) {
        let LogMark { process, began, .. } = self.marks.own();
        if recall.process != process || recall.synced <= began || self.marks.refused.is_some() {
            return;
        }
        let reason = format!(
            "the data directory is older than it was: its log ends with batch {began}, and {} remembers batch {} of it. It was put back from \
             an image or a copy, or its disk has lost what it had synced; acknowledged writes could be lost if it went on. Put it back as it \
             was last. If that is lost for good, the node gets all its replicas from the others, in an empty directory DIR: ringfort start --id {} \
             --addr {} --data-dir DIR --join {} --replace",
            self.called(from),
            recall.synced,
            self.called(self.id),
            self.birth.address(),
            self.address_of(from)
        );
        self.refuse_to_go_on(reason);
    }

    /// This process ends for this reason, and so will each that is started with this directory. First of all that is kept.
    pub(crate) fn refuse_to_go_on(&mut self, reason: String) {
        if self.marks.refused.is_none() {
            self.marks.refused = Some(reason);
            self.keep_marks();
        }
    }

    pub(crate) fn handle_marks_saved(&mut self, is_kept: bool) {
        self.marks.kept(is_kept);
        let Some(reason) = self.marks.refused.clone() else { return };
        // What was on its way may have been from before.
        if is_kept && self.marks.kept != self.marks.encode() {
            return self.keep_marks();
        }
        self.out.last.push(Effect::Refused(reason));
    }

    /// Now and then, and before the end.
    pub(crate) fn keep_marks(&mut self) {
        if let Some(bytes) = self.marks.keep() {
            self.out.last.push(Effect::SaveMarks(bytes));
        }
    }
}
