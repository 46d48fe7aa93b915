//! A cluster in one thread: an instant network, a log that syncs when told to, tables that are maps.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use ringfort_node::{
    ApplyJob, Config, Effect, Event, FoundReplica, Identity, Incoming, Node, Opened, ReadJob,
};
use ringfort_ring::Layout;
use ringfort_types::{
    Answer, Call, Change, Command, Configuration, ConfigurationChange, Consistency, DiskState, Durability,
    Entry, EntryKind, Epoch, Failure, Incarnation, Index, LayoutChange, Level, Levels, LogMark, Newcomer,
    NodeId, Now, Page, Part, PeerFrame, PeerId, PeerMessage, Principal, Receipt, Record, Reply, Request,
    Revision, Row, ShardId, Stamp, Token,
};

use crate::trace::Trace;

pub(crate) const SHARDS: u32 = 8;
/// What nodes know that have nothing to say about levels: the cluster is born with the highest.
pub(crate) const ONE_LEVEL: Levels = Levels { min: Level::MAX, max: Level::MAX };
/// An address where nobody finds who is there.
pub(crate) const NOWHERE: &str = "nowhere.invalid:50051";

/// What survives a crash of a node.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) boot: u64,
    pub(crate) incarnation: u64,
    pub(crate) birth: Option<Bytes>,
    pub(crate) layout: Option<Bytes>,
    pub(crate) synced: Vec<Record>,
    /// The last batch of the log.
    pub(crate) batch: u64,
    pub(crate) marks: Option<Bytes>,
}

/// One shard's rows on one node.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) rows: BTreeMap<Bytes, Row>,
    pub(crate) applied: Index,
    pub(crate) revision: u64,
    /// The meta group's.
    pub(crate) layout: Option<Arc<Layout>>,
}

pub(crate) struct World {
    pub(crate) now: Now,
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) disks: Vec<Disk>,
    pub(crate) tables: Vec<BTreeMap<ShardId, Table>>,
    pub(crate) configs: Vec<Config>,
    /// Pairs that can't hear each other.
    pub(crate) cut: BTreeSet<(u64, u64)>,
    /// Whom a node was told, by its flags, to find where it is now.
    pub(crate) told: BTreeSet<(usize, usize)>,
    /// Nodes that look for another one where it is not.
    lost: BTreeSet<(usize, usize)>,
    pub(crate) queue: Vec<(usize, Event)>,
    pub(crate) answers: BTreeMap<u64, Reply>,
    pub(crate) hints: BTreeMap<u64, NodeId>,
    pub(crate) next_token: u64,
    /// Nodes whose disk does not report a sync.
    pub(crate) stuck: BTreeSet<usize>,
    /// What shards say of stamped writes, instead of doing them.
    pub(crate) verdict: Option<Failure>,
    /// Shards that a node does not come to while it opens what it has.
    pub(crate) withheld: BTreeSet<(usize, ShardId)>,
    /// Nodes that are connected before they have opened their logs.
    pub(crate) unopened: BTreeSet<usize>,
    /// The configurations that shards were born with.
    born: BTreeMap<ShardId, Configuration>,
    /// The layout that the cluster was born with.
    born_layout: Option<Arc<Layout>>,
    /// What they write and have not synced.
    pub(crate) held: BTreeMap<usize, (u64, Vec<Record>)>,
    pub(crate) persists: Vec<Vec<Record>>,
    pub(crate) notices: Vec<String>,
    /// Replicas that take no part any more, each with its node.
    pub(crate) retired: Vec<(usize, ShardId)>,
    /// Replicas that have come to their end, each with its node.
    pub(crate) ended: Vec<(usize, ShardId)>,
    pub(crate) refused: Vec<Option<String>>,
    pub(crate) stopped: BTreeSet<usize>,
    /// Those that have said so in their present life.
    pub(crate) serving: BTreeSet<usize>,
    /// What happens, line by line, for those who want to know.
    pub(crate) trace: Option<Trace>,
    /// Started so far.
    processes: u64,
}

impl World {
    pub(crate) fn new(nodes: usize) -> World {
        World::with_shards(nodes, SHARDS)
    }

    pub(crate) fn with_shards(nodes: usize, shards: u32) -> World {
        let addresses: Vec<String> = (1..=nodes).map(|n| format!("10.0.0.{n}:50051")).collect();
        let configs = (0..nodes)
            .map(|n| {
                let mut names = vec![String::new(); nodes];
                names[n] = format!("node{}", n + 1);
                Config {
                    address: addresses[n].clone(),
                    addresses: addresses.clone(),
                    names,
                    shards,
                    replicas: 3,
                    replace_after_ms: 60_000,
                    levels: ONE_LEVEL,
                }
            })
            .collect();
        World {
            now: Now { monotonic_us: 1_000_000, wall_ms: 1_700_000_000_000 },
            nodes: (0..nodes).map(|_| None).collect(),
            disks: (0..nodes).map(|n| Disk { incarnation: 100 + n as u64, ..Disk::default() }).collect(),
            tables: (0..nodes).map(|_| BTreeMap::new()).collect(),
            configs,
            cut: BTreeSet::new(),
            told: BTreeSet::new(),
            lost: BTreeSet::new(),
            queue: Vec::new(),
            answers: BTreeMap::new(),
            hints: BTreeMap::new(),
            next_token: 0,
            stuck: BTreeSet::new(),
            verdict: None,
            withheld: BTreeSet::new(),
            unopened: BTreeSet::new(),
            born: BTreeMap::new(),
            born_layout: None,
            held: BTreeMap::new(),
            persists: Vec::new(),
            notices: Vec::new(),
            retired: Vec::new(),
            ended: Vec::new(),
            refused: vec![None; nodes],
            stopped: BTreeSet::new(),
            serving: BTreeSet::new(),
            trace: None,
            processes: 0,
        }
    }

    pub(crate) fn born(nodes: usize) -> World {
        World::born_with_shards(nodes, SHARDS)
    }

    pub(crate) fn born_with_shards(nodes: usize, shards: u32) -> World {
        let mut world = World::with_shards(nodes, shards);
        for node in 0..nodes {
            world.start(node);
        }
        world.run(3_000);
        world
    }

    pub(crate) fn start(&mut self, n: usize) {
        self.processes += 1;
        let process = 1_000 * self.processes + n as u64;
        let disk = &mut self.disks[n];
        disk.boot += 1;
        let identity = Identity {
            incarnation: Incarnation(disk.incarnation),
            boot: disk.boot,
            birth: disk.birth.clone(),
            layout: disk.layout.clone(),
            process,
            marks: disk.marks.clone(),
        };
        let node = Node::new(self.configs[n].clone(), &identity, self.now).expect("good flags");
        self.nodes[n] = Some(node);
        for other in 0..self.nodes.len() {
            if other != n && self.nodes[other].is_some() && !self.is_cut(n, other) {
                self.look_for(n, other);
                self.look_for(other, n);
            }
        }
        self.settle(n);
    }

    /// A node starts at another address, and is told where these are now.
    pub(crate) fn start_at(&mut self, n: usize, address: &str, told: &[usize]) {
        address.clone_into(&mut self.configs[n].address);
        if self.disks[n].birth.as_ref().is_some_and(ringfort_node::is_joined) {
            self.configs[n].addresses = vec![address.to_owned()];
        }
        self.told.extend(told.iter().map(|other| (n, *other)));
        self.start(n);
    }

    /// Whether what one node sends reaches another.
    fn hears(&self, from: usize, to: usize) -> bool {
        let runs = self.nodes.get(to).is_some_and(Option::is_some);
        runs && !self.is_cut(from, to) && !self.lost.contains(&(from, to))
    }

    /// One node connects with another, if that is where it looks for it.
    fn look_for(&mut self, from: usize, to: usize) {
        if self.finds(from, to) {
            self.lost.remove(&(from, to));
            self.queue.push((from, Event::PeerUp(NodeId(to as u64 + 1))));
        } else {
            self.lost.insert((from, to));
        }
    }

    fn finds(&self, from: usize, to: usize) -> bool {
        let Some(node) = self.nodes[from].as_ref() else { return false };
        let (to_id, address) = (NodeId(to as u64 + 1), &self.configs[to].address);
        let is_known = || node.layout().is_none() || self.told.contains(&(from, to));
        *address != NOWHERE && (is_known() || node.address_of(to_id) == *address)
    }

    fn look_again(&mut self) {
        for (from, to) in self.lost.clone() {
            if self.nodes[to].is_some() && !self.is_cut(from, to) && self.finds(from, to) {
                self.look_for(from, to);
            }
        }
    }

    pub(crate) fn mark(&self, n: usize) -> LogMark {
        self.nodes[n].as_ref().map_or(LogMark::NONE, Node::log_mark)
    }

    fn sync(&mut self, n: usize, number: u64, records: Vec<Record>) -> Event {
        let disk = &mut self.disks[n];
        disk.synced.extend(records);
        disk.batch += 1;
        Event::Persisted { number, batch: disk.batch }
    }

    /// A node with an empty disk becomes a member, by way of this one: which it is.
    pub(crate) fn join(&mut self, by: usize, name: &str, replaces: bool) -> usize {
        let n = self.nodes.len();
        let incarnation = 100 + n as u64;
        let address = format!("10.0.0.{}:50051", n + 1);
        let newcomer = Newcomer {
            name: name.to_owned(),
            address: address.clone(),
            incarnation: Incarnation(incarnation),
            weight: 1,
            zone: String::new(),
            replaces,
            max: self.configs[0].levels.max,
        };
        let reply = self.ask_and_wait(by, Request::ChangeLayout(LayoutChange::Join(newcomer)));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
        self.run(1_500);
        let node = self.nodes[by].as_ref().expect("it has answered");
        let (layout, born) = (node.layout().expect("born").clone(), node.born_layout().expect("born"));
        let member = layout.members.iter().find(|member| member.name == name).expect("it is a member now");
        assert_eq!(member.id, NodeId(n as u64 + 1), "numbers rise, and none is used twice");
        let birth = Some(ringfort_node::joined(member.id, &born));
        let kept = Some(layout.encode());
        self.disks.push(Disk { incarnation, birth, layout: kept, ..Disk::default() });
        self.configs.push(Config {
            address: address.clone(),
            addresses: vec![address],
            names: vec![name.to_owned()],
            ..self.configs[0].clone()
        });
        self.nodes.push(None);
        self.tables.push(BTreeMap::new());
        self.refused.push(None);
        self.start(n);
        n
    }

    /// The voters of a shard's group, as its leader knows them; `None` if it is on its way, or not all that is asked of it is known.
    pub(crate) fn voters(&mut self, shard: ShardId) -> Option<BTreeSet<NodeId>> {
        let leader = self.leader(shard)?;
        let group = self.nodes.get(leader.0 as usize - 1)?.as_ref()?.configuration(shard)?;
        let is_settled = !group.is_joint() && group.learners.is_empty();
        is_settled.then(|| group.voters.iter().map(|voter| voter.node).collect())
    }

    pub(crate) fn kill(&mut self, n: usize) {
        self.nodes[n] = None;
        self.serving.remove(&n);
        self.told.retain(|(from, _)| *from != n);
        self.lost.retain(|(from, to)| *from != n && *to != n);
        self.queue.retain(|(to, _)| *to != n);
        for other in 0..self.nodes.len() {
            if self.nodes[other].is_some() {
                self.queue.push((other, Event::PeerLost(NodeId(n as u64 + 1))));
            }
        }
        self.drain();
    }

    pub(crate) fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b) as u64, a.max(b) as u64))
    }

    pub(crate) fn cut_off(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.cut(n, other);
        }
        self.drain();
    }

    /// These two can't hear each other from now on.
    pub(crate) fn cut(&mut self, a: usize, b: usize) {
        self.cut.insert((a.min(b) as u64, a.max(b) as u64));
        self.queue.push((a, Event::PeerLost(NodeId(b as u64 + 1))));
        self.queue.push((b, Event::PeerLost(NodeId(a as u64 + 1))));
    }

    /// Nothing more can be written on this node's disk.
    pub(crate) fn fill_up(&mut self, n: usize) {
        self.stuck.insert(n);
        self.queue.push((n, Event::Disk(DiskState::Full)));
        self.drain();
    }

    /// There is room again: the batch that found none is written.
    pub(crate) fn make_room(&mut self, n: usize) {
        self.stuck.remove(&n);
        self.finish_sync(n);
        self.queue.push((n, Event::Disk(DiskState::Working)));
        self.drain();
    }

    /// The batch that this node's disk is busy with is synced, if there is one.
    pub(crate) fn finish_sync(&mut self, n: usize) {
        if let Some((number, records)) = self.held.remove(&n) {
            self.tell(format!("node{} has synced batch {number}", n + 1));
            let event = self.sync(n, number, records);
            self.queue.push((n, event));
            self.drain();
        }
    }

    pub(crate) fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.queue.push((a as usize, Event::PeerUp(NodeId(b + 1))));
            self.queue.push((b as usize, Event::PeerUp(NodeId(a + 1))));
        }
        self.drain();
    }

    pub(crate) fn run(&mut self, ms: u64) {
        for _ in 0..ms / 25 {
            self.now.monotonic_us += 25_000;
            self.now.wall_ms += 25;
            for n in 0..self.nodes.len() {
                self.queue.push((n, Event::Tick));
            }
            self.drain();
            self.look_again();
        }
    }

    pub(crate) fn drain(&mut self) {
        let mut turns = 0;
        while !self.queue.is_empty() {
            turns += 1;
            assert!(turns < 10_000, "the nodes never come to rest");
            for (n, event) in std::mem::take(&mut self.queue) {
                if let Some(node) = self.nodes[n].as_mut() {
                    node.handle(self.now, event);
                }
            }
            for n in 0..self.nodes.len() {
                self.settle(n);
            }
        }
    }

    pub(crate) fn settle(&mut self, n: usize) {
        let Some(node) = self.nodes[n].as_mut() else { return };
        let effects = node.take_effects(self.now);
        let (from, cluster, epoch) = (node.id(), node.cluster(), node.epoch());
        for effect in effects {
            self.carry_out(n, from, cluster, epoch, effect);
        }
    }

    fn frame(
        &self,
        n: usize,
        (from, cluster, epoch): (NodeId, u64, Epoch),
        to: NodeId,
        messages: Vec<PeerMessage>,
    ) -> PeerFrame {
        let incarnation = Incarnation(self.disks[n].incarnation);
        PeerFrame { from, to, incarnation, cluster, epoch, log: self.mark(n), messages }
    }

    pub(crate) fn carry_out(&mut self, n: usize, from: NodeId, cluster: u64, epoch: Epoch, effect: Effect) {
        self.tell_effect(n, &effect);
        match effect {
            Effect::SaveBirth(bytes) => {
                self.disks[n].birth = Some(bytes);
                self.queue.push((n, Event::BirthSaved));
            }
            Effect::Open { born, shards, .. } => {
                self.born_layout = Some(born);
                self.born.extend(shards);
                if !self.unopened.contains(&n) {
                    self.open_all(n);
                }
            }
            Effect::SaveMarks(bytes) => {
                self.disks[n].marks = Some(bytes);
                self.queue.push((n, Event::MarksSaved(true)));
            }
            Effect::SaveLayout { layout, told } => {
                self.disks[n].layout = Some(layout.encode());
                self.notices.extend(told);
            }
            Effect::Persist { number, records } => {
                if self.stuck.contains(&n) {
                    let earlier = self.held.insert(n, (number, records.clone()));
                    assert!(earlier.is_none(), "one batch is under way at a time");
                } else {
                    let event = self.sync(n, number, records.clone());
                    self.queue.push((n, event));
                }
                self.persists.push(records);
            }
            Effect::Send { to, messages } => {
                let other = to.0 as usize - 1;
                if self.hears(n, other) {
                    let frame = self.frame(n, (from, cluster, epoch), to, messages);
                    let frame = PeerFrame::decode(frame.encode()).expect("a round trip");
                    self.queue.push((other, Event::Peer { link: n as u64, frame }));
                }
            }
            Effect::Refuse { link, with } => {
                let frame = self.frame(n, (from, cluster, epoch), NodeId(link + 1), vec![with]);
                self.queue.push((link as usize, Event::Peer { link: n as u64, frame }));
            }
            Effect::Apply(jobs) => {
                let mut applied = Vec::new();
                for job in jobs {
                    applied.push((job.shard, job.entry.index));
                    self.apply(n, job);
                }
                self.queue.push((n, Event::Applied(applied)));
            }
            Effect::Read(jobs) => {
                for job in jobs {
                    let reply = self.read(n, &job);
                    self.tell_read(n, &job);
                    self.answer(n, job.token, reply);
                }
            }
            Effect::Reply(answers) => {
                for answered in answers {
                    if let Some(leader) = answered.leader {
                        self.hints.insert(answered.token.id, leader);
                    }
                    self.answer(n, answered.token, answered.reply);
                }
            }
            Effect::Fetch { shard, from, to, .. } => {
                let entries = entries_of(&self.disks[n].synced, shard);
                let entries = entries.range(from..to).map(|(_, entry)| entry.clone()).collect();
                self.queue.push((n, Event::Fetched { shard, entries }));
            }
            Effect::Begin { shard, peer, .. } => {
                let opened = self.open(n, shard);
                assert_eq!((opened.peer, opened.last), (peer, Index(0)));
                self.queue.push((n, Event::Opened([(shard, opened)].into())));
            }
            Effect::End { shard, .. } => {
                self.tables[n].remove(&shard);
                self.ended.push((n, shard));
            }
            Effect::TakeSnapshot { .. }
            | Effect::ReadChunk { .. }
            | Effect::DropSnapshot { .. }
            | Effect::StoreChunk { .. }
            | Effect::DropTable { .. }
            | Effect::Install { .. } => unreachable!("nothing is let go of in these worlds"),
            Effect::Retire(shard) => self.retired.push((n, shard)),
            Effect::Notice(line) => self.notices.push(line),
            Effect::Serving => {
                self.serving.insert(n);
            }
            Effect::Discard => self.notices.push("may be removed".to_owned()),
            Effect::Refused(reason) => self.end_of(n, reason),
            Effect::Removed => self.end_of(n, "removed".to_owned()),
            Effect::Stopped => {
                self.stopped.insert(n);
            }
        }
    }

    fn end_of(&mut self, n: usize, reason: String) {
        self.refused[n] = Some(reason);
        self.nodes[n] = None;
    }

    /// A node comes to a shard that was withheld.
    pub(crate) fn open_late(&mut self, n: usize, shard: ShardId) {
        assert!(self.withheld.remove(&(n, shard)), "it was withheld");
        let opened = BTreeMap::from([(shard, self.open(n, shard))]);
        self.queue.push((n, Event::Opened(opened)));
        self.drain();
    }

    /// Which replica of a shard a node's log says that it has.
    pub(crate) fn peer_of(&self, n: usize, shard: ShardId) -> PeerId {
        let born = self.born[&shard].peer_on(NodeId(n as u64 + 1));
        replica_of(&self.disks[n].synced, shard).0.or(born).expect("a replica")
    }

    /// A node's log is open now.
    pub(crate) fn open_log(&mut self, n: usize) {
        assert!(self.unopened.remove(&n), "it was not open");
        self.open_all(n);
        self.drain();
    }

    fn open_all(&mut self, n: usize) {
        self.tables[n].clear();
        let found = self.found(n);
        let now = found.iter().filter(|(_, found)| !found.is_gone).map(|(shard, _)| *shard);
        let now = now.filter(|shard| !self.withheld.contains(&(n, *shard))).collect::<Vec<_>>();
        self.queue.push((n, Event::Replicas { replicas: found, batch: self.disks[n].batch }));
        let opened = now.into_iter().map(|shard| (shard, self.open(n, shard)));
        let opened = opened.collect();
        self.queue.push((n, Event::Opened(opened)));
    }

    /// The replicas that a node's log says it has, or had.
    fn found(&self, n: usize) -> BTreeMap<ShardId, FoundReplica> {
        let records = &self.disks[n].synced;
        let found = |(shard, born): (&ShardId, &Configuration)| {
            let of = |record: &&Record| matches!(record, Record::Replica(of, _) | Record::Gone(of, _) if of == shard);
            let (peer, is_gone) = match records.iter().rev().find(of) {
                Some(Record::Gone(_, peer)) => (*peer, true),
                Some(Record::Replica(_, peer)) => (*peer, false),
                _ => (born.peer_on(NodeId(n as u64 + 1))?, false),
            };
            Some((*shard, FoundReplica { peer, is_gone, generation: 0 }))
        };
        self.born.iter().filter_map(found).collect()
    }

    /// Tables are in memory and lost with the process: everything committed is replayed.
    pub(crate) fn open(&mut self, n: usize, shard: ShardId) -> Opened {
        let entries = entries_of(&self.disks[n].synced, shard);
        let configuration = self.born[&shard].clone();
        let (peer, records) = replica_of(&self.disks[n].synced, shard);
        let peer = peer.or_else(|| configuration.peer_on(NodeId(n as u64 + 1))).expect("a replica");
        let mut opened = Opened { peer, configuration, ..Opened::default() };
        for record in records {
            if let Record::HardState(of, state) = record
                && *of == shard
            {
                opened.hard_state = *state;
            }
        }
        let layout = self.born_layout.clone().filter(|_| shard == ShardId::META);
        self.tables[n].insert(shard, Table { layout, ..Table::default() });
        for (index, entry) in entries {
            opened.last = index;
            if opened.terms.last().is_none_or(|(_, term)| *term != entry.term) {
                opened.terms.push((index, entry.term));
            }
            if index <= opened.hard_state.commit {
                if entry.kind == EntryKind::Configuration {
                    let change =
                        ConfigurationChange::decode(entry.payload.clone()).expect("our own encoding");
                    opened.configuration =
                        opened.configuration.after(&change, index).expect("it was applied");
                } else {
                    opened.clock = Entry::peek_clock(&entry.payload).unwrap_or(opened.clock);
                }
                opened.applied = index;
                self.apply(n, ApplyJob { shard, entry, waiters: Vec::new(), copies: 0, held: Vec::new() });
            } else {
                opened.tail.push(entry);
            }
        }
        opened
    }

    pub(crate) fn apply(&mut self, n: usize, job: ApplyJob) {
        let table = self.tables[n].entry(job.shard).or_default();
        assert_eq!(job.entry.index, table.applied.next(), "entries are applied in order, once");
        table.applied = job.entry.index;
        if job.entry.payload.is_empty() || job.entry.kind == EntryKind::Configuration {
            return;
        }
        let entry = Entry::decode(job.entry.payload.clone()).expect("our own encoding");
        let mut replies = Vec::new();
        for stamped in entry.commands {
            table.revision += 1;
            let revision = Revision(table.revision);
            if let Some(verdict) = self.verdict.clone().filter(|_| stamped.stamp.is_some()) {
                replies.push(Reply::Failed(verdict));
                continue;
            }
            let parts = match stamped.command {
                Command::Write { parts } => parts,
                Command::Layout(change) => {
                    if let Some(next) = table.layout.as_ref().and_then(|layout| layout.after(&change)) {
                        let next = Arc::new(next);
                        table.layout = Some(next.clone());
                        self.queue.push((n, Event::Layout(next)));
                    }
                    Vec::new()
                }
                Command::Digest => Vec::new(),
            };
            for Part { key, change, .. } in parts {
                match change {
                    Change::Put(new) => {
                        table.rows.insert(key, Row { value: new.value, revision });
                    }
                    Change::Delete { .. } => {
                        table.rows.remove(&key);
                    }
                    // What these do, and under which conditions, is the shard's business.
                    Change::Add(_) | Change::Keep => {}
                }
            }
            replies.push(Reply::Written(Receipt {
                shard: job.shard,
                term: job.entry.term,
                index: job.entry.index,
                revision,
                copies: job.copies,
                ..Receipt::default()
            }));
        }
        assert!(job.waiters.is_empty() || job.waiters.len() == replies.len());
        let mut held = Vec::new();
        for (token, reply) in job.waiters.into_iter().zip(replies) {
            if job.held.contains(&token) {
                held.push((job.shard, token, reply));
            } else {
                self.answer(n, token, reply);
            }
        }
        if !held.is_empty() {
            self.queue.push((n, Event::Replied(held)));
        }
    }

    pub(crate) fn read(&self, n: usize, job: &ReadJob) -> Reply {
        let table = &self.tables[n][&job.shard];
        assert!(job.at <= table.applied, "only what is applied is read");
        if let Request::DigestAt { .. } = &job.request {
            return Reply::Digest { at: job.at, hash: 0, rows: table.rows.len() as u64 };
        }
        if let Request::Scan(_) = &job.request {
            let rows = table.rows.iter().map(|(key, row)| (key.clone(), row.clone())).collect();
            return Reply::Page(Page { at: job.at, rows, next: None });
        }
        let Request::Get { key, .. } = &job.request else { panic!("only gets and lists here") };
        Reply::Value { row: table.rows.get(key).cloned(), at: job.at, revision: Revision(table.revision) }
    }

    pub(crate) fn answer(&mut self, n: usize, token: Token, reply: Reply) {
        if token.origin == Token::NOBODY.origin {
            return;
        }
        let origin = token.origin.0 as usize - 1;
        if origin == n {
            self.tell_answer(token.id, &reply);
            assert!(self.answers.insert(token.id, reply).is_none(), "answered once");
        } else if self.hears(n, origin) {
            let node = self.nodes[n].as_ref().expect("it is running");
            let frame = PeerFrame {
                from: node.id(),
                to: token.origin,
                incarnation: Incarnation(self.disks[n].incarnation),
                cluster: node.cluster(),
                epoch: node.epoch(),
                log: node.log_mark(),
                messages: vec![PeerMessage::Answer(Answer { id: token.id, reply })],
            };
            self.tell_messages(n, token.origin, &frame.messages);
            self.queue.push((origin, Event::Peer { link: n as u64, frame }));
        }
    }

    /// Asks a node without waiting.
    pub(crate) fn ask(&mut self, n: usize, request: Request, timeout_ms: u32) -> u64 {
        self.call(n, Call::from(request).within(timeout_ms))
    }

    /// Asks a node several things in one turn, without waiting.
    pub(crate) fn ask_all(&mut self, n: usize, requests: Vec<Request>, timeout_ms: u32) -> Vec<u64> {
        let calls = requests.into_iter().map(|request| Call::from(request).within(timeout_ms));
        self.call_all(n, calls.collect())
    }

    /// Asks a node for a write that has its place in a session.
    pub(crate) fn ask_stamped(&mut self, n: usize, stamp: Stamp, request: Request) -> u64 {
        self.call(n, Call { stamp: Some(stamp), ..request.into() })
    }

    /// Asks a node for a write that is to be on so many replicas.
    pub(crate) fn ask_durable(
        &mut self,
        n: usize,
        durability: impl Into<Durability>,
        request: Request,
        timeout_ms: u32,
    ) -> u64 {
        self.call(n, Call { durability: durability.into(), ..Call::from(request).within(timeout_ms) })
    }

    /// Makes a call at a node without waiting.
    pub(crate) fn call(&mut self, n: usize, call: Call) -> u64 {
        self.call_all(n, vec![call])[0]
    }

    fn call_all(&mut self, n: usize, calls: Vec<Call>) -> Vec<u64> {
        let first = self.next_token + 1;
        self.next_token += calls.len() as u64;
        let ids: Vec<u64> = (first..=self.next_token).collect();
        ids.iter().zip(&calls).for_each(|(id, call)| self.tell_asked(n, *id, &call.request));
        let origin = NodeId(n as u64 + 1);
        let incoming =
            ids.iter().zip(calls).map(|(id, call)| Incoming { token: Token { origin, id: *id }, call });
        self.queue.push((n, Event::Requests(incoming.collect())));
        self.drain();
        ids
    }

    pub(crate) fn put(&mut self, n: usize, key: &str, value: &str) -> Reply {
        self.ask_and_wait(n, Request::put(key.to_owned(), value.to_owned()))
    }

    pub(crate) fn get(&mut self, n: usize, key: &str) -> Option<String> {
        match self.ask_and_wait(n, get(key)) {
            Reply::Value { row, .. } => row.map(|row| String::from_utf8(row.value.to_vec()).expect("text")),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn ask_and_wait(&mut self, n: usize, request: Request) -> Reply {
        self.call_and_wait(n, Call::from(request).within(3_000))
    }

    pub(crate) fn call_and_wait(&mut self, n: usize, call: Call) -> Reply {
        let id = self.call(n, call);
        for _ in 0..200 {
            if let Some(reply) = self.answers.remove(&id) {
                return reply;
            }
            self.run(25);
        }
        panic!("no answer after five seconds");
    }

    /// A key of this shard.
    pub(crate) fn key_of(&self, shard: ShardId) -> String {
        let layout = self.nodes.iter().flatten().find_map(Node::layout).expect("born");
        let mut keys = (0..).map(|i| format!("k{i}"));
        keys.find(|key| layout.shard_of_slot(get(key).slot().expect("a key")) == shard).expect("there is one")
    }

    pub(crate) fn leader(&mut self, shard: ShardId) -> Option<NodeId> {
        let n = self.nodes.iter().position(Option::is_some)?;
        let call = Call { who: Principal::NODE, ..Request::ClusterState.into() };
        let Reply::Cluster(state) = self.call_and_wait(n, call) else { panic!("a state") };
        state.shards[shard.0 as usize].leader
    }
}

/// Which replica of a shard these records are of, if it was made anew, and those since.
fn replica_of(records: &[Record], of: ShardId) -> (Option<PeerId>, &[Record]) {
    let anew = |record: &Record| matches!(record, Record::Replica(shard, _) if *shard == of);
    let Some(at) = records.iter().rposition(anew) else { return (None, records) };
    let Record::Replica(_, peer) = records[at] else { unreachable!("just found") };
    (Some(peer), &records[at + 1..])
}

pub(crate) fn entries_of(records: &[Record], of: ShardId) -> BTreeMap<Index, ringfort_types::LogEntry> {
    let mut entries = BTreeMap::new();
    for record in replica_of(records, of).1 {
        if let Record::Entry(shard, entry) = record
            && *shard == of
        {
            entries.split_off(&entry.index);
            entries.insert(entry.index, entry.clone());
        }
    }
    entries
}

pub(crate) fn get(key: &str) -> Request {
    Request::Get { key: Bytes::copy_from_slice(key.as_bytes()), consistency: Consistency::Linearizable }
}
