//! The real disk: a directory of the file system.
//!
//! What is made here is its owner's alone: directories have mode 0700, files 0600. The tables' library makes its files itself;
//! for those, and against a umask that takes away more, `ringfort start` sets a umask of 0077.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use super::{Disk, File, Lock};
use crate::StorageError;

pub(super) const FILE_MODE: u32 = 0o600;
pub(super) const DIR_MODE: u32 = 0o700;

/// A directory of the file system.
#[derive(Debug)]
pub struct FileDisk {
    root: PathBuf,
    /// Whether there was no such directory before.
    is_new: bool,
}

impl FileDisk {
    /// Uses this directory, making it if it is not there.
    pub fn open(root: impl AsRef<Path>) -> Result<FileDisk, StorageError> {
        let root = std::path::absolute(root.as_ref()).unwrap_or_else(|_| root.as_ref().to_owned());
        let path = root.display().to_string();
        let is_new = !root.exists();
        make_dir(&root).map_err(|source| StorageError::NoDataDirectory { path, source })?;
        Ok(FileDisk { root, is_new })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes a directory with all that is in it, durably. It may be gone already, or never have been there.
    pub(crate) fn remove_dir(&self, path: &str) -> io::Result<()> {
        let path = self.at(path);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed?,
        }
        fs::File::open(path.parent().unwrap_or(&self.root))?.sync_all()
    }

    fn at(&self, path: &str) -> PathBuf {
        if path.is_empty() { self.root.clone() } else { self.root.join(path) }
    }
}

/// Makes a directory and what is missing above it, and syncs each one's parent.
fn make_dir(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => return Err(io::Error::new(io::ErrorKind::NotADirectory, "there is a file of that name")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let parent = path.parent().ok_or(io::ErrorKind::NotFound)?;
    make_dir(parent)?;
    match fs::DirBuilder::new().mode(DIR_MODE).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    fs::File::open(parent)?.sync_all()
}

impl Disk for FileDisk {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let path = self.at(path);
        let file = match fs::File::options().read(true).write(true).open(&path) {
            // Reading it is all that some want.
            Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => fs::File::open(&path)?,
            opened => opened?,
        };
        Ok(Arc::new(OpenFile(file)))
    }

    fn create(&self, path: &str) -> io::Result<Arc<dyn File>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(true).mode(FILE_MODE);
        Ok(Arc::new(OpenFile(options.open(self.at(path))?)))
    }

    fn create_dir(&self, path: &str) -> io::Result<()> {
        make_dir(&self.at(path))
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for found in fs::read_dir(self.at(dir))? {
            names.push(found?.file_name().to_string_lossy().into_owned());
        }
        names.sort_unstable();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to))
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        fs::remove_file(self.at(path))
    }

    fn remove_root(&self) -> io::Result<()> {
        if self.is_new { fs::remove_dir(&self.root) } else { Ok(()) }
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        fs::File::open(self.at(dir))?.sync_all()
    }

    fn lock(&self, path: &str) -> io::Result<Result<Box<dyn Lock>, String>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create(true).truncate(false).mode(FILE_MODE);
        let file = options.open(self.at(path))?;
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For the message that a second process prints; nothing depends on it.
                let _ = file.set_len(0);
                let _ = file.write_at(format!("{}\n", std::process::id()).as_bytes(), 0);
                Ok(Ok(Box::new(HeldLock { _file: file })))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(self.at(path)).unwrap_or_default();
                Ok(Err(match holder.trim() {
                    "" => "another process".to_owned(),
                    id => format!("process {id}"),
                }))
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Closing the file gives the lock back.
#[derive(Debug)]
struct HeldLock {
    _file: fs::File,
}

impl Lock for HeldLock {}

#[derive(Debug)]
struct OpenFile(fs::File);

impl File for OpenFile {
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < out.len() {
            match self.0.read_at(&mut out[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn preallocate(&self, length: u64) -> io::Result<()> {
        if self.len()? >= length {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, length) {
            // A file system that can't promise room can at least set the length.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => self.0.set_len(length),
            other => Ok(other?),
        }
    }
}
