//! How far the log has surely come: a batch that was synced, in a file of its own. Drawn in `docs/formats/log.md`.
//!
//! Without it nobody could tell a log that has lost its end from one that never had it. It is a lower bound: it is
//! recorded when the log is opened, when a segment has its first batch, and when a node stops in good order; what was
//! written after that and then lost looks like a torn write, if nothing else shows that it was there.
//!
//! The file is replaced whole: written beside, synced, renamed, directory synced. So it is never torn; one that can't be
//! read, or is missing, is said so and made anew, since the log itself may be whole.

use std::fmt;
use std::io::ErrorKind;

use super::frame::Owner;
use crate::StorageError;
use crate::disk::Disk;
use crate::error::is_io_damage;

const MAGIC: [u8; 8] = *b"RFREACH\0";
const VERSION: u32 = 1;
const BYTES: usize = 32;
const NAME: &str = "reached";
const NAME_NEW: &str = "reached.new";

/// The log has this batch, and this segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) segment: u64,
    pub(super) batch: u64,
}

/// Something that is no failure, and that whoever runs the node should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Note {
    /// What looks like a torn last batch was removed. Synced bytes at the log's end that have changed since can look the same.
    Cut {
        /// The segment.
        path: String,
        /// Where the log ends now.
        offset: u64,
        /// How many bytes went: up to the last one that was not zero.
        bytes: u64,
    },
    /// It is not known how far the log must go.
    UnknownEnd {
        /// The file that says it.
        path: String,
        /// Missing, or damaged, or why it can't be read.
        is: String,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Note::Cut { path, offset, bytes } => write!(
                f,
                "the log's end looks like a last batch that was not written whole, as when a node is killed, and that nobody was told \
                 of: removed {bytes} bytes from byte {offset} on of {path}; if they had been synced and have changed since, what \
                 they held is lost here"
            ),
            Note::UnknownEnd { path, is } => write!(
                f,
                "{path} is {is}: whether the log has lost its end can't be told this time; the file is made anew"
            ),
        }
    }
}

/// What is recorded, or why nothing is known.
pub(super) fn read(disk: &dyn Disk, dir: &str, owner: Owner) -> Result<Result<Reached, Note>, StorageError> {
    let path = format!("{}/{dir}/{NAME}", disk.name());
    let mut bytes = [0; BYTES];
    let read = match disk.open(&format!("{dir}/{NAME}")) {
        Ok(file) => file.read_at(0, &mut bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Err(Note::UnknownEnd { path, is: "missing".into() }));
        }
        Err(error) => Err(error),
    };
    let read = match read {
        // It says as much as one that is damaged, and is made anew as that is: by a rename, without a look at the bad sector. The log
        // itself is read to its end, and fails the start if any of it can't be.
        Err(error) if is_io_damage(&error) => {
            return Ok(Err(Note::UnknownEnd { path, is: format!("not to be read ({error})") }));
        }
        read => read,
    };
    let read = read.map_err(StorageError::io("read", &path))?;
    Ok(decode(&bytes[..read], owner).ok_or(Note::UnknownEnd { path, is: "damaged".into() }))
}

/// Records it, durably.
pub(super) fn save(disk: &dyn Disk, dir: &str, owner: Owner, reached: Reached) -> Result<(), StorageError> {
    let (path, beside) = (format!("{dir}/{NAME}"), format!("{dir}/{NAME_NEW}"));
    let replace = || {
        let file = disk.create(&beside)?;
        file.write_at(0, &encode(reached, owner))?;
        file.sync_data()?;
        disk.rename(&beside, &path)?;
        disk.sync_dir(dir)
    };
    replace().map_err(StorageError::io("write", &format!("{}/{path}", disk.name())))
}

fn encode(reached: Reached, owner: Owner) -> [u8; BYTES] {
    let mut out = [0; BYTES];
    out[0..8].copy_from_slice(&MAGIC);
    out[8..12].copy_from_slice(&VERSION.to_le_bytes());
    out[12..20].copy_from_slice(&reached.segment.to_le_bytes());
    out[20..28].copy_from_slice(&reached.batch.to_le_bytes());
    let sum = crc32c::crc32c_append(owner.seed(0), &out[..28]);
    out[28..32].copy_from_slice(&sum.to_le_bytes());
    out
}

fn decode(bytes: &[u8], owner: Owner) -> Option<Reached> {
    let (fields, sum) = bytes.first_chunk::<BYTES>()?.split_at(28);
    let is_whole = sum == crc32c::crc32c_append(owner.seed(0), fields).to_le_bytes();
    if !is_whole || fields[0..8] != MAGIC || fields[8..12] != VERSION.to_le_bytes() {
        return None;
    }
    let number = |at: usize| u64::from_le_bytes(fields[at..at + 8].try_into().expect("eight bytes"));
    Some(Reached { segment: number(12), batch: number(20) })
}
