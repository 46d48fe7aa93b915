//! Clients, each with one request at a time, and what they remember for the judge.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_node::{Event, Incoming};
use ringfort_types::{
    Consistency, Outcome, Page, Receipt, Reply, Request, Revision, Scan, ShardId, Token, slot_of,
};

use crate::Plan;
use crate::history::{Action, Operation};
use crate::host::Work;
use crate::network::node;
use crate::world::{Next, World};

/// How much longer than its timeout a client waits for a node's answer, in microseconds. Covers a clock that
/// runs slow by a tenth, and messages on their way.
const GRACE_US: u64 = 1_500_000;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// One of the plan's clients.
    Client(usize),
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
    /// How often the process had stood still; `None` if it did just then.
    pauses: Option<u64>,
    request: Request,
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
    counts: (u64, u64, u64),
    /// What the judge was told.
    pub(crate) told: BTreeMap<u64, Option<Reply>>,
    /// Receipts of acknowledged writes.
    receipts: BTreeMap<(ShardId, Revision), Receipt>,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Clients {
        Clients {
            keys: (0..plan.keys).map(|number| Bytes::from(format!("key{number}"))).collect(),
            asked: BTreeMap::new(),
            last: 0,
            counts: (0, 0, 0),
            told: BTreeMap::new(),
            receipts: BTreeMap::new(),
        }
    }

    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        self.counts
    }

    /// Whether anybody has tried to set the key to this value.
    fn was_put(&self, key: &Bytes, value: &Bytes) -> bool {
        self.asked.values().any(
            |asked| matches!(&asked.request, Request::Put { key: k, value: v } if k == key && v == value),
        )
    }

    /// Whether any client still waits.
    pub(crate) fn wait(&self) -> bool {
        self.asked.values().any(|asked| matches!(asked.by, Asker::Client(_)) && !asked.is_closed)
    }
}

impl World {
    /// A client does its next thing.
    pub(crate) fn act(&mut self, client: usize) {
        if self.is_calm {
            return;
        }
        let key = self.clients.keys[self.random.below(self.clients.keys.len() as u64) as usize].clone();
        let request = match self.random.below(100) {
            0..45 => {
                // Unlike any other, and now and then large.
                let mut value = format!("c{client}-{}", self.clients.last).into_bytes();
                if self.random.chance(5) {
                    value.resize(self.random.between(1_000, 20_000) as usize, b'.');
                }
                Request::Put { key, value: value.into() }
            }
            45..55 => Request::Delete { key },
            55..60 => Request::Get { key, consistency: Consistency::Stale },
            60..65 => Request::Scan(Scan {
                shard: ShardId(self.random.between(1, self.plan.shards.into()) as u32),
                at: None,
                from: Bytes::new(),
                prefix: Bytes::from_static(b"key"),
                rows_max: 1_000,
                bytes_max: u32::MAX,
                keys_only: false,
            }),
            _ => Request::Get { key, consistency: Consistency::Linearizable },
        };
        let host = self.random.below(self.hosts.len() as u64) as usize;
        let timeout_ms = self.random.pick(&[300, 1_000, 3_000]);
        self.ask(Asker::Client(client), host, request, timeout_ms);
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
        let (life, pauses) = (target.life, target.paused.is_none().then_some(target.pauses));
        let refused = target.process.is_none();
        if by != Asker::Onlooker {
            self.log(format_args!("{by:?} asks n{} #{id}: {}", host + 1, show(&request)));
        }
        let asked = Asked {
            by,
            host,
            life,
            pauses,
            request: request.clone(),
            invoked_us: self.now_us,
            is_answered: false,
            is_closed: false,
        };
        self.clients.asked.insert(id, asked);
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
            return self.find(format_args!("n{} answers #{id}, which nobody asked", at + 1));
        };
        if std::mem::replace(&mut asked.is_answered, true) {
            return self.find(format_args!("n{} answers #{id} twice", at + 1));
        }
        let after_us = self.random.between(50, self.plan.message_us_max);
        self.schedule(after_us, Next::Answer { id, reply: Box::new(reply) });
    }

    pub(crate) fn hear_answer(&mut self, id: u64, reply: Reply) {
        if self.clients.asked[&id].is_closed {
            return;
        }
        let outcome = if let Reply::Failed(failure) = &reply { failure.outcome } else { Outcome::Unknown };
        self.close(id, Some(reply), outcome);
    }

    pub(crate) fn give_up(&mut self, id: u64) {
        let asked = &self.clients.asked[&id];
        if asked.is_closed {
            return;
        }
        let host = &self.hosts[asked.host];
        let ran = host.life == asked.life && asked.pauses == Some(host.pauses) && host.paused.is_none();
        if ran && !asked.is_answered {
            let (at, request) = (asked.host + 1, show(&asked.request));
            self.find(format_args!("n{at} has not answered #{id} ({request}) in time"));
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
                if let Some(Reply::Cluster(state)) = &reply {
                    let broken = self.safety.seen(state);
                    self.find_all(broken);
                }
                if !matches!(reply, Some(Reply::Cluster(_)) | None) {
                    self.find(format_args!(
                        "n{} says {reply:?} when asked for the cluster's state",
                        host + 1
                    ));
                }
                return;
            }
            Asker::Client(client) => {
                let after_us = self.random.between(1_000, 60_000);
                self.schedule(after_us, Next::Act { client });
            }
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
        let (action, key, returned) = match (&asked.request, reply) {
            (Request::Get { key, consistency: Consistency::Stale }, Some(Reply::Value { row, .. })) => {
                if let Some(row) = row
                    && !self.clients.was_put(key, &row.value)
                {
                    self.find(format_args!("#{id} finds what nobody has put there: {row:?}"));
                }
                return;
            }
            (Request::Scan(_), Some(Reply::Page(page))) => return self.remember_page(id, &page),
            (Request::Get { key, .. }, Some(Reply::Value { row, .. })) => {
                (Action::Get(row.map(|row| row.value)), key.clone(), true)
            }
            (Request::Put { .. } | Request::Delete { .. }, Some(Reply::Written(receipt))) => {
                self.check_receipt(id, receipt);
                let (action, key) = write(&self.clients.asked[&id].request);
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
                return self.find(format_args!("#{id} {request} is answered by {reply:?}"));
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
            _ => u64::MAX,
        };
        let returned_us = returned.then_some(self.now_us);
        self.history.push(Operation { client, key, action, invoked_us: asked.invoked_us, returned_us });
    }

    /// A scan is a get of every key at one time: of those that it finds, and of those of its shard that it
    /// doesn't. (That the gets are of one and the same time is not judged.)
    fn remember_page(&mut self, id: u64, page: &Page) {
        let asked = &self.clients.asked[&id];
        let Request::Scan(scan) = &asked.request else { unreachable!("pages answer scans") };
        let (shard, invoked_us) = (scan.shard, asked.invoked_us);
        if page.next.is_some() {
            return;
        }
        for key in self.clients.keys.clone() {
            let found = page.rows.iter().find(|(found, _)| *found == key);
            if found.is_none() && self.shard_of(&key) != Some(shard) {
                continue;
            }
            let action = Action::Get(found.map(|(_, row)| row.value.clone()));
            let returned_us = Some(self.now_us);
            self.history.push(Operation { client: id, key, action, invoked_us, returned_us });
        }
    }

    /// Which shard a key belongs to, if any process knows the layout now.
    fn shard_of(&self, key: &Bytes) -> Option<ShardId> {
        let layout = self.hosts.iter().find_map(|host| host.process.as_ref()?.node.layout())?;
        Some(layout.shard_of_slot(slot_of(key)))
    }

    /// A receipt names a majority, and a revision that no other write was given.
    fn check_receipt(&mut self, id: u64, receipt: Receipt) {
        let majority = self.plan.nodes.min(3) as u32 / 2 + 1;
        if receipt.copies < majority {
            self.find(format_args!("#{id} is acknowledged with fewer copies than a majority: {receipt:?}"));
        }
        if let Some(other) = self.clients.receipts.insert((receipt.shard, receipt.revision), receipt) {
            self.find(format_args!("#{id}: two writes have one revision: {other:?}, {receipt:?}"));
        }
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
        Request::Get { key, .. } => format!("get {}", text(key)),
        Request::Put { key, value } => format!("put {} {}", text(key), text(value)),
        Request::Delete { key } => format!("delete {}", text(key)),
        other => format!("{other:?}"),
    }
}

pub(crate) fn show_reply(reply: &Reply) -> String {
    match reply {
        Reply::Value { row: Some(row), at, .. } => {
            format!("{} at {at}", row.value[..row.value.len().min(20)].escape_ascii())
        }
        Reply::Written(receipt) => {
            format!("written in shard {} at {} by {}", receipt.shard, receipt.index, receipt.copies)
        }
        other => format!("{other:?}"),
    }
}
