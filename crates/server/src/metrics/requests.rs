//! Requests, by the door that they came in at and by what they ask for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ringfort_types::{Change, Code, Door, Failure, Outcome, Reply, Request};

use super::histogram::{Counted, Histogram};

const DOORS: [(Door, &str); 6] = [
    (Door::V1, "v1"),
    (Door::Text, "text"),
    (Door::Family, "family"),
    (Door::Proto, "proto"),
    (Door::KvStore, "kvstore"),
    (Door::Kv, "kv"),
];

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Get,
    MultiGet,
    Put,
    Delete,
    Increment,
    Check,
    MultiWrite,
    List,
    ListPage,
    OpenSession,
    Digest,
    Status,
    Users,
    ChangeLayout,
    Transfer,
}

impl Operation {
    const ALL: [(Operation, &str); 15] = [
        (Operation::Get, "get"),
        (Operation::MultiGet, "multi_get"),
        (Operation::Put, "put"),
        (Operation::Delete, "delete"),
        (Operation::Increment, "increment"),
        (Operation::Check, "check"),
        (Operation::MultiWrite, "multi_write"),
        (Operation::List, "list"),
        (Operation::ListPage, "list_page"),
        (Operation::OpenSession, "open_session"),
        (Operation::Digest, "digest"),
        (Operation::Status, "status"),
        (Operation::Users, "users"),
        (Operation::ChangeLayout, "change_layout"),
        (Operation::Transfer, "transfer"),
    ];

    /// Of this request.
    pub(crate) fn of(request: &Request) -> Operation {
        match request {
            Request::Get { .. } => Operation::Get,
            Request::GetMany { .. } => Operation::MultiGet,
            Request::Write { parts } => match &parts[..] {
                [part] => match part.change {
                    Change::Put(_) => Operation::Put,
                    Change::Delete { .. } => Operation::Delete,
                    Change::Add(_) => Operation::Increment,
                    Change::Keep => Operation::Check,
                },
                _ => Operation::MultiWrite,
            },
            Request::Scan(_) => Operation::ListPage,
            Request::OpenSession { .. } => Operation::OpenSession,
            Request::Digest { .. } | Request::DigestAt { .. } => Operation::Digest,
            Request::ClusterState => Operation::Status,
            Request::Users => Operation::Users,
            Request::ChangeLayout(_) => Operation::ChangeLayout,
            Request::Transfer { .. } => Operation::Transfer,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        Operation::ALL[self as usize].1
    }
}

const CODES: [(Code, &str); 13] = [
    (Code::InvalidArgument, "invalid_argument"),
    (Code::ResourceExhausted, "resource_exhausted"),
    (Code::Unavailable, "unavailable"),
    (Code::NotLeader, "not_leader"),
    (Code::DeadlineExceeded, "deadline_exceeded"),
    (Code::FailedPrecondition, "failed_precondition"),
    (Code::DataLoss, "data_loss"),
    (Code::Stopping, "stopping"),
    (Code::SessionExpired, "session_expired"),
    (Code::SessionGap, "session_gap"),
    (Code::OutOfRange, "out_of_range"),
    (Code::Unauthenticated, "unauthenticated"),
    (Code::PermissionDenied, "permission_denied"),
];

const OUTCOMES: [(Outcome, &str); 2] = [(Outcome::Rejected, "rejected"), (Outcome::Unknown, "unknown")];

/// What a door is called in numbers and lines.
pub(crate) fn door_name(door: Door) -> &'static str {
    DOORS[door as usize].1
}

/// What a code is called.
pub(crate) fn code_name(code: Code) -> &'static str {
    CODES[code as usize - 1].1
}

/// What a door's requests of one kind came to.
#[derive(Debug, Default)]
struct Came {
    took: Histogram,
    failed: [[AtomicU64; CODES.len()]; OUTCOMES.len()],
}

/// A request under way, as far as it is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    at: Instant,
    door: Door,
    operation: Operation,
}

impl Begun {
    /// Now.
    pub(crate) fn now(door: Door, operation: Operation) -> Begun {
        Begun { at: Instant::now(), door, operation }
    }

    pub(crate) fn operation(self) -> Operation {
        self.operation
    }

    /// Where it came in.
    pub(crate) fn door(self) -> &'static str {
        door_name(self.door)
    }
}

/// All requests of a node.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    came: [[Came; Operation::ALL.len()]; DOORS.len()],
}

/// What requests of one kind came to.
#[derive(Debug)]
pub(crate) struct Kind {
    pub(crate) door: &'static str,
    pub(crate) operation: &'static str,
    pub(crate) took: Counted,
    /// By outcome and code; those that there are.
    pub(crate) failed: Vec<(&'static str, &'static str, u64)>,
}

impl Requests {
    /// It has been answered.
    pub(crate) fn answered(&self, begun: Begun, reply: &Reply) -> Duration {
        let failure = if let Reply::Failed(failure) = reply { Some(failure) } else { None };
        self.ended(begun, failure)
    }

    /// It has ended, perhaps by this.
    pub(crate) fn ended(&self, begun: Begun, failure: Option<&Failure>) -> Duration {
        let took = begun.at.elapsed();
        let came = &self.came[begun.door as usize][begun.operation as usize];
        came.took.record(took);
        if let Some(failure) = failure {
            let outcome = usize::from(failure.outcome == Outcome::Unknown);
            came.failed[outcome][failure.code as usize - 1].fetch_add(1, Ordering::Relaxed);
        }
        took
    }

    /// The kinds of which there have been any.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = Kind> {
        let doors = self.came.iter().zip(DOORS);
        let all = doors.flat_map(|(came, (_, door))| {
            came.iter().zip(Operation::ALL).map(move |(came, (_, operation))| (came, door, operation))
        });
        all.map(|(came, door, operation)| {
            let failed = came.failed.iter().zip(OUTCOMES).flat_map(|(codes, (_, outcome))| {
                codes.iter().zip(CODES).map(move |(count, (_, code))| (outcome, code, count))
            });
            let failed = failed.map(|(outcome, code, count)| (outcome, code, count.load(Ordering::Relaxed)));
            let failed = failed.filter(|(_, _, count)| *count > 0).collect();
            Kind { door, operation, took: came.took.counted(), failed }
        })
        .filter(|kind| kind.took.count > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_names_are_in_the_order_of_what_they_name() {
        assert!(DOORS.iter().enumerate().all(|(at, (door, _))| *door as usize == at));
        assert!(Operation::ALL.iter().enumerate().all(|(at, (operation, _))| *operation as usize == at));
        assert!(CODES.iter().enumerate().all(|(at, (code, _))| *code as usize == at + 1));
        assert_eq!(Code::from_u8(CODES.len() as u8 + 1), None, "a code without a name");
    }

    #[test]
    fn requests_are_counted_by_door_operation_and_what_they_came_to() {
        let requests = Requests::default();
        let begun = || Begun::now(Door::Text, Operation::of(&Request::increment("k", 1)));
        requests.answered(begun(), &Reply::Written(ringfort_types::Receipt::default()));
        let failure = Failure::unknown(Code::DeadlineExceeded, "late");
        requests.answered(begun(), &Reply::Failed(failure));
        let kinds: Vec<_> = requests.kinds().collect();
        let [kind] = &kinds[..] else { panic!("one kind: {kinds:?}") };
        assert_eq!((kind.door, kind.operation, kind.took.count), ("text", "increment", 2));
        assert_eq!(kind.failed, [("unknown", "deadline_exceeded", 1)]);
    }
}
