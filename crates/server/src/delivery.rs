//! What reaches whoever waits for a request: its reply, or the leave to read.
//!
//! A *read still to be done* is a settled index: the value is then fetched from the table by the task that asked, so that
//! neither the core nor the apply thread waits for a disk.

use ringfort_node::ReadJob;
use ringfort_types::{Index, NodeId, Reply, Request, ShardId, Token};

use crate::room::Room;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// This.
    Reply {
        /// The answer.
        reply: Reply,
        /// The node to ask next time, if it wasn't this one.
        leader: Option<NodeId>,
        /// What it takes of the room for large answers, if it has taken some already.
        room: Room,
    },
    /// It can be read now, by whoever asked.
    Read(ReadAt),
}

/// A read whose index is settled.
#[derive(Debug)]
pub(crate) struct ReadAt {
    pub(crate) shard: ShardId,
    pub(crate) at: Index,
    pub(crate) request: Request,
}

impl Delivery {
    pub(crate) fn reply(reply: Reply) -> Delivery {
        Delivery::Reply { reply, leader: None, room: Room::default() }
    }

    pub(crate) fn weight(&self) -> usize {
        match self {
            Delivery::Reply { reply, .. } => reply.weight(),
            Delivery::Read(read) => read.request.weight(),
        }
    }
}

/// The delivery of a read job.
pub(crate) fn read(job: ReadJob) -> (Token, Delivery) {
    (job.token, Delivery::Read(ReadAt { shard: job.shard, at: job.at, request: job.request }))
}
