//! One request, from asking to answer: where to send it, and with which number; when to try again is `ringfort_retry`'s business.
//!
//! It goes to its key's leader, or to another node if that one can't be reached: every node passes on what it does
//! not lead. A read, or a write of a session, that gets no answer within a second is asked elsewhere; its node may be
//! hanging.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use ringfort_proto::session::carries;
use ringfort_retry::{Session, Sessions, Tries, is_of_lost_session};
use ringfort_types::limits::KEY_BYTES_MAX;
use ringfort_types::{
    Call, ClusterState, Code, Consistency, Copies, Failure, Outcome, Reply, Request, ShardId, Stamp,
};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::link::{Connection, Link, Look};
use crate::list::{List, Rows};
use crate::options::{Options, ReadsFrom};
use crate::pending::{Answer, NO_ANSWER};
use crate::routes::Routes;
use crate::unary;
use crate::{odd, parse_address};

/// How long one node may take before another one is asked, if it does no harm to ask twice.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the best node may take to be connected while another one is. That one's detour costs a hop.
const DETOUR: Duration = Duration::from_millis(200);
/// How old the map may get while it is in use.
const REFRESH: Duration = Duration::from_secs(3);
/// How soon after a refresh a failure may cause another.
const REFRESH_AGAIN: Duration = Duration::from_millis(100);
/// How long a node may take to say how the cluster looks.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Inner {
    options: Options,
    /// Links to `options.addresses`.
    seeds: Vec<Arc<Link>>,
    /// All links by address, those of `seeds` included.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    routes: RwLock<Arc<Routes>>,
    sessions: Sessions,
    /// Room for requests in flight, in bytes; each takes at least `weight_min`, so that it bounds their number too.
    room: Semaphore,
    room_bytes: u32,
    weight_min: u32,
    /// Whose turn it is, where any node or any replica will do; counts up.
    turn: AtomicUsize,
    /// Zero of `refreshed_us`.
    born: Instant,
    /// When the last refresh began.
    refreshed_us: AtomicU64,
    refreshing: AtomicBool,
}

impl Inner {
    pub(crate) fn new(options: Options) -> Result<Inner, Failure> {
        if options.addresses.is_empty() {
            let why = "no address given: name at least one node as host:port";
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        let mut links = BTreeMap::new();
        let mut seeds = Vec::new();
        for address in &options.addresses {
            let address = parse_address(address)?;
            let link = Arc::new(Link::new(address.clone(), options.transport)?);
            seeds.push(links.entry(address).or_insert(link).clone());
        }
        let room_bytes =
            u32::try_from(options.in_flight_bytes_max).unwrap_or(u32::MAX).clamp(1, u32::MAX >> 3);
        let requests_max = u32::try_from(options.in_flight_max).unwrap_or(u32::MAX).clamp(1, room_bytes);
        Ok(Inner {
            options,
            seeds,
            links: Mutex::new(links),
            routes: RwLock::default(),
            sessions: Sessions::default(),
            room: Semaphore::new(room_bytes as usize),
            room_bytes,
            weight_min: room_bytes / requests_max,
            turn: AtomicUsize::new(0),
            born: Instant::now(),
            refreshed_us: AtomicU64::new(0),
            refreshing: AtomicBool::new(false),
        })
    }

    /// Makes one request succeed or fail.
    pub(crate) async fn call(self: &Arc<Inner>, request: Request) -> Result<Reply, Failure> {
        self.call_with(request, 0).await
    }

    /// The same for a write that is to be on so many replicas.
    pub(crate) async fn call_with(
        self: &Arc<Inner>,
        request: Request,
        copies: u32,
    ) -> Result<Reply, Failure> {
        request.validate()?;
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let _room = self.admit(&request, deadline).await?;
        let in_session = self.options.exactly_once && request.takes_stamp();
        let mut tries = Tries::new(&request, in_session, begun, deadline);
        let mut slow: Option<Arc<Link>> = None;
        let mut session: Option<Session> = None;
        loop {
            let stamp = if in_session {
                self.stamp(&request, &mut session, &mut slow, deadline).await.map(Some)
            } else {
                Ok(None)
            };
            let told = match stamp {
                Ok(stamp) => self.attempt(&request, stamp, copies, &mut slow, deadline).await,
                Err(failure) => Err(failure),
            };
            let failure = match told {
                Ok(reply) => {
                    self.refresh_if_older_at(REFRESH, begun);
                    if let Some(session) = session {
                        self.sessions.done(session);
                    }
                    return Ok(reply);
                }
                Err(failure) => failure,
            };
            self.refresh_if_older(REFRESH_AGAIN);
            if is_of_lost_session(&failure)
                && let Some(session) = session.take()
            {
                self.sessions.forgotten(&session);
            }
            if let Err(end) = pause(&mut tries, failure).await {
                // Of what ended otherwise nobody knows here whether the shard has counted it.
                if tries.is_untouched()
                    && let Some(session) = session
                {
                    self.sessions.unused(session);
                }
                return Err(end);
            }
        }
    }

    /// One attempt at one node: who leads the request's key, unless that one was slow.
    async fn attempt(
        self: &Arc<Inner>,
        request: &Request,
        stamp: Option<Stamp>,
        copies: u32,
        slow: &mut Option<Arc<Link>>,
        deadline: Instant,
    ) -> Result<Reply, Failure> {
        let (link, connection) = self.pick(request, slow.as_ref(), deadline).await?;
        let call = Call { stamp, durability: Copies::from(copies).into(), ..request.clone().into() };
        let answer = self.ask(&connection, call, deadline).await;
        if let Some(leader) = answer.leader
            && !self.routes().heard(request, leader)
        {
            self.refresh_if_older(REFRESH_AGAIN);
        }
        match answer.reply {
            Reply::Failed(failure) => {
                *slow = (failure.code == Code::DeadlineExceeded).then_some(link);
                Err(failure)
            }
            reply => Ok(reply),
        }
    }

    /// The write's number, in the session that it has or in one that is idle or new.
    async fn stamp(
        self: &Arc<Inner>,
        request: &Request,
        session: &mut Option<Session>,
        slow: &mut Option<Arc<Link>>,
        deadline: Instant,
    ) -> Result<Stamp, Failure> {
        if let Some(session) = session {
            return Ok(session.stamp());
        }
        let shard = self.shard_of(request, deadline).await?;
        let found = match self.sessions.take(shard)? {
            Some(found) => found,
            None => match self.attempt(&Request::OpenSession { shard }, None, 0, slow, deadline).await? {
                Reply::Opened { clock } => self.sessions.open(shard, clock)?,
                _ => return Err(odd()),
            },
        };
        Ok(session.insert(found).stamp())
    }

    /// The shard of the request's key. Sessions are a shard's, so the map of the cluster is needed.
    async fn shard_of(self: &Arc<Inner>, request: &Request, deadline: Instant) -> Result<ShardId, Failure> {
        if let Some(shard) = self.routes().shard_of(request) {
            return Ok(shard);
        }
        match tokio::time::timeout_at(deadline.into(), self.refresh()).await {
            Ok(refreshed) => refreshed?,
            Err(_) => return Err(Failure::rejected(Code::DeadlineExceeded, NO_ANSWER)),
        }
        self.routes().shard_of(request).ok_or_else(|| {
            let why = "the nodes do not say yet which shard has this key: the cluster may still be starting";
            Failure::rejected(Code::Unavailable, why)
        })
    }

    /// Opens a list at any node and waits for its first page.
    pub(crate) async fn list(self: &Arc<Inner>, list: List) -> Result<Rows, Failure> {
        for bound in [&list.prefix, &list.from] {
            if bound.len() > KEY_BYTES_MAX {
                let why =
                    format!("prefix or first key of {} bytes: the limit is {KEY_BYTES_MAX}", bound.len());
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
        }
        // Any request without a key will do: it says that all nodes are equally good.
        let request = Request::ClusterState;
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let mut tries = Tries::new(&request, false, begun, deadline);
        let mut slow: Option<Arc<Link>> = None;
        loop {
            let failure = match self.pick(&request, slow.as_ref(), deadline).await {
                Err(failure) => failure,
                Ok((link, connection)) => {
                    let mut client = unary::kv(&connection.channel);
                    let opened = tokio::time::timeout_at(deadline.into(), async {
                        let mut pages =
                            client.list(tonic::Request::new(list.clone().into())).await?.into_inner();
                        let first = pages.message().await?;
                        Ok((pages, first))
                    });
                    match opened.await {
                        Ok(Ok((pages, first))) => {
                            self.refresh_if_older(REFRESH);
                            let timeout = self.options.timeout;
                            return Ok(Rows::new(pages, first, link.address.clone(), timeout));
                        }
                        Ok(Err(status)) => unary::failure(&status, false),
                        Err(_) => {
                            slow = Some(link);
                            Failure::rejected(Code::DeadlineExceeded, NO_ANSWER)
                        }
                    }
                }
            };
            self.refresh_if_older(REFRESH_AGAIN);
            pause(&mut tries, failure).await?;
        }
    }

    /// Room for one more request in flight.
    async fn admit(&self, request: &Request, deadline: Instant) -> Result<SemaphorePermit<'_>, Failure> {
        let weight = u32::try_from(request.weight()).unwrap_or(u32::MAX);
        let weight = weight.clamp(self.weight_min, self.room_bytes);
        if let Ok(room) = self.room.try_acquire_many(weight) {
            return Ok(room);
        }
        match tokio::time::timeout_at(deadline.into(), self.room.acquire_many(weight)).await {
            Ok(room) => Ok(room.expect("the semaphore is never closed")),
            Err(_) => Err(Failure::rejected(
                Code::ResourceExhausted,
                "this client has too many requests unanswered: send fewer at once",
            )),
        }
    }

    /// A node to ask, connected: the one that leads the key if it can be reached, else any.
    async fn pick(
        self: &Arc<Inner>,
        request: &Request,
        slow: Option<&Arc<Link>>,
        deadline: Instant,
    ) -> Result<(Arc<Link>, Arc<Connection>), Failure> {
        let routes = self.routes();
        let best = match self.options.reads_from {
            ReadsFrom::Replicas if is_any_replicas(request) => {
                routes.replica(request, self.turn.fetch_add(1, Ordering::Relaxed))
            }
            _ => routes.best(request),
        };
        if let Some(best) = best
            && slow.is_none()
            && let Look::Up(connection) = best.look()
        {
            return Ok((best.clone(), connection));
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let known: Vec<_> = if routes.is_empty() { Vec::new() } else { routes.links().collect() };
        let rotated = (0..known.len()).map(|at| known[(turn + at) % known.len()]);
        let mut tried: Vec<&Arc<Link>> = Vec::new();
        let mut whys: Vec<String> = Vec::new();
        let is_slow = |link: &&Arc<Link>| slow.is_some_and(|slow| Arc::ptr_eq(slow, link));
        let order = best.into_iter().chain(rotated).chain(&self.seeds);
        // Any node that is connected passes the request on. So the best one is not waited for until it is certain that it
        // can't be reached from here: it may have the name of another network, which nobody here resolves in time.
        let connected = order.clone().filter(|link| !is_slow(link)).find_map(|link| match link.look() {
            Look::Up(connection) => Some((link.clone(), connection)),
            Look::Wait | Look::Down(_) => None,
        });
        if let Some(other) = connected {
            if let Some(best) = best.filter(|link| !is_slow(link))
                && let Ok(connection) = best.ready(deadline.min(Instant::now() + DETOUR)).await
            {
                return Ok((best.clone(), connection));
            }
            return Ok(other);
        }
        // A slow node comes last.
        for link in order.clone().filter(|link| !is_slow(link)).chain(order.filter(is_slow)) {
            if tried.iter().any(|tried| Arc::ptr_eq(tried, link)) {
                continue;
            }
            match link.ready(deadline).await {
                Ok(connection) => return Ok((link.clone(), connection)),
                Err(why) => whys.push(why),
            }
            tried.push(link);
        }
        Err(unreachable(&tried, &whys))
    }

    /// One attempt at one node.
    async fn ask(&self, connection: &Connection, call: Call, deadline: Instant) -> Answer {
        let now = Instant::now();
        let is_repeatable = match call.request {
            Request::Get { .. } | Request::GetMany { .. } | Request::OpenSession { .. } => true,
            // Copies may take their time.
            _ => call.stamp.is_some() && call.durability.copies == Copies::Majority,
        };
        // A last attempt that would be very short is given the rest at once.
        let in_haste = is_repeatable && now + PATIENCE * 3 / 2 < deadline;
        let deadline = if in_haste { now + PATIENCE } else { deadline };
        let Some(session) = connection.session.as_ref().filter(|_| carries(&call.request)) else {
            return unary::call(connection, call, deadline).await;
        };
        let failed = |failure| Answer { leader: None, reply: Reply::Failed(failure) };
        match session.submit(call, deadline) {
            Err(failure) => failed(Failure { outcome: Outcome::Rejected, ..failure }),
            Ok(answer) => answer
                .await
                .unwrap_or_else(|_| failed(Failure::unknown(Code::Unavailable, "the connection was closed"))),
        }
    }

    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().expect("no code under this lock panics").clone()
    }

    /// The first refresh, waited for; that it may fail is the first request's business.
    pub(crate) async fn look_around(self: &Arc<Inner>) {
        let patience = self.options.timeout.min(REFRESH_TIMEOUT);
        let _ = tokio::time::timeout(patience, self.refresh()).await;
    }

    fn refresh_if_older(self: &Arc<Inner>, age: Duration) {
        self.refresh_if_older_at(age, Instant::now());
    }

    /// Refreshes the map in the background if the last time was longer than `age` before `now`.
    fn refresh_if_older_at(self: &Arc<Inner>, age: Duration, now: Instant) {
        let now_us = now.saturating_duration_since(self.born).as_micros() as u64;
        let last_us = self.refreshed_us.load(Ordering::Relaxed);
        if now_us < last_us + age.as_micros() as u64 || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.refreshed_us.store(now_us, Ordering::Relaxed);
        let inner = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(inner) = inner.upgrade() {
                let _ = inner.refresh().await;
                inner.refreshing.store(false, Ordering::Release);
            }
        });
    }

    /// Asks one node after another how the cluster looks, until one says so.
    async fn refresh(self: &Arc<Inner>) -> Result<(), Failure> {
        let request = Request::ClusterState;
        let mut slow = None;
        for _ in 0..3 {
            let deadline = Instant::now() + REFRESH_TIMEOUT;
            let (link, connection) = self.pick(&request, slow.as_ref(), deadline).await?;
            let answer = unary::call(&connection, request.clone().into(), deadline).await;
            if let Reply::Cluster(state) = answer.reply {
                self.learn(&state);
                return Ok(());
            }
            slow = Some(link);
        }
        Err(Failure::rejected(Code::Unavailable, "no node says how the cluster looks"))
    }

    fn learn(&self, state: &ClusterState) {
        if state.nodes.is_empty() {
            return;
        }
        let mut links = self.links.lock().expect("no code under this lock panics");
        let routes = self.routes().updated(state, |address| {
            if let Some(link) = links.get(address) {
                return Some(link.clone());
            }
            let link = Arc::new(Link::new(parse_address(address).ok()?, self.options.transport).ok()?);
            links.insert(address.to_owned(), link.clone());
            Some(link)
        });
        links.retain(|address, link| {
            state.nodes.iter().any(|node| node.address == *address)
                || self.seeds.iter().any(|seed| Arc::ptr_eq(seed, link))
        });
        *self.routes.write().expect("no code under this lock panics") = Arc::new(routes);
    }
}

/// Whether any replica can answer it as well as the leader.
fn is_any_replicas(request: &Request) -> bool {
    match request {
        Request::Get { consistency, .. } | Request::GetMany { consistency, .. } => {
            *consistency != Consistency::Lease
        }
        _ => false,
    }
}

/// Why none of these nodes can be asked, and what to do.
fn unreachable(links: &[&Arc<Link>], whys: &[String]) -> Failure {
    let addresses: Vec<&str> = links.iter().map(|link| link.address.as_str()).collect();
    let message = if whys.iter().all(|why| *why == whys[0]) {
        format!("can't reach {}: {}", addresses.join(", "), whys[0])
    } else {
        let each: Vec<String> =
            addresses.iter().zip(whys).map(|(address, why)| format!("{address}: {why}")).collect();
        format!("can't reach any node ({})", each.join("; "))
    };
    Failure::rejected(
        Code::Unavailable,
        format!("{message}. Are the nodes running, and are the addresses right?"),
    )
}

/// Waits until it is time for another attempt, or says what came of the request.
async fn pause(tries: &mut Tries, failure: Failure) -> Result<(), Failure> {
    let next = tries.failed(failure, Instant::now())?;
    tokio::time::sleep_until(next.into()).await;
    Ok(())
}
