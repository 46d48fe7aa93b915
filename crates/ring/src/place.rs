//! Which nodes hold which shard: along the walks, under the bounds, zones apart.

use std::collections::BTreeMap;

use ringfort_types::{NodeId, ShardId};

use crate::Member;
use crate::assignment::Assignment;
use crate::walk::Points;

/// The replicas of shards 1 to `shards`, in their order, each with its preferred leader first.
///
/// `copies` is what [`effective_copies`](crate::effective_copies) returned: at least 1, at most as many as
/// there are members. Weights are at least 1.
pub fn place(members: &[Member], shards: u32, copies: u32) -> Vec<Vec<NodeId>> {
    let mut drawing = Drawing::new(members, shards, copies);
    drawing.fill();
    drawing.finish()
}

/// The replicas of shards 1 to `previous.len()` after the members have changed: as few as possible differ
/// from `previous`.
///
/// What nodes that left had is dealt again; what is above a node's new bound moves; and nodes that `previous`
/// did not know are given their share by those that have most.
pub fn place_from(previous: &[Vec<NodeId>], members: &[Member], copies: u32) -> Vec<Vec<NodeId>> {
    let mut drawing = Drawing::new(members, previous.len() as u32, copies);
    drawing.keep(previous);
    drawing.relieve_the_overloaded();
    drawing.fill();
    drawing.welcome_newcomers(previous);
    drawing.finish()
}

/// The members of a group that stands outside the shards: the first on its walk, zones apart.
pub(crate) fn place_one(members: &[Member], shard: ShardId, copies: u32) -> Vec<NodeId> {
    let mut drawing = Drawing::new(members, 1, copies);
    drawing.walks = vec![Points::new(members).walk(shard)];
    drawing.replicas.bounds = vec![1; members.len()];
    drawing.fill();
    drawing.replicas.given[0].iter().map(|&n| members[n].id).collect()
}

struct Drawing<'a> {
    members: &'a [Member],
    copies: usize,
    walks: Vec<Vec<usize>>,
    shares: Shares,
    /// Each member's zone, numbered.
    zones: Vec<usize>,
    /// Most replicas of one shard in one zone.
    zone_max: usize,
    replicas: Assignment,
}

impl<'a> Drawing<'a> {
    fn new(members: &'a [Member], shards: u32, copies: u32) -> Drawing<'a> {
        assert!(copies >= 1 && copies as usize <= members.len(), "as many copies as nodes, at most");
        assert!(members.iter().all(|m| m.weight >= 1), "no weight is zero");
        let points = Points::new(members);
        let walks = (1..=shards).map(|shard| points.walk(ShardId(shard))).collect();
        let shares = Shares::new(members, shards.into(), copies.into());
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let zones: Vec<usize> = members
            .iter()
            .map(|member| {
                let next = numbers.len();
                *numbers.entry(member.zone.as_str()).or_insert(next)
            })
            .collect();
        let zone_max = (copies as usize).div_ceil(numbers.len());
        let replicas = Assignment::new(shards as usize, shares.bounds(1));
        Drawing { members, copies: copies as usize, walks, shares, zones, zone_max, replicas }
    }

    fn keep(&mut self, previous: &[Vec<NodeId>]) {
        for (shard, nodes) in previous.iter().enumerate() {
            for id in nodes {
                let known = self.members.iter().position(|m| m.id == *id);
                if let Some(node) = known
                    && self.replicas.given[shard].len() < self.copies
                {
                    self.replicas.give(shard, node);
                }
            }
        }
    }

    fn relieve_the_overloaded(&mut self) {
        let (zones, zone_max) = (&self.zones, self.zone_max);
        let apart = |_: usize, nodes: &[usize], node: usize| zone_has_room(zones, zone_max, nodes, node);
        for node in 0..self.members.len() {
            while self.replicas.loads[node] > self.replicas.bounds[node] {
                // The emptiest first, so that what has to move moves to newcomers.
                let order = self.shares.emptiest_first(&self.replicas.loads);
                let relieved = self.replicas.relieve(node, &order, &apart)
                    || self.replicas.relieve(node, &order, &|_, _, _| true);
                assert!(relieved, "a placement within the bounds exists");
            }
        }
    }

    fn fill(&mut self) {
        let (zones, zone_max) = (&self.zones, self.zone_max);
        let apart = |_: usize, nodes: &[usize], node: usize| {
            !nodes.contains(&node) && zone_has_room(zones, zone_max, nodes, node)
        };
        let anywhere = |_: usize, nodes: &[usize], node: usize| !nodes.contains(&node);
        for copy in 0..self.copies {
            for (shard, walk) in self.walks.iter().enumerate() {
                if self.replicas.given[shard].len() > copy {
                    continue;
                }
                let given = self.replicas.give_first(shard, walk, &apart)
                    || self.replicas.give_first(shard, walk, &anywhere);
                assert!(given, "a placement within the bounds exists");
            }
        }
    }

    /// Gives each node that had nothing its fair share, rounded down, from those that have most for theirs.
    fn welcome_newcomers(&mut self, previous: &[Vec<NodeId>]) {
        let newcomers: Vec<usize> = (0..self.members.len())
            .filter(|&n| !previous.iter().any(|nodes| nodes.contains(&self.members[n].id)))
            .collect();
        for &newcomer in &newcomers {
            while self.replicas.loads[newcomer] < self.shares.whole(newcomer) {
                let mut donors = self.shares.emptiest_first(&self.replicas.loads);
                donors.retain(|n| !newcomers.contains(n) && self.replicas.loads[*n] > self.shares.whole(*n));
                let Some(exchange) = donors
                    .iter()
                    .rev()
                    .find_map(|&donor| self.best_exchange(donor, newcomer).map(|s| (s, donor)))
                else {
                    break;
                };
                self.replicas.exchange(exchange.0, exchange.1, newcomer);
            }
        }
    }

    /// The donor's shard on whose walk the newcomer stands first.
    fn best_exchange(&self, donor: usize, newcomer: usize) -> Option<usize> {
        (0..self.walks.len())
            .filter(|&shard| {
                let nodes = &self.replicas.given[shard];
                let others: Vec<usize> = nodes.iter().copied().filter(|&n| n != donor).collect();
                nodes.contains(&donor)
                    && !nodes.contains(&newcomer)
                    && zone_has_room(&self.zones, self.zone_max, &others, newcomer)
            })
            .min_by_key(|&shard| self.walks[shard].iter().position(|&n| n == newcomer))
    }

    /// Chooses preferred leaders under their own bound, and puts them first; the others follow as on the walk.
    fn finish(self) -> Vec<Vec<NodeId>> {
        let mut leaders = Assignment::new(self.walks.len(), self.shares.bounds(self.copies as u64));
        let replicas = &self.replicas.given;
        for (shard, walk) in self.walks.iter().enumerate() {
            let given = leaders.give_first(shard, walk, &|shard, _, node| replicas[shard].contains(&node));
            assert!(given, "leaders within the bounds exist when the replicas are");
        }
        let ordered = |(shard, walk): (usize, &Vec<usize>)| {
            let leader = leaders.given[shard][0];
            let others = walk.iter().copied().filter(|n| *n != leader && replicas[shard].contains(n));
            std::iter::once(leader).chain(others).map(|n| self.members[n].id).collect()
        };
        self.walks.iter().enumerate().map(ordered).collect()
    }
}

fn zone_has_room(zones: &[usize], zone_max: usize, nodes: &[usize], node: usize) -> bool {
    nodes.iter().filter(|&&n| zones[n] == zones[node]).count() < zone_max
}

/// Each node's fair share of all replicas, by weight, as a fraction; none more than one of each shard.
struct Shares {
    fractions: Vec<(u64, u64)>,
    shards: u64,
}

impl Shares {
    /// A node whose part by weight is more than one replica of each shard gets just that, and the others
    /// share the rest.
    fn new(members: &[Member], shards: u64, copies: u64) -> Shares {
        let mut rest = shards * copies;
        let mut weight: u64 = members.iter().map(|m| u64::from(m.weight)).sum();
        let mut full = vec![false; members.len()];
        while let Some(node) = (0..members.len())
            .find(|&n| !full[n] && rest * u64::from(members[n].weight) >= shards * weight && rest > 0)
        {
            full[node] = true;
            rest -= shards;
            weight -= u64::from(members[node].weight);
        }
        let fractions = (0..members.len())
            .map(|n| if full[n] { (shards, 1) } else { (rest * u64::from(members[n].weight), weight) })
            .collect();
        Shares { fractions, shards }
    }

    /// `ceil(1.1 × share / parts)` for each node, and at most one of each shard.
    fn bounds(&self, parts: u64) -> Vec<u64> {
        self.fractions.iter().map(|&(n, d)| (11 * n).div_ceil(10 * d * parts).min(self.shards)).collect()
    }

    /// The share, rounded down.
    fn whole(&self, node: usize) -> u64 {
        let (n, d) = self.fractions[node];
        n / d
    }

    /// All nodes, those first whose load is least for their share.
    fn emptiest_first(&self, loads: &[u64]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..loads.len()).collect();
        order.sort_by(|&a, &b| {
            let ((an, ad), (bn, bd)) = (self.fractions[a], self.fractions[b]);
            // load / (n / d), compared crosswise.
            (u128::from(loads[a] * ad) * u128::from(bn)).cmp(&(u128::from(loads[b] * bd) * u128::from(an)))
        });
        order
    }
}
