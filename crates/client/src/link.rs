//! The way to one node: a connection that is made in the background, kept, and made anew when it breaks.
//!
//! Nobody waits for a node that is known to be down: after a failed attempt, [`Link::look`] says so at once,
//! while further attempts go on behind it, a little later each time. Only the first attempt, and the first
//! after a break, are worth waiting for ([`Link::ready`]), and no longer than [`PATIENCE`].
//!
//! An attempt succeeds once the node has answered a call. That a connection is accepted says little: a process that hangs has its
//! connections accepted by its system, and a node with no place for another client accepts, greets, and closes. So nothing
//! is sent over a connection, and no request asks its node first, before somebody there has shown that he takes calls.
//!
//! One HTTP/2 connection a node carries the session's stream and all single calls.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use ringfort_types::{Code, Failure};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::transport::Endpoint;

use crate::credentials::Authorized;
use crate::gathered::Connector;
use crate::health::takes_calls;
use crate::options::{PATIENCE, Transport};
use crate::reach::Reach;
use crate::session::Session;
use crate::which::Which;
use ringfort_proto::reason::reason;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// And then the node's first answer.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// What is said of a node of which nothing is heard.
const SILENT: &str = "it does not answer";
/// From a failed attempt to the next one, at first; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause between attempts.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// A connection is given up when it has been silent for twice as long.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Receive windows: large enough that a stream of answers does not wait for them.
const STREAM_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connection {
    /// For single calls.
    pub(crate) channel: Authorized,
    /// For pipelined ones; absent if the client makes none.
    pub(crate) session: Option<Session>,
    /// The cluster that its node belongs to; 0 if it has not said so.
    cluster: u64,
    /// Set when a single call found the connection broken.
    broken: AtomicBool,
}

impl Connection {
    /// Says that a call has found the connection broken.
    pub(crate) fn give_up(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_usable(&self) -> bool {
        !self.broken.load(Ordering::Relaxed) && !self.session.as_ref().is_some_and(Session::is_closed)
    }
}

/// What is known about a node right now.
#[derive(Debug)]
pub(crate) enum Look {
    /// Connected.
    Up(Arc<Connection>),
    /// Being connected for the first time, or after a break.
    Wait,
    /// The last attempt failed, for this reason.
    Down(String),
}

#[derive(Debug)]
enum State {
    /// Nobody has asked yet.
    New,
    Up(Arc<Connection>),
    /// `failed`: why the attempt before this one failed, if one did. `is_accepted`: there is a connection, and no answer yet.
    Connecting {
        failed: Option<String>,
        since: Instant,
        is_accepted: bool,
        pause: Duration,
    },
    Down {
        why: String,
        until: Instant,
        pause: Duration,
    },
}

/// One node's address and the connection to it.
#[derive(Debug)]
pub(crate) struct Link {
    /// `host:port`.
    pub(crate) address: String,
    endpoint: Endpoint,
    reach: Reach,
    /// The cluster that the client is about.
    which: Arc<Which>,
    /// Whether to open a session on each connection.
    sessions: bool,
    state: Mutex<State>,
    /// It was silent for longer than it is waited for, and has not answered since (`patience`).
    slow: AtomicBool,
    /// It has said at least once how the cluster looks.
    heard: AtomicBool,
    /// Counts changes of `state` that waiters care about.
    changes: watch::Sender<u64>,
}

impl Link {
    /// For an address that [`crate::parse_address`] accepts.
    pub(crate) fn new(
        address: String,
        reach: Reach,
        transport: Transport,
        which: Arc<Which>,
    ) -> Result<Link, Failure> {
        reach.authorization.check(&address)?;
        let endpoint = Endpoint::from_shared(format!("{}://{address}", reach.way.scheme()))
            .map_err(|error| {
                Failure::rejected(
                    Code::InvalidArgument,
                    format!("address \"{address}\" can't be used: {error}"),
                )
            })?
            .connect_timeout(CONNECT_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        Ok(Link {
            address,
            endpoint,
            reach,
            which,
            sessions: transport == Transport::Session,
            state: Mutex::new(State::New),
            slow: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            changes: watch::Sender::new(0),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code under this lock panics")
    }

    /// Whether it seems to hang: then it is asked last.
    pub(crate) fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }

    /// Says that it seems to hang. False if that was known.
    pub(crate) fn set_slow(&self) -> bool {
        !self.slow.swap(true, Ordering::Relaxed)
    }

    /// Whether it has ever answered.
    pub(crate) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Says that it has answered just now.
    pub(crate) fn set_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
        self.slow.store(false, Ordering::Relaxed);
    }

    /// What is known now; sees to it that a connection is being made if there is none.
    pub(crate) fn look(self: &Arc<Link>) -> Look {
        let mut state = self.lock();
        let (look, pause) = match &*state {
            State::Up(connection) if self.is_usable(connection) => return Look::Up(connection.clone()),
            State::New | State::Up(_) => (Look::Wait, PAUSE_MIN),
            State::Connecting { failed: None, since, .. } if since.elapsed() < PATIENCE => return Look::Wait,
            State::Connecting { failed, .. } => {
                return Look::Down(failed.clone().unwrap_or_else(|| SILENT.to_owned()));
            }
            State::Down { why, until, .. } if *until > Instant::now() => return Look::Down(why.clone()),
            State::Down { why, pause, .. } => (Look::Down(why.clone()), (*pause * 2).min(PAUSE_MAX)),
        };
        let failed = match &look {
            Look::Down(why) => Some(why.clone()),
            _ => None,
        };
        *state = State::Connecting { failed, since: Instant::now(), is_accepted: false, pause };
        tokio::spawn(self.clone().connect());
        look
    }

    /// Whether calls can go over this connection, and its node belongs to the client's cluster.
    fn is_usable(&self, connection: &Connection) -> bool {
        connection.is_usable() && self.which.refusal(connection.cluster).is_none()
    }

    /// Whether connections to it are accepted, whatever becomes of calls.
    pub(crate) fn is_accepted(&self) -> bool {
        match &*self.lock() {
            State::Up(connection) => connection.is_usable(),
            State::Connecting { is_accepted, .. } => *is_accepted,
            State::New | State::Down { .. } => false,
        }
    }

    /// The connection, if it is there or comes before the deadline, and the node is not known to be down.
    pub(crate) async fn ready(self: &Arc<Link>, deadline: Instant) -> Result<Arc<Connection>, String> {
        loop {
            let mut changes = self.changes.subscribe();
            match self.look() {
                Look::Up(connection) => return Ok(connection),
                Look::Down(why) => return Err(why),
                Look::Wait => {
                    if tokio::time::timeout_at(deadline.into(), changes.changed()).await.is_err() {
                        return Err(SILENT.to_owned());
                    }
                }
            }
        }
    }

    async fn connect(self: Arc<Link>) {
        let next = self.connected().await;
        let mut state = self.lock();
        let pause = if let State::Connecting { pause, .. } = &*state { *pause } else { PAUSE_MIN };
        *state = match next {
            Ok(connection) => State::Up(Arc::new(connection)),
            Err(why) => State::Down { why, until: Instant::now() + pause, pause },
        };
        drop(state);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// A connection over which the node has answered, or why there is none.
    async fn connected(&self) -> Result<Connection, String> {
        let connecting = self.endpoint.connect_with_connector(Connector::new(self.reach.way.clone()));
        let channel = match timeout(2 * CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| reason(&error))?,
            Err(_) => return Err(SILENT.to_owned()),
        };
        if let State::Connecting { is_accepted, .. } = &mut *self.lock() {
            *is_accepted = true;
        }
        let cluster = match timeout(FIRST_ANSWER_TIMEOUT, takes_calls(channel.clone(), &self.reach.way)).await
        {
            Ok(answered) => answered?,
            Err(_) => return Err(SILENT.to_owned()),
        };
        if let Some(why) = self.which.refusal(cluster) {
            return Err(why);
        }
        let channel = Authorized::new(channel, &self.reach.authorization);
        let session = self.sessions.then(|| Session::open(channel.clone(), self.address.clone()));
        Ok(Connection { channel, session, cluster, broken: AtomicBool::new(false) })
    }
}
