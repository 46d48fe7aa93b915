//! The gate: the only thing that a door gets of a node.
//!
//! A door turns bytes into calls and answers into bytes. Everything else stands here, once for all doors: a call's place in
//! the core's queue, its read at the index that the core names, its outcome, the order of one connection's calls
//! (`pipeline`), lists in bounded memory (`rows`), and the sessions that make a write take effect once although its sender
//! has never heard of sessions (`retry`).
//!
//! Invariants: each call is answered once, with a reply or a failure that says whether it may have had an effect. Whoever
//! goes away holds nothing up.

mod pipeline;
mod retry;
#[cfg(test)]
mod rights;
mod rows;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_node::Incoming;
use ringfort_ring::Layout;
use ringfort_tls::Way;
use ringfort_types::{
    Call, ClusterState, Code, Consistency, Door, Durability, Failure, LayoutChange, NodeId, Part, Principal,
    Receipt, Reply, Request, Row, Token, UserChange,
};
use tokio::sync::SemaphorePermit;

pub(crate) use pipeline::{Order, Pipeline};
pub(crate) use rows::{Batch, Listing, Rows, TOUCH_AFTER};

pub(crate) use crate::audit::Asker;

use crate::audit::{Act, Record};
use crate::delivery::Delivery;
use crate::metrics::{Begun, Operation};
use crate::readers::Readers;
use crate::room::Room;
use crate::shared::Shared;
use crate::shares::UnderWay;

/// How long whoever has changed users waits until this node has heard of it.
const HEAR_MAX: Duration = Duration::from_secs(1);

/// What came of a call.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The reply.
    pub(crate) reply: Reply,
    /// The node to ask next time, if it wasn't this one.
    pub(crate) leader: Option<NodeId>,
    /// To be kept until it is given away.
    pub(crate) room: Room,
}

impl Answer {
    fn failed(failure: Failure) -> Answer {
        Answer::from(Reply::Failed(failure))
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Answer {
        Answer { reply, leader: None, room: Room::default() }
    }
}

/// A door's way to the node.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    shared: Arc<Shared>,
    door: Door,
    asker: Asker,
}

impl Gate {
    /// For this door, and for somebody who has not said who they are.
    pub(crate) fn new(shared: Arc<Shared>, door: Door) -> Gate {
        Gate { shared, door, asker: Asker::from(Principal::NOBODY) }
    }

    /// The same for this user; for [`Principal::NODE`], for what the node does itself.
    pub(crate) fn by(&self, asker: impl Into<Asker>) -> Gate {
        Gate { asker: asker.into(), ..self.clone() }
    }

    /// What will be written of this in the audit log, if there is one and it is of its business.
    pub(crate) fn record(&self, act: Act<'_>) -> Result<Option<Box<Record>>, Failure> {
        match &self.shared.audit {
            None => Ok(None),
            Some(audit) => audit.begin(self.door, self.asker, act, self.shared.is_enforced()),
        }
    }

    /// Carries this out, if its lines in the audit log can be written that must be.
    pub(crate) async fn recorded<T>(
        &self,
        act: Act<'_>,
        carried_out: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(record) = self.record(act)? else { return carried_out.await };
        let come = match record.begun().await {
            Ok(()) => carried_out.await,
            Err(failure) => Err(failure),
        };
        record.ended_and_written(come.as_ref().err()).await?;
        come
    }

    /// Carries out one call. A write that has no place in a session of its client's gets one of this node's, and is tried
    /// until its time is over: except those of `ringfort.v1`, whose clients have sessions of their own, and are told.
    pub(crate) async fn ask(&self, call: Call) -> Answer {
        let call = self.own(call);
        let begun = Begun::now(self.door, Operation::of(&call.request));
        let answer = match self.record(Act::Request(&call.request)) {
            Ok(None) => self.carry_out(call).await,
            Ok(Some(record)) => self.carry_out_recorded(call, record).await,
            Err(failure) => Answer::failed(failure),
        };
        self.shared.answered(begun, &answer.reply, answer.leader);
        answer
    }

    async fn carry_out(&self, call: Call) -> Answer {
        let shares = &self.shared.shares;
        let of = shares.of(self.asker);
        let _share = match shares.enter(of.as_ref(), call.weight()) {
            Ok(share) => share,
            Err(failure) => return Answer::failed(failure),
        };
        let users = match &call.request {
            Request::ChangeLayout(LayoutChange::Users(change)) => Some(change.clone()),
            _ => None,
        };
        let answer = if self.stamps(&call) {
            retry::once(&self.shared, call).await
        } else {
            ask_for(&self.shared, call, of).await
        };
        if let (Some(change), Reply::Written(_)) = (&users, &answer.reply) {
            self.hear_of(change).await;
        }
        answer
    }

    async fn carry_out_recorded(&self, call: Call, record: Box<Record>) -> Answer {
        let answer = match record.begun().await {
            Ok(()) => self.carry_out(call).await,
            Err(failure) => Answer::failed(failure),
        };
        let written = record.ended_and_written(failure_of(&answer.reply)).await;
        written.map_or_else(Answer::failed, |()| answer)
    }

    /// Waits for a moment until this node goes by a layout in which this is so of users: it is committed, and the node hears of it as all
    /// others do. So whoever asks the same node next finds it so.
    async fn hear_of(&self, change: &UserChange) {
        let mut layouts = self.watch_layout();
        let is_so = |layout: &Option<Arc<Layout>>| {
            layout.as_ref().is_some_and(|layout| !matches!(layout.users.after(change), Ok(Some(_))))
        };
        let _late = tokio::time::timeout(HEAR_MAX, layouts.wait_for(is_so)).await;
    }

    /// Refuses whoever may not change the cluster, or this node.
    pub(crate) fn may_change_cluster(&self) -> Result<(), Failure> {
        let Some(layout) = self.layout() else { return Ok(()) };
        layout.users.judge_cluster(self.asker.who).into_failure().map_or(Ok(()), Err)
    }

    /// The prefixes that a list of keys with this prefix goes over: one that is readable as a whole, or those in it that are.
    fn readable(&self, prefix: &Bytes) -> Result<Vec<Bytes>, Failure> {
        let Some(layout) = self.layout() else { return Ok(vec![prefix.clone()]) };
        let readable = layout.users.readable(self.asker.who, prefix);
        readable.map_err(|verdict| verdict.into_failure().expect("what may be read has a prefix"))
    }

    /// Reads one key, linearizably. The room is to be kept until the row is given away.
    pub(crate) async fn get(
        &self,
        key: impl Into<Bytes>,
        timeout_ms: u32,
    ) -> Result<(Option<Row>, Room), Failure> {
        let request = Request::Get { key: key.into(), consistency: Consistency::Linearizable };
        let Answer { reply, room, .. } = self.ask(Call::from(request).within(timeout_ms)).await;
        match reply {
            Reply::Value { row, .. } => Ok((row, room)),
            other => Err(other.into_failure()),
        }
    }

    /// Changes one key. `None` if its condition was not met.
    pub(crate) async fn write(
        &self,
        part: Part,
        durability: impl Into<Durability>,
        timeout_ms: u32,
    ) -> Result<Option<Receipt>, Failure> {
        let request = Request::Write { parts: vec![part] };
        let call = Call { durability: durability.into(), ..Call::from(request).within(timeout_ms) };
        match self.ask(call).await.reply {
            Reply::Written(receipt) => Ok(Some(receipt)),
            Reply::NotMet { .. } => Ok(None),
            other => Err(other.into_failure()),
        }
    }

    /// The cluster's map, once it is born.
    pub(crate) fn layout(&self) -> Option<Arc<Layout>> {
        self.shared.layout()
    }

    /// The same, whenever it changes.
    pub(crate) fn watch_layout(&self) -> tokio::sync::watch::Receiver<Option<Arc<Layout>>> {
        self.shared.watch_layout()
    }

    /// A pipeline for one connection. `T` is what the door needs to know to make an answer.
    pub(crate) fn pipeline<T: Send + 'static>(&self, order: Order) -> Pipeline<T> {
        Pipeline::new(self.clone(), order)
    }

    /// Rows in key order over all shards.
    pub(crate) fn rows(&self, listing: Listing) -> Result<Rows, Failure> {
        Rows::new(self.clone(), listing)
    }

    /// The cluster as this node knows it.
    pub(crate) async fn cluster(&self, timeout_ms: u32) -> Result<ClusterState, Failure> {
        match self.ask(Call::from(Request::ClusterState).within(timeout_ms)).await.reply {
            Reply::Cluster(state) => Ok(*state),
            other => Err(other.into_failure()),
        }
    }

    /// Has the node log what this filter lets through, if it is not empty. The filter before it.
    pub(crate) async fn set_log_level(&self, filter: &str) -> Result<String, Failure> {
        self.recorded(Act::SetLogLevel(filter), async { self.change_log_level(filter) }).await
    }

    fn change_log_level(&self, filter: &str) -> Result<String, Failure> {
        self.may_change_cluster()?;
        let Some(levels) = &self.shared.log_levels else {
            let why = "this node's log levels are fixed: it was started by another program";
            return Err(Failure::rejected(Code::FailedPrecondition, why));
        };
        let before = levels.change(filter).map_err(|why| Failure::rejected(Code::InvalidArgument, why))?;
        if !filter.is_empty() {
            self.shared.notice(format_args!("the log level is {filter} now, and was {before}"));
        }
        Ok(before)
    }

    /// The way to the node of this name, or to whichever.
    pub(crate) fn way(&self, to: Option<&str>) -> Way {
        self.shared.way(to.map(str::to_owned))
    }

    /// Which cluster this node belongs to; 0 while it belongs to none.
    pub(crate) fn cluster_number(&self) -> u64 {
        self.shared.header.cluster()
    }

    /// Which node this is.
    pub(crate) fn node(&self) -> NodeId {
        self.shared.header.from
    }

    /// A place to invite another node from, if there is one.
    pub(crate) fn place_to_invite(&self) -> Option<SemaphorePermit<'_>> {
        self.shared.inviting.try_acquire().ok()
    }

    /// Becomes true once connections should end.
    pub(crate) fn stopping(&self) -> tokio::sync::watch::Receiver<bool> {
        self.shared.stopping.subscribe()
    }

    /// Becomes true once the node is asked to stop.
    pub(crate) fn leaving(&self) -> tokio::sync::watch::Receiver<bool> {
        self.shared.leaving.subscribe()
    }

    /// Why requests are not served, if that is so.
    pub(crate) fn not_serving(&self) -> Option<String> {
        if *self.shared.leaving.borrow() {
            return Some("the node is stopping".to_owned());
        }
        if let Some(waiting) = &self.shared.waiting {
            return Some(waiting.line());
        }
        (!*self.shared.serving.borrow()).then(|| {
            let why = match self.layout() {
                None => "the node belongs to no cluster yet: it waits for the other nodes of --peers",
                Some(_) => "the node is still opening its shards",
            };
            why.to_owned()
        })
    }

    /// Waits until requests are served.
    pub(crate) async fn serving(&self) {
        let mut serving = self.shared.serving.subscribe();
        let _sender_lives_as_long = serving.wait_for(|serving| *serving).await;
    }

    /// A line for the operator.
    pub(crate) fn notice(&self, line: String) {
        self.shared.notice(line);
    }

    /// A call that has come in at this door, in memory of its own.
    fn own(&self, call: Call) -> Call {
        Call { door: self.door, who: self.asker.who, ..call.detached() }
    }

    fn stamps(&self, call: &Call) -> bool {
        self.door != Door::V1 && call.stamp.is_none() && call.request.takes_stamp()
    }
}

fn failure_of(reply: &Reply) -> Option<&Failure> {
    if let Reply::Failed(failure) = reply { Some(failure) } else { None }
}

/// Asks the node for an answer that may be large, as soon as there is room for it.
async fn ask_for(shared: &Arc<Shared>, call: Call, of: Option<Arc<UnderWay>>) -> Answer {
    // Pages of lists have a budget of their own.
    if call.request.is_write() || matches!(call.request, Request::Scan(_)) {
        return ask(shared, call).await;
    }
    let deadline = Instant::now() + Duration::from_millis(call.timeout_ms.into());
    let mut room = Room::default();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = ask(shared, call.clone().within((left.as_millis() as u32).max(1))).await;
        let bytes = answer.reply.weight();
        if let Some(enough) = shared.answers.large.enough(bytes, room, of.as_ref()) {
            return Answer { room: enough, ..answer };
        }
        // Not to be held while it waits.
        drop(answer);
        let waiting = tokio::time::timeout_at(deadline.into(), shared.answers.large.wait(bytes, of.clone()));
        let Ok(waited) = waiting.await else { return Answer::failed(shared.answers.large.none()) };
        room = waited;
    }
}

/// Asks the node and waits for what comes of it; if that is a read, does it.
async fn ask(shared: &Arc<Shared>, call: Call) -> Answer {
    let bytes = call.weight();
    let (token, receiver) = shared.answers.open_call();
    let _place = Place { shared, token };
    if !shared.inbox.push_request(Incoming { token, call }, bytes) {
        return Answer::failed(not_taken(shared));
    }
    match receiver.await {
        Ok(Delivery::Reply { reply, leader, room }) => Answer { reply, leader, room },
        Ok(Delivery::Read(read)) if Readers::is_long(&read.request) => {
            let reader = shared.clone();
            let reply = shared.runtime.spawn_blocking(move || reader.query(&read)).await;
            reply.unwrap_or_else(|_| Reply::Failed(stopped())).into()
        }
        Ok(Delivery::Read(read)) => shared.query(&read).into(),
        Err(_) => Answer::failed(stopped()),
    }
}

/// The core takes no more: its queue is full, or closed, or there is none yet.
fn not_taken(shared: &Shared) -> Failure {
    if let Some(waiting) = &shared.waiting {
        return waiting.not_yet();
    }
    if shared.is_stopping() {
        return stopping();
    }
    Failure::rejected(Code::ResourceExhausted, "the node has too many requests waiting: send fewer at a time")
}

/// Nothing more is taken.
pub(crate) fn stopping() -> Failure {
    Failure::rejected(Code::Stopping, "the node is stopping: ask another one")
}

/// The node ended before the answer came.
fn stopped() -> Failure {
    Failure::unknown(Code::Stopping, "the node stopped before the answer came")
}

/// A call under way; gives its place up when its caller goes.
struct Place<'a> {
    shared: &'a Shared,
    token: Token,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.shared.answers.close_call(self.token);
    }
}
