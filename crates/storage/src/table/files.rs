//! A tree's files, as far as it takes to say which of them is damaged, and where.
//!
//! `lsm-tree` checks the blocks that it reads, but what it says names neither file nor place. And it believes what it
//! could check: its list of tables (`v<n>`), the sizes in a table's own table of contents, for which it sets memory
//! aside, and that a table under a name is the one that was written there. So [`check`] looks at these before a tree is opened, which
//! is quick (`owner`); and once something could not be read, [`find`] goes through all bytes of every table, which is not, and is done
//! once for an open tree.
//!
//! ```text
//! current   version u64 | XXH3-128 of the file v<version> u128 | kind of checksum u8 (0)
//! v<n>      sections, table of contents, trailer; its section `tables`:
//!           levels u8 | each: runs u8 | each: tables u32 | each: name u64, kind u8 (0), checksum u128, first sequence u64
//! tables/n  sections, table of contents, trailer; sections of blocks, one after the other:
//!           "LSM\x03" | type u8 | XXH3-128 of the bytes u128 | bytes u32 | unpacked bytes u32 | sum u32 | bytes
//!
//! contents  "TOC!" | count u32 | each: offset u64, bytes u64, name u16 + bytes
//! trailer   "SFA!" | version u8 (1) | kind of checksum u8 (0) | XXH3-128 of the contents u128 | offset u64, bytes u64 of them
//! ```
//!
//! A table's checksum in the list is the XXH3-128 of all its bytes. Its last section is `meta`, one block: number, time of making,
//! counts, first and last key. All little-endian. A block's sum is the lower 32 bits of the XXH3-128 of what is before it.

use std::io::{self, ErrorKind};
use std::sync::Arc;

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::owner::Ends;
use crate::StorageError;
use crate::disk::{Disk, File};

const CURRENT: &str = "current";
const TABLES: &str = "tables";
const CURRENT_BYTES: usize = 25;
const TRAILER_BYTES: u64 = 38;
const BLOCK_HEADER_BYTES: u64 = 33;
/// A list of tables and a table of contents are far smaller.
const LIST_BYTES_MAX: u64 = 64 * 1024 * 1024;
const CONTENTS_BYTES_MAX: u64 = 1024 * 1024;
/// What is read at once of a block.
const PIECE_BYTES: usize = 64 * 1024;
/// Sections that hold no blocks.
const WITHOUT_BLOCKS: [&[u8]; 2] = [b"table_version", b"linked_blob_files"];

/// Checks what is quickly checked: the list of tables, that all of them are there, that each has its end, and that this is the one that
/// the list means. Those of which nothing is `known` are read whole. `None` if there is no tree yet.
pub(super) fn check(disk: &dyn Disk, dir: &str, known: &Ends) -> Result<Option<Ends>, StorageError> {
    let Some(tables) = tables(disk, dir)? else {
        if known.is_empty() {
            return Ok(None);
        }
        let reason = "the file is missing, and `owner` beside it names tables";
        return Err(corrupt(disk, &format!("{dir}/{CURRENT}"), 0, reason));
    };
    let mut ends = Ends::new();
    for Listed { path, checksum } in tables {
        let part = Part::open(disk, path)?;
        let end = part.end()?;
        match known.get(&checksum) {
            Some(known) if *known == end => {}
            Some(_) => return Err(part.misplaced()),
            None => part.check_all(checksum)?,
        }
        ends.insert(checksum, end);
    }
    Ok(Some(ends))
}

/// The checksum of a table's end, by its number.
pub(super) fn end_of(disk: &dyn Disk, dir: &str, table: u64) -> Result<u128, StorageError> {
    Part::open(disk, format!("{dir}/{TABLES}/{table}"))?.end()
}

/// Goes through everything, up to the first damage. `None` if all is as it was written.
pub(super) fn find(disk: &dyn Disk, dir: &str) -> Option<StorageError> {
    let look = || {
        for Listed { path, checksum } in tables(disk, dir)?.unwrap_or_default() {
            Part::open(disk, path)?.check_all(checksum)?;
        }
        Ok(())
    };
    look().err()
}

/// A table in the list.
struct Listed {
    path: String,
    /// Of all its bytes.
    checksum: u128,
}

/// The tables that the tree consists of; `None` if there is no tree yet.
fn tables(disk: &dyn Disk, dir: &str) -> Result<Option<Vec<Listed>>, StorageError> {
    let corrupt = |path: &str, offset, reason| Err(corrupt(disk, path, offset, reason));
    let folder = format!("{dir}/{TABLES}");
    let stored = match disk.list(&folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        listed => listed.map_err(|error| unreadable(disk, &folder, error))?,
    };
    if let Some(name) = stored.iter().find(|name| name.parse::<u64>().is_err()) {
        return corrupt(
            &format!("{folder}/{name}"),
            0,
            "no table has such a name, and nothing else belongs here",
        );
    }
    let current = format!("{dir}/{CURRENT}");
    let Some(bytes) = read(disk, &current)? else {
        // Without it a tree would be taken for a new one, and its rows would be gone without a word.
        if stored.is_empty() {
            return Ok(None);
        }
        return corrupt(&current, 0, "the file is missing, and there are tables");
    };
    if bytes.len() != CURRENT_BYTES || bytes[CURRENT_BYTES - 1] != 0 {
        let at = bytes.len().min(CURRENT_BYTES - 1) as u64;
        return corrupt(&current, at, "it does not have the 25 bytes that were written");
    }
    let mut fields = Fields(&bytes);
    let (version, checksum) = (fields.u64().unwrap_or_default(), fields.u128().unwrap_or_default());
    let list = format!("{dir}/v{version}");
    let Some(bytes) = read(disk, &list)? else {
        return corrupt(&list, 0, "the file is missing, and `current` beside it names it");
    };
    if xxh3_128(&bytes) != checksum {
        let reason = "its checksum is not the one that `current` beside it has: one of the two has changed";
        return corrupt(&list, 0, reason);
    }
    let sections = Part::open(disk, list.clone())?.contents()?;
    let listed = sections.iter().find(|section| section.name == b"tables").and_then(|section| {
        let bytes = bytes.get(section.offset as usize..(section.offset + section.bytes) as usize)?;
        decode_tables(&mut Fields(bytes))
    });
    let Some(listed) = listed else {
        return corrupt(&list, 0, "it has no list of tables, though its checksum is right");
    };
    // What no list names is removed when the tree is opened, and the library panics where it can't be.
    for name in &stored {
        if !listed.iter().any(|(table, _)| *name == table.to_string()) {
            let path = format!("{folder}/{name}");
            disk.open(&path).map_err(|error| unreadable(disk, &path, error))?;
        }
    }
    let listed = listed.into_iter();
    Ok(Some(listed.map(|(table, checksum)| Listed { path: format!("{folder}/{table}"), checksum }).collect()))
}

/// Numbers and checksums.
fn decode_tables(fields: &mut Fields<'_>) -> Option<Vec<(u64, u128)>> {
    let mut tables = Vec::new();
    for _ in 0..fields.u8()? {
        for _ in 0..fields.u8()? {
            for _ in 0..fields.u32()? {
                let table = fields.u64()?;
                fields.take(1)?;
                tables.push((table, fields.u128()?));
                fields.take(8)?;
            }
        }
    }
    Some(tables)
}

/// One section of a file.
struct Section {
    name: Vec<u8>,
    offset: u64,
    bytes: u64,
}

/// A file with sections.
struct Part<'a> {
    disk: &'a dyn Disk,
    path: String,
    file: Arc<dyn File>,
    length: u64,
}

impl<'a> Part<'a> {
    fn open(disk: &'a dyn Disk, path: String) -> Result<Part<'a>, StorageError> {
        let open = || {
            let file = disk.open(&path)?;
            Ok::<_, io::Error>((file.len()?, file))
        };
        match open() {
            Ok((length, file)) => Ok(Part { disk, path, file, length }),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let reason =
                    "the file is missing, and the list of tables (`v…` in the directory above it) names it";
                Err(corrupt(disk, &path, 0, reason))
            }
            Err(error) => Err(unreadable(disk, &path, error)),
        }
    }

    fn corrupt(&self, offset: u64, reason: &'static str) -> StorageError {
        corrupt(self.disk, &self.path, offset, reason)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), StorageError> {
        match self.file.read_at(offset, bytes) {
            Ok(read) if read == bytes.len() => Ok(()),
            Ok(read) => {
                Err(self.corrupt(offset + read as u64, "the file ends here, and is shorter than it was made"))
            }
            Err(error) => Err(unreadable(self.disk, &self.path, error)),
        }
    }

    fn contents(&self) -> Result<Vec<Section>, StorageError> {
        let Some(end) = self.length.checked_sub(TRAILER_BYTES) else {
            return Err(self.corrupt(self.length, "the file ends here, and is shorter than it was made"));
        };
        let mut trailer = [0; TRAILER_BYTES as usize];
        self.read(end, &mut trailer)?;
        let mut fields = Fields(&trailer);
        let is_trailer = fields.take(6) == Some(b"SFA!\x01\0");
        let checksum = fields.u128().unwrap_or_default();
        let (offset, bytes) = (fields.u64().unwrap_or_default(), fields.u64().unwrap_or_default());
        if !is_trailer || offset.checked_add(bytes) != Some(end) || bytes > CONTENTS_BYTES_MAX {
            return Err(self.corrupt(end, "the file does not end with the trailer that was written"));
        }
        let mut contents = vec![0; bytes as usize];
        self.read(offset, &mut contents)?;
        if xxh3_128(&contents) != checksum {
            return Err(
                self.corrupt(offset, "the checksum of its table of contents is not the one in the trailer")
            );
        }
        decode_contents(&mut Fields(&contents), offset).ok_or_else(|| {
            self.corrupt(offset, "its table of contents can't be read, though its checksum is right")
        })
    }

    /// For a table that is as it should be, in another's place.
    fn misplaced(&self) -> StorageError {
        StorageError::Misplaced {
            path: format!("{}/{}", self.disk.name(), self.path),
            reason: "it is a whole table, but not the one that the list of tables (`v…` in the directory above it) names".into(),
        }
    }

    /// The checksum of its end, from its last section on: as good as unique.
    fn end(&self) -> Result<u128, StorageError> {
        let contents = self.contents()?;
        let Some(meta) = contents.iter().find(|section| section.name == b"meta") else {
            return Err(self.corrupt(0, "its table of contents names no section `meta`, as every table has"));
        };
        // Where bytes have changed, the place is named.
        self.check_blocks(meta)?;
        self.digest(meta.offset)
    }

    /// Checks all its bytes. Where they are not those of this checksum, the first block that has changed is named, if one has.
    fn check_all(&self, checksum: u128) -> Result<(), StorageError> {
        if self.digest(0)? == checksum {
            return Ok(());
        }
        for section in self.contents()? {
            if !WITHOUT_BLOCKS.contains(&&*section.name) {
                self.check_blocks(&section)?;
            }
        }
        Err(self.misplaced())
    }

    /// The checksum of all bytes from here on.
    fn digest(&self, from: u64) -> Result<u128, StorageError> {
        let (mut at, mut hash, mut piece) = (from, Xxh3::new(), vec![0; PIECE_BYTES]);
        while at < self.length {
            let piece = &mut piece[..(self.length - at).min(PIECE_BYTES as u64) as usize];
            self.read(at, piece)?;
            hash.update(piece);
            at += piece.len() as u64;
        }
        Ok(hash.digest128())
    }

    fn check_blocks(&self, section: &Section) -> Result<(), StorageError> {
        let end = section.offset + section.bytes;
        let mut at = section.offset;
        let mut piece = vec![0; PIECE_BYTES];
        while at < end {
            let no_block = || self.corrupt(at, "no block begins here, where one was written");
            let mut header = [0; BLOCK_HEADER_BYTES as usize];
            if end - at < BLOCK_HEADER_BYTES {
                return Err(no_block());
            }
            self.read(at, &mut header)?;
            let (before, sum) = header.split_at(header.len() - 4);
            if !before.starts_with(b"LSM\x03") || (xxh3_128(before) as u32).to_le_bytes() != sum {
                return Err(no_block());
            }
            let mut fields = Fields(&before[5..]);
            let checksum = fields.u128().unwrap_or_default();
            let bytes = u64::from(fields.u32().unwrap_or_default());
            let mut next = at + BLOCK_HEADER_BYTES;
            let block_end = next + bytes;
            if block_end > end {
                return Err(no_block());
            }
            let mut hash = Xxh3::new();
            while next < block_end {
                let piece = &mut piece[..(block_end - next).min(PIECE_BYTES as u64) as usize];
                self.read(next, piece)?;
                hash.update(piece);
                next += piece.len() as u64;
            }
            if hash.digest128() != checksum {
                return Err(
                    self.corrupt(at, "the block here does not have the checksum that it was written with")
                );
            }
            at = block_end;
        }
        Ok(())
    }
}

fn decode_contents(fields: &mut Fields<'_>, end: u64) -> Option<Vec<Section>> {
    if fields.take(4)? != b"TOC!" {
        return None;
    }
    let mut sections = Vec::new();
    for _ in 0..fields.u32()? {
        let (offset, bytes) = (fields.u64()?, fields.u64()?);
        let name = usize::from(u16::from_le_bytes(fields.array()?));
        let name = fields.take(name)?.to_vec();
        if offset.checked_add(bytes)? > end {
            return None;
        }
        sections.push(Section { name, offset, bytes });
    }
    Some(sections)
}

/// Numbers from bytes.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn u128(&mut self) -> Option<u128> {
        self.array().map(u128::from_le_bytes)
    }
}

/// All of a small file; `None` if it is not there.
fn read(disk: &dyn Disk, path: &str) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match disk.open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(disk, path, error)),
    };
    let length = file.len().map_err(|error| unreadable(disk, path, error))?;
    if length > LIST_BYTES_MAX {
        return Err(corrupt(disk, path, LIST_BYTES_MAX, "it is longer than it was made"));
    }
    let mut bytes = vec![0; length as usize];
    let read = file.read_at(0, &mut bytes).map_err(|error| unreadable(disk, path, error))?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

fn corrupt(disk: &dyn Disk, path: &str, offset: u64, reason: &'static str) -> StorageError {
    StorageError::Corrupt { path: format!("{}/{path}", disk.name()), offset, reason }
}

fn unreadable(disk: &dyn Disk, path: &str, source: io::Error) -> StorageError {
    StorageError::Io { action: "read", path: format!("{}/{path}", disk.name()), source }
}
