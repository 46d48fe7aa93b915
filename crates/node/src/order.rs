//! Program order: the calls of one connection take effect as if one after the other, wherever that can be seen.
//!
//! Nothing in a cluster keeps two calls in order that are under way at once: a read takes its index before the write sent
//! ahead of it commits; of two writes, the first may wait for a leader that the second finds at once. So a call waits for the
//! earlier ones of its connection that touch the same slot, if either of them writes. Calls of different slots do not wait for
//! each other, nor do reads for reads. What touches all slots (a list, say) is no business of a connection in program order,
//! and waits for nothing.
//!
//! Invariants: a call goes once every earlier one that conflicts with it has left; so no two that conflict are under way at
//! once, and none waits for a later one.
//!
//! Bounds: as many calls as whoever uses it lets in.

use std::collections::{BTreeMap, VecDeque};

use ringfort_types::{Request, Slot};

/// The calls of one connection that have not left, by slot. `K` names one.
#[derive(Debug)]
pub struct ProgramOrder<K> {
    /// The slot of each call that has one, and whether it writes.
    calls: BTreeMap<K, (Slot, bool)>,
    slots: BTreeMap<Slot, Queue<K>>,
}

/// One slot's calls.
#[derive(Debug)]
struct Queue<K> {
    /// Reads under way.
    reads: usize,
    /// A write is under way.
    write: bool,
    /// In the order in which they came, and whether they write.
    waiting: VecDeque<(K, bool)>,
}

impl<K> Default for ProgramOrder<K> {
    fn default() -> ProgramOrder<K> {
        ProgramOrder { calls: BTreeMap::new(), slots: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> ProgramOrder<K> {
    /// A call comes in, later than all before. True if it may go now; else [`leave`](ProgramOrder::leave) names it in time.
    pub fn enter(&mut self, call: K, request: &Request) -> bool {
        let Some(slot) = request.slot() else { return true };
        let writes = request.is_write();
        self.calls.insert(call, (slot, writes));
        let queue = self.slots.entry(slot).or_insert_with(|| Queue {
            reads: 0,
            write: false,
            waiting: VecDeque::new(),
        });
        if queue.waiting.is_empty() && queue.may_go(writes) {
            queue.go(writes);
            return true;
        }
        queue.waiting.push_back((call, writes));
        false
    }

    /// A call that was under way has been answered. Those that may go now, in order.
    pub fn leave(&mut self, call: K) -> Vec<K> {
        let Some((slot, writes)) = self.calls.remove(&call) else { return Vec::new() };
        let queue = self.slots.get_mut(&slot).expect("a call under way is counted in its slot's queue");
        if writes {
            queue.write = false;
        } else {
            queue.reads -= 1;
        }
        let mut next = Vec::new();
        while let Some(&(call, writes)) = queue.waiting.front()
            && queue.may_go(writes)
        {
            queue.waiting.pop_front();
            queue.go(writes);
            next.push(call);
        }
        if queue.reads == 0 && !queue.write {
            self.slots.remove(&slot);
        }
        next
    }
}

impl<K> Queue<K> {
    fn may_go(&self, writes: bool) -> bool {
        !self.write && !(writes && self.reads > 0)
    }

    fn go(&mut self, writes: bool) {
        if writes {
            self.write = true;
        } else {
            self.reads += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::Consistency;

    use super::*;

    fn get(key: &'static str) -> Request {
        Request::Get { key: key.into(), consistency: Consistency::Linearizable }
    }

    #[test]
    fn what_touches_a_slot_waits_for_writes_there_and_nothing_else_waits() {
        let mut order = ProgramOrder::default();
        assert!(order.enter(1, &Request::put("k", "1")));
        assert!(!order.enter(2, &Request::put("k", "2")));
        assert!(!order.enter(3, &get("k")));
        assert!(!order.enter(4, &get("{k}other")), "of the same slot");
        assert!(!order.enter(5, &Request::delete("k")));
        assert!(!order.enter(6, &get("k")), "a read does not overtake a write that waits");
        assert!(order.enter(7, &get("another")) && order.enter(8, &Request::ClusterState));
        assert_eq!(order.leave(1), [2]);
        assert_eq!(order.leave(2), [3, 4]);
        assert_eq!(order.leave(4), []);
        assert_eq!(order.leave(3), [5]);
        assert_eq!(order.leave(8), []);
        assert_eq!(order.leave(5), [6]);
        assert_eq!((order.leave(6), order.leave(7)), (vec![], vec![]));
        assert!(order.slots.is_empty() && order.calls.is_empty());
    }
}
