//! A client that knows the way: it asks each key's leader directly, keeps many requests in flight on one stream a
//! node, and is honest about what it does not know.
//!
//! ```no_run
//! # async fn example() -> Result<(), ringfort_types::Failure> {
//! use ringfort_client::{Client, Options};
//!
//! let client = Client::connect(Options::new(vec!["127.0.0.1:50051".into()])).await?;
//! client.put("name", "Ada").await?;
//! let row = client.get("name").await?;
//! assert_eq!(row.map(|row| row.value).as_deref(), Some(&b"Ada"[..]));
//! # Ok(())
//! # }
//! ```
//!
//! A [`Client`] is a handle: clone it freely, call it from many tasks at once; what they ask travels together.
//! From top to bottom:
//! - `call` makes one request succeed or fail: it waits for `room`, numbers a write, asks, waits; `ringfort_retry` has the
//!   sessions that the numbers are of, and judges what came back, and whether to ask again, until the deadline;
//! - `cluster` picks the node to ask. Its map is `routes`: slot → shard → leader, refreshed every few seconds while in use,
//!   at every failure, and by the hints on answers that had to be passed on;
//! - `link` is one node: connected in the background, made anew when it breaks, for a `reason`; `names` finds the nodes
//!   behind a name;
//! - `which` is the cluster that the client is about: the first node that answers decides, and nobody of another one is asked;
//! - `credentials` is who the client is, which goes with every call, and where to it may go;
//! - `patience` is how a node that hangs is noticed, and asked last until it answers; `race` is for asking several at once;
//! - `session` and `pending` are the pipelined stream; `unary` the single calls; `list` the stream of rows, made of `pages`
//!   of one node after another if need be, of which the next is a `standby`;
//! - `one_node` asks one node and nothing else: `health`, whether it serves, `log_level`, what it logs;
//! - `write` is what an atomic write is made of; `many` reads many keys, of several shards side by side.
//!
//! Invariants:
//! - a write takes effect once, however often it has to be sent: it has a number in a session that its shard
//!   remembers. If the time ends in doubt, it fails as [`Outcome::Unknown`], never as if it had not happened;
//! - a request ends at its deadline, give or take a few milliseconds, whatever hangs;
//! - requests in flight, and their bytes, are bounded: further ones wait for room.
//!
//! Caveats: the order of two writes that are under way at once is not kept; wait for the first if it matters. A
//! [list](Client::list) goes on at another node as of the same moments, and breaks off where that is not possible any
//! more (a second node keeps for it what it reads, as long as that one is there, too).

mod address;
mod call;
mod cluster;
mod credentials;
mod gathered;
mod health;
mod link;
mod list;
mod log_level;
mod many;
mod names;
mod one_node;
mod options;
mod pages;
mod patience;
mod pending;
mod race;
mod reach;
mod room;
mod routes;
mod session;
mod standby;
mod streams;
mod unary;
mod which;
mod write;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringfort_types::{
    ClusterState, Failure, Index, LayoutChange, NodeId, Receipt, Reply, Request, Revision, Row, ShardId,
    Term, UsersState,
};

pub use address::{parse_address, parse_addresses};
pub use cluster::Unheard;
pub use credentials::Credentials;
pub use health::{Health, health, nodes_at};
pub use list::{List, Rows};
pub use log_level::set_log_level;
pub use options::{Options, ReadsFrom, Transport};
pub use ringfort_tls::{ClientFiles, ClientTls, TlsError};
#[doc(no_inline)]
pub use ringfort_types::{Condition, Consistency, Outcome};
pub use write::{Decision, NotMet, Write};

/// What a read found, and how fresh it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The row, if the key is there.
    pub row: Option<Row>,
    /// The index in the shard's log that it was read at.
    pub at: Index,
    /// The shard's revision then.
    pub revision: Revision,
}

/// A replica's hash at an index: equal on all replicas of a shard, or something is badly wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Digest {
    /// XXH3 of all rows in key order.
    pub hash: u64,
    /// How many rows.
    pub rows: u64,
}

/// What came of an increment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The sum, which is the value now.
    pub value: i64,
    /// As for any write.
    pub receipt: Receipt,
}

/// A handle on a cluster.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<call::Inner>,
    consistency: Consistency,
    copies: u32,
}

impl Client {
    /// Makes a client, which begins to look at the cluster; the first requests wait for that within their own time. Fails only if
    /// an address is not one: nodes that do not answer yet may do so when they are asked for something.
    #[expect(clippy::unused_async, reason = "connecting goes on in the runtime that it is called in")]
    pub async fn connect(options: Options) -> Result<Client, Failure> {
        let (consistency, copies) = (options.consistency, options.copies);
        let inner = Arc::new(call::Inner::new(options)?);
        inner.cluster.refresh_if_older(Duration::ZERO);
        Ok(Client { inner, consistency, copies })
    }

    /// The same client, for reads that are to be as fresh as this.
    #[must_use]
    pub fn with_consistency(&self, consistency: Consistency) -> Client {
        Client { consistency, ..self.clone() }
    }

    /// The same client, for writes that are to be on so many replicas' disks before they are acknowledged; 0 for a
    /// majority. If the time is over before, the receipt says how many there are, and the write stands.
    #[must_use]
    pub fn with_copies(&self, copies: u32) -> Client {
        Client { copies, ..self.clone() }
    }

    /// Reads a key; linearizably, if nothing else was asked for.
    pub async fn get(&self, key: impl Into<Bytes>) -> Result<Option<Row>, Failure> {
        self.get_with(key, self.consistency).await.map(|read| read.row)
    }

    /// Reads a key, as fresh as asked for.
    pub async fn get_with(&self, key: impl Into<Bytes>, consistency: Consistency) -> Result<Read, Failure> {
        match self.inner.call(Request::Get { key: key.into(), consistency }).await? {
            Reply::Value { row, at, revision } => Ok(Read { row, at, revision }),
            other => Err(other.into_failure()),
        }
    }

    /// Sets a key to a value, whatever it was. When this returns, a majority of replicas have it on disk.
    pub async fn put(&self, key: impl Into<Bytes>, value: impl Into<Bytes>) -> Result<Receipt, Failure> {
        written(self.write_with(Request::put(key, value)).await?)
    }

    /// Removes a key, there or not.
    pub async fn delete(&self, key: impl Into<Bytes>) -> Result<Receipt, Failure> {
        written(self.write_with(Request::delete(key)).await?)
    }

    /// Sets a key to a value if it meets a condition.
    pub async fn put_if(
        &self,
        key: impl Into<Bytes>,
        value: impl Into<Bytes>,
        condition: Condition,
    ) -> Result<Decision, Failure> {
        self.write(Write::new().put_if(key, value, condition)).await
    }

    /// Removes a key if it meets a condition.
    pub async fn delete_if(&self, key: impl Into<Bytes>, condition: Condition) -> Result<Decision, Failure> {
        self.write(Write::new().delete_if(key, condition)).await
    }

    /// Changes several keys of one shard if all conditions are met: all of them, or none.
    pub async fn write(&self, write: Write) -> Result<Decision, Failure> {
        match self.write_with(Request::Write { parts: write.parts }).await? {
            Reply::Written(receipt) => Ok(Decision::Done(receipt)),
            Reply::NotMet { part, key, revision, at } => {
                Ok(Decision::NotMet(NotMet { part: part as usize, key, revision, at }))
            }
            other => Err(other.into_failure()),
        }
    }

    /// Adds to a key's value, which is a decimal number; a key that is not there counts as 0. Fails without effect if
    /// the value is no number, or if the sum has more than 64 bits.
    pub async fn increment(&self, key: impl Into<Bytes>, by: i64) -> Result<Counted, Failure> {
        match self.write_with(Request::increment(key, by)).await? {
            Reply::Written(receipt) if receipt.sums.len() == 1 => {
                Ok(Counted { value: receipt.sums[0], receipt })
            }
            other => Err(other.into_failure()),
        }
    }

    async fn write_with(&self, request: Request) -> Result<Reply, Failure> {
        self.inner.call_with(request, self.copies).await
    }

    /// Reads several keys: the rows in the order of the keys. Those of one shard are read at one moment,
    /// up to 1024 of them and 8 MiB of values; other shards are asked at the same time, but not at the same moment.
    pub async fn get_many<K: Into<Bytes>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Result<Vec<Option<Row>>, Failure> {
        let keys = keys.into_iter().map(Into::into).collect();
        self.inner.get_many(keys, self.consistency).await
    }

    /// Rows in key order over all shards. Waits for the first ones, so that a list that can't be had fails here.
    pub async fn list(&self, list: List) -> Result<Rows, Failure> {
        self.inner.list(list).await
    }

    /// The cluster as one of its nodes sees it.
    pub async fn cluster_state(&self) -> Result<ClusterState, Failure> {
        match self.inner.call(Request::ClusterState).await? {
            Reply::Cluster(state) => Ok(*state),
            other => Err(other.into_failure()),
        }
    }

    /// Why no node has said yet how the cluster looks; none once one has. To be asked while a first answer takes long.
    pub fn unheard(&self) -> Option<Unheard> {
        self.inner.cluster.unheard()
    }

    /// Puts a mark into a shard's log; its index is one that [`Client::digest_at`] can ask about.
    pub async fn digest(&self, shard: ShardId) -> Result<Receipt, Failure> {
        written(self.inner.call(Request::Digest { shard }).await?)
    }

    /// The users as one of the nodes knows them, as far as whoever asks may see them.
    pub async fn users(&self) -> Result<UsersState, Failure> {
        match self.inner.call(Request::Users).await? {
            Reply::Users(users) => Ok(users),
            other => Err(other.into_failure()),
        }
    }

    /// Changes how the cluster is laid out, or its users, if it is not so yet. May be repeated.
    pub async fn change_layout(&self, change: LayoutChange) -> Result<Receipt, Failure> {
        written(self.inner.call(Request::ChangeLayout(change)).await?)
    }

    /// Has a shard's leader transfer its leadership to this node, and waits until that node leads: the term in which it does. If it
    /// is the term that [`Client::cluster_state`] has named before, it led already. May be repeated. The node then keeps the
    /// leadership for [`TRANSFER_HOLD_MS`](ringfort_types::limits::TRANSFER_HOLD_MS), if it can.
    pub async fn transfer(&self, shard: ShardId, to: NodeId) -> Result<Term, Failure> {
        match self.inner.call(Request::Transfer { shard, to }).await? {
            Reply::Leads { term } => Ok(term),
            other => Err(other.into_failure()),
        }
    }

    /// The hash of one node's replica of a shard at a mark's index.
    pub async fn digest_at(&self, node: NodeId, shard: ShardId, index: Index) -> Result<Digest, Failure> {
        match self.inner.call_of(node, Request::DigestAt { node, shard, index }).await? {
            Reply::Digest { hash, rows, .. } => Ok(Digest { hash, rows }),
            other => Err(other.into_failure()),
        }
    }
}

fn written(reply: Reply) -> Result<Receipt, Failure> {
    match reply {
        Reply::Written(receipt) => Ok(receipt),
        other => Err(other.into_failure()),
    }
}
