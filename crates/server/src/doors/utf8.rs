//! Keys and values of doors that speak only text. Other doors of the same data take any bytes.

use bytes::Bytes;
use ringfort_types::{Code, Failure, shown};

/// A value as text.
pub(super) fn text(key: &[u8], value: &Bytes) -> Result<String, Failure> {
    String::from_utf8(value.to_vec()).map_err(|_| {
        let why = format!("the value of key \"{}\" is no UTF-8: read it through ringfort.v1", shown(key));
        Failure::rejected(Code::FailedPrecondition, why)
    })
}

/// A key as text.
pub(super) fn key_text(key: &Bytes) -> Result<String, Failure> {
    String::from_utf8(key.to_vec()).map_err(|_| {
        let why = format!("the key \"{}\" is no UTF-8: list it through ringfort.v1", shown(key));
        Failure::rejected(Code::FailedPrecondition, why)
    })
}
