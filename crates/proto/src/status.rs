//! Failures as gRPC statuses and back; time-outs and the leader hint in metadata.
//!
//! A status says why in its code and message, and whether there may have been an effect in the metadata
//! entry [`OUTCOME`]. A status without that entry was not made by a node's request path (the connection
//! broke, a proxy answered, the transport ran into the deadline), so its outcome is unknown; except that what was never
//! taken surely had no effect.

use std::error::Error;
use std::time::Duration;

use ringfort_types::limits::{CALL_TIMEOUT_DEFAULT_MS, CALL_TIMEOUT_MAX_MS};
use ringfort_types::{Code, Failure, NodeId, Outcome};
use tonic::Status;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::{MetadataMap, MetadataValue};

/// Metadata entry of a failed call: `rejected` or `unknown`.
pub const OUTCOME: &str = "ringfort-outcome";
/// Metadata entry of a failed call that its client's own retry policy must not repeat, with [`NO_RETRY`] (gRPC's proposal A6, "server
/// pushback").
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// A negative number means: not at all.
const NO_RETRY: &str = "-1";
/// Metadata entry of an answer that was relayed: the number of the node to ask next time.
pub const LEADER: &str = "ringfort-leader";
/// Which cluster the node belongs to that has answered a health check, as 16 hexadecimal digits. Absent until it belongs to one.
pub const CLUSTER: &str = "ringfort-cluster";
/// The outcome of what surely had no effect, and that of what may have had one.
const REJECTED: &str = "rejected";
const UNKNOWN: &str = "unknown";
/// What `tonic` says of a call without a message.
const NO_MESSAGE: &str = "Missing request message.";
/// How much sooner than that a node answers: longer than its looks at deadlines are apart, and a turn takes.
const MARGIN_MS: u32 = 200;

/// The status that tells a client of this failure.
pub fn from_failure(failure: Failure) -> Status {
    let code = match failure.code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unavailable | Code::NotLeader | Code::Stopping => tonic::Code::Unavailable,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::DataLoss => tonic::Code::DataLoss,
        Code::SessionExpired => tonic::Code::NotFound,
        Code::SessionGap => tonic::Code::Aborted,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
    };
    with_outcome(Status::new(code, failure.message), failure.outcome)
}

/// The same for a call that could take effect twice if it were sent again: gRPC's own retry policy does not, if it may have had
/// one already.
pub fn from_write_failure(failure: Failure) -> Status {
    let may_have_happened = failure.outcome == Outcome::Unknown;
    let mut status = from_failure(failure);
    if may_have_happened {
        status.metadata_mut().insert(PUSHBACK, MetadataValue::from_static(NO_RETRY));
    }
    status
}

/// What the transport says of a message that it can't take, with an outcome, and with the code that gRPC's documents name for it
/// (`doc/statuscodes.md`): `RESOURCE_EXHAUSTED` for one that is too large, UNIMPLEMENTED where there is none.
/// A status that has an outcome was made here, and stays as it is.
pub fn from_transport(status: Status) -> Status {
    if status.metadata().contains_key(OUTCOME) {
        return status;
    }
    let code = match status.code() {
        tonic::Code::OutOfRange => tonic::Code::ResourceExhausted,
        tonic::Code::Internal if status.message() == NO_MESSAGE => tonic::Code::Unimplemented,
        code => code,
    };
    let mut named = Status::with_metadata(code, status.message(), status.metadata().clone());
    named.metadata_mut().insert(OUTCOME, MetadataValue::from_static(REJECTED));
    named
}

/// The status of a call that surely had no effect, with a code that no failure of a node has.
pub fn refused(code: tonic::Code, message: impl Into<String>) -> Status {
    with_outcome(Status::new(code, message), Outcome::Rejected)
}

fn with_outcome(mut status: Status, outcome: Outcome) -> Status {
    let outcome = match outcome {
        Outcome::Rejected => REJECTED,
        Outcome::Unknown => UNKNOWN,
    };
    status.metadata_mut().insert(OUTCOME, MetadataValue::from_static(outcome));
    status
}

/// The failure that a status tells of.
pub fn to_failure(status: &Status) -> Failure {
    let told = status.metadata().get(OUTCOME).map(MetadataValue::as_bytes);
    let code = match status.code() {
        // Without an outcome it is the transport that says that a message is too large.
        tonic::Code::OutOfRange if told.is_some() => Code::OutOfRange,
        tonic::Code::NotFound if told.is_some() => Code::SessionExpired,
        tonic::Code::Aborted if told.is_some() => Code::SessionGap,
        tonic::Code::InvalidArgument | tonic::Code::OutOfRange | tonic::Code::Unimplemented => {
            Code::InvalidArgument
        }
        tonic::Code::ResourceExhausted => Code::ResourceExhausted,
        tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => Code::DeadlineExceeded,
        tonic::Code::FailedPrecondition => Code::FailedPrecondition,
        tonic::Code::DataLoss => Code::DataLoss,
        tonic::Code::Unauthenticated => Code::Unauthenticated,
        tonic::Code::PermissionDenied => Code::PermissionDenied,
        _ => Code::Unavailable,
    };
    let outcome = match told {
        Some(b"rejected") => Outcome::Rejected,
        None if was_never_taken(status) => Outcome::Rejected,
        _ => Outcome::Unknown,
    };
    Failure { outcome, code, message: status.message().to_owned() }
}

/// Whether the call failed before anything was done of it:
/// - no connection could be made;
/// - the one that there was closed while the call waited to be sent (`hyper` says "canceled" of a request that it still holds
///   whole, and of no other);
/// - the other side said with a GOAWAY that it does not look at it any more (RFC 9113, section 6.8; `h2` gives that error to streams
///   beyond the last one that the GOAWAY names, and to those that were not begun).
fn was_never_taken(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        let is_held = error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled);
        let is_past_the_last =
            error.downcast_ref::<h2::Error>().is_some_and(|error| error.is_go_away() && error.is_remote());
        if is_held || is_past_the_last || error.is::<tonic::ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// Adds the hint that this node would have answered sooner.
pub fn insert_leader(metadata: &mut MetadataMap, leader: NodeId) {
    metadata.insert(LEADER, MetadataValue::from(leader.0));
}

/// The hint that [`insert_leader`] added, if there is one.
pub fn leader(metadata: &MetadataMap) -> Option<NodeId> {
    metadata.get(LEADER)?.to_str().ok()?.parse().ok().map(NodeId)
}

/// Says which cluster the node belongs to; 0 for none.
pub fn set_cluster(metadata: &mut MetadataMap, cluster: u64) {
    if cluster != 0
        && let Ok(digits) = format!("{cluster:016x}").parse()
    {
        metadata.insert(CLUSTER, digits);
    }
}

/// Which cluster the node belongs to; 0 if it does not say so.
pub fn cluster(metadata: &MetadataMap) -> u64 {
    let digits = metadata.get(CLUSTER).and_then(|digits| digits.to_str().ok());
    digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).unwrap_or(0)
}

/// How long to work on a call, from its `grpc-timeout`: a little less than that, so that our own answer,
/// which knows the outcome, comes before the transport's, which doesn't.
pub fn timeout_ms(metadata: &MetadataMap) -> u32 {
    asked_ms(metadata).map_or(CALL_TIMEOUT_DEFAULT_MS, |asked_ms| within(asked_ms.min(CALL_TIMEOUT_MAX_MS)))
}

/// The same for a stream: as long as its reader likes, unless it has a `grpc-timeout`.
pub fn stream_timeout_ms(metadata: &MetadataMap) -> Option<u32> {
    asked_ms(metadata).map(within)
}

fn within(asked_ms: u32) -> u32 {
    (asked_ms - (asked_ms / 5).min(MARGIN_MS)).max(1)
}

/// A call's `grpc-timeout` in milliseconds, if it has one.
fn asked_ms(metadata: &MetadataMap) -> Option<u32> {
    let asked = asked(metadata.as_ref())?;
    Some(u32::try_from(asked.as_millis()).unwrap_or(u32::MAX))
}

/// A call's `grpc-timeout`, if it has one.
pub fn asked(headers: &HeaderMap) -> Option<Duration> {
    parse_timeout(headers.get("grpc-timeout")?.to_str().ok()?)
}

/// gRPC over HTTP/2, "Requests": at most eight digits and a unit.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3_600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_keep_their_outcome_over_the_wire() {
        for number in 1..=13 {
            let code = Code::from_u8(number).unwrap();
            for failure in [Failure::rejected(code, "why"), Failure::unknown(code, "why")] {
                let back = to_failure(&from_failure(failure.clone()));
                assert_eq!((back.outcome, &back.message), (failure.outcome, &failure.message));
                if !matches!(code, Code::NotLeader | Code::Stopping) {
                    assert_eq!(back.code, code);
                }
            }
        }
    }

    #[test]
    fn a_status_that_no_node_made_is_unknown() {
        let failure = to_failure(&Status::unavailable("connection reset"));
        assert_eq!((failure.outcome, failure.code), (Outcome::Unknown, Code::Unavailable));
    }

    #[test]
    fn only_what_may_have_happened_must_not_be_repeated() {
        let pushback = |failure| from_write_failure(failure).metadata().get(PUSHBACK).cloned();
        assert_eq!(pushback(Failure::unknown(Code::Unavailable, "why")).unwrap(), "-1");
        assert_eq!(pushback(Failure::rejected(Code::Unavailable, "why")), None);
    }

    #[test]
    fn the_leader_hint_round_trips() {
        let mut metadata = MetadataMap::new();
        assert_eq!(leader(&metadata), None);
        insert_leader(&mut metadata, NodeId(17));
        assert_eq!(leader(&metadata), Some(NodeId(17)));
    }

    #[test]
    fn timeouts_are_read_shortened_and_capped() {
        let of = |text: &str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout_ms(&metadata)
        };
        assert_eq!(of("2S"), 1_800);
        assert_eq!(of("500m"), 400);
        assert_eq!(of("1n"), 1);
        assert_eq!(of("99999999H"), CALL_TIMEOUT_MAX_MS - 200);
        for malformed in ["", "S", "-1S", "123456789S", "1x", "1"] {
            assert_eq!(of(malformed), CALL_TIMEOUT_DEFAULT_MS, "{malformed:?}");
        }
    }
}
