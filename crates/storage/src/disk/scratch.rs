//! A stopped node's data directory, looked at without a change of it.
//!
//! Whoever opens a data directory writes to it: the start is counted, the log's end is made whole, the tables' library clears away what a
//! killed process has left. So another directory is opened in its place, a [`Scratch`]: the small files and the log are copied, and in the
//! place of the tables' files, which nobody changes once they are written, there are links to them. It takes as much room as the log.
//!
//! Invariants: nothing is written below the original, not even its lock; as long as a [`Stopped`] lives, nobody else can start a node there.
//!
//! Deliberately absent: `marks` and `lock`, which say nothing about the node's own data.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::file_disk::{DIR_MODE, FILE_MODE};
use crate::identity::{IDENTITY, LAYOUT, LOCK};
use crate::{LANE_DIR, StorageError};

/// The folder in a table's directory whose files are written once.
const TABLES: &str = "tables";
/// What is copied at once.
const PIECE_BYTES: usize = 64 * 1024;

/// A data directory in which no node runs. Its lock is held as long as this value lives.
#[derive(Debug)]
pub struct Stopped {
    root: PathBuf,
    /// Without the file there is no node that could hold it.
    _lock: Option<fs::File>,
}

/// What can be opened in the place of a stopped node's directory. Removed when it is dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Stopped {
    /// Holds a directory. Refuses one that is none of a node, or in use.
    pub fn hold(root: &Path) -> Result<Stopped, StorageError> {
        let root = std::path::absolute(root).unwrap_or_else(|_| root.to_owned());
        let directory = root.display().to_string();
        match fs::symlink_metadata(root.join(IDENTITY)) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::NotFound && root.is_dir() => {
                return Err(StorageError::NoData { directory });
            }
            Err(error) => return Err(failed("read the data directory", &root)(error)),
        }
        let path = root.join(LOCK);
        let lock = match fs::File::open(&path) {
            Ok(lock) => lock,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Stopped { root, _lock: None }),
            Err(error) => return Err(failed("lock", &path)(error)),
        };
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Stopped { root, _lock: Some(lock) }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(&path).unwrap_or_default();
                let holder = match holder.trim() {
                    "" => "another process".to_owned(),
                    id => format!("process {id}"),
                };
                Err(StorageError::Running { directory, holder })
            }
            Err(error) => Err(failed("lock", &path)(error.into())),
        }
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes a scratch of it here, in the place of what there is.
    pub fn scratch(&self, at: &Path) -> Result<Scratch, StorageError> {
        let scratch = Scratch(at.to_owned());
        clear(at).map_err(failed("clear", at))?;
        make_dir(at)?;
        for name in [IDENTITY, LAYOUT] {
            let from = self.root.join(name);
            if fs::symlink_metadata(&from).is_ok() {
                copy(&from, &at.join(name))?;
            }
        }
        let lane = self.root.join(LANE_DIR);
        if fs::symlink_metadata(&lane).is_ok() {
            copy_dir(&lane, &at.join(LANE_DIR), false)?;
        }
        Ok(scratch)
    }
}

impl Scratch {
    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = clear(&self.0) {
            tracing::warn!("{} stays: {error}", self.0.display());
        }
    }
}

/// Removes it, if it is there. Of a link only the link goes.
fn clear(at: &Path) -> io::Result<()> {
    match fs::remove_dir_all(at) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn make_dir(at: &Path) -> Result<(), StorageError> {
    fs::DirBuilder::new().mode(DIR_MODE).create(at).map_err(failed("make the directory", at))
}

/// A directory with all that is in it; of files that are `linked`, links.
fn copy_dir(from: &Path, to: &Path, linked: bool) -> Result<(), StorageError> {
    make_dir(to)?;
    for entry in fs::read_dir(from).map_err(failed("read the directory", from))? {
        let name = entry.map_err(failed("read the directory", from))?.file_name();
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            copy_dir(&source, &target, name == TABLES)?;
        } else if linked {
            symlink(&source, &target).map_err(failed("make the link", &target))?;
        } else {
            copy(&source, &target)?;
        }
    }
    Ok(())
}

/// Copies a file. Zeroes, of which a segment has many, take no room.
fn copy(from: &Path, to: &Path) -> Result<(), StorageError> {
    let mut source = fs::File::open(from).map_err(failed("read", from))?;
    let mut options = fs::File::options();
    options.write(true).create_new(true).mode(FILE_MODE);
    let target = options.open(to).map_err(failed("write", to))?;
    let (mut at, mut piece) = (0, vec![0; PIECE_BYTES]);
    loop {
        let read = match source.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(failed("read", from)(error)),
        };
        if piece[..read].iter().any(|byte| *byte != 0) {
            target.write_all_at(&piece[..read], at).map_err(failed("write", to))?;
        }
        at += read as u64;
    }
    target.set_len(at).map_err(failed("write", to))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.display().to_string();
    move |source| StorageError::Io { action, path, source }
}
