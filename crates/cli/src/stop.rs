//! How a command ends when it does not simply end well: an exit code and one line.
//!
//! | code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | not found, a condition not met, not serving (`health`), not safe (`safe-to-stop`), or a shard without a whole copy (`recover`) |
//! | 2 | wrong usage, input that can't be read, over a limit, or not allowed: trying again can't help |
//! | 3 | not available, outcome unknown, or written with fewer copies than asked for: trying again may help |
//!
//! A reader of our output that closes it early (`| head`) has seen enough: that is an end, not a failure.

use std::io;

use ringfort_types::{Code, Failure};

/// An early end. Its line goes to stderr after `ringfort: `; an empty one is not printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    /// The process's exit code.
    pub(crate) code: u8,
    /// What is wrong and what to do.
    pub(crate) message: String,
}

impl Stop {
    /// Not found (1); the caller has said so.
    pub(crate) fn not_found() -> Stop {
        Stop { code: 1, message: String::new() }
    }

    /// A condition was not met, a node does not serve, or should not be stopped (1); the caller has said so.
    pub(crate) fn not_met() -> Stop {
        Stop { code: 1, message: String::new() }
    }

    /// Wrong usage, or over a limit (2).
    pub(crate) fn usage(message: impl Into<String>) -> Stop {
        Stop { code: 2, message: message.into() }
    }

    /// Not available, or outcome unknown (3).
    pub(crate) fn unavailable(message: impl Into<String>) -> Stop {
        Stop { code: 3, message: message.into() }
    }

    /// Ends with this code and says no more.
    pub(crate) fn silent(code: u8) -> Stop {
        Stop { code, message: String::new() }
    }

    /// From writing to stdout.
    pub(crate) fn stdout(error: &io::Error) -> Stop {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Stop::silent(0)
        } else {
            Stop::unavailable(format!("can't write to stdout: {error}"))
        }
    }
}

/// The exit code for a failed request.
pub(crate) fn code_of(failure: &Failure) -> u8 {
    match failure.code {
        Code::InvalidArgument | Code::Unauthenticated | Code::PermissionDenied => 2,
        _ => 3,
    }
}

/// The exit code for a failed request that what is stored can forbid: an increment of what is no number, or has no room
/// for the sum; rows that are too large to be read at once. Trying again does not mend it.
pub(crate) fn code_by_what_is_there(failure: &Failure) -> u8 {
    match failure.code {
        Code::FailedPrecondition | Code::OutOfRange => 2,
        _ => code_of(failure),
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop { code: code_of(&failure), message: failure.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_stdout_is_no_failure() {
        assert_eq!(Stop::stdout(&io::ErrorKind::BrokenPipe.into()), Stop::silent(0));
        assert_eq!(Stop::stdout(&io::ErrorKind::StorageFull.into()).code, 3);
    }

    #[test]
    fn what_is_stored_may_forbid_it_for_good() {
        for (code, exit) in [(Code::FailedPrecondition, 2), (Code::OutOfRange, 2), (Code::Unavailable, 3)] {
            assert_eq!(code_by_what_is_there(&Failure::rejected(code, "no")), exit);
        }
        assert_eq!(code_of(&Failure::rejected(Code::FailedPrecondition, "begin the read anew")), 3);
    }

    #[test]
    fn an_unknown_outcome_says_so() {
        let stop = Stop::from(Failure::unknown(Code::Unavailable, "the connection broke"));
        assert_eq!(stop, Stop::unavailable("outcome unknown: the connection broke"));
        assert_eq!(Stop::from(Failure::rejected(Code::InvalidArgument, "empty key")).code, 2);
    }
}
