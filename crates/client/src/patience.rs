//! How a node that hangs is noticed and left: a stopped process takes connections as ever, and answers nothing.
//!
//! Whoever has waited for [`PATIENCE`] asks another node, if it does no harm to ask twice, and *suspects* the silent one: that
//! one is asked how the cluster looks, which a node that runs answers at once, until it answers. Meanwhile it is slow, and
//! requests of all kinds go to others first. A node that took its time over one request only (its shard has no quorum)
//! is cleared within a round trip.
//!
//! What may take long at a good node, or is this node's business alone, is not given up by time but when the node is found
//! to hang ([`until_hung`]).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use ringfort_types::{ClusterState, Code, Failure, Reply, Request};

use crate::link::Link;
use crate::options::PATIENCE;
use crate::unary;

/// How long one question to a slow node is left open. It answers the last one when it goes on.
const PROBE: Duration = Duration::from_secs(5);
/// From one such question to the next.
const PROBE_PAUSE: Duration = Duration::from_millis(500);

/// Why a node did not say how the cluster looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It can't be reached, or does not answer.
    Unreached(String),
    /// It said something else.
    Said(Failure),
}

/// How the cluster looks, as this node says.
pub(crate) async fn state_of(link: &Arc<Link>, deadline: Instant) -> Result<Box<ClusterState>, Trouble> {
    let connection = link.ready(deadline).await.map_err(Trouble::Unreached)?;
    match unary::call(&connection, Request::ClusterState.into(), deadline).await.reply {
        Reply::Cluster(state) => {
            link.set_heard();
            Ok(state)
        }
        Reply::Failed(failure) if failure.code == Code::DeadlineExceeded => {
            suspect(link);
            Err(Trouble::Unreached("it does not answer".into()))
        }
        other => {
            let failure = other.into_failure();
            if is_about_the_user(&failure) {
                link.set_heard();
            }
            Err(Trouble::Said(failure))
        }
    }
}

/// Whether a node says of whoever asks that they may not: the node is well, and no other one would say otherwise.
pub(crate) fn is_about_the_user(failure: &Failure) -> bool {
    matches!(failure.code, Code::Unauthenticated | Code::PermissionDenied)
}

/// Has a node that was silent for too long asked last, until it answers.
pub(crate) fn suspect(link: &Arc<Link>) {
    if link.set_slow() {
        tokio::spawn(probe(Arc::downgrade(link)));
    }
}

/// Asks a slow node until it answers, or nobody knows it any more.
async fn probe(link: Weak<Link>) {
    loop {
        let Some(link) = link.upgrade() else { return };
        match state_of(&link, Instant::now() + PROBE).await {
            Ok(_) => return,
            Err(Trouble::Said(failure)) if is_about_the_user(&failure) => return,
            Err(_) => {}
        }
        drop(link);
        tokio::time::sleep(PROBE_PAUSE).await;
    }
}

/// Returns once a node hangs: it is connected, and for as long as others have to answer does not say how the cluster looks.
pub(crate) async fn until_hung(link: &Arc<Link>) {
    loop {
        if !link.is_slow() {
            tokio::time::sleep(PATIENCE).await;
            suspect(link);
        }
        tokio::time::sleep(PATIENCE).await;
        if link.is_slow() && link.is_accepted() {
            return;
        }
    }
}
