//! Writes: conditions, and changes of one key or of several that happen all or not at all. A put, a delete and an
//! increment are writes of one part.
//!
//! ```text
//! parts     = count varint | part × count
//! part      = key bytes | condition | change
//! condition = 0 none | 1 absent | 2 present | 3, revision varint | 4, value bytes | 5, version varint
//! change    = 0 keep | 1 delete, fields | 2 put, fields, value bytes | 3 add, i64       (each number a u8)
//! fields    = flags u8 | version varint, if flag 2 is set             (flag 1 is set aside for an expiry)
//! ```

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};

use crate::key::{invalid, shown, validate_key, validate_value};
use crate::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX, WRITE_BYTES_MAX, WRITE_PARTS_MAX, WRITE_SUMS_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Failure, Revision, Version};

/// Fewest bytes of a part: an empty key's length, no condition, no change.
const PART_BYTES_MIN: usize = 3;
/// The flag of a put or delete that has a version of its caller's.
const VERSIONED: u8 = 2;

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
    /// Its last put or delete had no version of its caller's, or none above this one.
    NotNewerThan(Version),
}

/// What a key gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewValue {
    /// Its value.
    pub value: Bytes,
    /// Where its caller has put it in an order of their own.
    pub version: Option<Version>,
}

impl From<Bytes> for NewValue {
    fn from(value: Bytes) -> NewValue {
        NewValue { value, version: None }
    }
}

/// What becomes of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It stays as it is; the part is there for its condition.
    Keep,
    /// It is removed, there or not.
    Delete {
        /// If the caller gives it a place in an order of their own, a tombstone keeps that.
        version: Option<Version>,
    },
    /// It gets this.
    Put(NewValue),
    /// This is added to its value, which is a decimal number; a key that is not there counts as 0. If the value is no
    /// number, or the sum has more than 64 bits, the whole write fails without effect.
    Add(i64),
}

impl Change {
    /// A removal without a version.
    pub const DELETE: Change = Change::Delete { version: None };

    /// The same with this value, without a version.
    pub fn put(value: impl Into<Bytes>) -> Change {
        Change::Put(NewValue::from(value.into()))
    }
}

/// What a write has to say about one key.
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
    /// Everything in it that is bytes.
    pub(crate) fn each_bytes(&mut self, each: &mut dyn FnMut(&mut Bytes)) {
        each(&mut self.key);
        if let Some(Condition::Value(value)) = &mut self.condition {
            each(value);
        }
        if let Change::Put(new) = &mut self.change {
            each(&mut new.value);
        }
    }

    /// A change, whatever the key is.
    pub fn new(key: impl Into<Bytes>, change: Change) -> Part {
        Part { key: key.into(), condition: None, change }
    }

    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 16;
        let condition = if let Some(Condition::Value(value)) = &self.condition { value.len() } else { 0 };
        let change = if let Change::Put(new) = &self.change { new.value.len() } else { 0 };
        self.key.len() + condition + change + OVERHEAD
    }

    fn validate(&self) -> Result<(), Failure> {
        validate_key(&self.key)?;
        match &self.condition {
            None if self.change == Change::Keep => {
                return invalid(format!(
                    "the part for key \"{}\" has neither a condition nor a change: give it one or leave it out",
                    shown(&self.key)
                ));
            }
            Some(Condition::Revision(Revision(0))) => {
                return invalid("no key has revision 0: for a key that is not there, use absent".to_owned());
            }
            Some(Condition::NotNewerThan(Version(0))) => return no_version(),
            Some(Condition::Value(value)) => validate_value(value)?,
            _ => {}
        }
        match &self.change {
            Change::Put(NewValue { version: Some(Version(0)), .. })
            | Change::Delete { version: Some(Version(0)) } => no_version(),
            Change::Put(new) => validate_value(&new.value),
            _ => Ok(()),
        }
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
            Some(Condition::NotNewerThan(version)) => {
                out.put_u8(5);
                put_varint(out, version.0);
            }
        }
        match &self.change {
            Change::Keep => out.put_u8(0),
            Change::Delete { version } => {
                out.put_u8(1);
                encode_fields(*version, out);
            }
            Change::Put(NewValue { value, version }) => {
                out.put_u8(2);
                encode_fields(*version, out);
                put_bytes(out, value);
            }
            Change::Add(by) => {
                out.put_u8(3);
                out.put_i64_le(*by);
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
                5 => Some(Condition::NotNewerThan(Version(reader.varint()?))),
                _ => return Err(Malformed("unknown kind of condition")),
            },
            change: match reader.u8()? {
                0 => Change::Keep,
                1 => Change::Delete { version: decode_fields(reader)? },
                2 => {
                    let version = decode_fields(reader)?;
                    Change::Put(NewValue { value: reader.bytes(VALUE_BYTES_MAX)?, version })
                }
                3 => Change::Add(reader.u64()? as i64),
                _ => return Err(Malformed("unknown kind of change")),
            },
        })
    }
}

fn encode_fields(version: Option<Version>, out: &mut BytesMut) {
    match version {
        None => out.put_u8(0),
        Some(version) => {
            out.put_u8(VERSIONED);
            put_varint(out, version.0);
        }
    }
}

fn decode_fields(reader: &mut Reader) -> Result<Option<Version>, Malformed> {
    match reader.u8()? {
        0 => Ok(None),
        VERSIONED => Ok(Some(Version(reader.varint()?))),
        _ => Err(Malformed("unknown flag on a change")),
    }
}

fn no_version() -> Result<(), Failure> {
    invalid("version 0 is none: versions count from 1; leave it out for a write without one".to_owned())
}

pub(crate) fn weight_of(parts: &[Part]) -> usize {
    parts.iter().map(Part::weight).sum()
}

/// Refuses what no shard could do. That all keys are of one shard is for those to check who know the layout.
pub(crate) fn validate_parts(parts: &[Part]) -> Result<(), Failure> {
    if let [part] = parts {
        return part.validate();
    }
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
    let sums = parts.iter().filter(|part| matches!(part.change, Change::Add(_))).count();
    if sums > WRITE_SUMS_MAX {
        return invalid(format!("an atomic write that adds to {sums} keys: the limit is {WRITE_SUMS_MAX}"));
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
