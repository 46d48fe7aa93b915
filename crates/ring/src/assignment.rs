//! Dealing places to shards under a bound per node, and shifting earlier ones where the bound is in the way.
//!
//! Used twice: for replicas (a shard gets several nodes) and then for preferred leaders (one of its replicas).
//! Nodes and shards are plain indexes here.
//!
//! Invariant: no node has more than its bound, and nobody has a place twice, unless the caller began so.

use std::collections::VecDeque;

/// Whether a shard that has these nodes may be given this one too.
pub(crate) type Fits<'a> = &'a dyn Fn(usize, &[usize], usize) -> bool;

/// Who has what so far.
pub(crate) struct Assignment {
    /// For each shard, the nodes that it was given.
    pub(crate) given: Vec<Vec<usize>>,
    /// For each node, how many shards were given it.
    pub(crate) loads: Vec<u64>,
    /// For each node, how many it may be given to. Raised between rounds of dealing.
    pub(crate) bounds: Vec<u64>,
}

impl Assignment {
    /// Nobody has anything, and nobody may be given anything yet.
    pub(crate) fn new(shards: usize, nodes: usize) -> Assignment {
        Assignment { given: vec![Vec::new(); shards], loads: vec![0; nodes], bounds: vec![0; nodes] }
    }

    pub(crate) fn has_room(&self, node: usize) -> bool {
        self.loads[node] < self.bounds[node]
    }

    pub(crate) fn give(&mut self, shard: usize, node: usize) {
        self.given[shard].push(node);
        self.loads[node] += 1;
    }

    pub(crate) fn take(&mut self, shard: usize, node: usize) {
        self.given[shard].retain(|&n| n != node);
        self.loads[node] -= 1;
    }

    /// Exchanges one node of a shard for another.
    pub(crate) fn exchange(&mut self, shard: usize, from: usize, to: usize) {
        let place =
            self.given[shard].iter().position(|&n| n == from).expect("the shard has what it gives up");
        self.given[shard][place] = to;
        self.loads[from] -= 1;
        self.loads[to] += 1;
    }

    /// Gives the shard the first node in `order` that fits and has room; if there is none, makes room by
    /// shifting other shards' places along a shortest path. False if that can't be done either.
    pub(crate) fn give_first(&mut self, shard: usize, order: &[usize], fits: Fits) -> bool {
        let direct = order.iter().find(|&&n| self.has_room(n) && fits(shard, &self.given[shard], n));
        if let Some(&node) = direct {
            self.give(shard, node);
            return true;
        }
        let starts = order.iter().copied().filter(|&n| fits(shard, &self.given[shard], n)).collect();
        let first = self.make_room(order, starts, Some(shard), fits);
        if let Some(first) = first {
            self.give(shard, first);
        }
        first.is_some()
    }

    /// Takes one place away from a node that has too many. False if that can't be done.
    pub(crate) fn relieve(&mut self, node: usize, order: &[usize], fits: Fits) -> bool {
        self.make_room(order, VecDeque::from([node]), None, fits).is_some()
    }

    /// Searches breadth-first from `starts`, along "a shard exchanges this
    /// node for that one", for a node with room, and carries the exchanges out. Returns the start, which has
    /// one place less than before. `untouched` is left as it is.
    fn make_room(
        &mut self,
        order: &[usize],
        starts: VecDeque<usize>,
        untouched: Option<usize>,
        fits: Fits,
    ) -> Option<usize> {
        let mut came_from: Vec<Option<(usize, usize)>> = vec![None; self.bounds.len()];
        let mut seen = vec![false; self.bounds.len()];
        let mut queue = starts;
        for &node in &queue {
            seen[node] = true;
        }
        while let Some(node) = queue.pop_front() {
            if self.has_room(node) {
                return Some(self.shift(node, &came_from));
            }
            for shard in 0..self.given.len() {
                if Some(shard) == untouched
                    || !self.given[shard].contains(&node)
                    || on_path(&came_from, node, shard)
                {
                    continue;
                }
                let others: Vec<usize> = self.given[shard].iter().copied().filter(|&n| n != node).collect();
                for &next in order {
                    if !seen[next] && !others.contains(&next) && fits(shard, &others, next) {
                        seen[next] = true;
                        came_from[next] = Some((node, shard));
                        queue.push_back(next);
                    }
                }
            }
        }
        None
    }

    fn shift(&mut self, last: usize, came_from: &[Option<(usize, usize)>]) -> usize {
        let mut node = last;
        while let Some((before, shard)) = came_from[node] {
            self.exchange(shard, before, node);
            node = before;
        }
        node
    }
}

/// Whether the path that led to `node` has already changed `shard`. A shortest path never needs to, unless
/// zones forbid the short cut; then what fits was judged by a set that is no longer there.
fn on_path(came_from: &[Option<(usize, usize)>], mut node: usize, shard: usize) -> bool {
    while let Some((before, via)) = came_from[node] {
        if via == shard {
            return true;
        }
        node = before;
    }
    false
}
