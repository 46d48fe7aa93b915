//! The text protocol: one command a line, one line of answer for each, always, and in the order of the commands.
//!
//! What the lines are is said in `line`; `input` reads them in bounded memory; `answer` says what came of them. Commands are
//! pipelined and take effect in the order in which they were sent (`Order::Program`). A `SET` is `OK` when as many replicas
//! have it as the [`Tolerance`] wants. Reads are linearizable, but where the operator lets them fall back, after a while, to
//! what any replica has.
//!
//! `AUTH` says who asks from then on; before it, it is who the connection's certificate names, or nobody. What comes after an `AUTH` waits
//! until it is known whether it is right.
//!
//! Bounds: [`TEXT_PIPELINE_MAX`] commands of a connection are under way, and [`OUT_BYTES_SOFT`] of answers wait for it to
//! take them, beyond which it is not read from. A client that takes no answer for [`WRITE_TIME`] is dropped.

mod answer;
mod input;
mod line;

use std::future::poll_fn;
use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{
    DOOR_CONNECTIONS_MAX, TEXT_LINE_BYTES_MAX, TEXT_PIPELINE_MAX, TEXT_SILENT_MS, TEXT_WRITE_MS,
};
use ringfort_types::{Call, Change, Code, Condition, Consistency, Door, Failure, Part, Principal, Request};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_stream::StreamExt;

use self::answer::Expected;
pub use self::answer::GetReply;
use self::input::{End, LineMemory, Lines};
use self::line::{HELP, Order};
use super::tolerance::Tolerance;
use crate::authentication::{Authentication, Checking, Credentials, Known};
use crate::doors::listener::{Connection, DoorLimits, Greeting, Incoming};
use crate::doors::places::Closed;
use crate::doors::spread::{HandedOver, Runtimes};
use crate::gate::{self, Asker, Gate, Pipeline};

/// Answers that wait to be written, in bytes, beyond which no more are made.
const OUT_BYTES_SOFT: usize = 256 * 1024;
/// How long a client may take nothing of what is to be written.
const WRITE_TIME: Duration = Duration::from_millis(TEXT_WRITE_MS);

/// How long a connection that ends is read from, for what its client had sent already.
const LINGER: Duration = Duration::from_millis(200);
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// How long a client may be connected before it says anything.
const SILENT_MAX: Duration = Duration::from_millis(TEXT_SILENT_MS);

/// One part in so many of a GET's time is left for what any replica has.
const STALE_SHARE: u32 = 4;

/// The bounds of the port.
pub(super) const LIMITS: DoorLimits = DoorLimits {
    connections_max: DOOR_CONNECTIONS_MAX,
    greeting: Greeting::FirstByte,
    greeting_max: SILENT_MAX,
    full_answer: b"ERROR rejected: too many connections: close some, or ask another node\n",
};

/// What a client is told that begins without TLS where it is needed.
pub(super) const WITHOUT_TLS: &[u8] =
    b"ERROR rejected: this port speaks TLS only, as in openssl s_client -connect HOST:PORT -CAfile CA\n";

/// How the operator wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextSettings {
    /// What answers a `GET`: the message alone, or `OK` and the message.
    pub get_reply: GetReply,
    /// How long a command may take.
    pub timeout: Duration,
    /// How long a `GET` waits for the shard's leader before it takes what any replica has, which may be old; never, if this
    /// is not set.
    pub stale_after: Option<Duration>,
}

impl Default for TextSettings {
    fn default() -> TextSettings {
        TextSettings { get_reply: GetReply::Bare, timeout: Duration::from_secs(10), stale_after: None }
    }
}

/// What all connections have in common.
#[derive(Clone)]
pub(super) struct Talks {
    pub(super) gate: Gate,
    pub(super) authentication: Authentication,
    pub(super) settings: TextSettings,
    pub(super) tolerance: Tolerance,
}

/// Serves until the node stops.
pub(super) async fn serve(talks: Talks, incoming: Incoming, runtimes: &Runtimes) {
    let memory = LineMemory::default();
    let stopping = talks.gate.stopping();
    let talk = move |connection| Talk::new(talks.clone(), &connection).run(connection, memory.clone());
    runtimes.serve(incoming, stopping, |connections| serve_all(talk.clone(), connections)).await;
}

/// Talks with clients as they come, on the runtime that this runs on, to the end of each.
async fn serve_all<T>(talk: impl Fn(Connection) -> T, mut connections: HandedOver)
where
    T: Future<Output = ()> + Send + 'static,
{
    let mut talks = JoinSet::new();
    loop {
        tokio::select! {
            connection = connections.next() => match connection {
                Some(connection) => talks.spawn(talk(connection)),
                None => break,
            },
            Some(_ended) = talks.join_next() => continue,
        };
    }
    while talks.join_next().await.is_some() {}
}

/// One connection.
struct Talk {
    gate: Gate,
    authentication: Authentication,
    settings: TextSettings,
    tolerance: Tolerance,
    /// Where its client is.
    from: IpAddr,
    /// Whether an `AUTH` is right, which is not known yet.
    checking: Option<Checking>,
    calls: Pipeline<Expected>,
    out: BytesMut,
    /// The client has said goodbye, or closed its side: what is under way is answered, and then it ends.
    is_leaving: bool,
}

impl Talk {
    fn new(talks: Talks, connection: &Connection) -> Talk {
        let Talks { gate, authentication, settings, tolerance } = talks;
        let from = connection.peer().ip();
        let gate = gate.by(Asker { who: Principal::NOBODY, from: Some(from) });
        let mut calls = gate.pipeline(gate::Order::Program);
        calls.is_by(authentication.certified(connection.standing().certified()));
        Talk {
            gate,
            authentication,
            settings,
            tolerance,
            from,
            checking: None,
            calls,
            out: BytesMut::new(),
            is_leaving: false,
        }
    }

    async fn run(mut self, connection: Connection, memory: LineMemory) {
        let mut stopping = self.gate.stopping();
        let standing = connection.standing().clone();
        let mut in_use = None;
        let (reader, mut writer) = tokio::io::split(connection);
        let mut lines = Lines::new(reader, memory);
        // When the client last took something, or there was nothing to take.
        let mut taken = Instant::now();
        loop {
            self.is_leaving |= *stopping.borrow();
            while self.has_room()
                && let Some(line) = lines.ready()
            {
                self.take_line(&line);
            }
            self.calls.submit();
            let is_checking = self.checking.is_some();
            let may_read = !self.is_leaving && !is_checking && (self.has_room() || lines.is_half());
            let (under_way, must_write) = (self.calls.under_way(), !self.out.is_empty());
            if self.is_leaving && under_way == 0 && !must_write && !is_checking {
                let _gone = writer.shutdown().await;
                // What was sent and not read would have the system reset the connection, and the last answers with it.
                let _longer = tokio::time::timeout(LINGER, lines.pass_over(LINGER_BYTES_MAX)).await;
                return;
            }
            if !must_write {
                taken = Instant::now();
            }
            if under_way == 0 && !must_write && !is_checking {
                in_use = None;
            } else if in_use.is_none() {
                in_use = standing.begin(false);
            }
            let is_leaving = self.is_leaving;
            let Talk { calls, out, settings, checking, .. } = &mut self;
            // Large answers are in memory until all of them is written.
            let has_taken = out.is_empty() || out.len() < OUT_BYTES_SOFT && !calls.has_room_taken();
            let may_answer = under_way > 0 && has_taken;
            let mut made = BytesMut::new();
            let answers = poll_fn(|cx| {
                calls.poll_answers(cx, |asked, answer| {
                    let before = made.len();
                    asked.answer(answer, settings.get_reply, &mut made);
                    made.len() - before
                })
            });
            let checked = poll_fn(|cx| match checking {
                Some(checking) => checking.as_mut().poll(cx),
                None => Poll::Pending,
            });
            let mut known = None;
            tokio::select! {
                // All answers that are there come first, so that one write takes them.
                biased;
                answered = answers, if may_answer => if answered.is_err() { return },
                written = timeout_at(taken + WRITE_TIME, writer.write_buf(out)), if must_write => {
                    match written {
                        Ok(Ok(bytes)) if bytes > 0 => taken = Instant::now(),
                        Ok(_gone) => return,
                        Err(_late) => return standing.close(Closed::NothingTaken),
                    }
                }
                checked = checked, if is_checking => known = Some(checked),
                read = lines.read(), if may_read => match read {
                    Ok(()) => {}
                    Err(End::Closed) => self.is_leaving = true,
                    Err(end) => self.refuse_line(&end),
                },
                _ = stopping.wait_for(|stopping| *stopping), if !is_leaving => {}
            }
            self.out.unsplit(made);
            if let Some(checked) = known {
                self.checking = None;
                self.heed(checked);
            }
        }
    }

    fn has_room(&self) -> bool {
        let calls = &self.calls;
        let may_push = calls.has_room() && calls.under_way() < TEXT_PIPELINE_MAX;
        !self.is_leaving && self.checking.is_none() && may_push && self.out.len() < OUT_BYTES_SOFT
    }

    /// A line that is none, or too long a one: nothing after it can be understood.
    fn refuse_line(&mut self, end: &End) {
        let why = match end {
            End::TooLong => format!("a line of more than {TEXT_LINE_BYTES_MAX} bytes: send shorter messages"),
            End::TooMany => "too many lines of a megabyte and more are under way on this node: send it again".to_owned(),
            End::TooSlow | End::Closed => {
                "a line of more than 16 KiB took too long (10 s at most, 2 s while others wait): send it again".to_owned()
            }
        };
        self.say_error(why);
        self.is_leaving = true;
    }

    fn say_error(&mut self, why: String) {
        self.calls.refuse(Expected::Failed, Failure::rejected(Code::InvalidArgument, why));
    }

    fn take_line(&mut self, line: &Bytes) {
        let order = match line::parse(line) {
            None => return,
            Some(Ok(order)) => order,
            Some(Err(why)) => return self.say_error(why),
        };
        let timeout_ms = self.settings.timeout.as_millis() as u32;
        match order {
            Order::Set(id, message) => self.set(id, message, timeout_ms),
            Order::Get(id) => self.get(&id, timeout_ms),
            Order::Del(id) => {
                let part = Part { condition: Some(Condition::Present), ..Part::new(id, Change::DELETE) };
                let request = Request::Write { parts: vec![part] };
                self.calls.push(Expected::Del, Call::from(request).within(timeout_ms));
            }
            Order::Auth(name, password) => {
                let credentials = Credentials::of_password(&name, &password.0);
                self.authenticate(credentials);
            }
            Order::AuthToken(token) => match Credentials::of_token(&token.0) {
                Some(credentials) => self.authenticate(Ok(credentials)),
                None => self.say_error("usage: AUTH <name> <password>, or AUTH <token>".to_owned()),
            },
            Order::Stats => self.ask_state(Expected::Stats, timeout_ms),
            Order::Nodes => self.ask_state(Expected::Nodes, timeout_ms),
            Order::Http => {
                // A page in somebody's browser may have it sent here.
                self.say_error(format!("this port speaks lines, not HTTP: {HELP}"));
                self.is_leaving = true;
            }
            Order::Help => self.calls.refuse(Expected::Said(HELP), said()),
            Order::Quit => {
                self.calls.refuse(Expected::Said("Bye"), said());
                self.is_leaving = true;
            }
        }
    }

    fn authenticate(&mut self, credentials: Result<Credentials<'_>, Failure>) {
        match self.authentication.known(credentials, self.from, Some(Door::Text)) {
            Known::Is(who) => self.heed(Ok(who)),
            Known::Refused(failure) => self.heed(Err(failure)),
            Known::Soon(checking) => self.checking = Some(checking),
        }
    }

    /// It is known now who asks; who was wrong stays who they were.
    fn heed(&mut self, known: Result<Principal, Failure>) {
        match known {
            Ok(who) => {
                self.calls.is_by(who);
                self.calls.refuse(Expected::Said("OK"), said());
            }
            Err(failure) => self.calls.refuse(Expected::Failed, failure),
        }
    }

    fn ask_state(&mut self, asked: Expected, timeout_ms: u32) {
        self.calls.push(asked, Call::from(Request::ClusterState).within(timeout_ms));
    }

    fn set(&mut self, id: Bytes, message: Bytes, timeout_ms: u32) {
        let wanted = self.tolerance.now();
        if let Some(impossible) = wanted.impossible_for(&id, &self.gate) {
            return self.say_error(impossible);
        }
        let request = Request::put(id, message);
        let durability = wanted.durability(timeout_ms);
        self.calls.push(Expected::Set(wanted), Call { durability, ..Call::from(request).within(timeout_ms) });
    }

    fn get(&mut self, key: &Bytes, timeout_ms: u32) {
        let get = |consistency| Call::from(Request::Get { key: key.clone(), consistency });
        match self.settings.stale_after {
            None => self.calls.push(Expected::Get, get(Consistency::Linearizable).within(timeout_ms)),
            Some(patience) => {
                // Both together are over in time.
                let patience_ms =
                    (patience.as_millis() as u32).min(timeout_ms - timeout_ms / STALE_SHARE).max(1);
                let stale_ms = timeout_ms.saturating_sub(patience_ms).max(1);
                let fresh = get(Consistency::Linearizable).within(patience_ms);
                self.calls.push_or(Expected::Get, fresh, get(Consistency::Stale).within(stale_ms));
            }
        }
    }
}

/// For what is answered without asking the node.
fn said() -> Failure {
    Failure::rejected(Code::InvalidArgument, "")
}
