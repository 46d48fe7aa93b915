//! Keys and rows as they lie in a table. Drawn in `docs/formats/`.
//!
//! ```text
//! table key = kind u8 | namespace varint (0) | key
//! row       = version u8 (1) | flags u8 | revision varint | clock u64 |
//!             expiry u64, if flag 1 is set | caller's version varint, if flag 2 is set | value
//! ```
//!
//! Flag 4 is a tombstone's: there is no value, and the key counts as not there, except that a write with an older version of
//! its caller's does not pass. An expiry is milliseconds since 1970; only tombstones have one so far.
//! Kinds: 1 row, 2 session, 3 shard state, 4 expiry, 5 change log, 6 intent, 7 version, 8 layout, 9 sample of keys. Only the first three and the
//! last two are written so far; a layout is the meta group's alone. A session's key is its client's number, 16 bytes, big-endian; what is of all sessions has none. Whoever does not know a flag must not guess where the
//! value begins.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{HybridClock, Revision, Row, Version};

const ROW: u8 = 1;
const SESSION: u8 = 2;
const STATE: u8 = 3;
const LAYOUT: u8 = 8;
const SAMPLE: u8 = 9;
const NAMESPACE: u8 = 0;
const VERSION: u8 = 1;
const EXPIRY: u8 = 1;
const VERSIONED: u8 = 2;
const TOMBSTONE: u8 = 4;
/// Bytes before the key in a table key.
pub(crate) const PREFIX_BYTES: usize = 2;
/// Most bytes before the value in a row.
const HEADER_BYTES_MAX: usize = 2 + 10 + 8 + 8 + 10;

/// The table key of the shard's state row.
pub(crate) const STATE_KEY: [u8; PREFIX_BYTES] = [STATE, NAMESPACE];
/// The table key of the cluster's layout, in the meta group's table.
pub(crate) const LAYOUT_KEY: [u8; PREFIX_BYTES] = [LAYOUT, NAMESPACE];
/// The table key of the sample of the shard's keys.
pub(crate) const SAMPLE_KEY: [u8; PREFIX_BYTES] = [SAMPLE, NAMESPACE];
/// The table key of what is of all sessions; those of each one follow.
pub(crate) const SESSIONS_KEY: [u8; PREFIX_BYTES] = [SESSION, NAMESPACE];
/// Where the sessions end, exclusive.
pub(crate) const SESSIONS_END: [u8; PREFIX_BYTES] = [SESSION, NAMESPACE + 1];
/// Where the rows end, exclusive.
pub(crate) const ROWS_END: [u8; PREFIX_BYTES] = [ROW, NAMESPACE + 1];

/// The table key of a row.
pub(crate) fn put_key(out: &mut BytesMut, key: &[u8]) {
    out.put_slice(&[ROW, NAMESPACE]);
    out.put_slice(key);
}

/// The key of a row, if this is one's table key.
pub(crate) fn key_of(table_key: &[u8]) -> Option<&[u8]> {
    table_key.strip_prefix(&[ROW, NAMESPACE])
}

/// The table key of a client's session.
pub(crate) fn session_key(client: u128) -> Bytes {
    Bytes::from([&SESSIONS_KEY[..], &client.to_be_bytes()].concat())
}

/// What is stored of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// The shard's revision that last changed it.
    pub(crate) revision: Revision,
    /// The clock of the entry that did.
    pub(crate) clock: HybridClock,
    /// When it stops counting, in milliseconds since 1970. Tombstones have one, nothing else.
    pub(crate) expiry: Option<u64>,
    /// Where its caller has put it in an order of their own.
    pub(crate) version: Option<Version>,
    /// Its value; `None` for a tombstone.
    pub(crate) value: Option<Bytes>,
}

impl Stored {
    /// As a reader sees it: a tombstone is nothing.
    pub(crate) fn into_row(self) -> Option<Row> {
        let revision = self.revision;
        self.value.map(|value| Row { value, revision })
    }

    /// Whether it still counts at this time: a tombstone ends.
    pub(crate) fn counts_at(&self, clock: HybridClock) -> bool {
        self.expiry.is_none_or(|expiry| clock.wall_ms() < expiry)
    }

    pub(crate) fn encode(&self, out: &mut BytesMut) {
        let Stored { revision, clock, expiry, version, value } = self;
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let flags = flag(expiry.is_some(), EXPIRY)
            | flag(version.is_some(), VERSIONED)
            | flag(value.is_none(), TOMBSTONE);
        out.put_slice(&[VERSION, flags]);
        put_varint(out, revision.0);
        out.put_u64_le(clock.0);
        if let Some(expiry) = expiry {
            out.put_u64_le(*expiry);
        }
        if let Some(version) = version {
            put_varint(out, version.0);
        }
        out.put_slice(value.as_deref().unwrap_or_default());
    }

    /// Reads what [`Stored::encode`] wrote. The value shares the row's buffer.
    pub(crate) fn decode(bytes: Bytes) -> Result<Stored, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a row"));
        }
        let flags = reader.u8()?;
        if flags & !(EXPIRY | VERSIONED | TOMBSTONE) != 0 {
            return Err(Malformed("unknown flag on a row"));
        }
        let revision = Revision(reader.varint()?);
        let clock = HybridClock(reader.u64()?);
        let expiry = if flags & EXPIRY == 0 { None } else { Some(reader.u64()?) };
        let version = if flags & VERSIONED == 0 { None } else { Some(Version(reader.varint()?)) };
        let value = reader.take_rest();
        let value = match (flags & TOMBSTONE != 0, expiry) {
            (false, None) => Some(value),
            (false, Some(_)) => return Err(Malformed("an expiry on a row that is no tombstone")),
            (true, _) if value.is_empty() => None,
            (true, _) => return Err(Malformed("a tombstone with a value")),
        };
        Ok(Stored { revision, clock, expiry, version, value })
    }
}

/// Whether an encoded row is a key that is there, and no tombstone.
pub(crate) fn is_there(row: Option<&Bytes>) -> bool {
    row.is_some_and(|row| row.get(1).is_some_and(|flags| flags & TOMBSTONE == 0))
}

/// Most bytes that a key and its row take together.
pub(crate) fn bytes_max(key: &[u8], value_bytes: usize) -> usize {
    PREFIX_BYTES + key.len() + HEADER_BYTES_MAX + value_bytes
}

/// A table key made for one look-up: on the stack if it is short, as most are.
pub(crate) enum LookupKey {
    Short([u8; LookupKey::SHORT], usize),
    Long(Vec<u8>),
}

impl LookupKey {
    const SHORT: usize = 128;

    pub(crate) fn new(key: &[u8]) -> LookupKey {
        let length = PREFIX_BYTES + key.len();
        if length <= LookupKey::SHORT {
            let mut bytes = [0; LookupKey::SHORT];
            bytes[..PREFIX_BYTES].copy_from_slice(&[ROW, NAMESPACE]);
            bytes[PREFIX_BYTES..length].copy_from_slice(key);
            LookupKey::Short(bytes, length)
        } else {
            LookupKey::Long([&[ROW, NAMESPACE], key].concat())
        }
    }
}

impl Deref for LookupKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            LookupKey::Short(bytes, length) => &bytes[..*length],
            LookupKey::Long(bytes) => bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(revision: u64, value: Option<&'static str>) -> Stored {
        let value = value.map(Bytes::from);
        Stored { revision: Revision(revision), clock: HybridClock(77), expiry: None, version: None, value }
    }

    fn encoded(stored: &Stored) -> Bytes {
        let mut out = BytesMut::new();
        stored.encode(&mut out);
        out.freeze()
    }

    #[test]
    fn a_row_is_laid_out_as_drawn() {
        let plain = stored(300, Some("v"));
        assert_eq!(&encoded(&plain)[..], [1, 0, 0xAC, 2, 77, 0, 0, 0, 0, 0, 0, 0, b'v']);
        let versioned = Stored { version: Some(Version(300)), ..plain.clone() };
        let drawn = [&[1, 2, 0xAC, 2, 77, 0, 0, 0, 0, 0, 0, 0][..], &[0xAC, 2, b'v']].concat();
        assert_eq!(&encoded(&versioned)[..], drawn);
        let tombstone = Stored { expiry: Some(5), version: Some(Version(1)), ..stored(1, None) };
        let drawn = [&[1, 7, 1, 77, 0, 0, 0, 0, 0, 0, 0][..], &[5, 0, 0, 0, 0, 0, 0, 0, 1]].concat();
        assert_eq!(&encoded(&tombstone)[..], drawn);
        for row in [plain, versioned, tombstone, stored(1, Some("")), stored(1, None)] {
            assert_eq!(Stored::decode(encoded(&row)), Ok(row));
        }
    }

    #[test]
    fn a_tombstone_is_no_row_and_ends() {
        let at = |millis: u64| HybridClock(millis << 16);
        let tombstone = Stored { expiry: Some(1_000), ..stored(1, None) };
        assert!(tombstone.counts_at(at(999)) && !tombstone.counts_at(at(1_000)));
        assert!(stored(1, Some("v")).counts_at(HybridClock(u64::MAX)));
        assert!(is_there(Some(&encoded(&stored(1, Some(""))))) && !is_there(Some(&encoded(&tombstone))));
        assert!(!is_there(None));
        assert_eq!(tombstone.into_row(), None);
        assert_eq!(stored(4, Some("")).into_row(), Some(Row { value: Bytes::new(), revision: Revision(4) }));
    }

    #[test]
    fn what_a_row_does_not_say_is_not_guessed() {
        let row = encoded(&stored(1, Some("v")));
        for (at, byte, why) in [
            (0, 2, "unknown version of a row"),
            (1, 8, "unknown flag on a row"),
            (1, 4, "a tombstone with a value"),
        ] {
            let mut bad = row.to_vec();
            bad[at] = byte;
            assert_eq!(Stored::decode(bad.into()), Err(Malformed(why)));
        }
        let expiring = Stored { expiry: Some(1), ..stored(1, Some("v")) };
        assert!(Stored::decode(encoded(&expiring)).is_err());
        for length in 0..11 {
            assert!(Stored::decode(row.slice(..length)).is_err());
        }
    }

    #[test]
    fn a_key_to_look_up_is_the_key_that_was_written() {
        for length in [1, 2, 125, 126, 127, 128, 16_384] {
            let key = vec![7; length];
            let mut written = BytesMut::new();
            put_key(&mut written, &key);
            assert_eq!(&LookupKey::new(&key)[..], &written[..]);
        }
    }
}
