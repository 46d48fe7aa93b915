//! JSON, one object a line: what `--json` prints, and the rows of `--format jsonl`.
//!
//! Keys and values are bytes, strings of JSON are text. Bytes that are UTF-8 are a string under their own name; others
//! are in base64 (RFC 4648, with padding) under that name and `_base64`: `{"key":"a","value_base64":"/w=="}`. Exactly one
//! of the two is there, so that every key and value comes back byte for byte, and what people read stays readable.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringfort_client::{Counted, NotMet, Read};
use ringfort_types::{Failure, Outcome, Receipt, Revision, Row};
use serde::{Deserialize, Serialize};

/// An object that is being written, its fields in the order of their writing.
#[derive(Debug)]
pub(crate) struct Object(Vec<u8>);

impl Object {
    pub(crate) fn new() -> Object {
        Object(Vec::new())
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: impl Serialize) -> Object {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        string_into(&mut self.0, name);
        self.0.push(b':');
        serde_json::to_writer(&mut self.0, &value).expect("a plain value can be written to memory");
        self
    }

    /// Adds bytes, as text if they are.
    pub(crate) fn bytes(self, name: &str, bytes: &[u8]) -> Object {
        match std::str::from_utf8(bytes) {
            Ok(text) => self.field(name, text),
            Err(_) => self.field(&format!("{name}_base64"), BASE64.encode(bytes)),
        }
    }

    /// Adds what an acknowledged write returns.
    pub(crate) fn receipt(self, receipt: &Receipt) -> Object {
        self.field("revision", receipt.revision.0)
            .field("shard", receipt.shard.0)
            .field("term", receipt.term.0)
            .field("index", receipt.index.0)
            .field("copies", receipt.copies)
    }

    /// Adds that a write was done, and its receipt.
    pub(crate) fn done(self, receipt: &Receipt) -> Object {
        self.field("done", true).receipt(receipt)
    }

    /// Adds that a write was not done, because of what its key (named by the caller) was found to be.
    pub(crate) fn not_met(self, not_met: &NotMet) -> Object {
        self.field("done", false)
            .field("revision", not_met.revision.map(|revision| revision.0))
            .field("index", not_met.at.0)
    }

    /// Adds what came of an increment.
    pub(crate) fn counted(self, counted: &Counted) -> Object {
        self.field("value", counted.value).receipt(&counted.receipt)
    }

    /// Adds a row, or that there is none.
    pub(crate) fn row(self, row: Option<&Row>) -> Object {
        let found = self.field("found", row.is_some());
        match row {
            Some(row) => found.bytes("value", &row.value).field("revision", row.revision.0),
            None => found,
        }
    }

    /// Adds what a read found. `revision` is the row's; the shard's own is beside it, with the index of the read.
    pub(crate) fn read(self, read: &Read) -> Object {
        self.row(read.row.as_ref()).field("shard_revision", read.revision.0).field("index", read.at.0)
    }

    /// Adds why a request failed, and the exit code that it is worth.
    pub(crate) fn failure(self, failure: &Failure, code: u8) -> Object {
        let outcome = match failure.outcome {
            Outcome::Unknown => "unknown",
            Outcome::Rejected => "rejected",
        };
        self.field("error", failure.to_string()).field("outcome", outcome).field("exit_code", code)
    }

    /// Its text, without the line's end.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(if self.0.is_empty() { b"{}" } else { b"}" });
        self.0
    }
}

fn string_into(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string can be written to memory");
}

/// Appends one row as a line, its end included.
pub(crate) fn row_into(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>, revision: Revision) {
    let mut row = Object::new().bytes("key", key);
    if let Some(value) = value {
        row = row.bytes("value", value);
    }
    out.extend_from_slice(&row.field("revision", revision.0).finish());
    out.push(b'\n');
}

/// One line of an import.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'a> {
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    key_base64: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value: Option<Cow<'a, str>>,
    #[serde(borrow)]
    value_base64: Option<Cow<'a, str>>,
    // Of the row where it was exported; here it gets one of its own.
    #[serde(rename = "revision")]
    _revision: Option<u64>,
}

/// Appends a line's key and then its value to `row`; returns the key's length, or what is wrong.
pub(crate) fn parse_row(row: &mut Vec<u8>, line: &[u8]) -> Result<usize, String> {
    if line.trim_ascii().is_empty() {
        return Err("an empty line: a row is an object with key and value".into());
    }
    // An array would do, too, for those who derive readers.
    if line.trim_ascii_start().first() == Some(&b'[') {
        return Err("an array: a row is an object with key and value".into());
    }
    let line: Line<'_> = serde_json::from_slice(line).map_err(|error| why(&error))?;
    put(row, "key", line.key.as_deref(), line.key_base64.as_deref())?;
    let split = row.len();
    put(row, "value", line.value.as_deref(), line.value_base64.as_deref())?;
    Ok(split)
}

fn put(row: &mut Vec<u8>, name: &str, text: Option<&str>, base64: Option<&str>) -> Result<(), String> {
    match (text, base64) {
        (Some(text), None) => row.extend_from_slice(text.as_bytes()),
        (None, Some(text)) => {
            BASE64
                .decode_vec(text, row)
                .map_err(|error| format!("`{name}_base64` is not base64: {error}"))?;
        }
        (Some(_), Some(_)) => return Err(format!("`{name}` and `{name}_base64`: one of the two says it")),
        (None, None) => return Err(format!("no `{name}` (or `{name}_base64`, if it is not UTF-8)")),
    }
    Ok(())
}

/// An error without the line, which the parser takes for the first and we know better.
fn why(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.rsplit_once(" at line ").map_or(text.as_str(), |(what, _)| what);
    format!("no row in JSON: {what}, at column {}", error.column())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(line: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
        let mut row = Vec::new();
        let split = parse_row(&mut row, line)?;
        let value = row.split_off(split);
        Ok((row, value))
    }

    #[test]
    fn text_is_readable_and_bytes_are_base64() {
        let mut lines = Vec::new();
        row_into(&mut lines, "Blåbær\t\"".as_bytes(), Some(b"\xff\x00"), Revision(7));
        row_into(&mut lines, b"\xff", None, Revision(8));
        let expected = "{\"key\":\"Blåbær\\t\\\"\",\"value_base64\":\"/wA=\",\"revision\":7}\n{\"key_base64\":\"/w==\",\"revision\":8}\n";
        assert_eq!(String::from_utf8_lossy(&lines), expected);
    }

    #[test]
    fn a_line_that_is_no_row_says_why() {
        for (line, says) in [
            ("{\"key\":\"a\"}", "no `value`"),
            (" [\"a\",null,\"v\",null,null]", "a row is an object"),
            ("{\"value\":\"a\"}", "no `key`"),
            ("{\"key\":\"a\",\"key_base64\":\"YQ==\",\"value\":\"\"}", "one of the two"),
            ("{\"key\":\"a\",\"value_base64\":\"YQ\"}", "not base64"),
            ("{\"key\":\"a\",\"value\":5}", "invalid type: integer `5`, expected a string, at column 20"),
            ("{\"key\":\"a\",\"value\":\"b\",\"ttl\":\"c\"}", "unknown field `ttl`"),
            (
                "{\"key\":\"a\",\"value\":\"b\",\"revision\":\"c\"}",
                "invalid type: string \"c\", expected u64",
            ),
            ("{\"key\":\"a\",\"key\":\"b\",\"value\":\"c\"}", "duplicate field `key`"),
            ("{\"key\":\"a\",\"value\":\"b\"} x", "trailing characters"),
            ("a\tb", "expected value, at column 1"),
            (" ", "an empty line"),
        ] {
            let why = read(line.as_bytes()).expect_err(line);
            assert!(why.contains(says) && !why.contains("at line"), "{line}: {why}");
        }
    }

    proptest! {
        #[test]
        fn comes_back_byte_for_byte(
            key in proptest::collection::vec(any::<u8>(), 0..20),
            revision: u64,
            value in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..40), "\\PC{0,40}".prop_map(String::into_bytes)],
        ) {
            let mut line = Vec::new();
            row_into(&mut line, &key, Some(&value), Revision(revision));
            prop_assert_eq!(line.iter().position(|byte| *byte == b'\n'), Some(line.len() - 1));
            prop_assert_eq!(read(&line), Ok((key, value)));
        }
    }
}
