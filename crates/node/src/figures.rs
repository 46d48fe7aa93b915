//! What whoever watches a node is told of it, in numbers.

use std::collections::{BTreeMap, BTreeSet};

use ringfort_types::{Epoch, NodeId, NodeReport, Role, ShardId};

use crate::load::Load;
use crate::node::Node;

/// What has happened in a node since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Times that a shard with a replica here got another leader, this node or another one.
    pub leader_changes: u64,
    /// Elections that this node's replicas have won.
    pub elections_won: u64,
    /// Snapshots that were sent whole.
    pub snapshots_sent: u64,
    /// Snapshots that were begun to be sent, and given up.
    pub snapshots_given_up: u64,
    /// Bytes of snapshots that are stored where they were sent.
    pub snapshot_bytes_sent: u64,
    /// Snapshots that have come, and were put in place.
    pub snapshots_installed: u64,
}

/// What a node counts of itself.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) counts: Counts,
    /// Shards that have got another leader, until somebody asks.
    pub(crate) led_anew: BTreeSet<ShardId>,
}

/// A node's numbers at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// What has happened.
    pub counts: Counts,
    /// What it reports to the others.
    pub report: NodeReport,
    /// How full its queues are.
    pub loads: Vec<Load>,
    /// The layout's version.
    pub epoch: Epoch,
    /// Shards of the cluster, the meta group among them.
    pub shards: usize,
    /// Those without a leader, as far as this node knows.
    pub leaderless: usize,
    /// The other members.
    pub others: Vec<OtherFigures>,
}

/// What a node knows of another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherFigures {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Whether this node has a connection to it.
    pub is_connected: bool,
    /// How old its last report is, in microseconds, if there is one.
    pub report_age_us: Option<u64>,
}

impl Figures {
    /// Shards that this node leads.
    pub fn led(&self) -> usize {
        self.report.replicas.iter().filter(|replica| replica.role == Role::Leader).count()
    }

    /// Those of them whose groups are on their way to other places.
    pub fn moving(&self) -> usize {
        let is_moving = |replica: &&ringfort_types::ReplicaReport| {
            replica.role == Role::Leader && replica.reached == Epoch(0)
        };
        self.report.replicas.iter().filter(is_moving).count()
    }

    /// Entries that are committed and not applied yet, of each replica.
    pub fn apply_lags(&self) -> impl Iterator<Item = u64> {
        self.report.replicas.iter().map(|replica| replica.committed.0.saturating_sub(replica.applied.0))
    }
}

impl Node {
    /// How many shards with a replica here have got another leader since the last call: each new leader, with its shards.
    pub fn take_leader_changes(&mut self) -> Vec<(String, usize)> {
        let mut by_node = BTreeMap::<NodeId, usize>::new();
        for shard in std::mem::take(&mut self.tally.led_anew) {
            if let Some(leader) = self.leader_of(shard) {
                *by_node.entry(leader).or_default() += 1;
            }
        }
        by_node.into_iter().map(|(node, shards)| (self.called(node), shards)).collect()
    }

    /// Its numbers as of now. Walks all shards.
    pub fn figures(&self) -> Figures {
        let shards = self.layout.iter().flat_map(|layout| &layout.shards);
        let others = self.peers.all().into_iter().filter(|node| *node != self.id);
        Figures {
            counts: self.tally.counts,
            report: self.report(),
            loads: self.loads(),
            epoch: self.epoch(),
            shards: self.slots.len(),
            leaderless: shards.filter(|shard| self.leader_there(shard.shard).is_none()).count(),
            others: others
                .map(|node| OtherFigures {
                    node,
                    name: self.called(node),
                    is_connected: self.peers.is_up(node),
                    report_age_us: self
                        .peers
                        .report(node)
                        .map(|(_, at_us)| self.now.monotonic_us.saturating_sub(at_us)),
                })
                .collect(),
        }
    }
}
