//! Places for connections: how many there may be, who has one, and who has not used it for long.
//!
//! A connection has a place at its door and one at the node, and one address has three quarters of a door's places at most, so that nobody who
//! opens as many as they can keeps all others out. When there is none, one that has been without a call for
//! [`CONNECTION_IDLE_MS`] is closed, the longest idle first (of the newcomer's address, if that has too many), and the newcomer gets its place. When there is no such connection, a
//! newcomer may still be another node, without which no shard could be led: at a port that nodes use too it is let in *on trial*, in
//! one of [`PEER_PLACES`]. Its first call has to be a node's, or to find a place by then, and to come within [`TRIAL_MAX`]. When those
//! places are taken too, the longest there without a call is closed for the newcomer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Waker};
use std::time::Duration;

use ringfort_tls::Certified;
use ringfort_types::limits::{
    CONNECTION_IDLE_MS, CONNECTION_PINGS_MAX, CONNECTION_RESETS_MAX, CONNECTION_TRIAL_MS,
    NODE_CONNECTIONS_MAX, PEER_PLACES, TAKEN_BYTES_MIN,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::doors::throttle::Throttle;
use crate::metrics::Counter;

/// How long after one was asked to close its place may take to come free.
const CLOSING_MAX: Duration = Duration::from_secs(1);
/// How long a newcomer on trial may take until its first call.
pub(crate) const TRIAL_MAX: Duration = Duration::from_millis(CONNECTION_TRIAL_MS);
const IDLE_MIN: Duration = Duration::from_millis(CONNECTION_IDLE_MS);

/// Those of a node. A clone counts the same places.
#[derive(Clone, Debug)]
pub(crate) struct Places(Arc<Node>);

#[derive(Debug)]
struct Node {
    free: Arc<Semaphore>,
    max: usize,
    /// How many of them one door may have.
    door_max: usize,
    for_peers: Arc<Semaphore>,
    open: Mutex<Open>,
    /// Until when there is nobody who has been idle for long enough, at a door and address or at any, so that newcomers who are turned away by
    /// the thousand do not have all connections looked through each time.
    none_idle: Mutex<BTreeMap<Whose, Instant>>,
    /// How many each address has at a door.
    addresses: Mutex<BTreeMap<(&'static str, IpAddr), usize>>,
}

/// One of an address's connections.
#[derive(Debug)]
struct OfAddress {
    node: Places,
    door: &'static str,
    address: IpAddr,
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut addresses = self.node.addresses();
        if let Some(count) = addresses.get_mut(&(self.door, self.address)) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&(self.door, self.address));
            }
        }
    }
}

/// All connections that have a place, by a number of their own.
#[derive(Debug, Default)]
struct Open {
    last: u64,
    standings: BTreeMap<u64, Arc<Standing>>,
    /// Those among them that came in on trial.
    on_trial: BTreeMap<u64, Arc<Standing>>,
}

/// Connections of one door, or of all; of one address, or of all.
type Whose = (Option<&'static str>, Option<IpAddr>);

impl Default for Places {
    fn default() -> Places {
        Places::new(NODE_CONNECTIONS_MAX, 2)
    }
}

impl Places {
    /// So many, for so many doors. Where there are several, none can have all.
    pub(crate) fn new(max: usize, doors: usize) -> Places {
        Places(Arc::new(Node {
            free: Arc::new(Semaphore::new(max)),
            max,
            door_max: if doors == 1 { max } else { (max * 2 / 3).max(1) },
            for_peers: Arc::new(Semaphore::new(PEER_PLACES)),
            open: Mutex::default(),
            none_idle: Mutex::default(),
            addresses: Mutex::default(),
        }))
    }

    /// Those of one door, so many at most.
    pub(crate) fn at_door(&self, door: &'static str, max: usize) -> DoorPlaces {
        let max = max.min(self.0.door_max);
        let closed = Arc::default();
        let turned_away = Arc::default();
        // Where there are few, one address may need them all.
        let address_max = if max < 4 { usize::MAX } else { max * 3 / 4 };
        DoorPlaces {
            node: self.clone(),
            door,
            free: Arc::new(Semaphore::new(max)),
            max,
            address_max,
            turned_away,
            closed,
            floods: Throttle::new(format!(
                "connections were closed for too many resets or pings on the {door} port"
            )),
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn addresses(&self) -> MutexGuard<'_, BTreeMap<(&'static str, IpAddr), usize>> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks the one to close that has been idle for the longest time, if that is long enough; of this door and address, or of any.
    fn close_idle(&self, door: Option<&'static str>, address: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let mut none_idle = self.0.none_idle.lock().unwrap_or_else(PoisonError::into_inner);
        if none_idle.get(&(door, address)).is_some_and(|until| now < *until) {
            return false;
        }
        let open = self.open();
        let here = open.standings.values().filter(|standing| door.is_none_or(|door| standing.door == door));
        let here = here.filter(|standing| address.is_none_or(|address| standing.address == address));
        let longest = here
            .filter_map(|standing| Some((standing.idle_since()?, standing)))
            .min_by_key(|(since, _)| *since);
        match longest {
            Some((since, standing)) if since.elapsed() >= IDLE_MIN => {
                standing.close(Closed::Idle);
                true
            }
            // Whoever comes, or makes a call, is idle from later on.
            longest => {
                let since = longest.map_or(now, |(since, _)| since);
                none_idle.retain(|_, until| now < *until);
                none_idle.insert((door, address), since + IDLE_MIN);
                false
            }
        }
    }

    /// Asks the one in a peer's place to close that has been without a call for the longest time.
    fn close_trial(&self) -> bool {
        let open = self.open();
        let idle =
            open.on_trial.values().filter_map(|standing| Some((standing.idle_peer_since()?, standing)));
        let longest = idle.min_by_key(|(since, _)| *since);
        longest.map(|(_, standing)| standing.close(Closed::NoCall)).is_some()
    }

    fn enter(&self, standing: Standing) -> Entered {
        let mut open = self.open();
        open.last += 1;
        let (number, standing) = (open.last, Arc::new(standing));
        open.standings.insert(number, standing.clone());
        if standing.is_on_trial() {
            open.on_trial.insert(number, standing.clone());
        }
        Entered { places: self.clone(), number, standing }
    }
}

/// Those of one door.
#[derive(Clone, Debug)]
pub(crate) struct DoorPlaces {
    node: Places,
    door: &'static str,
    free: Arc<Semaphore>,
    max: usize,
    /// As many may be of one address.
    address_max: usize,
    turned_away: Arc<Counter>,
    /// By why.
    closed: Arc<[Counter; Closed::ALL.len()]>,
    floods: Arc<Throttle>,
}

/// Why the node has closed a connection, apart from its own stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    /// It made room for another one.
    Idle,
    /// It was on trial, and made no call in time.
    NoCall,
    /// It was on trial, its first call was no node's, and there was no place.
    NoPlace,
    /// It said nothing in time that its port's protocol begins with.
    NotGreeted,
    /// It neither said nor took anything.
    Silent,
    /// It took nothing of its answers.
    NothingTaken,
    /// Too many of them within a second: `floods`.
    Resets,
    Pings,
}

impl Closed {
    const ALL: [(Closed, &str); 8] = [
        (Closed::Idle, "idle"),
        (Closed::NoCall, "no_call"),
        (Closed::NoPlace, "no_place"),
        (Closed::NotGreeted, "not_greeted"),
        (Closed::Silent, "silent"),
        (Closed::NothingTaken, "nothing_taken"),
        (Closed::Resets, "resets"),
        (Closed::Pings, "pings"),
    ];
}

/// What a connection holds as long as it lives.
#[derive(Debug)]
#[expect(dead_code, reason = "they are held, and given back when dropped")]
enum Place {
    /// Its address's, at its door, and at the node.
    Own(OfAddress, OwnedSemaphorePermit, OwnedSemaphorePermit),
    /// On trial, or a node's.
    Peer(OwnedSemaphorePermit),
}

/// How many connections a door has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) door: &'static str,
    pub(crate) open: usize,
    /// As many there may be, besides those of nodes.
    pub(crate) max: usize,
    /// Since the start.
    pub(crate) turned_away: u64,
}

/// What a newcomer from this address gets.
#[derive(Debug)]
pub(crate) struct Ticket(Got, IpAddr);

#[derive(Debug)]
enum Got {
    Place(Place),
    /// An idle one is closing.
    Soon,
    /// One on trial is closing, since there are too many of these.
    SoonOnTrial(String),
}

impl Ticket {
    /// What there are too many of, if somebody else is turned away for its owner.
    pub(crate) fn displaces(&self) -> Option<&str> {
        match &self.0 {
            Got::SoonOnTrial(full) => Some(full),
            _ => None,
        }
    }
}

/// What there are too many of.
struct Full {
    is_door: bool,
    is_address: bool,
    what: String,
}

impl DoorPlaces {
    /// A ticket for a newcomer, or what there are too many of.
    pub(crate) fn ticket(&self, from: IpAddr, nodes_come_here: bool) -> Result<Ticket, String> {
        let full = match self.place(from) {
            Ok(place) => return Ok(Ticket(Got::Place(place), from)),
            Err(full) => full,
        };
        if self.node.close_idle(full.is_door.then_some(self.door), full.is_address.then_some(from)) {
            return Ok(Ticket(Got::Soon, from));
        }
        if !nodes_come_here {
            return Err(full.what);
        }
        match self.node.0.for_peers.clone().try_acquire_owned() {
            Ok(place) => Ok(Ticket(Got::Place(Place::Peer(place)), from)),
            Err(_none) if self.node.close_trial() => Ok(Ticket(Got::SoonOnTrial(full.what), from)),
            Err(_none) => Err(full.what),
        }
    }

    /// Somebody got no place.
    pub(crate) fn turn_away(&self) {
        self.turned_away.add(1);
    }

    /// The node has closed one.
    pub(crate) fn count(&self, why: Closed) {
        self.closed[why as usize].add(1);
    }

    /// How many the node has closed, by the name of why.
    pub(crate) fn closed(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Closed::ALL.into_iter().map(|(why, name)| (name, self.closed[why as usize].get()))
    }

    /// Who is here now, and who was not let in.
    pub(crate) fn used(&self) -> Used {
        let open = self.node.open();
        let here = open.standings.values().filter(|standing| standing.door == self.door);
        Used { door: self.door, open: here.count(), max: self.max, turned_away: self.turned_away.get() }
    }

    /// One more of an address, if it has not too many.
    fn of_address(&self, address: IpAddr) -> Option<OfAddress> {
        let mut addresses = self.node.addresses();
        let count = addresses.entry((self.door, address)).or_default();
        if *count >= self.address_max {
            return None;
        }
        *count += 1;
        Some(OfAddress { node: self.node.clone(), door: self.door, address })
    }

    fn place(&self, address: IpAddr) -> Result<Place, Full> {
        let of_address = self.of_address(address).ok_or_else(|| Full {
            is_door: true,
            is_address: true,
            what: format!(
                "{} connections from its address are open on the {} port",
                self.address_max, self.door
            ),
        })?;
        let at_door = self.free.clone().try_acquire_owned().map_err(|_full| Full {
            is_door: true,
            is_address: false,
            what: format!("{} connections are open on the {} port", self.max, self.door),
        })?;
        let at_node = self.node.0.free.clone().try_acquire_owned().map_err(|_full| Full {
            is_door: false,
            is_address: false,
            what: format!("{} connections are open on all ports of this node", self.node.0.max),
        })?;
        Ok(Place::Own(of_address, at_door, at_node))
    }

    /// Lets a newcomer in, as soon as the place is free that it has a ticket for; `None` if that takes too long.
    pub(crate) async fn enter(&self, Ticket(got, address): Ticket) -> Option<Entered> {
        let place = match got {
            Got::Place(place) => place,
            Got::SoonOnTrial(_) => {
                let waiting = self.node.0.for_peers.clone().acquire_owned();
                Place::Peer(timeout(CLOSING_MAX, waiting).await.ok()?.ok()?)
            }
            Got::Soon => {
                let waiting = async {
                    let at_door = self.free.clone().acquire_owned().await.ok()?;
                    let at_node = self.node.0.free.clone().acquire_owned().await.ok()?;
                    // Whoever is closing for it is of its address, if that has too many, and is gone when its place is free.
                    Some(Place::Own(self.of_address(address)?, at_door, at_node))
                };
                timeout(CLOSING_MAX, waiting).await.ok()??
            }
        };
        let is_on_trial = matches!(place, Place::Peer(_));
        let state = State {
            place: Some(place),
            is_on_trial,
            calls: 0,
            idle_since: Instant::now(),
            heard: Instant::now(),
            taken: Instant::now(),
            taking: 0,
            is_closed: false,
            reader: None,
        };
        let certified = OnceLock::new();
        Some(self.node.enter(Standing {
            door: self.door,
            address,
            at: self.clone(),
            certified,
            state: Mutex::new(state),
        }))
    }
}

/// A connection that has a place; leaves when dropped.
#[derive(Debug)]
pub(crate) struct Entered {
    places: Places,
    number: u64,
    standing: Arc<Standing>,
}

impl Entered {
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        &self.standing
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut open = self.places.open();
        open.standings.remove(&self.number);
        open.on_trial.remove(&self.number);
        drop(open);
        self.standing.state().place = None;
    }
}

/// How a connection stands.
#[derive(Debug)]
pub(crate) struct Standing {
    door: &'static str,
    /// Where its client is.
    address: IpAddr,
    at: DoorPlaces,
    certified: OnceLock<Certified>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Option<Place>,
    is_on_trial: bool,
    /// Under way.
    calls: usize,
    /// When the last one ended, or something was said.
    idle_since: Instant,
    /// When it last said anything.
    heard: Instant,
    /// When it had last taken [`TAKEN_BYTES_MIN`], and the bytes that it has taken since.
    taken: Instant,
    taking: usize,
    is_closed: bool,
    /// To be woken when it is closed.
    reader: Option<Waker>,
}

impl Standing {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.calls == 0 && !state.is_closed).then_some(state.idle_since)
    }

    /// The same, if it is in a peer's place.
    fn idle_peer_since(&self) -> Option<Instant> {
        let is_peers = matches!(self.state().place, Some(Place::Peer(_)));
        if is_peers { self.idle_since() } else { None }
    }

    /// What its client's certificate says, if it has shown one.
    pub(crate) fn certified(&self) -> Option<&Certified> {
        self.certified.get()
    }

    /// Takes note of it.
    pub(crate) fn certify(&self, certified: Certified) {
        let _once = self.certified.set(certified);
    }

    /// The address of its client.
    pub(crate) fn from(&self) -> IpAddr {
        self.address
    }

    /// Whether its first call is still to come, and has to be a node's.
    pub(crate) fn is_on_trial(&self) -> bool {
        self.state().is_on_trial
    }

    /// A call begins; not if the connection was on trial, and this is nobody's call who may stay.
    pub(crate) fn begin(self: &Arc<Self>, is_of_a_node: bool) -> Option<InUse> {
        let mut state = self.state();
        if state.is_on_trial && !is_of_a_node {
            state.place = Some(self.at.place(self.address).ok()?);
        }
        state.is_on_trial = false;
        state.calls += 1;
        let calls = state.calls;
        drop(state);
        Some(InUse { standing: self.clone(), calls })
    }

    /// Something was said.
    pub(crate) fn touch(&self) {
        self.state().idle_since = Instant::now();
    }

    /// Anything was said, by the protocol or by a call.
    pub(crate) fn hear(&self) {
        self.state().heard = Instant::now();
    }

    /// So many bytes were taken from the node.
    pub(crate) fn take(&self, bytes: usize) {
        let mut state = self.state();
        state.taking += bytes;
        if state.taking >= TAKEN_BYTES_MIN {
            (state.taken, state.taking) = (Instant::now(), 0);
        }
    }

    /// When it last took what is worth mentioning.
    pub(crate) fn taken(&self) -> Instant {
        self.state().taken
    }

    /// How long it has neither said anything nor taken anything worth mentioning.
    pub(crate) fn silence(&self) -> Duration {
        let state = self.state();
        state.heard.max(state.taken).elapsed()
    }

    /// Ends it, when it is next read from or, by HTTP/2, waited for to take something.
    pub(crate) fn close(&self, why: Closed) {
        let mut state = self.state();
        if !state.is_closed {
            self.at.count(why);
        }
        state.is_closed = true;
        let reader = state.reader.take();
        drop(state);
        reader.into_iter().for_each(Waker::wake);
    }

    /// Says in the log that it was closed for that.
    pub(crate) fn tell_flood(&self, peer: SocketAddr, flood: Closed) {
        let (what, most) = match flood {
            Closed::Resets => ("calls were begun and reset", CONNECTION_RESETS_MAX),
            _ => ("pings or settings were sent", CONNECTION_PINGS_MAX),
        };
        self.at
            .floods
            .warn(|| format!("the connection of {peer} is closed: more than {most} {what} within a second"));
    }

    /// Whether it is to end; if not, its reader is woken when it is.
    pub(crate) fn poll_closed(&self, cx: &Context<'_>) -> bool {
        let mut state = self.state();
        match &mut state.reader {
            Some(reader) => reader.clone_from(cx.waker()),
            reader => *reader = Some(cx.waker().clone()),
        }
        state.is_closed
    }
}

/// A call under way.
#[derive(Debug)]
pub(crate) struct InUse {
    standing: Arc<Standing>,
    /// How many the connection had under way, or answered and not given away, when this one had begun.
    pub(crate) calls: usize,
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.standing.state();
        state.calls -= 1;
        state.idle_since = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    async fn enter(places: &DoorPlaces) -> Entered {
        places.enter(places.ticket(HERE, false).unwrap()).await.unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_one_makes_room_and_nobody_who_is_in_use() {
        let door = Places::new(3, 2).at_door("test", 2);
        let (first, second) = (enter(&door).await, enter(&door).await);
        let call = first.standing().begin(false).unwrap();
        let nearly = IDLE_MIN.mul_f32(0.9);
        tokio::time::advance(nearly).await;
        assert!(door.ticket(HERE, false).unwrap_err().starts_with("2 connections are open on the test port"));
        second.standing().touch();
        drop(call);
        tokio::time::advance(nearly).await;
        assert!(door.ticket(HERE, false).is_err(), "none is idle for long enough");
        let _call = second.standing().begin(false).unwrap();
        tokio::time::advance(IDLE_MIN).await;
        let ticket = door.ticket(HERE, false).unwrap();
        assert!(first.standing().poll_closed(&Context::from_waker(Waker::noop())));
        assert!(!second.standing().poll_closed(&Context::from_waker(Waker::noop())));
        assert!(door.ticket(HERE, false).is_err(), "one is closing already, and the other is in use");
        let (entered, ()) = tokio::join!(door.enter(ticket), async { drop(first) });
        assert!(entered.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_comes_in_when_all_places_are_taken() {
        let door = Places::new(3, 2).at_door("test", 9);
        let held = (enter(&door).await, enter(&door).await);
        assert!(door.ticket(HERE, false).is_err());
        let trial = || async { door.enter(door.ticket(HERE, true).unwrap()).await.unwrap() };
        let (node, stranger, lucky) = (trial().await, trial().await, trial().await);
        assert!(node.standing().is_on_trial());
        let link = node.standing().begin(true);
        assert!(link.is_some() && !node.standing().is_on_trial());
        assert!(stranger.standing().begin(false).is_none());
        drop(held);
        assert!(lucky.standing().begin(false).is_some(), "there is a place by now");
        let others: Vec<_> =
            (0..PEER_PLACES - 2).map(|_| door.node.0.for_peers.clone().try_acquire_owned()).collect();
        assert!(others.iter().all(Result::is_ok), "it has given back the one that it was on trial in");

        // All are taken again; who is longest without a call makes room.
        let _held: Vec<_> = std::iter::from_fn(|| door.place(HERE).ok()).collect();
        let ticket = door.ticket(HERE, true).unwrap();
        assert!(stranger.standing().poll_closed(&Context::from_waker(Waker::noop())));
        let (entered, ()) = tokio::join!(door.enter(ticket), async { drop(stranger) });
        assert!(entered.is_some_and(|entered| entered.standing().is_on_trial()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_address_leaves_places_to_others() {
        let door = Places::new(100, 2).at_door("test", 4);
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(enter(&door).await);
        }
        assert!(door.ticket(HERE, false).unwrap_err().starts_with("3 connections from its address"));
        let there = IpAddr::from([10, 0, 0, 1]);
        let other = door.enter(door.ticket(there, false).unwrap()).await.unwrap();
        assert!(
            door.ticket(there, false).unwrap_err().starts_with("4 connections are open on the test port")
        );

        // It is one of its own that makes room for one more of it, though another one is idle for longer.
        tokio::time::advance(IDLE_MIN).await;
        held[1..].iter().for_each(|one| one.standing().touch());
        let ticket = door.ticket(HERE, false).unwrap();
        assert!(held[0].standing().poll_closed(&Context::from_waker(Waker::noop())));
        let (entered, ()) = tokio::join!(door.enter(ticket), async { drop(held.remove(0)) });
        held.push(entered.unwrap());
        assert!(!other.standing().poll_closed(&Context::from_waker(Waker::noop())));
        drop((held, other));
        assert!(door.node.addresses().is_empty(), "nothing is kept of who is gone");
    }
}
