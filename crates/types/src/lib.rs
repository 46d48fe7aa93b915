//! The words of Ringfort: ids, commands, requests, replies, errors and limits.
//!
//! Every other crate speaks in these types; this one depends on no other and does no I/O. The
//! definitions follow the design's vocabulary: a *shard* is one Raft group, a *revision* counts what
//! changed a shard, a *receipt* is what an acknowledged write returns.
//!
//! Invariants kept here:
//! - an id is a newtype, so a term can't be passed where an index is meant;
//! - what is written to disk or sent to another node has one encoder and one decoder, side by side,
//!   and the decoder allocates nothing that the bytes at hand do not justify;
//! - a failure says whether the request surely did not happen ([`Outcome::Rejected`]) or may have
//!   ([`Outcome::Unknown`]). There is no third kind, and a time-out is never a rejection.
//!
//! Deliberately absent: clocks. Time comes in as [`Now`] from whoever drives the code.

mod address;
mod call;
mod clock;
mod command;
mod configuration;
mod disk_state;
mod error;
mod ids;
mod key;
mod layout_change;
mod level;
pub mod limits;
mod log;
mod message;
pub mod planted;
mod presence;
mod reconfiguration;
mod reply;
mod request;
mod slot;
mod stamp;
mod users;
pub mod wire;
mod words;
mod write;

pub use address::{check_address, is_every_address, split_address};
pub use call::{Call, Copies, Door, Durability, Principal};
pub use clock::{HybridClock, Now};
pub use command::{Command, Entry, Stamped};
pub use configuration::{Configuration, Replica};
pub use disk_state::DiskState;
pub use error::{Code, Failure, Outcome};
pub use ids::{Epoch, Incarnation, Index, NodeId, PeerId, Revision, ShardId, Slot, Term, Version};
pub use key::{is_name, shown};
pub use layout_change::{LayoutChange, LeaderPreference, Newcomer, Places, Standing};
pub use level::{Level, LevelLimit, Levels};
pub use log::{Base, EntryKind, HardState, LogEntry, Record};
pub use message::{
    Answer, BirthStage, DiskSpace, Forward, GroupTold, GroupWanted, Hello, LayoutSent, LayoutWanted, LogMark,
    LogRecall, NodeReport, PeerFrame, PeerMessage, RaftMessage, ReadIndex, ReadIndexReply, ReadProbe,
    ReadProbeReply, Refusal, RefusalKind, ReplicaReport, ReportChanges, ReportReply, Role, SnapshotChunk,
    SnapshotProgress, SnapshotReply, SnapshotVerdict, Unknown,
};
pub use presence::Presence;
pub use reconfiguration::{CanNotFollow, ConfigurationChange};
pub use reply::{ClusterState, NodeState, Page, Receipt, Reply, Row, ShardState};
pub use request::{Consistency, Request, Scan, Token};
pub use slot::{SLOTS, slot_of};
pub use stamp::Stamp;
pub use users::{Access, Right, User, UserChange, UserState, Users, UsersState, Verdict};
pub use words::count;
pub use write::{Change, Condition, NewValue, Part};
