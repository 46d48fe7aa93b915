//! Whom to ask: the cluster as this client knows it, with a link to each of its nodes.
//!
//! What `routes` says of it is asked for anew in the background: every few seconds while requests are made, soon after a
//! failure, and when an answer names a node that is not known. Only one refresh is under way at a time. The addresses that the
//! client was made with stay, whatever the nodes say: they are where it begins again if all others are gone.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use ringfort_types::{ClusterState, Code, Consistency, Failure, Reply, Request, ShardId};

use crate::link::{Connection, Link, Look};
use crate::options::{Options, ReadsFrom, Transport};
use crate::parse_address;
use crate::pending::NO_ANSWER;
use crate::routes::Routes;
use crate::unary;

/// How long the best node may take to be connected while another one is. That one's detour costs a hop.
const DETOUR: Duration = Duration::from_millis(200);
/// How old the map may get while it is in use.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);
/// How soon after a refresh a failure may cause another.
pub(crate) const REFRESH_AGAIN: Duration = Duration::from_millis(100);
/// How long a node may take to say how the cluster looks.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The nodes, and who leads what.
#[derive(Debug)]
pub(crate) struct Cluster {
    transport: Transport,
    reads_from: ReadsFrom,
    /// How long the first refresh may take, if that is less than others may.
    timeout: Duration,
    /// Links to the addresses that were given.
    seeds: Vec<Arc<Link>>,
    /// All links by address, those of `seeds` included.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    routes: RwLock<Arc<Routes>>,
    /// Whose turn it is, where any node or any replica will do; counts up.
    turn: AtomicUsize,
    /// Zero of `refreshed_us`.
    born: Instant,
    /// When the last refresh began.
    refreshed_us: AtomicU64,
    refreshing: AtomicBool,
}

impl Cluster {
    pub(crate) fn new(options: &Options) -> Result<Cluster, Failure> {
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
        Ok(Cluster {
            transport: options.transport,
            reads_from: options.reads_from,
            timeout: options.timeout,
            seeds,
            links: Mutex::new(links),
            routes: RwLock::default(),
            turn: AtomicUsize::new(0),
            born: Instant::now(),
            refreshed_us: AtomicU64::new(0),
            refreshing: AtomicBool::new(false),
        })
    }

    /// What is known now.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().expect("no code under this lock panics").clone()
    }

    /// A node to ask, connected: the one that leads the key if it can be reached, else any.
    pub(crate) async fn pick(
        self: &Arc<Cluster>,
        request: &Request,
        slow: Option<&Arc<Link>>,
        deadline: Instant,
    ) -> Result<(Arc<Link>, Arc<Connection>), Failure> {
        let routes = self.routes();
        let best = match self.reads_from {
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

    /// The shard of the request's key. Sessions are a shard's, so the map of the cluster is needed.
    pub(crate) async fn shard_of(
        self: &Arc<Cluster>,
        request: &Request,
        deadline: Instant,
    ) -> Result<ShardId, Failure> {
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

    /// The first refresh, waited for; that it may fail is the first request's business.
    pub(crate) async fn look_around(self: &Arc<Cluster>) {
        let patience = self.timeout.min(REFRESH_TIMEOUT);
        let _ = tokio::time::timeout(patience, self.refresh()).await;
    }

    /// Refreshes the map in the background if the last time was longer ago than that.
    pub(crate) fn refresh_if_older(self: &Arc<Cluster>, age: Duration) {
        self.refresh_if_older_at(age, Instant::now());
    }

    /// Refreshes the map in the background if the last time was longer than `age` before `now`.
    pub(crate) fn refresh_if_older_at(self: &Arc<Cluster>, age: Duration, now: Instant) {
        let now_us = now.saturating_duration_since(self.born).as_micros() as u64;
        let last_us = self.refreshed_us.load(Ordering::Relaxed);
        if now_us < last_us + age.as_micros() as u64 || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.refreshed_us.store(now_us, Ordering::Relaxed);
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(cluster) = cluster.upgrade() {
                let _ = cluster.refresh().await;
                cluster.refreshing.store(false, Ordering::Release);
            }
        });
    }

    /// Asks one node after another how the cluster looks, until one says so.
    async fn refresh(self: &Arc<Cluster>) -> Result<(), Failure> {
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
            let link = Arc::new(Link::new(parse_address(address).ok()?, self.transport).ok()?);
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
