//! Replicas whose logs can't be brought up to date any more: for them a table takes the place of the log up to its index.
//!
//! The leader's side hears who needs one ([`Turn::behind`](super::Turn::behind)) and is told when it is there; the follower's
//! is told by the leader to go on from it. How the table gets there is others' business.

use bytes::Bytes;
use raft::{ProgressState, SnapshotStatus};
use ringfort_types::wire::Malformed;
use ringfort_types::{Base, Configuration, Index, PeerId, Role};

use super::Group;
use super::change::conf_state;
use crate::codec;

impl Group {
    /// Takes in a message that tells it to go on from a snapshot, whose table is here complete, as this generation, and with
    /// this configuration. Whether that is what will be done: it may be that the log has all of it, that the message is out
    /// of date, or that this replica does not belong to that configuration.
    ///
    /// To be called only while no earlier one is under way ([`Group::is_installing`]).
    pub fn step_snapshot(
        &mut self,
        message: Bytes,
        generation: u64,
        configuration: &Configuration,
    ) -> Result<bool, Malformed> {
        assert!(!self.is_installing(), "one snapshot at a time");
        let mut message = codec::decode(message)?;
        message.mut_snapshot().mut_metadata().set_conf_state(conf_state(configuration));
        self.step_decoded(message);
        let is_taken = self.raw.snap().is_some();
        if is_taken {
            self.generation = generation;
            self.enter(configuration.clone());
        }
        Ok(is_taken)
    }

    /// Whether a snapshot has been taken in whose record is not known to be synced.
    pub fn is_installing(&self) -> bool {
        self.raw.snap().is_some() || self.unsynced.iter().any(|ready| ready.installs.is_some())
    }

    /// The snapshot whose record has become durable since the last call: its table takes the place of the one in
    /// use now, before anything more is applied.
    pub fn take_installed(&mut self) -> Option<Base> {
        self.installed.take()
    }

    /// Entries up to this one, which is applied and flushed, are gone from the disk.
    pub fn compact(&mut self, base: Base) {
        self.raw.mut_store().compact(base.index.0, base.term.0);
    }

    /// For a leader: the peer has a table complete up to this index. False if the log does not go on from there (any
    /// more).
    pub fn snapshot_delivered(&mut self, peer: PeerId, index: Index) -> bool {
        let can_go_on = self.role() == Role::Leader && self.raw.store().goes_on_from(index.0);
        if can_go_on {
            self.raw.mut_store().deliver(peer.0, index.0);
        }
        can_go_on
    }

    /// For a leader: the index of the snapshot that this peer was told to go on from, and has not answered for.
    pub fn awaits_snapshot(&self, peer: PeerId) -> Option<Index> {
        let progress = self.raw.raft.prs().get(peer.0)?;
        let told = self.role() == Role::Leader && progress.state == ProgressState::Snapshot;
        told.then_some(Index(progress.pending_snapshot))
    }

    /// What this peer was told about a snapshot came to nothing: it is asked anew where its log ends.
    pub fn snapshot_failed(&mut self, peer: PeerId) {
        self.raw.report_snapshot(peer.0, SnapshotStatus::Failure);
    }
}
