//! Who belongs to a shard's Raft group, and which of them decide.
//!
//! ```text
//! configuration = voters | outgoing | learners | learners next
//! each of them  = count varint | (node varint | peer varint) × count
//! ```
//!
//! One change after another ([`ConfigurationChange`](crate::ConfigurationChange)): voters are replaced by joint consensus
//! (Raft, §6), in which `voters` and `outgoing` decide together. Majorities are asked of this type and counted nowhere else.

use std::collections::BTreeSet;

use bytes::BytesMut;

use crate::limits::GROUP_REPLICAS_MAX;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Index, NodeId, PeerId};

/// One copy of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Replica {
    /// Where it is.
    pub node: NodeId,
    /// Who it is in Raft. Never used twice.
    pub peer: PeerId,
}

/// The members of a shard's group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// The entry that has put it in force; 0 for the one that the shard was born with.
    pub at: Index,
    /// Those who decide, the one that leads first if it can. In a joint configuration: the incoming ones.
    pub voters: Vec<Replica>,
    /// In a joint configuration those who decided before, and decide until it is left.
    pub outgoing: Vec<Replica>,
    /// Those who get all entries and decide nothing.
    pub learners: Vec<Replica>,
    /// Those of `outgoing` that become learners when the joint configuration is left.
    pub learners_next: Vec<Replica>,
}

impl Configuration {
    /// The one of a shard that is born with these voters.
    pub fn born(voters: Vec<Replica>) -> Configuration {
        Configuration { voters, ..Configuration::default() }
    }

    /// Whether one set of voters is taking the place of another.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether those of whom this is true decide: a majority of the voters, and of the outgoing ones if there are any.
    pub fn is_quorum(&self, holds: impl Fn(PeerId) -> bool) -> bool {
        let is_majority =
            |of: &[Replica]| 2 * of.iter().filter(|replica| holds(replica.peer)).count() > of.len();
        is_majority(&self.voters) && (!self.is_joint() || is_majority(&self.outgoing))
    }

    /// Whoever decides, once each; learners have no say.
    pub fn deciding(&self) -> impl Iterator<Item = Replica> {
        let outgoing = self.outgoing.iter().filter(|replica| !self.voters.contains(replica));
        self.voters.iter().chain(outgoing).copied()
    }

    /// Every replica once.
    pub fn replicas(&self) -> impl Iterator<Item = Replica> {
        // Whoever is a learner next is outgoing now.
        self.deciding().chain(self.learners.iter().copied())
    }

    /// The fewest replicas that can decide.
    pub fn least_quorum(&self) -> u32 {
        let majority = |of: &[Replica]| of.len() / 2 + 1;
        let of_voters = majority(&self.voters);
        if !self.is_joint() {
            return of_voters as u32;
        }
        let of_outgoing = majority(&self.outgoing);
        let both = self.voters.iter().filter(|replica| self.outgoing.contains(replica)).count();
        (of_voters + of_outgoing - both.min(of_voters).min(of_outgoing)) as u32
    }

    /// Whether this replica decides.
    pub fn decides(&self, peer: PeerId) -> bool {
        self.deciding().any(|replica| replica.peer == peer)
    }

    /// The node of a replica.
    pub fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        self.replicas().find(|replica| replica.peer == peer).map(|replica| replica.node)
    }

    /// The replica on a node.
    pub fn peer_on(&self, node: NodeId) -> Option<PeerId> {
        self.replicas().find(|replica| replica.node == node).map(|replica| replica.peer)
    }

    /// Appends its bytes. Where it came in force stands elsewhere.
    pub fn put(&self, out: &mut BytesMut) {
        for replicas in [&self.voters, &self.outgoing, &self.learners, &self.learners_next] {
            put_varint(out, replicas.len() as u64);
            for replica in replicas {
                put_varint(out, replica.node.0);
                put_varint(out, replica.peer.0);
            }
        }
    }

    /// Reads what [`Configuration::put`] wrote.
    pub fn read(reader: &mut Reader, at: Index) -> Result<Configuration, Malformed> {
        let mut replicas = || {
            let count = reader.count(2)?;
            if count > GROUP_REPLICAS_MAX {
                return Err(Malformed("too many replicas of a group"));
            }
            let of = |_| Ok(Replica { node: NodeId(reader.varint()?), peer: PeerId(reader.varint()?) });
            (0..count).map(of).collect::<Result<Vec<_>, Malformed>>()
        };
        let configuration = Configuration {
            at,
            voters: replicas()?,
            outgoing: replicas()?,
            learners: replicas()?,
            learners_next: replicas()?,
        };
        configuration.check()?;
        Ok(configuration)
    }

    /// No node and no peer stands for two replicas, and each has one part; without a voter there is nobody at all.
    fn check(&self) -> Result<(), Malformed> {
        let Configuration { voters, outgoing, learners, learners_next, .. } = self;
        let (mut nodes, mut peers) = (BTreeSet::new(), BTreeSet::new());
        for replica in self.replicas() {
            if replica.node == NodeId(0) || replica.peer == PeerId(0) {
                return Err(Malformed("a replica without a node or a peer"));
            }
            if !nodes.insert(replica.node) || !peers.insert(replica.peer) {
                return Err(Malformed("two replicas of one node or peer"));
            }
        }
        let is_once = |of: &[Replica]| of.iter().collect::<BTreeSet<_>>().len() == of.len();
        if ![voters, outgoing, learners_next].into_iter().all(|of| is_once(of)) {
            return Err(Malformed("a replica that stands twice in a group"));
        }
        if learners_next.iter().any(|next| !outgoing.contains(next) || voters.contains(next)) {
            return Err(Malformed("a learner-to-be that is not outgoing"));
        }
        if voters.is_empty() && !(outgoing.is_empty() && learners.is_empty()) {
            return Err(Malformed("a group without a voter"));
        }
        Ok(())
    }
}
