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

use std::collections::BTreeMap;
use std::sync::Arc;

use ringfort_types::planted::{self, Bug};
use ringfort_types::{HardState, Index, ShardId, Term};

use super::frame::{
    FRAME_HEADER_BYTES, FRAME_MAGIC, HeaderFault, Owner, SEGMENT_HEADER_BYTES, SegmentHeader,
};
use super::index::{LogIndex, Place};
use super::record::{RecordFault, Records, Stored};
use super::window::{Found, PIECE_BYTES, Window};
use super::{path_of, segment_of};
use crate::StorageError;
use crate::disk::{Disk, File};

/// What the log holds of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecoveredShard {
    /// The last one in the log; zeroes if there is none.
    pub hard_state: HardState,
    /// The entries' terms: each with the first index that has it, ascending.
    pub terms: Vec<(Index, Term)>,
    /// The last entry's index; 0 if there is none.
    pub last: Index,
}

impl RecoveredShard {
    fn add(&mut self, index: Index, term: Term) {
        if index <= self.last {
            let kept = self.terms.partition_point(|(first, _)| *first < index);
            self.terms.truncate(kept);
        }
        if self.terms.last().is_none_or(|(_, last)| *last != term) {
            self.terms.push((index, term));
        }
        self.last = index;
    }
}

/// An opened log: what it holds, and where it goes on.
#[derive(Debug)]
pub(super) struct Recovered {
    pub(super) shards: BTreeMap<ShardId, RecoveredShard>,
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
}

/// Reads the whole log.
pub(super) fn recover(disk: &dyn Disk, dir: &str, owner: Owner) -> Result<Recovered, StorageError> {
    let mut scan = Scan {
        disk,
        dir,
        owner,
        found: Recovered {
            shards: BTreeMap::new(),
            index: LogIndex::default(),
            last: None,
            offset: 0,
            next: 1,
            chain: owner.seed(0),
            sealed: true,
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
            scan.cut(segment, &mut window, offset)?;
        }
    }
    scan.settle()?;
    Ok(scan.found)
}

struct Scan<'a> {
    disk: &'a dyn Disk,
    dir: &'a str,
    owner: Owner,
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

    /// The numbers of the segments, which start at 1 and leave none out: nothing is collected yet.
    fn segments(&self) -> Result<Vec<u64>, StorageError> {
        let names = self.disk.list(self.dir).map_err(|source| StorageError::Io {
            action: "read the log's directory",
            path: format!("{}/{}", self.disk.name(), self.dir),
            source,
        })?;
        let segments: Vec<u64> = names.iter().filter_map(|name| segment_of(name)).collect();
        for (expected, &found) in (1..).zip(&segments) {
            if expected != found {
                return Err(self.corrupt(expected, 0, "the segment is missing"));
            }
        }
        Ok(segments)
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
        match self.header(segment, window)? {
            Ok(()) => {}
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

    /// Checks a segment's header. The inner error is one that a torn write can leave behind.
    fn header(&self, segment: u64, window: &mut Window) -> Result<Result<(), &'static str>, StorageError> {
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
        if header.first != self.found.next || header.chain != self.found.chain {
            return Err(self.corrupt(
                segment,
                0,
                "batches are missing between this segment and the one before it",
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
    fn cut(&self, segment: u64, window: &mut Window, offset: u64) -> Result<(), StorageError> {
        static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
        let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
        let mut at = offset;
        while let Some(set) = window.first_set(at).map_err(self.io("read", segment))? {
            let count = (window.length() - set).min(ZEROES.len() as u64);
            file.write_at(set, &ZEROES[..count as usize]).map_err(self.io("cut the torn end of", segment))?;
            at = set + count;
        }
        file.sync_data().map_err(self.io("sync", segment))
    }

    /// Makes what was read durable: the process before this one may have died between a write and its sync.
    fn settle(&self) -> Result<(), StorageError> {
        if let Some((segment, begins, ends)) = self.tail {
            let file = self.disk.open(&self.path(segment)).map_err(self.io("open", segment))?;
            let mut bytes = vec![0; (ends - begins) as usize];
            file.read_at(begins, &mut bytes).map_err(self.io("read", segment))?;
            file.write_at(begins, &bytes).map_err(self.io("write to", segment))?;
            file.sync_data().map_err(self.io("sync", segment))?;
        }
        if let Some((segment, file, _)) = &self.found.last {
            file.sync_data().map_err(self.io("sync", *segment))?;
        }
        self.disk.sync_dir(self.dir).map_err(|source| StorageError::Io {
            action: "sync",
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
    while let Some((record, stored)) = records.next().map_err(Fault::Record)? {
        match stored {
            Stored::Entry { shard, index, term, .. } => {
                found.index.add(shard, index, Place { segment, frame, record }).map_err(|_| Fault::Gap)?;
                found.shards.entry(shard).or_default().add(index, term);
            }
            Stored::HardState(shard, state) => found.shards.entry(shard).or_default().hard_state = state,
        }
    }
    Ok(())
}
