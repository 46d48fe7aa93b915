//! Why a node does not start, or does not go on.

use std::io::Write;
use std::time::Duration;

use ringfort_node::NodeError;
use ringfort_node::recovery::RecoveryError;
use ringfort_storage::StorageError;

/// How long a dying process waits for its last line to be taken.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

/// A node that can't start or go on. Each message is one line: what is wrong and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address that is none, or that no name server knows.
    #[error(
        "{flag} {address:?} is not an address to {purpose}: {reason}; give HOST:PORT, as in 127.0.0.1:50051"
    )]
    Address {
        /// Which flag.
        flag: &'static str,
        /// What was given.
        address: String,
        /// What it was wanted for.
        purpose: &'static str,
        /// Why it won't do.
        reason: String,
    },
    /// An address that others can reach, and nobody has said that they may.
    #[error(
        "{flag} {address} can be reached from other machines, and without TLS whoever reaches this port can do anything, \
         read and write every key and pass for a node: give the node a certificate with --tls-cert, --tls-key and --tls-ca (`ringfort certs init` \
         and `ringfort certs node NAME --host HOST` make what it needs); or listen on 127.0.0.1; or, where a firewall or a private network \
         keeps others out, say --insecure"
    )]
    Exposed {
        /// Which flag.
        flag: &'static str,
        /// What was given.
        address: String,
    },
    /// Another process listens there.
    #[error(
        "{address} is in use: stop the process that listens there (perhaps this node is running already), or \
         choose another port"
    )]
    PortInUse {
        /// The address.
        address: String,
    },
    /// The operating system won't let us listen.
    #[error("can't listen on {address}: {source}; choose an address of this machine that you may use")]
    Listen {
        /// The address.
        address: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The operating system lets the process open too few files and sockets.
    #[error(
        "only {limit} files may be open, and a node needs {least} for itself and a few clients: raise the limit (ulimit -n, \
         LimitNOFILE), to 65536 if you can"
    )]
    FewDescriptors {
        /// How many.
        limit: usize,
        /// How many it takes.
        least: usize,
    },
    /// Flags that can't be right.
    #[error("{0}")]
    Usage(String),
    /// The data directory can't be used.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What is in it can't be brought up to date.
    #[error(transparent)]
    Recovery(RecoveryError),
    /// The flags disagree with the data directory.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The other nodes won't have it, or it won't have them.
    #[error("refused: {0}")]
    Refused(String),
    /// The node is no member of its cluster any more.
    #[error(
        "this node has been removed from its cluster, and nobody needs what it has: delete its data directory, {0}, before a node \
         joins from there"
    )]
    Removed(String),
    /// The node has ended.
    #[error("the node has stopped: {0}")]
    Ended(&'static str),
    /// A thread could not be made, a socket broke.
    #[error("can't {action}: {source}")]
    System {
        /// What was tried, as a verb.
        action: &'static str,
        /// Why not.
        source: std::io::Error,
    },
}

impl StartError {
    /// The exit code of a process that ends with this: 2 for what its operator has to change, 3 for a machine
    /// that fails.
    pub fn exit_code(&self) -> u8 {
        match self {
            StartError::Address { .. }
            | StartError::Exposed { .. }
            | StartError::PortInUse { .. }
            | StartError::Listen { .. }
            | StartError::FewDescriptors { .. }
            | StartError::Usage(_)
            | StartError::Node(_)
            | StartError::Removed(_)
            | StartError::Refused(_) => 2,
            StartError::Storage(error) => match error {
                StorageError::Locked { .. }
                | StorageError::Running { .. }
                | StorageError::NoData { .. }
                | StorageError::NotEmpty { .. }
                | StorageError::Foreign { .. }
                | StorageError::Conflict { .. }
                | StorageError::Stranger { .. }
                | StorageError::Unsupported { .. } => 2,
                StorageError::Io { source, .. } => match source.kind() {
                    std::io::ErrorKind::PermissionDenied
                    | std::io::ErrorKind::NotADirectory
                    | std::io::ErrorKind::NotFound
                    | std::io::ErrorKind::ReadOnlyFilesystem => 2,
                    _ => 3,
                },
                _ => 3,
            },
            StartError::Recovery(_) | StartError::Ended(_) | StartError::System { .. } => 3,
        }
    }
}

impl From<RecoveryError> for StartError {
    fn from(error: RecoveryError) -> StartError {
        match error {
            RecoveryError::Storage(error) => StartError::Storage(error),
            other => StartError::Recovery(other),
        }
    }
}

/// Writes a line to stderr, if somebody takes it at once: whoever reads may have gone, or be stuck, and the process is to end.
pub fn last_words(line: String) {
    let (tell, told) = std::sync::mpsc::channel();
    let writing = std::thread::Builder::new().spawn(move || {
        let _nobody_reads = writeln!(std::io::stderr(), "{line}");
        let _gone = tell.send(());
    });
    if writing.is_ok() {
        let _not_taken = told.recv_timeout(LAST_WORDS_MAX);
    }
}

/// Ends the process at once: what is on disk is in doubt, so nothing may be acknowledged any more.
pub(crate) fn die(what: &str, error: &dyn std::fmt::Display) -> ! {
    last_words(format!(
        "ringfort: {what}: {error}. The node ends now, and acknowledges nothing more; see to the disk, then start it again"
    ));
    std::process::exit(3)
}
