//! What this crate asks of a disk, and nothing more.
//!
//! Paths are relative, with `/` between their parts. The contract is that of POSIX at its least generous, and
//! [`SimDisk`] holds everybody to it:
//! - bytes written are durable once [`File::sync_data`] has returned, and until then any of their 512-byte
//!   sectors may or may not be, in any order;
//! - a file created, renamed or removed is so durably once [`Disk::sync_dir`] of its directory has returned;
//! - after a failed sync nothing is known about the bytes it was for, and another sync will not tell.
//!
//! A sector is written whole or not at all: rewriting the sector in which the last batch ends does not
//! endanger that batch.

mod file_disk;
mod scratch;
mod sim_disk;
mod sim_state;

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

pub use file_disk::FileDisk;
pub use scratch::{Scratch, Stopped};
pub use sim_disk::SimDisk;

/// A directory that one node keeps its data in.
pub trait Disk: Send + Sync + Debug {
    /// What to call it in a message: the directory's path.
    fn name(&self) -> String;

    /// Opens a file that is there, for reading and writing.
    fn open(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Makes a file, empty also if there was one before.
    fn create(&self, path: &str) -> io::Result<Arc<dyn File>>;

    /// Makes a directory and those above it, durably. It may be there already.
    fn create_dir(&self, path: &str) -> io::Result<()>;

    /// Names of the files and directories in a directory (`""` is the root), sorted.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Gives a file another name, in place of the one that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Removes the directory itself, if it was made when this disk was opened and nothing is in it.
    fn remove_root(&self) -> io::Result<()>;

    /// Makes creations, renames and removals in a directory durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes a lock file if need be and takes its lock, which lasts until the value is dropped or the process
    /// ends, however it does. Says who has it, if somebody else does.
    fn lock(&self, path: &str) -> io::Result<Result<Box<dyn Lock>, String>>;
}

/// An open file.
pub trait File: Send + Sync + Debug {
    /// Reads into `out` from `offset` on; fewer bytes only at the file's end.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`. The file grows if it must; the gap reads as zeroes.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes bytes and length durable.
    fn sync_data(&self) -> io::Result<()>;

    /// Its length.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Sets aside room for `length` bytes; what was not there before reads as zeroes. Writes within them do
    /// not run out of space, where the file system can promise that.
    fn preallocate(&self, length: u64) -> io::Result<()>;
}

/// A lock that is held.
pub trait Lock: Send + Sync + Debug {}
