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
//!   current one, nothing may overwrite it, and if a write under a condition was done that saw it, nothing else may;
//! - a put whose value nobody saw can come right before any other put or delete, as early as there is one: all such that
//!   may come next do so together, and how they are ordered among themselves makes no difference;
//! - a write in doubt is of use only to a get that sees it, so it is done only just before one that may come next; and
//!   of several deletes in doubt one is as good as another;
//! - a step looks only at what comes after everything that is done, up to the first that began after another was over, and who has
//!   to see a value is listed by value. So an order is found in time that grows with the length of the history, not its square.
//!
//! A write under a condition that was met is a get of what the condition says and a put, in one; if it was not met, a
//! get. An increment is a get of one number and a put of another. (Of an atomic write, each key is judged by itself,
//! too; that no one sees half of it is for `reads`.)

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bytes::Bytes;

use super::replay::number;
use crate::{Action, Operation};

/// In place of a write: only those puts whose values nobody saw.
const UNSEEN: usize = usize::MAX;
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
        let bits = seen.iter().filter_map(|value| number(value)).fold(0, |bits, value| bits | value);
        operations.retain(|operation| operation.returned_us.is_some() || !operation.is_unseen(&seen, bits));
        operations.sort_by_key(|operation| operation.invoked_us);
        Search::new(key, &operations, &seen).run()?;
    }
    Ok(())
}

impl Operation {
    fn seen(&self) -> Option<Bytes> {
        match &self.action {
            Action::Get(seen) | Action::Swap { saw: seen, .. } => seen.clone(),
            Action::Add { gave: Some(value), .. } => Some(value.to_string().into()),
            _ => None,
        }
    }

    /// Whether it put what nobody saw, or raised by what is in no number (`bits` has those of all). If its outcome
    /// is unknown too, then whatever order explains a history with it explains the history without it, so it is left
    /// out.
    fn is_unseen(&self, seen: &BTreeSet<Bytes>, bits: i64) -> bool {
        match &self.action {
            Action::Put(value) | Action::Swap { put: Some(value), .. } => !seen.contains(value),
            Action::Add { by, gave: None } => bits & by == 0,
            _ => false,
        }
    }
}

/// The number of a value in `Search::values`; `None` for absent.
type Value = Option<usize>;

/// Who has seen a value.
#[derive(Debug, Default)]
struct Seers {
    gets: Vec<usize>,
    swaps: Vec<usize>,
}

struct Search<'a> {
    key: &'a Bytes,
    operations: &'a [&'a Operation],
    /// All values that have come up.
    values: Vec<Bytes>,
    numbers: BTreeMap<Bytes, usize>,
    /// What each operation has seen.
    saw: Vec<Value>,
    /// The gets that saw a value, and the writes that were done and saw it, each in order.
    seers: BTreeMap<Value, Seers>,
    /// Something is added to the key: then a value may come back.
    has_sums: bool,
    /// Puts that were done, and whose values nobody saw.
    unseen: Vec<bool>,
    tried: BTreeSet<(Vec<u64>, Value)>,
    furthest: (usize, Vec<u64>, Value),
}

impl<'a> Search<'a> {
    fn new(key: &'a Bytes, operations: &'a [&'a Operation], seen: &BTreeSet<Bytes>) -> Search<'a> {
        let none_done = vec![0; operations.len().div_ceil(64)];
        let has_sums = operations.iter().any(|operation| matches!(operation.action, Action::Add { .. }));
        let is_unseen = |operation: &&Operation| match &operation.action {
            Action::Put(value) => !has_sums && operation.returned_us.is_some() && !seen.contains(value),
            _ => false,
        };
        let mut search = Search {
            key,
            operations,
            values: Vec::new(),
            numbers: BTreeMap::new(),
            saw: Vec::new(),
            seers: BTreeMap::new(),
            has_sums,
            unseen: operations.iter().map(is_unseen).collect(),
            tried: BTreeSet::new(),
            furthest: (0, none_done, None),
        };
        for (at, operation) in operations.iter().enumerate() {
            let saw = match &operation.action {
                Action::Get(saw) | Action::Swap { saw, .. } => search.number_of(saw.as_ref()),
                _ => None,
            };
            search.saw.push(saw);
            match &operation.action {
                Action::Get(_) => search.seers.entry(saw).or_default().gets.push(at),
                Action::Swap { .. } if operation.returned_us.is_some() => {
                    search.seers.entry(saw).or_default().swaps.push(at);
                }
                _ => {}
            }
        }
        search
    }

    fn number_of(&mut self, value: Option<&Bytes>) -> Value {
        let value = value?;
        if let Some(known) = self.numbers.get(value) {
            return Some(*known);
        }
        self.values.push(value.clone());
        self.numbers.insert(value.clone(), self.values.len() - 1);
        Some(self.values.len() - 1)
    }

    /// What the key is after this operation, if that can come now.
    fn after(&mut self, operation: usize, value: Value) -> Option<Value> {
        let operations = self.operations;
        match &operations[operation].action {
            Action::Put(put) => Some(self.number_of(Some(put))),
            Action::Delete => Some(None),
            Action::Get(_) => (self.saw[operation] == value).then_some(value),
            Action::Swap { put, .. } => (self.saw[operation] == value).then(|| self.number_of(put.as_ref())),
            Action::Add { by, gave } => {
                let before = value.map_or(Some(0), |value| number(&self.values[value]))?;
                let sum = before.checked_add(*by)?;
                gave.is_none_or(|gave| gave == sum).then(|| self.number_of(Some(&sum.to_string().into())))
            }
        }
    }

    fn run(mut self) -> Result<(), Verdict> {
        // Each frame: what was done, the value, and the candidates not tried yet.
        let start = self.furthest.1.clone();
        let Some(first) = self.enter(start, None) else { return Ok(()) };
        let mut path = vec![first];
        while let Some((done, value, candidates)) = path.last_mut() {
            let Some(next) = candidates.pop() else {
                path.pop();
                continue;
            };
            let (mut done, value) = (done.clone(), *value);
            let is_blind =
                next == UNSEEN || matches!(self.operations[next].action, Action::Put(_) | Action::Delete);
            let unseen = if is_blind { self.unseen_next(&done) } else { Vec::new() };
            let last = if next == UNSEEN { unseen[0] } else { next };
            let Some(value) = self.after(last, value) else { continue };
            unseen.into_iter().chain([last]).for_each(|at| mark(&mut done, at));
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
        let operations = self.operations;
        let is_get = |at: usize| matches!(operations[at].action, Action::Get(_));
        let mut candidates;
        loop {
            candidates = self.may_come_next(&done);
            let fitting =
                candidates.iter().copied().find(|&next| is_get(next) && self.after(next, value).is_some());
            match fitting {
                Some(get) => mark(&mut done, get),
                None => break,
            }
        }
        let mut left = first_left(&done)..operations.len();
        if !left.any(|at| !is_marked(&done, at) && operations[at].returned_us.is_some()) {
            return None;
        }
        let count = done.iter().map(|word| word.count_ones() as usize).sum();
        if count > self.furthest.0 {
            self.furthest = (count, done.clone(), value);
        }
        if self.must_stay(&done, value) || !self.tried.insert((done.clone(), value)) {
            return Some((done, value, Vec::new()));
        }
        let mut writes = self.writes_of_use(&candidates, value);
        let must_come_next = self.must_come_next(&done, value);
        writes.retain(|at| !self.unseen[*at] && must_come_next.is_none_or(|next| next == *at));
        // Of those that overlap, who was answered first most likely came first.
        writes.sort_by_key(|&at| std::cmp::Reverse(operations[at].returned_us.unwrap_or(u64::MAX)));
        if must_come_next.is_none() && candidates.iter().any(|at| self.unseen[*at]) {
            writes.insert(0, UNSEEN);
        }
        Some((done, value, writes))
    }

    /// Whether somebody has yet to see the current value, which never comes back. (Sums may.)
    fn must_stay(&self, done: &[u64], value: Value) -> bool {
        let is_left = |seers: &Seers| seers.gets.iter().any(|at| !is_marked(done, *at));
        value.is_some() && !self.has_sums && self.seers.get(&value).is_some_and(is_left)
    }

    /// A write that was done, and saw the current value, which never comes back: whatever else overwrites it first, this
    /// one could not come any more.
    fn must_come_next(&self, done: &[u64], value: Value) -> Option<usize> {
        if value.is_none() || self.has_sums {
            return None;
        }
        self.seers.get(&value)?.swaps.iter().copied().find(|at| !is_marked(done, *at))
    }

    /// The puts that may come next and whose values nobody saw.
    fn unseen_next(&self, done: &[u64]) -> Vec<usize> {
        let mut next = self.may_come_next(done);
        next.retain(|at| self.unseen[*at]);
        next
    }

    /// Those of the candidates that are writes, without those in doubt that nobody would see.
    fn writes_of_use(&mut self, candidates: &[usize], value: Value) -> Vec<usize> {
        let operations = self.operations;
        let mut seen_next = BTreeSet::new();
        for &at in candidates {
            if let Action::Get(_) | Action::Swap { .. } = &operations[at].action {
                seen_next.insert((self.saw[at], at));
            }
        }
        let is_seen = |value: Value, by_another: usize| {
            seen_next.range((value, 0)..=(value, usize::MAX)).any(|(_, at)| *at != by_another)
        };
        let mut has_delete_in_doubt = false;
        let mut writes = Vec::new();
        for &at in candidates {
            let is_delete = matches!(operations[at].action, Action::Delete);
            let is_of_use = match operations[at].action {
                Action::Get(_) => false,
                _ if self.has_sums || operations[at].returned_us.is_some() => true,
                Action::Delete if has_delete_in_doubt => false,
                _ => self.after(at, value).is_some_and(|after| is_seen(after, at)),
            };
            has_delete_in_doubt |= is_delete && operations[at].returned_us.is_none();
            if is_of_use {
                writes.push(at);
            }
        }
        writes
    }

    /// Those not done that began before any other one not done was over. (They are in order of their beginning.)
    fn may_come_next(&self, done: &[u64]) -> Vec<usize> {
        let mut next = Vec::new();
        let mut first_over = u64::MAX;
        for at in first_left(done)..self.operations.len() {
            let Operation { invoked_us, returned_us, .. } = self.operations[at];
            if *invoked_us > first_over {
                break;
            }
            if !is_marked(done, at) {
                first_over = first_over.min(returned_us.unwrap_or(u64::MAX));
                next.push(at);
            }
        }
        next.retain(|at| self.operations[*at].invoked_us <= first_over);
        next
    }

    fn impossible(self) -> Verdict {
        let (_, done, value) = &self.furthest;
        let stuck = self.may_come_next(done).into_iter().map(|at| self.operations[at].clone()).collect();
        let value = value.map(|value| self.values[value].clone());
        Verdict::Impossible { key: self.key.clone(), value, stuck }
    }
}

/// Everything before this one is done.
fn first_left(done: &[u64]) -> usize {
    let words = done.iter().take_while(|word| **word == u64::MAX).count();
    64 * words + done.get(words).map_or(0, |word| word.trailing_ones() as usize)
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

    fn swap(saw: Option<&str>, put: Option<&str>) -> Action {
        Action::Swap { saw: saw.map(text), put: put.map(text) }
    }

    #[test]
    fn a_condition_and_its_write_are_one() {
        is_fine(&[
            (swap(None, Some("a")), 1, Some(2)),
            (swap(Some("a"), Some("b")), 3, Some(4)),
            (saw("b"), 5, Some(6)),
        ]);
        is_fine(&[
            (swap(Some("a"), Some("b")), 1, Some(9)),
            (put("a"), 2, Some(8)),
            (saw("b"), 10, Some(11)),
        ]);
        is_fine(&[
            (put("a"), 1, Some(2)),
            (swap(Some("a"), None), 3, None),
            (saw("a"), 5, Some(6)),
            (MISSED, 7, Some(8)),
        ]);
        is_impossible(&[(put("a"), 1, Some(2)), (swap(None, Some("b")), 3, Some(4))]);
        // Both found the same.
        let twice = [
            (put("a"), 1, Some(2)),
            (swap(Some("a"), Some("b")), 3, Some(9)),
            (swap(Some("a"), Some("c")), 3, Some(9)),
        ];
        is_impossible(&twice);
        is_impossible(&[
            (put("a"), 1, Some(2)),
            (swap(Some("a"), Some("b")), 3, Some(4)),
            (saw("a"), 5, Some(6)),
        ]);
        // It may have happened, but not where its condition was not met.
        is_impossible(&[
            (put("a"), 1, Some(2)),
            (swap(Some("x"), Some("b")), 3, None),
            (saw("b"), 5, Some(6)),
        ]);
    }

    #[test]
    fn sums_must_add_up() {
        let add = |by, gave| Action::Add { by, gave };
        is_fine(&[(add(1, Some(1)), 1, Some(2)), (add(2, Some(3)), 3, Some(4)), (saw("3"), 5, Some(6))]);
        is_fine(&[(add(1, Some(3)), 1, Some(9)), (add(2, Some(2)), 1, Some(9))]);
        is_fine(&[(add(4, None), 1, None), (add(1, Some(1)), 2, Some(3)), (saw("5"), 5, Some(6))]);
        is_fine(&[(add(4, None), 1, None), (add(1, Some(1)), 2, Some(3)), (saw("1"), 5, Some(6))]);
        is_impossible(&[(add(1, Some(1)), 1, Some(9)), (add(2, Some(2)), 1, Some(9))]);
        is_impossible(&[(add(1, Some(1)), 1, Some(2)), (saw("2"), 3, Some(4))]);
        is_impossible(&[(add(4, None), 1, None), (saw("8"), 5, Some(6))]);
        // In doubt, and then seen, and then gone.
        is_impossible(&[(add(4, None), 1, None), (saw("4"), 5, Some(6)), (add(1, Some(1)), 7, Some(8))]);
    }

    #[test]
    fn many_puts_that_nobody_saw_are_judged_all_the_same() {
        let mut operations = vec![(Action::Swap { saw: None, put: Some(text("first")) }, 1, Some(100))];
        operations.extend((0..60).map(|n| (put(&format!("unseen-{n}")), 2 + n, Some(90 + n))));
        operations.extend([(put("last"), 200, Some(201)), (saw("last"), 202, Some(203))]);
        is_fine(&operations);
        operations.push((saw("unseen-3"), 204, Some(205)));
        is_impossible(&operations);
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
