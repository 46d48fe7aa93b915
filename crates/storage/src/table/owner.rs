//! Whose directory a table's is, and which files are its own: the file `owner` in it. Drawn in `docs/formats/table.md`.
//!
//! Nothing in a tree's files says to which shard they belong, and the library takes any whole table under a name for the one that
//! it wrote there. But its list has a checksum of each table's bytes, all of them, and is itself secured by `current`. To compute that of
//! every table at each start would be to read everything; so the checksum of a table's end, which no two tables share (it says when
//! the table was made, to the nanosecond), is kept here beside that of the whole, and compared when a tree is opened.
//!
//! The list is what counts. A table that this file says nothing of is read whole once, when the tree is opened: those of a
//! merge during which the process was killed, or all of them if the file is lost.
//!
//! Deliberately absent: a table that takes another's place while its tree is open, and that the library opens again, is noticed
//! if one of its blocks is not where the other had one, and at the next start.

use std::collections::BTreeMap;

use bytes::{BufMut, BytesMut};
use ringfort_types::wire::{Malformed, Reader};
use ringfort_types::{Incarnation, ShardId};

use super::files;
use crate::StorageError;
use crate::disk::Disk;
use crate::error::is_io_damage;
use crate::whole::{self, Unusable, path_of};

const OWNER: &str = "owner";
const OWNER_NEW: &str = "owner.new";
const MAGIC: &[u8; 12] = b"RFTABLE\0\x01\0\0\0";
/// A million tables.
const BYTES_MAX: u64 = 32 * 1024 * 1024;

/// Whose table it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) incarnation: Incarnation,
    pub(super) shard: ShardId,
    pub(super) generation: u64,
}

/// Of tables in the list, by their whole bytes' checksums: those of their ends.
pub(super) type Ends = BTreeMap<u128, u128>;

/// What is known of a tree's tables.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) ends: Ends,
    /// Whether the file is there. It is made before the first table, not for each shard at a cluster's birth.
    is_stored: bool,
}

/// Checks that the tree in this directory, if there is one, is the one that was written here, as far as that is quickly done.
pub(super) fn check(disk: &dyn Disk, dir: &str, owner: Owner) -> Result<Known, StorageError> {
    let path = path_of(disk, &format!("{dir}/{OWNER}"));
    let (stored, lost) = match read(disk, dir, owner, &path)? {
        Ok(stored) => (stored, None),
        Err(lost) => (None, Some(lost)),
    };
    let is_stored = stored.is_some();
    let known = stored.unwrap_or_default();
    let ends = files::check(disk, dir, &known)?.unwrap_or_default();
    // A directory without tables need not be anybody's yet.
    let lost = lost.or_else(|| (!is_stored && !ends.is_empty()).then(|| "missing".to_owned()));
    if let Some(lost) = &lost {
        tracing::warn!(
            "{path} is {lost}: whether the directory is another shard's can't be told this time; every table in it is the one that \
             its list names; the file is made anew"
        );
    }
    let mut known = Known { ends: known, is_stored };
    known.keep(disk, dir, owner, ends);
    if lost.is_some() {
        known.claim(disk, dir, owner);
    }
    Ok(known)
}

impl Known {
    /// Stores that the directory is this owner's, if that is not stored yet.
    pub(super) fn claim(&mut self, disk: &dyn Disk, dir: &str, owner: Owner) {
        if !self.is_stored {
            self.is_stored = save(disk, dir, owner, &self.ends);
        }
    }

    /// Stores what is known from now on, if it is something else.
    pub(super) fn keep(&mut self, disk: &dyn Disk, dir: &str, owner: Owner, ends: Ends) {
        if ends != self.ends {
            self.is_stored = save(disk, dir, owner, &ends);
            self.ends = ends;
        }
    }
}

/// What is stored, if anything is; the inner error says why that can't be known.
fn read(
    disk: &dyn Disk,
    dir: &str,
    owner: Owner,
    path: &str,
) -> Result<Result<Option<Ends>, String>, StorageError> {
    let content = match whole::read(disk, &format!("{dir}/{OWNER}"), MAGIC, BYTES_MAX) {
        Ok(Some(content)) => content,
        Ok(None) => return Ok(Ok(None)),
        Err(Unusable::Damaged(reason)) => return Ok(Err(format!("damaged ({reason})"))),
        // As much is known as of one that is damaged.
        Err(Unusable::Unread(StorageError::Io { source, .. })) if is_io_damage(&source) => {
            return Ok(Err(format!("not to be read ({source})")));
        }
        Err(Unusable::Unread(error)) => return Err(error),
    };
    let fields = |mut reader: Reader| {
        let found = Owner {
            incarnation: Incarnation(reader.u64()?),
            shard: ShardId(reader.u32()?),
            generation: reader.u64()?,
        };
        let mut ends = Ends::new();
        while reader.remaining() > 0 {
            ends.insert(reader.u128()?, reader.u128()?);
        }
        Ok::<_, Malformed>((found, ends))
    };
    let Ok((found, ends)) = fields(Reader::new(content)) else {
        return Ok(Err("damaged (it ends within a field)".into()));
    };
    if found == owner {
        return Ok(Ok(Some(ends)));
    }
    let place = if found.incarnation == owner.incarnation {
        let generation = found.generation;
        format!("the directory of shard {}, generation {generation}, on this node", found.shard)
    } else {
        format!("another node or disk (shard {}, {:#x})", found.shard, found.incarnation.0)
    };
    let reason = format!("it, or the whole directory, belongs to another place: {place}");
    Err(StorageError::Misplaced { path: path.to_owned(), reason })
}

/// Keeps what is known. Without it the next start reads those tables whole of which nothing is known.
fn save(disk: &dyn Disk, dir: &str, owner: Owner, ends: &Ends) -> bool {
    let mut content = BytesMut::new();
    content.put_u64_le(owner.incarnation.0);
    content.put_u32_le(owner.shard.0);
    content.put_u64_le(owner.generation);
    for (whole, end) in ends {
        content.put_u128_le(*whole);
        content.put_u128_le(*end);
    }
    let (name, beside) = (format!("{dir}/{OWNER}"), format!("{dir}/{OWNER_NEW}"));
    match whole::replace(disk, &name, &beside, MAGIC, &content) {
        Ok(()) => return true,
        Err(error) if error.is_disk_full() => {}
        Err(error) => {
            tracing::warn!("{error}; it is not needed, but the next start takes longer without it");
        }
    }
    false
}

/// What is known of these tables, each with its checksum; of those that are not known yet it is read.
pub(super) fn ends_of(
    disk: &dyn Disk,
    dir: &str,
    tables: impl Iterator<Item = (u64, u128)>,
    known: &Ends,
) -> Ends {
    let end = |(id, whole)| match known.get(&whole) {
        Some(end) => Some((whole, *end)),
        // Whatever is wrong with it, the next start will find it.
        None => files::end_of(disk, dir, id).ok().map(|end| (whole, end)),
    };
    tables.filter_map(end).collect()
}
