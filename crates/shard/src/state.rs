//! The shard's state row: what its rows stand for.
//!
//! ```text
//! state = version u8 (1) | flags u8 (0) | applied varint | revision varint | clock u64
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{HybridClock, Index, Revision};

const VERSION: u8 = 1;

/// How far a shard is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last entry applied.
    pub(crate) applied: Index,
    /// How many commands have changed something.
    pub(crate) revision: Revision,
    /// The stamp of the last entry that had one.
    pub(crate) clock: HybridClock,
}

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(30);
        out.put_slice(&[VERSION, 0]);
        put_varint(&mut out, self.applied.0);
        put_varint(&mut out, self.revision.0);
        out.put_u64_le(self.clock.0);
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<State, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a state row"));
        }
        if reader.u8()? != 0 {
            return Err(Malformed("unknown flag on a state row"));
        }
        let applied = Index(reader.varint()?);
        let revision = Revision(reader.varint()?);
        let clock = HybridClock(reader.u64()?);
        reader.finish()?;
        Ok(State { applied, revision, clock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_row_is_laid_out_as_drawn() {
        let state = State { applied: Index(200), revision: Revision(3), clock: HybridClock(1) };
        assert_eq!(&state.encode()[..], [1, 0, 0xC8, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(State::decode(state.encode()), Ok(state));
        assert!(State::decode(state.encode().slice(..12)).is_err());
        assert!(State::decode(Bytes::from_static(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).is_err());
        assert!(State::decode(Bytes::from_static(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])).is_err());
    }
}
