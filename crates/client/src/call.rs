//! One request, from asking to answer. Whom to ask, `cluster` says; when to ask again, `ringfort_retry`.
//!
//! It goes to its key's leader, or to another node if that one can't be reached: every node passes on what it does
//! not lead. If the connection breaks over it, the next attempt is another node's. What may be repeated (all that does not change anything, and a write of a session) and gets no answer within a
//! second is asked elsewhere; its node may hang (`patience`).

use std::sync::Arc;
use std::time::Instant;

use ringfort_proto::session::carries;
use ringfort_retry::{Retry, Sessions};
use ringfort_types::{Call, Code, Copies, Failure, NodeId, Outcome, Reply, Request, Stamp};

use crate::cluster::{Cluster, REFRESH, REFRESH_AGAIN};
use crate::link::{Connection, Link};
use crate::options::{Options, PATIENCE};
use crate::patience::{suspect, until_hung};
use crate::pending::{Answer, NO_ANSWER};
use crate::room::Room;
use crate::unary;

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) options: Options,
    pub(crate) cluster: Arc<Cluster>,
    sessions: Sessions,
    room: Room,
}

impl Inner {
    pub(crate) fn new(options: Options) -> Result<Inner, Failure> {
        let (cluster, room) = (Arc::new(Cluster::new(&options)?), Room::new(&options));
        Ok(Inner { options, cluster, sessions: Sessions::default(), room })
    }

    /// Makes one request succeed or fail.
    pub(crate) async fn call(&self, request: Request) -> Result<Reply, Failure> {
        self.call_with(request, 0).await
    }

    /// The same for what only one node can answer: it fails when that is found to hang, since no other can help.
    pub(crate) async fn call_of(&self, node: NodeId, request: Request) -> Result<Reply, Failure> {
        let hung = async {
            match self.cluster.link_of(node) {
                Some(link) => until_hung(&link).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            told = self.call(request) => told,
            () = hung => {
                let why = "it hangs: it takes connections and answers nothing";
                Err(Failure::rejected(Code::Unavailable, why))
            }
        }
    }

    /// The same for a write that is to be on so many replicas.
    pub(crate) async fn call_with(&self, request: Request, copies: u32) -> Result<Reply, Failure> {
        self.call_since(Instant::now(), request, copies).await
    }

    /// The same for a request whose time began then.
    pub(crate) async fn call_since(
        &self,
        begun: Instant,
        request: Request,
        copies: u32,
    ) -> Result<Reply, Failure> {
        request.validate()?;
        let deadline = begun + self.options.timeout;
        let _room = self.room.admit(request.weight(), deadline).await?;
        let in_session = self.options.exactly_once && request.takes_stamp();
        let mut retry = Retry::new(&request, in_session, begun, deadline);
        let mut avoid: Option<Arc<Link>> = None;
        loop {
            let told = match self.number(&request, &mut retry, &mut avoid, deadline).await {
                Ok(()) => self.attempt(&request, retry.stamp(), copies, &mut avoid, deadline).await,
                Err(failure) => Err(failure),
            };
            let failure = match told {
                Ok(reply) => {
                    self.cluster.refresh_if_older_at(REFRESH, begun);
                    retry.done(&self.sessions);
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            self.cluster.refresh_if_older(REFRESH_AGAIN);
            self.pause(&mut retry, failure).await?;
        }
    }

    /// One attempt at one node: who leads the request's key, unless the attempt before this one has failed of that node.
    async fn attempt(
        &self,
        request: &Request,
        stamp: Option<Stamp>,
        copies: u32,
        avoid: &mut Option<Arc<Link>>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let (link, connection) = self.cluster.pick(request, avoid.as_slice(), deadline).await?;
        let call = Call { stamp, durability: Copies::from(copies).into(), ..request.clone().into() };
        let answer = if copies > 0 && stamp.is_some() {
            // Copies may take their time, as long as the node does not hang.
            tokio::select! {
                answer = ask(&connection, call, deadline) => answer,
                () = until_hung(&link) => failed(Failure::unknown(Code::DeadlineExceeded, NO_ANSWER)),
            }
        } else {
            ask(&connection, call, deadline).await
        };
        if let Some(leader) = answer.leader
            && !self.cluster.routes().heard(request, leader)
        {
            self.cluster.refresh_if_older(REFRESH_AGAIN);
        }
        match answer.reply {
            Reply::Failed(failure) => {
                let was_silent = failure.code == Code::DeadlineExceeded;
                if was_silent {
                    suspect(&link);
                }
                // Whoever was silent, or has closed the connection, may do so again: others pass the request on.
                *avoid = (was_silent || !connection.is_usable()).then_some(link);
                Err(failure)
            }
            reply => Ok(reply),
        }
    }

    /// Sees to it that a write has a session to be numbered in: an idle one, or a new one.
    async fn number(
        &self,
        request: &Request,
        retry: &mut Retry,
        avoid: &mut Option<Arc<Link>>,
        deadline: Instant,
    ) -> Result<(), Failure> {
        if !retry.wants_session() {
            return Ok(());
        }
        let shard = self.cluster.shard_of(request, deadline).await?;
        if retry.take_session(&self.sessions, shard)? {
            return Ok(());
        }
        match self.attempt(&Request::OpenSession { shard }, None, 0, avoid, deadline).await? {
            Reply::Opened { clock } => retry.open_session(&self.sessions, shard, clock),
            other => Err(other.into_failure()),
        }
    }

    /// Waits until it is time for another attempt, or says what came of the request.
    pub(crate) async fn pause(&self, retry: &mut Retry, failure: Failure) -> Result<(), Failure> {
        let next = retry.failed(&self.sessions, failure, Instant::now())?;
        tokio::time::sleep_until(next.into()).await;
        Ok(())
    }
}

/// Asks one node, and not for longer than it does good.
async fn ask(connection: &Connection, call: Call, deadline: Instant) -> Answer {
    let now = Instant::now();
    let is_repeatable = match call.request {
        Request::Get { .. }
        | Request::GetMany { .. }
        | Request::OpenSession { .. }
        | Request::ClusterState
        | Request::Users
        | Request::Digest { .. }
        | Request::ChangeLayout(_) => true,
        _ => call.stamp.is_some() && call.durability.copies == Copies::Majority,
    };
    // A last attempt that would be very short is given the rest at once.
    let in_haste = is_repeatable && now + PATIENCE * 3 / 2 < deadline;
    let deadline = if in_haste { now + PATIENCE } else { deadline };
    let Some(session) = connection.session.as_ref().filter(|_| carries(&call.request)) else {
        return unary::call(connection, call, deadline).await;
    };
    match session.submit(call, deadline) {
        Err(failure) => failed(Failure { outcome: Outcome::Rejected, ..failure }),
        Ok(answer) => answer
            .await
            .unwrap_or_else(|_| failed(Failure::unknown(Code::Unavailable, "the connection was closed"))),
    }
}

fn failed(failure: Failure) -> Answer {
    Answer { leader: None, reply: Reply::Failed(failure) }
}
