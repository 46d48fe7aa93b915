//! The layout on its way to a node that goes by an older one.

use bytes::{Bytes, BytesMut};

use super::Wire;
use crate::limits::LAYOUT_BYTES_MAX;
use crate::wire::{Malformed, Reader, put_bytes};

/// The sender has seen a frame that names a later layout than its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayoutWanted;

/// A layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutSent {
    /// In `ringfort-ring`'s format.
    pub bytes: Bytes,
}

impl Wire for LayoutWanted {
    const KIND: u8 = 13;

    fn encode(&self, _out: &mut BytesMut) {}

    fn decode(_reader: &mut Reader) -> Result<LayoutWanted, Malformed> {
        Ok(LayoutWanted)
    }

    fn weight(&self) -> usize {
        0
    }
}

impl Wire for LayoutSent {
    const KIND: u8 = 14;

    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, &self.bytes);
    }

    fn decode(reader: &mut Reader) -> Result<LayoutSent, Malformed> {
        Ok(LayoutSent { bytes: reader.bytes(LAYOUT_BYTES_MAX)? })
    }

    fn weight(&self) -> usize {
        self.bytes.len()
    }
}
