//! Atomic writes: conditions, and changes of several keys that happen all or not at all.
//!
//! ```text
//! part      = key bytes | condition | change
//! condition = 0 none | 1 absent | 2 present | 3, revision varint | 4, value bytes
//! change    = 0 keep | 1 delete | 2 put, value bytes          (each number a u8)
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_PARTS_MAX};
use crate::request::{invalid, validate_key, validate_value};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Failure, Revision};

/// Fewest bytes of a part: an empty key's length, no condition, no change.
const PART_BYTES_MIN: usize = 3;

/// What a key has to be for a write to happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Not there.
    Absent,
    /// There, whatever its value.
    Present,
    /// There, and last changed by the command that made this revision of the shard.
    Revision(Revision),
    /// There, with this value.
    Value(Bytes),
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It gets this value.
    Put(Bytes),
    /// It is removed, there or not.
    Delete,
    /// It stays as it is; the part is there for its condition.
    Keep,
}

/// What an atomic write has to say about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Which.
    pub key: Bytes,
    /// What it has to be; `None` if that doesn't matter.
    pub condition: Option<Condition>,
    /// What becomes of it if all parts' conditions are met.
    pub change: Change,
}

impl Part {
    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 16;
        let condition = if let Some(Condition::Value(value)) = &self.condition { value.len() } else { 0 };
        let change = if let Change::Put(value) = &self.change { value.len() } else { 0 };
        self.key.len() + condition + change + OVERHEAD
    }

    fn validate(&self) -> Result<(), Failure> {
        validate_key(&self.key)?;
        match (&self.condition, &self.change) {
            (None, Change::Keep) => {
                return invalid(format!(
                    "the part for key \"{}\" has neither a condition nor a change: give it one or leave it out",
                    shown(&self.key)
                ));
            }
            (Some(Condition::Revision(Revision(0))), _) => {
                return invalid("no key has revision 0: for a key that is not there, use absent".to_owned());
            }
            (Some(Condition::Value(value)), _) => validate_value(value)?,
            _ => {}
        }
        if let Change::Put(value) = &self.change { validate_value(value) } else { Ok(()) }
    }

    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, &self.key);
        match &self.condition {
            None => out.put_u8(0),
            Some(Condition::Absent) => out.put_u8(1),
            Some(Condition::Present) => out.put_u8(2),
            Some(Condition::Revision(revision)) => {
                out.put_u8(3);
                put_varint(out, revision.0);
            }
            Some(Condition::Value(value)) => {
                out.put_u8(4);
                put_bytes(out, value);
            }
        }
        match &self.change {
            Change::Keep => out.put_u8(0),
            Change::Delete => out.put_u8(1),
            Change::Put(value) => {
                out.put_u8(2);
                put_bytes(out, value);
            }
        }
    }

    fn decode(reader: &mut Reader) -> Result<Part, Malformed> {
        Ok(Part {
            key: reader.bytes(KEY_BYTES_MAX)?,
            condition: match reader.u8()? {
                0 => None,
                1 => Some(Condition::Absent),
                2 => Some(Condition::Present),
                3 => Some(Condition::Revision(Revision(reader.varint()?))),
                4 => Some(Condition::Value(reader.bytes(VALUE_BYTES_MAX)?)),
                _ => return Err(Malformed("unknown kind of condition")),
            },
            change: match reader.u8()? {
                0 => Change::Keep,
                1 => Change::Delete,
                2 => Change::Put(reader.bytes(VALUE_BYTES_MAX)?),
                _ => return Err(Malformed("unknown kind of change")),
            },
        })
    }
}

pub(crate) fn weight_of(parts: &[Part]) -> usize {
    parts.iter().map(Part::weight).sum()
}

/// Refuses what no shard could do. That all keys are of one shard is for those to check who know the layout.
pub(crate) fn validate_parts(parts: &[Part]) -> Result<(), Failure> {
    if parts.is_empty() {
        return invalid("an atomic write without parts: name at least one key".to_owned());
    }
    if parts.len() > WRITE_PARTS_MAX {
        let count = parts.len();
        return invalid(format!("an atomic write of {count} parts: the limit is {WRITE_PARTS_MAX}"));
    }
    parts.iter().try_for_each(Part::validate)?;
    let bytes = weight_of(parts);
    if bytes > WRITE_BYTES_MAX {
        return invalid(format!("an atomic write of {bytes} bytes: the limit is {WRITE_BYTES_MAX}"));
    }
    let mut keys = BTreeSet::new();
    match parts.iter().find(|part| !keys.insert(&part.key)) {
        None => Ok(()),
        Some(twice) => invalid(format!(
            "key \"{}\" is in an atomic write twice: put its condition and its change into one part",
            shown(&twice.key)
        )),
    }
}

pub(crate) fn encode_parts(parts: &[Part], out: &mut BytesMut) {
    put_varint(out, parts.len() as u64);
    for part in parts {
        part.encode(out);
    }
}

pub(crate) fn decode_parts(reader: &mut Reader) -> Result<Vec<Part>, Malformed> {
    let count = reader.count(PART_BYTES_MIN)?;
    if count > WRITE_PARTS_MAX {
        return Err(Malformed("too many parts in an atomic write"));
    }
    let mut parts = Vec::with_capacity(count);
    for _ in 0..count {
        parts.push(Part::decode(reader)?);
    }
    Ok(parts)
}

/// As much of a key as fits into a message.
pub(crate) fn shown(key: &[u8]) -> impl std::fmt::Display + '_ {
    key[..key.len().min(64)].escape_ascii()
}
