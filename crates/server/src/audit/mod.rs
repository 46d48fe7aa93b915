//! The audit log: who asked for what, from where, and what came of it, a JSON object a line.
//!
//! Administration, and refusals for lack of rights or wrong credentials, are always written; writes, or reads and writes, if that is
//! wanted. The gate begins a [`Record`] when a call comes in and ends it with the answer; one that is dropped, since its caller has gone,
//! says that nobody knows what came of it. A thread of its own writes (`file`), out of a bounded queue.
//!
//! **When nothing can be written.** Lines are dropped, and counted. Or, where the log is *required*, what must have a line is refused before
//! it is carried out: its place in the queue is taken first, a line that could not be written is kept until it can be, and as long as there is
//! one, nothing that needs another is taken. Of an administration act one line is in the file before it is begun (`begun`), and one before
//! it is answered. Lines are not synced: a machine that loses its power may lose the last ones.
//!
//! Invariants: never a value, a password, a hash or a token. Without an audit log, a call costs a branch.
//!
//! Bounds: [`AUDIT_LINES_MAX`] lines wait, of at most some kilobytes each. Refusals, which whoever reaches a port can cause, take no more than
//! three quarters of that.

mod file;
mod line;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::limits::{AUDIT_LINES_MAX, AUDIT_WAIT_MS};
use ringfort_types::{Code, Door, Failure, Principal, Request};
use tokio::sync::mpsc::OwnedPermit;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use self::file::{AuditFile, Entry, State};
use self::line::{Line, Subject};
use crate::StartError;
use crate::metrics::{Operation, code_name, door_name};

/// How long the answer to an administration act waits for its line.
const WAIT: Duration = Duration::from_millis(AUDIT_WAIT_MS);
const TOO_MANY: &str = "too many lines wait to be written";
/// What the node does itself, in place of a user's name, which has no such letters.
const NODE: &str = "(node)";

/// What is audited, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditConfig {
    /// The file, which is made if it is not there, and made again if it is moved away.
    pub file: PathBuf,
    /// Which requests are audited besides administration and refusals.
    pub requests: AuditedRequests,
    /// What must have a line is refused while none can be written; else lines are dropped.
    pub required: bool,
}

/// Requests that have lines though they are neither administration nor refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuditedRequests {
    /// None.
    #[default]
    None,
    /// Those that change keys.
    Writes,
    /// Those that read, too.
    All,
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asker {
    pub(crate) who: Principal,
    /// The client's address; none of what the node does itself.
    pub(crate) from: Option<IpAddr>,
}

impl From<Principal> for Asker {
    fn from(who: Principal) -> Asker {
        Asker { who, from: None }
    }
}

/// Something that is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act<'a> {
    Request(&'a Request),
    /// Keys with this prefix.
    List(&'a Bytes),
    /// To this filter; only what it is, if it is empty.
    SetLogLevel(&'a str),
    /// The node of this name, if it is said, at this address.
    Invite(Option<&'a str>, &'a str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Administration,
    Write,
    Read,
    /// Has a line only if it is refused.
    Other,
}

impl Act<'_> {
    fn kind(self) -> Kind {
        match self {
            Act::Request(request) => match request {
                Request::ChangeLayout(_) | Request::Transfer { .. } => Kind::Administration,
                Request::Write { .. } => Kind::Write,
                Request::Get { .. } | Request::GetMany { .. } | Request::Digest { .. } | Request::Users => {
                    Kind::Read
                }
                // Lists are asked for as such.
                Request::Scan(_)
                | Request::OpenSession { .. }
                | Request::DigestAt { .. }
                | Request::ClusterState => Kind::Other,
            },
            Act::List(_) => Kind::Read,
            Act::SetLogLevel("") => Kind::Other,
            Act::SetLogLevel(_) | Act::Invite(..) => Kind::Administration,
        }
    }

    fn operation(self) -> &'static str {
        match self {
            Act::Request(request) => Operation::of(request).name(),
            Act::List(_) => Operation::List.name(),
            Act::SetLogLevel(_) => "set_log_level",
            Act::Invite(..) => "invite",
        }
    }
}

/// Opens the file, if one is wanted.
pub(crate) fn open(config: Option<&AuditConfig>) -> Result<Option<AuditFile>, StartError> {
    let Some(AuditConfig { file, .. }) = config else { return Ok(None) };
    let opened = AuditFile::open(file).map_err(|error| {
        StartError::Usage(format!(
            "--audit {}: it can't be opened ({error}); name a file in a directory that is there and where this user may write",
            file.display()
        ))
    });
    opened.map(Some)
}

/// Begins the audit log of the node of this name, if it has one. To be called on a runtime.
pub(crate) fn start(
    config: Option<&AuditConfig>,
    file: Option<AuditFile>,
    name: &str,
    layouts: watch::Receiver<Option<Arc<Layout>>>,
) -> Result<Option<Audit>, StartError> {
    let Some((config, file)) = config.zip(file) else { return Ok(None) };
    let started = Audit::start(file, config, name.to_owned(), layouts);
    started.map(Some).map_err(|source| StartError::System { action: "start a thread", source })
}

/// The audit log of a node. A clone is the same.
#[derive(Clone, Debug)]
pub(crate) struct Audit(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    requests: AuditedRequests,
    required: bool,
    node: String,
    layouts: watch::Receiver<Option<Arc<Layout>>>,
    lines: mpsc::Sender<Entry>,
    state: Arc<State>,
}

impl Audit {
    /// Of the node of this name, to this file. To be called on a runtime.
    fn start(
        file: AuditFile,
        config: &AuditConfig,
        node: String,
        layouts: watch::Receiver<Option<Arc<Layout>>>,
    ) -> std::io::Result<Audit> {
        let (lines, taken) = mpsc::channel(AUDIT_LINES_MAX);
        let state = Arc::new(State::new(&config.file));
        file::start(file, taken, state.clone(), config.required)?;
        let (requests, required) = (config.requests, config.required);
        let audit = Audit(Arc::new(Parts { requests, required, node, layouts, lines, state }));
        // What can't be written is known before anything is asked for.
        let line = Line { outcome: "ok", ..audit.line("start", Asker::from(Principal::NODE), None) };
        send(audit.0.lines.clone().try_reserve_owned().ok(), &line, None);
        Ok(audit)
    }

    /// Lines that were dropped.
    pub(crate) fn dropped(&self) -> u64 {
        self.0.state.dropped()
    }

    /// Has the file opened again, before the next line and soon.
    pub(crate) fn reopen(&self) {
        self.0.state.reopen();
        // If there is no room for it, lines are being written.
        let _full = self.0.lines.try_send(Entry { line: Vec::new(), written: None });
    }

    /// Waits for a moment until all lines are written.
    pub(crate) async fn flush(&self) {
        let (tell, told) = oneshot::channel();
        let entry = Entry { line: Vec::new(), written: Some(tell) };
        let flushed = async {
            self.0.lines.send(entry).await.ok()?;
            told.await.ok()
        };
        let _late = timeout(WAIT, flushed).await;
    }

    /// Something is asked for: what will be written of it, if anything is or might be. Refuses what must be written and can't be.
    pub(crate) fn begin(
        &self,
        door: Door,
        asker: Asker,
        act: Act<'_>,
        is_enforced: bool,
    ) -> Result<Option<Box<Record>>, Failure> {
        let kind = act.kind();
        let is_wanted = match kind {
            Kind::Administration => true,
            Kind::Write => self.0.requests >= AuditedRequests::Writes,
            Kind::Read => self.0.requests >= AuditedRequests::All,
            Kind::Other => false,
        };
        if asker.who == Principal::NODE && kind != Kind::Administration {
            return Ok(None);
        }
        // As long as rights are not enforced, nothing is refused for the lack of them.
        if !is_wanted && !is_enforced {
            return Ok(None);
        }
        let place = if is_wanted && self.0.required { Some(self.place()?) } else { None };
        let layout = self.0.layouts.borrow().clone();
        Ok(Some(Box::new(Record {
            audit: self.clone(),
            operation: act.operation(),
            door,
            asker,
            kind,
            user: if is_wanted { name_of(asker.who, layout.as_deref()) } else { None },
            subject: Subject::of(act),
            change: (kind == Kind::Administration).then(|| line::change(act, layout.as_deref())),
            is_wanted,
            is_ended: false,
            place,
        })))
    }

    /// Somebody has shown credentials that were refused. The name is the one that they gave, if it can be one.
    pub(crate) fn refused_credentials(
        &self,
        door: Option<Door>,
        from: IpAddr,
        name: Option<&str>,
        why: &Failure,
    ) {
        let asker = Asker { who: Principal::NOBODY, from: Some(from) };
        let line = Line { user: name, ..self.line("authenticate", asker, door) };
        send(self.free_place(true), &line.failed(why), None);
    }

    fn line(&self, operation: &'static str, asker: Asker, door: Option<Door>) -> Line<'_> {
        Line {
            time: line::now(),
            node: &self.0.node,
            user: (asker.who == Principal::NODE).then_some(NODE),
            from: asker.from,
            door: door.map(door_name),
            operation,
            keys: None,
            prefix: None,
            allowed: true,
            outcome: "ok",
            code: None,
            change: None,
        }
    }

    /// A place in the queue for a line that must be written.
    fn place(&self) -> Result<OwnedPermit<Entry>, Failure> {
        if let Some(why) = self.0.state.failing() {
            return Err(self.refusal(&why));
        }
        self.0.lines.clone().try_reserve_owned().map_err(|_| self.refusal(TOO_MANY))
    }

    /// A place for one that is dropped if there is none, which is counted. Some of them are kept for what nobody can cause who has no rights.
    fn free_place(&self, is_refusal: bool) -> Option<OwnedPermit<Entry>> {
        let has_room = !is_refusal || self.0.lines.capacity() > AUDIT_LINES_MAX / 4;
        let place = if has_room { self.0.lines.clone().try_reserve_owned().ok() } else { None };
        if place.is_none() {
            self.0.state.drop_one(TOO_MANY);
        }
        place
    }

    fn refusal(&self, why: &str) -> Failure {
        Failure::rejected(
            Code::ResourceExhausted,
            format!(
                "the audit log {} takes no lines ({why}), and this node was started with --audit-required: make room there; nothing was done",
                self.0.state.path()
            ),
        )
    }
}

/// Without a place, it has been counted as dropped.
fn send(place: Option<OwnedPermit<Entry>>, line: &Line<'_>, written: Option<oneshot::Sender<bool>>) {
    if let Some(place) = place {
        place.send(Entry { line: line.to_bytes(), written });
    }
}

/// What a user is called; none of nobody.
fn name_of(who: Principal, layout: Option<&Layout>) -> Option<String> {
    match who {
        Principal::NOBODY => None,
        Principal::NODE => Some(NODE.to_owned()),
        who => {
            let user = layout.and_then(|layout| layout.users.get(who));
            // One that was removed.
            Some(user.map_or_else(|| format!("(user {})", who.0), |user| user.name.clone()))
        }
    }
}

/// What will be written of something that is under way.
#[derive(Debug)]
pub(crate) struct Record {
    audit: Audit,
    operation: &'static str,
    door: Door,
    asker: Asker,
    kind: Kind,
    user: Option<String>,
    subject: Subject,
    change: Option<String>,
    /// Whatever comes of it; else only if it is refused.
    is_wanted: bool,
    is_ended: bool,
    /// Taken beforehand, where its line must be written.
    place: Option<OwnedPermit<Entry>>,
}

impl Record {
    /// Has a line written before an administration act is carried out, where one is required.
    pub(crate) async fn begun(&self) -> Result<(), Failure> {
        if !self.audit.0.required || self.kind != Kind::Administration {
            return Ok(());
        }
        let place = self.audit.place()?;
        let (tell, told) = oneshot::channel();
        let line = Line { outcome: "begun", ..self.line(self.user.as_deref()) };
        send(Some(place), &line, Some(tell));
        if is_written(told).await {
            return Ok(());
        }
        let why = self.audit.0.state.failing();
        Err(self.audit.refusal(why.as_deref().unwrap_or("it does not answer")))
    }

    /// It has come to this.
    pub(crate) fn ended(mut self, failure: Option<&Failure>) {
        self.end(failure, None);
    }

    /// The same; of an administration act, the line is in the file before this returns. A failure if it must be, and is not.
    pub(crate) async fn ended_and_written(
        mut self: Box<Self>,
        failure: Option<&Failure>,
    ) -> Result<(), Failure> {
        if self.kind != Kind::Administration {
            self.end(failure, None);
            return Ok(());
        }
        let (tell, told) = oneshot::channel();
        self.end(failure, Some(tell));
        let is_written = is_written(told).await;
        if is_written || failure.is_some() || !self.audit.0.required {
            return Ok(());
        }
        Err(Failure::unknown(
            Code::ResourceExhausted,
            format!(
                "it was carried out, but the audit log {} takes no line of it: make room there",
                self.audit.0.state.path()
            ),
        ))
    }

    fn end(&mut self, failure: Option<&Failure>, written: Option<oneshot::Sender<bool>>) {
        self.is_ended = true;
        let is_refused = failure.is_some_and(line::is_refusal);
        if !self.is_wanted && !is_refused {
            return;
        }
        let place = self.place.take().or_else(|| self.audit.free_place(!self.is_wanted));
        let late = if self.is_wanted {
            None
        } else {
            name_of(self.asker.who, self.audit.0.layouts.borrow().as_deref())
        };
        let line = self.line(self.user.as_deref().or(late.as_deref()));
        let line = match failure {
            Some(failure) => line.failed(failure),
            None => line,
        };
        send(place, &line, written);
    }

    fn line<'a>(&'a self, user: Option<&'a str>) -> Line<'a> {
        Line {
            user,
            keys: self.subject.keys,
            prefix: self.subject.shown(),
            change: self.change.as_deref(),
            ..self.audit.line(self.operation, self.asker, Some(self.door))
        }
    }
}

async fn is_written(told: oneshot::Receiver<bool>) -> bool {
    matches!(timeout(WAIT, told).await, Ok(Ok(true)))
}

/// Whoever asked has gone before the answer came.
impl Drop for Record {
    fn drop(&mut self) {
        if self.is_ended || !self.is_wanted {
            return;
        }
        let place = self.place.take().or_else(|| self.audit.free_place(false));
        let line = Line { outcome: "unknown", ..self.line(self.user.as_deref()) };
        send(place, &line, None);
    }
}

/// As metrics name it.
fn code_of(failure: &Failure) -> &'static str {
    code_name(failure.code)
}
