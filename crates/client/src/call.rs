//! One request, from asking to answer: where to send it, what an answer means, when to try again.
//!
//! | what came back | a read | a write |
//! |---|---|---|
//! | refused, never sent, "not available", "too much at once" | again | again |
//! | sent, and then the connection broke or no answer came | again | *unknown*: never again, unless it has one writer |
//! | over a limit, not possible in this state, data lost | fails | fails |
//!
//! "Again" is until the deadline, with a pause that grows from 5 to 100 ms, and at another node if the
//! key's leader can't be reached: every node passes on what it does not lead. A read that gets no answer within a
//! second is asked elsewhere; its node may be hanging.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use ringfort_proto::session::carries;
use ringfort_types::limits::KEY_BYTES_MAX;
use ringfort_types::{ClusterState, Code, Failure, Outcome, Reply, Request};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::link::{Connection, Link, Look};
use crate::list::{List, Rows};
use crate::options::Options;
use crate::parse_address;
use crate::pending::{Answer, NO_ANSWER};
use crate::routes::Routes;
use crate::unary;

/// Pause before the second attempt; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(100);
/// No further attempt is made with less time than this left, or than a fifth of the whole: a node that is asked so late
/// could not say in time what became of it, and a write that surely did not happen would end as unknown.
const ATTEMPT_MIN: Duration = Duration::from_millis(300);
/// How long one node may take over a read before another one is asked.
const READ_ATTEMPT: Duration = Duration::from_secs(1);
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
    /// Room for requests in flight, in bytes; each takes at least `weight_min`, so that it bounds their number too.
    room: Semaphore,
    room_bytes: u32,
    weight_min: u32,
    /// Where the search for a node begins when no leader is known; counts up.
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
        request.validate()?;
        let begun = Instant::now();
        let deadline = begun + self.options.timeout;
        let _room = self.admit(&request, deadline).await?;
        let mut tries = Tries::new(&request, self.options.one_writer, begun, deadline);
        let mut slow: Option<Arc<Link>> = None;
        loop {
            let failure = match self.pick(&request, slow.as_ref(), deadline).await {
                Err(failure) => failure,
                Ok((link, connection)) => {
                    let answer = self.ask(&connection, request.clone(), deadline).await;
                    if let Some(leader) = answer.leader
                        && !self.routes().heard(&request, leader)
                    {
                        self.refresh_if_older(REFRESH_AGAIN);
                    }
                    match answer.reply {
                        Reply::Failed(failure) => {
                            slow = (failure.code == Code::DeadlineExceeded).then_some(link);
                            failure
                        }
                        reply => {
                            self.refresh_if_older_at(REFRESH, begun);
                            return Ok(reply);
                        }
                    }
                }
            };
            self.refresh_if_older(REFRESH_AGAIN);
            tries.failed(failure).await?;
        }
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
            tries.failed(failure).await?;
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
        let best = routes.best(request);
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
    async fn ask(&self, connection: &Connection, request: Request, deadline: Instant) -> Answer {
        let now = Instant::now();
        let deadline = match request {
            // A last attempt that would be very short is given the rest at once.
            Request::Get { .. } | Request::GetMany { .. } if now + READ_ATTEMPT * 3 / 2 < deadline => {
                now + READ_ATTEMPT
            }
            _ => deadline,
        };
        let Some(session) = connection.session.as_ref().filter(|_| carries(&request)) else {
            return unary::call(connection, request, deadline).await;
        };
        let failed = |failure| Answer { leader: None, reply: Reply::Failed(failure) };
        match session.submit(request, deadline) {
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
            let answer = unary::call(&connection, request.clone(), deadline).await;
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

/// The attempts at one request.
struct Tries {
    troubles: Troubles,
    /// When the last attempt may begin.
    last: Instant,
    pause: Duration,
}

impl Tries {
    fn new(request: &Request, one_writer: bool, begun: Instant, deadline: Instant) -> Tries {
        let whole = deadline - begun;
        let last = begun + whole.saturating_sub(ATTEMPT_MIN.min(whole / 5));
        Tries { troubles: Troubles::new(request, one_writer), last, pause: PAUSE_MIN }
    }

    /// An attempt has failed: waits until it is time for another, or says what came of the request.
    async fn failed(&mut self, failure: Failure) -> Result<(), Failure> {
        self.troubles.add(failure)?;
        let next = Instant::now() + self.pause;
        if next >= self.last {
            return Err(self.troubles.verdict());
        }
        tokio::time::sleep_until(next.into()).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(())
    }
}

/// What has gone wrong with a request so far.
struct Troubles {
    /// Whether an attempt may have had an effect.
    unknown: bool,
    write: bool,
    /// Whether it may be sent again after that.
    repeatable: bool,
    /// The last failure that said more than that there was no time, or else the last one.
    said: Option<Failure>,
}

impl Troubles {
    fn new(request: &Request, one_writer: bool) -> Troubles {
        // A digest mark changes nothing; one too many does no harm.
        let write = request.is_write() && !matches!(request, Request::Digest { .. });
        let repeatable = !write || one_writer && is_idempotent(request);
        Troubles { unknown: false, write, repeatable, said: None }
    }

    /// Takes note of a failed attempt; an error ends the request.
    fn add(&mut self, failure: Failure) -> Result<(), Failure> {
        self.unknown |= self.write && failure.outcome == Outcome::Unknown;
        let transient = matches!(
            failure.code,
            Code::Unavailable
                | Code::NotLeader
                | Code::Stopping
                | Code::ResourceExhausted
                | Code::DeadlineExceeded
        );
        if !transient || self.unknown && !self.repeatable {
            return Err(Failure { outcome: self.outcome(), ..failure });
        }
        if failure.code != Code::DeadlineExceeded || self.said.is_none() {
            self.said = Some(failure);
        }
        Ok(())
    }

    /// The failure of a request whose time is over.
    fn verdict(&mut self) -> Failure {
        let outcome = self.outcome();
        let said = self.said.take().expect("a request is given up after a failure, not before");
        Failure { outcome, ..said }
    }

    fn outcome(&self) -> Outcome {
        if self.unknown { Outcome::Unknown } else { Outcome::Rejected }
    }
}

/// Whether a write that has its keys to itself comes to the same if it is done twice.
fn is_idempotent(request: &Request) -> bool {
    match request {
        // What it changes itself may be what its condition asks for.
        Request::Write { parts } => parts.iter().all(|part| part.condition.is_none()),
        Request::Increment { .. } => false,
        _ => true,
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ringfort_types::{Change, Condition, Part};

    use super::*;

    fn put() -> Request {
        Request::Put { key: Bytes::from_static(b"k"), value: Bytes::new() }
    }

    #[tokio::test]
    async fn a_write_that_surely_did_not_happen_is_not_sent_again_too_late_to_be_answered() {
        let now = Instant::now();
        let refused = || Failure::rejected(Code::Unavailable, "no quorum");
        let mut early = Tries::new(&put(), false, now, now + Duration::from_secs(2));
        assert_eq!(early.failed(refused()).await, Ok(()));
        let mut late = Tries::new(&put(), false, now, now + Duration::from_secs(2));
        assert_eq!(late.last, now + Duration::from_millis(1_700));
        late.last = now;
        assert_eq!(late.failed(refused()).await, Err(refused()));
        let mut short = Tries::new(&put(), false, now, now + Duration::from_millis(250));
        assert_eq!(
            short.failed(refused()).await,
            Ok(()),
            "a short time-out has room for more than one attempt"
        );
    }

    #[tokio::test]
    async fn doubt_about_a_write_ends_it_and_stays() {
        let now = Instant::now();
        let mut tries = Tries::new(&put(), false, now, now + Duration::from_secs(2));
        let doubt = Failure::unknown(Code::DeadlineExceeded, "no answer");
        assert_eq!(tries.failed(doubt.clone()).await, Err(doubt.clone()));
        let mut one_writer = Tries::new(&put(), true, now, now + Duration::from_secs(2));
        assert_eq!(one_writer.failed(doubt.clone()).await, Ok(()));
        let increment = Request::Increment { key: Bytes::from_static(b"k"), by: 1 };
        let part = Part {
            key: Bytes::from_static(b"k"),
            condition: Some(Condition::Absent),
            change: Change::Put(Bytes::new()),
        };
        for twice_is_twice in [increment, Request::Write { parts: vec![part] }] {
            let mut tries = Tries::new(&twice_is_twice, true, now, now + Duration::from_secs(2));
            assert_eq!(tries.failed(doubt.clone()).await, Err(doubt.clone()));
        }
        one_writer.last = now;
        let refused = Failure::rejected(Code::Unavailable, "no quorum");
        assert_eq!(one_writer.failed(refused).await.map_err(|end| end.outcome), Err(Outcome::Unknown));
    }
}
