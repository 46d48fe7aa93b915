//! Clusters that change their shape: hosts that join, members that are drained or leave, nodes that are lost for good and replaced.
//!
//! A host's number is its node's, less one, and nodes get theirs as they join. So hosts join one after the other: each has its directory
//! and its incarnation first, asks one member after the other, again and again, and begins once some node's layout has it.
//!
//! Nothing here takes away more than a group can do without ([`World::can_lose`]): what is lost of a majority is lost, and nobody's fault.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringfort_node::remembered_in;
use ringfort_ring::{Layout, NoPlace};
use ringfort_storage::{DataDir, Who};
use ringfort_types::{
    Configuration, Epoch, Incarnation, LayoutChange, Newcomer, NodeId, Replica, Request, ShardId, Standing,
};

use crate::ambushes::TRIES;
use crate::clients::Asker;
use crate::host::{Fate, Host, Work};
use crate::judges::NODE_GOES_ON;
use crate::network::{host_of, node};
use crate::plan::Fault;
use crate::random::Random;
use crate::world::{Next, World};

/// How many members there may be.
const MEMBERS_MAX: usize = 9;
/// Between two questions of a host that wants to join, at most, in microseconds.
const ASK_AGAIN_US: u64 = 600_000;
/// How long a question takes at most.
const TIMEOUT_MS: u32 = 3_000;
/// So long after it was asked for, a change of the layout has happened or not, in microseconds.
const ASKED_US: u64 = 6_000_000;
/// Voters of a group that can do without one for good.
const VOTERS_MIN: usize = 3;

/// How old an image is at least that a disk is put back on, in microseconds.
const IMAGE_US_MIN: u64 = 1_000_000;
/// So often it is looked whether that may be now, and how long apart.
const LOOKS: u32 = 40;
const LOOK_US: u64 = 250_000;

/// A host that wants to join.
#[derive(Debug)]
pub(crate) struct Joining {
    name: String,
    replaces: bool,
    luck: u64,
    /// What it asks for, once it is its turn.
    asks: Option<(Newcomer, Box<Host>)>,
}

impl World {
    /// The cluster's shape is to change.
    pub(crate) fn reshape(&mut self, fault: Fault, (host, other): (usize, usize), for_us: u64, luck: u64) {
        let mut random = Random::new(luck);
        let is_sound = !self.is_missing_something();
        match fault {
            Fault::Join => {
                let number = self.hosts.len() + self.joining.len() + 1;
                self.enlist(format!("node{number}"), false, luck, 0);
            }
            Fault::Drain if is_sound => self.stand(host, Standing::Draining),
            Fault::Leave if is_sound => self.stand(host, Standing::Leaving),
            Fault::Activate => {
                let members = self.layout.iter().flat_map(|layout| &layout.members);
                let passive = members.filter(|member| member.standing != Standing::Active);
                if let Some(member) = passive.map(|member| member.id).next() {
                    self.want(&LayoutChange::Stand(member, Standing::Active));
                }
            }
            Fault::Copies if is_sound => {
                // One copy is none if a disk is lost.
                let most = if self.may_lose { &[3, 5][..] } else { &[1, 3, 3, 5] };
                self.want(&LayoutChange::Copies(random.pick(most)));
            }
            Fault::Replace if self.can_lose(host, None) => {
                self.log(format_args!("n{} is lost for good", host + 1));
                self.end(host, true);
                self.hosts[host].fate = Fate::Lost;
                let broken = self.judges.undestroyed.lost(node(host), &self.judges.configurations);
                self.find_all(broken);
                self.enlist(self.hosts[host].name.clone(), true, luck, for_us);
            }
            Fault::Return => {
                let gone: Vec<usize> = (0..self.hosts.len()).filter(|host| self.is_gone(*host)).collect();
                if !gone.is_empty() {
                    let host = random.pick(&gone);
                    self.tell_where_others_are(&[host]);
                    self.start(host);
                }
            }
            Fault::OldLayout => {
                let kept = &self.hosts[host].layouts;
                if self.hosts[host].process.is_some() && self.hosts[host].shelf.is_none() && !kept.is_empty()
                {
                    self.hosts[host].old_layout = Some(random.pick(&kept.iter().collect::<Vec<_>>()).clone());
                    self.restart_after(host, false, for_us);
                }
            }
            Fault::OldImage if self.hosts[host].fate == Fate::Here && self.hosts[host].shelf.is_none() => {
                self.hosts[host].take_image();
                let after_us = for_us.max(IMAGE_US_MIN);
                self.schedule(after_us, Next::PutBack { host, looks: LOOKS });
            }
            Fault::Estrange => self.estrange(TRIES, for_us),
            Fault::Sunder | Fault::Benight => {
                self.sunder(for_us, fault == Fault::Benight, &mut random);
            }
            Fault::Retire => self.retire(for_us, &mut random),
            Fault::Misinform => self.misinform(&mut random),
            Fault::Antedate => self.antedating = Some(for_us),
            Fault::Move | Fault::Swap | Fault::MoveAll => {
                self.relocate(fault, (host, other), for_us, &mut random);
            }
            _ => {}
        }
    }

    /// A host is put back on the image that was taken of it, if all the others that there are remember, durably, that it was further since,
    /// and can do without what it has.
    pub(crate) fn put_back(&mut self, host: usize, looks: u32) {
        let Some(batch) = self.hosts[host].image.as_ref().map(|(_, batch)| *batch) else { return };
        let remembers = |other: usize| {
            // Whoever has just become a member is no host yet.
            let process = self.hosts.get(other)?.process.as_ref()?;
            let kept = process.dir.marks().ok().flatten()?;
            remembered_in(&kept, node(host))
        };
        let mut others = self.members().into_iter().filter(|other| *other != host).peekable();
        let is_remembered = others.peek().is_some()
            && others.all(|other| remembers(other).is_some_and(|known| known > batch));
        if self.is_calm || !self.can_lose(host, None) || !is_remembered {
            if looks > 0 && !self.is_calm {
                self.schedule(LOOK_US, Next::PutBack { host, looks: looks - 1 });
            } else {
                self.hosts[host].image = None;
            }
            return;
        }
        let (copy, _) = self.hosts[host].image.take().expect("just looked at");
        self.log(format_args!(
            "n{} is put back as it was, with batch {batch} of its log as the last",
            host + 1
        ));
        self.end(host, false);
        self.hosts[host].put_back(copy);
        self.judges.logs.put_back(host);
        let broken = self.judges.undestroyed.lost(node(host), &self.judges.configurations);
        self.find_all(broken);
        let life = self.hosts[host].life;
        self.schedule(10_000, Next::Start { host, life });
    }

    /// A host whose disk is older than it was has been told so: it is lost, and another one takes its place.
    pub(crate) fn lose_older(&mut self, host: usize) {
        self.end(host, false);
        self.hosts[host].fate = Fate::Lost;
        let luck = self.random.next();
        self.enlist(self.hosts[host].name.clone(), true, luck, 1_000_000);
    }

    pub(crate) fn stand(&mut self, host: usize, standing: Standing) {
        self.stands_us.push(self.now_us);
        self.want(&LayoutChange::Stand(node(host), standing));
    }

    /// Somebody asks two nodes for a change of the layout.
    fn want(&mut self, change: &LayoutChange) {
        for _ in 0..2 {
            self.want_of_one(change.clone());
        }
    }

    pub(crate) fn want_of_one(&mut self, change: LayoutChange) {
        let born: Vec<usize> = (0..self.hosts.len()).filter(|host| self.is_born(*host)).collect();
        if !born.is_empty() {
            let host = self.random.pick(&born);
            self.ask(Asker::Passer, host, Request::ChangeLayout(change), TIMEOUT_MS);
        }
    }

    /// A host wants to join, once it is its turn.
    fn enlist(&mut self, name: String, replaces: bool, luck: u64, after_us: u64) {
        if self.joining.is_empty() {
            self.schedule(after_us, Next::Join);
        }
        let has_place = self.hosts.len() + self.joining.len() < self.plan.hosts_max
            && self.members().len() + self.joining.len() < MEMBERS_MAX;
        if replaces || has_place {
            self.joining.push_back(Joining { name, replaces, luck, asks: None });
        }
    }

    /// Whoever's turn it is asks, again, or begins.
    pub(crate) fn join(&mut self) {
        let Some(mut first) = self.joining.pop_front() else { return };
        let (mut newcomer, host) = match first.asks.take() {
            Some(asks) => asks,
            None => self.prepare(&first),
        };
        let after_us = self.random.between(ASK_AGAIN_US / 6, ASK_AGAIN_US);
        self.schedule(after_us, Next::Join);
        let is_member = |layout: &&Arc<Layout>| {
            layout.members.iter().any(|member| member.incarnation == newcomer.incarnation)
        };
        let mut processes = self.hosts.iter().filter_map(|host| host.process.as_ref());
        let told = processes.find_map(|process| {
            let layout = process.node.layout().filter(is_member)?;
            Some((layout.clone(), process.node.born_layout()?))
        });
        if let Some((layout, born)) = told {
            return self.admit(&newcomer, *host, &layout, &born);
        }
        if self
            .layout
            .as_ref()
            .is_some_and(|layout| layout.refusal(&newcomer) == Some(NoPlace::NobodyToReplace))
        {
            newcomer.replaces = false;
        }
        self.want_of_one(LayoutChange::Join(newcomer.clone()));
        first.asks = Some((newcomer, host));
        self.joining.push_front(first);
    }

    /// The host that joins next, with a directory of its own.
    fn prepare(&self, joining: &Joining) -> (Newcomer, Box<Host>) {
        let mut host = Host::new(self.hosts.len(), &mut Random::new(joining.luck));
        host.name.clone_from(&joining.name);
        let who = Who { name: Some(host.name.clone()), address: host.address.clone(), fresh: joining.luck };
        let newcomer = Newcomer {
            name: host.name.clone(),
            address: host.address.clone(),
            incarnation: Incarnation(joining.luck),
            weight: 1,
            zone: String::new(),
            replaces: joining.replaces,
            max: self.level_of_newcomers(),
        };
        let opened = DataDir::open(Arc::new(host.disk.clone()), &who);
        drop(opened.expect("an empty directory can be used"));
        (newcomer, Box::new(host))
    }

    /// A host has become a member.
    fn admit(&mut self, newcomer: &Newcomer, host: Host, layout: &Arc<Layout>, born: &Layout) {
        let at = self.hosts.len();
        let member = layout.members.iter().find(|member| member.incarnation == newcomer.incarnation);
        let member = member.expect("it is one");
        if member.id != node(at) {
            let what =
                format_args!("{} has joined as n{}, and n{} comes next", member.name, member.id, at + 1);
            return self.find(NODE_GOES_ON, what);
        }
        let who = Who { name: Some(host.name.clone()), address: host.address.clone(), fresh: 0 };
        let (dir, _) = DataDir::open(Arc::new(host.disk.clone()), &who).expect("it was opened before");
        dir.save_birth(&ringfort_node::joined(member.id, born), true).expect("the disk is empty");
        // It may end in between.
        if self.random.chance(80) {
            dir.save_layout(layout.epoch, &layout.encode(), None).expect("the disk is empty");
        }
        drop(dir);
        self.log(format_args!("{} has joined as n{}", host.name, at + 1));
        self.hosts.push(host);
        self.tell_where_others_are(&[at]);
        self.network.grow();
        let after_us = self.random.between(1_000, 300_000);
        self.schedule(after_us, Next::Start { host: at, life: 0 });
        for from in 0..at {
            self.connect_anew(from, at);
        }
    }

    /// A process goes by another layout than before: it is connected with its members, and nobody else.
    pub(crate) fn follow_members(&mut self, at: usize, before: &Layout, now: &Layout) {
        if before.members == now.members {
            return;
        }
        for to in (0..self.hosts.len()).filter(|to| *to != at) {
            let is_member = |layout: &Layout| layout.member(node(to)).is_some();
            match (is_member(before), is_member(now)) {
                (false, true) => self.connect_anew(at, to),
                (true, false) => {
                    let now_us = self.now_us;
                    let link = self.network.link(at, to);
                    link.connection += 1;
                    if std::mem::take(&mut link.is_up) {
                        link.lost_us = link.lost_us.max(now_us);
                        self.later(at, 0, Work::Hear(ringfort_node::Event::PeerLost(node(to))));
                    }
                }
                _ => {}
            }
        }
    }

    fn connect_anew(&mut self, from: usize, to: usize) {
        let now_us = self.now_us;
        let link = self.network.link(from, to);
        link.connection += 1;
        let (connection, lost_us) = (link.connection, link.lost_us);
        self.schedule_at(now_us.max(lost_us) + 1_000, Next::Connect { from, to, connection });
    }

    /// Whether this host runs a node that keeps up a connection with the other: a member, as far as it knows.
    pub(crate) fn wants_to_connect(&self, from: usize, to: usize) -> bool {
        let Some(process) = &self.hosts[from].process else { return false };
        process.node.layout().map_or(to < self.plan.nodes, |layout| layout.member(node(to)).is_some())
    }

    /// The hosts of all members, by the newest layout that anybody goes by; before birth of all that are to be.
    pub(crate) fn members(&self) -> Vec<usize> {
        match &self.layout {
            Some(layout) => layout.members.iter().map(|member| host_of(member.id)).collect(),
            None => (0..self.plan.nodes).collect(),
        }
    }

    pub(crate) fn is_member(&self, host: usize) -> bool {
        self.layout.as_ref().is_none_or(|layout| layout.member(node(host)).is_some())
    }

    /// Whether a host has no process and is no member any more.
    pub(crate) fn is_gone(&self, host: usize) -> bool {
        self.hosts[host].process.is_none() && self.hosts[host].fate != Fate::Here && !self.is_member(host)
    }

    /// A node has heard that it is no member any more.
    pub(crate) fn be_removed(&mut self, at: usize) {
        self.log(format_args!("n{} is no member any more", at + 1));
        if self.is_member(at) {
            self.find(NODE_GOES_ON, format_args!("n{} ends as no member, and is one", at + 1));
        }
        self.end(at, false);
        self.hosts[at].fate = Fate::Removed;
        let broken = self.judges.undestroyed.lost(node(at), &self.judges.configurations);
        self.find_all(broken);
    }

    /// Whether a copy of something is lost for good or damaged, so that nothing may be taken away besides.
    fn is_missing_something(&self) -> bool {
        let is_lost = |host: usize| self.hosts[host].fate == Fate::Lost && self.is_member(host);
        (0..self.hosts.len()).any(|host| is_lost(host) || self.may_be_damaged(host))
    }

    /// Whether something on this host's own disk is damaged, or has lost something.
    fn may_be_damaged(&self, host: usize) -> bool {
        self.is_out_of_place(host) || self.shards().any(|shard| self.hosts[host].tables.is_damaged(shard))
    }

    /// Whether a host's own disk is not in its place, or is older than it was.
    fn is_out_of_place(&self, host: usize) -> bool {
        let host = &self.hosts[host];
        host.shelf.is_some() || host.rot.is_some() || (host.is_older && host.fate == Fate::Here)
    }

    pub(crate) fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..=self.plan.shards).map(ShardId)
    }

    /// Whether all groups, or this one, can do without what is on this host for good, whatever is under way.
    pub(crate) fn can_lose(&self, host: usize, shard: Option<ShardId>) -> bool {
        let others = (0..self.hosts.len()).filter(|other| *other != host);
        let is_lost = |other: usize| self.hosts[other].fate == Fate::Lost && self.is_member(other);
        let is_sound = !others.clone().any(|other| is_lost(other) || self.may_be_damaged(other));
        let is_here =
            self.hosts[host].fate == Fate::Here && !self.is_out_of_place(host) && self.is_member(host);
        let active = self.layout.iter().flat_map(|layout| &layout.members);
        let active = active.filter(|member| member.standing == Standing::Active).count();
        let asked = self.stands_us.iter().filter(|at_us| **at_us + ASKED_US > self.now_us).count();
        let is_settled = |shard: ShardId| {
            let configuration = self.judges.configurations.latest(shard);
            configuration.is_some_and(|configuration| {
                configuration.voters.len() >= VOTERS_MIN && self.is_as_wanted(shard, configuration)
            })
        };
        is_sound
            && is_here
            && active >= asked + VOTERS_MIN
            && shard.map_or_else(|| self.shards().all(is_settled), is_settled)
    }

    /// Whether a group is what the newest layout wants.
    pub(crate) fn is_as_wanted(&self, shard: ShardId, configuration: &Configuration) -> bool {
        let wanted = self.layout.as_ref().and_then(|layout| layout.shard(shard));
        let set = |of: &[Replica]| of.iter().copied().collect::<BTreeSet<Replica>>();
        !configuration.is_joint()
            && configuration.learners.is_empty()
            && wanted.is_some_and(|wanted| set(&wanted.replicas) == set(&configuration.voters))
    }

    /// Whether the cluster has come to rest in the shape that it should have: nobody wants to join or is leaving, members run and others
    /// have ended, and all groups and replicas are where the layout wants them, which would have them nowhere else. What is not so, if
    /// anything.
    pub(crate) fn not_in_shape(&self) -> Option<String> {
        let layout = self.layout.as_ref()?;
        if let Some(joining) = self.joining.front() {
            return Some(format!("{} has not joined", joining.name));
        }
        if let Some(leaving) = layout.members.iter().find(|member| member.standing == Standing::Leaving) {
            return Some(format!("n{} has not left; {}", leaving.id, self.not_reached(layout)));
        }
        if let Some(change) = layout.plan(|_| true, |_| true) {
            return Some(format!("{change:?} is not done; {}", self.not_reached(layout)));
        }
        if let Some(host) =
            (0..self.hosts.len()).find(|host| !self.is_member(*host) && self.should_end(*host))
        {
            return Some(format!("n{} is no member, and runs", host + 1));
        }
        if let Some(wrong) = self.not_where_it_is() {
            return Some(wrong);
        }
        let epoch = self.judges.layouts.newest();
        self.members().into_iter().find_map(|host| self.not_in_place(host, layout, epoch))
    }

    /// The first group that is not what the layout wants.
    fn not_reached(&self, layout: &Layout) -> String {
        let found = layout.shards.iter().find_map(|shard| {
            let latest = self.judges.configurations.latest(shard.shard)?;
            let is_reached = self.is_as_wanted(shard.shard, latest);
            let led_by = self.judges.leader(shard.shard).map(|host| host + 1);
            (!is_reached).then(|| format!("{shard:?} has {latest:?}, led by {led_by:?}"))
        });
        found.unwrap_or_else(|| "all groups are as the layout wants them".to_owned())
    }

    /// What of a member's replicas is not as the layout wants it.
    fn not_in_place(&self, host: usize, layout: &Layout, epoch: Epoch) -> Option<String> {
        let n = host + 1;
        let process = self.hosts[host].process.as_ref().filter(|process| process.is_serving);
        let Some(process) = process else { return Some(format!("n{n} does not serve")) };
        if process.node.epoch() < epoch {
            return Some(format!("n{n} goes by epoch {}, not {epoch}", process.node.epoch()));
        }
        let tables = self.hosts[host].tables.memory.generations();
        let is_in_use =
            |(shard, generation): &(ShardId, u64)| process.generations.get(shard) == Some(generation);
        let mut left = tables.into_iter().map(|(shard, generation, _)| (shard, generation));
        if let Some((shard, generation)) = left.find(|table| !is_in_use(table)) {
            return Some(format!("n{n} has table {generation} of shard {shard} left on its disk"));
        }
        layout.shards.iter().find_map(|shard| {
            let id = shard.shard;
            let has_place = shard.replicas.iter().any(|place| place.node == node(host));
            match (process.node.configuration(id), has_place) {
                (Some(found), true) if self.is_as_wanted(id, found) => None,
                (None, false) if !process.generations.contains_key(&id) => None,
                (found, true) => {
                    Some(format!("the replica of shard {id} on n{n} has {found:?}, and not {shard:?}"))
                }
                (_, false) => Some(format!("n{n} has a replica of shard {id} left, and not {shard:?}")),
            }
        })
    }

    /// Whether a process of no member runs that could know so: some member that it goes by is one.
    fn should_end(&self, host: usize) -> bool {
        let Some(process) = &self.hosts[host].process else { return false };
        let is_there = |other: NodeId| {
            self.is_member(host_of(other))
                && self.hosts[host_of(other)].process.is_some()
                && self.finds(host, host_of(other))
        };
        process.node.layout().is_some_and(|layout| layout.members.iter().any(|member| is_there(member.id)))
    }
}
