//! Whom to ask: the cluster as this client knows it, with a link to each of its nodes.
//!
//! What `routes` says of it is asked for anew in the background: when the client is made, every few seconds while requests are
//! made, soon after a failure, and when an answer names a node that is not known. Only one refresh is under way at a time. The
//! addresses that the client was made with stay, whatever the nodes say: they are where it begins again if all others are
//! gone. As long as nothing is known, requests wait for the refresh within their own time.
//!
//! Nodes that seem to hang (`patience`) are asked last.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant};

use ringfort_types::{ClusterState, Code, Consistency, Failure, NodeId, Request, ShardId};
use tokio::sync::watch;

use crate::credentials::Authorization;
use crate::link::{Connection, Link, Look};
use crate::names::{addresses_of, is_name};
use crate::options::{Options, ReadsFrom, Transport};
use crate::parse_address;
use crate::patience::{Trouble, is_about_the_user, state_of};
use crate::pending::NO_ANSWER;
use crate::race::staggered;
use crate::routes::Routes;
use crate::which::Which;
use ringfort_proto::reason::REFUSED;

/// How long the best node may take to be connected while another one is. That one's detour costs a hop. Also how long one
/// is waited for before another is asked as well, where that costs next to nothing.
pub(crate) const DETOUR: Duration = Duration::from_millis(200);
/// How old the map may get while it is in use.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);
/// How soon after a refresh a failure may cause another.
pub(crate) const REFRESH_AGAIN: Duration = Duration::from_millis(100);
/// How long a node may take to say how the cluster looks, and a name to be resolved.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(1);

/// The refresh that is under way, or the last one.
#[derive(Debug, Default)]
struct Refresh {
    under_way: bool,
    /// Why the last one that ended brought nothing.
    failed: Option<Failure>,
}

/// What is known of a cluster of which no node has said yet how it looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheard {
    /// Why not, as far as is known.
    pub failure: Failure,
    /// Whether nobody listens at any of the addresses: all have refused the connection.
    pub nobody_listens: bool,
}

/// The nodes, and who leads what.
#[derive(Debug)]
pub(crate) struct Cluster {
    authorization: Authorization,
    transport: Transport,
    reads_from: ReadsFrom,
    which: Arc<Which>,
    /// The addresses that were given.
    given: Vec<String>,
    /// Links to what they stand for.
    seeds: RwLock<Arc<Vec<Arc<Link>>>>,
    /// All links by address, those of `seeds` included.
    links: Mutex<BTreeMap<String, Arc<Link>>>,
    routes: RwLock<Arc<Routes>>,
    /// Whose turn it is, where any node or any replica will do; counts up.
    turn: AtomicUsize,
    /// Zero of `refreshed_us`.
    born: Instant,
    /// When the last refresh began.
    refreshed_us: AtomicU64,
    refresh: watch::Sender<Refresh>,
}

impl Cluster {
    pub(crate) fn new(options: &Options) -> Result<Cluster, Failure> {
        if options.addresses.is_empty() {
            let why = "no address given: name at least one node as host:port";
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        let authorization = options.authorization()?;
        let (mut links, which) = (BTreeMap::new(), Arc::<Which>::default());
        let (mut given, mut seeds) = (Vec::new(), Vec::new());
        for address in &options.addresses {
            let address = parse_address(address)?;
            let link = Arc::new(Link::new(
                address.clone(),
                authorization.clone(),
                options.transport,
                which.clone(),
            )?);
            seeds.push(links.entry(address.clone()).or_insert(link).clone());
            given.push(address);
        }
        Ok(Cluster {
            authorization,
            transport: options.transport,
            reads_from: options.reads_from,
            which,
            given,
            seeds: RwLock::new(Arc::new(seeds)),
            links: Mutex::new(links),
            routes: RwLock::default(),
            turn: AtomicUsize::new(0),
            born: Instant::now(),
            refreshed_us: AtomicU64::new(0),
            refresh: watch::Sender::new(Refresh::default()),
        })
    }

    /// What is known now.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.read().expect("no code under this lock panics").clone()
    }

    fn seeds(&self) -> Arc<Vec<Arc<Link>>> {
        self.seeds.read().expect("no code under this lock panics").clone()
    }

    /// The link to a node, if that is known.
    pub(crate) fn link_of(&self, node: NodeId) -> Option<Arc<Link>> {
        self.routes().link_of(node).cloned()
    }

    /// A node to ask, connected: the one that leads the key if it can be reached, else any. Those in `avoid` come last.
    pub(crate) async fn pick(
        self: &Arc<Cluster>,
        request: &Request,
        avoid: &[Arc<Link>],
        deadline: Instant,
    ) -> Result<(Arc<Link>, Arc<Connection>), Failure> {
        let mut routes = self.routes();
        if routes.is_empty() {
            // If that fails, what follows says why.
            let _ = self.look(deadline).await;
            if Instant::now() >= deadline {
                return Err(self.silence());
            }
            routes = self.routes();
        }
        let best = match self.reads_from {
            ReadsFrom::Replicas if is_any_replicas(request) => {
                routes.replica(request, self.turn.fetch_add(1, Ordering::Relaxed))
            }
            _ => routes.best(request),
        };
        if let Some(best) = best
            && avoid.is_empty()
            && !best.is_slow()
            && let Look::Up(connection) = best.look()
        {
            return Ok((best.clone(), connection));
        }
        let rank = |link: &Arc<Link>| match link {
            link if is_among(avoid, link) => 3,
            link if link.is_slow() => 2,
            link if !link.is_heard() && best.is_none_or(|best| !Arc::ptr_eq(best, link)) => 1,
            _ => 0,
        };
        let is_good = |link: &Arc<Link>| rank(link) < 2;
        let mut order = self.order(&routes, best);
        order.sort_by_key(rank);
        // Any node that is connected passes the request on. So the best one is not waited for until it is certain that it
        // can't be reached from here: it may have the name of another network, which nobody here resolves in time.
        let connected = order.iter().filter(|link| is_good(link)).find_map(|link| match link.look() {
            Look::Up(connection) => Some((link.clone(), connection)),
            Look::Wait | Look::Down(_) => None,
        });
        if let Some(other) = connected {
            if let Some(best) = best.filter(|best| is_good(best))
                && let Ok(connection) = best.ready(deadline.min(Instant::now() + DETOUR)).await
            {
                return Ok((best.clone(), connection));
            }
            return Ok(other);
        }
        let (good, last): (Vec<_>, Vec<_>) = order.iter().cloned().partition(is_good);
        let mut whys = Vec::new();
        for links in [good, last] {
            let connecting = links
                .into_iter()
                .map(|link| async move { link.ready(deadline).await.map(|connection| (link, connection)) });
            match staggered(connecting, DETOUR).await {
                Ok(first) => return Ok(first),
                Err(failed) => whys.extend(failed),
            }
        }
        Err(unreachable(&order, &whys))
    }

    /// All nodes: the best one, then those of the cluster, another one first each turn, then those that were given.
    fn order(&self, routes: &Routes, best: Option<&Arc<Link>>) -> Vec<Arc<Link>> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let known: Vec<_> = routes.links().collect();
        let rotated = (0..known.len()).map(|at| known[(turn + at) % known.len()]);
        let mut order: Vec<Arc<Link>> = Vec::new();
        for link in best.into_iter().chain(rotated).chain(self.seeds().iter()) {
            if !is_among(&order, link) {
                order.push(link.clone());
            }
        }
        order
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
        self.look(deadline).await?;
        self.routes().shard_of(request).ok_or_else(|| {
            let why = "the nodes do not say yet which shard has this key: the cluster may still be starting";
            Failure::rejected(Code::Unavailable, why)
        })
    }

    /// Waits for a look at the cluster, unless the last one was just now. It is the same for all who wait.
    pub(crate) async fn look(self: &Arc<Cluster>, deadline: Instant) -> Result<(), Failure> {
        self.refresh_if_older(REFRESH_AGAIN);
        let mut refresh = self.refresh.subscribe();
        let ended = refresh.wait_for(|refresh| !refresh.under_way);
        match tokio::time::timeout_at(deadline.into(), ended).await {
            Ok(Ok(refresh)) => refresh.failed.clone().map_or(Ok(()), Err),
            Ok(Err(_)) | Err(_) => Err(self.silence()),
        }
    }

    /// Refreshes the map in the background if the last time was longer ago than that.
    pub(crate) fn refresh_if_older(self: &Arc<Cluster>, age: Duration) {
        self.refresh_if_older_at(age, Instant::now());
    }

    /// Refreshes the map in the background if the last time was longer than `age` before `now`.
    pub(crate) fn refresh_if_older_at(self: &Arc<Cluster>, age: Duration, now: Instant) {
        let now_us = now.saturating_duration_since(self.born).as_micros() as u64;
        let last_us = self.refreshed_us.load(Ordering::Relaxed);
        if now_us < last_us + age.as_micros() as u64
            || !self.refresh.send_if_modified(|refresh| !std::mem::replace(&mut refresh.under_way, true))
        {
            return;
        }
        self.refreshed_us.store(now_us, Ordering::Relaxed);
        let cluster = Arc::downgrade(self);
        tokio::spawn(async move {
            if let Some(cluster) = cluster.upgrade() {
                let failed = cluster.refresh().await.err();
                cluster.refresh.send_replace(Refresh { under_way: false, failed });
            }
        });
    }

    /// Asks one node after another how the cluster looks, until one says so. A silent one is not waited for long.
    async fn refresh(&self) -> Result<(), Failure> {
        let routes = self.routes();
        if routes.is_empty() || self.refresh.borrow().failed.is_some() {
            self.resolve().await;
        }
        let order = self.order(&routes, None);
        let asking = order
            .iter()
            .cloned()
            .map(|link| async move { self.state_of(&link, Instant::now() + REFRESH_TIMEOUT).await });
        let troubles = match staggered(asking, DETOUR).await {
            Ok(state) => {
                self.learn(&state);
                return Ok(());
            }
            Err(troubles) => troubles,
        };
        let mut whys = Vec::new();
        for trouble in troubles {
            match trouble {
                Trouble::Unreached(why) => whys.push(why),
                Trouble::Said(failure) if is_about_the_user(&failure) => return Err(failure),
                Trouble::Said(Failure { message, .. }) => {
                    let why = format!("no node says how the cluster looks: {message}");
                    return Err(Failure::rejected(Code::Unavailable, why));
                }
            }
        }
        Err(unreachable(&order, &whys))
    }

    /// How the cluster looks to a node, if it is one of this cluster.
    async fn state_of(&self, link: &Arc<Link>, deadline: Instant) -> Result<Box<ClusterState>, Trouble> {
        let state = state_of(link, deadline).await?;
        match self.which.refusal(state.cluster) {
            None => Ok(state),
            Some(why) => Err(Trouble::Unreached(why)),
        }
    }

    /// Finds out what names stand for.
    async fn resolve(&self) {
        if !self.given.iter().any(|address| is_name(address)) {
            return;
        }
        let mut addresses = Vec::new();
        for address in &self.given {
            addresses.extend(addresses_of(address, REFRESH_TIMEOUT).await);
        }
        let mut links = self.links.lock().expect("no code under this lock panics");
        let mut seeds = Vec::new();
        for address in addresses {
            if let Some(link) = self.link_to(&mut links, &address)
                && !is_among(&seeds, &link)
            {
                seeds.push(link);
            }
        }
        *self.seeds.write().expect("no code under this lock panics") = Arc::new(seeds);
    }

    /// The link to an address, made if there is none.
    fn link_to(&self, links: &mut BTreeMap<String, Arc<Link>>, address: &str) -> Option<Arc<Link>> {
        if let Some(link) = links.get(address) {
            return Some(link.clone());
        }
        let (authorization, which) = (self.authorization.clone(), self.which.clone());
        let link =
            Arc::new(Link::new(parse_address(address).ok()?, authorization, self.transport, which).ok()?);
        links.insert(address.to_owned(), link.clone());
        Some(link)
    }

    fn learn(&self, state: &ClusterState) {
        if state.nodes.is_empty() {
            return;
        }
        self.which.settle(state.cluster);
        let mut links = self.links.lock().expect("no code under this lock panics");
        let routes = self.routes().updated(state, |address| self.link_to(&mut links, address));
        let seeds = self.seeds();
        links.retain(|address, link| {
            state.nodes.iter().any(|node| node.address == *address) || is_among(&seeds, link)
        });
        *self.routes.write().expect("no code under this lock panics") = Arc::new(routes);
    }

    /// Why nobody has said yet how the cluster looks; none once somebody has.
    pub(crate) fn unheard(&self) -> Option<Unheard> {
        if !self.routes().is_empty() {
            return None;
        }
        let seeds = self.seeds();
        let refuses = |link: &Arc<Link>| matches!(link.look(), Look::Down(why) if why == REFUSED);
        let nobody_listens = !seeds.is_empty() && seeds.iter().all(refuses);
        let failed = self.refresh.borrow().failed.clone();
        Some(Unheard { failure: failed.unwrap_or_else(|| self.silence()), nobody_listens })
    }

    /// Why there is no answer to whoever could not even ask.
    fn silence(&self) -> Failure {
        let seeds = self.seeds();
        let whys: Vec<String> = seeds
            .iter()
            .filter_map(|link| match link.look() {
                Look::Up(_) => None,
                Look::Wait => Some("it does not answer".to_owned()),
                Look::Down(why) => Some(why),
            })
            .collect();
        if whys.len() == seeds.len() {
            return unreachable(&seeds, &whys);
        }
        Failure::rejected(Code::DeadlineExceeded, NO_ANSWER)
    }
}

pub(crate) fn is_among(links: &[Arc<Link>], link: &Arc<Link>) -> bool {
    links.iter().any(|one| Arc::ptr_eq(one, link))
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
fn unreachable(links: &[Arc<Link>], whys: &[String]) -> Failure {
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
