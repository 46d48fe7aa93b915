//! Who belongs to a shard's group, for a node whose own replica may not hear it any more.

use bytes::BytesMut;

use super::Wire;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Configuration, Index, ShardId};

/// The sender has a replica of this shard that the layout does not want any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupWanted {
    /// Which shard.
    pub shard: ShardId,
}

/// The configuration that is in force on a replica of the sender's, which belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTold {
    /// Which shard.
    pub shard: ShardId,
    /// Its group.
    pub configuration: Configuration,
    /// The last committed index up to which no later configuration follows. 0 from those that do not say it.
    pub through: Index,
}

impl Wire for GroupWanted {
    const KIND: u8 = 15;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
    }

    fn decode(reader: &mut Reader) -> Result<GroupWanted, Malformed> {
        Ok(GroupWanted { shard: ShardId(reader.varint()? as u32) })
    }

    fn weight(&self) -> usize {
        4
    }
}

impl Wire for GroupTold {
    const KIND: u8 = 16;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
        put_varint(out, self.configuration.at.0);
        self.configuration.put(out);
        put_varint(out, self.through.0);
    }

    fn decode(reader: &mut Reader) -> Result<GroupTold, Malformed> {
        let shard = ShardId(reader.varint()? as u32);
        let at = Index(reader.varint()?);
        let configuration = Configuration::read(reader, at)?;
        let through = if reader.remaining() > 0 { Index(reader.varint()?) } else { Index(0) };
        Ok(GroupTold { shard, configuration, through })
    }

    fn weight(&self) -> usize {
        8 + 16 * self.configuration.replicas().count()
    }
}
