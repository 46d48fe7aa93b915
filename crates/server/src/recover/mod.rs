//! A new cluster from what is left of one that has lost its majorities for good: offline, on the data directories of stopped nodes.
//!
//! [`Survey::of`] looks at the directories and says of each shard which of them has a copy, which copy is the best one, and what it may lack
//! (`ringfort_node::survivors`). [`Survey::begin_anew`] makes one new data directory out of the best copies: a node that is a cluster by itself, with
//! another number than the old one has, so that nobody of the old one is listened to.
//!
//! **How a directory is opened**: as a node opens it (`ringfort_node::recovery`), but in a scratch (`ringfort_storage::Stopped`), so that the
//! original does not change. All that can be wrong with it is then found by the same code, and what a torn write has left is cut by
//! the same code. Then all rows of all tables are read once, so that what is damaged is known before anything is decided.
//!
//! **What becomes of a copy.** Its whole log is applied, also what it does not know to be committed, and then it goes on as if one entry more had
//! put the new node in force as its only voter (`Shard::begin_anew`). That state of its table travels as a snapshot does, and is *installed* in
//! the new directory's log. The meta group begins anew, with a layout that has the old one's shards and settings.
//!
//! Invariants: the directories that were given do not change; the new one can't be started before all of it is on disk, since its identity
//! comes last (`DataDir::prepare`).
//!
//! Memory: what a node needs that starts, of one directory at a time.
//!
//! Caveats. A directory whose log is damaged, or lacks its end, gives nothing, as a node does not start with it either. A table and a log
//! of two directories are not put together.

mod anew;
mod survey;

pub use anew::{Anew, Begun};
pub use survey::{Copy, Directory, Found, Loss, ShardFound, Survey};
