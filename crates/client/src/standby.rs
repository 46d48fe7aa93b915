//! A second node that keeps what a long list still reads.
//!
//! A node keeps old versions of rows only for lists that read them there. So when a list's node is lost, the others may have
//! dropped what the rest of the list needs. Therefore one more node is asked now and then for one row at the list's
//! indexes, which makes it keep them, too. It is the first to be asked when the list's own node is lost.
//!
//! It is no promise: the other node may give a long read up as the first may, and a shard that neither has a replica of is read
//! where its leader is. It costs another node's disk what it costs the first one's. A list that is over within [`AFTER`]
//! costs nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ringfort_proto::v1::ListRequest;
use ringfort_types::Request;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::cluster::Cluster;
use crate::link::{Connection, Link};
use crate::streams::opened;

/// A list that takes longer than this has a second node. Every node keeps what was the newest for 500 ms.
const AFTER: Duration = Duration::from_millis(100);
/// How often it is asked: it keeps for 30 s what it was asked for.
const EVERY: Duration = Duration::from_secs(10);
/// How long it may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The second node of a list, for as long as this is there.
#[derive(Debug)]
pub(crate) struct Standby {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    task: AbortHandle,
}

#[derive(Debug)]
struct State {
    /// Who brings the pages.
    serving: Arc<Link>,
    /// Who else keeps what they are read from, as far as is known.
    standby: Option<Arc<Link>>,
}

impl Standby {
    /// For this list, whose indexes are known.
    pub(crate) fn start(cluster: Arc<Cluster>, list: &ListRequest, serving: Arc<Link>) -> Standby {
        let state = Arc::new(Mutex::new(State { serving, standby: None }));
        let changed = Arc::new(Notify::new());
        let row = ListRequest { limit: 1, keys_only: true, ..list.clone() };
        let task = tokio::spawn(keep(cluster, row, state.clone(), changed.clone())).abort_handle();
        Standby { state, changed, task }
    }

    /// This node brings the pages now.
    pub(crate) fn is_served_by(&self, link: &Arc<Link>) {
        let mut state = lock(&self.state);
        if !Arc::ptr_eq(&state.serving, link) {
            state.serving = link.clone();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Who can go on with the list.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        lock(&self.state).standby.clone()
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn keep(cluster: Arc<Cluster>, row: ListRequest, state: Arc<Mutex<State>>, changed: Arc<Notify>) {
    let mut pause = AFTER;
    loop {
        // Whether the time is over or another node has taken over makes no difference.
        let _ = tokio::time::timeout(pause, changed.notified()).await;
        pause = EVERY;
        let (serving, standby) = {
            let State { serving, standby } = &*lock(&state);
            (serving.clone(), standby.clone().filter(|standby| !Arc::ptr_eq(standby, serving)))
        };
        let kept = tokio::time::timeout(TIMEOUT, ask(&cluster, &row, &serving, standby)).await;
        lock(&state).standby = kept.ok().flatten();
    }
}

/// Asks for the row: the node that was asked before, or another one than serves. Who has answered, if it could.
async fn ask(
    cluster: &Arc<Cluster>,
    row: &ListRequest,
    serving: &Arc<Link>,
    standby: Option<Arc<Link>>,
) -> Option<Arc<Link>> {
    let deadline = Instant::now() + TIMEOUT;
    let (link, connection): (Arc<Link>, Arc<Connection>) = match standby {
        Some(link) => {
            let connection = link.ready(deadline).await.ok()?;
            (link, connection)
        }
        None => cluster.pick(&Request::ClusterState, std::slice::from_ref(serving), deadline).await.ok()?,
    };
    if Arc::ptr_eq(&link, serving) {
        return None;
    }
    opened(connection, row.clone()).await.ok().map(|_| link)
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
