//! Clients, each with one request at a time, and what they remember for the judges.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_node::{Event, Incoming};
use ringfort_types::{
    Consistency, Index, NodeId, Outcome, Page, Reply, Request, Scan, ShardId, Token, slot_of,
};

use crate::Plan;
use crate::history::{Action, Operation};
use crate::host::Work;
use crate::judges::lost_writes::LAST_READER;
use crate::judges::{ANSWERED_IN_TIME, ANSWERED_ONCE, NODE_GOES_ON};
use crate::network::node;
use crate::world::{Next, World};

/// How much longer than its timeout a client waits for a node's answer, in microseconds. Covers a clock that
/// runs slow by a tenth, and messages on their way.
const GRACE_US: u64 = 1_500_000;

/// The numbers of those who ask once begin here.
const PASSERS: u64 = 1 << 32;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// One of the plan's clients.
    Client(usize),
    /// Somebody who asks once.
    Passer,
    /// Whoever looks at the cluster from outside now and then.
    Onlooker,
    /// The judge, at the end.
    Judge,
}

/// A request on its way.
#[derive(Debug)]
struct Asked {
    by: Asker,
    host: usize,
    life: u64,
    /// How often the process had stood still; `None` if it did just then, or was slow.
    pauses: Option<u64>,
    request: Request,
    /// The index that a linearizable answer must not be before.
    floor: Index,
    invoked_us: u64,
    /// The node has answered.
    is_answered: bool,
    /// The client knows, or has stopped waiting.
    is_closed: bool,
}

/// All requests of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) keys: Vec<Bytes>,
    asked: BTreeMap<u64, Asked>,
    last: u64,
    /// How many requests of the plan's clients are open.
    open: usize,
    counts: (u64, u64, u64),
    /// What the judge was told.
    pub(crate) told: BTreeMap<u64, Option<Reply>>,
    /// Where each shard was last seen to be led.
    leaders: BTreeMap<ShardId, NodeId>,
    /// What a client goes on with: the rest of a list.
    next: BTreeMap<usize, Scan>,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Clients {
        Clients {
            keys: (0..plan.keys).map(|number| Bytes::from(format!("key{number}"))).collect(),
            asked: BTreeMap::new(),
            last: 0,
            open: 0,
            counts: (0, 0, 0),
            told: BTreeMap::new(),
            leaders: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        self.counts
    }

    /// Whether any client still waits.
    pub(crate) fn wait(&self) -> bool {
        self.open > 0
    }
}

impl World {
    /// A client does its next thing.
    pub(crate) fn act(&mut self, client: usize) {
        if self.is_calm {
            return;
        }
        let key = self.clients.keys[self.random.below(self.clients.keys.len() as u64) as usize].clone();
        let request = if let Some(rest) = self.clients.next.remove(&client) {
            Request::Scan(rest)
        } else {
            match self.random.below(100) {
                0..42 => {
                    // Unlike any other, and now and then large.
                    let mut value = format!("c{client}-{}", self.clients.last).into_bytes();
                    if self.random.chance(5) {
                        value.resize(self.random.between(1_000, 20_000) as usize, b'.');
                    }
                    Request::Put { key, value: value.into() }
                }
                42..52 => Request::Delete { key },
                52..60 => Request::Get { key, consistency: Consistency::Stale },
                60..68 => Request::Scan(self.list(&key)),
                _ => Request::Get { key, consistency: Consistency::Linearizable },
            }
        };
        let mut host = self.random.below(self.hosts.len() as u64) as usize;
        // Some go straight to whom they take for the leader; the others' requests are passed on.
        if client.is_multiple_of(3)
            && let Some(leader) = self.shard_of(&request).and_then(|shard| self.clients.leaders.get(&shard))
        {
            host = leader.0 as usize - 1;
        }
        let timeout_ms = self.random.pick(&[300, 1_000, 3_000]);
        self.ask(Asker::Client(client), host, request, timeout_ms);
    }

    /// A list of the shard that has this key, in pages or at once.
    fn list(&mut self, key: &Bytes) -> Scan {
        let shard = self.layout.as_ref().map_or(ShardId(1), |layout| layout.shard_of_slot(slot_of(key)));
        Scan {
            shard,
            at: None,
            from: Bytes::new(),
            prefix: Bytes::from_static(b"key"),
            rows_max: self.random.pick(&[1, 2, 1_000]),
            bytes_max: u32::MAX,
            keys_only: false,
        }
    }

    /// The keys whose shards this node was last seen to lead.
    pub(crate) fn keys_led_by(&self, host: usize) -> Vec<Bytes> {
        let leads = |key: &&Bytes| {
            let leader = self.shard_of_key(key).and_then(|shard| self.clients.leaders.get(&shard));
            leader == Some(&node(host))
        };
        self.clients.keys.iter().filter(leads).cloned().collect()
    }

    /// Somebody writes through another node, and somebody reads the same through this one.
    pub(crate) fn poke(&mut self, host: usize, keys: Vec<Bytes>, left: u32) {
        if self.is_calm || keys.is_empty() {
            return;
        }
        let key = keys[self.random.below(keys.len() as u64) as usize].clone();
        let value = Bytes::from(format!("passer-{}", self.clients.last));
        let other = (host + 1 + self.random.below(self.hosts.len() as u64 - 1) as usize) % self.hosts.len();
        self.ask(Asker::Passer, other, Request::Put { key: key.clone(), value }, 300);
        let consistency = Consistency::Linearizable;
        self.ask(Asker::Passer, host, Request::Get { key, consistency }, 300);
        if left > 0 {
            let after_us = self.random.between(1_000, 20_000);
            self.schedule(after_us, Next::Poke { host, keys, left: left - 1 });
        }
    }

    /// Somebody looks at who leads.
    pub(crate) fn look(&mut self) {
        for host in 0..self.hosts.len() {
            self.ask(Asker::Onlooker, host, Request::ClusterState, 1_000);
        }
        self.schedule(200_000, Next::Look);
    }

    /// Sends a request to a node.
    pub(crate) fn ask(&mut self, by: Asker, host: usize, request: Request, timeout_ms: u32) -> u64 {
        self.clients.last += 1;
        let id = self.clients.last;
        let target = &self.hosts[host];
        let is_brisk = target.paused.is_none() && target.slowness == 1;
        let (life, pauses) = (target.life, is_brisk.then_some(target.pauses));
        let refused = target.process.is_none();
        if by != Asker::Onlooker {
            self.log(format_args!("{by:?} asks n{} #{id}: {}", host + 1, show(&request)));
        }
        let floor = self.shard_of(&request).map_or(Index(0), |shard| self.judges.reads.floor(shard));
        let asked = Asked {
            by,
            host,
            life,
            pauses,
            request: request.clone(),
            floor,
            invoked_us: self.now_us,
            is_answered: false,
            is_closed: false,
        };
        self.clients.asked.insert(id, asked);
        self.clients.open += usize::from(matches!(by, Asker::Client(_)));
        if refused {
            // Nobody listens there: surely nothing has happened.
            self.close(id, None, Outcome::Rejected);
            return id;
        }
        let incoming = Incoming { token: Token { origin: node(host), id }, request, timeout_ms };
        let after_us = self.random.between(50, self.plan.message_us_max);
        self.schedule(after_us, Next::Work { host, life, work: Work::Hear(Event::Requests(vec![incoming])) });
        self.schedule(u64::from(timeout_ms) * 1_000 + GRACE_US, Next::GiveUp { id });
        id
    }

    /// A node has answered its client.
    pub(crate) fn answer_client(&mut self, at: usize, id: u64, reply: Reply) {
        let Some(asked) = self.clients.asked.get_mut(&id) else {
            return self.find(ANSWERED_ONCE, format_args!("n{} answers #{id}, which nobody asked", at + 1));
        };
        if std::mem::replace(&mut asked.is_answered, true) {
            return self.find(ANSWERED_ONCE, format_args!("n{} answers #{id} twice", at + 1));
        }
        if let Reply::Written(receipt) = &reply {
            let hosts = self.hosts_of(receipt.shard);
            let receipt = *receipt;
            // A mark for digests changes nothing, and so shares its revision.
            if !matches!(self.clients.asked[&id].request, Request::Digest { .. }) {
                let broken = self.judges.acknowledged(&hosts, &receipt);
                self.find_all(broken);
            }
        }
        let after_us = self.random.between(50, self.plan.message_us_max);
        self.schedule(after_us, Next::Answer { id, reply: Box::new(reply) });
    }

    pub(crate) fn hear_answer(&mut self, id: u64, reply: Reply) {
        if self.clients.asked.get(&id).is_none_or(|asked| asked.is_closed) {
            return;
        }
        let outcome = if let Reply::Failed(failure) = &reply { failure.outcome } else { Outcome::Unknown };
        self.close(id, Some(reply), outcome);
    }

    pub(crate) fn give_up(&mut self, id: u64) {
        let Some(asked) = self.clients.asked.get(&id).filter(|asked| !asked.is_closed) else { return };
        let host = &self.hosts[asked.host];
        let is_brisk = host.paused.is_none() && host.slowness == 1;
        let ran = host.life == asked.life && asked.pauses == Some(host.pauses) && is_brisk;
        if ran && !asked.is_answered {
            let (at, request) = (asked.host + 1, show(&asked.request));
            self.find(ANSWERED_IN_TIME, format_args!("n{at} has not answered #{id} ({request}) in time"));
        }
        self.close(id, None, Outcome::Unknown);
    }

    /// A process has ended: its clients will not be answered.
    pub(crate) fn forget_requests_of(&mut self, host: usize) {
        let lost: Vec<u64> = self
            .clients
            .asked
            .iter()
            .filter(|(_, asked)| asked.host == host && !asked.is_closed && !asked.is_answered)
            .map(|(id, _)| *id)
            .collect();
        for id in lost {
            self.close(id, None, Outcome::Unknown);
        }
    }

    /// The client knows as much as it ever will. `outcome` is that of a failure.
    fn close(&mut self, id: u64, reply: Option<Reply>, outcome: Outcome) {
        let asked = self.clients.asked.get_mut(&id).expect("closed once");
        asked.is_closed = true;
        let (by, host) = (asked.by, asked.host);
        match by {
            Asker::Onlooker => {
                match reply {
                    None => {}
                    Some(Reply::Cluster(state)) => {
                        let broken = self.judges.shown(&state);
                        self.find_all(broken);
                        let led = state.shards.iter().filter_map(|shard| Some((shard.shard, shard.leader?)));
                        self.clients.leaders.extend(led);
                    }
                    Some(other) => {
                        let what = format_args!("n{} shows {other:?} instead of the cluster", host + 1);
                        self.find(NODE_GOES_ON, what);
                    }
                }
                return;
            }
            Asker::Client(client) => {
                self.clients.open -= 1;
                let after_us = self.random.between(1_000, 60_000);
                self.schedule(after_us, Next::Act { client });
            }
            Asker::Passer => {}
            Asker::Judge => {
                self.clients.told.insert(id, reply.clone());
            }
        }
        self.log(format_args!(
            "#{id}: {}",
            reply.as_ref().map_or_else(|| format!("{outcome:?}"), show_reply)
        ));
        self.remember(id, reply, outcome);
    }

    fn remember(&mut self, id: u64, reply: Option<Reply>, outcome: Outcome) {
        let asked = &self.clients.asked[&id];
        let shard = self.shard_of(&asked.request);
        let floor = asked.floor;
        let (action, key, returned) = match (&asked.request, reply) {
            (Request::Get { key, consistency }, Some(Reply::Value { row, at, .. })) => {
                let shard = shard.expect("an answer comes from a born cluster");
                let is_stale = *consistency == Consistency::Stale;
                let floor = if is_stale { Index(0) } else { floor };
                let broken = self.judges.reads.got(shard, key, row.as_ref(), at, floor);
                let (action, key) = (Action::Get(row.map(|row| row.value)), key.clone());
                self.find_all(broken.into_iter().collect());
                if is_stale {
                    return;
                }
                self.judges.reads.known(shard, at);
                (action, key, true)
            }
            (Request::Scan(_), Some(Reply::Page(page))) => return self.remember_page(id, page),
            (Request::Put { .. } | Request::Delete { .. }, Some(Reply::Written(receipt))) => {
                let (action, key) = write(&asked.request);
                self.judges.reads.known(receipt.shard, receipt.index);
                (action, key, true)
            }
            (Request::Get { .. } | Request::Scan(_), Some(Reply::Failed(_)) | None) => {
                self.clients.counts.1 += 1;
                return;
            }
            (request @ (Request::Put { .. } | Request::Delete { .. }), Some(Reply::Failed(_)) | None) => {
                if outcome == Outcome::Rejected {
                    self.clients.counts.1 += 1;
                    return;
                }
                let (action, key) = write(request);
                (action, key, false)
            }
            (Request::Digest { .. } | Request::DigestAt { .. } | Request::ClusterState, _) => return,
            (request, reply) => {
                let request = show(request);
                return self.find(ANSWERED_ONCE, format_args!("#{id} {request} is answered by {reply:?}"));
            }
        };
        if returned {
            self.clients.counts.0 += 1;
        } else {
            self.clients.counts.2 += 1;
        }
        let asked = &self.clients.asked[&id];
        let client = match asked.by {
            Asker::Client(client) => client as u64,
            Asker::Judge => LAST_READER,
            // One each, and none that a client of the plan has.
            Asker::Passer | Asker::Onlooker => PASSERS + id,
        };
        let returned_us = returned.then_some(self.now_us);
        self.history.push(Operation { client, key, action, invoked_us: asked.invoked_us, returned_us });
    }

    /// A list is a get of every key at one time: of those that it finds, and of those of its shard that it
    /// doesn't. (That the gets are of one and the same time is for `judges::reads`.)
    fn remember_page(&mut self, id: u64, page: Page) {
        let asked = &self.clients.asked[&id];
        let Request::Scan(scan) = &asked.request else { unreachable!("pages answer scans") };
        let (scan, invoked_us, by) = (scan.clone(), asked.invoked_us, asked.by);
        // Later pages are of the first one's index.
        let floor = if scan.at.is_none() { asked.floor } else { Index(0) };
        let broken = self.judges.reads.listed(scan.shard, &scan, &page, floor);
        self.find_all(broken.into_iter().collect());
        self.clients.counts.0 += 1;
        if scan.at.is_none() {
            self.judges.reads.known(scan.shard, page.at);
        }
        if let (Some(next), Asker::Client(client)) = (page.next, by) {
            let rest = Scan { at: Some(page.at), from: next, ..scan };
            self.clients.next.insert(client, rest);
            return;
        }
        if scan.at.is_some() {
            return;
        }
        for key in self.clients.keys.clone() {
            let found = page.rows.iter().find(|(found, _)| *found == key);
            if found.is_none() && self.shard_of_key(&key) != Some(scan.shard) {
                continue;
            }
            let action = Action::Get(found.map(|(_, row)| row.value.clone()));
            let returned_us = Some(self.now_us);
            self.history.push(Operation { client: id, key, action, invoked_us, returned_us });
        }
    }

    fn shard_of_key(&self, key: &Bytes) -> Option<ShardId> {
        Some(self.layout.as_ref()?.shard_of_slot(slot_of(key)))
    }

    /// Which shard a request is about, if the cluster is born.
    fn shard_of(&self, request: &Request) -> Option<ShardId> {
        match request {
            Request::Scan(scan) => Some(scan.shard),
            Request::Get { key, .. } | Request::Put { key, .. } | Request::Delete { key } => {
                self.shard_of_key(key)
            }
            _ => None,
        }
    }

    /// Where a shard's replicas are.
    pub(crate) fn hosts_of(&self, shard: ShardId) -> Vec<usize> {
        let shard = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        let replicas = shard.map(|shard| &shard.replicas[..]).unwrap_or_default();
        replicas.iter().map(|replica| replica.node.0 as usize - 1).collect()
    }
}

fn write(request: &Request) -> (Action, Bytes) {
    match request {
        Request::Put { key, value } => (Action::Put(value.clone()), key.clone()),
        Request::Delete { key } => (Action::Delete, key.clone()),
        other => unreachable!("{other:?} is not a write"),
    }
}

pub(crate) fn show(request: &Request) -> String {
    let text = |bytes: &Bytes| bytes[..bytes.len().min(20)].escape_ascii().to_string();
    match request {
        Request::Get { key, consistency } => format!("{consistency:?} get {}", text(key)),
        Request::Put { key, value } => format!("put {} {}", text(key), text(value)),
        Request::Delete { key } => format!("delete {}", text(key)),
        Request::Scan(scan) => {
            format!("list shard {} at {:?} from {:?}, {} rows", scan.shard, scan.at, scan.from, scan.rows_max)
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Value { row: Some(row), at, .. } => {
            format!("{} at {at}", row.value[..row.value.len().min(20)].escape_ascii())
        }
        Reply::Value { row: None, at, .. } => format!("absent at {at}"),
        Reply::Written(receipt) => {
            format!("written in shard {} at {} by {}", receipt.shard, receipt.index, receipt.copies)
        }
        Reply::Page(page) => format!("{} rows at {}, next {:?}", page.rows.len(), page.at, page.next),
        Reply::Failed(failure) => format!("{:?}: {}", failure.outcome, failure.message),
        other => format!("{other:?}"),
    }
}
