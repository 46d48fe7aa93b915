//! How far a node's log has come, so that others notice a disk that is older than it was.

use bytes::{BufMut, BytesMut};

use super::Wire;
use crate::wire::{Malformed, Reader, put_varint};

/// How far the log of a node has come, as every frame of its says. A batch is one of the node's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogMark {
    /// A number that the process has drawn at random; 0 as long as its log is not open.
    pub process: u64,
    /// The last batch that the process found in its log.
    pub began: u64,
    /// The last batch that it knows to be synced.
    pub synced: u64,
}

/// "Your log was further once than it was when you began."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogRecall {
    /// The process that is meant.
    pub process: u64,
    /// A batch that its node has said to be synced.
    pub synced: u64,
}

impl LogMark {
    /// The log is not open yet.
    pub const NONE: LogMark = LogMark { process: 0, began: 0, synced: 0 };

    pub(super) fn encode(self, out: &mut BytesMut) {
        out.put_u64_le(self.process);
        put_varint(out, self.began);
        put_varint(out, self.synced);
    }

    pub(super) fn decode(reader: &mut Reader) -> Result<LogMark, Malformed> {
        Ok(LogMark { process: reader.u64()?, began: reader.varint()?, synced: reader.varint()? })
    }
}

impl Wire for LogRecall {
    const KIND: u8 = 17;

    fn encode(&self, out: &mut BytesMut) {
        out.put_u64_le(self.process);
        put_varint(out, self.synced);
    }

    fn decode(reader: &mut Reader) -> Result<LogRecall, Malformed> {
        Ok(LogRecall { process: reader.u64()?, synced: reader.varint()? })
    }

    fn weight(&self) -> usize {
        16
    }
}
