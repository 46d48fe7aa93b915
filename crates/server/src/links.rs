//! Connections with the other nodes: one out to each, made anew whenever it is lost, and those that come in.
//!
//! Frames travel outwards only, so two nodes have two connections between them. The outgoing stream takes all
//! that waits in the node's [`Outbox`] and makes one frame of it; reads for that node are done at that moment.
//! Incoming frames go to the core's inbox; while that is full of them, the reader pauses, and HTTP/2's own flow
//! control holds the sender up.
//!
//! Invariants: `PeerUp` is reported once the other side has taken the stream, `PeerLost` once for each
//! `PeerUp`. A refusal, our answer to whoever is not listened to, is the last
//! thing on its stream.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringfort_node::Event;
use ringfort_proto::internal::peer_client::PeerClient;
use ringfort_proto::internal::peer_server::{Peer, PeerServer};
use ringfort_proto::internal::{
    Frame, InviteRequest, InviteResponse, JoinRequest, JoinResponse, TimeRequest, TimeResponse,
};
use ringfort_proto::reason::reason;
use ringfort_proto::status::{OUTCOME, from_failure};
use ringfort_ring::{Layout, Member};
use ringfort_tls::Connector;
use ringfort_types::limits::{CALL_WINDOW_BYTES, CONNECTION_WINDOW_BYTES};
use ringfort_types::{Answer, Code as Refused, Epoch, Failure, NodeId, PeerFrame, PeerMessage};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};

use crate::doors::places::Standing;
use crate::impostors::Impostors;
use crate::outbox::{FRAME_BYTES_MAX, Item, Outbox};
use crate::shared::Shared;
use crate::whereabouts::Told;
use crate::{invite, join, peer_clock};

/// Most incoming connections from peers (and strangers who speak their protocol).
const LINKS_MAX: usize = 256;
/// Most that say they are from one node. More than one is for when that has not noticed yet that an earlier one broke.
const LINKS_OF_ONE_MAX: usize = 4;
/// Within this time the first frame has to be there.
const FIRST_FRAME_MAX: Duration = Duration::from_secs(5);
/// The first pause before connecting again; it doubles up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// That a node can't be reached is said when it has lasted so long, sooner of one that was there, and again each time that this has passed.
const TROUBLE_AFTER: Duration = Duration::from_secs(5);
const LOST_AFTER: Duration = Duration::from_secs(2);
const TROUBLE_EVERY: Duration = Duration::from_mins(1);
/// A connection that ends so soon is one that was refused.
const REFUSED_WITHIN: Duration = Duration::from_millis(250);
/// A peer that does not answer HTTP/2 pings for this long is lost.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_MAX: Duration = Duration::from_secs(3);
/// Whom a connection is for: its member may be elsewhere, and another one there.
const TO: &str = "ringfort-to";
/// How long a reader pauses while the inbox is full of frames.
const PAUSE: Duration = Duration::from_millis(1);

/// Another node, and where it listens. The name may be none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Other {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) name: String,
}

/// Keeps all other nodes connected: those given until there is a layout, and then its members, as they change. For as long as this
/// node lives. `told` is where they are said to be, until the layout has another address for them.
pub(crate) async fn keep_all_connected(shared: Arc<Shared>, listed: Vec<Other>, mut told: Told) {
    let (mut layout, mut moved) = (shared.watch_layout(), shared.watch_moved());
    let mut kept: BTreeMap<NodeId, (watch::Sender<Vec<String>>, AbortHandle)> = BTreeMap::new();
    let mut before: Option<Arc<Layout>> = None;
    let mut tasks = JoinSet::new();
    loop {
        let now = layout.borrow_and_update().clone();
        let moved_now = moved.borrow_and_update().clone();
        let others: Vec<(Other, Vec<String>)> = match &now {
            None => listed.iter().map(|other| (other.clone(), vec![other.address.clone()])).collect(),
            Some(layout) => {
                let address_before = |node| Some(&before.as_ref()?.member(node)?.address);
                let others = layout.members.iter().filter(|member| member.id != shared.header.from);
                others
                    .map(|member| {
                        if address_before(member.id).is_some_and(|address| *address != member.address) {
                            told.named.remove(&member.id);
                        }
                        let places = places(member, moved_now.get(&member.id), &told);
                        let (address, name) = (member.address.clone(), member.name.clone());
                        (Other { node: member.id, address, name }, places)
                    })
                    .collect()
            }
        };
        before = now;
        kept.retain(|node, (_, task)| {
            let stays = others.iter().any(|(other, _)| other.node == *node);
            if !stays {
                task.abort();
                shared.answers.remove_outbox(*node);
                // What is on its way to the node has nowhere to go.
                shared.inbox.push(Event::PeerLost(*node));
            }
            stays
        });
        for (Other { node, name, .. }, places) in others {
            if let Some((known, _)) = kept.get(&node) {
                known.send_if_modified(|known| {
                    let is_news = *known != places;
                    *known = places;
                    is_news
                });
                continue;
            }
            let outbox = shared.answers.add_outbox(node);
            let (known, places) = watch::channel(places);
            let task = tasks.spawn(keep_connected(shared.clone(), outbox, places, name));
            kept.insert(node, (known, task));
        }
        tokio::select! {
            changed = layout.changed() => if changed.is_err() { return },
            changed = moved.changed() => if changed.is_err() { return },
            Some(_ended) = tasks.join_next() => if shared.is_stopping() && tasks.is_empty() { return },
        }
    }
}

/// Where a member may be, the likeliest place first.
fn places(member: &Member, says: Option<&String>, told: &Told) -> Vec<String> {
    let known = says.into_iter().chain(told.named.get(&member.id)).chain([&member.address]);
    let mut places: Vec<String> = Vec::new();
    for place in known.chain(&told.unnamed) {
        if !places.contains(place) {
            places.push(place.clone());
        }
    }
    places
}

/// Keeps one node connected, for as long as this node lives. `places` are those where it may be, at least one; `given` the name given for
/// it, which may be none.
async fn keep_connected(
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    mut places: watch::Receiver<Vec<String>>,
    given: String,
) {
    let node = outbox.to();
    let called = |address: &str| match shared.name_of(node).unwrap_or_else(|| given.clone()) {
        name if name.is_empty() => address.to_owned(),
        name => format!("{name} ({address})"),
    };
    let mut stopping = shared.stopping.subscribe();
    let mut backoff = BACKOFF_MIN;
    let mut trouble = Trouble::default();
    let mut turn = 0;
    loop {
        let started = Instant::now();
        let known = places.borrow_and_update().clone();
        let address = &known[turn % known.len()];
        let mut was_up = false;
        let attempt = async {
            let number = shared.link_number();
            match connect(&shared, &outbox, (address, &given), number).await {
                Ok((answers, client)) => {
                    trouble.is_over(&called(address), Instant::now());
                    was_up = true;
                    shared.inbox.push(Event::PeerUp(node));
                    let why = tokio::select! {
                        why = until_lost(&shared, number, answers) => why,
                        never = peer_clock::watch(client, &outbox.metrics) => match never {},
                    };
                    // One that is refused again and again was not there, and says itself why.
                    if started.elapsed() > REFUSED_WITHIN && !shared.is_stopping() {
                        tracing::info!("lost {}: {why}", called(address));
                        trouble.begins(Instant::now());
                    } else {
                        tracing::debug!("lost {}: {why}", called(address));
                    }
                }
                Err(error) => {
                    let mut why = reason(&*error);
                    if waits(&*error)
                        && let Err(failure) = invite::remind(&shared, node, address).await
                    {
                        why = failure.message;
                    }
                    tracing::trace!("can't connect with {}: {why}", called(address));
                    if trouble.is_to_be_said(Instant::now()) {
                        tracing::warn!("can't reach {}: {why}", called(address));
                    }
                }
            }
        };
        let has_moved = tokio::select! {
            () = attempt => false,
            () = until_moved(&mut places, &known, address) => true,
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        outbox.close();
        outbox.metrics.set_clock_offset(None);
        if was_up {
            // What is on its way to the node has nowhere to go, also if it has only moved.
            shared.inbox.push(Event::PeerLost(node));
            if started.elapsed() > BACKOFF_MAX {
                backoff = BACKOFF_MIN;
            }
        } else {
            turn = (turn + 1) % known.len();
        }
        if has_moved {
            (turn, backoff) = (0, BACKOFF_MIN);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
        }
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

/// Waits until a node is to be looked for elsewhere than at this address: it is none of those where it may be any more, or another one has
/// become the likeliest.
async fn until_moved(places: &mut watch::Receiver<Vec<String>>, known: &[String], address: &str) {
    let is_elsewhere = |now: &Vec<String>| {
        let is_first = now.first().is_some_and(|first| first == address);
        !now.iter().any(|place| place == address) || (now.first() != known.first() && !is_first)
    };
    if places.wait_for(is_elsewhere).await.is_err() {
        // Whoever keeps all connected is about to end this.
        std::future::pending::<()>().await;
    }
}

/// How long a node can't be reached.
#[derive(Default)]
struct Trouble {
    since: Option<Instant>,
    /// Whether it was there before, for a while.
    was_there: bool,
    said: Option<Instant>,
    /// That it was there is said once.
    is_known: bool,
}

impl Trouble {
    /// It was there until now.
    fn begins(&mut self, now: Instant) {
        *self = Trouble { since: Some(now), was_there: true, said: None, is_known: true };
    }

    /// It is there: how long it was not, if that was said or it was there before.
    fn is_over(&mut self, called: &str, now: Instant) {
        let Trouble { since, was_there, said, is_known } = std::mem::take(self);
        self.is_known = true;
        let seconds = since.map_or(0.0, |since| (now - since).as_secs_f64());
        match said {
            Some(_) => tracing::warn!("{called} is back after {seconds:.1} s"),
            None if was_there => tracing::info!("{called} is back after {seconds:.1} s"),
            None if !is_known => tracing::info!("connected with {called}"),
            None => tracing::debug!("connected with {called}"),
        }
    }

    /// Not at once, as nodes that start together are not there together; and then now and then.
    fn is_to_be_said(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let after = if self.was_there { LOST_AFTER } else { TROUBLE_AFTER };
        let is_due = now - since >= after && self.said.is_none_or(|said| now - said >= TROUBLE_EVERY);
        if is_due {
            self.said = Some(now);
        }
        is_due
    }
}

async fn connect(
    shared: &Arc<Shared>,
    outbox: &Arc<Outbox>,
    (address, given): (&str, &str),
    number: u64,
) -> Result<(Streaming<Frame>, PeerClient<Channel>), Box<dyn Error + Send + Sync>> {
    let name = shared.name_of(outbox.to()).or_else(|| Some(given.to_owned()).filter(|name| !name.is_empty()));
    let way = shared.way(name);
    let channel = Endpoint::from_shared(format!("{}://{address}", way.scheme()))?
        .tcp_nodelay(true)
        .connect_timeout(CONNECT_MAX)
        .initial_stream_window_size(CALL_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .keep_alive_while_idle(true)
        .connect_with_connector(Connector::new(way))
        .await?;
    let mut client = PeerClient::new(channel)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX);
    outbox.assign(number);
    let frames = Outgoing { shared: shared.clone(), outbox: outbox.clone(), number };
    let mut request = Request::new(frames);
    request.metadata_mut().insert(TO, wanted(shared.header.cluster(), outbox.to()).parse()?);
    let answers = tokio::time::timeout(CONNECT_MAX, client.link(request)).await??.into_inner();
    Ok((answers, client))
}

/// Whether a node is there, and says that it belongs to no cluster yet.
fn waits(error: &(dyn Error + Send + Sync + 'static)) -> bool {
    let status = error.downcast_ref::<Status>();
    status.is_some_and(|status| status.code() == Code::Unavailable && status.metadata().contains_key(OUTCOME))
}

/// Whom a connection is for, as its metadata say it.
fn wanted(cluster: u64, node: NodeId) -> String {
    format!("{cluster:016x}/{node}")
}

/// Waits for the end of the stream; a frame on it is the other node's refusal, or what it remembers of our log, for our node to know.
async fn until_lost(shared: &Shared, number: u64, mut answers: Streaming<Frame>) -> String {
    loop {
        match answers.message().await {
            Ok(None) => return "it closed the connection".into(),
            Err(status) => return status.message().to_owned(),
            Ok(Some(frame)) => {
                let bytes = frame.payload.len();
                match PeerFrame::decode(frame.payload) {
                    Ok(frame) => shared.inbox.push_frame(number, frame, bytes),
                    Err(malformed) => return malformed.to_string(),
                }
            }
        }
    }
}

/// The frames of one outgoing connection. Ends when the outbox is no longer its own.
struct Outgoing {
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    number: u64,
}

impl Stream for Outgoing {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        self.outbox.poll_take(self.number, cx.waker()).map(|items| {
            items.map(|items| {
                let messages: Vec<_> = items.into_iter().map(|item| self.message(item)).collect();
                self.outbox.metrics.messages.add(messages.len() as u64);
                let payload = frame(&self.shared, self.outbox.to(), messages).encode();
                self.outbox.metrics.bytes.add(payload.len() as u64);
                Frame { payload }
            })
        })
    }
}

impl Outgoing {
    fn message(&self, item: Item) -> PeerMessage {
        match item {
            Item::Message(message) => message,
            Item::Read { id, read } => Answer { id, reply: self.shared.query(&read) }.into(),
        }
    }
}

fn frame(shared: &Shared, to: NodeId, messages: Vec<PeerMessage>) -> PeerFrame {
    let header = &shared.header;
    PeerFrame {
        from: header.from,
        to,
        incarnation: header.incarnation,
        cluster: header.cluster(),
        epoch: header.epoch(),
        log: header.log(),
        messages,
    }
}

/// Connections that other nodes have made to this one.
#[derive(Debug, Default)]
pub(crate) struct Links {
    open: Mutex<BTreeMap<u64, Link>>,
    impostors: Impostors,
}

#[derive(Debug)]
struct Link {
    answers: mpsc::Sender<Result<Frame, Status>>,
    /// Who its frames say they are from; 0 before the first.
    from: NodeId,
    /// Dropped with it: its reader ends.
    _open: oneshot::Sender<()>,
}

impl Links {
    /// Says so on this connection, and closes it.
    pub(crate) fn refuse(&self, shared: &Shared, link: u64, with: PeerMessage) {
        if let Some(link) = self.open().remove(&link) {
            let refusal = frame(shared, link.from, vec![with]);
            let _gone = link.answers.try_send(Ok(Frame { payload: refusal.encode() }));
        }
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<u64, Link>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes who speaks on it. False if the connection has been refused meanwhile.
    fn hear(&self, link: u64, from: NodeId) -> bool {
        let mut open = self.open();
        let Some(heard) = open.get_mut(&link) else { return false };
        heard.from = from;
        let of_this: Vec<u64> =
            open.iter().filter(|(_, link)| link.from == from).map(|(number, _)| *number).collect();
        if of_this.len() > LINKS_OF_ONE_MAX {
            // They are numbered in the order in which they came.
            open.remove(&of_this[0]);
        }
        true
    }

    /// A place for another one: if need be, that of the oldest which has not said yet who it is. False if there is none.
    fn enter(&self, number: u64, link: Link) -> bool {
        let mut open = self.open();
        if open.len() >= LINKS_MAX {
            let unknown = open.iter().find(|(_, link)| link.from == NodeId(0)).map(|(number, _)| *number);
            let Some(unknown) = unknown else { return false };
            open.remove(&unknown);
        }
        open.insert(number, link);
        true
    }
}

/// Whether another node asks this, or somebody who speaks as one.
pub(crate) fn is_of_a_node<B>(request: &http::Request<B>) -> bool {
    let path = request.uri().path().strip_prefix('/').and_then(|path| path.split_once('/'));
    path == Some((PeerServer::<PeerService>::NAME, "Link"))
}

/// The service that other nodes connect to.
#[derive(Clone, Debug)]
pub(crate) struct PeerService {
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Arc<Links>,
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let asks = self.links.impostors.certified(&self.shared, &request)?;
        if let Some(asks) = asks.filter(|asks| *asks != request.get_ref().name) {
            let joins = &request.get_ref().name;
            let why = format!(
                "the certificate is that of the node {asks}, and {joins} asks to join: give it one of its own"
            );
            return Err(from_failure(Failure::rejected(Refused::FailedPrecondition, why)));
        }
        let from = request.extensions().get::<Arc<Standing>>().map(|standing| standing.from());
        let admitted = join::admit(&self.shared, request.into_inner(), from).await;
        admitted.map(Response::new).map_err(from_failure)
    }

    async fn invite(&self, request: Request<InviteRequest>) -> Result<Response<InviteResponse>, Status> {
        self.links.impostors.certified(&self.shared, &request)?;
        let answer = invite::answer(&self.shared, request.into_inner()).await;
        answer.map(Response::new).map_err(from_failure)
    }

    async fn time(&self, request: Request<TimeRequest>) -> Result<Response<TimeResponse>, Status> {
        self.links.impostors.certified(&self.shared, &request)?;
        Ok(Response::new(TimeResponse { unix_us: peer_clock::now_us() }))
    }

    type LinkStream = ReceiverStream<Result<Frame, Status>>;

    async fn link(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::LinkStream>, Status> {
        let speaks = self.links.impostors.certified(&self.shared, &request)?;
        if let Some(waiting) = &self.shared.waiting {
            return Err(from_failure(waiting.not_yet()));
        }
        if let Some(name) = self.is_for_another(request.metadata()) {
            return Err(Status::failed_precondition(format!("{name} listens there")));
        }
        let number = self.shared.link_number();
        let (answers, stream) = mpsc::channel(1);
        let (_open, is_removed) = oneshot::channel();
        if !self.links.enter(number, Link { answers, from: NodeId(0), _open }) {
            return Err(Status::resource_exhausted("too many connections from peers"));
        }
        let (service, frames) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            let mut stopping = service.shared.stopping.subscribe();
            tokio::select! {
                () = service.read(number, frames, speaks) => {}
                // It has been refused, or its place has been given to another one.
                _ = is_removed => {}
                _ = stopping.wait_for(|stopping| *stopping) => {}
            }
            service.links.open().remove(&number);
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

impl PeerService {
    /// This node's name, if a connection is for another member of its cluster, which is not here.
    fn is_for_another(&self, metadata: &MetadataMap) -> Option<String> {
        let (cluster, me) = (self.shared.header.cluster(), self.shared.header.from);
        let said = metadata.get(TO)?.to_str().ok()?;
        let same_cluster = cluster != 0 && said.starts_with(&format!("{cluster:016x}/"));
        let name = || self.shared.name_of(me).unwrap_or_else(|| format!("node {me}"));
        (same_cluster && said != wanted(cluster, me)).then(name)
    }

    async fn read(&self, number: u64, mut frames: Streaming<Frame>, speaks: Option<String>) {
        let mut from = NodeId(0);
        let mut epoch = Epoch(0);
        let mut first_until = Some(tokio::time::Instant::now() + FIRST_FRAME_MAX);
        loop {
            let next = match first_until.take() {
                Some(until) => tokio::time::timeout_at(until, frames.message()).await.ok(),
                None => Some(frames.message().await),
            };
            let Some(Ok(Some(frame))) = next else { return };
            let bytes = frame.payload.len();
            let frame = match PeerFrame::decode(frame.payload) {
                Ok(frame) => frame,
                Err(malformed) => {
                    tracing::warn!("a peer's frame can't be read, its connection is closed: {malformed}");
                    return;
                }
            };
            // Who is a member under which name may be known only later.
            let known = self.shared.header.epoch();
            if speaks.is_some() && (frame.from != from || known != epoch) {
                epoch = known;
                if !self.links.impostors.is_its_own(&self.shared, speaks.as_ref(), frame.from) {
                    return;
                }
            }
            if frame.from != from {
                from = frame.from;
                if !self.links.hear(number, from) {
                    return;
                }
            }
            self.shared.inbox.push_frame(number, frame, bytes);
            while self.shared.inbox.peers_must_wait() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}
