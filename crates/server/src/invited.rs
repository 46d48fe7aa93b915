//! A node that belongs to no cluster yet and waits to be invited into one.
//!
//! It serves by the same doors as any other: its queue takes nothing, and says why (`gate`), so that whatever is asked for at whichever door is
//! turned down with how to invite the node. It is never healthy. The one thing that it does is to redeem an invitation, by the way that a node
//! goes which is started with `--join` (`join`): nothing is decided here.
//!
//! Invariants: one invitation at a time. Its sender is told that the node has joined only when that is on disk, so a node that ends before waits
//! again, as the same data directory, and is told the same number when the members reach it and invite it again. An invitation that comes to nothing is forgotten.

use std::sync::Arc;
use std::time::Duration;

use ringfort_types::limits::INVITATION_MS;
use ringfort_types::{Code, Failure, Newcomer, NodeId};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::StartError;
use crate::answers::Answers;
use crate::doors::places::Places;
use crate::doors::spread::Runtimes;
use crate::doors::throttle::Throttle;
use crate::doors::tolerance::Tolerance;
use crate::doors::{self, Ports};
use crate::invitation::{Invitation, Waiting};
use crate::join::{Joined, join};
use crate::shared::{Header, Shared};

/// It is said what the node waits for, and again each time that this has passed.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// How long to wait for answers to leave when the waiting is over.
const CLOSING_MAX: Duration = Duration::from_millis(700);
/// Connections while it waits: whoever makes one is told that it waits, or invites it.
const CONNECTIONS_MAX: usize = 256;

/// An invitation that has made the node a member, whose sender is still to be told.
pub(crate) struct Redeemed {
    answer: oneshot::Sender<Result<(), Failure>>,
    shared: Arc<Shared>,
    doors: JoinSet<()>,
}

impl Redeemed {
    /// Tells the sender, and closes the doors in good order: the node's own are about to open, on the same ports.
    pub(crate) async fn tell(mut self) {
        let _gone = self.answer.send(Ok(()));
        self.shared.stopping.send_replace(true);
        let closed = async { while self.doors.join_next().await.is_some() {} };
        let _longer = timeout(CLOSING_MAX, closed).await;
    }
}

/// Waits on these ports until an invitation has made the newcomer a member.
pub(crate) async fn wait(
    ports: Ports,
    runtimes: Runtimes,
    shards: u32,
    newcomer: &Newcomer,
) -> Result<(Joined, Redeemed), StartError> {
    let Newcomer { name, address, incarnation, .. } = newcomer;
    let (waiting, mut invitations) = Waiting::new(newcomer);
    let line = waiting.line();
    let answers = Answers::new(NodeId(0), runtimes.handles());
    let shared = Shared::waiting(waiting, answers, Header::of_nobody(*incarnation), shards);
    let shared = Arc::new(shared.that_guards(ports.tls.clone()));
    let places = Places::new(CONNECTIONS_MAX, if ports.text.is_some() { 2 } else { 1 });
    let mut doors = JoinSet::new();
    doors.spawn(doors::serve(shared.clone(), Arc::default(), ports, places, Tolerance::default(), runtimes));
    let way = shared.way(None);
    let failed = Throttle::new("invitations have come to nothing");
    let mut telling = interval(TOLD_EVERY);
    loop {
        let invitation = tokio::select! {
            Some(invitation) = invitations.recv() => invitation,
            _ = telling.tick() => {
                shared.notice(&line);
                continue;
            }
        };
        let Invitation { members, answer } = invitation;
        if answer.is_closed() {
            continue;
        }
        let others: Vec<&str> =
            members.iter().map(String::as_str).filter(|member| member != address).collect();
        let joining = timeout(Duration::from_millis(INVITATION_MS), join(&others, newcomer, &way));
        let failure = match joining.await {
            Ok(Ok(joined)) => return Ok((joined, Redeemed { answer, shared, doors })),
            Ok(Err(StartError::Refused(why))) => Failure::rejected(Code::FailedPrecondition, why),
            Ok(Err(error)) => return Err(error),
            // One of them may still make it a member, and then whoever asks next tells it so.
            Err(_late) => {
                let why = format!(
                    "{name} can't join by {} in time: see whether it reaches them",
                    others.join(", ")
                );
                Failure::unknown(Code::Unavailable, why)
            }
        };
        failed.warn(|| format!("invited, but not taken in: {}; it waits on", failure.message));
        let _gone = answer.send(Err(failure));
    }
}
