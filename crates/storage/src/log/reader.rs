//! Reading entries back, from any thread, while the writer appends.
//!
//! What to read is decided in one look at the index; the bytes are then read without any lock. An entry that
//! is replaced meanwhile is still found: nothing in the log is overwritten. One that is let go of meanwhile may not
//! be, and then it counts as one that was not there.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, RwLock};

use bytes::Bytes;
use ringfort_types::{Index, LogEntry, ShardId};

use super::ahead::Spare;
use super::frame::{FRAME_HEADER_BYTES, Owner, SEGMENT_HEADER_BYTES};
use super::index::{Checkpoint, End, LogIndex, Place};
use super::path_of;
use super::record::{Records, Stored};
use super::window::{Found, PIECE_BYTES, SMALL_PIECE_BYTES, Window};
use crate::StorageError;
use crate::disk::{Disk, File};

/// Segments kept open for reading.
const OPEN_FILES_MAX: usize = 8;
const GONE: &str = "batches that were here are gone";
pub(super) const POISONED: &str = "no thread panics while it holds the log's index";

/// What the writer and its readers share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) dir: String,
    pub(super) owner: Owner,
    pub(super) index: RwLock<LogIndex>,
    /// Used last comes last.
    pub(super) files: Mutex<Vec<(u64, Arc<dyn File>)>>,
    pub(super) spare: Spare,
    /// Length of the segment that is written to.
    pub(super) length: AtomicU64,
}

impl Shared {
    pub(super) fn full_path(&self, segment: u64) -> String {
        format!("{}/{}", self.disk.name(), path_of(&self.dir, segment))
    }

    fn corrupt(&self, segment: u64, offset: u64, reason: &'static str) -> StorageError {
        StorageError::Corrupt { path: self.full_path(segment), offset, reason }
    }

    fn window(&self, segment: u64, piece: usize) -> Result<Window, StorageError> {
        let file = self.file(segment)?;
        Window::new(file, self.owner.seed(segment), piece).map_err(|source| StorageError::Io {
            action: "read",
            path: self.full_path(segment),
            source,
        })
    }

    fn file(&self, segment: u64) -> Result<Arc<dyn File>, StorageError> {
        let mut files = self.files.lock().expect("no thread panics while it looks for an open file");
        if let Some(at) = files.iter().position(|(number, _)| *number == segment) {
            let found = files.remove(at);
            files.push(found.clone());
            return Ok(found.1);
        }
        let file = self.disk.open(&path_of(&self.dir, segment)).map_err(|source| StorageError::Io {
            action: "open",
            path: self.full_path(segment),
            source,
        })?;
        if files.len() >= OPEN_FILES_MAX {
            files.remove(0);
        }
        files.push((segment, file.clone()));
        Ok(file)
    }
}

/// Reads the log's entries. Clones share one view, which follows the writer.
#[derive(Clone, Debug)]
pub struct LogReader {
    shared: Arc<Shared>,
}

/// Of one shard, the entries wanted, and how to tell them from those that were replaced.
#[derive(Debug)]
struct Wanted {
    checkpoints: Vec<Checkpoint>,
    /// The checkpoint that the place read last lies behind.
    at: usize,
    next: Index,
    /// The last one wanted.
    through: Index,
}

impl Wanted {
    /// Whether the entry with this index at this place is the next one wanted.
    fn accepts(&mut self, index: Index, place: Place) -> bool {
        while self.checkpoints.get(self.at + 1).is_some_and(|next| next.place <= place) {
            self.at += 1;
        }
        index == self.next
            && index <= self.through
            && self.checkpoints[self.at].place <= place
            && self.checkpoints[self.at].first <= index
            && self.checkpoints.get(self.at + 1).is_none_or(|next| index < next.first)
    }

    fn done(&self) -> bool {
        self.next > self.through
    }
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader { shared }
    }

    /// A shard's entries from `from` up to `to` (exclusive) or its last one, about `bytes_max` bytes of them
    /// but at least one.
    pub fn entries(
        &self,
        shard: ShardId,
        from: Index,
        to: Index,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, StorageError> {
        if from >= to {
            return Ok(Vec::new());
        }
        loop {
            let mut pass = self.plan(&[(shard, from, Index(to.0 - 1))])?;
            let first = pass.first_segment;
            match self.take(&mut pass, bytes_max) {
                // It may have been let go of, or copied to another place: look again.
                Err(_) if self.shared.index.read().expect(POISONED).first_segment > first => {}
                outcome => return outcome,
            }
        }
    }

    fn take(&self, pass: &mut Pass, bytes_max: usize) -> Result<Vec<LogEntry>, StorageError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        pass.run(&self.shared, SMALL_PIECE_BYTES, &mut |_, entry| {
            let size = entry.payload.len();
            if !entries.is_empty() && bytes + size > bytes_max {
                return ControlFlow::Break(());
            }
            bytes += size;
            entries.push(entry);
            if bytes >= bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        Ok(entries)
    }

    /// One sequential pass over the log: calls `each` for every entry with `after < index <= through` of the
    /// shards named, in index order per shard, and only the surviving one of each index, until it breaks.
    ///
    /// The writer may go on meanwhile, but must not replace any of these. What it copies to another place because it
    /// lets go of where it was (`collect`) is found there.
    pub fn replay(
        &self,
        wanted: &BTreeMap<ShardId, (Index, Index)>,
        each: &mut dyn FnMut(ShardId, LogEntry) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut ranges: Vec<_> = wanted
            .iter()
            .filter(|(_, (after, through))| after < through)
            .map(|(shard, (after, through))| (*shard, after.next(), *through))
            .collect();
        loop {
            let mut pass = self.plan(&ranges)?;
            let first = pass.first_segment;
            match self.go_through(&mut pass, each) {
                // It may have been let go of, or copied to another place: look again for what is left.
                Err(_) if self.shared.index.read().expect(POISONED).first_segment > first => {
                    ranges = pass.left();
                }
                outcome => return outcome,
            }
        }
    }

    fn go_through(
        &self,
        pass: &mut Pass,
        each: &mut dyn FnMut(ShardId, LogEntry) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut broken_off = false;
        pass.run(&self.shared, PIECE_BYTES, &mut |shard, entry| {
            let flow = each(shard, entry);
            broken_off = flow.is_break();
            flow
        })?;
        match pass.left().first() {
            Some((shard, index, _)) if !broken_off => {
                Err(StorageError::NotStored { shard: *shard, index: *index })
            }
            _ => Ok(()),
        }
    }

    /// Looks the ranges up, all in one moment, together with the end of the log.
    fn plan(&self, ranges: &[(ShardId, Index, Index)]) -> Result<Pass, StorageError> {
        let index = self.shared.index.read().expect(POISONED);
        let mut wanted = BTreeMap::new();
        for &(shard, from, through) in ranges {
            let checkpoints = index.checkpoints(shard, from, through.next()).to_vec();
            if checkpoints.is_empty() {
                return Err(StorageError::NotStored { shard, index: from });
            }
            wanted.insert(shard, Wanted { checkpoints, at: 0, next: from, through });
        }
        Ok(Pass { wanted, first_segment: index.first_segment, end: index.end })
    }
}

/// One pass over the log.
#[derive(Debug)]
struct Pass {
    wanted: BTreeMap<ShardId, Wanted>,
    /// The log's first segment when this was planned.
    first_segment: u64,
    end: End,
}

impl Pass {
    /// What it has not come to: shards, each with the first and last index.
    fn left(&self) -> Vec<(ShardId, Index, Index)> {
        let left = self.wanted.iter().filter(|(_, wanted)| !wanted.done());
        left.map(|(shard, wanted)| (*shard, wanted.next, wanted.through)).collect()
    }

    /// Goes from where the first wanted entry may be until all were found, `each` breaks, or the log ends.
    fn run(
        &mut self,
        shared: &Shared,
        piece: usize,
        each: &mut dyn FnMut(ShardId, LogEntry) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut open = self.wanted.values().filter(|wanted| !wanted.done()).count();
        let Some(start) = self.wanted.values().map(|wanted| wanted.checkpoints[0].place).min() else {
            return Ok(());
        };
        let (mut segment, mut offset) = (start.segment, start.frame);
        // The first checkpoint may point into the middle of a batch, to spare going through what is before it.
        let mut record = start.record;
        let mut window = shared.window(segment, piece)?;
        // The number of the next batch, once one was seen, and where the segment before this one ended.
        let (mut next, mut ended) = (None, None);
        while open > 0 && (End { segment, offset }) < self.end {
            let found = window.frame(offset).map_err(|source| StorageError::Io {
                action: "read",
                path: shared.full_path(segment),
                source,
            })?;
            let (header, bytes) = match found {
                Found::Frame(header, bytes) => (header, bytes),
                Found::Nothing if segment >= self.end.segment => {
                    return Err(shared.corrupt(segment, offset, GONE));
                }
                Found::Nothing => {
                    ended = Some((segment, offset));
                    segment += 1;
                    (offset, record) = (SEGMENT_HEADER_BYTES as u64, 0);
                    window = shared.window(segment, piece)?;
                    continue;
                }
                Found::Bad(reason) => return Err(shared.corrupt(segment, offset, reason)),
            };
            if next.is_some_and(|next| next != header.number) {
                let (segment, offset) = ended.unwrap_or((segment, offset));
                return Err(shared.corrupt(segment, offset, GONE));
            }
            (next, ended) = (Some(header.number + 1), None);
            let mut records = Records::from(bytes, record);
            let malformed = |_| shared.corrupt(segment, offset, "a record is malformed");
            while let Some((record, stored)) = records.next().map_err(malformed)? {
                let Stored::Entry { shard, index, term, kind, payload } = stored else { continue };
                let Some(wanted) = self.wanted.get_mut(&shard) else { continue };
                if !wanted.accepts(index, Place { segment, frame: offset, record }) {
                    continue;
                }
                wanted.next = index.next();
                open -= usize::from(wanted.done());
                let payload = Bytes::copy_from_slice(payload);
                if each(shard, LogEntry { index, term, kind, payload }).is_break() {
                    return Ok(());
                }
            }
            record = 0;
            offset += (FRAME_HEADER_BYTES + header.length as usize) as u64;
        }
        Ok(())
    }
}
