//! What a shard's Raft state leaves in the shared log: entries and hard states.

use bytes::Bytes;

use crate::{Index, PeerId, ShardId, Term};

/// What an entry is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EntryKind {
    /// Carries commands, or nothing: the entry with which a leader opens its term.
    #[default]
    Normal,
    /// Carries a change of the group's configuration.
    Configuration,
}

/// One entry of a shard's Raft log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogEntry {
    /// Its place; from 1, without gaps.
    pub index: Index,
    /// The term of the leader that made it. Never falls from one index to the next.
    pub term: Term,
    /// What it is for.
    pub kind: EntryKind,
    /// For `Normal`: an encoded [`Entry`](crate::Entry), or nothing. For `Configuration`: an encoded
    /// [`ConfigurationChange`](crate::ConfigurationChange).
    pub payload: Bytes,
}

/// What Raft must not forget besides entries (Raft, figure 2: currentTerm, votedFor; and the commit index,
/// which may lag).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// The latest term that this replica has seen.
    pub term: Term,
    /// Whom it voted for in that term; 0 if nobody.
    pub vote: PeerId,
    /// An index known to be committed.
    pub commit: Index,
}

/// Where one shard's log begins, and which table goes with it.
///
/// The table of this generation holds everything up to `index`, so entries up to there may be gone. All zeroes for
/// a shard from whose log nothing was ever taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// The last index before the log's first entry.
    pub index: Index,
    /// The term of the entry that was there.
    pub term: Term,
    /// Which of the shard's tables is in use: one more with each snapshot that was installed.
    pub generation: u64,
}

/// One thing to be written to the shared log.
///
/// The last record about something wins: an entry at an index replaces every earlier entry of that shard at
/// that index *and all indexes after it*; a hard state replaces the earlier one, and so does a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An entry.
    Entry(ShardId, LogEntry),
    /// A hard state.
    HardState(ShardId, HardState),
    /// The shard's log begins here; entries after it stay. The log writes it by itself, before it lets go of entries.
    Base(ShardId, Base),
    /// A snapshot's commit point: the shard's table is the one of this generation from now on, and none of the
    /// entries before this record counts any more, whatever their index.
    Installed(ShardId, Base),
    /// Which replica of the shard this node has from now on. Until there is one, it is the one that the shard was born with.
    Replica(ShardId, PeerId),
    /// The replica has acknowledged everything up to this index, and its log does not go so far: it takes no part until it is made anew,
    /// as another one ([`Record::Replica`]).
    Lost(ShardId, Index),
    /// This node has no replica of the shard any more; the last one was this. Whoever comes after it is another.
    Gone(ShardId, PeerId),
}

impl Record {
    /// Its size for the purpose of bounds.
    pub fn weight(&self) -> usize {
        const OVERHEAD: usize = 64;
        match self {
            Record::Entry(_, entry) => OVERHEAD + entry.payload.len(),
            _ => OVERHEAD,
        }
    }
}
