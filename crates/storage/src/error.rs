//! What can go wrong with stored data, each with what to do about it.

use std::io;

use ringfort_types::{Index, ShardId};

/// A failure of the disk, or data on it that is not what it should be.
///
/// None of them is retried here. A failed sync in particular must end the process: the kernel may have
/// dropped the pages that it could not write, and report success the next time.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// The operating system refused.
    #[error("can't {action} {path}: {source}{}", remedy(source))]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no data directory, and none can be made.
    #[error("can't make the data directory {path}: {source}{}", elsewhere(source))]
    NoDataDirectory {
        /// Where it was to be.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// Another process has the directory open.
    #[error(
        "data directory {directory} is in use by {holder}: stop that process, or give this node a data \
         directory of its own"
    )]
    Locked {
        /// The directory.
        directory: String,
        /// Who has it.
        holder: String,
    },
    /// The directory holds something, but nothing of ours.
    #[error(
        "{directory} is not empty and holds no Ringfort data (it has no `identity` file, but has \
         `{found}`): give the path of an empty or new directory, or of an earlier data directory"
    )]
    Foreign {
        /// The directory.
        directory: String,
        /// One of the things in it.
        found: String,
    },
    /// The directory is to be made, and there is something in it.
    #[error("{directory} is not empty (it has `{found}`): give the path of an empty or new directory")]
    NotEmpty {
        /// The directory.
        directory: String,
        /// One of the things in it.
        found: String,
    },
    /// The directory is to be one of a stopped node, and has none of a node's data.
    #[error(
        "{directory} holds no Ringfort data (it has no `identity` file): give the data directory of a stopped node"
    )]
    NoData {
        /// The directory.
        directory: String,
    },
    /// The directory is to be one of a stopped node, and a process has it open.
    #[error("data directory {directory} is in use by {holder}: stop that node first")]
    Running {
        /// The directory.
        directory: String,
        /// Who has it.
        holder: String,
    },
    /// The identity file can't be understood.
    #[error(
        "{path} is damaged ({reason}): without it nobody can tell whose data this is; put the file back as it was. {}",
        NEXT_STEP
    )]
    Identity {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layout that was kept can't be understood.
    #[error("{path} is damaged ({reason})")]
    Layout {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What was kept of the other nodes' logs can't be understood.
    #[error(
        "{path} is damaged ({reason}): what is remembered of the other nodes' logs is heard again from them"
    )]
    Marks {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The flags name another node than the one that lives here.
    #[error(
        "data directory {directory} belongs to a node whose {what} is {stored}, but this one was started with \
         {what} {given}: start it with its old flag, {} {stored}, or with another --data-dir",
        flag_of(what)
    )]
    Conflict {
        /// The directory.
        directory: String,
        /// Name or address.
        what: &'static str,
        /// As stored.
        stored: String,
        /// As given.
        given: String,
    },
    /// A file was written by a version that this one does not know.
    #[error(
        "{path} has {what} {found}, which this version of Ringfort does not know: use the one that wrote it"
    )]
    Unsupported {
        /// The file.
        path: String,
        /// What is unknown: a version, a kind of record.
        what: &'static str,
        /// Its number.
        found: u64,
    },
    /// A log segment belongs to another cluster, node or lane.
    #[error(
        "{path} belongs to another {what} ({found:#x}, not {expected:#x}): it was copied here; put back this \
         node's own files"
    )]
    Stranger {
        /// The segment.
        path: String,
        /// Cluster, incarnation, lane or segment number.
        what: &'static str,
        /// In the file.
        found: u64,
        /// Ours.
        expected: u64,
    },
    /// Bytes that were synced have changed since. Nothing was cut.
    #[error(
        "{path} is damaged at byte {offset}: {reason}. Nothing was changed. These bytes had been synced, so the disk is at \
         fault; put the file back as it was. {}",
        NEXT_STEP
    )]
    Corrupt {
        /// The file.
        path: String,
        /// Where.
        offset: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A file does not have the length that it was made with.
    #[error(
        "{path} is damaged at byte {}: {} than it was made: {found} bytes instead of {expected}. Nothing was changed; put the file \
         back as it was. {}",
        found.min(expected),
        if found < expected { "the file ends here, and is shorter" } else { "the file should end here, and is longer" },
        NEXT_STEP
    )]
    Length {
        /// The file.
        path: String,
        /// In bytes.
        found: u64,
        /// What its header says.
        expected: u64,
    },
    /// There is no log, and there must be one.
    #[error(
        "{path} has no segment of the log, which a node has from its birth on: what was only there, and what this node has told \
         others, is missing. Nothing was changed; put the directory back as it was. {}",
        NEXT_STEP
    )]
    NoLog {
        /// The log's directory.
        path: String,
    },
    /// A file that is whole, and not the one that was written there.
    #[error(
        "{path} is not the file that was written there: {reason}. Nothing was changed. It was copied or moved here; put the file back \
         as it was. {}",
        NEXT_STEP
    )]
    Misplaced {
        /// The file.
        path: String,
        /// Whose it is, or what shows that it is another's.
        reason: String,
    },
    /// An entry was asked for that the log does not have.
    #[error("the log has no entry {index} of shard {shard}")]
    NotStored {
        /// Whose.
        shard: ShardId,
        /// Which.
        index: Index,
    },
    /// More than one batch can hold.
    #[error("a batch of {bytes} bytes is more than the {bytes_max} that one batch of the log can hold")]
    BatchTooLarge {
        /// Its size.
        bytes: u64,
        /// The bound.
        bytes_max: u64,
    },
    /// An earlier write or sync of this log failed.
    #[error("the log has failed before and takes nothing more until it is opened again")]
    Failed,
    /// The versions that a read at this index needs are gone.
    #[error("shard {shard} can't be read at index {asked} any more: it is kept from index {collected} on")]
    Collected {
        /// Whose.
        shard: ShardId,
        /// The index asked for.
        asked: Index,
        /// The lowest one that can be read.
        collected: Index,
    },
    /// A shard's tree failed, and none of its files is known to be damaged.
    #[error("the table of shard {shard} in {path} failed: {}", of_tree(source))]
    Table {
        /// Whose.
        shard: ShardId,
        /// Its directory.
        path: String,
        /// What the tree says.
        source: lsm_tree::Error,
    },
}

/// For who can't put a damaged file back.
pub const NEXT_STEP: &str = "If that can't be done: where other nodes are well, an empty directory takes the place of this one \
                             (`ringfort start` with --join HOST:PORT --replace); else `ringfort import` an earlier export into \
                             a new cluster";

/// What is tried when a file of the log is synced.
pub(crate) const SYNC: &str = "sync";

/// The flag of `start` that says it.
fn flag_of(what: &str) -> &'static str {
    if what == "name" { "--id" } else { "--addr (or --advertise)" }
}

/// What to do about a failure of the operating system, if that is known.
fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room there",
        io::ErrorKind::PermissionDenied => "; the user that runs the node must be able to read and write it",
        io::ErrorKind::ReadOnlyFilesystem => "; mount the file system for writing",
        io::ErrorKind::NotFound => "; put it back as it was",
        io::ErrorKind::NotADirectory => {
            "; a file is in a directory's place: move it away, and put the directory back as it was"
        }
        io::ErrorKind::IsADirectory | io::ErrorKind::NotSeekable => NO_FILE,
        _ => match error.raw_os_error() {
            Some(EIO) => "; the disk can't read or write there: replace it",
            Some(ELOOP | ENXIO | ENODEV) => NO_FILE,
            _ => "",
        },
    }
}

const NO_FILE: &str =
    "; that is no file: move it away, and put back the file that was there, if there was one";

/// Whether stored bytes can't be read, however often that is tried. What keeps the user of the process from it is no such case.
pub(crate) fn is_io_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, NotSeekable, UnexpectedEof};
    matches!(error.kind(), UnexpectedEof | NotFound | IsADirectory | NotADirectory | NotSeekable)
        || matches!(error.raw_os_error(), Some(EIO | ELOOP | ENXIO | ENODEV))
}

/// What to do where a directory can't be made.
fn elsewhere(error: &io::Error) -> String {
    match error.kind() {
        // Whatever stands above it is there, and takes no directories.
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "; no directory can be made there: choose another one (--data-dir)".into()
        }
        _ => match remedy(error) {
            "" => "; choose another one (--data-dir)".into(),
            remedy => format!("{remedy}, or choose another one (--data-dir)"),
        },
    }
}

/// A sector that can't be read or written.
const EIO: i32 = 5;
/// A socket, or a device that is not there, in a file's place; and links that lead to each other.
const ENXIO: i32 = 6;
const ENODEV: i32 = 19;
const ELOOP: i32 = 40;

fn of_tree(error: &lsm_tree::Error) -> String {
    match error {
        lsm_tree::Error::Io(error) => format!("{error}{}", remedy(error)),
        other => format!(
            "{other:?}, though every file of it has the bytes that it was written with; start the node again, and if it comes back, \
             test this machine's memory"
        ),
    }
}

impl StorageError {
    /// Whether stored bytes are not what they were, or can't be read at all. Trying again is of no use.
    pub fn is_damage(&self) -> bool {
        match self {
            StorageError::Io { source, .. }
            | StorageError::Table { source: lsm_tree::Error::Io(source), .. } => is_io_damage(source),
            StorageError::Corrupt { .. }
            | StorageError::Length { .. }
            | StorageError::NoLog { .. }
            | StorageError::Misplaced { .. }
            | StorageError::Table { .. } => true,
            _ => false,
        }
    }

    /// Whether there was no room. Of a log's batch nothing is then stored, and it may be tried again. A sync that fails is no such
    /// case, for whatever reason: what it was for may be lost.
    pub fn is_disk_full(&self) -> bool {
        if matches!(self, StorageError::Io { action: SYNC, .. }) {
            return false;
        }
        let (StorageError::Io { source, .. }
        | StorageError::Table { source: lsm_tree::Error::Io(source), .. }) = self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// The same damage once more, for whoever meets it later; `None` if this is none.
    pub(crate) fn again(&self) -> Option<StorageError> {
        match self {
            StorageError::Corrupt { path, offset, reason } => {
                Some(StorageError::Corrupt { path: path.clone(), offset: *offset, reason })
            }
            StorageError::Misplaced { path, reason } => {
                Some(StorageError::Misplaced { path: path.clone(), reason: reason.clone() })
            }
            StorageError::Io { action, path, source } if is_io_damage(source) => {
                let source = source.raw_os_error().map_or(source.kind().into(), io::Error::from_raw_os_error);
                Some(StorageError::Io { action, path: path.clone(), source })
            }
            _ => None,
        }
    }

    /// For `map_err`: names what was tried, and on which file.
    pub(crate) fn io<'a>(action: &'static str, path: &'a str) -> impl FnOnce(io::Error) -> StorageError + 'a {
        move |source| StorageError::Io { action, path: path.to_owned(), source }
    }
}
