//! What a key and a value may be, and how a refusal says it.

use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, VALUE_BYTES_MAX};
use crate::{Code, Failure};

/// A refusal of what no retry can mend.
pub(crate) fn invalid(message: String) -> Result<(), Failure> {
    Err(Failure::rejected(Code::InvalidArgument, message))
}

pub(crate) fn validate_key(key: &[u8]) -> Result<(), Failure> {
    if key.is_empty() {
        return invalid(format!("empty key: a key has 1 to {KEY_BYTES_MAX} bytes"));
    }
    if key.len() > KEY_BYTES_MAX {
        return invalid(format!("key of {} bytes: the limit is {KEY_BYTES_MAX}", key.len()));
    }
    Ok(())
}

pub(crate) fn validate_value(value: &[u8]) -> Result<(), Failure> {
    if value.len() > VALUE_BYTES_MAX {
        return invalid(format!("value of {} bytes: the limit is {VALUE_BYTES_MAX}", value.len()));
    }
    Ok(())
}

/// As much of a key as fits into a message.
pub fn shown(key: &[u8]) -> impl std::fmt::Display + '_ {
    key[..key.len().min(64)].escape_ascii()
}

/// A name that an operator may give to a node: 1 to 64 letters, digits, `-`, `_` or `.`.
pub fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}
