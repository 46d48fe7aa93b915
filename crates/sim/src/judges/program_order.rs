//! What one connection asks for takes effect in the order in which it asks: a read sees the last write before it, and of
//! two acknowledged writes the later one's value stays, whoever leads meanwhile (`ringfort_node::order`).
//!
//! Judged by what the client hears, key by key. A key is written by one client only, which counts its calls. So in their
//! order, a read must see the last acknowledged write before it, or one whose outcome is unknown: that one may take effect
//! at any time, but once, and then it is the last. Reads wait for writes only, not for each other, and writes for all before them. So those
//! between two writes are judged together, in the order of the indexes at which they looked: from one value to the next there has to be a
//! write in doubt. Whoever asked after a read was answered does not look before it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringfort_types::{Change, Index, Outcome, Reply, Request};

use super::{Broken, broken};

const NAME: &str = "the calls of a connection take effect in their order";

/// What a call does to a key.
#[derive(Clone, Debug)]
enum Does {
    Write(Option<Bytes>),
    Read,
}

/// What its client has come to know of it.
#[derive(Clone, Debug)]
enum Told {
    Done,
    Saw(Option<Bytes>, Index),
    MayBeDone,
    /// It was not done, or tells nothing.
    Nothing,
}

#[derive(Debug)]
struct Step {
    call: u64,
    does: Does,
    told: Option<Told>,
    /// How many calls had been asked when it was told.
    asked_by_then: u64,
}

#[derive(Debug, Default)]
struct Key {
    /// What the last write that was asked for has left, or one in doubt that was seen before it.
    last: Option<Bytes>,
    /// What writes of unknown outcome may leave.
    in_doubt: Vec<Option<Bytes>>,
    /// What reads have seen since, by index.
    seen: BTreeMap<Index, Option<Bytes>>,
    /// How many calls had been asked when a read was answered, and its index.
    answered: Vec<(u64, Index)>,
    /// From the first call that is not answered on.
    steps: VecDeque<Step>,
}

/// Of all connections.
#[derive(Debug, Default)]
pub(crate) struct ProgramOrder {
    calls: u64,
    requests: BTreeMap<u64, Request>,
    keys: BTreeMap<Bytes, Key>,
}

impl ProgramOrder {
    /// A client asks for all of this, in this order. The number of the first.
    pub(crate) fn asked(&mut self, requests: &[Request]) -> u64 {
        let first = self.calls;
        for request in requests {
            for (key, does) in self.steps(request) {
                let step = Step { call: self.calls, does, told: None, asked_by_then: 0 };
                self.keys.entry(key).or_default().steps.push_back(step);
            }
            self.requests.insert(self.calls, request.clone());
            self.calls += 1;
        }
        first
    }

    /// What a request does to each key. A list is of keys that have been written before.
    fn steps(&self, request: &Request) -> Vec<(Bytes, Does)> {
        match request {
            Request::Write { parts } => {
                let writes = parts.iter().filter_map(|part| match &part.change {
                    Change::Put(new) => Some((part.key.clone(), Does::Write(Some(new.value.clone())))),
                    Change::Delete { .. } => Some((part.key.clone(), Does::Write(None))),
                    _ => None,
                });
                writes.collect()
            }
            Request::Scan(scan) => {
                let of_scan = self.keys.keys().filter(|key| key.starts_with(&scan.prefix));
                of_scan.map(|key| (key.clone(), Does::Read)).collect()
            }
            other => other.keys().map(|key| (key.clone(), Does::Read)).collect(),
        }
    }

    /// What came of a call; `outcome` is that of a failure.
    pub(crate) fn told(&mut self, call: u64, reply: Option<&Reply>, outcome: Outcome) -> Vec<Broken> {
        let mut broken = Vec::new();
        let Some(request) = self.requests.remove(&call) else { return broken };
        for (key, state) in &mut self.keys {
            let Some(step) = state.steps.iter_mut().find(|step| step.call == call) else { continue };
            step.told = Some(match (&step.does, reply) {
                (Does::Write(_), Some(Reply::Written(_))) => Told::Done,
                (Does::Write(_), _) if outcome == Outcome::Unknown => Told::MayBeDone,
                (Does::Read, Some(reply)) => seen(key, &request, reply),
                _ => Told::Nothing,
            });
            step.asked_by_then = self.calls;
            broken.extend(state.go_on(key));
        }
        broken
    }

    /// Somebody reads a key when nobody writes any more.
    pub(crate) fn read_at_the_end(&mut self, key: &Bytes, value: Option<&Bytes>) -> Option<Broken> {
        self.keys.get_mut(key)?.saw(key, value, Index(u64::MAX), "at the end")
    }
}

impl Key {
    /// Takes the calls that are answered and have none before them that is not.
    fn go_on(&mut self, key: &Bytes) -> Vec<Broken> {
        let mut broken = Vec::new();
        while let Some(step) = self.steps.pop_front_if(|step| step.told.is_some()) {
            match (step.does, step.told) {
                (Does::Write(value), told) => {
                    self.settle();
                    match told {
                        Some(Told::Done) => self.last = value,
                        Some(Told::MayBeDone) => self.in_doubt.push(value),
                        _ => {}
                    }
                }
                (Does::Read, Some(Told::Saw(value, at))) => {
                    let before =
                        self.answered.iter().filter(|(asked_by_then, _)| *asked_by_then <= step.call);
                    let at = before.map(|(_, at)| *at).fold(at, Index::max);
                    broken.extend(self.saw(key, value.as_ref(), at, &format!("by call {}", step.call)));
                    self.answered.push((step.asked_by_then, at));
                }
                _ => {}
            }
        }
        broken
    }

    /// What has come between the values that were seen, and the last of them.
    fn came(&self) -> (Vec<Option<Bytes>>, Option<Bytes>) {
        let (mut came, mut now) = (Vec::new(), &self.last);
        for value in self.seen.values() {
            if value != now {
                came.push(value.clone());
                now = value;
            }
        }
        (came, now.clone())
    }

    /// A write comes: what was seen before it is the past.
    fn settle(&mut self) {
        let (came, last) = self.came();
        for value in came {
            take(&mut self.in_doubt, value.as_ref());
        }
        self.last = last;
        self.seen.clear();
        self.answered.clear();
    }

    fn saw(&mut self, key: &Bytes, value: Option<&Bytes>, at: Index, who: &str) -> Option<Broken> {
        let before = self.seen.insert(at, value.cloned());
        let mut in_doubt = self.in_doubt.clone();
        let is_one_value = before.as_ref().is_none_or(|before| before.as_ref() == value);
        if is_one_value && self.came().0.iter().all(|came| take(&mut in_doubt, came.as_ref())) {
            return None;
        }
        // Of one fault it is said once.
        match before {
            Some(before) => self.seen.insert(at, before),
            None => self.seen.remove(&at),
        };
        let short = |value: Option<&Bytes>| value.map(|value| value.slice(..value.len().min(24)));
        let seen = self.seen.iter().map(|(at, value)| (*at, short(value.as_ref()))).collect::<Vec<_>>();
        Some(broken!(
            NAME,
            "{key:?} is read {who} as {:?} at {at}; the last write before it left {:?}, {} are in doubt, and seen were {seen:?}",
            short(value),
            short(self.last.as_ref()),
            self.in_doubt.len()
        ))
    }
}

/// Takes one of these away, if it is there.
fn take(from: &mut Vec<Option<Bytes>>, value: Option<&Bytes>) -> bool {
    let place = from.iter().position(|one| one.as_ref() == value);
    place.map(|place| from.swap_remove(place)).is_some()
}

/// What a read tells of a key.
fn seen(key: &Bytes, request: &Request, reply: &Reply) -> Told {
    match reply {
        Reply::Value { row, at, .. } => Told::Saw(row.as_ref().map(|row| row.value.clone()), *at),
        Reply::Values { rows, at, .. } => {
            let row =
                request.keys().zip(rows).find(|(asked, _)| *asked == key).and_then(|(_, row)| row.as_ref());
            Told::Saw(row.map(|row| row.value.clone()), *at)
        }
        Reply::Page(page) if page.next.is_none() => {
            let row = page.rows.iter().find(|(found, _)| found == key);
            Told::Saw(row.map(|(_, row)| row.value.clone()), page.at)
        }
        _ => Told::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Consistency, Receipt, Revision, Row};

    use super::*;

    fn get() -> Request {
        Request::Get { key: "k".into(), consistency: Consistency::Linearizable }
    }

    fn saw(value: Option<&'static str>) -> Reply {
        saw_at(value, 1)
    }

    fn saw_at(value: Option<&'static str>, at: u64) -> Reply {
        let row = value.map(|value| Row { value: value.into(), revision: Revision(1) });
        Reply::Value { row, at: Index(at), revision: Revision(1) }
    }

    fn written() -> Reply {
        Reply::Written(Receipt::default())
    }

    /// Two puts and a get, told in this order of places; how many promises are broken.
    fn judged(told: &[(u64, Option<Reply>)]) -> usize {
        let mut judge = ProgramOrder::default();
        let first = judge.asked(&[Request::put("k", "1"), Request::put("k", "2"), get()]);
        let told = told
            .iter()
            .flat_map(|(place, reply)| judge.told(first + place, reply.as_ref(), Outcome::Unknown));
        told.count()
    }

    #[test]
    fn a_read_sees_the_last_write_before_it() {
        let is = |value| [(0, Some(written())), (1, Some(written())), (2, Some(saw(value)))];
        assert_eq!(judged(&is(Some("2"))), 0);
        assert_eq!(judged(&is(Some("1"))), 1);
        assert_eq!(judged(&is(None)), 1);
        // Whatever is told first.
        let [one, two, read] = is(Some("1"));
        assert_eq!(judged(&[read, two, one]), 1);
    }

    #[test]
    fn what_is_in_doubt_may_be_seen_once() {
        let first_in_doubt = |value| [(0, None), (1, Some(written())), (2, Some(saw(value)))];
        assert_eq!(judged(&first_in_doubt(Some("1"))), 0);
        assert_eq!(judged(&first_in_doubt(Some("2"))), 0);
        assert_eq!(judged(&first_in_doubt(None)), 1);

        let mut judge = ProgramOrder::default();
        judge.asked(&[Request::put("k", "1"), Request::put("k", "2"), get(), get(), get()]);
        let mut told = |call, reply: Option<Reply>| judge.told(call, reply.as_ref(), Outcome::Unknown).len();
        let saw = |value, at| Some(saw_at(Some(value), at));
        assert_eq!((told(0, None), told(1, Some(written())), told(2, saw("2", 2))), (0, 0, 0));
        assert_eq!(told(3, saw("1", 3)), 0, "it came late");
        assert_eq!(told(4, saw("2", 4)), 1, "and has taken its place");
        assert_eq!(judge.read_at_the_end(&"k".into(), Some(&"1".into())), None);
        assert!(judge.read_at_the_end(&"k".into(), None).is_some());
    }

    #[test]
    fn reads_under_way_together_wait_for_writes_only() {
        // The first write comes late, at index 5. One read sees it; another looked at this index, and found the second one's value.
        let judged = |at: u64, asked_later: bool| {
            let mut judge = ProgramOrder::default();
            judge.asked(&[Request::put("k", "1"), Request::put("k", "2"), get()]);
            if !asked_later {
                judge.asked(&[get()]);
            }
            let mut found = 0;
            for (call, reply) in [(0, None), (1, Some(written())), (2, Some(saw_at(Some("1"), 5)))] {
                found += judge.told(call, reply.as_ref(), Outcome::Unknown).len();
            }
            if asked_later {
                judge.asked(&[get()]);
            }
            found += judge.told(3, Some(&saw_at(Some("2"), at)), Outcome::Unknown).len();
            judge.asked(&[get(), Request::put("k", "3"), get()]);
            for (call, reply) in [(4, saw_at(Some("1"), 6)), (5, written()), (6, saw_at(Some("3"), 7))] {
                found += judge.told(call, Some(&reply), Outcome::Unknown).len();
            }
            found
        };
        assert_eq!(judged(4, false), 0);
        assert_eq!(judged(5, false), 1, "it looked when the write was there");
        assert_eq!(judged(4, true), 1, "who asks afterwards sees what was read");
    }

    #[test]
    fn two_writes_in_doubt_are_seen_in_the_order_of_the_indexes() {
        // A delete at index 4 and a put at 5, both in doubt. The read that was asked first looked last.
        let judged = |later: &[(Option<&'static str>, u64)]| {
            let mut judge = ProgramOrder::default();
            judge.asked(&[Request::put("k", "1"), Request::delete("k"), Request::put("k", "2")]);
            judge.asked(&[get(), get(), get()]);
            let mut found = judge.told(0, Some(&written()), Outcome::Unknown).len();
            found +=
                judge.told(1, None, Outcome::Unknown).len() + judge.told(2, None, Outcome::Unknown).len();
            found += judge.told(3, Some(&saw_at(Some("2"), 5)), Outcome::Unknown).len();
            for (call, (value, at)) in (4..).zip(later) {
                found += judge.told(call, Some(&saw_at(*value, *at)), Outcome::Unknown).len();
            }
            found + usize::from(judge.read_at_the_end(&"k".into(), Some(&"2".into())).is_some())
        };
        assert_eq!(judged(&[(None, 4), (Some("1"), 3)]), 0);
        assert_eq!(judged(&[(None, 4), (Some("2"), 5)]), 0);
        // The second one looked between the others.
        assert_eq!(judged(&[(None, 3), (None, 4)]), 0);
        assert_eq!(judged(&[(None, 4), (None, 3)]), 0);
        assert_eq!(judged(&[(None, 4), (Some("1"), 4)]), 1, "it was deleted by then");
        assert_eq!(judged(&[(None, 5)]), 1, "the put was there by then");
        assert_eq!(judged(&[(Some("1"), 4), (None, 3)]), 1, "a delete is not undone");
    }

    #[test]
    fn one_of_two_alike_that_are_in_doubt_may_still_come() {
        let mut judge = ProgramOrder::default();
        judge.asked(&[Request::put("k", "1"), Request::delete("k"), Request::delete("k"), get(), get()]);
        let mut told = |call, reply: Option<Reply>| judge.told(call, reply.as_ref(), Outcome::Unknown).len();
        assert_eq!((told(0, Some(written())), told(1, None), told(2, None)), (0, 0, 0));
        assert_eq!((told(3, Some(saw_at(None, 5))), told(4, Some(saw_at(None, 4)))), (0, 0));
        judge.asked(&[Request::put("k", "2"), get(), get(), get()]);
        let mut told = |call, reply: Option<Reply>| judge.told(call, reply.as_ref(), Outcome::Unknown).len();
        assert_eq!((told(5, Some(written())), told(6, Some(saw_at(Some("2"), 6)))), (0, 0));
        assert_eq!(told(7, Some(saw_at(None, 7))), 0, "the other one");
        assert_eq!(told(8, Some(saw_at(Some("2"), 8))), 1);
    }

    #[test]
    fn what_is_rejected_is_not_seen() {
        let mut judge = ProgramOrder::default();
        judge.asked(&[Request::put("k", "1"), get()]);
        assert!(judge.told(0, None, Outcome::Rejected).is_empty());
        assert_eq!(judge.told(1, Some(&saw(Some("1"))), Outcome::Unknown).len(), 1);
    }

    #[test]
    fn of_two_acknowledged_writes_the_later_one_stays() {
        let mut judge = ProgramOrder::default();
        judge.asked(&[Request::put("k", "1"), Request::delete("k")]);
        assert!(judge.told(1, Some(&written()), Outcome::Unknown).is_empty());
        assert!(judge.told(0, Some(&written()), Outcome::Unknown).is_empty());
        assert_eq!(judge.read_at_the_end(&"k".into(), None), None);
        assert!(judge.read_at_the_end(&"k".into(), Some(&"1".into())).is_some());
        assert_eq!(judge.read_at_the_end(&"of nobody".into(), Some(&"1".into())), None);
    }
}
