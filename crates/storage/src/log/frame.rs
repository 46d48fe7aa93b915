//! The log's bytes: segment headers and batch frames. Drawn in `docs/formats/log.md`.
//!
//! A frame's header has a checksum of its own (`head`), so that a length is trusted only after it was checked,
//! and a header alone is evidence that its batch was written. Both checksums start from the segment's seed,
//! which depends on the incarnation: bytes that a client stores can't pass for a frame.

use ringfort_types::Incarnation;

pub(super) const SEGMENT_HEADER_BYTES: usize = 64;
pub(super) const FRAME_HEADER_BYTES: usize = 32;
/// Most bytes of records in one batch. Far above what a node holds pending; it bounds a damaged length.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 30;

const SEGMENT_MAGIC: [u8; 8] = *b"RFLOG\0\0\0";
const SEGMENT_VERSION: u32 = 1;
pub(super) const FRAME_MAGIC: [u8; 4] = *b"RFBF";
const FRAME_VERSION: u8 = 1;

/// Whose log it is. Written into every segment, and compared when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The cluster's number.
    pub cluster: u64,
    /// The data directory's incarnation.
    pub incarnation: Incarnation,
    /// Which of the node's lanes.
    pub lane: u32,
}

impl Owner {
    /// What the checksums of a segment's frames start from.
    pub(super) fn seed(&self, segment: u64) -> u32 {
        let mut bytes = [0; 28];
        bytes[0..8].copy_from_slice(&self.cluster.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.incarnation.0.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.lane.to_le_bytes());
        bytes[20..28].copy_from_slice(&segment.to_le_bytes());
        crc32c::crc32c(&bytes)
    }
}

/// The first bytes of a segment, written together with its first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) owner: Owner,
    /// Its number, from 1.
    pub(super) segment: u64,
    /// The number of its first batch.
    pub(super) first: u64,
    /// What that batch has as its chain.
    pub(super) chain: u32,
    /// The file's length, in bytes, which was durable before anything was written to it.
    pub(super) length: u32,
}

/// Why a segment header can't be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HeaderFault {
    /// The bytes are not a header: torn, or damaged.
    Damaged,
    /// It is whole, but of this version.
    Version(u32),
    /// It is whole, but names this key, and there is no encryption yet.
    Key(u32),
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES] {
        let mut out = [0; SEGMENT_HEADER_BYTES];
        out[0..8].copy_from_slice(&SEGMENT_MAGIC);
        out[8..12].copy_from_slice(&SEGMENT_VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&self.owner.lane.to_le_bytes());
        out[16..24].copy_from_slice(&self.owner.cluster.to_le_bytes());
        out[24..32].copy_from_slice(&self.owner.incarnation.0.to_le_bytes());
        out[32..40].copy_from_slice(&self.segment.to_le_bytes());
        out[40..48].copy_from_slice(&self.first.to_le_bytes());
        // 48..52: encryption key 0.
        out[52..56].copy_from_slice(&self.chain.to_le_bytes());
        out[56..60].copy_from_slice(&self.length.to_le_bytes());
        let sum = crc32c::crc32c(&out[..60]);
        out[60..64].copy_from_slice(&sum.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let Some(bytes) = bytes.first_chunk::<SEGMENT_HEADER_BYTES>() else {
            return Err(HeaderFault::Damaged);
        };
        if bytes[0..8] != SEGMENT_MAGIC || u32_at(bytes, 60) != crc32c::crc32c(&bytes[..60]) {
            return Err(HeaderFault::Damaged);
        }
        match (u32_at(bytes, 8), u32_at(bytes, 48)) {
            (SEGMENT_VERSION, 0) => {}
            (SEGMENT_VERSION, key) => return Err(HeaderFault::Key(key)),
            (version, _) => return Err(HeaderFault::Version(version)),
        }
        Ok(SegmentHeader {
            owner: Owner {
                cluster: u64_at(bytes, 16),
                incarnation: Incarnation(u64_at(bytes, 24)),
                lane: u32_at(bytes, 12),
            },
            segment: u64_at(bytes, 32),
            first: u64_at(bytes, 40),
            chain: u32_at(bytes, 52),
            length: u32_at(bytes, 56),
        })
    }
}

/// A frame's header. What follows it is `length` bytes of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// The batch's number: one more than that of the batch before it.
    pub(super) number: u64,
    /// Bytes of records; 0 for a seal.
    pub(super) length: u32,
    /// `head` of the batch before it.
    pub(super) chain: u32,
    /// Checksum of the records.
    pub(super) sum: u32,
    /// Checksum of the header, `sum` and `chain` included.
    pub(super) head: u32,
}

impl FrameHeader {
    /// Fills in the header of a batch, in the first bytes of `frame`, and returns its `head`.
    pub(super) fn write(frame: &mut [u8], number: u64, chain: u32, seed: u32) -> u32 {
        let (header, records) = frame.split_at_mut(FRAME_HEADER_BYTES);
        header[0..4].copy_from_slice(&FRAME_MAGIC);
        header[4..8].copy_from_slice(&[FRAME_VERSION, 0, 0, 0]);
        header[8..16].copy_from_slice(&number.to_le_bytes());
        header[16..20].copy_from_slice(&(records.len() as u32).to_le_bytes());
        header[20..24].copy_from_slice(&chain.to_le_bytes());
        header[24..28].copy_from_slice(&crc32c::crc32c_append(seed, records).to_le_bytes());
        let head = crc32c::crc32c_append(seed, &header[..28]);
        header[28..32].copy_from_slice(&head.to_le_bytes());
        head
    }

    /// The header at the start of `bytes`, if there is a whole one, written for this segment.
    pub(super) fn decode(bytes: &[u8], seed: u32) -> Option<FrameHeader> {
        let bytes = bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
        if bytes[0..8] != [b'R', b'F', b'B', b'F', FRAME_VERSION, 0, 0, 0] {
            return None;
        }
        let head = u32_at(bytes, 28);
        if head != crc32c::crc32c_append(seed, &bytes[..28]) {
            return None;
        }
        Some(FrameHeader {
            number: u64_at(bytes, 8),
            length: u32_at(bytes, 16),
            chain: u32_at(bytes, 20),
            sum: u32_at(bytes, 24),
            head,
        })
    }

    /// Whether these are its records, unchanged.
    pub(super) fn holds(&self, records: &[u8], seed: u32) -> bool {
        records.len() == self.length as usize && self.sum == crc32c::crc32c_append(seed, records)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner = Owner { cluster: 7, incarnation: Incarnation(9), lane: 0 };

    #[test]
    fn a_segment_header_survives_its_bytes_and_no_byte_may_change() {
        let header =
            SegmentHeader { owner: OWNER, segment: 3, first: 77, chain: 0xdead_beef, length: 1 << 26 };
        let bytes = header.encode();
        assert_eq!(SegmentHeader::decode(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut damaged = bytes;
            damaged[at] ^= 0x10;
            assert_eq!(SegmentHeader::decode(&damaged), Err(HeaderFault::Damaged));
        }
        assert_eq!(SegmentHeader::decode(&bytes[..63]), Err(HeaderFault::Damaged));
    }

    #[test]
    fn a_frame_of_another_segment_or_node_is_not_one() {
        let mut frame = [0; FRAME_HEADER_BYTES + 5];
        frame[FRAME_HEADER_BYTES..].copy_from_slice(b"hello");
        let head = FrameHeader::write(&mut frame, 4, 5, OWNER.seed(1));
        let header = FrameHeader::decode(&frame, OWNER.seed(1)).unwrap();
        assert_eq!((header.number, header.length, header.chain, header.head), (4, 5, 5, head));
        assert!(header.holds(b"hello", OWNER.seed(1)));
        assert!(!header.holds(b"hellO", OWNER.seed(1)));
        assert_eq!(FrameHeader::decode(&frame, OWNER.seed(2)), None);
        let other = Owner { incarnation: Incarnation(10), ..OWNER };
        assert_eq!(FrameHeader::decode(&frame, other.seed(1)), None);
    }
}
