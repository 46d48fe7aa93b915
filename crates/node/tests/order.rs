//! Program order: what may overtake what, by example and against a twin that compares each call with all before it.

use std::collections::BTreeSet;

use proptest::prelude::*;
use ringfort_node::order::{CALL_SLOTS_MAX, ProgramOrder};
use ringfort_types::{Change, Consistency, Part, Request, Scan, ShardId, Slot, slot_of};

fn get(key: &str) -> Request {
    Request::Get { key: key.to_owned().into(), consistency: Consistency::Linearizable }
}

fn get_many(keys: &[&str]) -> Request {
    let keys = keys.iter().map(|key| (*key).to_owned().into()).collect();
    Request::GetMany { keys, consistency: Consistency::Linearizable }
}

fn set(key: &str) -> Request {
    Request::put(key.to_owned(), "v")
}

fn set_many(keys: &[&str]) -> Request {
    Request::Write { parts: keys.iter().map(|key| Part::new((*key).to_owned(), Change::DELETE)).collect() }
}

fn scan() -> Request {
    Request::Scan(Scan {
        shard: ShardId(1),
        at: None,
        from: "".into(),
        prefix: "".into(),
        rows_max: 1,
        bytes_max: 1,
        keys_only: false,
    })
}

/// A connection that asks for one thing after the other, in places 0, 1, 2 ...
#[derive(Default)]
struct Asker {
    order: ProgramOrder,
    next: u32,
}

impl Asker {
    fn ask(&mut self, request: &Request) -> bool {
        let place = self.next;
        self.next += 1;
        self.order.may_go(place, request)
    }

    fn done(&mut self, place: u32) -> Vec<u32> {
        let mut go = Vec::new();
        self.order.done(place, &mut go);
        go
    }
}

#[test]
fn one_key_at_a_time_unless_all_read() {
    let mut asker = Asker::default();
    assert!(asker.ask(&set("k")));
    assert!(!asker.ask(&set("k")) && !asker.ask(&get("k")) && !asker.ask(&get("k")) && !asker.ask(&set("k")));
    assert_eq!((asker.order.unanswered(), asker.order.held()), (5, 4));
    assert_eq!(asker.done(0), [1]);
    assert_eq!(asker.done(1), [2, 3], "reads go together");
    assert_eq!(asker.done(3), [], "the other read is not answered");
    assert!(asker.order.is_held(4) && !asker.ask(&get("k")), "a read does not overtake a write that waits");
    assert_eq!(asker.done(2), [4]);
    assert_eq!(asker.done(4), [5]);
    assert_eq!(asker.done(5), []);
    assert_eq!((asker.order.unanswered(), asker.order.held()), (0, 0));
}

#[test]
fn other_slots_go_on() {
    let mut asker = Asker::default();
    assert!(asker.ask(&set("a")) && asker.ask(&set("b")) && asker.ask(&get("c")));
    assert!(!asker.ask(&get("{a}1")), "another key of the slot");
    assert!(!asker.ask(&get_many(&["a", "d"])) && !asker.ask(&set("d")));
    assert_eq!(asker.done(1), []);
    assert_eq!(asker.done(0), [3, 4], "both read");
    assert_eq!(asker.done(4), [5]);
}

#[test]
fn a_call_with_several_keys_goes_when_it_has_all_of_them() {
    let mut asker = Asker::default();
    assert!(asker.ask(&set("a")) && asker.ask(&set("b")));
    assert!(!asker.ask(&set_many(&["a", "b", "c"])) && !asker.ask(&get("c")));
    assert_eq!(asker.done(0), []);
    assert_eq!(asker.done(1), [2]);
    assert_eq!(asker.done(2), [3]);
}

#[test]
fn a_scan_waits_for_all_and_all_wait_for_it() {
    let mut asker = Asker::default();
    assert!(asker.ask(&get("a")) && asker.ask(&set("b")));
    assert!(!asker.ask(&scan()) && !asker.ask(&get("c")) && !asker.ask(&scan()));
    assert_eq!(asker.done(1), []);
    assert_eq!(asker.done(0), [2]);
    assert_eq!(asker.done(2), [3]);
    assert_eq!(asker.done(3), [4]);
}

#[test]
fn what_tells_of_no_key_never_waits() {
    let mut asker = Asker::default();
    assert!(asker.ask(&scan()) && asker.ask(&Request::ClusterState));
    assert!(asker.ask(&Request::OpenSession { shard: ShardId(1) }));
    assert_eq!(asker.done(1), []);
}

#[test]
fn what_is_given_up_holds_nobody_back() {
    let mut asker = Asker::default();
    assert!(asker.ask(&get("a")) && !asker.ask(&set("a")) && !asker.ask(&get("a")));
    assert_eq!(asker.done(1), [2], "the write was never sent");
    assert_eq!(asker.done(0), []);
    assert_eq!(asker.done(2), []);
}

#[test]
fn a_call_with_very_many_slots_counts_as_one_with_all() {
    let names: Vec<String> = (0..=CALL_SLOTS_MAX).map(|n| format!("n{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(names.iter().map(|name| slot_of(name.as_bytes())).collect::<BTreeSet<_>>().len(), names.len());
    for (keys, all) in [(&names[1..], false), (&names[..], true)] {
        let mut asker = Asker::default();
        assert!(asker.ask(&get_many(keys)));
        assert_eq!(asker.ask(&set("another")), !all);
    }
}

#[test]
#[should_panic(expected = "place 0 of a connection is in use twice")]
fn a_place_is_used_once_at_a_time() {
    let mut order = ProgramOrder::new();
    order.may_go(0, &get("a"));
    order.may_go(0, &get("b"));
}

/// What a call touches, and whether it writes.
#[derive(Clone, Debug)]
struct Naive {
    slots: Option<BTreeSet<Slot>>,
    writes: bool,
    /// Whether it has been told to go.
    gone: bool,
}

impl Naive {
    fn of(request: &Request) -> Naive {
        let slots: BTreeSet<Slot> = request.keys().map(|key| slot_of(key)).collect();
        let touches_all = matches!(request, Request::Scan(_));
        Naive { slots: (!touches_all).then_some(slots), writes: request.is_write(), gone: false }
    }

    fn conflicts(&self, other: &Naive) -> bool {
        match (&self.slots, &other.slots) {
            (Some(mine), Some(theirs)) => !mine.is_disjoint(theirs) && (self.writes || other.writes),
            (None, Some(slots)) | (Some(slots), None) => !slots.is_empty(),
            (None, None) => true,
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Ask(Request),
    /// Ends one of those not answered, held back or not.
    Done(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || prop::sample::select(vec!["a", "b", "c", "d", "{a}x"]);
    let keys =
        || prop::collection::btree_set(key(), 1..4).prop_map(|keys| keys.into_iter().collect::<Vec<_>>());
    prop_oneof![
        3 => key().prop_map(|key| Step::Ask(get(key))),
        3 => key().prop_map(|key| Step::Ask(set(key))),
        1 => keys().prop_map(|keys| Step::Ask(get_many(&keys))),
        1 => keys().prop_map(|keys| Step::Ask(set_many(&keys))),
        1 => Just(Step::Ask(scan())),
        1 => Just(Step::Ask(Request::ClusterState)),
        7 => any::<usize>().prop_map(Step::Done),
    ]
}

proptest! {
    /// A call may go exactly when nothing before it that is not answered conflicts with it; and it is said once.
    #[test]
    fn it_agrees_with_its_naive_twin(steps in prop::collection::vec(step(), 0..80)) {
        let mut order = ProgramOrder::new();
        // In the order in which they were asked.
        let mut twin: Vec<(u32, Naive)> = Vec::new();
        let mut go = Vec::new();
        for step in steps {
            go.clear();
            match step {
                Step::Ask(request) => {
                    let place = (0..=twin.len() as u32).find(|place| twin.iter().all(|(used, _)| used != place)).unwrap();
                    twin.push((place, Naive::of(&request)));
                    if order.may_go(place, &request) {
                        go.push(place);
                    }
                }
                Step::Done(_) if twin.is_empty() => continue,
                Step::Done(which) => {
                    let (place, _) = twin.remove(which % twin.len());
                    order.done(place, &mut go);
                }
            }
            let mut expected = Vec::new();
            for at in 0..twin.len() {
                let (before, rest) = twin.split_at_mut(at);
                let (place, call) = &mut rest[0];
                if !call.gone && !before.iter().any(|(_, earlier)| earlier.conflicts(call)) {
                    call.gone = true;
                    expected.push(*place);
                }
                prop_assert_eq!(order.is_held(*place), !call.gone);
            }
            go.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&go, &expected);
            prop_assert_eq!(order.unanswered(), twin.len());
            prop_assert_eq!(order.held(), twin.iter().filter(|(_, call)| !call.gone).count());
        }
    }
}
