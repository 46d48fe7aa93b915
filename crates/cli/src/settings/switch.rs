//! Switches: flags without a value, which the environment and the file set to yes or no, and a twin switches off.

use std::ffi::{OsStr, OsString};

/// What the twin of a switch is called: `no-json` for `json`.
pub(super) fn twin(long: &str) -> String {
    format!("no-{long}")
}

/// Reads a switch as people write it in an environment.
pub(super) fn read(text: &OsStr) -> Result<bool, String> {
    let said = text.to_string_lossy().trim().to_ascii_lowercase();
    match said.as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{:?} is neither yes nor no: write true or false", text.to_string_lossy())),
    }
}

/// The same as its flag would have it.
pub(super) fn text(text: &OsStr) -> OsString {
    if read(text) == Ok(true) { "true".into() } else { "false".into() }
}
