//! Clients, most with one request at a time (`requests`, `sessions`, `pipes`), and what becomes of them (`recall`).

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_node::{Event, Incoming};
use ringfort_types::{
    Call, Change, Durability, Index, NodeId, Outcome, Principal, Reply, Request, Scan, ShardId, Stamp, Token,
    slot_of,
};

use crate::Plan;
use crate::host::{Fate, Work};
use crate::judges::{ANSWERED_IN_TIME, ANSWERED_ONCE, NODE_GOES_ON};
use crate::keys::Keys;
use crate::network::{host_of, node};
use crate::plan::HOSTS_MAX;
use crate::requests::{show, show_reply};
use crate::world::{Next, World};

/// How much longer than its timeout a client waits for a node's answer, in microseconds. Covers a clock that
/// runs slow by a tenth, and messages on their way.
const GRACE_US: u64 = 1_500_000;
/// By then every request is closed.
const CLOSED_US: u64 = 10_000_000;
/// Of the hosts that are gone for good, clients go on asking the last few, and no more than these.
const GONE_KNOWN_MAX: usize = HOSTS_MAX;

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// One of the plan's clients.
    Client(usize),
    /// One of them, a second time: this is a copy of a stamped write.
    Copy,
    /// One of the connections that ask for several things at a time, and which of them this is.
    Pipe(usize, u32),
    /// Somebody who asks once.
    Passer,
    /// Whoever looks at the cluster from outside now and then.
    Onlooker,
    /// The judge, at the end.
    Judge,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct UnderWay {
    pub(crate) by: Asker,
    host: usize,
    life: u64,
    /// How often the process had stood still; `None` if it did just then, or was slow.
    pauses: Option<u64>,
    stamp: Option<Stamp>,
    who: Principal,
    /// Who knew that there is nothing to be done for them.
    without: Vec<(usize, u64)>,
    pub(crate) request: Request,
    /// The index that a linearizable answer must not be before.
    pub(crate) floor: Index,
    pub(crate) invoked_us: u64,
    /// The node has answered.
    is_answered: bool,
    /// The client knows, or has stopped waiting.
    is_closed: bool,
}

/// All requests of a run.
#[derive(Debug)]
pub(crate) struct Clients {
    pub(crate) keys: Keys,
    asked: BTreeMap<u64, UnderWay>,
    last: u64,
    /// How many requests of the plan's clients and connections are open.
    open: usize,
    counts: (u64, u64, u64),
    /// What the judge was told.
    pub(crate) told: BTreeMap<u64, Option<Reply>>,
    /// Where each shard was last seen to be led.
    leaders: BTreeMap<ShardId, NodeId>,
    /// What a client goes on with: the rest of a list.
    pub(crate) next: BTreeMap<usize, Scan>,
}

impl Clients {
    pub(crate) fn new(plan: &Plan) -> Clients {
        Clients {
            keys: Keys::new(plan.keys, plan.pipes),
            asked: BTreeMap::new(),
            last: 0,
            open: 0,
            counts: (0, 0, 0),
            told: BTreeMap::new(),
            leaders: BTreeMap::new(),
            next: BTreeMap::new(),
        }
    }

    pub(crate) fn asked(&self, id: u64) -> &UnderWay {
        &self.asked[&id]
    }

    /// A number that makes a value unlike any other.
    pub(crate) fn next_value(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// One more request is over: acknowledged (true), rejected (false), or nobody knows.
    pub(crate) fn count(&mut self, is_acknowledged: Option<bool>) {
        match is_acknowledged {
            Some(true) => self.counts.0 += 1,
            Some(false) => self.counts.1 += 1,
            None => self.counts.2 += 1,
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
        let (stamp, request) = if let Some(rest) = self.clients.next.remove(&client) {
            (None, Request::Scan(rest))
        } else if let Some((stamp, request)) = self.again(client) {
            (Some(stamp), request)
        } else {
            let request = self.draw(client);
            let numbers = request.takes_stamp() && self.random.chance(40);
            if numbers { self.stamped(client, request) } else { (None, request) }
        };
        let mut host = self.draw_host();
        // Some go straight to whom they take for the leader; the others' requests are passed on.
        if client.is_multiple_of(3)
            && let Some(leader) = self.shard_of(&request).and_then(|shard| self.clients.leaders.get(&shard))
        {
            host = leader.0 as usize - 1;
        }
        let timeout_ms = self.random.pick(&[300, 1_000, 3_000]);
        self.ask_stamped(Asker::Client(client), host, stamp, request, timeout_ms);
    }

    /// The hosts that clients may ask: all but those that have long been gone for good.
    fn known_hosts(&self) -> Vec<usize> {
        let mut gone = 0;
        let mut known: Vec<usize> = (0..self.hosts.len()).rev().collect();
        known.retain(|host| {
            gone += usize::from(self.hosts[*host].fate != Fate::Here);
            self.hosts[*host].fate == Fate::Here || gone <= GONE_KNOWN_MAX
        });
        known.reverse();
        known
    }

    /// Somebody asks one of the hosts.
    pub(crate) fn draw_host(&mut self) -> usize {
        let known = self.known_hosts();
        self.random.pick(&known)
    }

    /// The keys whose shards this node was last seen to lead.
    pub(crate) fn keys_led_by(&self, host: usize) -> Vec<Bytes> {
        let leads = |key: &&Bytes| {
            let leader = self.shard_of_key(key).and_then(|shard| self.clients.leaders.get(&shard));
            leader == Some(&node(host))
        };
        self.clients.keys.settable().filter(leads).cloned().collect()
    }

    /// Somebody writes through another node, and somebody reads the same through this one.
    pub(crate) fn poke(&mut self, host: usize, keys: Vec<Bytes>, left: u32) {
        if self.is_calm || keys.is_empty() {
            return;
        }
        let key = keys[self.random.below(keys.len() as u64) as usize].clone();
        let value = Bytes::from(format!("passer-{}", self.clients.last));
        let known = self.known_hosts();
        let place = known.iter().position(|known| *known == host).unwrap_or_default();
        let further = 1 + self.random.below((known.len() as u64).max(2) - 1) as usize;
        let other = known[(place + further) % known.len()];
        self.ask(Asker::Passer, other, Request::put(key.clone(), value), 300);
        let consistency = self.draw_fresh();
        self.ask(Asker::Passer, host, Request::Get { key, consistency }, 300);
        if left > 0 {
            let after_us = self.random.between(1_000, 20_000);
            self.schedule(after_us, Next::Poke { host, keys, left: left - 1 });
        }
    }

    /// Somebody looks at who leads.
    pub(crate) fn look(&mut self) {
        // Before birth there is nothing to show.
        for host in (0..self.hosts.len()).filter(|host| self.is_born(*host)).collect::<Vec<_>>() {
            self.ask(Asker::Onlooker, host, Request::ClusterState, 1_000);
        }
        self.schedule(200_000, Next::Look);
    }

    /// Whether a node is up, and knows its cluster's layout.
    pub(crate) fn is_born(&self, host: usize) -> bool {
        self.hosts[host].process.as_ref().is_some_and(|process| process.node.layout().is_some())
    }

    /// Sends a request to a node.
    pub(crate) fn ask(&mut self, by: Asker, host: usize, request: Request, timeout_ms: u32) -> u64 {
        self.ask_stamped(by, host, None, request, timeout_ms)
    }

    /// Sends a request to a node, with its place in a session if it has one.
    pub(crate) fn ask_stamped(
        &mut self,
        by: Asker,
        host: usize,
        stamp: Option<Stamp>,
        request: Request,
        timeout_ms: u32,
    ) -> u64 {
        self.clients.last += 1;
        let id = self.clients.last;
        let target = &self.hosts[host];
        let is_brisk = target.paused.is_none() && target.slowness == 1;
        let (life, pauses) = (target.life, is_brisk.then_some(target.pauses));
        let refused = target.process.is_none();
        if by != Asker::Onlooker {
            self.log(format_args!("{by:?} asks n{} #{id}: {}", host + 1, show(&request)));
            if let Some(stamp) = stamp {
                self.log(format_args!("#{id} is {stamp:?}"));
            }
        }
        let floor = self.shard_of(&request).map_or(Index(0), |shard| self.judges.reads.floor(shard));
        let who = self.draw_who(by, &request);
        let asked = UnderWay {
            who,
            without: self.hosts_without(who),
            by,
            host,
            life,
            pauses,
            stamp,
            request: request.clone(),
            floor,
            invoked_us: self.now_us,
            is_answered: false,
            is_closed: false,
        };
        self.clients.asked.insert(id, asked);
        self.clients.open += usize::from(matches!(by, Asker::Client(_) | Asker::Pipe(..)));
        if let Some(stamp) = &stamp {
            self.judges.rejected.sent(stamp);
        }
        if refused {
            // Nobody listens there: surely nothing has happened.
            self.close(id, None, Outcome::Rejected);
            return id;
        }
        let replicas = u64::from(self.plan.replicas).min(self.hosts.len() as u64);
        let wants_copies = replicas > 1 && request.takes_stamp() && self.random.chance(10);
        let durability = if wants_copies { self.draw_durability(replicas) } else { Durability::default() };
        let token = Token { origin: node(host), id };
        let call = Call { stamp, durability, who, ..Call::from(request).within(timeout_ms) };
        let incoming = Incoming { token, call };
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
        self.judge_answer(id, &reply);
        let after_us = self.random.between(50, self.plan.message_us_max);
        self.schedule(after_us, Next::Answer { id, reply: Box::new(reply) });
    }

    /// What a node says of a write must be so, whether or not anybody still listens.
    fn judge_answer(&mut self, id: u64, reply: &Reply) {
        let UnderWay { host, who, without, stamp, .. } =
            self.clients.asked.get_mut(&id).expect("it was asked");
        let (by, without) = ((id, *host, *who), std::mem::take(without));
        let is_first = stamp.is_none();
        self.judge_rights(by, is_first, &without, reply);
        let UnderWay { stamp, request, .. } = &self.clients.asked[&id];
        let mut is_new = match request {
            // A mark for digests changes nothing, and so shares its revision.
            Request::Digest { .. } => return,
            // What is so already shares its revision, too.
            Request::ChangeLayout(_) => false,
            Request::Write { parts } => parts.iter().any(|part| part.change != Change::Keep),
            _ => true,
        };
        if let Some(stamp) = stamp {
            match self.judges.once.told(stamp, reply) {
                Ok(is_first) => is_new &= is_first,
                Err(broken) => self.find_all(vec![broken]),
            }
        }
        if let Reply::Written(receipt) = reply {
            let broken = self.judges.acknowledged(receipt, is_new);
            self.find_all(broken);
        }
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
        // Numbers rise with time.
        let of_late = self.clients.asked.iter().rev();
        let of_late = of_late.take_while(|(_, asked)| asked.invoked_us + CLOSED_US >= self.now_us);
        let lost = of_late.filter(|(_, asked)| asked.host == host && !asked.is_closed && !asked.is_answered);
        let lost: Vec<u64> = lost.map(|(id, _)| *id).collect();
        for id in lost.into_iter().rev() {
            self.close(id, None, Outcome::Unknown);
        }
    }

    /// The client knows as much as it ever will. `outcome` is that of a failure.
    fn close(&mut self, id: u64, reply: Option<Reply>, outcome: Outcome) {
        let asked = self.clients.asked.get_mut(&id).expect("closed once");
        asked.is_closed = true;
        let (by, host, stamp) = (asked.by, asked.host, asked.stamp);
        if let Some(stamp) = &stamp
            && outcome == Outcome::Rejected
        {
            let broken = self.judges.rejected.rejected(stamp);
            self.find_all(broken.into_iter().collect());
        }
        match by {
            Asker::Onlooker => {
                match reply {
                    None => {}
                    Some(Reply::Cluster(state)) => {
                        let broken = self.judges.shown(&state);
                        self.find_of(host, broken);
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
            // Whoever sent the original hears of it, or sends it again.
            Asker::Copy => return,
            Asker::Client(client) => {
                self.clients.open -= 1;
                let after_us = self.random.between(1_000, 60_000);
                self.schedule(after_us, Next::Act { client });
            }
            Asker::Pipe(..) => self.clients.open -= 1,
            Asker::Passer => {}
            Asker::Judge => {
                self.clients.told.insert(id, reply.clone());
            }
        }
        self.log(format_args!(
            "#{id}: {}",
            reply.as_ref().map_or_else(|| format!("{outcome:?}"), show_reply)
        ));
        match by {
            Asker::Client(client) if stamp.is_some() => {
                if let Some((pending, known)) = self.heard_stamped(client, reply.as_ref()) {
                    self.remember_stamped(id, &pending, known.as_ref());
                }
            }
            Asker::Pipe(pipe, place) => {
                self.remember(id, reply.clone(), outcome);
                self.hear_in_pipe(pipe, place, reply.as_ref(), outcome);
            }
            _ => self.remember(id, reply, outcome),
        }
    }

    /// Whoever still waits to send a write again gives it up.
    pub(crate) fn give_up_pending(&mut self) {
        for pending in self.take_pending() {
            self.clients.last += 1;
            let id = self.clients.last;
            self.remember_stamped(id, &pending, None);
        }
    }

    pub(crate) fn shard_of_key(&self, key: &Bytes) -> Option<ShardId> {
        Some(self.layout.as_ref()?.shard_of_slot(slot_of(key)))
    }

    /// Which shard a request is about, if the cluster is born.
    pub(crate) fn shard_of(&self, request: &Request) -> Option<ShardId> {
        match request {
            Request::Scan(scan) => Some(scan.shard),
            Request::OpenSession { shard } => Some(*shard),
            _ => self.shard_of_key(request.keys().next()?),
        }
    }

    /// Where a shard's replicas are.
    pub(crate) fn hosts_of(&self, shard: ShardId) -> Vec<usize> {
        let shard = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        let replicas = shard.map(|shard| &shard.replicas[..]).unwrap_or_default();
        replicas.iter().map(|replica| host_of(replica.node)).collect()
    }
}
