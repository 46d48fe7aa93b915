//! The shared log: one for all shards of a lane, so that one sync serves them all.
//!
//! Its unit is the *batch*: what one turn of the node has to persist, for however many shards, in one frame,
//! by one write and one sync ([`Log::append`]). Batches are numbered; batch n+1 is not written before the sync
//! of batch n has returned. So after a crash only the last one can be torn, and it is cut whole; a bad batch
//! with a later one behind it is corruption, and refused (`recover.rs`).
//!
//! The files are segments of 64 MiB, with room set aside when they are made: appending into that is quicker
//! than growing a file, and seldom runs out of space half way; quicker still into a segment that was made ahead
//! ([`LogAhead`]). A segment's length is durable before its header is written, in one write with its first frame. A batch that does not fit into what
//! is left of a segment begins the next one, and a batch larger than a segment gets a segment of its own size:
//! one `append` is always one frame, because a frame is the unit that is cut.
//!
//! Invariants:
//! - the number of a frame is one more than that of the frame before it, and its `chain` is that frame's `head`,
//!   across segments too;
//! - behind the last frame there are only zeroes, so nothing stale can ever pass for a batch;
//! - a shard's entries have no gaps: an entry's index is at most one more than the last one's, and the first one's
//!   one more than the base's (0 for a shard of which nothing was ever let go).
//!
//! Where a file system has no room for a write into what was set aside, nothing of it is kept: before the next one, what it may have left
//! is made zeroes again, durably. A crash before that leaves a torn last batch, as any write may.
//!
//! Beyond a budget the oldest segments go, and what is still needed of them is written once more ([`Log::collect`]).
//!
//! Deliberately absent, for now: encryption (segments name key 0).

mod ahead;
mod collect;
mod frame;
mod index;
mod reached;
mod reader;
mod record;
mod recover;
mod window;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use bytes::BytesMut;
use ringfort_types::{Index, Record, ShardId};

use self::ahead::Spare;
use self::frame::{BATCH_BYTES_MAX, FRAME_HEADER_BYTES, FrameHeader, SEGMENT_HEADER_BYTES, SegmentHeader};
use self::index::{End, Place};
use self::reached::Reached;
use self::reader::{POISONED, Shared};
use self::record::RECORD_OVERHEAD_MAX;
use crate::StorageError;
use crate::disk::{Disk, File};
use crate::error::SYNC;

pub use ahead::LogAhead;
pub use collect::Durable;
pub use frame::Owner;
pub use reached::Note;
pub use reader::LogReader;
pub use recover::RecoveredShard;

/// Bytes in front of the records in the encode buffer: room for both headers.
const FRONT: usize = SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES;
/// The first segment is short, so that a new log soon goes on in one that was made ahead.
const FIRST_SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// An encode buffer that has grown beyond this is given back.
const BUFFER_BYTES_KEPT: usize = 4 * 1024 * 1024;

/// How the log is laid out. May differ from one start to the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Room set aside for each new segment, in bytes.
    pub segment_bytes: u64,
    /// Bytes of segments beyond which the oldest go.
    pub budget_bytes: u64,
}

/// Largest segment that [`LogOptions::with_budget`] makes.
const SEGMENT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// A budget holds so many segments, so that what goes at once is a small part of it.
const SEGMENTS_PER_BUDGET: u64 = 4;

impl LogOptions {
    /// A log that keeps about so many bytes. It takes up to two segments more while one is written and one is made
    /// ahead: half as much again.
    pub fn with_budget(budget_bytes: u64) -> LogOptions {
        let segment_bytes = (budget_bytes / SEGMENTS_PER_BUDGET).clamp(64 * 1024, SEGMENT_BYTES_MAX);
        LogOptions { segment_bytes, budget_bytes }
    }
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions::with_budget(256 * 1024 * 1024)
    }
}

/// The writing end. There is one.
#[derive(Debug)]
pub struct Log {
    shared: Arc<Shared>,
    options: LogOptions,
    segment: u64,
    file: Arc<dyn File>,
    /// The file's length, all of it set aside.
    length: u64,
    /// Where the next frame goes; 0 if the segment's header is still to be written.
    offset: u64,
    /// The next batch's number.
    next: u64,
    /// The next batch's chain.
    chain: u32,
    /// Whether the last batch is a seal.
    sealed: bool,
    /// As it stands on the disk.
    reached: Option<Reached>,
    notes: Vec<Note>,
    /// A write or sync has failed: what the files hold is not known any more.
    failed: bool,
    /// Up to where a write for which there was no room may have left something; 0 if none has.
    torn: u64,
    /// Bytes that were written since it was opened.
    written: u64,
    buffer: BytesMut,
}

impl Log {
    /// Opens the log in a directory of the disk, making it if there is none, and says what it holds of each
    /// shard. Reads all of it; cuts a torn last batch; fails without a change if anything else is damaged.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &str,
        owner: Owner,
        options: LogOptions,
    ) -> Result<(Log, BTreeMap<ShardId, RecoveredShard>), StorageError> {
        disk.create_dir(dir).map_err(|source| StorageError::Io {
            action: "make the directory",
            path: format!("{}/{dir}", disk.name()),
            source,
        })?;
        let (reached, unreadable) = match reached::read(&*disk, dir, owner)? {
            Ok(reached) => (Some(reached), None),
            Err(note) => (None, Some(note)),
        };
        let mut recovered = recover::recover(&*disk, dir, owner, reached)?;
        let mut notes = std::mem::take(&mut recovered.notes);
        // The second batch is not written before there is a record of the first.
        if recovered.next > 2 {
            notes.extend(unreadable);
        }
        let shards = recovered.shards();
        let spare = Spare::clear(&*disk, dir)?;
        let shared = Shared {
            disk,
            dir: dir.to_owned(),
            owner,
            index: RwLock::new(recovered.index),
            files: Mutex::new(Vec::new()),
            spare,
            length: AtomicU64::new(0),
        };
        // The first segment has no room before the log is opened for the first time.
        let last = recovered.last.filter(|(segment, _, length)| *segment > 1 || *length > 0);
        let (segment, file, length) = if let Some(last) = last {
            last
        } else {
            let length = options.segment_bytes.min(FIRST_SEGMENT_BYTES_MAX);
            (1, create_segment(&shared, 1, length)?, length)
        };
        shared.length.store(length, Ordering::Relaxed);
        let offset = recovered.offset;
        {
            let mut index = shared.index.write().expect("nobody else has it yet");
            index.end = End { segment, offset };
            index.segments.insert(segment, length);
        }
        let mut log = Log {
            shared: Arc::new(shared),
            options,
            segment,
            file,
            length,
            offset,
            next: recovered.next,
            chain: recovered.chain,
            sealed: recovered.sealed,
            reached,
            notes,
            failed: false,
            torn: 0,
            written: 0,
            buffer: BytesMut::new(),
        };
        log.record_reached()?;
        Ok((log, shards))
    }

    /// The number of the last batch; 0 if there is none.
    pub fn last_batch(&self) -> u64 {
        self.next - 1
    }

    /// Bytes that were written since it was opened.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// What whoever runs the node should know of what was found when it was opened.
    pub fn notes(&self) -> &[Note] {
        &self.notes
    }

    /// Seals the log and records where it ends, so that a later start misses whatever is lost of it meanwhile.
    pub fn close(&mut self) -> Result<(), StorageError> {
        self.seal()?;
        self.record_reached()
    }

    /// Appends one batch and syncs it: it is durable, whole, when this returns. Nothing is written for no
    /// records.
    ///
    /// An error is fatal for the process, with one exception: if there was no room for a new segment, or in one that has been begun
    /// ([`StorageError::is_disk_full`]), nothing has been stored and the same call, or another one, may be made again.
    ///
    /// # Panics
    /// If an entry would leave a gap in its shard.
    pub fn append(&mut self, records: &[Record]) -> Result<(), StorageError> {
        if records.is_empty() { Ok(()) } else { self.write(records, None) }
    }

    /// Puts an empty batch at the end, so that the last one with records is not the last any more: should its
    /// bytes ever change, that is then known for corruption and not taken for a torn write. For when the node
    /// has been idle for a moment. Does nothing if the log ends in a seal already.
    pub fn seal(&mut self) -> Result<(), StorageError> {
        if self.sealed { Ok(()) } else { self.write(&[], None) }
    }

    /// A reader that sees everything appended.
    pub fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }

    /// What makes the next segment before it is needed, if somebody calls it now and then.
    pub fn ahead(&self) -> LogAhead {
        LogAhead::new(self.shared.clone(), self.options.segment_bytes)
    }

    fn write(&mut self, records: &[Record], first_segment: Option<u64>) -> Result<(), StorageError> {
        if self.failed {
            return Err(StorageError::Failed);
        }
        self.check_no_gaps(records);
        self.clear_torn()?;
        let places = self.encode(records)?;
        if let Some(segment) = first_segment {
            record::encode_first_segment(segment, &mut self.buffer);
        }
        let frame_bytes = (self.buffer.len() - SEGMENT_HEADER_BYTES) as u64;
        let at = if self.offset == 0 { SEGMENT_HEADER_BYTES as u64 } else { self.offset };
        if at + frame_bytes > self.length {
            self.begin_segment(frame_bytes)?;
        }

        let begins = self.offset == 0;
        let seed = self.shared.owner.seed(self.segment);
        let frame = &mut self.buffer[SEGMENT_HEADER_BYTES..];
        let head = FrameHeader::write(frame, self.next, self.chain, seed);
        let (write_at, from) = if begins { (0, 0) } else { (self.offset, SEGMENT_HEADER_BYTES) };
        if begins {
            let (owner, segment) = (self.shared.owner, self.segment);
            let length = u32::try_from(self.length).expect("a batch has a bound, and so has a segment");
            let header = SegmentHeader { owner, segment, first: self.next, chain: self.chain, length };
            self.buffer[..SEGMENT_HEADER_BYTES].copy_from_slice(&header.encode());
        }
        self.failed = true;
        let bytes = &self.buffer[from..];
        if let Err(source) = self.file.write_at(write_at, bytes) {
            let error = self.of_file("write to", source);
            if error.is_disk_full() {
                // Room was set aside, and yet this happens: with a quota, or where the file system writes to another place. Some of it
                // may be written, and in part. It is behind everything that counts, so it is a torn batch to whoever
                // opens the log now; but here others may follow it.
                self.torn = self.torn.max(write_at + bytes.len() as u64);
                self.failed = false;
            }
            return Err(error);
        }
        self.file.sync_data().map_err(|source| self.of_file(SYNC, source))?;
        self.failed = false;
        self.written += bytes.len() as u64;

        let frame_at = write_at + (SEGMENT_HEADER_BYTES - from) as u64;
        self.offset = frame_at + frame_bytes;
        self.next += 1;
        self.chain = head;
        self.sealed = frame_bytes == FRAME_HEADER_BYTES as u64;
        self.publish(records, &places, frame_at);
        if self.reached.is_none_or(|reached| reached.segment < self.segment) {
            self.record_reached()?;
        }
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }

    fn of_file(&self, action: &'static str, source: std::io::Error) -> StorageError {
        StorageError::Io { action, path: self.shared.full_path(self.segment), source }
    }

    /// Makes zeroes, durably, of what a write has left for which there was no room: nothing else is behind the last batch of a
    /// segment, and the next one may be shorter, or go into another segment.
    fn clear_torn(&mut self) -> Result<(), StorageError> {
        static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];
        let mut at = self.offset;
        while at < self.torn {
            let count = (self.torn - at).min(ZEROES.len() as u64);
            if let Err(source) = self.file.write_at(at, &ZEROES[..count as usize]) {
                let error = self.of_file("write to", source);
                self.failed = !error.is_disk_full();
                return Err(error);
            }
            at += count;
        }
        if self.torn > 0 {
            self.failed = true;
            self.file.sync_data().map_err(|source| self.of_file(SYNC, source))?;
            (self.torn, self.failed) = (0, false);
        }
        Ok(())
    }

    /// Records how far the log has come. Without room for that, the next try may do.
    fn record_reached(&mut self) -> Result<(), StorageError> {
        let reached = Reached { segment: self.segment, batch: self.next - 1 };
        // A log that is empty has come nowhere.
        if self.reached == Some(reached) || reached.batch == 0 {
            return Ok(());
        }
        let Shared { disk, dir, owner, .. } = &*self.shared;
        match reached::save(&**disk, dir, *owner, reached) {
            Ok(()) => self.reached = Some(reached),
            Err(error) if error.is_disk_full() => {}
            Err(error) => {
                self.failed = true;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Fills the buffer: room for both headers, then the records. Returns where each record lies among them.
    fn encode(&mut self, records: &[Record]) -> Result<Vec<u32>, StorageError> {
        let bytes_max: u64 = records
            .iter()
            .map(|record| match record {
                Record::Entry(_, entry) => entry.payload.len() + RECORD_OVERHEAD_MAX,
                _ => RECORD_OVERHEAD_MAX,
            } as u64)
            .sum();
        if bytes_max > BATCH_BYTES_MAX {
            return Err(StorageError::BatchTooLarge { bytes: bytes_max, bytes_max: BATCH_BYTES_MAX });
        }
        self.buffer.clear();
        self.buffer.reserve(FRONT + bytes_max as usize);
        self.buffer.resize(FRONT, 0);
        let mut places = Vec::with_capacity(records.len());
        for record in records {
            places.push((self.buffer.len() - FRONT) as u32);
            record::encode(record, &mut self.buffer);
        }
        Ok(places)
    }

    /// Goes on in the next segment, with room for a frame of this size: in the spare one, or in one made now.
    fn begin_segment(&mut self, frame_bytes: u64) -> Result<(), StorageError> {
        let segment = if self.offset == 0 { self.segment } else { self.segment + 1 };
        if self.offset == 0 {
            // It is made once more, and if that fails, then again: nothing goes into what there was.
            self.length = 0;
        }
        let bytes = SEGMENT_HEADER_BYTES as u64 + frame_bytes;
        let Shared { disk, dir, spare, .. } = &*self.shared;
        let spare = spare.take(&**disk, dir, &path_of(dir, segment), bytes).map_err(|source| {
            StorageError::Io { action: "begin the log segment", path: self.shared.full_path(segment), source }
        })?;
        let (file, length) = if let Some(spare) = spare {
            spare
        } else {
            let length = self.options.segment_bytes.max(bytes);
            (create_segment(&self.shared, segment, length)?, length)
        };
        self.shared.length.store(length, Ordering::Relaxed);
        self.shared.index.write().expect(POISONED).segments.insert(segment, length);
        (self.segment, self.file, self.length, self.offset) = (segment, file, length, 0);
        Ok(())
    }

    /// A gap would make the log unreadable, so it must not get there.
    fn check_no_gaps(&self, records: &[Record]) {
        let index = self.shared.index.read().expect(POISONED);
        let mut lasts: BTreeMap<ShardId, Index> = BTreeMap::new();
        for record in records {
            let (shard, last) = match record {
                Record::Entry(shard, entry) => {
                    let last = lasts.get(shard).copied().unwrap_or_else(|| index.last(*shard));
                    assert!(
                        entry.index.0 <= last.0 + 1,
                        "shard {shard}: entry {} is to be appended after {last}",
                        entry.index
                    );
                    (shard, entry.index)
                }
                Record::Installed(shard, base) => (shard, base.index),
                Record::HardState(..)
                | Record::Base(..)
                | Record::Replica(..)
                | Record::Lost(..)
                | Record::Gone(..) => continue,
            };
            lasts.insert(*shard, last);
        }
    }

    fn publish(&self, records: &[Record], places: &[u32], frame: u64) {
        let mut index = self.shared.index.write().expect(POISONED);
        let segment = self.segment;
        for (record, &place) in records.iter().zip(places) {
            match record {
                Record::Entry(shard, entry) => {
                    let place = Place { segment, frame, record: place };
                    index
                        .add(*shard, entry.index, entry.term, place)
                        .expect("the batch was checked for gaps");
                }
                Record::HardState(shard, state) => index.set_state(*shard, *state, segment),
                Record::Base(shard, base) => index.set_base(*shard, *base, segment),
                Record::Installed(shard, base) => index.install(*shard, *base, segment),
                Record::Replica(shard, peer) => index.set_replica(*shard, *peer, segment),
                Record::Lost(shard, at) => index.set_lost(*shard, *at, segment),
                Record::Gone(shard, last) => index.set_gone(*shard, *last, segment),
            }
        }
        index.end = End { segment, offset: self.offset };
    }
}

/// Makes a log that has nothing yet in a directory, unless there is one: the first segment, without room. Durable when it returns.
pub(crate) fn begin(disk: &dyn Disk, dir: &str) -> Result<(), StorageError> {
    if has_begun(disk, dir)? {
        return Ok(());
    }
    let path = path_of(dir, 1);
    let make = || {
        disk.create_dir(dir)?;
        disk.create(&path)?.sync_data()?;
        disk.sync_dir(dir)
    };
    make().map_err(StorageError::io("make the log segment", &format!("{}/{path}", disk.name())))
}

/// Whether there is a segment in a directory, which may be missing itself.
pub(crate) fn has_begun(disk: &dyn Disk, dir: &str) -> Result<bool, StorageError> {
    match disk.list(dir) {
        Ok(names) => Ok(names.iter().any(|name| segment_of(name).is_some())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(source) => {
            let path = format!("{}/{dir}", disk.name());
            Err(StorageError::Io { action: "read the log's directory", path, source })
        }
    }
}

/// Makes an empty segment: its room set aside, its name durable.
fn create_segment(shared: &Shared, segment: u64, length: u64) -> Result<Arc<dyn File>, StorageError> {
    let path = path_of(&shared.dir, segment);
    let create = || {
        let file = shared.disk.create(&path)?;
        if let Err(error) = file.preallocate(length) {
            // Durably away again: that a segment follows must go on to mean that the last one is synced whole. The first one follows
            // none, and stays: a log has one.
            if segment > 1 {
                shared.disk.remove(&path)?;
                shared.disk.sync_dir(&shared.dir)?;
            }
            return Err(error);
        }
        // The header will say the length: a file that is shorter then has lost something.
        file.sync_data()?;
        shared.disk.sync_dir(&shared.dir)?;
        Ok(file)
    };
    create().map_err(|source| StorageError::Io {
        action: "make the log segment",
        path: shared.full_path(segment),
        source,
    })
}

/// Removes a segment, durably.
fn remove_segment(disk: &dyn Disk, dir: &str, segment: u64) -> Result<(), StorageError> {
    let path = path_of(dir, segment);
    let remove = || {
        disk.remove(&path)?;
        disk.sync_dir(dir)
    };
    remove().map_err(|source| StorageError::Io {
        action: "remove the log segment",
        path: format!("{}/{path}", disk.name()),
        source,
    })
}

/// A segment's path: its number in 16 hexadecimal digits.
fn path_of(dir: &str, segment: u64) -> String {
    format!("{dir}/{segment:016x}.log")
}

fn segment_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".log").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
