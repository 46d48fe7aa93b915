//! The layout that this node goes by, and how it comes to a later one.
//!
//! What the layout is the meta group says (`ringfort-shard`). A node with a replica of it learns of each change from its own table,
//! the others from whoever speaks to them: each frame names its sender's epoch, and who sees a later one than its own asks
//! for that layout. The driver keeps what a node goes by in a file, so that it begins with it at the next start; losing that file costs
//! a question.
//!
//! Invariant: epochs rise. No write depends on them: who belongs to a shard's group stands in that shard's own log, so an old layout
//! misroutes at worst.

use std::sync::Arc;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::limits::TICK_MS;
use ringfort_types::{Configuration, Epoch, LayoutSent, LayoutWanted, LeaderPreference, NodeId, Replica};

use crate::moving::moved_between;
use crate::node::Node;
use crate::{Effect, NodeError};

/// Ticks until a layout that was asked for and did not come is asked for again.
const ASK_AGAIN_TICKS: u64 = 500 / TICK_MS;

/// The last time that this node has asked for a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LayoutRequest {
    epoch: Epoch,
    tick: u64,
}

impl Node {
    /// Goes by what the driver has kept, if it can be used.
    pub(crate) fn adopt_kept(&mut self, kept: Bytes) -> Result<(), NodeError> {
        self.check_kept(&kept)?;
        match Layout::decode(kept) {
            Ok(layout) => drop(self.go_by(Arc::new(layout))),
            Err(malformed) => self.out.last.push(Effect::Notice(format!(
                "the layout that was kept can't be read ({malformed}): it is taken from shard 0's table, or from the other nodes"
            ))),
        }
        Ok(())
    }

    /// Goes by this layout from now on, if it is a later one, and has it kept.
    pub(crate) fn adopt(&mut self, layout: Arc<Layout>) {
        let before = self.layout.clone();
        if let Some(layout) = self.go_by(layout) {
            let told = before.map_or_else(Vec::new, |before| moved_between(&before, &layout));
            self.out.last.push(Effect::SaveLayout { layout, told });
        }
    }

    /// Goes by this layout from now on, if it is a later one: then it is returned.
    fn go_by(&mut self, layout: Arc<Layout>) -> Option<Arc<Layout>> {
        let known = self.layout.as_ref()?;
        // The shards are those that the cluster was born with.
        if layout.cluster != known.cluster || layout.shards.len() != known.shards.len() {
            self.out.last.push(Effect::Notice(format!(
                "a layout of another cluster is left alone: epoch {}, cluster {:016x}",
                layout.epoch, layout.cluster
            )));
            return None;
        }
        if layout.epoch <= known.epoch || !self.knows_level(&layout) {
            return None;
        }
        self.layout = Some(Arc::clone(&layout));
        self.follow_members();
        self.follow_addresses();
        // (A node that has joined is not in the layouts from before that.)
        if layout.member(self.id).is_none() && self.id < layout.next_node {
            self.out.last.push(Effect::Removed);
        }
        Some(layout)
    }

    /// Another node goes by the layout of this epoch.
    pub(crate) fn notice_epoch(&mut self, of: NodeId, epoch: Epoch) {
        if epoch <= self.epoch() {
            return;
        }
        self.moving.hear_ahead(of, self.now.monotonic_us);
        let waits = |last: LayoutRequest| epoch <= last.epoch && self.ticks - last.tick < ASK_AGAIN_TICKS;
        if !self.layout_request.is_some_and(waits) {
            self.layout_request = Some(LayoutRequest { epoch, tick: self.ticks });
            self.send(of, LayoutWanted.into());
        }
    }

    pub(crate) fn handle_layout_wanted(&mut self, from: NodeId) {
        if let Some(layout) = &self.layout {
            let bytes = layout.encode();
            self.send(from, LayoutSent { bytes }.into());
        }
    }

    pub(crate) fn handle_layout_sent(&mut self, from: NodeId, sent: LayoutSent) {
        if !self.knows_level_of(&sent.bytes) {
            return;
        }
        match Layout::decode(sent.bytes) {
            Ok(layout) => self.adopt(Arc::new(layout)),
            Err(malformed) => self.out.last.push(Effect::Notice(format!(
                "{} has sent a layout that can't be read: {malformed}",
                self.called(from)
            ))),
        }
    }
}

/// The voters that should lead a group, the best one first. Who comes after the best leads only if nobody before it can.
/// `target` is what the layout says, its first in line first.
pub(crate) fn preferred(
    configuration: &Configuration,
    target: &[Replica],
    preference: LeaderPreference,
) -> Vec<Replica> {
    let mut voters = configuration.voters.clone();
    match preference {
        // Whoever else leads meanwhile is as good as any.
        LeaderPreference::Ring => voters.retain(|voter| target.first() == Some(voter)),
        LeaderPreference::HighestId => voters.sort_by_key(|voter| std::cmp::Reverse(voter.node)),
    }
    voters
}
