//! Whether a history could have been made by one map that does one thing at a time.
//!
//! Linearizability is local (Herlihy and Wing, 1990), so each key is judged by itself: is there an order of its
//! operations in which none comes before one that was over when it began, and in which every get sees the last
//! put or delete? The search is Wing and Gong's (1993) with Lowe's memory (2017): a set of operations done and
//! the value that they left, once found to lead nowhere, is not tried again.
//!
//! What keeps it quick, also with many writes in doubt:
//! - a get that sees the current value is done at once, since it can't do harm; so only writes make the search branch;
//! - no two puts set the same value, so one that is overwritten never comes back: while somebody has yet to see the
//!   current one, nothing may overwrite it;
//! - a write in doubt is of use only to a get that sees it, so it is done only just before one that may come next; and
//!   of several deletes in doubt one is as good as another.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use crate::{Action, Operation};

/// States that are tried before a key is given up on.
const STATES_MAX: usize = 1_000_000;

/// Why a history was not found to be linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// No order explains it. The longest prefix found ends before these operations, each of which would
    /// contradict the value that the key has there.
    Impossible {
        /// Which key.
        key: Bytes,
        /// The value at the end of the longest prefix.
        value: Option<Bytes>,
        /// What can't come next.
        stuck: Vec<Operation>,
    },
    /// The search was given up.
    Undecided {
        /// Which key.
        key: Bytes,
    },
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Impossible { key, value, stuck } => {
                write!(
                    f,
                    "key {key:?} is not linearizable: at best it is {value:?}, and then comes none of "
                )?;
                f.debug_list().entries(stuck).finish()
            }
            Verdict::Undecided { key } => write!(f, "key {key:?}: too many orders to try"),
        }
    }
}

/// Judges each key of a history. Keys begin absent.
pub fn check(history: &[Operation]) -> Result<(), Verdict> {
    let mut keys: BTreeMap<&Bytes, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    for (key, mut operations) in keys {
        let seen: BTreeSet<Bytes> = operations.iter().filter_map(|operation| operation.seen()).collect();
        operations.retain(|operation| operation.returned_us.is_some() || !operation.is_unseen(&seen));
        operations.sort_by_key(|operation| operation.invoked_us);
        Search::new(key, &operations).run()?;
    }
    Ok(())
}

impl Operation {
    fn seen(&self) -> Option<Bytes> {
        if let Action::Get(seen) = &self.action { seen.clone() } else { None }
    }

    /// Whether it put what nobody saw. If its outcome is unknown too, then whatever order explains a history
    /// with it explains the history without it, so it is left out.
    fn is_unseen(&self, seen: &BTreeSet<Bytes>) -> bool {
        matches!(&self.action, Action::Put(value) if !seen.contains(value))
    }
}

/// A value by the operation that put it; `None` for absent.
type Value = Option<usize>;

struct Search<'a> {
    key: &'a Bytes,
    operations: &'a [&'a Operation],
    /// What each get saw; `Err` if nobody ever put that.
    seen: Vec<Result<Value, ()>>,
    tried: BTreeSet<(Vec<u64>, Value)>,
    furthest: (usize, Vec<u64>, Value),
}

impl<'a> Search<'a> {
    fn new(key: &'a Bytes, operations: &'a [&'a Operation]) -> Search<'a> {
        let putter = |value: &Bytes| {
            operations.iter().position(|op| matches!(&op.action, Action::Put(put) if put == value))
        };
        let seen = operations
            .iter()
            .map(|operation| match &operation.action {
                Action::Get(Some(value)) => putter(value).map(Some).ok_or(()),
                _ => Ok(None),
            })
            .collect();
        let none_done = vec![0; operations.len().div_ceil(64)];
        Search { key, operations, seen, tried: BTreeSet::new(), furthest: (0, none_done, None) }
    }

    fn run(mut self) -> Result<(), Verdict> {
        // Each frame: what was done, the value, and the candidates not tried yet.
        let start = self.furthest.1.clone();
        let Some(first) = self.enter(start, None) else { return Ok(()) };
        let mut path = vec![first];
        while let Some((done, _, candidates)) = path.last_mut() {
            let Some(next) = candidates.pop() else {
                path.pop();
                continue;
            };
            let mut done = done.clone();
            mark(&mut done, next);
            let value = match &self.operations[next].action {
                Action::Put(_) => Some(next),
                Action::Delete => None,
                Action::Get(_) => unreachable!("gets are done on entering"),
            };
            if self.tried.len() > STATES_MAX {
                return Err(Verdict::Undecided { key: self.key.clone() });
            }
            match self.enter(done, value) {
                None => return Ok(()),
                Some(frame) => path.push(frame),
            }
        }
        Err(self.impossible())
    }

    /// Does all gets that fit, and lists the writes that may come next, the earliest last. `None` if everything
    /// that must be done is.
    fn enter(&mut self, mut done: Vec<u64>, value: Value) -> Option<(Vec<u64>, Value, Vec<usize>)> {
        let mut candidates;
        loop {
            candidates = self.may_come_next(&done);
            let fitting = candidates.iter().copied().find(|&next| {
                matches!(self.operations[next].action, Action::Get(_)) && self.seen[next] == Ok(value)
            });
            match fitting {
                Some(get) => mark(&mut done, get),
                None => break,
            }
        }
        let required_left = (0..self.operations.len())
            .any(|at| !is_marked(&done, at) && self.operations[at].returned_us.is_some());
        if !required_left {
            return None;
        }
        let count = done.iter().map(|word| word.count_ones() as usize).sum();
        if count > self.furthest.0 {
            self.furthest = (count, done.clone(), value);
        }
        let is_awaited = |at: usize| !is_marked(&done, at) && self.seen[at] == Ok(value) && self.is_get(at);
        let must_stay = value.is_some() && (0..self.operations.len()).any(is_awaited);
        if must_stay || !self.tried.insert((done.clone(), value)) {
            return Some((done, value, Vec::new()));
        }
        let mut writes = self.writes_of_use(&candidates);
        writes.reverse();
        Some((done, value, writes))
    }

    /// Those of the candidates that are writes, without those in doubt that nobody would see.
    fn writes_of_use(&self, candidates: &[usize]) -> Vec<usize> {
        let is_seen_next = |value| candidates.iter().any(|&at| self.is_get(at) && self.seen[at] == Ok(value));
        let mut has_delete_in_doubt = false;
        let mut is_of_use = |at: &usize| {
            let operation = self.operations[*at];
            match operation.action {
                Action::Get(_) => false,
                _ if operation.returned_us.is_some() => true,
                Action::Put(_) => is_seen_next(Some(*at)),
                Action::Delete => !std::mem::replace(&mut has_delete_in_doubt, true) && is_seen_next(None),
            }
        };
        candidates.iter().copied().filter(|at| is_of_use(at)).collect()
    }

    fn is_get(&self, at: usize) -> bool {
        matches!(self.operations[at].action, Action::Get(_))
    }

    /// Those not done that began before any other one not done was over.
    fn may_come_next(&self, done: &[u64]) -> Vec<usize> {
        let left = (0..self.operations.len()).filter(|&at| !is_marked(done, at));
        let first_over = left.clone().filter_map(|at| self.operations[at].returned_us).min();
        left.filter(|&at| first_over.is_none_or(|over| self.operations[at].invoked_us <= over)).collect()
    }

    fn impossible(self) -> Verdict {
        let (_, done, value) = &self.furthest;
        let stuck = self.may_come_next(done).into_iter().map(|at| self.operations[at].clone()).collect();
        let value = value.and_then(|at| match &self.operations[at].action {
            Action::Put(value) => Some(value.clone()),
            _ => None,
        });
        Verdict::Impossible { key: self.key.clone(), value, stuck }
    }
}

fn mark(done: &mut [u64], at: usize) {
    done[at / 64] |= 1 << (at % 64);
}

fn is_marked(done: &[u64], at: usize) -> bool {
    done[at / 64] & (1 << (at % 64)) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Bytes {
        Bytes::copy_from_slice(value.as_bytes())
    }

    fn put(value: &str) -> Action {
        Action::Put(text(value))
    }

    fn saw(value: &str) -> Action {
        Action::Get(Some(text(value)))
    }

    const MISSED: Action = Action::Get(None);

    fn history(operations: &[(Action, u64, Option<u64>)]) -> Vec<Operation> {
        let operation = |(client, (action, invoked_us, returned_us)): (u64, &(Action, u64, Option<u64>))| {
            let (action, invoked_us, returned_us) = (action.clone(), *invoked_us, *returned_us);
            Operation { client, key: text("k"), action, invoked_us, returned_us }
        };
        (0..).zip(operations).map(operation).collect()
    }

    #[track_caller]
    fn is_fine(operations: &[(Action, u64, Option<u64>)]) {
        assert_eq!(check(&history(operations)), Ok(()));
    }

    #[track_caller]
    fn is_impossible(operations: &[(Action, u64, Option<u64>)]) {
        assert!(matches!(check(&history(operations)), Err(Verdict::Impossible { .. })));
    }

    #[test]
    fn one_after_the_other_must_be_in_order() {
        is_fine(&[(MISSED, 1, Some(2)), (put("a"), 3, Some(4)), (saw("a"), 5, Some(6))]);
        is_fine(&[(put("a"), 1, Some(2)), (Action::Delete, 3, Some(4)), (MISSED, 5, Some(6))]);
        is_impossible(&[(put("a"), 1, Some(2)), (MISSED, 3, Some(4))]);
        is_impossible(&[(put("a"), 1, Some(2)), (put("b"), 3, Some(4)), (saw("a"), 5, Some(6))]);
        is_impossible(&[(saw("a"), 1, Some(2)), (put("a"), 3, Some(4))]);
    }

    #[test]
    fn what_overlaps_may_be_in_any_order_but_one() {
        is_fine(&[(put("a"), 1, Some(10)), (put("b"), 1, Some(10)), (saw("a"), 11, Some(12))]);
        is_fine(&[(put("a"), 1, Some(10)), (MISSED, 2, Some(3)), (saw("a"), 4, Some(5))]);
        is_impossible(&[(put("a"), 1, Some(10)), (saw("a"), 2, Some(3)), (MISSED, 4, Some(5))]);
        let flicker = [
            (put("a"), 1, Some(10)),
            (put("b"), 1, Some(10)),
            (saw("a"), 11, Some(12)),
            (saw("b"), 13, Some(14)),
        ];
        is_impossible(&flicker);
    }

    #[test]
    fn an_unknown_write_may_have_happened_at_any_time_or_never() {
        is_fine(&[(put("a"), 1, None), (MISSED, 5, Some(6))]);
        is_fine(&[(put("a"), 1, None), (saw("a"), 5, Some(6))]);
        is_fine(&[(put("a"), 1, None), (MISSED, 5, Some(6)), (saw("a"), 7, Some(8))]);
        is_fine(&[
            (put("b"), 1, Some(2)),
            (put("a"), 1, None),
            (saw("b"), 5, Some(6)),
            (saw("a"), 7, Some(8)),
        ]);
        is_impossible(&[(put("a"), 1, None), (saw("a"), 5, Some(6)), (MISSED, 7, Some(8))]);
        is_impossible(&[(put("a"), 9, None), (saw("a"), 5, Some(6))]);
    }

    #[test]
    fn a_forged_history_is_found_out() {
        // A long honest history of many clients, and then one value that was overwritten long ago.
        let mut operations = Vec::new();
        for round in 0..200 {
            let at = round * 10;
            operations.push((put(&format!("x{round}")), at, Some(at + 7)));
            operations.push((put(&format!("y{round}")), at + 1, (round % 5 != 0).then_some(at + 8)));
            operations.push((saw(&format!("x{round}")), at + 8, Some(at + 9)));
        }
        is_fine(&operations);
        operations.push((saw("x100"), 5_000, Some(5_001)));
        let Err(Verdict::Impossible { value, stuck, .. }) = check(&history(&operations)) else { panic!() };
        // It can't be overwritten, since somebody sees it later; but others see others before.
        assert_eq!(value, Some(text("x100")));
        assert!(!stuck.is_empty());
    }

    #[test]
    fn many_writes_in_doubt_are_judged_all_the_same() {
        // Forty puts and deletes whose outcome nobody knows, some of them seen much later, in another order.
        let mut operations = Vec::new();
        for n in 0..40 {
            operations.push((put(&format!("d{n}")), n, None));
            operations.push((Action::Delete, n, None));
        }
        for n in 0..40 {
            let (at, seen) = (1_000 + n * 10, format!("d{}", (n * 7) % 40));
            operations.push((saw(&seen), at, Some(at + 1)));
            operations.push((MISSED, at + 2, Some(at + 3)));
            operations.push((put(&format!("k{n}")), at + 4, Some(at + 5)));
        }
        is_fine(&operations);
        operations.push((saw("d7"), 5_000, Some(5_001)));
        is_impossible(&operations);
    }

    #[test]
    fn keys_are_judged_by_themselves() {
        let mut mixed = history(&[(put("a"), 1, Some(2)), (MISSED, 3, Some(4))]);
        mixed[1].key = text("other");
        assert_eq!(check(&mixed), Ok(()));
    }
}
