//! The checker against the definition: all orders of small histories (`docs/decisions/0003-linearizability-oracle.md`).

use bytes::Bytes;
use proptest::prelude::*;
use ringfort_sim::linearizable::check;
use ringfort_sim::{Action, Operation};

/// Whether some order of the finished operations, and of some of the others, explains what each saw.
fn has_an_order(left: &[&Operation], value: Option<&Bytes>) -> bool {
    if left.iter().all(|operation| operation.returned_us.is_none()) {
        return true;
    }
    (0..left.len()).any(|place| {
        let next = left[place];
        // Nothing that was over before it began may come after it.
        if left.iter().any(|other| other.precedes(next)) {
            return false;
        }
        let rest: Vec<&Operation> =
            left.iter().filter(|other| !std::ptr::eq(**other, next)).copied().collect();
        match &next.action {
            Action::Put(put) => has_an_order(&rest, Some(put)),
            Action::Delete => has_an_order(&rest, None),
            Action::Get(seen) => seen.as_ref() == value && has_an_order(&rest, value),
            Action::Swap { saw, put } => saw.as_ref() == value && has_an_order(&rest, put.as_ref()),
            Action::Add { .. } => unreachable!("no sums are drawn"),
        }
    })
}

/// A history of one key: what is done, when it begins, how long it takes, whether an answer comes.
fn histories() -> impl Strategy<Value = Vec<Operation>> {
    let operation = (0..10u8, 0..4usize, 0..12u64, 0..8u64, 0..4u8);
    prop::collection::vec(operation, 1..8).prop_map(|drawn| {
        let value = |place: usize| Bytes::from(format!("v{place}"));
        let puts: Vec<usize> = (0..drawn.len()).filter(|place| matches!(drawn[*place].0, 0..4 | 8)).collect();
        let operation =
            |(place, (kind, which, invoked_us, takes_us, answered)): (usize, &(u8, usize, u64, u64, u8))| {
                let action = match kind {
                    0..4 => Action::Put(value(place)),
                    4 => Action::Delete,
                    8 => {
                        Action::Swap { saw: puts.get(*which).map(|put| value(*put)), put: Some(value(place)) }
                    }
                    9 => Action::Swap { saw: puts.get(*which).map(|put| value(*put)), put: None },
                    _ => Action::Get(puts.get(*which).map(|put| value(*put))),
                };
                let is_unknown = *answered == 0 && !matches!(action, Action::Get(_));
                let returned_us = (!is_unknown).then_some(invoked_us + takes_us);
                Operation {
                    client: place as u64,
                    key: Bytes::from("k"),
                    action,
                    invoked_us: *invoked_us,
                    returned_us,
                }
            };
        drawn.iter().enumerate().map(operation).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn the_checker_says_what_all_orders_say(history in histories()) {
        let all: Vec<&Operation> = history.iter().collect();
        prop_assert_eq!(check(&history).is_ok(), has_an_order(&all, None));
    }
}
