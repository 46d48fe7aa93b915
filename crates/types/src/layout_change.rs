//! What an operator wants of the cluster's layout, as an order to the meta group. The layout itself is `ringfort-ring`'s.
//!
//! ```text
//! layout change = 1: leader preference u8
//!                 2: shard varint | node varint | peer varint
//! leader preference = 0 ring | 1 highest id
//! ```
//!
//! Each says what should be, not what to do, so giving one twice is as good as once.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, BytesMut};

use crate::wire::{Malformed, Reader, put_varint};
use crate::{NodeId, PeerId, Replica, ShardId};

/// Which of a shard's replicas should lead it, if it can.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LeaderPreference {
    /// The first in line, as the ring has dealt them: leaders are spread evenly.
    #[default]
    Ring,
    /// The one on the node with the highest number, as a bully election would have it.
    HighestId,
}

impl LeaderPreference {
    /// All there are.
    pub const ALL: [LeaderPreference; 2] = [LeaderPreference::Ring, LeaderPreference::HighestId];

    /// Its byte.
    pub fn encode(self) -> u8 {
        self as u8
    }

    /// Reads its byte.
    pub fn decode(byte: u8) -> Result<LeaderPreference, Malformed> {
        let known = LeaderPreference::ALL.into_iter().find(|preference| preference.encode() == byte);
        known.ok_or(Malformed("unknown leader preference"))
    }
}

impl fmt::Display for LeaderPreference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LeaderPreference::Ring => "ring",
            LeaderPreference::HighestId => "highest-id",
        })
    }
}

impl FromStr for LeaderPreference {
    type Err = String;

    fn from_str(text: &str) -> Result<LeaderPreference, String> {
        let known = LeaderPreference::ALL.into_iter().find(|preference| preference.to_string() == text);
        known.ok_or_else(|| format!("no leader preference is called {text}: say ring or highest-id"))
    }
}

/// One thing that should be so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutChange {
    /// Who should lead.
    Prefer(LeaderPreference),
    /// This replica of the shard is to be made anew where it is, as another peer. What it has forgotten, or has damaged, is then
    /// nobody's word.
    Renew {
        /// Whose.
        shard: ShardId,
        /// The replica as it is.
        replica: Replica,
    },
}

impl LayoutChange {
    pub(crate) fn encode(self, out: &mut BytesMut) {
        match self {
            LayoutChange::Prefer(preference) => out.put_slice(&[1, preference.encode()]),
            LayoutChange::Renew { shard, replica } => {
                out.put_u8(2);
                put_varint(out, shard.0.into());
                put_varint(out, replica.node.0);
                put_varint(out, replica.peer.0);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader) -> Result<LayoutChange, Malformed> {
        match reader.u8()? {
            1 => Ok(LayoutChange::Prefer(LeaderPreference::decode(reader.u8()?)?)),
            2 => {
                let shard = u32::try_from(reader.varint()?).map_err(|_| Malformed("a shard's number"))?;
                let replica = Replica { node: NodeId(reader.varint()?), peer: PeerId(reader.varint()?) };
                Ok(LayoutChange::Renew { shard: ShardId(shard), replica })
            }
            _ => Err(Malformed("unknown kind of layout change")),
        }
    }
}
