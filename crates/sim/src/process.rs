//! The driver of one simulated process: hands events to its node, and carries out what it wants done.
//!
//! The same duties as the server's threads have, each at its own pace: the log takes one batch at a time, entries
//! are applied in order, reads overtake each other (`data`). A turn ends a little after the first event since the
//! last, so several events share one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringfort_consensus::inspect::{SeenKind, inspect};
use ringfort_node::{Config, Effect, Event, Identity, Node, NodeError, is_member};
use ringfort_ring::Layout;
use ringfort_storage::{DataDir, StorageError, Who};
use ringfort_types::limits::TICK_MS;
use ringfort_types::{Answer, LogRecall, NodeId, PeerFrame, PeerMessage, RaftMessage, Reply, Token};

use crate::host::{Begin, Fate, Process, Work};
use crate::judges::{BOUNDED, NODE_GOES_ON, WIPED_IS_REFUSED};
use crate::network::node;
use crate::world::{Next, World};

/// Longest time from an event to the end of its turn, in microseconds.
const TURN_US_MAX: u64 = 300;
/// Longest time that applying or reading takes, in microseconds.
pub(crate) const TABLE_US_MAX: u64 = 2_000;
/// Longest time that a chunk of a snapshot takes to be read or stored, in microseconds.
const CHUNK_US_MAX: u64 = 20_000;
/// Until a process that could not start for lack of room is started again, in microseconds.
const START_AGAIN_US: u64 = 500_000;
/// A slow process takes no longer for anything, in microseconds: of a disk that is slow, too, it would have to notice that it hangs.
const SLOWED_US_MAX: u64 = 2_500_000;

impl World {
    /// A process begins.
    pub(crate) fn start(&mut self, at: usize) {
        let fresh = self.random.next();
        // Whoever has joined knows of no birth.
        let listed = if at < self.plan.nodes { 0..self.plan.nodes } else { at..at + 1 };
        let name = |other: usize| if other == at { self.hosts[at].name.clone() } else { String::new() };
        let names: Vec<String> = listed.clone().map(name).collect();
        // Of the list only those that are not born yet make use, and they have not moved.
        let address = |other: usize| {
            let host = &self.hosts[other];
            if other == at { host.address.clone() } else { host.first_address.clone() }
        };
        let addresses: Vec<String> = listed.map(address).collect();
        let (shards, replicas) = (self.plan.shards, self.plan.replicas);
        let levels = self.levels_of_next(at);
        let host = &mut self.hosts[at];
        host.disk.unplug(false);
        host.disk.disk.fail_syncs(false);
        let who = Who { name: Some(host.name.clone()), address: host.address.clone(), fresh };
        let (dir, stored) = match DataDir::open_anywhere(Arc::new(host.disk.clone()), &who, is_member) {
            Ok(opened) => opened,
            Err(error) => return self.can_not_start(at, &error),
        };
        let replace_after_ms = self.plan.replace_after_ms;
        let address = host.address.clone();
        let config = Config { address, addresses, names, shards, replicas, replace_after_ms, levels };
        let old = host.old_layout.take().map(|layout| layout.encode());
        let layout = old.or_else(|| dir.layout().unwrap_or_default());
        let identity = Identity {
            incarnation: stored.incarnation,
            boot: stored.boot,
            birth: stored.birth.clone(),
            layout,
            process: fresh.max(1),
            marks: dir.marks().unwrap_or_default(),
        };
        let node = match Node::new(config, &identity, host.clock.read(self.now_us)) {
            Ok(node) => node,
            Err(NodeError::Level(why)) if self.ends_for_level(at, &why) => return,
            Err(error) => return self.find(NODE_GOES_ON, format_args!("n{} can't start: {error}", at + 1)),
        };
        let host = &mut self.hosts[at];
        host.life += 1;
        host.process = Some(Process {
            dir,
            incarnation: stored.incarnation,
            node,
            levels,
            log: None,
            shards: BTreeMap::new(),
            lost: BTreeSet::new(),
            met: BTreeSet::new(),
            newly_damaged: Vec::new(),
            opening: None,
            generations: BTreeMap::new(),
            held: BTreeMap::new(),
            writers: BTreeMap::new(),
            stores_until_us: 0,
            turn_is_due: false,
            applies_until_us: 0,
            is_serving: false,
            is_stopping: false,
            stopping_ticks: None,
            is_full: false,
            hangs_since_us: None,
            is_hung: false,
            last_batch: 0,
            went_by: None,
        });
        self.log(format_args!("n{} starts, boot {}", at + 1, stored.boot));
        self.connect_all(at);
        self.later(at, 0, Work::Tick);
        self.later(at, 1_000_000, Work::Stats);
        self.end_turn_soon(at);
    }

    /// It may not have the room to. Otherwise it should have.
    pub(crate) fn can_not_start(&mut self, at: usize, error: &StorageError) {
        if !error.is_disk_full() {
            return self.find(NODE_GOES_ON, format_args!("n{} can't use its directory: {error}", at + 1));
        }
        self.log(format_args!("n{} ends for lack of room", at + 1));
        self.restart_after(at, false, START_AGAIN_US);
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
        let sealed = std::mem::take(&mut host.sealed);
        for (shard, generation, durable) in host.tables.memory.generations() {
            let sealed = sealed.get(&(shard, generation)).map_or(&[][..], Vec::as_slice);
            let left = self.random.pick(&[&[durable], sealed].concat());
            host.tables.memory.fall_back_generation(shard, generation, left);
        }
        self.judges.ended(at);
        self.disconnect_all(at);
        self.forget_requests_of(at);
    }

    /// Ends a process and starts another one so much later.
    pub(crate) fn restart_after(&mut self, at: usize, power_lost: bool, after_us: u64) {
        self.end(at, power_lost);
        let life = self.hosts[at].life;
        let after_us = if self.is_calm { after_us.min(100_000) } else { after_us };
        self.schedule(after_us.max(10_000), Next::Start { host: at, life });
    }

    /// Something that its process does, so long from now if it is as quick as ever.
    pub(crate) fn later(&mut self, at: usize, after_us: u64, work: Work) {
        let host = &self.hosts[at];
        let (life, slowness) = (host.life, host.slowness);
        let after_us = (after_us * slowness).min(after_us.max(SLOWED_US_MAX));
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
        let host = &mut self.hosts[at];
        if let Work::Tick = work {
            let every_us = host.clock.world_us(TICK_MS * 1_000);
            let life = host.life;
            self.schedule(every_us, Next::Work { host: at, life, work: Work::Tick });
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
            Work::Tick => {
                self.hear(at, Event::Tick);
                self.count_down(at);
            }
            Work::Hear(event) => self.hear(at, event),
            Work::Turn => self.take_turn(at),
            Work::Sync { number, records } => self.sync(at, number, records),
            Work::Seal { after } => self.seal_log(at, after),
            Work::Apply(jobs) => self.apply(at, jobs),
            Work::Read(job) => self.read(at, &job),
            Work::SaveBirth(bytes) => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                match process.dir.save_birth(&bytes, ringfort_node::is_member(&bytes)) {
                    Ok(()) => self.hear(at, Event::BirthSaved),
                    Err(error) => self.can_not_start(at, &error),
                }
            }
            Work::Open { born, shards } => self.open(at, &born, &shards),
            Work::SaveLayout(layout, told) => {
                self.hosts[at].layouts.push(layout.clone());
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                // There may be no room. Then another node is asked for it at the next start.
                let _lost = process.dir.save_layout(layout.epoch, &layout.encode(), None);
                for line in told {
                    self.log(format_args!("n{}: {line}", at + 1));
                }
            }
            Work::SaveMarks(bytes) => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                let is_kept = process.dir.save_marks(&bytes).is_ok();
                self.hear(at, Event::MarksSaved(is_kept));
            }
            Work::Replay => self.replay(at),
            Work::Fetch { shard, from, to, bytes_max } => {
                let process = self.hosts[at].process.as_ref().expect("just looked at");
                let log = process.log.as_ref().expect("a node fetches after it was opened");
                match log.reader().entries(shard, from, to, bytes_max) {
                    Ok(entries) => self.hear(at, Event::Fetched { shard, entries }),
                    // Gone meanwhile: the node is about to hear of it.
                    Err(StorageError::NotStored { .. }) => {
                        self.hear(at, Event::Fetched { shard, entries: Vec::new() });
                    }
                    Err(error) => {
                        self.find(NODE_GOES_ON, format_args!("n{} can't fetch: {error}", at + 1));
                    }
                }
            }
            Work::Install { shard, base } => self.install(at, shard, base),
            Work::Begin(begin) => self.begin_anew(at, begin),
            Work::End { shard, generation } => self.end_replica(at, shard, generation),
            Work::TakeSnapshot { shard, transfer } => self.take_snapshot(at, shard, transfer),
            Work::ReadChunk { transfer } => self.read_chunk(at, transfer),
            Work::StoreChunk { shard, generation, chunk } => self.store_chunk(at, shard, generation, &chunk),
            Work::DropTable { shard, generation } => self.drop_table(at, shard, generation),
            Work::Collect => self.collect(at),
            Work::Stats => self.report_stats(at),
            Work::Exit => {
                self.log(format_args!("n{} has stopped", at + 1));
                self.close_log(at);
                let after_us = self.random.between(10_000, 1_000_000);
                self.restart_after(at, false, after_us);
            }
        }
    }

    pub(crate) fn hear(&mut self, at: usize, event: Event) {
        let now = self.hosts[at].clock.read(self.now_us);
        let process = self.hosts[at].process.as_mut().expect("only processes hear");
        if let Event::Stop = event {
            process.stopping_ticks = Some(0);
        }
        process.node.handle(now, event);
        self.end_turn_soon(at);
    }

    fn take_turn(&mut self, at: usize) {
        let now = self.hosts[at].clock.read(self.now_us);
        let process = self.hosts[at].process.as_mut().expect("only processes take turns");
        process.turn_is_due = false;
        let effects = process.node.take_effects(now);
        let (goes_by, levels) = (process.node.layout().cloned(), process.levels);
        let too_full = process.node.loads().into_iter().find(|load| load.now > load.most);
        if let Some(load) = too_full {
            self.find(
                BOUNDED,
                format_args!("n{} has {} {}, more than {}", at + 1, load.now, load.what, load.most),
            );
        }
        self.look_at_reports(at);
        if let Some(layout) = goes_by {
            self.notice_layout(at, &layout);
            self.look_at_level(at, levels, layout.level);
            let broken = self.judges.layouts.goes_by(at, &layout);
            self.find_of(at, broken.into_iter().collect());
        }
        for effect in effects {
            self.carry_out(at, effect);
        }
        if let Some(process) = self.hosts[at].process.as_mut() {
            for shard in std::mem::take(&mut process.newly_damaged) {
                self.judges.heard_of_damage(at, shard);
            }
        }
    }

    /// What a process has told of itself, and what it knows of the others.
    fn look_at_reports(&mut self, at: usize) {
        let node = &self.hosts[at].process.as_ref().expect("only processes report").node;
        let reports = &mut self.judges.reports;
        reports.told(node.log_mark().process, node.told_report());
        let others = node.layout().into_iter().flat_map(|layout| &layout.members).map(|member| member.id);
        let heard = others.filter_map(|other| Some((other, node.heard_report(other)?)));
        let broken = heard.filter_map(|(other, heard)| reports.heard(at, other, heard)).collect();
        self.find_of(at, broken);
    }

    /// A process goes by this layout.
    fn notice_layout(&mut self, at: usize, layout: &Arc<Layout>) {
        if self.layout.is_none() {
            self.judges.born(layout);
        }
        if self.layout.as_ref().is_none_or(|known| known.epoch < layout.epoch) {
            self.layout = Some(Arc::clone(layout));
        }
        let process = self.hosts[at].process.as_mut().expect("only processes go by layouts");
        let before = process.went_by.replace(Arc::clone(layout));
        if let Some(before) = before.filter(|before| before.epoch != layout.epoch) {
            self.follow_members(at, &before, layout);
        }
    }

    fn carry_out(&mut self, at: usize, effect: Effect) {
        // One of a turn's effects may have ended the process.
        if self.hosts[at].process.is_none() {
            return;
        }
        match effect {
            Effect::SaveBirth(bytes) => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::SaveBirth(bytes));
            }
            Effect::Open { born, shards } => {
                let after_us = self.random.between(100, 50_000);
                self.later(at, after_us, Work::Open { born, shards });
            }
            Effect::SaveLayout { layout, told } => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::SaveLayout(layout, told));
            }
            Effect::SaveMarks(bytes) => {
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::SaveMarks(bytes));
            }
            Effect::Persist { number, records } => {
                let broken = self.judges.wrote(at, &records);
                self.find_of(at, broken);
                let after_us = self.random.between(100, self.plan.sync_us_max);
                self.later(at, after_us, Work::Sync { number, records });
            }
            Effect::Send { to, messages } => self.send_messages(at, to, messages),
            Effect::Apply(jobs) => {
                for job in &jobs {
                    let broken = self.judges.damaged.used(at, job.shard, "applies an entry to");
                    let in_force = |world: &World| Some(world.judges.configurations.latest(job.shard)?.at);
                    let before = in_force(self);
                    let handed_out = self.judges.handed_out(job.shard, &job.entry);
                    self.find_of(at, broken.into_iter().chain(handed_out).collect());
                    if in_force(self) != before {
                        self.sunder_now(job.shard);
                        self.see_off(job.shard);
                    }
                }
                // An ambush may have ended it.
                if self.hosts[at].process.is_some() {
                    self.apply_later(at, Work::Apply(jobs));
                }
            }
            Effect::Install { shard, base } => self.apply_later(at, Work::Install { shard, base }),
            Effect::Begin { shard, peer, generation, replaces, born } => {
                let begin = Begin { shard, peer, generation, replaces, born };
                self.apply_later(at, Work::Begin(begin));
            }
            Effect::End { shard, generation } => self.apply_later(at, Work::End { shard, generation }),
            Effect::TakeSnapshot { shard, transfer } => {
                self.apply_later(at, Work::TakeSnapshot { shard, transfer });
            }
            Effect::ReadChunk { transfer } => {
                let after_us = self.random.between(10, CHUNK_US_MAX);
                self.later(at, after_us, Work::ReadChunk { transfer });
            }
            Effect::DropSnapshot { transfer } => {
                self.hosts[at].process.as_mut().expect("just looked at").held.remove(&transfer);
            }
            Effect::StoreChunk { shard, generation, chunk } => {
                self.store_later(at, Work::StoreChunk { shard, generation, chunk });
            }
            Effect::DropTable { shard, generation } => {
                self.store_later(at, Work::DropTable { shard, generation });
            }
            Effect::Read(jobs) => {
                for job in jobs {
                    let broken = self.judges.damaged.used(at, job.shard, "reads");
                    self.find_all(broken.into_iter().collect());
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
            Effect::Refuse { link, with } => self.refuse(at, link as usize, with),
            Effect::Notice(line) => self.log(format_args!("n{}: {line}", at + 1)),
            Effect::Serving => {
                self.log(format_args!("n{} serves", at + 1));
                if self.hosts[at].shelf.is_some() {
                    self.find(WIPED_IS_REFUSED, format_args!("n{} serves with an empty directory", at + 1));
                }
                self.hosts[at].process.as_mut().expect("just looked at").is_serving = true;
            }
            // Whether the directory is removed, or the log keeps what nobody applies, makes no difference to anybody.
            Effect::Discard | Effect::Retire(_) => {}
            Effect::Refused(reason) => self.be_refused(at, &reason),
            // Whatever else this turn brings is still done.
            Effect::Stopped => self.later(at, 1_000, Work::Exit),
            Effect::Removed => self.be_removed(at),
        }
    }

    /// It must not go on.
    fn be_refused(&mut self, at: usize, reason: &str) {
        self.log(format_args!("n{} must not go on: {reason}", at + 1));
        if self.ends_for_level(at, reason) {
            return;
        }
        if self.hosts[at].is_older && self.hosts[at].shelf.is_none() {
            return match self.hosts[at].fate {
                Fate::Here => self.lose_older(at),
                // Somebody has started it once more.
                Fate::Lost | Fate::Removed => self.end(at, false),
            };
        }
        if self.hosts[at].shelf.is_none() {
            self.find(NODE_GOES_ON, format_args!("n{} ends: {reason}", at + 1));
        }
        self.end(at, false);
    }

    /// Does something to the shards, after all that is to be done before it.
    fn apply_later(&mut self, at: usize, work: Work) {
        let takes_us = self.random.between(10, TABLE_US_MAX);
        let process = self.hosts[at].process.as_mut().expect("only processes apply");
        process.applies_until_us = process.applies_until_us.max(self.now_us) + takes_us;
        let (until_us, life) = (process.applies_until_us, self.hosts[at].life);
        self.schedule_at(until_us, Next::Work { host: at, life, work });
    }

    /// Does something to tables that arrive, after all that is to be done before it.
    fn store_later(&mut self, at: usize, work: Work) {
        let takes_us = self.random.between(10, CHUNK_US_MAX);
        let process = self.hosts[at].process.as_mut().expect("only processes store");
        process.stores_until_us = process.stores_until_us.max(self.now_us) + takes_us;
        let (until_us, life) = (process.stores_until_us, self.hosts[at].life);
        self.schedule_at(until_us, Next::Work { host: at, life, work });
    }

    /// One node won't have another, and says so on the connection that it came in on.
    fn refuse(&mut self, at: usize, whom: usize, with: PeerMessage) {
        match &with {
            PeerMessage::Refused(refusal) => self.judge_refusal(at, whom, &refusal.reason),
            PeerMessage::LogRecall(recall) => self.judge_recall(at, whom, *recall),
            other => unreachable!("nobody is refused with {other:?}"),
        }
        if !self.network.link(whom, at).is_up {
            return;
        }
        if let Some(frame) = self.frame(at, node(whom), vec![with]) {
            let life = self.hosts[whom].life;
            let after_us = self.random.between(50, self.plan.message_us_max);
            let work = Work::Hear(Event::Peer { link: at as u64, frame });
            self.schedule(after_us, Next::Work { host: whom, life, work });
        }
        self.break_link(whom, at);
    }

    fn judge_recall(&mut self, at: usize, whom: usize, recall: LogRecall) {
        let what = format!("n{} tells n{} that its log was at batch {}", at + 1, whom + 1, recall.synced);
        let host = &self.hosts[whom];
        // An answer to a frame of the process before it, which came late, is nothing to the one that is there.
        let is_meant =
            |process: &Process| process.node.log_mark().process == recall.process && !host.is_older;
        if host.process.as_ref().is_some_and(is_meant) {
            self.find(NODE_GOES_ON, format_args!("{what}"));
        }
        self.log(format_args!("{what}"));
    }

    fn judge_refusal(&mut self, at: usize, whom: usize, reason: &str) {
        // It may not have heard yet who has joined.
        let process = self.hosts[at].process.as_ref().expect("only processes refuse");
        let is_member = process.node.layout().is_none_or(|layout| layout.member(node(whom)).is_some());
        let is_known = is_member && !self.hosts[whom].was_shelved && self.hosts[at].shelf.is_none();
        // Or frames of an earlier process of its are still on their way.
        let what = format!("n{} refuses n{}: {reason}", at + 1, whom + 1);
        if is_known && !self.is_for_level(reason) {
            self.find(NODE_GOES_ON, format_args!("{what}"));
        }
        self.log(format_args!("{what}"));
    }

    fn frame(&self, at: usize, to: NodeId, messages: Vec<PeerMessage>) -> Option<PeerFrame> {
        let process = self.hosts[at].process.as_ref()?;
        let (cluster, epoch, log) = (process.node.cluster(), process.node.epoch(), process.node.log_mark());
        Some(PeerFrame {
            from: node(at),
            to,
            incarnation: process.incarnation,
            cluster,
            epoch,
            log,
            messages,
        })
    }

    fn send_messages(&mut self, at: usize, to: NodeId, messages: Vec<PeerMessage>) {
        let mut hands_over = Vec::new();
        for message in &messages {
            // What a disk says that has lost something counts for nothing, and may be anything.
            if let PeerMessage::Raft(RaftMessage { shard, message }) = message
                && !self.hosts[at].is_older
            {
                let seen = inspect(message).expect("nodes make messages that can be read");
                let broken = self.judges.said(at, *shard, &seen);
                self.find_all(broken);
                if seen.kind == SeenKind::TimeoutNow {
                    hands_over.push(*shard);
                }
            }
        }
        if let Some(frame) = self.frame(at, to, messages) {
            self.send(at, to.0 as usize - 1, frame);
        }
        for shard in hands_over {
            self.retire_now(at, shard);
        }
    }

    /// Takes an answer to whoever asked.
    pub(crate) fn answer(&mut self, at: usize, token: Token, reply: Reply) {
        // What a node has asked of itself, nobody waits for.
        if token.origin == Token::NOBODY.origin {
            return;
        }
        if token.origin == node(at) {
            self.answer_client(at, token.id, reply);
        } else {
            self.send_messages(at, token.origin, vec![PeerMessage::Answer(Answer { id: token.id, reply })]);
        }
    }
}
