//! Which nodes hold which shard: along the walks, under the bounds, zones apart.

use std::collections::BTreeMap;

use ringfort_types::{NodeId, ShardId};

use crate::Member;
use crate::assignment::Assignment;
use crate::walk::Points;

/// By how much a node's load may exceed its fair share before a change moves anything for that reason alone.
const SLACK_PERCENT: u64 = 10;

/// The replicas of shards 1 to `shards`, in their order, each with its preferred leader first.
///
/// `copies` is what [`effective_copies`](crate::effective_copies) returned: at least 1, at most as many as
/// there are members. Weights are at least 1.
pub fn place(members: &[Member], shards: u32, copies: u32) -> Vec<Vec<NodeId>> {
    let mut drawing = Drawing::new(members, shards, copies);
    let (floor, ceiling) = (drawing.shares.rounded_down(), drawing.shares.rounded_up(0));
    drawing.fill(&floor, true);
    drawing.fill(&ceiling, true);
    drawing.fill(&floor, false);
    drawing.fill(&ceiling, false);
    drawing.finish()
}

/// The replicas of shards 1 to `previous.len()` after the members have changed: as few as possible differ
/// from `previous`.
///
/// What nodes that left had is dealt again; what is above a node's new bound moves; and `newcomers` are given
/// their share by those that have most.
pub fn place_from(
    previous: &[Vec<NodeId>],
    members: &[Member],
    newcomers: &[NodeId],
    copies: u32,
) -> Vec<Vec<NodeId>> {
    let mut drawing = Drawing::new(members, previous.len() as u32, copies);
    let bounds = drawing.shares.rounded_up(SLACK_PERCENT);
    drawing.keep(previous);
    // First, since it relieves those that have too many for their zone, too; and once more, if a zone had to yield.
    drawing.part(&bounds);
    drawing.relieve_the_overloaded(&bounds);
    drawing.refill(&bounds, true);
    drawing.refill(&bounds, false);
    drawing.part(&bounds);
    drawing.welcome(newcomers);
    drawing.finish()
}

/// The members of a group that stands outside the shards: those of `previous` that are still there, then the first on its walk, zones
/// apart.
pub(crate) fn place_one(members: &[Member], shard: ShardId, copies: u32, previous: &[NodeId]) -> Vec<NodeId> {
    let mut drawing = Drawing::new(members, 1, copies);
    drawing.walks = vec![Points::new(members).walk(shard)];
    drawing.keep(&[previous.to_vec()]);
    let bounds = vec![1; members.len()];
    drawing.part(&bounds);
    drawing.top_up(&bounds, true);
    drawing.top_up(&bounds, false);
    drawing.replicas.given[0].iter().map(|&n| members[n].id).collect()
}

/// The members that have less than their fair share, rounded down, of the replicas of shards 1 to `previous.len()`.
pub(crate) fn lacking(previous: &[Vec<NodeId>], members: &[Member], copies: u32) -> Vec<NodeId> {
    let mut drawing = Drawing::new(members, previous.len() as u32, copies);
    drawing.keep(previous);
    let shares = drawing.shares.rounded_down();
    let lacks = |n: &usize| drawing.replicas.loads[*n] < shares[*n];
    (0..members.len()).filter(lacks).map(|n| members[n].id).collect()
}

/// Whether no zone has more copies of a shard than it must have.
pub(crate) fn is_apart(previous: &[Vec<NodeId>], members: &[Member], copies: u32) -> bool {
    let mut drawing = Drawing::new(members, previous.len() as u32, copies);
    drawing.keep(previous);
    (0..previous.len()).all(|shard| drawing.crowding(shard).is_none())
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
        let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
        let zones: Vec<usize> = members
            .iter()
            .map(|member| {
                let next = numbers.len();
                *numbers.entry(member.zone.as_str()).or_insert(next)
            })
            .collect();
        let zone_max = zone_max(&zones, copies as usize);
        let fair = Shares::new(members, &zones, zone_max, shards.into(), copies.into());
        let replicas = Assignment::new(shards as usize, members.len());
        Drawing { members, copies: copies as usize, walks, shares: fair, zones, zone_max, replicas }
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

    fn relieve_the_overloaded(&mut self, bounds: &[u64]) {
        self.replicas.bounds = bounds.to_vec();
        let all: Vec<usize> = (0..self.members.len()).collect();
        for node in 0..self.members.len() {
            while self.replicas.loads[node] > self.replicas.bounds[node] {
                // The emptiest first, so that what has to move moves to newcomers.
                let order = self.shares.emptiest_first(&all, &self.replicas.loads);
                let relieved = self.replicas.relieve(node, &order, &fits(&self.zones, self.zone_max))
                    || self.replicas.relieve(node, &order, &fits(&self.zones, self.copies));
                assert!(relieved, "a placement within the bounds exists");
            }
        }
    }

    /// Deals along the walk what a lone group lacks.
    fn top_up(&mut self, bounds: &[u64], apart: bool) {
        self.replicas.bounds = bounds.to_vec();
        let zone_max = if apart { self.zone_max } else { self.copies };
        while self.replicas.given[0].len() < self.copies
            && self.replicas.give_first(0, &self.walks[0], &fits(&self.zones, zone_max))
        {}
    }

    /// Deals along the walks, a copy to each shard before the next to any, as far as the bounds and, if they are
    /// to be kept apart, the zones allow.
    fn fill(&mut self, bounds: &[u64], apart: bool) {
        self.replicas.bounds = bounds.to_vec();
        let zone_max = if apart { self.zone_max } else { self.copies };
        for copy in 0..self.copies {
            for (shard, walk) in self.walks.iter().enumerate() {
                if self.replicas.given[shard].len() == copy {
                    self.replicas.give_first(shard, walk, &fits(&self.zones, zone_max));
                }
            }
        }
    }

    /// Gives the shards what they lack, from the emptiest nodes, so that nothing else has to make room.
    fn refill(&mut self, bounds: &[u64], apart: bool) {
        self.replicas.bounds = bounds.to_vec();
        let zone_max = if apart { self.zone_max } else { self.copies };
        for shard in 0..self.walks.len() {
            while self.replicas.given[shard].len() < self.copies {
                let order = self.shares.emptiest_first(&self.walks[shard], &self.replicas.loads);
                if !self.replicas.give_first(shard, &order, &fits(&self.zones, zone_max)) {
                    break;
                }
            }
        }
    }

    /// Moves copies that are in one zone more often than they must be to other zones, as far as the bounds allow it.
    fn part(&mut self, bounds: &[u64]) {
        self.replicas.bounds = bounds.to_vec();
        for shard in 0..self.walks.len() {
            while let Some(node) = self.crowding(shard) {
                self.replicas.take(shard, node);
                let order = self.shares.emptiest_first(&self.walks[shard], &self.replicas.loads);
                if !self.replicas.give_first(shard, &order, &fits(&self.zones, self.zone_max)) {
                    self.replicas.give(shard, node);
                    break;
                }
            }
        }
    }

    /// Of the nodes that have a shard and are in a zone that has it too often, the one that is fullest for its share.
    fn crowding(&self, shard: usize) -> Option<usize> {
        let nodes = &self.replicas.given[shard];
        let in_zone = |zone| nodes.iter().filter(|&&n| self.zones[n] == zone).count();
        let crowded: Vec<usize> =
            nodes.iter().copied().filter(|&n| in_zone(self.zones[n]) > self.zone_max).collect();
        self.shares.emptiest_first(&crowded, &self.replicas.loads).pop()
    }

    /// Gives each newcomer its fair share, rounded down, from those that have most for theirs.
    fn welcome(&mut self, newcomers: &[NodeId]) {
        let is_new = |n: &usize| newcomers.contains(&self.members[*n].id);
        let newcomers: Vec<usize> = (0..self.members.len()).filter(is_new).collect();
        let all: Vec<usize> = (0..self.members.len()).collect();
        let share = self.shares.rounded_down();
        for &newcomer in &newcomers {
            while self.replicas.loads[newcomer] < share[newcomer] {
                let mut donors = self.shares.emptiest_first(&all, &self.replicas.loads);
                donors.retain(|n| !newcomers.contains(n) && self.replicas.loads[*n] > share[*n]);
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
                    && fits(&self.zones, self.zone_max)(shard, &others, newcomer)
            })
            .min_by_key(|&shard| self.walks[shard].iter().position(|&n| n == newcomer))
    }

    /// Chooses preferred leaders, each node its fair share of them if the replicas allow it, and puts them first;
    /// the others follow as on the walk.
    fn finish(self) -> Vec<Vec<NodeId>> {
        let replicas = &self.replicas.given;
        assert!(
            replicas.iter().all(|nodes| nodes.len() == self.copies),
            "a placement within the bounds exists"
        );
        let shares = self.shares.of_one_copy(self.copies as u64);
        let mut leaders = Assignment::new(self.walks.len(), self.members.len());
        for bounds in [shares.rounded_up(0), shares.rounded_up(SLACK_PERCENT)] {
            leaders.bounds = bounds;
            for (shard, walk) in self.walks.iter().enumerate() {
                if leaders.given[shard].is_empty() {
                    leaders.give_first(shard, walk, &|shard, _, node| replicas[shard].contains(&node));
                }
            }
        }
        assert!(
            leaders.given.iter().all(|one| one.len() == 1),
            "leaders within the bounds exist if replicas are"
        );
        let ordered = |(shard, walk): (usize, &Vec<usize>)| {
            let leader = leaders.given[shard][0];
            let others = walk.iter().copied().filter(|n| *n != leader && replicas[shard].contains(n));
            std::iter::once(leader).chain(others).map(|n| self.members[n].id).collect()
        };
        self.walks.iter().enumerate().map(ordered).collect()
    }
}

/// Shares this amount, a fraction, among parts by their weights; none gets more than its own most, and the others share the rest.
fn shared((amount, of): (u64, u64), parts: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut rest, mut weight) = (amount, parts.iter().map(|(weight, _)| weight).sum::<u64>());
    let mut full = vec![false; parts.len()];
    while let Some(part) = (0..parts.len()).find(|&p| {
        !full[p]
            && rest > 0
            && u128::from(rest) * u128::from(parts[p].0) >= u128::from(parts[p].1 * of) * u128::from(weight)
    }) {
        full[part] = true;
        rest -= parts[part].1 * of;
        weight -= parts[part].0;
    }
    (0..parts.len())
        .map(|p| if full[p] { (parts[p].1, 1) } else { (rest * parts[p].0, of * weight) })
        .collect()
}

/// A node may be given if it is not there yet, and its zone has not been given as often as zones may be.
fn fits(zones: &[usize], zone_max: usize) -> impl Fn(usize, &[usize], usize) -> bool {
    move |_, nodes, node| {
        !nodes.contains(&node) && nodes.iter().filter(|&&n| zones[n] == zones[node]).count() < zone_max
    }
}

/// Most copies of a shard that one zone has to have: as few as there are zones and nodes for.
fn zone_max(zones: &[usize], copies: usize) -> usize {
    let mut sizes: BTreeMap<usize, usize> = BTreeMap::new();
    for zone in zones {
        *sizes.entry(*zone).or_default() += 1;
    }
    let has_room = |max: &usize| sizes.values().map(|size| size.min(max)).sum::<usize>() >= copies;
    (1..=copies).find(has_room).unwrap_or(copies)
}

/// Each node's fair share of all replicas, as a fraction. A zone gets its part by the weight of all its nodes, but no more than it may have
/// of each shard, and a node its part of that by its weight, but no more than one of each shard; what is beyond goes to the others. So there
/// always is a placement by these shares that keeps zones apart.
struct Shares {
    fractions: Vec<(u64, u64)>,
    shards: u64,
}

impl Shares {
    fn new(members: &[Member], zones: &[usize], zone_max: usize, shards: u64, copies: u64) -> Shares {
        let mut in_zones: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (node, zone) in zones.iter().enumerate() {
            in_zones.entry(*zone).or_default().push(node);
        }
        let weight = |nodes: &Vec<usize>| nodes.iter().map(|&n| u64::from(members[n].weight)).sum::<u64>();
        let parts: Vec<(u64, u64)> = in_zones
            .values()
            .map(|nodes| (weight(nodes), shards * nodes.len().min(zone_max) as u64))
            .collect();
        let mut fractions = vec![(0, 1); members.len()];
        for (nodes, amount) in in_zones.values().zip(shared((shards * copies, 1), &parts)) {
            let parts: Vec<(u64, u64)> =
                nodes.iter().map(|&n| (u64::from(members[n].weight), shards)).collect();
            for (node, fraction) in nodes.iter().zip(shared(amount, &parts)) {
                fractions[*node] = fraction;
            }
        }
        Shares { fractions, shards }
    }

    /// The shares of one copy in so many: what each node should lead.
    fn of_one_copy(&self, copies: u64) -> Shares {
        let fractions = self.fractions.iter().map(|&(n, d)| (n, d * copies)).collect();
        Shares { fractions, shards: self.shards }
    }

    fn rounded_down(&self) -> Vec<u64> {
        self.fractions.iter().map(|&(n, d)| n / d).collect()
    }

    /// The shares and so many per cent more, rounded up, but at most one of each shard.
    fn rounded_up(&self, slack_percent: u64) -> Vec<u64> {
        let most = |&(n, d): &(u64, u64)| ((100 + slack_percent) * n).div_ceil(100 * d).min(self.shards);
        self.fractions.iter().map(most).collect()
    }

    /// These nodes, those first whose load is least for their share.
    fn emptiest_first(&self, nodes: &[usize], loads: &[u64]) -> Vec<usize> {
        let mut order = nodes.to_vec();
        order.sort_by(|&a, &b| {
            let ((an, ad), (bn, bd)) = (self.fractions[a], self.fractions[b]);
            // load / (n / d), compared crosswise.
            (u128::from(loads[a] * ad) * u128::from(bn)).cmp(&(u128::from(loads[b] * bd) * u128::from(an)))
        });
        order
    }
}
