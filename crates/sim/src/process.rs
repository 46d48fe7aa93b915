//! The driver of one simulated process: hands events to its node, and carries out what it wants done.
//!
//! The same duties as the server's threads have, each at its own pace: the log takes one batch at a time, entries
//! are applied in order, reads overtake each other. A turn ends a little after the first event since the last,
//! so several events share one.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::plan::Plant;
use bytes::Bytes;
use ringfort_node::{ApplyJob, Config, Effect, Event, Identity, Node, Opened, TableStats};
use ringfort_shard::Shard;
use ringfort_storage::{DataDir, LogOptions, Tables, Who};
use ringfort_types::limits::TICK_MS;
use ringfort_types::{
    Index, LogEntry, NodeId, PeerFrame, PeerId, PeerMessage, Record, Reply, Request, ShardId, Token,
};

use crate::host::{Process, Trap, Work};
use crate::network::node;
use crate::world::{Next, World};

/// Small, so that the log has several segments.
const SEGMENT_BYTES: u64 = 64 * 1024;
/// Longest time from an event to the end of its turn, in microseconds.
const TURN_US_MAX: u64 = 300;
/// Longest time that applying or reading takes, in microseconds.
const TABLE_US_MAX: u64 = 2_000;

impl World {
    /// A process begins.
    pub(crate) fn start(&mut self, at: usize) {
        let fresh_incarnation = self.random.next();
        let names: Vec<String> = (0..self.hosts.len())
            .map(|other| if other == at { format!("node{}", at + 1) } else { String::new() })
            .collect();
        let addresses: Vec<String> = self.hosts.iter().map(|host| host.address.clone()).collect();
        let host = &mut self.hosts[at];
        host.disk.unplug(false);
        host.disk.lie(false);
        host.disk.disk.fail_syncs(false);
        let who = Who { name: Some(names[at].clone()), address: host.address.clone(), fresh_incarnation };
        let (dir, stored) = match DataDir::open(Arc::new(host.disk.clone()), &who) {
            Ok(opened) => opened,
            Err(error) => return self.find(format_args!("n{} can't open its directory: {error}", at + 1)),
        };
        let config =
            Config { address: host.address.clone(), addresses, names, shards: self.plan.shards, replicas: 3 };
        let identity =
            Identity { incarnation: stored.incarnation, boot: stored.boot, birth: stored.birth.clone() };
        let node = match Node::new(config, &identity, host.clock.read(self.now_us)) {
            Ok(node) => node,
            Err(error) => return self.find(format_args!("n{} can't start: {error}", at + 1)),
        };
        host.life += 1;
        host.process = Some(Process {
            dir,
            incarnation: stored.incarnation,
            node,
            log: None,
            shards: BTreeMap::new(),
            turn_is_due: false,
            applies_until_us: 0,
            is_serving: false,
            is_stopping: false,
        });
        self.log(format_args!("n{} starts, boot {}", at + 1, stored.boot));
        self.connect_all(at);
        self.later(at, 0, Work::Tick);
        self.later(at, 1_000_000, Work::Stats);
        self.end_turn_soon(at);
    }

    /// A process ends, at once. What it had not synced may be lost with the power.
    pub(crate) fn end(&mut self, at: usize, power_lost: bool) {
        let seed = self.random.next();
        let host = &mut self.hosts[at];
        host.life += 1;
        host.process = None;
        host.trap = None;
        host.paused = None;
        host.stalled.clear();
        host.disk.unplug(false);
        host.disk.disk.fail_syncs(false);
        if power_lost {
            host.disk.disk.crash(seed);
        }
        for (shard, sealed) in std::mem::take(&mut host.sealed) {
            let durable = host.tables.open(shard).expect("memory opens").durable();
            let left = self.random.pick(&[&[durable], &sealed[..]].concat());
            host.tables.fall_back(shard, left);
        }
        self.disconnect_all(at);
        self.forget_requests_of(at);
    }

    /// Ends a process and starts another one after a while.
    pub(crate) fn restart(&mut self, at: usize, power_lost: bool) {
        let longest_us =
            if self.is_calm { 100_000 } else { self.random.pick(&[100_000, 1_000_000, 4_000_000]) };
        let after_us = self.random.between(10_000, longest_us);
        self.restart_after(at, power_lost, after_us);
    }

    /// Ends a process and starts another one so much later.
    pub(crate) fn restart_after(&mut self, at: usize, power_lost: bool, after_us: u64) {
        self.end(at, power_lost);
        let life = self.hosts[at].life;
        self.schedule(after_us, Next::Start { host: at, life });
    }

    fn later(&mut self, at: usize, after_us: u64, work: Work) {
        let life = self.hosts[at].life;
        self.schedule(after_us, Next::Work { host: at, life, work });
    }

    fn end_turn_soon(&mut self, at: usize) {
        let Some(process) = self.hosts[at].process.as_mut() else { return };
        if !process.turn_is_due {
            process.turn_is_due = true;
            let after_us = self.random.below(TURN_US_MAX);
            self.later(at, after_us, Work::Turn);
        }
    }

    /// A process does something, unless it stands still.
    pub(crate) fn work(&mut self, at: usize, work: Work) {
        if let Work::Tick = work {
            let every_us = self.hosts[at].clock.world_us(TICK_MS * 1_000);
            self.later(at, every_us, Work::Tick);
        }
        let host = &mut self.hosts[at];
        if host.process.is_none() {
            return;
        }
        if host.paused.is_some() {
            // Missed ticks are dropped.
            if !matches!(work, Work::Tick) {
                host.stalled.push_back(work);
            }
            return;
        }
        match work {
            Work::Tick => self.hear(at, Event::Tick),
            Work::Hear(event) => self.hear(at, event),
            Work::Turn => self.take_turn(at),
            Work::Sync { number, records } => self.sync(at, number, &records),
            Work::Apply(jobs) => self.apply(at, jobs),
            Work::Read(job) => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                let is_get = matches!(job.request, Request::Get { .. });
                let early = u64::from(is_get && self.plan.plant == Some(Plant::StaleRead));
                let read_at = Index(job.at.0.saturating_sub(early));
                let reply = process.shards[&job.shard].reader().query(&job.request, read_at);
                self.answer(at, job.token, reply);
            }
            Work::SaveBirth(bytes) => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                match process.dir.save_birth(&bytes) {
                    Ok(()) => self.hear(at, Event::BirthSaved),
                    Err(error) => self.find(format_args!("n{} can't save its birth: {error}", at + 1)),
                }
            }
            Work::Open { cluster, shards } => self.open(at, cluster, &shards),
            Work::Fetch { shard, from, to, bytes_max } => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                let log = process.log.as_ref().expect("a node fetches after it was opened");
                match log.reader().entries(shard, from, to, bytes_max) {
                    Ok(entries) => self.hear(at, Event::Fetched { shard, entries }),
                    Err(error) => self.find(format_args!("n{} can't fetch: {error}", at + 1)),
                }
            }
            Work::Stats => self.report_stats(at),
            Work::Exit => {
                self.log(format_args!("n{} has stopped", at + 1));
                self.restart(at, false);
            }
        }
    }

    fn hear(&mut self, at: usize, event: Event) {
        let now = self.hosts[at].clock.read(self.now_us);
        let process = self.hosts[at].process.as_mut().expect("only processes hear");
        process.node.handle(now, event);
        self.end_turn_soon(at);
    }

    fn take_turn(&mut self, at: usize) {
        let now = self.hosts[at].clock.read(self.now_us);
        let process = self.hosts[at].process.as_mut().expect("only processes take turns");
        process.turn_is_due = false;
        for effect in process.node.take_effects(now) {
            self.carry_out(at, effect);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        match effect {
            Effect::SaveBirth(bytes) => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::SaveBirth(bytes));
            }
            Effect::Open { cluster, shards } => {
                let after_us = self.random.between(100, 50_000);
                self.later(at, after_us, Work::Open { cluster, shards });
            }
            Effect::Persist { number, records } => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::Sync { number, records });
            }
            Effect::Send { to, messages } => self.send_messages(at, to, messages),
            Effect::Apply(jobs) => {
                let takes_us = self.random.between(10, TABLE_US_MAX);
                let now_us = self.now_us;
                let process = self.hosts[at].process.as_mut().expect("only processes have effects");
                process.applies_until_us = process.applies_until_us.max(now_us) + takes_us;
                let after_us = process.applies_until_us - now_us;
                self.later(at, after_us, Work::Apply(jobs));
            }
            Effect::Read(jobs) => {
                for job in jobs {
                    let after_us = self.random.between(10, TABLE_US_MAX);
                    self.later(at, after_us, Work::Read(job));
                }
            }
            Effect::Reply(answers) => {
                for answered in answers {
                    self.answer(at, answered.token, answered.reply);
                }
            }
            Effect::Fetch { shard, from, to, bytes_max } => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::Fetch { shard, from, to, bytes_max });
            }
            Effect::Refuse { link, reason } => {
                self.find(format_args!("n{} refuses n{}: {reason}", at + 1, link + 1));
            }
            Effect::Notice(line) => self.log(format_args!("n{}: {line}", at + 1)),
            Effect::Serving => {
                self.log(format_args!("n{} serves", at + 1));
                self.hosts[at].process.as_mut().expect("only processes have effects").is_serving = true;
            }
            Effect::Refused(reason) => {
                self.find(format_args!("n{} must not go on: {reason}", at + 1));
                self.end(at, false);
            }
            // Whatever else this turn brings is still done.
            Effect::Stopped => self.later(at, 1_000, Work::Exit),
        }
    }

    fn send_messages(&mut self, at: usize, to: NodeId, messages: Vec<PeerMessage>) {
        let Some(process) = self.hosts[at].process.as_ref() else { return };
        let frame = PeerFrame {
            from: node(at),
            to,
            incarnation: process.incarnation,
            cluster: process.node.cluster(),
            epoch: process.node.epoch(),
            messages,
        };
        self.send(at, to.0 as usize - 1, &frame);
    }

    /// Takes an answer to whoever asked.
    pub(crate) fn answer(&mut self, at: usize, token: Token, reply: Reply) {
        if token == Token::NOBODY {
            return;
        }
        if token.origin == node(at) {
            self.answer_client(at, token.id, reply);
        } else {
            self.send_messages(at, token.origin, vec![PeerMessage::Answer { id: token.id, reply }]);
        }
    }

    fn sync(&mut self, at: usize, number: u64, records: &[Record]) {
        let trap = self.hosts[at].trap.take();
        match trap {
            Some(Trap::Kill | Trap::PowerLoss) => self.hosts[at].disk.unplug(true),
            Some(Trap::FailedSync) => self.hosts[at].disk.disk.fail_syncs(true),
            None => {}
        }
        let process = self.hosts[at].process.as_mut().expect("only processes write");
        let log = process.log.as_mut().expect("a node persists after it was opened");
        match (log.append(records), trap) {
            (Ok(()), None) => {
                self.log(format_args!("n{} batch {number} of {} is durable", at + 1, records.len()));
                let broken = self.safety.synced(at, records);
                self.find_all(broken);
                let after_us = self.random.below(100);
                self.later(at, after_us, Work::Hear(Event::Persisted(number)));
            }
            (Ok(()), Some(trap)) => self.find(format_args!("n{} did not notice {trap:?}", at + 1)),
            (Err(error), None) => {
                self.find(format_args!("n{} can't write its log: {error}", at + 1));
                self.restart(at, false);
            }
            (Err(_), Some(trap)) => {
                self.log(format_args!("n{} dies of {trap:?} in batch {number}", at + 1));
                self.restart(at, trap == Trap::PowerLoss);
            }
        }
    }

    fn apply(&mut self, at: usize, jobs: Vec<ApplyJob>) {
        let mut applied: BTreeMap<ShardId, Index> = BTreeMap::new();
        for ApplyJob { shard: id, entry, waiters, copies } in jobs {
            let (index, term, waiting) = (entry.index, entry.term, waiters.len());
            self.log(format_args!("n{} applies {index} of term {term} in shard {id} for {waiting}", at + 1));
            let broken = self.safety.applied(at, id, &entry);
            self.find_all(broken);
            let process = self.hosts[at].process.as_mut().expect("only processes apply");
            let shard = process.shards.get_mut(&id).expect("only what was opened is applied to");
            applied.insert(id, entry.index);
            let loses = self.plan.plant == Some(Plant::LoseRows) && at == 1 && entry.index.0 % 32 == 0;
            if loses && waiters.is_empty() {
                shard.apply(&LogEntry { payload: Bytes::new(), ..entry }, copies);
                continue;
            }
            let replies = shard.apply(&entry, copies);
            if !waiters.is_empty() && waiters.len() != replies.len() {
                self.find(format_args!("n{}: {} wait for {} replies", at + 1, waiters.len(), replies.len()));
            }
            for (token, reply) in waiters.into_iter().zip(replies) {
                self.answer(at, token, reply);
            }
        }
        for id in applied.keys() {
            if self.random.chance(30) {
                self.seal(at, *id);
            }
        }
        self.hear(at, Event::Applied(applied.into_iter().collect()));
    }

    /// Makes it possible that a crash leaves a table as it is now, and perhaps sure that it leaves no less.
    fn seal(&mut self, at: usize, id: ShardId) {
        let flush = self.random.chance(30);
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes seal");
        let shard = process.shards.get_mut(&id).expect("only what was opened is sealed");
        shard.seal();
        let sealed = host.sealed.entry(id).or_default();
        if flush {
            shard.table().flush(Index(0)).expect("memory takes everything");
            sealed.clear();
        } else {
            sealed.push(shard.applied());
        }
    }

    fn open(&mut self, at: usize, cluster: u64, wanted: &[ShardId]) {
        match self.recover(at, cluster, wanted) {
            Ok(opened) => {
                self.log(format_args!("n{} has opened {opened:?}", at + 1));
                self.hear(at, Event::Opened(opened));
            }
            Err(error) => self.find(format_args!("n{} can't open its data: {error}", at + 1)),
        }
    }

    fn recover(
        &mut self,
        at: usize,
        cluster: u64,
        wanted: &[ShardId],
    ) -> Result<BTreeMap<ShardId, Opened>, Box<dyn std::error::Error>> {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes open");
        let (log, mut recovered) =
            process.dir.open_log(cluster, LogOptions { segment_bytes: SEGMENT_BYTES })?;
        let mut opened = BTreeMap::new();
        let mut behind = BTreeMap::new();
        for id in wanted {
            let shard = Shard::open(*id, host.tables.open(*id)?)?;
            host.sealed.entry(*id).or_default();
            let mut found = Opened::default();
            if let Some(stored) = recovered.remove(id) {
                (found.hard_state, found.terms, found.last) = (stored.hard_state, stored.terms, stored.last);
            }
            found.hard_state.commit = found.hard_state.commit.max(shard.applied());
            if self.plan.plant == Some(Plant::ForgetVote) {
                found.hard_state.vote = PeerId(0);
            }
            behind.insert(*id, (shard.applied(), found.hard_state.commit));
            process.shards.insert(*id, shard);
            opened.insert(*id, found);
        }
        let reader = log.reader();
        let mut replayed = Vec::new();
        let shards = &mut process.shards;
        reader.replay(&behind, &mut |id, entry| {
            shards.get_mut(&id).expect("only these are replayed").apply(&entry, 0);
            replayed.push((id, entry));
            Ok(())
        })?;
        for (id, found) in &mut opened {
            let shard = &shards[id];
            found.applied = shard.applied();
            found.revision = shard.revision();
            found.clock = shard.clock();
            if found.applied != found.hard_state.commit {
                let (applied, commit) = (found.applied, found.hard_state.commit);
                return Err(format!("shard {id} is replayed to {applied} only, not to {commit}").into());
            }
            if found.last > found.applied {
                found.tail = reader.entries(*id, found.applied.next(), found.last.next(), usize::MAX)?;
            }
        }
        process.log = Some(log);
        if self.plan.plant == Some(Plant::SkipSync) {
            host.disk.lie(true);
        }
        for (id, entry) in replayed {
            let broken = self.safety.applied(at, id, &entry);
            self.find_all(broken);
        }
        Ok(opened)
    }

    fn report_stats(&mut self, at: usize) {
        let process = self.hosts[at].process.as_ref().expect("only processes report");
        let stats = |shard: &Shard| TableStats {
            shard: shard.id(),
            revision: shard.revision(),
            keys_estimate: shard.table().rows_estimate(),
            bytes_estimate: shard.table().bytes_estimate(),
        };
        let stats = process.shards.values().map(stats).collect();
        self.hear(at, Event::Stats(stats));
        self.later(at, 1_000_000, Work::Stats);
    }

    pub(crate) fn find_all(&mut self, broken: Vec<String>) {
        for what in broken {
            self.find(format_args!("{what}"));
        }
    }
}
