//! How much room the disk has, for whoever looks at the cluster.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ringfort_node::Event;
use ringfort_types::DiskSpace;
use rustix::fs::statvfs;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use crate::shared::Shared;

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(10);

/// Tells the node, for as long as it is run. The question may hang with the disk, so it has a thread, and is not asked again before it
/// is answered.
pub(crate) async fn watch(shared: Arc<Shared>, directory: PathBuf) {
    loop {
        let directory = directory.clone();
        // A file system that does not say is one of which nothing is known.
        if let Ok(Some(space)) = spawn_blocking(move || space_of(directory)).await {
            shared.inbox.push(Event::Space(space));
        }
        sleep(LOOK).await;
    }
}

fn space_of(directory: PathBuf) -> Option<DiskSpace> {
    let found = statvfs(directory).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Some(DiskSpace { free: bytes(found.f_bavail), total: bytes(found.f_blocks) })
}
