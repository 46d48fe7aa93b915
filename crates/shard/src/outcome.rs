//! What a command does, and what is remembered of it: enough to tell its client the same again, and no values.
//!
//! ```text
//! outcome = term varint | index varint | revision varint | what u8 | fields
//! what    = 1 written | 2 not met: part varint, revision varint (0: absent) | 3 counted: value i64 |
//!           4 not a number | 5 too large
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{
    Change, Code, Command, Condition, Failure, Index, Part, Receipt, Reply, Revision, Row, ShardId, Term,
};

use crate::draft::Draft;

/// Fewest bytes of an encoded outcome.
pub(crate) const OUTCOME_BYTES_MIN: usize = 4;

/// What became of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    term: Term,
    index: Index,
    /// The shard's after it.
    revision: Revision,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Written,
    /// The first condition that was not met, and what revision its key had.
    NotMet {
        part: u32,
        revision: Option<Revision>,
    },
    Counted(i64),
    NotANumber,
    TooLarge,
}

impl Outcome {
    /// Does a command of the entry with this term and index.
    pub(crate) fn of(command: &Command, draft: &mut Draft<'_>, term: Term, index: Index) -> Outcome {
        let what = match command {
            Command::Put { key, value } => {
                draft.next_revision();
                draft.change(key.clone(), Some(value.clone()));
                What::Written
            }
            Command::Delete { key } => {
                draft.next_revision();
                draft.change(key.clone(), None);
                What::Written
            }
            Command::Digest => What::Written,
            Command::Write { parts } => write(parts, draft),
            Command::Increment { key, by } => increment(key, *by, draft),
        };
        Outcome { term, index, revision: draft.revision(), what }
    }

    /// What the client is told, the first time and each time that the command comes again. Whoever sends one
    /// sequence number with two commands is told of the first in the words of the second.
    pub(crate) fn reply(&self, shard: ShardId, command: &Command, copies: u32) -> Reply {
        let Outcome { term, index, revision, what } = *self;
        let receipt = Receipt { shard, term, index, revision, copies };
        match what {
            What::Written => Reply::Written(receipt),
            What::Counted(value) => Reply::Counted { value, receipt },
            What::NotMet { part, revision } => {
                let key =
                    if let Command::Write { parts } = command { parts.get(part as usize) } else { None };
                let key = key.map(|part| part.key.clone()).unwrap_or_default();
                Reply::NotMet { part, key, revision, at: index }
            }
            What::NotANumber => Reply::Failed(Failure::rejected(
                Code::FailedPrecondition,
                format!(
                    "{} is not a decimal number from -2^63 to 2^63-1, so nothing can be added to it; put a number \
                     there first",
                    subject(command)
                ),
            )),
            What::TooLarge => Reply::Failed(Failure::rejected(
                Code::OutOfRange,
                format!("{} would be beyond 64 bits; it stays as it is", subject(command)),
            )),
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.term.0);
        put_varint(out, self.index.0);
        put_varint(out, self.revision.0);
        match self.what {
            What::Written => out.put_u8(1),
            What::NotMet { part, revision } => {
                out.put_u8(2);
                put_varint(out, part.into());
                // No key has revision 0.
                put_varint(out, revision.unwrap_or_default().0);
            }
            What::Counted(value) => {
                out.put_u8(3);
                out.put_i64_le(value);
            }
            What::NotANumber => out.put_u8(4),
            What::TooLarge => out.put_u8(5),
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Outcome, Malformed> {
        Ok(Outcome {
            term: Term(reader.varint()?),
            index: Index(reader.varint()?),
            revision: Revision(reader.varint()?),
            what: match reader.u8()? {
                1 => What::Written,
                2 => What::NotMet {
                    part: reader.varint()? as u32,
                    revision: Some(Revision(reader.varint()?)).filter(|revision| *revision != Revision(0)),
                },
                3 => What::Counted(reader.u64()? as i64),
                4 => What::NotANumber,
                5 => What::TooLarge,
                _ => return Err(Malformed("unknown kind of outcome")),
            },
        })
    }
}

/// What a failed increment was about, for people.
fn subject(command: &Command) -> String {
    let Command::Increment { key, .. } = command else { return "the value".to_owned() };
    format!("the value of key \"{}\"", key[..key.len().min(64)].escape_ascii())
}

fn write(parts: &[Part], draft: &mut Draft<'_>) -> What {
    for (number, part) in (0..).zip(parts) {
        let Some(condition) = &part.condition else { continue };
        let row = draft.read(&part.key);
        if !is_met(condition, row.as_ref()) {
            return What::NotMet { part: number, revision: row.map(|row| row.revision) };
        }
    }
    // A write of conditions alone changes nothing, and so has no revision of its own.
    if parts.iter().any(|part| part.change != Change::Keep) {
        draft.next_revision();
    }
    for part in parts {
        match &part.change {
            Change::Put(value) => draft.change(part.key.clone(), Some(value.clone())),
            Change::Delete => draft.change(part.key.clone(), None),
            Change::Keep => continue,
        }
        if planted::is(Bug::WriteAppliedHalf) {
            break;
        }
    }
    What::Written
}

fn is_met(condition: &Condition, row: Option<&Row>) -> bool {
    match condition {
        Condition::Absent => row.is_none(),
        Condition::Present => row.is_some(),
        Condition::Revision(revision) => row.is_some_and(|row| row.revision == *revision),
        Condition::Value(value) => row.is_some_and(|row| row.value == value),
    }
}

fn increment(key: &Bytes, by: i64, draft: &mut Draft<'_>) -> What {
    let before = match draft.read(key) {
        None => Some(0),
        Some(row) => number(&row.value),
    };
    let Some(before) = before else { return What::NotANumber };
    let Some(value) = before.checked_add(by) else { return What::TooLarge };
    draft.next_revision();
    draft.change(key.clone(), Some(Bytes::from(value.to_string())));
    What::Counted(value)
}

/// A number in the only way in which it is written: an optional minus, and digits without a zero in front.
fn number(text: &[u8]) -> Option<i64> {
    let value: i64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (value.to_string().as_bytes() == text).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_written_as_numbers_are_is_a_number() {
        for (text, value) in [("0", 0), ("-1", -1), ("9223372036854775807", i64::MAX)] {
            assert_eq!(number(text.as_bytes()), Some(value));
        }
        assert_eq!(number(i64::MIN.to_string().as_bytes()), Some(i64::MIN));
        for text in ["", "-", "+1", "01", "-0", " 1", "1 ", "1.0", "0x1", "9223372036854775808", "\u{661}"] {
            assert_eq!(number(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn an_outcome_is_laid_out_as_drawn() {
        let whats = [
            (What::Written, &[1][..]),
            (What::NotMet { part: 2, revision: Some(Revision(300)) }, &[2, 2, 0xAC, 2]),
            (What::NotMet { part: 0, revision: None }, &[2, 0, 0]),
            (What::Counted(-2), &[3, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
            (What::NotANumber, &[4]),
            (What::TooLarge, &[5]),
        ];
        for (what, bytes) in whats {
            let outcome = Outcome { term: Term(1), index: Index(2), revision: Revision(3), what };
            let mut out = BytesMut::new();
            outcome.encode(&mut out);
            assert_eq!(&out[..], [&[1, 2, 3], bytes].concat());
            let mut reader = Reader::new(out.freeze());
            assert_eq!(Outcome::decode(&mut reader), Ok(outcome));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}
