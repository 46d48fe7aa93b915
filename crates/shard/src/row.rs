//! Keys and rows as they lie in a table. Drawn in `docs/formats/`.
//!
//! ```text
//! table key = kind u8 | namespace varint (0) | key
//! row       = version u8 (1) | flags u8 (0) | revision varint | clock u64 | value
//! ```
//!
//! Kinds: 1 row, 2 session, 3 shard state, 4 expiry, 5 change log, 6 intent, 7 version. Only the first three are
//! written so far. A session's key is its client's number, 16 bytes, big-endian; what is of all sessions has none. Flags will announce optional fields before the value (expiry, the caller's version, tombstone);
//! whoever does not know one must not guess where the value begins.

use std::ops::Deref;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{HybridClock, Revision, Row};

const ROW: u8 = 1;
const SESSION: u8 = 2;
const STATE: u8 = 3;
const NAMESPACE: u8 = 0;
const VERSION: u8 = 1;
/// Bytes before the key in a table key.
pub(crate) const PREFIX_BYTES: usize = 2;
/// Most bytes before the value in a row.
const HEADER_BYTES_MAX: usize = 2 + 10 + 8;

/// The table key of the shard's state row.
pub(crate) const STATE_KEY: [u8; PREFIX_BYTES] = [STATE, NAMESPACE];
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

/// The table key of a client's session.
pub(crate) fn session_key(client: u128) -> Bytes {
    Bytes::from([&SESSIONS_KEY[..], &client.to_be_bytes()].concat())
}

/// A row's bytes.
pub(crate) fn put_row(out: &mut BytesMut, revision: Revision, clock: HybridClock, value: &[u8]) {
    out.put_slice(&[VERSION, 0]);
    put_varint(out, revision.0);
    out.put_u64_le(clock.0);
    out.put_slice(value);
}

/// Most bytes that `put_key` and `put_row` append together.
pub(crate) fn bytes_max(key: &[u8], value_bytes: usize) -> usize {
    PREFIX_BYTES + key.len() + HEADER_BYTES_MAX + value_bytes
}

/// Reads what [`put_row`] wrote. The value shares the row's buffer.
pub(crate) fn read_row(bytes: Bytes) -> Result<Row, Malformed> {
    let mut reader = Reader::new(bytes);
    if reader.u8()? != VERSION {
        return Err(Malformed("unknown version of a row"));
    }
    if reader.u8()? != 0 {
        return Err(Malformed("unknown flag on a row"));
    }
    let revision = Revision(reader.varint()?);
    reader.u64()?;
    Ok(Row { value: reader.take_rest(), revision })
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

    fn row(revision: u64, value: &[u8]) -> Bytes {
        let mut out = BytesMut::new();
        put_row(&mut out, Revision(revision), HybridClock(77), value);
        out.freeze()
    }

    #[test]
    fn a_row_is_laid_out_as_drawn() {
        assert_eq!(&row(300, b"v")[..], [1, 0, 0xAC, 2, 77, 0, 0, 0, 0, 0, 0, 0, b'v']);
        let read = read_row(row(300, b"v")).unwrap();
        assert_eq!((read.revision, &read.value[..]), (Revision(300), &b"v"[..]));
        assert_eq!(read_row(row(1, b"")).unwrap().value, "");
    }

    #[test]
    fn what_a_row_does_not_say_is_not_guessed() {
        let mut later = row(1, b"v").to_vec();
        later[0] = 2;
        assert_eq!(read_row(later.into()), Err(Malformed("unknown version of a row")));
        let mut flagged = row(1, b"v").to_vec();
        flagged[1] = 4;
        assert_eq!(read_row(flagged.into()), Err(Malformed("unknown flag on a row")));
        for length in 0..11 {
            assert!(read_row(row(1, b"v").slice(..length)).is_err());
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
