//! About how many keys a shard has, without asking for any write whether its key was there before.
//!
//! A put does not read what it replaces, so nobody can count. Instead the shard keeps a *sample*: of the keys that are there, the
//! hashes of those whose hash begins with so many zero bits. A put puts the hash in, a delete takes it out; what was there before
//! makes no difference. When the sample has become too large, one more zero bit is asked for. With b bits, a hash in the sample
//! stands for 2^b keys: the number is exact up to [`SAMPLE_MAX`] keys, and beyond it, with s hashes, right within about 1/√s of it.
//!
//! The same entries lead to the same sample, so all replicas have the same one. It is written beside the state row, and goes where the table goes.
//!
//! **Caveat.** A shard that has lost most of its keys has few hashes left, and each stands for many keys. Then what the table knows of
//! itself is taken, as far as it can be true (`Sample::estimate`).

use std::collections::BTreeSet;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::wire::{Malformed, Reader};
use xxhash_rust::xxh3::xxh3_64;

const VERSION: u8 = 1;
/// Most hashes.
const SAMPLE_MAX: usize = 512;
/// With fewer hashes a sample says little.
const SAMPLE_FEW: usize = 64;

/// Hashes of keys that are there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// Zero bits that each of them begins with.
    zero_bits: u8,
    hashes: BTreeSet<u64>,
    /// The table has it otherwise, or not at all.
    is_changed: bool,
}

impl Sample {
    /// Of a shard that has no keys, nor a row for it.
    pub(crate) fn begin() -> Sample {
        Sample { is_changed: true, ..Sample::default() }
    }

    /// This key is there from now on, or is not.
    pub(crate) fn set(&mut self, key: &[u8], is_there: bool) {
        let hash = xxh3_64(key);
        if !self.takes(hash) {
            return;
        }
        self.is_changed |= if is_there { self.hashes.insert(hash) } else { self.hashes.remove(&hash) };
        while self.hashes.len() > SAMPLE_MAX {
            self.zero_bits += 1;
            let first_refused = 1 << (u64::BITS - u32::from(self.zero_bits));
            self.hashes.split_off(&first_refused);
        }
    }

    fn takes(&self, hash: u64) -> bool {
        hash.leading_zeros() >= self.zero_bits.into()
    }

    /// How many keys there are, about. `counted` is what the table makes of its items, which is right when it has been merged.
    pub(crate) fn estimate(&self, counted: u64) -> u64 {
        let (hashes, keys_each) = (self.hashes.len() as u64, 1 << self.zero_bits);
        if self.zero_bits == 0 || self.hashes.len() >= SAMPLE_FEW {
            return hashes * keys_each;
        }
        // Twice the standard deviation on both sides.
        let doubt = 2 * (hashes + 1).isqrt();
        counted.clamp(hashes.saturating_sub(doubt) * keys_each, (hashes + doubt) * keys_each)
    }

    /// Its row, if the table has another one.
    pub(crate) fn take_row(&mut self) -> Option<Bytes> {
        std::mem::take(&mut self.is_changed).then(|| self.encode())
    }

    fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(2 + 8 * self.hashes.len());
        out.put_slice(&[VERSION, self.zero_bits]);
        self.hashes.iter().for_each(|hash| out.put_u64_le(*hash));
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Sample, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a sample of keys"));
        }
        let mut sample = Sample { zero_bits: reader.u8()?, ..Sample::default() };
        if u32::from(sample.zero_bits) >= u64::BITS {
            return Err(Malformed("a sample of keys with too many zero bits"));
        }
        let hashes = reader.take_rest();
        let (hashes, rest) = hashes.as_chunks();
        if hashes.len() > SAMPLE_MAX || !rest.is_empty() {
            return Err(Malformed("a sample of keys of a wrong length"));
        }
        for hash in hashes {
            let hash = u64::from_le_bytes(*hash);
            if !sample.takes(hash) || sample.hashes.last().is_some_and(|last| *last >= hash) {
                return Err(Malformed("a hash that is not in its place in a sample of keys"));
            }
            sample.hashes.insert(hash);
        }
        Ok(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u64) -> Vec<u8> {
        format!("key{number:08}").into_bytes()
    }

    #[test]
    fn few_keys_are_counted_exactly_whatever_is_written_again() {
        let mut sample = Sample::default();
        for _ in 0..5 {
            (0..SAMPLE_MAX as u64).for_each(|number| sample.set(&key(number), true));
            assert_eq!(sample.estimate(99_999), SAMPLE_MAX as u64);
        }
        (100..SAMPLE_MAX as u64 + 100).for_each(|number| sample.set(&key(number), false));
        assert_eq!(sample.estimate(99_999), 100);
    }

    #[test]
    fn many_keys_are_estimated_within_a_tenth_or_so() {
        let mut sample = Sample::default();
        let mut keys = 0;
        for number in 0..300_000 {
            sample.set(&key(number), true);
            // Each of them twice.
            sample.set(&key(number / 2), true);
            keys += 1;
            let told = sample.estimate(2 * keys);
            assert!(told.abs_diff(keys) <= keys / 6, "{told} of {keys}");
        }
        // Most of them go: what is left is what the table says, unless that can't be.
        (40..300_000).for_each(|number| sample.set(&key(number), false));
        assert_eq!(sample.estimate(40), 40);
        assert!(sample.estimate(600_000) < 6_000, "{}", sample.estimate(600_000));
    }

    #[test]
    fn a_sample_is_laid_out_as_drawn() {
        let mut sample = Sample { zero_bits: 3, hashes: [7, 300].into(), is_changed: true };
        let row = sample.take_row().unwrap();
        assert_eq!(&row[..], [1, 3, 7, 0, 0, 0, 0, 0, 0, 0, 44, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!((Sample::decode(row.clone()), sample.take_row()), (Ok(sample), None));
        let wrong = |at: usize, byte: u8| {
            let mut bytes = row.to_vec();
            bytes[at] = byte;
            Sample::decode(bytes.into()).is_err()
        };
        assert!(wrong(0, 2) && wrong(1, 64), "versions and bits are known");
        assert!(wrong(9, 0x20) && wrong(3, 2), "hashes begin with zeroes, and are in order");
        assert!(
            (0..row.len())
                .all(|length| { [2, 10].contains(&length) || Sample::decode(row.slice(..length)).is_err() })
        );
    }
}
