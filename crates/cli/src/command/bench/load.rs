//! What is asked for: keys chosen evenly, values of noise, both the same in every run.

use bytes::{BufMut, Bytes, BytesMut};

use super::flags::Workload;

/// Values are cut from one block of noise at any place, so that they neither compress nor cost anything to make.
const NOISE_BYTES: usize = 1024 * 1024;
/// Bytes of a key.
const KEY_BYTES: usize = 16;
/// What every key begins with.
pub(super) const KEY_PREFIX: &[u8] = b"key-";

/// Which keys, and which values.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) workload: Workload,
    pub(super) keys: u64,
    value_bytes: usize,
    noise: Bytes,
}

impl Load {
    pub(super) fn new(workload: Workload, keys: u64, value_bytes: usize) -> Load {
        let mut dice = Dice(1);
        let mut noise = BytesMut::new();
        while noise.len() < NOISE_BYTES + value_bytes {
            noise.put_u64_le(dice.roll());
        }
        Load { workload, keys, value_bytes, noise: noise.freeze() }
    }

    /// Bytes of a key and its value.
    pub(super) fn row_bytes(&self) -> u64 {
        (KEY_BYTES + self.value_bytes) as u64
    }

    pub(super) fn value(&self, dice: &mut Dice) -> Bytes {
        let from = (dice.roll() as usize) % NOISE_BYTES;
        self.noise.slice(from..from + self.value_bytes)
    }
}

/// 16 bytes: `key-` and twelve digits.
pub(super) fn key(number: u64) -> Bytes {
    let mut key = *b"key-000000000000";
    let mut rest = number;
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    Bytes::copy_from_slice(&key)
}

/// `SplitMix64`: even enough, and the same in every run.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_bytes_and_values_their_size() {
        let load = Load::new(Workload::Mixed, 10, 100);
        assert_eq!(key(99_999), Bytes::from_static(b"key-000000099999"));
        let mut dice = Dice(7);
        for _ in 0..1000 {
            assert_eq!(load.value(&mut dice).len(), 100);
        }
    }

    #[test]
    fn dice_are_even_enough() {
        let mut dice = Dice(0);
        let mut hits = [0u32; 16];
        for _ in 0..16_000 {
            hits[(dice.roll() % 16) as usize] += 1;
        }
        assert!(hits.iter().all(|hits| (800..1200).contains(hits)), "{hits:?}");
    }
}
