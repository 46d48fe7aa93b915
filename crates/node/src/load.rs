//! How full a node is: everything in it that grows with its work, and the bounds of it.

use ringfort_types::limits::{
    APPEND_BYTES_MAX, KEY_BYTES_MAX, NODE_PENDING_BYTES_MAX, NODE_PENDING_REQUESTS_MAX,
    SHARD_PENDING_REQUESTS_MAX, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_WINDOW_BYTES, SNAPSHOTS_SENT_MAX,
    VALUE_BYTES_MAX, WRITE_BYTES_MAX,
};

use crate::node::Node;
use crate::persist::UNPERSISTED_BYTES_MAX;
use crate::replica::Replica;
use crate::turn::APPLYING_BYTES_MAX;

/// How full something bounded is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// What.
    pub what: &'static str,
    /// How much there is now. Zero when the node is at rest.
    pub now: usize,
    /// How much there may be.
    pub most: usize,
}

impl Node {
    /// Everything in this node that grows with its work. Of what each shard has, the fullest one's.
    pub fn loads(&self) -> Vec<Load> {
        let replicas = || self.slots.iter().filter_map(|slot| slot.replica.as_ref());
        let waiting = self.slots.iter().map(|slot| slot.waiting.len()).sum();
        let snapshot_bytes = self.snapshots.bytes();
        let loads = [
            ("requests", self.pending, NODE_PENDING_REQUESTS_MAX),
            ("bytes of requests", self.pending_bytes, NODE_PENDING_BYTES_MAX),
            ("requests without a leader", waiting, self.pending),
            ("requests passed on", self.forwards.len(), self.pending),
            (
                "writes of one shard",
                replicas().map(Replica::pending_writes).max().unwrap_or(0),
                SHARD_PENDING_REQUESTS_MAX,
            ),
            (
                "reads of one shard",
                replicas().map(|replica| replica.reads.count()).max().unwrap_or(0),
                self.pending,
            ),
            (
                "bytes of one shard that are being applied",
                replicas().map(Replica::applying_bytes).max().unwrap_or(0),
                APPLYING_BYTES_MAX + 16 * APPEND_BYTES_MAX + VALUE_BYTES_MAX,
            ),
            (
                "bytes of entries that wait for the disk",
                self.commit.bytes(),
                UNPERSISTED_BYTES_MAX + NODE_PENDING_BYTES_MAX + WRITE_BYTES_MAX,
            ),
            ("snapshots on their way", self.snapshots.sent(), SNAPSHOTS_SENT_MAX),
            (
                "bytes of one snapshot",
                snapshot_bytes,
                SNAPSHOT_WINDOW_BYTES + SNAPSHOT_CHUNK_BYTES + VALUE_BYTES_MAX + KEY_BYTES_MAX + 1024,
            ),
        ];
        loads.into_iter().map(|(what, now, most)| Load { what, now, most }).collect()
    }
}
