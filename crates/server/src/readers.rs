//! Reads from the tables, by whoever asks.

use std::sync::{OnceLock, PoisonError, RwLock};

use ringfort_shard::ShardReader;
use ringfort_types::{Code, Failure, Reply, Request, ShardId};

use crate::answers::ReadAt;
use crate::horizon::Horizon;

/// All local shards' tables, each once it is open.
#[derive(Debug)]
pub(crate) struct Readers {
    /// By number. Each can be replaced, when a snapshot becomes the shard's table.
    shards: Vec<OnceLock<RwLock<ShardReader>>>,
    pub(crate) horizon: Horizon,
}

impl Readers {
    /// For shards up to this number; none is open yet.
    pub(crate) fn new(last: u32) -> Readers {
        Readers { shards: (0..=last).map(|_| OnceLock::new()).collect(), horizon: Horizon::default() }
    }

    /// This shard's table is open. Happens once.
    pub(crate) fn open(&self, reader: ShardReader) {
        let place = &self.shards[reader.shard().0 as usize];
        assert!(place.set(RwLock::new(reader)).is_ok(), "a shard is opened once");
    }

    /// A shard has another table. Reads under way go on with the old one.
    pub(crate) fn replace(&self, reader: ShardReader) {
        if let Some(place) = self.place(reader.shard()) {
            *place.write().unwrap_or_else(PoisonError::into_inner) = reader;
        }
    }

    fn place(&self, shard: ShardId) -> Option<&RwLock<ShardReader>> {
        self.shards.get(shard.0 as usize)?.get()
    }

    /// Whether this read may take so long that it should not hold up other work on its thread.
    pub(crate) fn is_long(request: &Request) -> bool {
        !matches!(request, Request::Get { .. } | Request::GetMany { .. } | Request::OpenSession { .. })
    }

    /// Does the read.
    pub(crate) fn query(&self, read: &ReadAt) -> Reply {
        if Self::is_long(&read.request) {
            self.horizon.hold(read.shard, read.at);
        }
        let reader = self.place(read.shard).map(|place| {
            let reader = place.read().unwrap_or_else(PoisonError::into_inner);
            reader.clone()
        });
        match reader {
            Some(reader) => match reader.query(&read.request, read.at) {
                // Whoever asked has let so much time pass that its index is gone. A get may see a later one as well, all of its
                // keys the same.
                Reply::Failed(gone)
                    if gone.code == Code::FailedPrecondition && !Self::is_long(&read.request) =>
                {
                    reader.query(&read.request, self.horizon.newest(read.shard).max(read.at))
                }
                reply => reply,
            },
            None => {
                Reply::Failed(Failure::rejected(Code::Unavailable, "this node has no replica of that shard"))
            }
        }
    }
}
