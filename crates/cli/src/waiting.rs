//! Waiting: for a first answer, in commands that give the cluster more time than people look at a silent terminal (what is waited
//! for is said, and a wait for nobody ends soon); and until the node that is asked has heard of all others.

use std::io::Write;
use std::time::{Duration, Instant};

use ringfort_client::Client;
use ringfort_types::{ClusterState, Presence};

use crate::stop::Stop;

/// How often it is looked.
const LOOK: Duration = Duration::from_millis(100);
/// After this time it is said what is waited for.
pub(crate) const SILENT_MAX: Duration = Duration::from_secs(2);
/// So long after the start somebody has to listen. A little less than other commands give it, so that a first request fails
/// no later than with its own time.
const NOBODY_MAX: Duration = Duration::from_millis(2_800);

/// How long to wait for nodes that were not heard of yet.
const HEARD_MAX: Duration = Duration::from_secs(6);

/// The cluster's state, once the node that is asked knows of each other one whether it is up.
pub(crate) async fn once_all_are_heard(client: &Client) -> Result<ClusterState, Stop> {
    let until = Instant::now() + HEARD_MAX;
    loop {
        let state = client.cluster_state().await?;
        let is_unknown = state.nodes.iter().any(|node| node.presence == Presence::Unknown);
        if !is_unknown || Instant::now() > until {
            return Ok(state);
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Says on stderr, once, if no node answers for a while. Comes back if nobody listens at any address; never if a node answers.
pub(crate) async fn nobody_there(client: &Client) -> Stop {
    let begun = Instant::now();
    let mut told = false;
    while let Some(unheard) = client.unheard() {
        if unheard.nobody_listens && begun.elapsed() >= NOBODY_MAX {
            return unheard.failure.into();
        }
        if !told && begun.elapsed() >= SILENT_MAX {
            told = true;
            let _nobody_reads =
                writeln!(std::io::stderr(), "ringfort: waiting for a first answer: {}", unheard.failure);
        }
        tokio::time::sleep(LOOK).await;
    }
    std::future::pending().await
}
