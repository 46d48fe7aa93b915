//! Connections as they come in, at any door: how many there may be, and how long one may take to greet.
//!
//! A door gets a connection only once its client has said what the door's protocol begins with; until then it is a small
//! task and nothing else, so that those who connect and say nothing cost next to nothing (PITFALLS 22). A client that says
//! something else is handed over all the same, marked ([`Connection::understood`]): what to tell it is the
//! door's business.
//!
//! Bounds: so many connections at a door, and so many at all doors of the node together ([`Places`]), fewer than all
//! doors' own bounds sum up to and more than any of them: one door at its limit leaves room at the others. Who comes later is told so,
//! if the door's protocol has words for it, closed at once, and nobody else notices.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use ringfort_types::limits::{PING_ANSWER_MS, PING_MS};

use crate::doors::floods::Frames;
use crate::doors::guard::Guard;
use crate::doors::places::{Closed, DoorPlaces, Entered, Places, Standing, TRIAL_MAX};
use crate::doors::socket::Socket;
use crate::doors::throttle::Throttle;
use crate::{StartError, exposure};

/// What a connection holds as long as it belongs to a runtime.
pub(crate) type Belonging = Arc<()>;

/// What every HTTP/2 client says first (RFC 9113, section 3.4); the header of a frame follows.
const HTTP2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HTTP2_FRAME_HEADER_BYTES: usize = 9;
/// Most bytes that are read before a door gets the connection.
pub(crate) const GREETING_BYTES_MAX: usize = HTTP2_PREFACE.len() + HTTP2_FRAME_HEADER_BYTES;
/// How long an HTTP/2 connection may say nothing and take nothing. It is asked whether it lives in that time.
const SILENCE_MAX: Duration = Duration::from_millis(PING_MS + PING_ANSWER_MS);
/// Most connections that the operating system keeps until they are accepted (and at most as many as `somaxconn` says). With the
/// libraries' 128 the 130th of those that come at once, as clients do after a restart, waits a second and more for TCP to try again.
const BACKLOG: u32 = 1024;
/// How long a client may take to close its direction after this node has closed its own. Closing a socket into which its client is
/// still writing makes the kernel reset the connection, and the client's next write fails with that before it has read what it
/// was told last. No longer than a node that stops waits for its connections.
const FAREWELL_MAX: Duration = Duration::from_millis(300);
/// How long to wait when the operating system has no descriptor for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds the address that `flag` says, or says why that can't be.
pub(crate) async fn bind(
    flag: &'static str,
    address: &str,
    insecure: bool,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let resolved = exposure::resolve(flag, address, insecure).await?;
    let listening = listen(resolved).and_then(|listener| Ok((listener.local_addr()?, listener)));
    match listening {
        Ok((bound, listener)) => Ok((listener, bound)),
        Err(source) if source.kind() == io::ErrorKind::AddrInUse => {
            Err(StartError::PortInUse { address: address.to_owned() })
        }
        Err(source) => Err(StartError::Listen { address: address.to_owned(), source }),
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    #[cfg(unix)] // Elsewhere it lets two processes share a port.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What a client must say before a door gets its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// One byte, whichever.
    FirstByte,
    /// HTTP/2's preface and the header of its first frame. Something else is handed over as soon as it differs.
    Http2,
}

/// The bounds of one door.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoorLimits {
    /// Most connections at once.
    pub(crate) connections_max: usize,
    /// What they begin with.
    pub(crate) greeting: Greeting,
    /// Within which time; after it the connection is closed without a word.
    pub(crate) greeting_max: Duration,
    /// What one connection too many is told before it is closed. Empty where that does harm: a gRPC client waits longer and
    /// longer before it tries again only if it was told nothing at all.
    pub(crate) full_answer: &'static [u8],
}

/// One door's connections as they come in and have greeted. It never ends, and its items are never errors: those are
/// logged here, and whoever listens goes on.
pub(crate) struct Incoming {
    /// For the log: "gRPC".
    door: &'static str,
    listener: TcpListener,
    limits: DoorLimits,
    places: DoorPlaces,
    /// What TLS is spoken with.
    guard: Option<Guard>,
    /// Those that have not greeted yet; they hold their places.
    greeting: JoinSet<Option<Connection>>,
    pause: Option<Pin<Box<Sleep>>>,
    turned_away: Arc<Throttle>,
    not_accepted: Arc<Throttle>,
}

impl Incoming {
    pub(crate) fn new(
        door: &'static str,
        listener: TcpListener,
        limits: DoorLimits,
        at_node: &Places,
        guard: Option<Guard>,
    ) -> Incoming {
        Incoming {
            door,
            listener,
            limits,
            places: at_node.at_door(door, limits.connections_max),
            guard,
            greeting: JoinSet::new(),
            pause: None,
            turned_away: Throttle::new(format!("connections were turned away from the {door} port")),
            not_accepted: Throttle::new(format!("attempts to accept a connection failed on the {door} port")),
        }
    }

    /// The places of those that come in.
    pub(crate) fn places(&self) -> &DoorPlaces {
        &self.places
    }

    /// Takes one in, or turns it away.
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let nodes_come_here = self.limits.greeting == Greeting::Http2;
        let ticket = match self.places.ticket(peer.ip(), nodes_come_here) {
            Ok(ticket) => ticket,
            Err(full) => {
                self.places.turn_away();
                self.turned_away.warn(|| format!("{peer} is turned away: {full}"));
                // A socket this new has room for it. Who does not get it sees the end of the connection all the same.
                if self.guard.is_none() {
                    let _lost = stream.try_write(self.limits.full_answer);
                }
                return;
            }
        };
        if let Some(full) = ticket.displaces() {
            self.places.turn_away();
            self.turned_away.warn(|| format!("an earlier newcomer is turned away for {peer}: {full}"));
        }
        let _slower_without = stream.set_nodelay(true);
        let DoorLimits { greeting: expected, greeting_max: max, full_answer, .. } = self.limits;
        let (door, places, turned_away) = (self.door, self.places.clone(), self.turned_away.clone());
        let guard = self.guard.clone();
        self.greeting.spawn(async move {
            let Some(entered) = places.enter(ticket).await else {
                places.turn_away();
                turned_away
                    .warn(|| format!("{peer} is turned away: none of the idle connections closes in time"));
                if guard.is_none() {
                    let _lost = stream.try_write(full_answer);
                }
                return None;
            };
            let max = if entered.standing().is_on_trial() { max.min(TRIAL_MAX) } else { max };
            let greeted = async {
                let socket = match guard {
                    Some(guard) => guard.greet(stream, peer).await?,
                    None => Socket::Plain(stream),
                };
                Connection::new(socket, peer, entered, expected).greeted(expected).await
            };
            match tokio::time::timeout(max, greeted).await {
                Ok(Ok(connection)) => {
                    end_of_trial(connection.standing());
                    Some(connection)
                }
                Ok(Err(error)) => {
                    tracing::debug!("{peer} left the {door} port before it had greeted: {error}");
                    None
                }
                Err(_elapsed) => {
                    places.count(Closed::NotGreeted);
                    tracing::debug!("{peer} did not greet on the {door} port within {max:?}: closed");
                    None
                }
            }
        });
    }
}

/// Closes a connection on trial that does not make a call soon.
fn end_of_trial(standing: &Arc<Standing>) {
    if standing.is_on_trial() {
        let standing = standing.clone();
        tokio::spawn(async move {
            tokio::time::sleep(TRIAL_MAX).await;
            if standing.is_on_trial() {
                standing.close(Closed::NoCall);
            }
        });
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.greeting.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(connection)))) => return Poll::Ready(Some(Ok(connection))),
                Poll::Ready(Some(_ended)) => continue,
                Poll::Ready(None) | Poll::Pending => {}
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match std::task::ready!(self.listener.poll_accept(cx)) {
                Ok((stream, peer)) => self.admit(stream, peer),
                Err(error) => {
                    self.not_accepted.warn(|| format!("can't accept a connection: {error}"));
                    self.pause = Some(Box::pin(tokio::time::sleep(EXHAUSTED_PAUSE)));
                }
            }
        }
    }
}

/// One connection, which holds its place until it closes. Reading it begins with the greeting.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Socket,
    peer: SocketAddr,
    /// Said by the client, and `greeting_read..greeting_len` not yet read by the door.
    greeting: [u8; GREETING_BYTES_MAX],
    greeting_len: usize,
    greeting_read: usize,
    understood: bool,
    /// Whether it is in use as long as something is said; else by its calls.
    bytes_count: bool,
    /// What its client sends, where that is HTTP/2.
    frames: Option<Frames>,
    entered: Entered,
    /// When to look next how long it has been silent.
    look: Option<Pin<Box<Sleep>>>,
    /// Since nothing more is said here: until when it is waited for the client's end.
    farewell: Option<Pin<Box<Sleep>>>,
    /// To the runtime that it is registered with, once that is decided.
    _belonging: Option<Belonging>,
}

impl Connection {
    fn new(stream: Socket, peer: SocketAddr, entered: Entered, expected: Greeting) -> Connection {
        if let Some(certified) = stream.certified() {
            entered.standing().certify(certified);
        }
        Connection {
            stream,
            peer,
            greeting: [0; GREETING_BYTES_MAX],
            greeting_len: 0,
            greeting_read: 0,
            understood: true,
            bytes_count: expected != Greeting::Http2,
            frames: (expected == Greeting::Http2).then(|| Frames::after(HTTP2_PREFACE.len())),
            entered,
            look: None,
            farewell: None,
            _belonging: None,
        }
    }

    /// Reads on, and throws away what comes, until the client has closed its direction, or its time for that is over.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut unread = [0; 4096];
        loop {
            let is_over = self.farewell.as_mut().is_none_or(|farewell| farewell.as_mut().poll(cx).is_ready());
            if is_over || self.standing().poll_closed(cx) {
                return Poll::Ready(());
            }
            let mut buf = ReadBuf::new(&mut unread);
            let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                return Poll::Ready(());
            }
        }
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> &Arc<Standing> {
        self.entered.standing()
    }

    /// Where it was made to.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        self.stream.local()
    }

    /// Whose it is.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Whether the client began as the door's protocol does.
    pub(crate) fn understood(&self) -> bool {
        self.understood
    }

    /// What the client said first, as far as it was read before the door got the connection.
    pub(crate) fn greeting(&self) -> &[u8] {
        &self.greeting[..self.greeting_len]
    }

    /// Registers it with this runtime, where it stays.
    pub(crate) fn belong(self, to: &Handle, belonging: Belonging) -> io::Result<Connection> {
        let is_here = to.id() == Handle::current().id();
        let stream = if is_here { self.stream } else { self.stream.to(to)? };
        Ok(Connection { stream, _belonging: Some(belonging), ..self })
    }

    /// Whether it is to end: it was closed, or its client has been silent for too long.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> bool {
        if self.standing().poll_closed(cx) {
            return true;
        }
        if self.bytes_count {
            return false;
        }
        loop {
            let left = SILENCE_MAX.saturating_sub(self.standing().silence());
            if left.is_zero() {
                tracing::debug!("{} has been silent for {SILENCE_MAX:?}: closed", self.peer);
                self.standing().close(Closed::Silent);
                return true;
            }
            let look = self.look.get_or_insert_with(|| Box::pin(sleep(left)));
            if look.as_mut().poll(cx).is_pending() {
                return false;
            }
            self.look = None;
        }
    }

    /// Looks at what was read, from there on; if it is too much of a kind, it is as if the client had closed the connection.
    fn look_at(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        let Some(frames) = &mut self.frames else { return };
        if let Some(flood) = frames.come(&buf.filled()[from..]) {
            buf.set_filled(from);
            self.frames = None;
            self.standing().close(flood);
            self.standing().tell_flood(self.peer, flood);
        }
    }

    /// What came of writing something.
    fn written(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(bytes)) => self.standing().take(bytes),
            // One that is closed would never be read from while it takes nothing. Lines are read and answered by two tasks.
            Poll::Pending if !self.bytes_count && self.poll_end(cx) => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
            }
            _ => {}
        }
        written
    }

    /// Reads until the client has greeted, or has said something else.
    async fn greeted(mut self, expected: Greeting) -> io::Result<Connection> {
        loop {
            let read = self.stream.read(&mut self.greeting[self.greeting_len..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.greeting_len += read;
            if expected == Greeting::Http2 {
                let said = &self.greeting[..self.greeting_len.min(HTTP2_PREFACE.len())];
                self.understood = HTTP2_PREFACE.starts_with(said);
                if !self.understood {
                    self.frames = None;
                }
                if self.understood && self.greeting_len < GREETING_BYTES_MAX {
                    continue;
                }
            }
            return Ok(self);
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = Arc<Standing>;

    fn connect_info(&self) -> Arc<Standing> {
        self.standing().clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.greeting_read < self.greeting_len {
            let unread = &self.greeting[self.greeting_read..self.greeting_len];
            let taken = unread.len().min(buf.remaining());
            buf.put_slice(&unread[..taken]);
            self.greeting_read += taken;
            let from = buf.filled().len() - taken;
            self.look_at(buf, from);
            return Poll::Ready(Ok(()));
        }
        let from = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if read.is_pending() {
            // As if the client had closed it.
            return if self.poll_end(cx) { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        if self.bytes_count {
            self.standing().touch();
        } else {
            self.standing().hear();
            self.look_at(buf, from);
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.written(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.farewell.is_none() {
            std::task::ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
            if self.bytes_count || !self.understood {
                // Lines are read by another task, and strangers by who answers them.
                return Poll::Ready(Ok(()));
            }
            self.farewell = Some(Box::pin(sleep(FAREWELL_MAX)));
        }
        self.poll_farewell(cx).map(Ok)
    }
}

#[cfg(test)]
mod tests;
