//! What nodes ask each other about linearizable reads: ReadIndex, and a leader's question whether it still leads.

use bytes::{BufMut, BytesMut};

use super::Wire;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Index, PeerId, ShardId, Term};

/// "Are you still at this term?", for all shards that have reads waiting; ReadIndex for many groups at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProbe {
    /// The sender's boot count, so that a round is never mistaken for one before a restart.
    pub boot: u64,
    /// Rises with every probe of one boot.
    pub round: u64,
    /// The shards that the sender leads, each with the replica that is asked and the sender's term. A node's word counts for one
    /// replica, and not for one that was there before it.
    pub shards: Vec<(ShardId, PeerId, Term)>,
}

/// The answer to a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadProbeReply {
    /// As asked.
    pub boot: u64,
    /// As asked.
    pub round: u64,
    /// The shards of the probe at whose term this node is *not*, or of which it doesn't have that replica.
    pub refused: Vec<ShardId>,
}

/// "At which index may I read now?", from a replica that follows to the node that leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndex {
    /// Whose.
    pub shard: ShardId,
    /// The sender's number for it, never used twice, also not after a restart.
    pub number: u64,
}

/// The answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadIndexReply {
    /// As asked.
    pub shard: ShardId,
    /// As asked.
    pub number: u64,
    /// The leader's term, and the index that it had committed when a majority confirmed that; nothing if this node does not
    /// lead.
    pub told: Option<(Term, Index)>,
}

impl Wire for ReadProbe {
    const KIND: u8 = 6;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.boot);
        put_varint(out, self.round);
        put_varint(out, self.shards.len() as u64);
        for (shard, peer, term) in &self.shards {
            put_varint(out, shard.0.into());
            put_varint(out, peer.0);
            put_varint(out, term.0);
        }
    }

    fn decode(reader: &mut Reader) -> Result<ReadProbe, Malformed> {
        let boot = reader.varint()?;
        let round = reader.varint()?;
        let count = reader.count(3)?;
        let mut shards = Vec::with_capacity(count);
        for _ in 0..count {
            let (shard, peer) = (ShardId(reader.varint()? as u32), PeerId(reader.varint()?));
            shards.push((shard, peer, Term(reader.varint()?)));
        }
        Ok(ReadProbe { boot, round, shards })
    }

    fn weight(&self) -> usize {
        8 * self.shards.len()
    }
}

impl Wire for ReadProbeReply {
    const KIND: u8 = 7;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.boot);
        put_varint(out, self.round);
        put_varint(out, self.refused.len() as u64);
        for shard in &self.refused {
            put_varint(out, shard.0.into());
        }
    }

    fn decode(reader: &mut Reader) -> Result<ReadProbeReply, Malformed> {
        let boot = reader.varint()?;
        let round = reader.varint()?;
        let count = reader.count(1)?;
        let mut refused = Vec::with_capacity(count);
        for _ in 0..count {
            refused.push(ShardId(reader.varint()? as u32));
        }
        Ok(ReadProbeReply { boot, round, refused })
    }

    fn weight(&self) -> usize {
        16 + 4 * self.refused.len()
    }
}

impl Wire for ReadIndex {
    const KIND: u8 = 11;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.shard.0.into());
        put_varint(out, self.number);
    }

    fn decode(reader: &mut Reader) -> Result<ReadIndex, Malformed> {
        Ok(ReadIndex { shard: ShardId(reader.varint()? as u32), number: reader.varint()? })
    }

    fn weight(&self) -> usize {
        16
    }
}

impl Wire for ReadIndexReply {
    const KIND: u8 = 12;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u8(self.told.is_some().into());
        put_varint(out, self.shard.0.into());
        put_varint(out, self.number);
        if let Some((term, index)) = self.told {
            put_varint(out, term.0);
            put_varint(out, index.0);
        }
    }

    fn decode(reader: &mut Reader) -> Result<ReadIndexReply, Malformed> {
        let is_told = reader.u8()? != 0;
        let (shard, number) = (ShardId(reader.varint()? as u32), reader.varint()?);
        let told = if is_told { Some((Term(reader.varint()?), Index(reader.varint()?))) } else { None };
        Ok(ReadIndexReply { shard, number, told })
    }

    fn weight(&self) -> usize {
        32
    }
}
