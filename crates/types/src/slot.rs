//! Key to slot, exactly as Redis Cluster does it, so that its clients can route.
//!
//! CRC16/XMODEM (polynomial 0x1021, initial value 0, not reflected) modulo 16384, of the whole key or, if
//! the key has a `{`, a later `}` and something between the first two of them, of that part (Redis Cluster
//! specification, "Hash tags").

use crate::Slot;

/// How many slots there are.
pub const SLOTS: u16 = 16_384;

/// The slot that `key` belongs to.
pub fn slot_of(key: &[u8]) -> Slot {
    Slot(crc16(hashed_part(key)) % SLOTS)
}

fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|&b| b == b'{') else {
        return key;
    };
    let inside = &key[open + 1..];
    match inside.iter().position(|&b| b == b'}') {
        Some(length) if length > 0 => &inside[..length],
        _ => key,
    }
}

const TABLE: [u16; 256] = {
    let mut table = [0u16; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, &byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_redis_cluster() {
        // The check value of CRC16/XMODEM, and `CLUSTER KEYSLOT` of a Redis 7 server.
        assert_eq!(crc16(b"123456789"), 0x31C3);
        assert_eq!(slot_of(b"foo"), Slot(12_182));
        assert_eq!(slot_of(b"somekey"), Slot(11_058));
        assert_eq!(slot_of(b"foo{hash_tag}"), Slot(2_515));
        assert_eq!(slot_of(b"bar{hash_tag}"), Slot(2_515));
    }

    #[test]
    fn a_tag_counts_only_if_it_is_closed_and_not_empty() {
        assert_eq!(slot_of(b"{user1000}.following"), slot_of(b"{user1000}.followers"));
        assert_eq!(hashed_part(b"foo{}{bar}"), b"foo{}{bar}");
        assert_eq!(hashed_part(b"foo{{bar}}zap"), b"{bar");
        assert_eq!(hashed_part(b"foo{bar}{zap}"), b"bar");
        assert_eq!(hashed_part(b"foo{bar"), b"foo{bar");
    }
}
