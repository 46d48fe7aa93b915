//! Small files that are replaced whole: `magic | content | CRC32C of all before, u32`. Written beside, synced, renamed, and the
//! directory synced, so that there is the old one or the new one, never half of one.

use bytes::{BufMut, Bytes, BytesMut};

use crate::StorageError;
use crate::disk::Disk;

/// Why a file can't be used.
pub(crate) enum Unusable {
    /// It could not be read.
    Unread(StorageError),
    /// It is not what was written.
    Damaged(&'static str),
}

/// Reads the content of a file, if there is such a file.
pub(crate) fn read(
    disk: &dyn Disk,
    name: &str,
    magic: &[u8],
    bytes_max: u64,
) -> Result<Option<Bytes>, Unusable> {
    let (dir, file) = name.rsplit_once('/').unwrap_or(("", name));
    // Not by opening it: a link that leads nowhere is not nothing.
    let names = disk.list(dir).map_err(|source| {
        let path = if dir.is_empty() { disk.name() } else { path_of(disk, dir) };
        Unusable::Unread(StorageError::Io { action: "read the directory", path, source })
    })?;
    if !names.iter().any(|found| found == file) {
        return Ok(None);
    }
    let path = path_of(disk, name);
    let unread = |error| Unusable::Unread(StorageError::io("read", &path)(error));
    let file = disk.open(name).map_err(unread)?;
    let length = file.len().map_err(unread)?;
    if length > bytes_max {
        return Err(Unusable::Damaged("it is too long"));
    }
    let mut bytes = vec![0; length as usize];
    let read = file.read_at(0, &mut bytes).map_err(unread)?;
    bytes.truncate(read);
    let Some(split) = bytes.len().checked_sub(4) else { return Err(Unusable::Damaged("it is too short")) };
    if !bytes.starts_with(magic) {
        return Err(Unusable::Damaged("it begins otherwise than such files do"));
    }
    let sum = u32::from_le_bytes(bytes[split..].try_into().expect("four bytes were left for it"));
    if sum != crc32c::crc32c(&bytes[..split]) {
        return Err(Unusable::Damaged("its checksum is wrong"));
    }
    bytes.truncate(split);
    Ok(Some(Bytes::from(bytes).slice(magic.len()..)))
}

/// Puts a file with this content in place of the one that is there, durably.
pub(crate) fn replace(
    disk: &dyn Disk,
    name: &str,
    beside: &str,
    magic: &[u8],
    content: &[u8],
) -> Result<(), StorageError> {
    let mut bytes = BytesMut::with_capacity(magic.len() + content.len() + 4);
    bytes.put_slice(magic);
    bytes.put_slice(content);
    let sum = crc32c::crc32c(&bytes);
    bytes.put_u32_le(sum);
    let path = path_of(disk, name);
    let replace = || {
        let file = disk.create(beside)?;
        file.write_at(0, &bytes)?;
        file.sync_data()?;
        disk.rename(beside, name)?;
        disk.sync_dir(name.rsplit_once('/').map_or("", |(dir, _)| dir))
    };
    replace().map_err(StorageError::io("write", &path))
}

/// Where a file of this name is, for messages.
pub(crate) fn path_of(disk: &dyn Disk, file: &str) -> String {
    format!("{}/{file}", disk.name())
}
