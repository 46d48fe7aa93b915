//! Opening the log: which batches there are, where the next one goes, and what may be cut.
//!
//! Batch n+1 is not written before batch n is synced, so only the last batch can be torn. A bad batch is
//! taken for a torn one, and cut, only if nothing shows that it was synced once: there is no segment after
//! its own (a segment is made only when all of the one before it is synced), and not one valid header of a
//! later batch in the rest of its own. Otherwise stored bytes have changed, and nothing is touched
//! (PITFALLS 6, 7).
//!
//! A cut is durable before the log takes anything new: what lay behind it is overwritten with zeroes. The
//! last batch may never have been synced (the process was killed in between, or its sync failed), so it is
//! written once more, in its place, and synced before anybody builds on it. Syncing alone would not do: after a
//! failed sync Linux takes the pages for clean, shows them to whoever reads, and writes them never.
//!
//! A log that has lost its end looks like one that never had it, so two things say how long it must be: each
//! segment's header names the file's length, which it has exactly, and the file `reached` a batch that was synced (`reached.rs`). What
//! falls short of either is corruption.
//!
//! The log begins with the first segment that is there. The last `first segment` record says which one that must
//! be: a later one means that segments are missing; earlier ones were about to be removed (`collect.rs`), and are now.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfort_types::planted::{self, Bug};
use ringfort_types::{Base, HardState, Index, PeerId, ShardId, Term};

use super::frame::{
    BATCH_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_MAGIC, HeaderFault, Owner, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::index::{LogIndex, Place, ShardIndex};
use super::reached::{Note, Reached};
use super::record::{RECORD_OVERHEAD_MAX, RecordFault, Records, Stored};
use super::window::{Found, PIECE_BYTES, Window};
use super::{path_of, remove_segment, segment_of};
use crate::StorageError;
use crate::disk::{Disk, File};
use crate::error::SYNC;

/// What the log holds of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// The last one in the log; zeroes if there is none.
    pub hard_state: HardState,
    /// Which replica of it this node has, or had last; `None` for the one that the shard was born with.
    pub replica: Option<PeerId>,
    /// Whether it has none any more.
    pub is_gone: bool,
    /// What that replica has acknowledged, if its log was found not to go so far.
    pub lost: Option<Index>,
    /// What comes before its entries.
    pub base: Base,
    /// The entries' terms: each with the first index that has it, ascending.
    pub terms: Vec<(Index, Term)>,
    /// The last entry's index; the base's if there is none.
    pub last: Index,
}

/// No segment is longer: that of a batch as large as one can be, with a record of the first segment.
const SEGMENT_LENGTH_MAX: u64 =
    (SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES + RECORD_OVERHEAD_MAX) as u64 + BATCH_BYTES_MAX;

const MISSING: &str = "the segment is missing";

/// An opened log: what it holds, and where it goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) index: LogIndex,
    /// The segment to be written to, with its length; none if the log has no file yet.
    pub(super) last: Option<(u64, Arc<dyn File>, u64)>,
    /// Where the next frame goes in it; 0 if the segment has no header yet.
    pub(super) offset: u64,
    /// The number of the next batch.
    pub(super) next: u64,
    /// Its chain.
    pub(super) chain: u32,
    /// Whether the last batch is a seal, or there is none.
    pub(super) sealed: bool,
    pub(super) notes: Vec<Note>,
}

/// Reads the whole log.
pub(super) fn recover(
    disk: &dyn Disk,
    dir: &str,
    owner: Owner,
    reached: Option<Reached>,
) -> Result<Recovered, StorageError> {
    let mut scan = Scan {
        disk,
        dir,
        owner,
        reached: reached.unwrap_or_default(),
        found: Recovered {
            index: LogIndex { first_segment: 1, ..LogIndex::default() },
            last: None,
            offset: 0,
            next: 1,
            chain: owner.seed(0),
            sealed: true,
            notes: Vec::new(),
        },
        tail: None,
    };
    let segments = scan.segments()?;
    for (position, &segment) in segments.iter().enumerate() {
        let mut window = scan.open(segment)?;
        if let Some((offset, reason)) = scan.segment(segment, &mut window)? {
            let is_last = position + 1 == segments.len();
            let cut_anyway = planted::is(Bug::TornMiddleCut);
            if !is_last || (scan.is_followed(segment, &mut window, offset)? && !cut_anyway) {
                return Err(scan.corrupt(segment, offset, reason));
            }
            scan.check_end()?;
            scan.check_beginning(&segments)?;
            scan.cut(segment, &mut window, offset)?;
        }
    }
    scan.check_end()?;
    scan.check_beginning(&segments)?;
    scan.settle()?;
    scan.remove_leftovers()?;
    Ok(scan.found)
}

impl Recovered {
    /// What is there of each shard.
    pub(super) fn shards(&self) -> BTreeMap<ShardId, RecoveredShard> {
        let shard = |known: &ShardIndex| RecoveredShard {
            hard_state: known.hard_state,
            replica: known.replica,
            is_gone: known.is_gone,
            lost: known.lost,
            base: known.base,
            terms: known.terms.clone(),
            last: known.last(),
        };
        self.index.shards.iter().map(|(id, known)| (*id, shard(known))).collect()
    }
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    dir: &'a str,
    owner: Owner,
    reached: Reached,
    found: Recovered,
    /// The last batch: its segment, and where it begins and ends there (with the segment's header, if it is
    /// the first).
    tail: Option<(u64, u64, u64)>,
}

impl Scan<'_> {
    fn path(&self, segment: u64) -> String {
        path_of(self.dir, segment)
    }

    fn io(&self, action: &'static str, segment: u64) -> impl FnOnce(std::io::Error) -> StorageError + use<> {
        let path = format!("{}/{}", self.disk.name(), self.path(segment));
        move |source| StorageError::Io { action, path, source }
    }

    fn corrupt(&self, segment: u64, offset: u64, reason: &'static str) -> StorageError {
        let path = format!("{}/{}", self.disk.name(), self.path(segment));
        StorageError::Corrupt { path, offset, reason }
    }

    fn length(&self, segment: u64, window: &Window, expected: u64) -> StorageError {
        let path = format!("{}/{}", self.disk.name(), self.path(segment));
        StorageError::Length { path, found: window.length(), expected }
    }

    /// The numbers of the segments, which leave none out.
    fn segments(&self) -> Result<Vec<u64>, StorageError> {
        let names = self.disk.list(self.dir).map_err(|source| StorageError::Io {
            action: "read the log's directory",
            path: format!("{}/{}", self.disk.name(), self.dir),
            source,
        })?;
        let segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
        for (expected, &found) in (segments.first().copied().unwrap_or(1)..).zip(&segments) {
            if expected != found {
                return Err(self.corrupt(expected, 0, MISSING));
            }
        }
        Ok(segments)
    }

    /// Whether the log begins where it should: with the first segment that it needs, or before it.
    fn check_beginning(&mut self, segments: &[u64]) -> Result<(), StorageError> {
        let (Some(&found), needed) = (segments.first(), self.found.index.first_segment) else {
            return Ok(());
        };
        if found > needed {
            return Err(self.corrupt(needed, 0, MISSING));
        }
        let unknown = "entries are missing before the first ones of a shard";
        self.found.index.settle().map_err(|_| self.corrupt(found, 0, unknown))
    }

    /// Whether the log goes as far as it was once synced.
    fn check_end(&self) -> Result<(), StorageError> {
        let Reached { segment, batch } = self.reached;
        if self.found.next > batch || planted::is(Bug::LogEndNotChecked) {
            return Ok(());
        }
        match &self.found.last {
            Some((last, ..)) if *last >= segment => Err(self.corrupt(
                *last,
                self.found.offset,
                "the log ends here, and yet a later batch was synced",
            )),
            _ => Err(self.corrupt(segment, 0, MISSING)),
        }
    }

    /// Ends what the process before this one had begun: segments that the log does not need are removed.
    fn remove_leftovers(&mut self) -> Result<(), StorageError> {
        let needed = self.found.index.first_segment;
        for &segment in self.found.index.segments.range(..needed).map(|(segment, _)| segment) {
            remove_segment(self.disk, self.dir, segment)?;
        }
        self.found.index.forget_segments_before(needed);
        Ok(())
    }

    fn open(&self, segment: u64) -> Result<Window, StorageError> {
        let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
        Window::new(file, self.owner.seed(segment), PIECE_BYTES).map_err(self.io("read", segment))
    }

    /// Reads a segment's batches, up to its end or to where they go bad.
    fn segment(
        &mut self,
        segment: u64,
        window: &mut Window,
    ) -> Result<Option<(u64, &'static str)>, StorageError> {
        let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
        self.found.last = Some((segment, file, window.length()));
        self.found.offset = 0;
        let is_first = self.found.index.segments.is_empty() && segment > 1;
        self.found.index.segments.insert(segment, window.length());
        match self.header(segment, is_first, window)? {
            Ok(()) => {}
            // Nothing says how long it should be, and to look through much more than it can be would take long.
            Err(_) if window.length() > SEGMENT_LENGTH_MAX => {
                return Err(self.length(segment, window, SEGMENT_LENGTH_MAX));
            }
            Err(reason) => return Ok(Some((0, reason))),
        }
        let mut offset = SEGMENT_HEADER_BYTES as u64;
        loop {
            self.found.offset = offset;
            let found = window.frame(offset).map_err(self.io("read", segment))?;
            let (header, records) = match found {
                Found::Frame(header, records) => (header, records),
                Found::Nothing => break,
                Found::Bad(reason) => return Ok(Some((offset, reason))),
            };
            if header.number != self.found.next || header.chain != self.found.chain {
                // A whole frame, and yet not the next one: it can't be this log's torn end.
                return Err(self.corrupt(segment, offset, "the batch does not follow the one before it"));
            }
            take_records(&mut self.found, segment, offset, records).map_err(|fault| match fault {
                Fault::Record(RecordFault::UnknownKind(kind)) => StorageError::Unsupported {
                    path: format!("{}/{}", self.disk.name(), self.path(segment)),
                    what: "a record of kind",
                    found: kind.into(),
                },
                Fault::Record(RecordFault::Malformed) => {
                    self.corrupt(segment, offset, "a record is malformed, though its checksum is right")
                }
                Fault::Gap => self.corrupt(segment, offset, "a shard's entries leave one out"),
            })?;
            self.found.next = header.number + 1;
            self.found.chain = header.head;
            self.found.sealed = header.length == 0;
            let begins = if offset == SEGMENT_HEADER_BYTES as u64 { 0 } else { offset };
            offset += (FRAME_HEADER_BYTES + header.length as usize) as u64;
            self.tail = Some((segment, begins, offset));
        }
        let left = window.first_set(offset).map_err(self.io("read", segment))?;
        Ok(left.map(|_| (offset, "there is no valid batch here, and yet bytes follow")))
    }

    /// Checks a segment's header; that of a log's first segment, if it is not number 1, says with which batch the log
    /// begins. The inner error is one that a torn write can leave behind.
    fn header(
        &mut self,
        segment: u64,
        is_first: bool,
        window: &mut Window,
    ) -> Result<Result<(), &'static str>, StorageError> {
        let path = || format!("{}/{}", self.disk.name(), self.path(segment));
        let bytes = window.get(0, SEGMENT_HEADER_BYTES).map_err(self.io("read", segment))?;
        let header = match SegmentHeader::decode(bytes) {
            Ok(header) => header,
            Err(HeaderFault::Damaged) => return Ok(Err("the segment's header is damaged")),
            Err(HeaderFault::Version(version)) => {
                let (what, found) = ("format version", version.into());
                return Err(StorageError::Unsupported { path: path(), what, found });
            }
            Err(HeaderFault::Key(key)) => {
                return Err(StorageError::Unsupported {
                    path: path(),
                    what: "encryption key",
                    found: key.into(),
                });
            }
        };
        let ours = [
            ("cluster", header.owner.cluster, self.owner.cluster),
            ("node or disk", header.owner.incarnation.0, self.owner.incarnation.0),
            ("lane", header.owner.lane.into(), self.owner.lane.into()),
            ("place in the log", header.segment, segment),
        ];
        if let Some(&(what, found, expected)) = ours.iter().find(|(_, found, expected)| found != expected) {
            return Err(StorageError::Stranger { path: path(), what, found, expected });
        }
        if window.length() != header.length.into() {
            return Err(self.length(segment, window, header.length.into()));
        }
        if is_first {
            (self.found.next, self.found.chain) = (header.first, header.chain);
        }
        if header.first > self.found.next
            && let Some((before, _, end)) = self.tail
        {
            // The segments leave none out, so it is the one before that has lost its end.
            return Err(self.corrupt(
                before,
                end,
                "batches that were here are gone: the next segment goes on with later ones",
            ));
        }
        if header.first != self.found.next || header.chain != self.found.chain {
            return Err(self.corrupt(
                segment,
                0,
                "its first batch does not follow the last one of the segment before it",
            ));
        }
        Ok(Ok(()))
    }

    /// Whether a valid header of the batch expected at `offset`, or of a later one, lies behind it. (That of
    /// the batch expected counts too: a torn batch has its header where it begins.)
    fn is_followed(&self, segment: u64, window: &mut Window, offset: u64) -> Result<bool, StorageError> {
        let mut search = || {
            let mut from = offset + 1;
            while let Some(at) = window.find(from, FRAME_MAGIC)? {
                if window.header(at)?.is_some_and(|header| header.number >= self.found.next) {
                    return Ok(true);
                }
                from = at + 1;
            }
            Ok(false)
        };
        search().map_err(self.io("read", segment))
    }

    /// Makes the log end at `offset` of this segment, durably.
    fn cut(&mut self, segment: u64, window: &mut Window, offset: u64) -> Result<(), StorageError> {
        static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
        let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
        let (mut at, mut end) = (offset, offset);
        while let Some(set) = window.first_set(at).map_err(self.io("read", segment))? {
            let count = (window.length() - set).min(ZEROES.len() as u64);
            let bytes = window.get(set, count as usize).map_err(self.io("read", segment))?;
            end = set + bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1);
            file.write_at(set, &ZEROES[..count as usize]).map_err(self.io("cut the torn end of", segment))?;
            at = set + count;
        }
        file.sync_data().map_err(self.io(SYNC, segment))?;
        // Nothing was there if only a header was to come.
        if end > offset {
            let path = format!("{}/{}", self.disk.name(), self.path(segment));
            self.found.notes.push(Note::Cut { path, offset, bytes: end - offset });
        }
        Ok(())
    }

    /// Makes what was read durable: the process before this one may have died between a write and its sync.
    fn settle(&self) -> Result<(), StorageError> {
        if let Some((segment, begins, ends)) = self.tail {
            let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
            let mut bytes = vec![0; (ends - begins) as usize];
            file.read_at(begins, &mut bytes).map_err(self.io("read", segment))?;
            file.write_at(begins, &bytes).map_err(self.io("write to", segment))?;
            file.sync_data().map_err(self.io(SYNC, segment))?;
        }
        if let Some((segment, file, _)) = &self.found.last {
            file.sync_data().map_err(self.io(SYNC, *segment))?;
        }
        self.disk.sync_dir(self.dir).map_err(|source| StorageError::Io {
            action: SYNC,
            path: format!("{}/{}", self.disk.name(), self.dir),
            source,
        })
    }
}

enum Fault {
    Record(RecordFault),
    Gap,
}

fn take_records(found: &mut Recovered, segment: u64, frame: u64, bytes: &[u8]) -> Result<(), Fault> {
    let mut records = Records::new(bytes);
    let index = &mut found.index;
    while let Some((record, stored)) = records.next().map_err(Fault::Record)? {
        match stored {
            Stored::Entry { shard, index: at, term, .. } => {
                index.add(shard, at, term, Place { segment, frame, record }).map_err(|_| Fault::Gap)?;
            }
            Stored::HardState(shard, state) => index.set_state(shard, state, segment),
            Stored::Base(shard, base) => index.set_base(shard, base, segment),
            Stored::Installed(shard, base) => index.install(shard, base, segment),
            Stored::FirstSegment(first) => index.first_segment = first,
            Stored::Replica(shard, peer) => index.set_replica(shard, peer, segment),
            Stored::Lost(shard, at) => index.set_lost(shard, at, segment),
            Stored::Gone(shard, last) => index.set_gone(shard, last, segment),
        }
    }
    Ok(())
}
