//! One step from a configuration to the next, and which steps there are.
//!
//! ```text
//! change = version u8 (1) | kind u8 | fields
//!          1 add a learner      node varint | peer varint
//!          2 remove a learner   peer varint
//!          3 enter a joint one  peers (promoted) | peers (demoted)
//!          4 leave it
//! peers  = count varint | peer varint × count
//! ```
//!
//! It is the payload of a log entry of its own kind (`docs/formats/change.md`). Voters change by joint consensus only
//! (Raft, §6), whatever their number: two sets that decide one after the other then share a majority with the one
//! between them. A voter is never removed, but demoted to a learner first: so it is still told that it decides nothing
//! any more.
//!
//! Deliberately absent: a joint configuration that is left by itself. Whoever leads proposes that.

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::GROUP_REPLICAS_MAX;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Configuration, Index, NodeId, PeerId, Replica};

const VERSION: u8 = 1;
const ADD_LEARNER: u8 = 1;
const REMOVE_LEARNER: u8 = 2;
const ENTER_JOINT: u8 = 3;
const LEAVE_JOINT: u8 = 4;

/// One step of a change of membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigurationChange {
    /// A new replica gets all entries, and decides nothing.
    AddLearner(Replica),
    /// A learner gets no more entries.
    RemoveLearner(PeerId),
    /// From now on two sets of voters decide together: those that there are, and those without the demoted and with the
    /// promoted ones.
    EnterJoint {
        /// Learners that become voters.
        promote: Vec<PeerId>,
        /// Voters that become learners when the joint configuration is left.
        demote: Vec<PeerId>,
    },
    /// From now on only the second of those sets decides.
    LeaveJoint,
}

/// A change that can't follow on a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CanNotFollow {
    /// Only leaving it can.
    #[error("the configuration is joint")]
    Joint,
    /// There is nothing to leave.
    #[error("the configuration is not joint")]
    NotJoint,
    /// It is there, and a peer has one part.
    #[error("peer {0} is a replica of the group")]
    Peer(PeerId),
    /// A node has one replica of a shard.
    #[error("node {0} has a replica of the group")]
    Node(NodeId),
    /// Only a learner can be removed, or promoted.
    #[error("peer {0} is no learner of the group")]
    NoLearner(PeerId),
    /// Only a voter can be demoted.
    #[error("peer {0} is no voter of the group")]
    NoVoter(PeerId),
    /// A voter is left.
    #[error("nobody would decide")]
    NobodyDecides,
    /// A change that changes nothing.
    #[error("both sets of voters would be the same")]
    Nothing,
    /// At most [`GROUP_REPLICAS_MAX`] of each part.
    #[error("more than {GROUP_REPLICAS_MAX} replicas of one part")]
    TooMany,
}

impl ConfigurationChange {
    /// Its bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(32);
        out.put_u8(VERSION);
        match self {
            ConfigurationChange::AddLearner(replica) => {
                out.put_u8(ADD_LEARNER);
                put_varint(&mut out, replica.node.0);
                put_varint(&mut out, replica.peer.0);
            }
            ConfigurationChange::RemoveLearner(peer) => {
                out.put_u8(REMOVE_LEARNER);
                put_varint(&mut out, peer.0);
            }
            ConfigurationChange::EnterJoint { promote, demote } => {
                out.put_u8(ENTER_JOINT);
                for peers in [promote, demote] {
                    put_varint(&mut out, peers.len() as u64);
                    for peer in peers {
                        put_varint(&mut out, peer.0);
                    }
                }
            }
            ConfigurationChange::LeaveJoint => out.put_u8(LEAVE_JOINT),
        }
        out.freeze()
    }

    /// Reads what [`ConfigurationChange::encode`] wrote, and nothing else.
    pub fn decode(bytes: Bytes) -> Result<ConfigurationChange, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a change of configuration"));
        }
        let change = match reader.u8()? {
            ADD_LEARNER => {
                let replica = Replica { node: NodeId(reader.varint()?), peer: PeerId(reader.varint()?) };
                if replica.node == NodeId(0) || replica.peer == PeerId(0) {
                    return Err(Malformed("a replica without a node or a peer"));
                }
                ConfigurationChange::AddLearner(replica)
            }
            REMOVE_LEARNER => ConfigurationChange::RemoveLearner(peer(&mut reader)?),
            ENTER_JOINT => {
                let (promote, demote) = (peers(&mut reader)?, peers(&mut reader)?);
                let both: BTreeSet<_> = promote.iter().chain(&demote).collect();
                if both.is_empty() || both.len() < promote.len() + demote.len() {
                    return Err(Malformed("a joint configuration of nobody, or of a peer twice"));
                }
                ConfigurationChange::EnterJoint { promote, demote }
            }
            LEAVE_JOINT => ConfigurationChange::LeaveJoint,
            _ => return Err(Malformed("unknown kind of change of configuration")),
        };
        reader.finish()?;
        Ok(change)
    }
}

fn peer(reader: &mut Reader) -> Result<PeerId, Malformed> {
    match reader.varint()? {
        0 => Err(Malformed("a change of configuration for no peer")),
        peer => Ok(PeerId(peer)),
    }
}

fn peers(reader: &mut Reader) -> Result<Vec<PeerId>, Malformed> {
    let count = reader.count(1)?;
    if count > GROUP_REPLICAS_MAX {
        return Err(Malformed("too many peers of a change of configuration"));
    }
    (0..count).map(|_| peer(reader)).collect()
}

impl Configuration {
    /// The one that a change makes of this one, with the entry at that index.
    pub fn after(&self, change: &ConfigurationChange, at: Index) -> Result<Configuration, CanNotFollow> {
        let next = Configuration { at, ..self.clone() };
        if self.is_joint() != (*change == ConfigurationChange::LeaveJoint) {
            return Err(if self.is_joint() { CanNotFollow::Joint } else { CanNotFollow::NotJoint });
        }
        match change {
            ConfigurationChange::AddLearner(replica) => next.with_learner(*replica),
            ConfigurationChange::RemoveLearner(peer) => next.without_learner(*peer),
            ConfigurationChange::EnterJoint { promote, demote } => next.joint(promote, demote),
            ConfigurationChange::LeaveJoint => Ok(next.left()),
        }
    }

    fn with_learner(mut self, new: Replica) -> Result<Configuration, CanNotFollow> {
        if self.node_of(new.peer).is_some() {
            return Err(CanNotFollow::Peer(new.peer));
        }
        if self.peer_on(new.node).is_some() {
            return Err(CanNotFollow::Node(new.node));
        }
        if self.learners.len() >= GROUP_REPLICAS_MAX {
            return Err(CanNotFollow::TooMany);
        }
        self.learners.push(new);
        Ok(self)
    }

    fn without_learner(mut self, peer: PeerId) -> Result<Configuration, CanNotFollow> {
        take(&mut self.learners, peer).ok_or(CanNotFollow::NoLearner(peer))?;
        Ok(self)
    }

    fn joint(mut self, promote: &[PeerId], demote: &[PeerId]) -> Result<Configuration, CanNotFollow> {
        if promote.is_empty() && demote.is_empty() {
            return Err(CanNotFollow::Nothing);
        }
        self.outgoing.clone_from(&self.voters);
        for peer in demote {
            let demoted = take(&mut self.voters, *peer).ok_or(CanNotFollow::NoVoter(*peer))?;
            self.learners_next.push(demoted);
        }
        for peer in promote {
            let promoted = take(&mut self.learners, *peer).ok_or(CanNotFollow::NoLearner(*peer))?;
            self.voters.push(promoted);
        }
        if self.voters.is_empty() {
            return Err(CanNotFollow::NobodyDecides);
        }
        // Those that are learners once it is left, too: leaving is never refused.
        let learners = self.learners.len() + self.learners_next.len();
        if self.voters.len() > GROUP_REPLICAS_MAX || learners > GROUP_REPLICAS_MAX {
            return Err(CanNotFollow::TooMany);
        }
        Ok(self)
    }

    fn left(mut self) -> Configuration {
        self.outgoing.clear();
        self.learners.append(&mut self.learners_next);
        self
    }
}

fn take(from: &mut Vec<Replica>, peer: PeerId) -> Option<Replica> {
    let place = from.iter().position(|replica| replica.peer == peer)?;
    Some(from.remove(place))
}
