//! What nodes say to each other: a file for each family of messages, with their codecs.
//!
//! A frame is everything that one node has to tell another after one turn: one write to the socket, one
//! event at the other end. Every frame names its sender's data directory, how far its log has come, and the layout it goes by, so that
//! a wiped disk, an older one or a stranger is noticed at once. Frames are not stored.
//!
//! ```text
//! frame   = version u8 (2) | from varint | to varint | incarnation u64 | cluster u64 | epoch varint | log |
//!           count varint | message × count
//! log     = process u64 | began varint | synced varint
//! message = kind varint | length varint | body: fields, as in the message's file
//! ```
//!
//! The two ends need not run the same version of Ringfort (`level`). A message says how long it is, so a kind that is not known is
//! skipped ([`Unknown`]), and so is what follows the last field that is known: a later version may add kinds, and fields at
//! the end of a body. Whatever else it changes is a new kind, or waits for a level.

mod birth;
mod forward;
mod group;
mod layout;
mod marks;
mod raft;
mod reads;
mod report;
mod snapshot;
mod unknown;

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::PEER_FRAME_MESSAGES_MAX;
use crate::wire::{Malformed, Reader, put_sized, put_varint};
use crate::{Epoch, Incarnation, NodeId};

pub use birth::{BirthStage, Hello};
pub use forward::{Answer, Forward};
pub use group::{GroupTold, GroupWanted};
pub use layout::{LayoutSent, LayoutWanted};
pub use marks::{LogMark, LogRecall};
pub use raft::{RaftMessage, Refusal, RefusalKind};
pub use reads::{ReadIndex, ReadIndexReply, ReadProbe, ReadProbeReply};
pub use report::{DiskSpace, NodeReport, ReplicaReport, ReportChanges, ReportReply, Role, SnapshotProgress};
pub use snapshot::{SnapshotChunk, SnapshotReply, SnapshotVerdict};
pub use unknown::Unknown;

const FRAME_VERSION: u8 = 2;
/// About what a frame has before its messages.
const HEAD_BYTES: usize = 64;
/// For so many messages there is room at once. There may be more, or less than this if they are large.
const MESSAGES_FIRST: usize = 256;

/// A kind of message, beside its codec.
trait Wire: Sized {
    /// Its number in a frame.
    const KIND: u8;

    fn encode(&self, out: &mut BytesMut);

    fn decode(reader: &mut Reader) -> Result<Self, Malformed>;

    /// Its size for the purpose of bounds.
    fn weight(&self) -> usize;
}

/// Makes the message type of its kinds, each of which names itself once.
macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($kind:ty),)*) => {
        /// One message between nodes.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum PeerMessage {
            $($(#[$doc])* $name($kind),)*
            /// Something that this version does not know.
            Unknown(Unknown),
        }

        impl PeerMessage {
            /// Its size for the purpose of bounds.
            pub fn weight(&self) -> usize {
                const OVERHEAD: usize = 16;
                OVERHEAD + match self {
                    $(PeerMessage::$name(message) => message.weight(),)*
                    PeerMessage::Unknown(message) => message.body.len(),
                }
            }

            fn encode(&self, out: &mut BytesMut) {
                match self {
                    $(PeerMessage::$name(message) => {
                        put_varint(out, <$kind>::KIND.into());
                        put_sized(out, |out| message.encode(out));
                    })*
                    PeerMessage::Unknown(message) => {
                        put_varint(out, message.kind);
                        put_sized(out, |out| out.put_slice(&message.body));
                    }
                }
            }

            /// What is left of the body once all known fields are read is of a later version.
            fn decode(reader: &mut Reader) -> Result<PeerMessage, Malformed> {
                let kind = reader.varint()?;
                let mut body = reader.sized()?;
                Ok(match u8::try_from(kind) {
                    $(Ok(<$kind>::KIND) => PeerMessage::$name(<$kind>::decode(&mut body)?),)*
                    _ => PeerMessage::Unknown(Unknown { kind, body: body.take_rest() }),
                })
            }
        }

        $(impl From<$kind> for PeerMessage {
            fn from(message: $kind) -> PeerMessage {
                PeerMessage::$name(message)
            }
        })*
    };
}

messages! {
    /// Who I am.
    Hello(Hello),
    /// I won't work with you.
    Refused(Refusal),
    /// A message between two replicas of a shard.
    Raft(RaftMessage),
    /// Please do this.
    Forward(Forward),
    /// This came of it.
    Answer(Answer),
    /// Are you still with me?
    ReadProbe(ReadProbe),
    /// The answer to it.
    ReadProbeReply(ReadProbeReply),
    /// How I am.
    Report(NodeReport),
    /// What has changed about that.
    ReportChanges(ReportChanges),
    /// The answer to both.
    ReportReply(ReportReply),
    /// Part of a table. Goes after everything else that waits, so that nothing waits for a table.
    SnapshotChunk(SnapshotChunk),
    /// The answer to it.
    SnapshotReply(SnapshotReply),
    /// At which index may I read?
    ReadIndex(ReadIndex),
    /// The answer to it.
    ReadIndexReply(ReadIndexReply),
    /// Please send me the layout that you go by.
    LayoutWanted(LayoutWanted),
    /// The layout that I go by.
    LayoutSent(LayoutSent),
    /// Who belongs to this group?
    GroupWanted(GroupWanted),
    /// The answer to it.
    GroupTold(GroupTold),
    /// Your log was further once.
    LogRecall(LogRecall),
}

/// Everything that one node tells another after one turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFrame {
    /// Who speaks.
    pub from: NodeId,
    /// To whom; a frame that went astray is dropped.
    pub to: NodeId,
    /// The speaker's data directory.
    pub incarnation: Incarnation,
    /// The speaker's cluster; 0 before birth.
    pub cluster: u64,
    /// The speaker's layout; 0 before birth.
    pub epoch: Epoch,
    /// How far its log has come.
    pub log: LogMark,
    /// In order.
    pub messages: Vec<PeerMessage>,
}

impl PeerFrame {
    /// The frame's bytes.
    pub fn encode(&self) -> Bytes {
        let weight: usize = self.messages.iter().map(PeerMessage::weight).sum();
        let mut out = BytesMut::with_capacity(HEAD_BYTES + weight);
        out.put_u8(FRAME_VERSION);
        put_varint(&mut out, self.from.0);
        put_varint(&mut out, self.to.0);
        out.put_u64_le(self.incarnation.0);
        out.put_u64_le(self.cluster);
        put_varint(&mut out, self.epoch.0);
        self.log.encode(&mut out);
        put_varint(&mut out, self.messages.len() as u64);
        for message in &self.messages {
            message.encode(&mut out);
        }
        out.freeze()
    }

    /// Reads what [`PeerFrame::encode`] wrote.
    pub fn decode(bytes: Bytes) -> Result<PeerFrame, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != FRAME_VERSION {
            return Err(Malformed("unknown version of a peer frame"));
        }
        let from = NodeId(reader.varint()?);
        let to = NodeId(reader.varint()?);
        let incarnation = Incarnation(reader.u64()?);
        let cluster = reader.u64()?;
        let epoch = Epoch(reader.varint()?);
        let log = LogMark::decode(&mut reader)?;
        let count = reader.count(2)?;
        if count > PEER_FRAME_MESSAGES_MAX {
            return Err(Malformed("too many messages in a peer frame"));
        }
        let mut messages = Vec::with_capacity(count.min(MESSAGES_FIRST));
        for _ in 0..count {
            messages.push(PeerMessage::decode(&mut reader)?);
        }
        reader.finish()?;
        Ok(PeerFrame { from, to, incarnation, cluster, epoch, log, messages })
    }
}
