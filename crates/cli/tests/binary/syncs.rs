//! Three processes of the shipped binary whose syncs take as long as is said.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::preloadable;
use crate::trio::Trio;

/// How long each sync of each node takes, by files.
pub(crate) struct Syncs {
    library: PathBuf,
    pub(crate) directory: tempfile::TempDir,
}

impl Syncs {
    pub(crate) fn new() -> Syncs {
        let directory = tempfile::tempdir().expect("a directory");
        Syncs { library: preloadable("slow_sync", directory.path()), directory }
    }

    pub(crate) fn take(&self, node: usize, ms: u64) {
        fs::write(self.directory.path().join(format!("node{node}")), ms.to_string()).expect("written");
    }

    pub(crate) fn start(&self, trio: &mut Trio, node: usize) {
        self.start_with(trio, node, |command| command);
    }

    /// With more arguments or variables.
    pub(crate) fn start_with(
        &self,
        trio: &mut Trio,
        node: usize,
        more: impl Fn(&mut Command) -> &mut Command,
    ) {
        self.take(node, 0);
        let data = trio.directory.path().join(format!("node{}", node + 1));
        let log = fs::File::create(trio.log(node)).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = trio.flags(node, &data, 16);
        command.env("LD_PRELOAD", &self.library);
        command.env("SYNC_MS_FILE", self.directory.path().join(format!("node{node}")));
        let child =
            more(&mut command).stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts");
        trio.nodes[node] = Some(child);
    }
}
