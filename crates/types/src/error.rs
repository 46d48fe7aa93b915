//! How a request fails: what surely did not happen, and what may have.

use std::convert::Infallible;
use std::fmt;

/// Whether a failed request may still have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing happened, and nothing will. Safe to send again.
    Rejected,
    /// It may have happened, or may still happen. Sending it again may do it twice.
    Unknown,
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Code {
    /// The request breaks a rule that no retry can mend: empty key, a key or value over its limit.
    InvalidArgument = 1,
    /// A bound was reached: too many requests waiting, disk full. Later may be better.
    ResourceExhausted = 2,
    /// The shard has no leader that a majority follows, or the node that has it can't be reached.
    Unavailable = 3,
    /// The asked replica does not lead the shard. Sent between nodes only.
    NotLeader = 4,
    /// The deadline passed before the answer came.
    DeadlineExceeded = 5,
    /// The state does not allow it: a scan whose index is collected, a shard that does not exist, an increment of what
    /// is no number.
    FailedPrecondition = 6,
    /// Stored data is damaged beyond what the replicas can repair.
    DataLoss = 7,
    /// The node is stopping.
    Stopping = 8,
    /// The shard has forgotten the session, or can't tell whether it has: the write was not done now, and whether it
    /// was done when it was sent before is not known any more. Later writes need a new session.
    SessionExpired = 9,
    /// An earlier write of the session has not come yet: resend in order.
    SessionGap = 10,
    /// The result would not fit: an increment beyond 64 bits.
    OutOfRange = 11,
    /// Rights are enforced, and whoever asks has not said who they are, or is no user any more.
    Unauthenticated = 12,
    /// The user may not do it.
    PermissionDenied = 13,
}

impl Code {
    /// The code with this number, if there is one.
    pub fn from_u8(number: u8) -> Option<Code> {
        Some(match number {
            1 => Code::InvalidArgument,
            2 => Code::ResourceExhausted,
            3 => Code::Unavailable,
            4 => Code::NotLeader,
            5 => Code::DeadlineExceeded,
            6 => Code::FailedPrecondition,
            7 => Code::DataLoss,
            8 => Code::Stopping,
            9 => Code::SessionExpired,
            10 => Code::SessionGap,
            11 => Code::OutOfRange,
            12 => Code::Unauthenticated,
            13 => Code::PermissionDenied,
            _ => return None,
        })
    }
}

/// A failed request, as its sender sees it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Failure {
    /// Whether it may have had an effect.
    pub outcome: Outcome,
    /// Why it failed.
    pub code: Code,
    /// One line for people: what is wrong and what to do.
    pub message: String,
}

impl Failure {
    /// A failure without any effect.
    pub fn rejected(code: Code, message: impl Into<String>) -> Failure {
        Failure { outcome: Outcome::Rejected, code, message: message.into() }
    }

    /// A failure that may have had its effect.
    pub fn unknown(code: Code, message: impl Into<String>) -> Failure {
        Failure { outcome: Outcome::Unknown, code, message: message.into() }
    }
}

/// For what can't fail where something may.
impl From<Infallible> for Failure {
    fn from(never: Infallible) -> Failure {
        match never {}
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Rejected => f.write_str(&self.message),
            Outcome::Unknown => write!(f, "outcome unknown: {}", self.message),
        }
    }
}
