//! The shard's state row: what its rows stand for.
//!
//! ```text
//! state = version u8 (2) | flags u8 (0) | applied varint | revision varint | clock u64
//!       | configured at varint | configuration
//! ```
//!
//! The configuration is the group's as of the applied entry (`ringfort_types::Configuration`), so that it can't disagree with the
//! rows, and goes where they go.

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_types::wire::{Malformed, Reader, put_varint};
use ringfort_types::{Configuration, HybridClock, Index, Revision};

const VERSION: u8 = 2;

/// How far a shard is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The last entry applied.
    pub(crate) applied: Index,
    /// How many commands have changed something.
    pub(crate) revision: Revision,
    /// The stamp of the last entry that had one.
    pub(crate) clock: HybridClock,
    /// Who belongs to its group.
    pub(crate) configuration: Configuration,
}

impl State {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_slice(&[VERSION, 0]);
        put_varint(&mut out, self.applied.0);
        put_varint(&mut out, self.revision.0);
        out.put_u64_le(self.clock.0);
        put_varint(&mut out, self.configuration.at.0);
        self.configuration.put(&mut out);
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
        let at = Index(reader.varint()?);
        let configuration = Configuration::read(&mut reader, at)?;
        reader.finish()?;
        if at > applied {
            return Err(Malformed("a configuration that comes after the applied entry"));
        }
        Ok(State { applied, revision, clock, configuration })
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{NodeId, PeerId, Replica};

    use super::*;

    #[test]
    fn a_state_row_is_laid_out_as_drawn() {
        let replica = |node, peer| Replica { node: NodeId(node), peer: PeerId(peer) };
        let configuration = Configuration {
            at: Index(7),
            voters: vec![replica(1, 4)],
            learners: vec![replica(2, 9)],
            ..Configuration::default()
        };
        let state =
            State { applied: Index(200), revision: Revision(3), clock: HybridClock(1), configuration };
        let bytes = [2, 0, 0xC8, 1, 3, 1, 0, 0, 0, 0, 0, 0, 0, 7, 1, 1, 4, 0, 1, 2, 9, 0];
        assert_eq!(&state.encode()[..], bytes);
        assert_eq!(State::decode(state.encode()), Ok(state));
        let decoded = |bytes: &[u8]| State::decode(Bytes::copy_from_slice(bytes));
        for length in 0..bytes.len() {
            assert!(decoded(&bytes[..length]).is_err(), "{length}");
        }
        for (at, wrong) in [(0, 1), (1, 1), (2, 6), (15, 0), (19, 1), (20, 4)] {
            let mut bytes = bytes.to_vec();
            bytes[at] = wrong;
            assert!(decoded(&bytes).is_err(), "byte {at}");
        }
    }
}
