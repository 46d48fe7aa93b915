//! What all of a node's threads and tasks hold in common.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use ringfort_node::{Event, Node};
use ringfort_retry::Sessions;
use ringfort_ring::Layout;
use ringfort_tls::{NodeTls, Way};
use ringfort_types::limits::INVITATIONS_MAX;
use ringfort_types::{Code, DiskState, Epoch, Incarnation, LogMark, NodeId, Reply, ShardId};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::StartError;
use crate::answers::Answers;
use crate::audit::Audit;
use crate::budget::Budget;
use crate::delivery::ReadAt;
use crate::disk_watch::DiskWatch;
use crate::figures::Asked;
use crate::invitation::Waiting;
use crate::log_levels::LogLevels;
use crate::metrics::{Begun, Metrics};
use crate::queue::Inbox;
use crate::readers::Readers;
use crate::shares::Shares;
use crate::slow::SlowRequests;

/// Something that whoever runs the node should know.
#[derive(Debug)]
pub(crate) enum Report {
    /// Requests are served from now on.
    Serving,
    /// The node can't go on.
    Failed(StartError),
    /// The node has handed over what it could, and may end.
    Stopped,
    /// The node is no member of its cluster any more.
    Removed,
}

/// What every frame to a peer says about its sender.
#[derive(Debug)]
pub(crate) struct Header {
    pub(crate) from: NodeId,
    pub(crate) incarnation: Incarnation,
    cluster: AtomicU64,
    epoch: AtomicU64,
    log: Mutex<LogMark>,
}

impl Header {
    pub(crate) fn new(node: &Node, incarnation: Incarnation) -> Header {
        let header = Header {
            from: node.id(),
            incarnation,
            cluster: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            log: Mutex::default(),
        };
        header.update(node);
        header
    }

    /// Of a node that is none yet, and speaks to no peer.
    pub(crate) fn of_nobody(incarnation: Incarnation) -> Header {
        Header {
            from: NodeId(0),
            incarnation,
            cluster: AtomicU64::new(0),
            epoch: AtomicU64::new(0),
            log: Mutex::default(),
        }
    }

    /// As of this turn.
    pub(crate) fn update(&self, node: &Node) {
        self.cluster.store(node.cluster(), Ordering::Release);
        self.epoch.store(node.epoch().0, Ordering::Release);
        *self.log.lock().unwrap_or_else(PoisonError::into_inner) = node.log_mark();
    }

    pub(crate) fn log(&self) -> LogMark {
        *self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn cluster(&self) -> u64 {
        self.cluster.load(Ordering::Acquire)
    }

    pub(crate) fn epoch(&self) -> Epoch {
        Epoch(self.epoch.load(Ordering::Acquire))
    }
}

/// What all of a node's threads and tasks hold in common.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) inbox: Inbox,
    pub(crate) answers: Answers,
    pub(crate) readers: Readers,
    pub(crate) header: Header,
    /// Set of a node that waits to be invited into a cluster: its inbox is closed, and nothing else of it is alive.
    pub(crate) waiting: Option<Waiting>,
    /// A place for each node that this one is inviting.
    pub(crate) inviting: Semaphore,
    /// Where that is done which blocks, whoever asks for it.
    pub(crate) runtime: Handle,
    /// The memory of all lists.
    pub(crate) lists: Arc<Budget>,
    /// What each user has under way.
    pub(crate) shares: Arc<Shares>,
    /// Bytes of requests in all pipelines.
    pub(crate) pipelined: AtomicUsize,
    /// Sessions of this node, for writes of clients that have none.
    pub(crate) sessions: Sessions,
    /// How many shards hold keys; they count from 1.
    pub(crate) shards: u32,
    /// As of the core's last turn; `None` before birth.
    layout: watch::Sender<Option<Arc<Layout>>>,
    /// Where members say that they are, other than where the layout has them; as of the core's last turn.
    moved: watch::Sender<BTreeMap<NodeId, String>>,
    /// What the cluster was born with, once it is.
    born: OnceLock<Arc<Layout>>,
    /// A handful over a node's life, so that it needs no bound.
    reports: mpsc::UnboundedSender<Report>,
    /// True once requests are served.
    pub(crate) serving: watch::Sender<bool>,
    /// True once the node is asked to stop.
    pub(crate) leaving: watch::Sender<bool>,
    /// True once connections should end.
    pub(crate) stopping: watch::Sender<bool>,
    /// Whether a read waits for a table, as of the core's last turn.
    pub(crate) tables_awaited: AtomicBool,
    next_link: AtomicU64,
    pub(crate) disk_watch: DiskWatch,
    /// What is counted as the node works.
    pub(crate) metrics: Metrics,
    /// Who wants to know the core's numbers.
    pub(crate) figures: Asked,
    slow: SlowRequests,
    pub(crate) log_levels: Option<LogLevels>,
    pub(crate) audit: Option<Audit>,
    /// Whether rights are enforced, as of the core's last turn.
    enforced: AtomicBool,
    /// What TLS is spoken with.
    tls: Option<NodeTls>,
    disk: Mutex<Disk>,
    /// Shards whose damage the node has been told of, with whether they are readable.
    damaged: Mutex<BTreeSet<(ShardId, bool)>>,
}

/// What keeps the node from writing.
#[derive(Debug, Default)]
struct Disk {
    /// Which parts find no room: a bit for each [`Part`].
    full: u8,
    hung: bool,
}

impl Disk {
    fn state(&self) -> DiskState {
        match (self.hung, self.full) {
            (true, _) => DiskState::Hung,
            (false, 0) => DiskState::Working,
            (false, _) => DiskState::Full,
        }
    }
}

/// Who writes to the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Log = 1,
    Tables = 2,
}

impl Shared {
    pub(crate) fn new(
        answers: Answers,
        header: Header,
        runtime: Handle,
        shards: u32,
        reports: mpsc::UnboundedSender<Report>,
    ) -> Shared {
        Shared {
            inbox: Inbox::default(),
            answers,
            readers: Readers::new(shards),
            header,
            waiting: None,
            inviting: Semaphore::new(INVITATIONS_MAX),
            runtime,
            lists: Arc::default(),
            shares: Arc::default(),
            pipelined: AtomicUsize::new(0),
            sessions: Sessions::default(),
            shards,
            layout: watch::Sender::new(None),
            moved: watch::Sender::default(),
            born: OnceLock::new(),
            reports,
            serving: watch::Sender::new(false),
            leaving: watch::Sender::new(false),
            stopping: watch::Sender::new(false),
            tables_awaited: AtomicBool::new(false),
            next_link: AtomicU64::new(1),
            disk_watch: DiskWatch::new(),
            metrics: Metrics::default(),
            figures: Asked::default(),
            slow: SlowRequests::new(None),
            log_levels: None,
            audit: None,
            enforced: AtomicBool::new(false),
            tls: None,
            disk: Mutex::default(),
            damaged: Mutex::default(),
        }
    }

    /// The same, with requests in its log that take longer than this, and with what changes which lines are logged.
    pub(crate) fn that_logs(self, slow: Option<Duration>, levels: Option<LogLevels>) -> Shared {
        Shared { slow: SlowRequests::new(slow), log_levels: levels, ..self }
    }

    /// The same, with TLS, if this is something.
    pub(crate) fn that_guards(self, tls: Option<NodeTls>) -> Shared {
        Shared { tls, ..self }
    }

    /// The same, with this audit log, if it is one.
    pub(crate) fn that_audits(self, audit: Option<Audit>) -> Shared {
        Shared { audit, ..self }
    }

    /// Whether what somebody may not do is refused.
    pub(crate) fn is_enforced(&self) -> bool {
        self.enforced.load(Ordering::Relaxed)
    }

    /// What TLS is spoken with, if it is.
    pub(crate) fn tls(&self) -> Option<&NodeTls> {
        self.tls.as_ref()
    }

    /// The way to the node of this name, or to whichever.
    pub(crate) fn way(&self, to: Option<String>) -> Way {
        self.tls.clone().map_or(Way::Plain, |tls| Way::Peer(tls, to))
    }

    /// Of a node that waits, on this runtime.
    pub(crate) fn waiting(waiting: Waiting, answers: Answers, header: Header, shards: u32) -> Shared {
        // Nothing is reported of it.
        let (reporting, _) = mpsc::unbounded_channel();
        let shared = Shared::new(answers, header, Handle::current(), shards, reporting);
        shared.inbox.close();
        Shared { waiting: Some(waiting), ..shared }
    }

    /// The cluster's layout, once it is born.
    pub(crate) fn layout(&self) -> Option<Arc<Layout>> {
        self.layout.borrow().clone()
    }

    /// The cluster's layout as it changes.
    pub(crate) fn watch_layout(&self) -> watch::Receiver<Option<Arc<Layout>>> {
        self.layout.subscribe()
    }

    /// Where members say that they are, other than where the layout has them, as they come and go.
    pub(crate) fn watch_moved(&self) -> watch::Receiver<BTreeMap<NodeId, String>> {
        self.moved.subscribe()
    }

    /// What the cluster was born with, once it is.
    pub(crate) fn born_layout(&self) -> Option<Arc<Layout>> {
        self.born.get().cloned()
    }

    /// Takes note of another layout.
    pub(crate) fn notice_layout(&self, node: &Node) {
        let epoch = self.layout.borrow().as_ref().map_or(Epoch(0), |layout| layout.epoch);
        if epoch != node.epoch() {
            if let Some(born) = node.born_layout() {
                self.born.get_or_init(|| born);
            }
            let enforced = node.layout().is_some_and(|layout| layout.users.enforced);
            self.enforced.store(enforced, Ordering::Relaxed);
            self.layout.send_replace(node.layout().cloned());
        }
    }

    /// Takes note of members that have moved.
    pub(crate) fn notice_moved(&self, node: &Node) {
        self.moved.send_if_modified(|moved| {
            let known = moved.iter().map(|(node, address)| (*node, &**address));
            let is_news = !node.moved().eq(known);
            if is_news {
                *moved = node.moved().map(|(node, address)| (node, address.to_owned())).collect();
            }
            is_news
        });
    }

    /// A number for a connection with a peer, in or out. Never 0, never used again.
    pub(crate) fn link_number(&self) -> u64 {
        self.next_link.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells whoever runs the node.
    pub(crate) fn report(&self, report: Report) {
        let _nobody_listens = self.reports.send(report);
    }

    /// A line for the operator.
    #[expect(clippy::unused_self, reason = "it is said of this node")]
    pub(crate) fn notice(&self, line: impl std::fmt::Display) {
        tracing::warn!("{line}");
    }

    /// What a node is called, if its name is known.
    pub(crate) fn name_of(&self, node: NodeId) -> Option<String> {
        self.layout().and_then(|layout| layout.member(node).map(|member| member.name.clone()))
    }

    /// This part finds no room on the disk, or does again. The node is told what that comes to.
    pub(crate) fn disk_full(&self, part: Part, is_full: bool) {
        self.change_disk(|disk| {
            disk.full = if is_full { disk.full | part as u8 } else { disk.full & !(part as u8) };
        });
    }

    /// The disk does not finish what it is given, or does again.
    pub(crate) fn disk_hung(&self, hung: bool) {
        self.change_disk(|disk| disk.hung = hung);
    }

    fn change_disk(&self, change: impl FnOnce(&mut Disk)) {
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        let before = disk.state();
        change(&mut disk);
        if disk.state() != before {
            // Under the lock, so that the node hears of changes in their order.
            self.inbox.push(Event::Disk(disk.state()));
        }
    }

    /// A request has been answered, by the node to ask next time if it was not this one.
    pub(crate) fn answered(&self, begun: Begun, reply: &Reply, leader: Option<NodeId>) {
        let took = self.metrics.requests.answered(begun, reply);
        if self.slow.is_slow(begun, took) {
            let asked = leader.and_then(|node| self.name_of(node));
            self.slow.tell(begun, took, &self.metrics, asked.as_deref());
        }
    }

    /// Reads a table, if it can be read.
    pub(crate) fn query(&self, read: &ReadAt) -> Reply {
        let reply = self.readers.query(read);
        if let Reply::Failed(failure) = &reply
            && failure.code == Code::DataLoss
        {
            self.damaged(read.shard, failure.message.clone(), true);
        }
        reply
    }

    /// A shard's table is damaged. The node is told once.
    pub(crate) fn damaged(&self, shard: ShardId, reason: String, is_readable: bool) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged.insert((shard, is_readable)) {
            self.inbox.push(Event::Damaged { shard, reason, is_readable });
        }
    }

    /// This version can't read an entry of the shard's log. The node is told once.
    pub(crate) fn unread(&self, shard: ShardId, reason: String) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        if damaged.insert((shard, false)) {
            self.inbox.push(Event::Unread { shard, reason });
        }
    }

    /// The shard's table here is another one from now on, or there is none.
    pub(crate) fn forget_damage(&self, shard: ShardId) {
        let mut damaged = self.damaged.lock().unwrap_or_else(PoisonError::into_inner);
        damaged.retain(|(of, _)| *of != shard);
    }

    /// The meta group's table here has this layout; other shards' have none.
    pub(crate) fn has_layout(&self, layout: Option<&Arc<Layout>>) {
        if let Some(layout) = layout {
            self.inbox.push(Event::Layout(layout.clone()));
        }
    }

    /// Whether the node is on its way down.
    pub(crate) fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }
}
