//! What a command does, and what is remembered of it: enough to tell its client the same again, and no values.
//!
//! ```text
//! outcome = term varint | index varint | revision varint | what u8 | fields
//! what    = 1 written | 2 not met: part varint, revision varint (0: absent) |
//!           3 written, with sums: count varint, i64 × count | 4 not a number: part varint | 5 too large: part varint |
//!           6 void: why, bytes (of a change of the layout, which has no session, so that it is not kept)
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::limits::WRITE_SUMS_MAX;
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint};
use ringfort_types::{
    Change, Code, Command, Condition, Failure, Index, Part, Receipt, Reply, Revision, ShardId, Term, shown,
};

use crate::ShardError;
use crate::draft::Draft;
use crate::row::Stored;

/// Fewest bytes of an encoded outcome.
pub(crate) const OUTCOME_BYTES_MIN: usize = 4;
/// Longest reason why a change is void, in bytes.
const VOID_BYTES_MAX: usize = 4096;

/// What became of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    term: Term,
    index: Index,
    /// The shard's after it.
    revision: Revision,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Done; the sums of the parts that add to a number, in their order.
    Written(Vec<i64>),
    /// The first condition that was not met, and what revision its key had.
    NotMet { part: u32, revision: Option<Revision> },
    /// The part that adds to what is no number.
    NotANumber(u32),
    /// The part whose sum does not fit.
    TooLarge(u32),
    /// Why the change of the layout is none.
    Void(String),
}

impl Outcome {
    /// Does a command of the entry with this term and index.
    pub(crate) fn of(
        command: &Command,
        draft: &mut Draft<'_>,
        term: Term,
        index: Index,
    ) -> Result<Outcome, ShardError> {
        let kind = match command {
            Command::Write { parts } => write(parts, draft)?,
            Command::Digest => Kind::Written(Vec::new()),
            Command::Layout(change) => {
                draft.change_layout(change).map_or_else(Kind::Void, |()| Kind::Written(Vec::new()))
            }
        };
        Ok(Outcome { term, index, revision: draft.revision(), kind })
    }

    /// What the client is told, the first time and each time that the command comes again. Whoever sends one
    /// sequence number with two commands is told of the first in the words of the second.
    pub(crate) fn reply(&self, shard: ShardId, command: &Command, copies: u32) -> Reply {
        let Outcome { term, index, revision, kind } = self;
        let key = |part: u32| {
            let part = if let Command::Write { parts } = command { parts.get(part as usize) } else { None };
            part.map(|part| part.key.clone()).unwrap_or_default()
        };
        match kind {
            Kind::Written(sums) => Reply::Written(Receipt {
                shard,
                term: *term,
                index: *index,
                revision: *revision,
                copies,
                lacking: Vec::new(),
                sums: sums.clone(),
            }),
            Kind::NotMet { part, revision } => {
                Reply::NotMet { part: *part, key: key(*part), revision: *revision, at: *index }
            }
            Kind::NotANumber(part) => Reply::Failed(Failure::rejected(
                Code::FailedPrecondition,
                format!(
                    "the value of key \"{}\" is not a decimal number from -2^63 to 2^63-1, so nothing can be added to \
                     it; put a number there first",
                    shown(&key(*part))
                ),
            )),
            Kind::Void(why) => Reply::Failed(Failure::rejected(Code::FailedPrecondition, why)),
            Kind::TooLarge(part) => Reply::Failed(Failure::rejected(
                Code::OutOfRange,
                format!(
                    "the value of key \"{}\" would be beyond 64 bits; it stays as it is",
                    shown(&key(*part))
                ),
            )),
        }
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.term.0);
        put_varint(out, self.index.0);
        put_varint(out, self.revision.0);
        match &self.kind {
            Kind::Written(sums) if sums.is_empty() => out.put_u8(1),
            Kind::NotMet { part, revision } => {
                out.put_u8(2);
                put_varint(out, (*part).into());
                // No key has revision 0.
                put_varint(out, revision.unwrap_or_default().0);
            }
            Kind::Written(sums) => {
                out.put_u8(3);
                put_varint(out, sums.len() as u64);
                for sum in sums {
                    out.put_i64_le(*sum);
                }
            }
            Kind::NotANumber(part) => {
                out.put_u8(4);
                put_varint(out, (*part).into());
            }
            Kind::TooLarge(part) => {
                out.put_u8(5);
                put_varint(out, (*part).into());
            }
            Kind::Void(why) => {
                out.put_u8(6);
                put_bytes(out, why.as_bytes());
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<Outcome, Malformed> {
        Ok(Outcome {
            term: Term(reader.varint()?),
            index: Index(reader.varint()?),
            revision: Revision(reader.varint()?),
            kind: match reader.u8()? {
                1 => Kind::Written(Vec::new()),
                2 => Kind::NotMet {
                    part: reader.varint()? as u32,
                    revision: Some(Revision(reader.varint()?)).filter(|revision| *revision != Revision(0)),
                },
                3 => {
                    let count = reader.count(8)?;
                    if count > WRITE_SUMS_MAX {
                        return Err(Malformed("too many sums in an outcome"));
                    }
                    let mut sums = Vec::with_capacity(count);
                    for _ in 0..count {
                        sums.push(reader.u64()? as i64);
                    }
                    Kind::Written(sums)
                }
                4 => Kind::NotANumber(reader.varint()? as u32),
                5 => Kind::TooLarge(reader.varint()? as u32),
                6 => Kind::Void(reader.string(VOID_BYTES_MAX)?),
                _ => return Err(Malformed("unknown kind of outcome")),
            },
        })
    }
}

/// Conditions first, then sums, then changes: so that nothing is changed if any of them does not go.
fn write(parts: &[Part], draft: &mut Draft<'_>) -> Result<Kind, ShardError> {
    for (number, part) in (0..).zip(parts) {
        let Some(condition) = &part.condition else { continue };
        let stored = draft.read(&part.key)?;
        if !is_met(condition, stored.as_ref()) {
            let row = stored.and_then(Stored::into_row);
            return Ok(Kind::NotMet { part: number, revision: row.map(|row| row.revision) });
        }
    }
    let mut sums = Vec::new();
    for (number, part) in (0..).zip(parts) {
        let Change::Add(by) = part.change else { continue };
        let row = draft.read(&part.key)?.and_then(Stored::into_row);
        let before = row.map_or(Some(0), |row| self::number(&row.value));
        let Some(before) = before else { return Ok(Kind::NotANumber(number)) };
        let Some(sum) = before.checked_add(by) else { return Ok(Kind::TooLarge(number)) };
        sums.push(sum);
    }
    // A write of conditions alone changes nothing, and so has no revision of its own.
    if parts.iter().any(|part| part.change != Change::Keep) {
        draft.next_revision();
    }
    let mut next_sum = sums.iter();
    for part in parts {
        match &part.change {
            Change::Put(new) => draft.put(part.key.clone(), new.clone()),
            Change::Delete { version } => draft.delete(part.key.clone(), *version),
            Change::Add(_) => {
                let sum = next_sum.next().expect("one for each part that adds");
                draft.put(part.key.clone(), Bytes::from(sum.to_string()).into());
            }
            Change::Keep => continue,
        }
        if planted::is(Bug::WriteAppliedHalf) {
            break;
        }
    }
    Ok(Kind::Written(sums))
}

fn is_met(condition: &Condition, stored: Option<&Stored>) -> bool {
    let value = stored.and_then(|stored| stored.value.as_ref());
    match condition {
        Condition::Absent => value.is_none(),
        Condition::Present => value.is_some(),
        Condition::Revision(revision) => {
            value.is_some() && stored.is_some_and(|stored| stored.revision == *revision)
        }
        Condition::Value(wanted) => value == Some(wanted),
        Condition::NotNewerThan(version) => {
            stored.and_then(|stored| stored.version).is_none_or(|stored| stored <= *version)
        }
    }
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
        let kinds = [
            (Kind::Written(vec![]), &[1][..]),
            (Kind::NotMet { part: 2, revision: Some(Revision(300)) }, &[2, 2, 0xAC, 2]),
            (Kind::NotMet { part: 0, revision: None }, &[2, 0, 0]),
            (Kind::Written(vec![-2]), &[3, 1, 0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]),
            (Kind::NotANumber(3), &[4, 3]),
            (Kind::TooLarge(0), &[5, 0]),
            (Kind::Void("no".to_owned()), &[6, 2, b'n', b'o']),
        ];
        for (kind, bytes) in kinds {
            let outcome = Outcome { term: Term(1), index: Index(2), revision: Revision(3), kind };
            let mut out = BytesMut::new();
            outcome.encode(&mut out);
            assert_eq!(&out[..], [&[1, 2, 3], bytes].concat());
            let mut reader = Reader::new(out.freeze());
            assert_eq!(Outcome::decode(&mut reader), Ok(outcome));
            assert_eq!(reader.finish(), Ok(()));
        }
    }
}
