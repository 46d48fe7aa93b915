//! Reading and writing the primitives that Ringfort's own formats are made of.
//!
//! Fixed integers are little-endian. A varint is LEB128, at most ten bytes. A byte string is a varint
//! length and then the bytes. [`Reader`] never allocates for a length before the bytes are known to be
//! there: strings are slices of the input's own buffer.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// The longest varint.
const VARINT_BYTES_MAX: usize = 10;

/// The input does not follow the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub &'static str);

/// Appends `value` as a LEB128 varint.
pub fn put_varint(out: &mut BytesMut, value: u64) {
    if value < 0x80 {
        out.put_u8(value as u8);
    } else {
        put_varints(out, [value]);
    }
}

/// Appends each of these as a LEB128 varint, and grows the buffer once for all of them.
pub fn put_varints<const COUNT: usize>(out: &mut BytesMut, values: [u64; COUNT]) {
    let mut encoded = [[0; VARINT_BYTES_MAX]; COUNT];
    let encoded = encoded.as_flattened_mut();
    let mut length = 0;
    for mut value in values {
        while value >= 0x80 {
            encoded[length] = value as u8 | 0x80;
            (value, length) = (value >> 7, length + 1);
        }
        encoded[length] = value as u8;
        length += 1;
    }
    out.put_slice(&encoded[..length]);
}

/// How many bytes this number takes as a LEB128 varint.
pub fn varint_bytes(value: u64) -> usize {
    (u64::BITS - (value | 1).leading_zeros()).div_ceil(7) as usize
}

/// The varint that these bytes begin with, and how many of them it takes.
pub fn varint_of(bytes: &[u8]) -> Result<(u64, usize), Malformed> {
    let mut value = 0u64;
    for (place, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let (bits, shift) = (u64::from(byte & 0x7f), 7 * place);
        if shift == 63 && bits > 1 {
            return Err(Malformed("varint overflows 64 bits"));
        }
        value |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok((value, place + 1));
        }
    }
    Err(Malformed(if bytes.len() < VARINT_BYTES_MAX {
        "ends too early"
    } else {
        "varint longer than ten bytes"
    }))
}

/// Appends a length and the bytes.
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.put_slice(bytes);
}

/// Bytes of the length before what [`put_sized`] appends: a varint, in as many bytes as the largest takes.
const SIZE_BYTES: usize = 4;

/// Appends a length and whatever `put` appends, which is less than 256 MiB. Nothing is copied to make room for the length, so that
/// it has four bytes, also where fewer would do.
pub fn put_sized(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_bytes(0, SIZE_BYTES);
    put(out);
    let length = out.len() - at - SIZE_BYTES;
    assert!(length < 1 << (7 * SIZE_BYTES), "{length} bytes are more than their length can say");
    for (place, byte) in out[at..at + SIZE_BYTES].iter_mut().enumerate() {
        let more = if place + 1 < SIZE_BYTES { 0x80 } else { 0 };
        *byte = (length >> (7 * place)) as u8 & 0x7f | more;
    }
}

/// Takes fields off the front of a buffer.
#[derive(Clone, Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Reader {
        Reader { rest: bytes }
    }

    /// Bytes not yet taken.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Ends the reading: anything left over is an error.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("bytes after the end")) }
    }

    /// Everything not yet taken.
    pub fn take_rest(&mut self) -> Bytes {
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.fixed::<1>()?[0])
    }

    /// A little-endian 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.fixed()?))
    }

    /// A little-endian 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.fixed()?))
    }

    /// A little-endian 128-bit number.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.fixed()?))
    }

    /// A LEB128 varint.
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        // Most are small.
        let (value, length) = match self.rest.first() {
            Some(byte) if *byte < 0x80 => (u64::from(*byte), 1),
            _ => varint_of(&self.rest)?,
        };
        self.rest.advance(length);
        Ok(value)
    }

    /// A varint that counts things of at least `each` bytes; refused if they can't all be there.
    pub fn count(&mut self, each: usize) -> Result<usize, Malformed> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count.saturating_mul(each.max(1)) <= self.rest.len() => Ok(count),
            _ => Err(Malformed("count larger than the input")),
        }
    }

    /// A reader of the bytes that [`put_sized`] appended.
    pub fn sized(&mut self) -> Result<Reader, Malformed> {
        Ok(Reader::new(self.bytes(usize::MAX)?))
    }

    /// A length-prefixed byte string of at most `max` bytes.
    pub fn bytes(&mut self, max: usize) -> Result<Bytes, Malformed> {
        let length = self.varint()?;
        if length > max as u64 {
            return Err(Malformed("length over its limit"));
        }
        let length = length as usize;
        if length > self.rest.len() {
            return Err(Malformed("length beyond the end"));
        }
        Ok(self.rest.split_to(length))
    }

    /// A length-prefixed UTF-8 string of at most `max` bytes.
    pub fn string(&mut self, max: usize) -> Result<String, Malformed> {
        String::from_utf8(self.bytes(max)?.to_vec()).map_err(|_| Malformed("text is not UTF-8"))
    }

    /// 32 bytes: a SHA-256.
    pub fn digest(&mut self) -> Result<[u8; 32], Malformed> {
        self.fixed()
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        if self.rest.len() < N {
            return Err(Malformed("ends too early"));
        }
        let mut fixed = [0; N];
        fixed.copy_from_slice(&self.rest[..N]);
        self.rest.advance(N);
        Ok(fixed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Of all lengths alike.
    fn numbers() -> impl Strategy<Value = [u64; 3]> {
        prop::array::uniform3((any::<u64>(), 0..64u32).prop_map(|(number, less)| number >> less))
    }

    proptest! {
        #[test]
        fn numbers_come_back_and_take_what_they_are_said_to(numbers in numbers()) {
            let (mut together, mut alone) = (BytesMut::new(), BytesMut::new());
            put_varints(&mut together, numbers);
            for number in numbers {
                put_varint(&mut alone, number);
            }
            prop_assert_eq!(&together, &alone);
            let bytes: Vec<_> = numbers.iter().map(|number| varint_bytes(*number)).collect();
            prop_assert_eq!(together.len(), bytes.iter().sum::<usize>());
            prop_assert_eq!(varint_of(&together), Ok((numbers[0], bytes[0])));
            for length in 0..bytes[0] {
                prop_assert_eq!(varint_of(&together[..length]), Err(Malformed("ends too early")));
            }
            let mut reader = Reader::new(together.freeze());
            for number in numbers {
                prop_assert_eq!(reader.varint(), Ok(number));
            }
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn what_is_larger_than_any_number_is_refused() {
        let nine = [0xff; 9];
        assert_eq!(varint_of(&[&nine[..], &[1]].concat()), Ok((u64::MAX, 10)));
        assert_eq!(varint_of(&[&nine[..], &[2]].concat()), Err(Malformed("varint overflows 64 bits")));
        assert_eq!(
            varint_of(&[&nine[..], &[0x81, 0]].concat()),
            Err(Malformed("varint longer than ten bytes"))
        );
    }
}
