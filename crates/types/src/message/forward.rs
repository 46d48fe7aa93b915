//! Requests that are passed on to the node that should lead their shard, and what came of them.

use bytes::BytesMut;

use super::Wire;
use crate::wire::{Malformed, Reader, put_varint};
use crate::{Call, Reply, Stamp};

/// A call passed on to a node that should lead its shard. Its time-out is how long the sender will wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// The sender's number for it; the answer carries it.
    pub id: u64,
    /// The call.
    pub call: Call,
}

/// What came of a [`Forward`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The number in the [`Forward`].
    pub id: u64,
    /// The answer.
    pub reply: Reply,
}

impl Wire for Forward {
    const KIND: u8 = 4;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.id);
        self.call.encode(out);
    }

    fn decode(reader: &mut Reader) -> Result<Forward, Malformed> {
        Ok(Forward { id: reader.varint()?, call: Call::decode(reader)? })
    }

    fn weight(&self) -> usize {
        self.call.weight() + Stamp::WEIGHT
    }
}

impl Wire for Answer {
    const KIND: u8 = 5;

    fn encode(&self, out: &mut BytesMut) {
        put_varint(out, self.id);
        self.reply.encode(out);
    }

    fn decode(reader: &mut Reader) -> Result<Answer, Malformed> {
        Ok(Answer { id: reader.varint()?, reply: Reply::decode(reader)? })
    }

    fn weight(&self) -> usize {
        self.reply.weight()
    }
}
