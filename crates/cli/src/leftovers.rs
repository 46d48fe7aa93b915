//! Temporary directories of `ringfort dev` and `ringfort recover`, and what a killed one leaves of them.
//!
//! Each has a file `owner`, which its process keeps locked for as long as it lives, however it ends. So a directory whose
//! `owner` can be locked is nobody's any more; one without that file is left alone. The nodes of a killed process live on for some
//! seconds (`start --stop-on-stdin-eof`), so their own locks are waited for, too.

use std::fs::{self, DirEntry, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the names of the directories of a command begin with, and the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    prefix: &'static str,
    command: &'static str,
}

pub(crate) const DEV: Kind = Kind { prefix: "ringfort-dev-", command: "ringfort dev" };
pub(crate) const RECOVER: Kind = Kind { prefix: "ringfort-recover-", command: "ringfort recover" };

const OWNER: &str = "owner";
const OWNER_NEW: &str = "owner.new";
/// A node's own lock, in its directory.
const NODE_LOCK: &str = "lock";
/// Most entries of the directory for temporary files that are looked at, and most that are removed.
const ENTRIES_MAX: usize = 10_000;
const REMOVED_MAX: usize = 16;
/// How long the nodes of a killed process are waited for: a little longer than they take to stop.
const NODES_MAX: Duration = Duration::from_secs(8);
/// How often they are looked at.
const LOOK: Duration = Duration::from_millis(50);

/// A new directory for this process, and its lock, which holds until it is dropped.
pub(crate) fn claim_new(kind: Kind, temporary: &Path) -> io::Result<(PathBuf, File)> {
    let directory = temporary.join(format!("{}{}", kind.prefix, std::process::id()));
    fs::create_dir(&directory)?;
    // It has its name only once it is locked: who looks for leftovers must not find it before.
    let new = directory.join(OWNER_NEW);
    let mut owner = File::create_new(&new)?;
    owner.try_lock()?;
    writeln!(owner, "{}", std::process::id())?;
    fs::rename(new, directory.join(OWNER))?;
    Ok((directory, owner))
}

/// Removes what killed processes have left, and says so on stderr. What can't be removed stays.
pub(crate) fn clear(kind: Kind, temporary: &Path) {
    let Ok(entries) = fs::read_dir(temporary) else { return };
    let ours = entries.take(ENTRIES_MAX).flatten().filter(|entry| is_ours(kind, entry));
    for directory in ours.map(|entry| entry.path()).filter_map(abandoned).take(REMOVED_MAX) {
        if nodes_are_gone(&directory.path) && fs::remove_dir_all(&directory.path).is_ok() {
            say(&format!("removed {}, which a killed `{}` had left", directory.path.display(), kind.command));
        }
    }
}

/// A directory whose process is gone.
struct Abandoned {
    path: PathBuf,
    /// Keeps others from removing it at the same time.
    _lock: File,
}

/// Whether it is a directory of ours by its name, and of this user.
fn is_ours(kind: Kind, entry: &DirEntry) -> bool {
    // Of the entry itself: what a link points to is none of our business.
    entry.file_name().to_string_lossy().starts_with(kind.prefix)
        && entry
            .metadata()
            .is_ok_and(|about| about.is_dir() && about.uid() == rustix::process::geteuid().as_raw())
}

fn abandoned(path: PathBuf) -> Option<Abandoned> {
    let owner = File::open(path.join(OWNER)).ok()?;
    owner.try_lock().ok()?;
    Some(Abandoned { path, _lock: owner })
}

/// Waits for the nodes whose data is in this directory. False if they stay.
fn nodes_are_gone(directory: &Path) -> bool {
    let begun = Instant::now();
    let mut told = false;
    while some_node_runs(directory) {
        if begun.elapsed() > NODES_MAX {
            return false;
        }
        if !told {
            told = true;
            say("waiting for the nodes of a killed `ringfort dev` to stop");
        }
        std::thread::sleep(LOOK);
    }
    true
}

fn some_node_runs(directory: &Path) -> bool {
    let Ok(nodes) = fs::read_dir(directory) else { return false };
    let is_locked = |node: DirEntry| {
        let lock = File::open(node.path().join(NODE_LOCK));
        lock.is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
    };
    nodes.flatten().any(is_locked)
}

fn say(line: &str) {
    let _nobody_reads = writeln!(io::stderr(), "ringfort: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_marked_and_nobody_s_is_removed() {
        let temporary = tempfile::tempdir().unwrap();
        let make = |name: &str, owner: bool| {
            let path = temporary.path().join(format!("{}{name}", DEV.prefix));
            fs::create_dir_all(path.join("node1")).unwrap();
            fs::write(path.join("node1/log"), "data").unwrap();
            if owner {
                fs::write(path.join(OWNER), "1\n").unwrap();
            }
            path
        };
        let left = make("1", true);
        let unmarked = make("2", false);
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join(OWNER), "1\n").unwrap();
        let link = temporary.path().join(format!("{}link", DEV.prefix));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();
        let (mine, lock) = claim_new(DEV, temporary.path()).unwrap();
        clear(DEV, temporary.path());
        assert!(!left.exists(), "its process is gone");
        assert!(mine.exists() && unmarked.exists() && link.exists() && elsewhere.path().exists());
        drop(lock);
        clear(DEV, temporary.path());
        assert!(!mine.exists(), "its lock is given back");
    }
}
