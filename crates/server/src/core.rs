//! The core: the one that owns the [`Node`].
//!
//! It sleeps until something comes or a tick is due, hands everything that waits to the node, and then carries
//! out the effects of that turn: short things itself (answers, queues, outboxes), long things by other threads.
//! While a turn is under way, what comes waits for the next: under load, turns grow instead of multiplying.
//!
//! Where it runs. With one thread for sockets it is a task like theirs: whoever has something for it, and whom it has
//! something for, are on the same thread, and nobody has to be woken. With more of them it has a thread of its own, since
//! most of those are on other threads anyway. Three nodes and their clients on two processors, a linearizable get at a
//! time, switches between threads over all nodes: 8 with one and the core among its tasks, 24 with one and a thread for
//! the core, 35 with two on one runtime and a thread (0.17, 0.26 and 0.27 ms).
//!
//! Invariants: events of peers and threads come before clients' requests, and both before the tick, so a node
//! that was held up does not take its own lateness for its peers' silence; ticks that were missed are dropped.
//! Effects are carried out in order. A turn waits for no disk and no socket.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use ringfort_node::{Effect, Event, Incoming, Node, ReadJob};
use ringfort_ring::Layout;
use ringfort_storage::{DataDir, LogOptions, Tables};
use ringfort_types::limits::TICK_MS;
use ringfort_types::{Configuration, Reply, ShardId, count};
use tokio::runtime;
use tokio::sync::oneshot;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::{Instant, sleep};

use crate::StartError;
use crate::apply::Task;
use crate::clock::Clock;
use crate::delivery::{self, Delivery};
use crate::disk_watch::DiskLook;
use crate::error::die;
use crate::fetch::Fetch;
use crate::figures::CoreFigures;
use crate::flush::Flusher;
use crate::gate::stopping;
use crate::links::Links;
use crate::log::Batch;
use crate::open::Opening;
use crate::outbox::Item;
use crate::queue::{Queue, Turn};
use crate::readers::Readers;
use crate::room::Room;
use crate::shared::{Report, Shared};
use crate::snapshots::Snapshots;
use crate::threads::{Guard, spawn};

const TICK: Duration = Duration::from_millis(TICK_MS);
/// Leaders that have changed are told of together, once in this time.
const LEADERS_TOLD: Duration = Duration::from_secs(1);
/// Until a layout that could not be kept is tried again.
const SAVE_AGAIN: Duration = Duration::from_secs(2);

/// What the core thread works with.
pub(crate) struct Core {
    pub(crate) node: Node,
    pub(crate) shared: Arc<Shared>,
    pub(crate) links: Arc<Links>,
    pub(crate) clock: Clock,
    pub(crate) data: Arc<DataDir>,
    pub(crate) tables: Arc<dyn Tables>,
    pub(crate) memtable_bytes: u64,
    pub(crate) held_reads_bytes: u64,
    pub(crate) log_options: LogOptions,
    pub(crate) snapshot_bytes_per_s: u64,
    /// How many threads connections are on.
    pub(crate) socket_threads: usize,
    pub(crate) helpers: Helpers,
}

/// The threads that do what takes long, and their queues.
#[derive(Default)]
pub(crate) struct Helpers {
    batches: Arc<Queue<Batch>>,
    tasks: Arc<Queue<Task>>,
    flusher: Arc<Flusher>,
    snapshots: Arc<Snapshots>,
    fetches: Arc<Queue<Fetch>>,
    /// Opens what is on disk, and gives the threads that it has started for it.
    opening: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

impl Helpers {
    /// No more work: the threads do what they have, and end.
    fn close(&self) {
        self.batches.close();
        self.tasks.close();
        self.flusher.close();
        self.snapshots.close();
        self.fetches.close();
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        self.close();
    }
}

impl Core {
    /// Starts it where it runs best. What is returned is dropped when all has ended and the directory is unlocked.
    pub(crate) fn start(self) -> Result<oneshot::Receiver<()>, StartError> {
        let (running, ended) = oneshot::channel();
        if self.socket_threads > 1 {
            let runtime = runtime::Builder::new_current_thread().enable_time().build();
            let runtime =
                runtime.map_err(|source| StartError::System { action: "make a runtime", source })?;
            spawn("core", move || {
                runtime.block_on(self.run(async || thread::yield_now()));
                drop(running);
            })?;
        } else {
            self.shared.runtime.clone().spawn(async move {
                self.run(yield_now).await;
                drop(running);
            });
        }
        Ok(ended)
    }

    /// Runs until the inbox is closed; then sees to it that the helpers end, the log sealed.
    ///
    /// Before each turn it lets others run: they may have more for this turn, and the more it holds, the less each
    /// request costs.
    async fn run(mut self, let_others_run: impl AsyncFn()) {
        let _guard = Guard;
        let mut turn = Turn::default();
        let mut tick = pin!(sleep(TICK));
        let mut disk = DiskLook::default();
        let mut next_told = Instant::now() + LEADERS_TOLD;
        self.carry_out();
        loop {
            let something = poll_fn(|cx| match self.shared.inbox.poll_ready(cx) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending => tick.as_mut().poll(cx).map(|()| false),
            });
            if something.await {
                let_others_run().await;
            }
            if !self.shared.inbox.take(&mut turn) {
                break;
            }
            for event in turn.events.drain(..) {
                if let Event::PeerUp(node) = event
                    && let Some(outbox) = self.shared.answers.outbox(node)
                {
                    outbox.open();
                }
                self.node.handle(self.clock.now(), event);
            }
            if !turn.requests.is_empty() {
                self.shared.metrics.core_wait.record(turn.waited);
                let requests = std::mem::take(&mut turn.requests);
                self.node.handle(self.clock.now(), Event::Requests(requests));
            }
            let now = Instant::now();
            if now >= tick.deadline() {
                tick.as_mut().reset(now + TICK);
                disk.look(&self.shared);
                self.node.handle(self.clock.now(), Event::Tick);
                if now >= next_told {
                    next_told = now + LEADERS_TOLD;
                    tell_leader_changes(&self.node.take_leader_changes());
                }
            }
            self.carry_out();
        }
        self.refuse(turn);
        if let Err(error) = spawn_blocking(move || self.end()).await {
            // A runtime that is being shut down takes no more work: the process ends without waiting for helpers.
            assert!(error.is_cancelled(), "a helper that panics ends the process: {error}");
        }
    }

    /// What came too late was never looked at, and is told so.
    fn refuse(&self, mut turn: Turn) {
        while !turn.requests.is_empty() {
            let refused = |incoming: Incoming| (incoming.token, Delivery::reply(Reply::Failed(stopping())));
            self.shared.answers.deliver(turn.requests.drain(..).map(refused));
            turn.events.clear();
            self.shared.inbox.take(&mut turn);
        }
    }

    fn carry_out(&mut self) {
        let effects = self.node.take_effects(self.clock.now());
        self.shared.header.update(&self.node);
        self.shared.notice_layout(&self.node);
        self.shared.notice_moved(&self.node);
        self.shared.tables_awaited.store(self.node.awaits_tables(), Ordering::SeqCst);
        self.shared.figures.answer(|| self.figures());
        for effect in effects {
            match effect {
                Effect::Persist { number, records } => {
                    self.helpers.batches.push(Batch { number, records });
                }
                Effect::Send { to, messages } => {
                    if let Some(outbox) = self.shared.answers.outbox(to) {
                        outbox.push(messages.into_iter().map(Item::Message));
                    }
                }
                Effect::Apply(jobs) => self.helpers.tasks.push(Task::Apply(jobs)),
                Effect::Install { shard, base } => self.helpers.tasks.push(Task::Install { shard, base }),
                Effect::Begin { shard, peer, generation, replaces, born } => {
                    self.helpers.tasks.push(Task::Begin { shard, peer, generation, replaces, born });
                }
                Effect::End { shard, generation } => self.helpers.tasks.push(Task::End { shard, generation }),
                Effect::TakeSnapshot { shard, transfer } => {
                    self.helpers.tasks.push(Task::Snapshot { shard, transfer });
                }
                Effect::ReadChunk { transfer } => self.helpers.snapshots.read(transfer),
                Effect::DropSnapshot { transfer } => self.helpers.snapshots.drop_held(transfer),
                Effect::StoreChunk { shard, generation, chunk } => {
                    self.helpers.snapshots.store(shard, generation, chunk);
                }
                Effect::DropTable { shard, generation } => {
                    self.helpers.snapshots.drop_table(shard, generation);
                }
                Effect::Read(jobs) => self.read(jobs),
                Effect::Reply(answered) => self.shared.answers.deliver(answered.into_iter().map(|a| {
                    (a.token, Delivery::Reply { reply: a.reply, leader: a.leader, room: Room::default() })
                })),
                Effect::Fetch { shard, from, to, bytes_max } => {
                    self.helpers.fetches.push(Fetch { shard, from, to, bytes_max });
                }
                Effect::Refuse { link, with } => self.links.refuse(&self.shared, link, with),
                Effect::SaveBirth(bytes) => {
                    if let Err(error) = self.data.save_birth(&bytes, ringfort_node::is_member(&bytes)) {
                        die("the birth record can't be written", &error);
                    }
                    self.shared.inbox.push(Event::BirthSaved);
                }
                Effect::Open { born, shards } => self.open(born, shards),
                Effect::SaveLayout { layout, told } => self.save_layout(layout, told),
                Effect::SaveMarks(bytes) => self.save_marks(bytes),
                Effect::Retire(shard) => self.helpers.flusher.retire(shard),
                Effect::Notice(line) => self.shared.notice(line),
                Effect::Serving => {
                    tracing::info!("all shards here are open: this node serves");
                    self.shared.serving.send_replace(true);
                    self.shared.report(Report::Serving);
                }
                Effect::Discard => self.data.discard(),
                Effect::Refused(reason) => self.shared.report(Report::Failed(StartError::Refused(reason))),
                Effect::Stopped => self.shared.report(Report::Stopped),
                Effect::Removed => self.shared.report(Report::Removed),
            }
        }
    }

    fn figures(&self) -> CoreFigures {
        let Helpers { batches, tasks, fetches, flusher, .. } = &self.helpers;
        CoreFigures {
            node: self.node.figures(),
            helpers: vec![("log", batches.len()), ("apply", tasks.len()), ("fetch", fetches.len())],
            sealed_bytes: flusher.bytes(),
            blocks: self.tables.blocks(),
        }
    }

    /// Gives reads to those who asked for them, and long ones for other nodes to a thread that may wait.
    fn read(&self, jobs: Vec<ReadJob>) {
        let me = self.shared.header.from;
        let long_abroad = |job: &ReadJob| job.token.origin != me && Readers::is_long(&job.request);
        let (long, short): (Vec<_>, Vec<_>) = jobs.into_iter().partition(long_abroad);
        self.shared.answers.deliver(short.into_iter().map(delivery::read));
        for job in long {
            let shared = self.shared.clone();
            self.shared.runtime.spawn_blocking(move || {
                if let (token, Delivery::Read(read)) = delivery::read(job) {
                    let reply = shared.query(&read);
                    shared.answers.deliver([(token, Delivery::reply(reply))]);
                }
            });
        }
    }

    /// Keeps it without making a turn wait for the disk. What can't be kept is tried again, unless there is a later one by then.
    fn save_layout(&self, layout: Arc<Layout>, told: Vec<String>) {
        let (data, shared) = (self.data.clone(), self.shared.clone());
        self.shared.runtime.spawn(async move {
            let save = || {
                let (data, layout, me) = (data.clone(), layout.clone(), shared.header.from);
                shared.runtime.spawn_blocking(move || {
                    let own = layout.member(me).map(|member| &*member.address);
                    data.save_layout(layout.epoch, &layout.encode(), own)
                })
            };
            let mut kept = save().await;
            if let Ok(Err(error)) = &kept {
                shared.notice(format!(
                    "{error}: it is tried again; a start before that begins with what the node knew before"
                ));
            }
            for line in told {
                shared.notice(line);
            }
            while matches!(kept, Ok(Err(_))) && shared.layout().is_none_or(|now| now.epoch <= layout.epoch) {
                sleep(SAVE_AGAIN).await;
                kept = save().await;
            }
        });
    }

    fn save_marks(&self, bytes: Bytes) {
        let (data, shared) = (self.data.clone(), self.shared.clone());
        self.shared.runtime.spawn_blocking(move || {
            let kept = data.save_marks(&bytes);
            if let Err(error) = &kept {
                shared.notice(format!("{error}: it is tried again"));
            }
            shared.inbox.push(Event::MarksSaved(kept.is_ok()));
        });
    }

    /// Opens what is on disk in a thread of its own: that can take seconds, and peers are to be heard meanwhile.
    fn open(&mut self, born: Arc<Layout>, shards: BTreeMap<ShardId, Configuration>) {
        let Helpers { batches, tasks, flusher, snapshots, fetches, .. } = &self.helpers;
        let opening = Opening {
            shared: self.shared.clone(),
            data: self.data.clone(),
            tables: self.tables.clone(),
            batches: batches.clone(),
            tasks: tasks.clone(),
            flusher: flusher.clone(),
            snapshots: snapshots.clone(),
            fetches: fetches.clone(),
            memtable_bytes: self.memtable_bytes,
            held_reads_bytes: self.held_reads_bytes,
            log_options: self.log_options,
            snapshot_bytes_per_s: self.snapshot_bytes_per_s,
        };
        match spawn("open", move || opening.run(&born, &shards)) {
            Ok(opening) => self.helpers.opening = Some(opening),
            Err(error) => self.shared.report(Report::Failed(error)),
        }
    }

    /// Ends the helpers. Whoever still waits is told that no answer will come.
    fn end(mut self) {
        let opening = self.helpers.opening.take();
        let threads = opening.and_then(|opening| opening.join().ok()).unwrap_or_default();
        self.helpers.close();
        for thread in threads {
            thread.join().expect("a helper that panics ends the process");
        }
        self.shared.answers.close();
    }
}

fn tell_leader_changes(changes: &[(String, usize)]) {
    if !changes.is_empty() {
        let shards = changes.iter().map(|(_, shards)| shards).sum::<usize>();
        let by: Vec<String> = changes.iter().map(|(node, shards)| format!("{shards} by {node}")).collect();
        let have = count(shards as u64, "shard has", "shards have");
        tracing::info!("{have} another leader: {}", by.join(", "));
    }
}
