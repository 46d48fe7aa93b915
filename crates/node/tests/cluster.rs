//! Three nodes in one thread: an instant network, a log that syncs when told to, tables that are maps.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ringfort_node::{ApplyJob, Config, Effect, Event, Identity, Incoming, Node, Opened, ReadJob};
use ringfort_types::{
    Code, Command, Consistency, Entry, Epoch, Failure, Incarnation, Index, NodeId, Now, Outcome, PeerFrame,
    PeerMessage, Receipt, Record, Reply, Request, Revision, Row, ShardId, Token,
};

const SHARDS: u32 = 8;

/// What survives a crash of a node.
#[derive(Default)]
struct Disk {
    boot: u64,
    incarnation: u64,
    birth: Option<Bytes>,
    synced: Vec<Record>,
}

/// One shard's rows on one node.
#[derive(Default)]
struct Table {
    rows: BTreeMap<Bytes, Row>,
    applied: Index,
    revision: u64,
}

struct World {
    now: Now,
    nodes: Vec<Option<Node>>,
    disks: Vec<Disk>,
    tables: Vec<BTreeMap<ShardId, Table>>,
    configs: Vec<Config>,
    /// Pairs that can't hear each other.
    cut: BTreeSet<(u64, u64)>,
    queue: Vec<(usize, Event)>,
    answers: BTreeMap<u64, Reply>,
    hints: BTreeMap<u64, NodeId>,
    next_token: u64,
    /// Nodes whose disk does not report a sync.
    stuck: BTreeSet<usize>,
    /// What they can't write.
    held: BTreeMap<usize, (u64, Vec<Record>)>,
    persists: Vec<Vec<Record>>,
    notices: Vec<String>,
    refused: Vec<Option<String>>,
    stopped: BTreeSet<usize>,
}

impl World {
    fn new(nodes: usize) -> World {
        let addresses: Vec<String> = (1..=nodes).map(|n| format!("10.0.0.{n}:50051")).collect();
        let configs = (0..nodes)
            .map(|n| {
                let mut names = vec![String::new(); nodes];
                names[n] = format!("node{}", n + 1);
                Config {
                    address: addresses[n].clone(),
                    addresses: addresses.clone(),
                    names,
                    shards: SHARDS,
                    replicas: 3,
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
            queue: Vec::new(),
            answers: BTreeMap::new(),
            hints: BTreeMap::new(),
            next_token: 0,
            stuck: BTreeSet::new(),
            held: BTreeMap::new(),
            persists: Vec::new(),
            notices: Vec::new(),
            refused: vec![None; nodes],
            stopped: BTreeSet::new(),
        }
    }

    fn born(nodes: usize) -> World {
        let mut world = World::new(nodes);
        for node in 0..nodes {
            world.start(node);
        }
        world.run(3_000);
        world
    }

    fn start(&mut self, n: usize) {
        let disk = &mut self.disks[n];
        disk.boot += 1;
        let identity = Identity {
            incarnation: Incarnation(disk.incarnation),
            boot: disk.boot,
            birth: disk.birth.clone(),
        };
        let node = Node::new(self.configs[n].clone(), &identity, self.now).expect("good flags");
        self.nodes[n] = Some(node);
        for other in 0..self.nodes.len() {
            if other != n && self.nodes[other].is_some() && !self.is_cut(n, other) {
                self.queue.push((n, Event::PeerUp(NodeId(other as u64 + 1))));
                self.queue.push((other, Event::PeerUp(NodeId(n as u64 + 1))));
            }
        }
        self.settle(n);
    }

    fn kill(&mut self, n: usize) {
        self.nodes[n] = None;
        self.queue.retain(|(to, _)| *to != n);
        for other in 0..self.nodes.len() {
            if self.nodes[other].is_some() {
                self.queue.push((other, Event::PeerLost(NodeId(n as u64 + 1))));
            }
        }
        self.drain();
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        self.cut.contains(&(a.min(b) as u64, a.max(b) as u64))
    }

    fn cut_off(&mut self, n: usize) {
        for other in (0..self.nodes.len()).filter(|other| *other != n) {
            self.cut.insert((n.min(other) as u64, n.max(other) as u64));
            self.queue.push((n, Event::PeerLost(NodeId(other as u64 + 1))));
            self.queue.push((other, Event::PeerLost(NodeId(n as u64 + 1))));
        }
        self.drain();
    }

    /// Nothing more can be written on this node's disk.
    fn fill_up(&mut self, n: usize) {
        self.stuck.insert(n);
        self.queue.push((n, Event::DiskFull(true)));
        self.drain();
    }

    /// There is room again: the batch that found none is written.
    fn make_room(&mut self, n: usize) {
        self.stuck.remove(&n);
        if let Some((number, records)) = self.held.remove(&n) {
            self.disks[n].synced.extend(records);
            self.queue.push((n, Event::Persisted(number)));
        }
        self.queue.push((n, Event::DiskFull(false)));
        self.drain();
    }

    fn heal(&mut self) {
        for (a, b) in std::mem::take(&mut self.cut) {
            self.queue.push((a as usize, Event::PeerUp(NodeId(b + 1))));
            self.queue.push((b as usize, Event::PeerUp(NodeId(a + 1))));
        }
        self.drain();
    }

    fn run(&mut self, ms: u64) {
        for _ in 0..ms / 25 {
            self.now.monotonic_us += 25_000;
            self.now.wall_ms += 25;
            for n in 0..self.nodes.len() {
                self.queue.push((n, Event::Tick));
            }
            self.drain();
        }
    }

    fn drain(&mut self) {
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

    fn settle(&mut self, n: usize) {
        let Some(node) = self.nodes[n].as_mut() else { return };
        let effects = node.take_effects(self.now);
        let (from, cluster, epoch) = (node.id(), node.cluster(), node.epoch());
        for effect in effects {
            self.carry_out(n, from, cluster, epoch, effect);
        }
    }

    fn carry_out(&mut self, n: usize, from: NodeId, cluster: u64, epoch: Epoch, effect: Effect) {
        match effect {
            Effect::SaveBirth(bytes) => {
                self.disks[n].birth = Some(bytes);
                self.queue.push((n, Event::BirthSaved));
            }
            Effect::Open { shards, .. } => {
                let opened = shards.into_iter().map(|shard| (shard, self.open(n, shard))).collect();
                self.queue.push((n, Event::Opened(opened)));
            }
            Effect::Persist { number, records } => {
                if self.stuck.contains(&n) {
                    self.held.insert(n, (number, records.clone()));
                } else {
                    self.disks[n].synced.extend(records.iter().cloned());
                    self.queue.push((n, Event::Persisted(number)));
                }
                self.persists.push(records);
            }
            Effect::Send { to, messages } => {
                let other = to.0 as usize - 1;
                if self.nodes[other].is_some() && !self.is_cut(n, other) {
                    let incarnation = Incarnation(self.disks[n].incarnation);
                    let frame = PeerFrame { from, to, incarnation, cluster, epoch, messages };
                    let frame = PeerFrame::decode(frame.encode()).expect("a round trip");
                    self.queue.push((other, Event::Peer { link: n as u64, frame }));
                }
            }
            Effect::Refuse { link, reason } => {
                let to = NodeId(link + 1);
                let incarnation = Incarnation(self.disks[n].incarnation);
                let messages = vec![PeerMessage::Refused { reason }];
                let frame = PeerFrame { from, to, incarnation, cluster, epoch, messages };
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
            Effect::Notice(line) => self.notices.push(line),
            Effect::Serving => {}
            Effect::Refused(reason) => {
                self.refused[n] = Some(reason);
                self.nodes[n] = None;
            }
            Effect::Stopped => {
                self.stopped.insert(n);
            }
        }
    }

    /// Tables are in memory and lost with the process: everything committed is replayed.
    fn open(&mut self, n: usize, shard: ShardId) -> Opened {
        let entries = entries_of(&self.disks[n].synced, shard);
        let mut opened = Opened::default();
        for record in &self.disks[n].synced {
            if let Record::HardState(of, state) = record
                && *of == shard
            {
                opened.hard_state = *state;
            }
        }
        self.tables[n].insert(shard, Table::default());
        for (index, entry) in entries {
            opened.last = index;
            if opened.terms.last().is_none_or(|(_, term)| *term != entry.term) {
                opened.terms.push((index, entry.term));
            }
            if index <= opened.hard_state.commit {
                opened.clock = Entry::peek_clock(&entry.payload).unwrap_or(opened.clock);
                opened.applied = index;
                self.apply(n, ApplyJob { shard, entry, waiters: Vec::new(), copies: 0 });
            } else {
                opened.tail.push(entry);
            }
        }
        opened
    }

    fn apply(&mut self, n: usize, job: ApplyJob) {
        let table = self.tables[n].entry(job.shard).or_default();
        assert_eq!(job.entry.index, table.applied.next(), "entries are applied in order, once");
        table.applied = job.entry.index;
        if job.entry.payload.is_empty() {
            return;
        }
        let entry = Entry::decode(job.entry.payload.clone()).expect("our own encoding");
        let mut replies = Vec::new();
        for command in entry.commands {
            table.revision += 1;
            let revision = Revision(table.revision);
            match command {
                Command::Put { key, value } => {
                    table.rows.insert(key, Row { value, revision });
                }
                Command::Delete { key } => {
                    table.rows.remove(&key);
                }
                Command::Digest => {}
            }
            replies.push(Reply::Written(Receipt {
                shard: job.shard,
                term: job.entry.term,
                index: job.entry.index,
                revision,
                copies: job.copies,
            }));
        }
        assert!(job.waiters.is_empty() || job.waiters.len() == replies.len());
        for (token, reply) in job.waiters.into_iter().zip(replies) {
            self.answer(n, token, reply);
        }
    }

    fn read(&self, n: usize, job: &ReadJob) -> Reply {
        let table = &self.tables[n][&job.shard];
        assert!(job.at <= table.applied, "only what is applied is read");
        let Request::Get { key, .. } = &job.request else { panic!("only gets here") };
        Reply::Value { row: table.rows.get(key).cloned(), at: job.at, revision: Revision(table.revision) }
    }

    fn answer(&mut self, n: usize, token: Token, reply: Reply) {
        if token == Token::NOBODY {
            return;
        }
        let origin = token.origin.0 as usize - 1;
        if origin == n {
            assert!(self.answers.insert(token.id, reply).is_none(), "answered once");
        } else if self.nodes[origin].is_some() && !self.is_cut(n, origin) {
            let node = self.nodes[n].as_ref().expect("it is running");
            let frame = PeerFrame {
                from: node.id(),
                to: token.origin,
                incarnation: Incarnation(self.disks[n].incarnation),
                cluster: node.cluster(),
                epoch: node.epoch(),
                messages: vec![PeerMessage::Answer { id: token.id, reply }],
            };
            self.queue.push((origin, Event::Peer { link: n as u64, frame }));
        }
    }

    /// Asks a node without waiting.
    fn ask(&mut self, n: usize, request: Request, timeout_ms: u32) -> u64 {
        self.next_token += 1;
        let token = Token { origin: NodeId(n as u64 + 1), id: self.next_token };
        self.queue.push((n, Event::Requests(vec![Incoming { token, request, timeout_ms }])));
        self.drain();
        token.id
    }

    fn put(&mut self, n: usize, key: &str, value: &str) -> Reply {
        let request =
            Request::Put { key: Bytes::copy_from_slice(key.as_bytes()), value: value.to_owned().into() };
        self.ask_and_wait(n, request)
    }

    fn get(&mut self, n: usize, key: &str) -> Option<String> {
        match self.ask_and_wait(n, get(key)) {
            Reply::Value { row, .. } => row.map(|row| String::from_utf8(row.value.to_vec()).expect("text")),
            other => panic!("{other:?}"),
        }
    }

    fn ask_and_wait(&mut self, n: usize, request: Request) -> Reply {
        let id = self.ask(n, request, 3_000);
        for _ in 0..200 {
            if let Some(reply) = self.answers.remove(&id) {
                return reply;
            }
            self.run(25);
        }
        panic!("no answer after five seconds");
    }

    fn leader(&mut self, shard: ShardId) -> Option<NodeId> {
        let n = self.nodes.iter().position(Option::is_some)?;
        let Reply::Cluster(state) = self.ask_and_wait(n, Request::ClusterState) else { panic!("a state") };
        state.shards[shard.0 as usize].leader
    }
}

fn get(key: &str) -> Request {
    Request::Get { key: Bytes::copy_from_slice(key.as_bytes()), consistency: Consistency::Linearizable }
}

fn entries_of(records: &[Record], of: ShardId) -> BTreeMap<Index, ringfort_types::LogEntry> {
    let mut entries = BTreeMap::new();
    for record in records {
        if let Record::Entry(shard, entry) = record
            && *shard == of
        {
            entries.split_off(&entry.index);
            entries.insert(entry.index, entry.clone());
        }
    }
    entries
}

fn failure(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

#[test]
fn any_node_takes_writes_and_reads() {
    let mut world = World::born(3);
    for i in 0..40 {
        let reply = world.put(i % 3, &format!("key{i}"), &format!("value{i}"));
        let Reply::Written(receipt) = reply else { panic!("{reply:?}") };
        assert!(receipt.copies >= 2, "acknowledged by a majority: {receipt:?}");
    }
    for i in 0..40 {
        assert_eq!(world.get((i + 1) % 3, &format!("key{i}")), Some(format!("value{i}")));
    }
    assert_eq!(world.get(0, "no such key"), None);
    assert!(!world.hints.is_empty(), "who asks the wrong node is told the leader");
}

#[test]
fn a_cluster_of_one_serves_alone() {
    let mut world = World::born(1);
    world.put(0, "name", "Ada");
    assert_eq!(world.get(0, "name"), Some("Ada".into()));
    world.kill(0);
    world.start(0);
    world.run(1_000);
    assert_eq!(world.get(0, "name"), Some("Ada".into()));
}

#[test]
fn one_sync_serves_many_shards() {
    let mut world = World::born(1);
    world.persists.clear();
    let mut incoming = Vec::new();
    for i in 0..50u64 {
        let token = Token { origin: NodeId(1), id: 1_000 + i };
        let request = Request::Put { key: format!("key{i}").into(), value: Bytes::from_static(b"v") };
        incoming.push(Incoming { token, request, timeout_ms: 3_000 });
    }
    world.queue.push((0, Event::Requests(incoming)));
    world.drain();
    let shards: BTreeSet<_> = world.persists[0]
        .iter()
        .map(|record| match record {
            Record::Entry(shard, _) | Record::HardState(shard, _) => *shard,
        })
        .collect();
    assert_eq!(shards.len(), SHARDS as usize, "all shards' entries are in the one batch");
    let entries = world.persists[0].iter().filter(|record| matches!(record, Record::Entry(..)));
    assert_eq!(entries.count(), SHARDS as usize, "and each shard's writes are one entry");
}

#[test]
fn leadership_is_spread_and_survives_the_leader() {
    let mut world = World::born(3);
    let leaders: BTreeSet<_> = (1..=SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
    assert_eq!(leaders.len(), 3, "every node leads something: {leaders:?}");
    for i in 0..20 {
        world.put(0, &format!("key{i}"), "before");
    }
    world.kill(1);
    world.run(1_000);
    for i in 0..20 {
        assert_eq!(world.get(2, &format!("key{i}")), Some("before".into()));
        assert!(matches!(world.put(0, &format!("key{i}"), "after"), Reply::Written(_)));
    }
    world.start(1);
    world.run(6_000);
    for i in 0..20 {
        assert_eq!(world.get(1, &format!("key{i}")), Some("after".into()));
    }
    let leaders: BTreeSet<_> = (1..=SHARDS).map(|shard| world.leader(ShardId(shard))).collect();
    assert_eq!(leaders.len(), 3, "who comes back leads again: {leaders:?}");
}

#[test]
fn everything_acknowledged_survives_a_crash_of_all() {
    let mut world = World::born(3);
    for i in 0..30 {
        world.put(i % 3, &format!("key{i}"), &format!("value{i}"));
    }
    for n in 0..3 {
        world.kill(n);
    }
    for n in 0..3 {
        world.start(n);
    }
    world.run(2_000);
    for i in 0..30 {
        assert_eq!(world.get(i % 3, &format!("key{i}")), Some(format!("value{i}")));
    }
}

#[test]
fn without_a_quorum_nothing_is_answered_and_a_proposed_write_is_unknown() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    let led_by_0: Vec<String> = (0..200)
        .map(|i| format!("k{i}"))
        .filter(|key| {
            let shard = {
                let node = world.nodes[0].as_ref().expect("running");
                let request = get(key);
                node.layout().expect("born").shard_of_slot(request.slot().expect("a key"))
            };
            world.leader(shard) == Some(NodeId(1))
        })
        .collect();
    world.kill(1);
    world.kill(2);
    // Node 1 still believes that it leads: this write is in its log, and nobody else's.
    let put = Request::Put { key: led_by_0[0].clone().into(), value: Bytes::from_static(b"x") };
    let write = world.ask(0, put, 1_000);
    let read = world.ask(0, get(&led_by_0[1]), 1_000);
    world.run(3_000);
    let write = failure(world.answers.remove(&write).expect("answered by its deadline"));
    assert_eq!((write.outcome, write.code), (Outcome::Unknown, Code::DeadlineExceeded));
    assert!(write.message.contains("no quorum: 1 of"), "{}", write.message);
    let read = failure(world.answers.remove(&read).expect("answered by its deadline"));
    assert_eq!(read.outcome, Outcome::Rejected);
    // By now it knows better, and takes nothing.
    let late = failure(world.put(0, "key", "x"));
    assert_eq!((late.outcome, late.code), (Outcome::Rejected, Code::Unavailable));
    world.start(1);
    world.run(2_000);
    assert_eq!(world.get(0, "key"), Some("value".into()));
}

#[test]
fn a_leader_cut_off_serves_no_stale_read() {
    let mut world = World::born(3);
    world.put(0, "key", "old");
    let shard = {
        let node = world.nodes[0].as_ref().expect("running");
        node.layout().expect("born").shard_of_slot(get("key").slot().expect("a key"))
    };
    let leader = world.leader(shard).expect("led").0 as usize - 1;
    world.cut_off(leader);
    // Asked at once, while it still believes that it leads.
    let stale = world.ask(leader, get("key"), 2_000);
    let other = (leader + 1) % 3;
    world.run(1_000);
    assert!(matches!(world.put(other, "key", "new"), Reply::Written(_)));
    world.run(2_000);
    let reply = world.answers.remove(&stale).expect("answered by its deadline");
    assert_eq!(failure(reply).outcome, Outcome::Rejected);
    world.heal();
    world.run(2_000);
    assert_eq!(world.get(leader, "key"), Some("new".into()));
}

#[test]
fn a_vote_or_an_ack_waits_for_the_disk() {
    let mut world = World::born(3);
    world.stuck.insert(1);
    world.stuck.insert(2);
    let shard = (1..=SHARDS).map(ShardId).find(|shard| world.leader(*shard) == Some(NodeId(1))).expect("one");
    let key = (0..10_000)
        .map(|i| format!("k{i}"))
        .find(|key| {
            let node = world.nodes[0].as_ref().expect("running");
            node.layout().expect("born").shard_of_slot(get(key).slot().expect("a key")) == shard
        })
        .expect("some key");
    let put = Request::Put { key: key.into(), value: Bytes::from_static(b"x") };
    let id = world.ask(0, put, 10_000);
    world.run(1_000);
    assert!(!world.answers.contains_key(&id), "one synced copy of three is no majority");
}

#[test]
fn a_wiped_node_is_refused_and_the_others_serve_on() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    world.kill(2);
    world.disks[2] = Disk { incarnation: 999, ..Disk::default() };
    world.start(2);
    world.run(2_000);
    let reason = world.refused[2].clone().expect("refused");
    assert!(reason.contains("another data directory") && reason.contains("node3"), "{reason}");
    assert_eq!(world.get(0, "key"), Some("value".into()));
}

#[test]
fn lists_that_differ_are_refused_with_the_difference() {
    let mut world = World::new(3);
    world.configs[2].shards = 9;
    for n in 0..3 {
        world.start(n);
    }
    world.run(1_000);
    for refused in &world.refused {
        let reason = refused.as_ref().expect("none of them can be born, and each says why");
        assert!(reason.contains("--shards 9") && reason.contains("--shards 8"), "{reason}");
    }
}

#[test]
fn nothing_starts_before_all_listed_nodes_are_there() {
    let mut world = World::new(3);
    world.start(0);
    world.start(1);
    world.run(6_000);
    assert!(world.nodes[0].as_ref().expect("running").cluster() == 0);
    assert!(
        world.notices.iter().any(|line| line.contains("waiting for 10.0.0.3:50051")),
        "{:?}",
        world.notices
    );
    let early = failure(world.put(0, "key", "value"));
    assert!(early.message.contains("not born yet"), "{}", early.message);
    world.start(2);
    world.run(2_000);
    assert!(matches!(world.put(0, "key", "value"), Reply::Written(_)));
}

#[test]
fn a_node_that_stops_hands_its_leaderships_over() {
    let mut world = World::born(3);
    world.queue.push((0, Event::Stop));
    world.run(1_000);
    assert!(world.stopped.contains(&0));
    for shard in 1..=SHARDS {
        let leader = world.leader(ShardId(shard));
        assert!(leader.is_some_and(|leader| leader != NodeId(1)), "shard {shard}: {leader:?}");
    }
}

#[test]
fn a_node_with_a_full_disk_leads_nothing_and_the_others_take_writes() {
    let mut world = World::born(3);
    let led = |world: &mut World| {
        (1..=SHARDS).filter(|shard| world.leader(ShardId(*shard)) == Some(NodeId(2))).count()
    };
    assert!(led(&mut world) > 0);
    world.fill_up(1);
    for i in 0..40 {
        let reply = world.put(0, &format!("key{i}"), "value");
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    world.run(5_000);
    assert_eq!(led(&mut world), 0);
    let Reply::Cluster(state) = world.ask_and_wait(0, Request::ClusterState) else { panic!("a state") };
    assert_eq!(state.nodes.iter().map(|node| node.disk_full).collect::<Vec<_>>(), [false, true, false]);
    world.make_room(1);
    world.run(8_000);
    assert!(led(&mut world) > 0, "it leads again");
}

#[test]
fn with_all_disks_full_writes_are_refused_at_once_and_reads_go_on() {
    let mut world = World::born(3);
    world.put(0, "key", "value");
    (0..3).for_each(|n| world.fill_up(n));
    world.run(3_000);
    let id = world.ask(0, Request::Put { key: "key".into(), value: "other".into() }, 3_000);
    world.run(100);
    let refused = failure(world.answers.remove(&id).expect("answered at once"));
    assert_eq!((refused.code, refused.outcome), (Code::ResourceExhausted, Outcome::Rejected));
    assert!(refused.message.contains("disk of node"), "{}", refused.message);
    assert_eq!(world.get(1, "key"), Some("value".into()));
    (0..3).for_each(|n| world.make_room(n));
    world.run(1_000);
    assert!(matches!(world.put(0, "key", "other"), Reply::Written(_)));
    assert_eq!(world.get(2, "key"), Some("other".into()));
}

#[test]
fn a_follower_that_was_away_is_brought_level_from_the_log() {
    let mut world = World::born(3);
    world.kill(2);
    world.run(1_000);
    let value = "x".repeat(100_000);
    for i in 0..60 {
        assert!(matches!(world.put(0, &format!("key{i}"), &value), Reply::Written(_)));
    }
    world.start(2);
    world.run(6_000);
    let Reply::Cluster(state) = world.ask_and_wait(2, Request::ClusterState) else { panic!("a state") };
    for shard in state.shards {
        let applied: BTreeSet<_> = shard.replicas.iter().map(|(_, replica)| replica.applied).collect();
        assert_eq!(applied.len(), 1, "{shard:?}");
    }
}

#[test]
fn a_write_is_acknowledged_though_an_earlier_term_left_some_further_on() {
    let mut world = World::born(3);
    world.run(5_000);
    let Reply::Written(receipt) = world.put(0, "key", "before") else { panic!("not written") };
    let leader = world.leader(receipt.shard).expect("it was written").0 as usize - 1;
    // Entries that nobody else will ever have, so many that the next leaders' logs stay shorter for a while.
    world.cut_off(leader);
    let request = |value: String| Request::Put { key: Bytes::from_static(b"key"), value: value.into() };
    let lost: Vec<u64> = (0..20).map(|n| world.ask(leader, request(format!("lost {n}")), 60_000)).collect();
    world.run(3_000);
    world.heal();
    world.run(8_000);
    assert_eq!(world.leader(receipt.shard), Some(NodeId(leader as u64 + 1)), "the preferred one leads again");
    for n in 0..20 {
        let reply = world.put(leader, "key", &format!("after {n}"));
        assert!(matches!(reply, Reply::Written(_)), "{reply:?}");
    }
    for id in lost {
        let reply = world.answers.remove(&id).expect("all are answered");
        assert_eq!(failure(reply).outcome, Outcome::Rejected);
    }
}
