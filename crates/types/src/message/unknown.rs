//! A message of a kind that this version does not know: its sender runs a later one.

use bytes::Bytes;

/// What was skipped. Nobody makes one but the decoder, and tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unknown {
    /// Its number in a frame.
    pub kind: u64,
    /// What it said.
    pub body: Bytes,
}
