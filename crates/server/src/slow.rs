//! Requests that take long, for the log: one line in ten seconds, with a count of the rest.
//!
//! A line says what the node's own parts took at most meanwhile: the wait for the core, a write and sync of the log, the wait until entries
//! are applied. If none of them explains it, the time went to other nodes, to the network between them, or to a client that takes its
//! answers late.
//!
//! Lists are as slow as their readers, and what administers the cluster waits for what it asks for: neither is told of.

use std::sync::Arc;
use std::time::Duration;

use crate::doors::throttle::Throttle;
use crate::metrics::{Begun, Metrics, Operation};

/// Those of a node.
#[derive(Debug)]
pub(crate) struct SlowRequests {
    /// None are told of without it.
    beyond: Option<Duration>,
    told: Arc<Throttle>,
}

impl SlowRequests {
    /// Those that take longer than this.
    pub(crate) fn new(beyond: Option<Duration>) -> SlowRequests {
        SlowRequests { beyond, told: Throttle::new("requests were slow") }
    }

    /// Whether a request that took so long is one.
    pub(crate) fn is_slow(&self, begun: Begun, took: Duration) -> bool {
        self.beyond.is_some_and(|beyond| took >= beyond) && is_told_of(begun.operation())
    }

    /// One was; perhaps it was passed on.
    pub(crate) fn tell(&self, begun: Begun, took: Duration, metrics: &Metrics, asked: Option<&str>) {
        metrics.slow_requests.add(1);
        self.told.warn(|| line(begun, took, metrics, asked));
    }
}

fn is_told_of(operation: Operation) -> bool {
    use Operation::{ChangeLayout, Digest, List, ListPage, Status, Transfer};
    !matches!(operation, List | ListPage | Digest | Status | ChangeLayout | Transfer)
}

fn line(begun: Begun, took: Duration, metrics: &Metrics, asked: Option<&str>) -> String {
    let ms = |time: Duration| time.as_millis();
    let asked = asked.map(|name| format!(", passed on to {name}")).unwrap_or_default();
    format!(
        "slow request: {} at {} took {} ms{asked}; meanwhile requests waited up to {} ms for the core, a write and sync of the log took up \
         to {} ms, and entries waited up to {} ms to be applied",
        begun.operation().name(),
        begun.door(),
        ms(took),
        ms(metrics.core_wait.within(took)),
        ms(metrics.log_sync.within(took)),
        ms(metrics.apply_wait.within(took)),
    )
}

#[cfg(test)]
mod tests {
    use ringfort_types::Door;

    use super::*;

    #[test]
    fn a_line_says_what_the_parts_of_the_node_took() {
        let metrics = Metrics::default();
        metrics.log_sync.record(Duration::from_millis(340));
        metrics.core_wait.record(Duration::from_millis(2));
        let line =
            line(Begun::now(Door::V1, Operation::Put), Duration::from_millis(352), &metrics, Some("node2"));
        let wanted = "slow request: put at v1 took 352 ms, passed on to node2; meanwhile requests waited up to 2 ms for the core, a write \
                      and sync of the log took up to 340 ms, and entries waited up to 0 ms to be applied";
        assert_eq!(line, wanted);
    }

    #[test]
    fn what_is_as_slow_as_its_reader_is_not_told_of() {
        let slow = SlowRequests::new(Some(Duration::from_millis(100)));
        let is_slow =
            |operation, ms| slow.is_slow(Begun::now(Door::V1, operation), Duration::from_millis(ms));
        assert!(is_slow(Operation::Get, 100) && !is_slow(Operation::Get, 99));
        assert!(!is_slow(Operation::List, 60_000) && !is_slow(Operation::Transfer, 60_000));
        assert!(
            !SlowRequests::new(None).is_slow(Begun::now(Door::V1, Operation::Get), Duration::from_mins(1))
        );
    }
}
