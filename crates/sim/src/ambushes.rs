//! Faults in several steps, each at the moment when it would hurt most.
//!
//! Single faults meet by chance, and some rules are broken only if several meet within a few milliseconds: that is what
//! these are for. Each is made of what can happen to real nodes.

use std::sync::Arc;

use bytes::Bytes;
use ringfort_ring::{Layout, Member};
use ringfort_types::{Epoch, PeerId, Replica, Request, ShardId, Standing};

use crate::clients::Asker;
use crate::faults::Cure;
use crate::host::Host;
use crate::network::host_of;
use crate::plan::Fault;
use crate::random::Random;
use crate::world::{Next, World};

/// Writes and reads by passers-by while an ambush lasts.
const POKES: u32 = 30;
/// What has been sent by then has arrived.
const ARRIVED_US: u64 = 60_000;
/// How often a group that is changing is looked for, and how long after the last time, in microseconds.
pub(crate) const TRIES: u32 = 40;
const LOOK_US: u64 = 50_000;
/// By then those who hear nothing of their leader stand for election, in microseconds, and by then they have elected one.
const DEPOSED_US: u64 = 500_000;
const ELECTED_US: u64 = 1_500_000;

/// Members that there must be, so that three are left when two are drained.
const SUNDERED_MIN: usize = 5;
/// Until two that were drained are given replicas again, in microseconds.
const SUNDER_US: u64 = 9_000_000;
/// Those who have lost their power have replayed their logs, and elected a leader if they would, within so much, in microseconds.
const DARK_US: u64 = 6_500_000;
/// Members that there must be besides one that is drained.
const RETIRING_MIN: usize = 3;
/// A leader that hands over is told nothing for so long at least, in microseconds.
const RETIRED_US: u64 = 400_000;
/// So long a leader stands still that is to be replaced, and so long before it goes on another process has started, in microseconds.
const REPLACED_US: u64 = 1_600_000;
const RESTARTED_US: u64 = 200_000;
/// A process that begins with an old layout hears of no other one for so long at least, in microseconds.
const ANTEDATED_US: u64 = 300_000;

/// A later step.
#[derive(Debug)]
pub(crate) enum Step {
    /// A process stands still, and is cut off once all that was under way to it has arrived.
    FallAsleep { host: usize, keys: Vec<Bytes>, for_us: u64 },
    /// A node hears nothing of the others any more.
    BeCutOff { host: usize },
    /// A node hears nothing of the others any more, and is asked to stop.
    Abdicate { host: usize, keys: Vec<Bytes>, for_us: u64 },
    /// Waits for a group that is changing, so many times more, and splits it.
    Estrange { left: u32, for_us: u64 },
    /// Members that are being drained are so no longer, and are not waited for any more.
    Rejoin { hosts: Vec<usize> },
    /// A process starts again, and is all that a leader hears which is about to go on.
    Misinform { host: usize, witness: usize, keys: Vec<Bytes> },
    /// A member goes to yet another address.
    Move { host: usize, for_us: u64 },
    /// A member goes back from where nobody finds it.
    GoBack { host: usize },
    /// A process ends and starts again at once, so many times more.
    Blink { host: usize, keys: Vec<Bytes>, more: u32 },
}

/// Two members that are to be cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sundered {
    hosts: [usize; 2],
    for_us: u64,
    /// Their power goes, once the joint configuration is left, and not while it is in force.
    in_the_dark: bool,
}

/// A group that is changing, in two parts.
struct Split {
    leader: usize,
    /// It and those who are new.
    near: Vec<usize>,
    /// The others who decide.
    far: Vec<usize>,
    /// Of its shard.
    keys: Vec<Bytes>,
}

impl World {
    /// The first step.
    pub(crate) fn ambush(
        &mut self,
        fault: Fault,
        host: usize,
        other: usize,
        for_us: u64,
        random: &mut Random,
    ) {
        let keys = self.keys_led_by(if fault == Fault::Blink { other } else { host });
        let Some(key) = (!keys.is_empty()).then(|| keys[random.below(keys.len() as u64) as usize].clone())
        else {
            return;
        };
        let step = match fault {
            Fault::Doze => {
                // So that a question is under way when it falls asleep.
                self.read_at(host, &key);
                Step::FallAsleep { host, keys: vec![key], for_us: for_us.max(900_000) }
            }
            Fault::Abdicate => {
                for _ in 0..3 {
                    self.read_at(host, &key);
                }
                Step::Abdicate { host, keys: vec![key], for_us: for_us.max(300_000) }
            }
            _ => {
                let link = self.network.link(other, host);
                link.jitter_us = random.between(200_000, 400_000);
                self.schedule(for_us.max(1_000_000), Next::Cure(Cure::Mend { from: other, to: host }));
                Step::Blink { host, keys: vec![key], more: 3 }
            }
        };
        let after_us = match fault {
            Fault::Doze => random.between(100, 3 * self.plan.message_us_max),
            Fault::Abdicate => random.between(5_000, 60_000),
            _ => random.between(500, 4 * self.plan.message_us_max),
        };
        self.schedule(after_us, Next::Step(Box::new(step)));
    }

    /// Cuts the leader of a group that is changing off from those who decided before, with those who are new: whoever counts these in
    /// takes it for a leader that still leads. If there is no such group now, it is looked for again.
    pub(crate) fn estrange(&mut self, left: u32, for_us: u64) {
        let Some(Split { leader, near, far, keys }) = self.shards().find_map(|shard| self.changing(shard))
        else {
            if left > 0 {
                let again = Step::Estrange { left: left - 1, for_us };
                self.schedule(LOOK_US, Next::Step(Box::new(again)));
            }
            return;
        };
        let both = |near: &usize| {
            let near = *near;
            far.iter().flat_map(move |far| [(near, *far), (*far, near)])
        };
        let links = near.iter().flat_map(both).collect();
        self.log(format_args!("n{} and {near:?} are cut off from {far:?}", leader + 1));
        self.block(links, for_us + ELECTED_US);
        for after_us in [DEPOSED_US, ELECTED_US - DEPOSED_US / 2] {
            self.schedule(after_us, Next::Poke { host: leader, keys: keys.clone(), left: POKES });
        }
    }

    /// Two members are drained at once, so that groups in which both decide are changed by two replicas in one step. See
    /// [`World::sunder_now`].
    pub(crate) fn sunder(&mut self, for_us: u64, in_the_dark: bool, random: &mut Random) {
        if self.sundered.is_some() {
            return;
        }
        let mut active = self.active_hosts();
        if active.len() < SUNDERED_MIN {
            return;
        }
        let hosts = [0; 2].map(|_| active.swap_remove(random.below(active.len() as u64) as usize));
        self.sundered = Some(Sundered { hosts, for_us, in_the_dark });
        for host in hosts {
            self.stand(host, Standing::Draining);
        }
        self.schedule(SUNDER_US, Next::Step(Box::new(Step::Rejoin { hosts: hosts.to_vec() })));
    }

    /// Another configuration is in force for a group's leader, and for nobody else yet. If it is joint, and the majority of those who
    /// decided before are being drained, they are cut off from all others: they still decide by the configuration before, and whoever counts
    /// only the new half goes on without them. Or the joint one is left, and their power goes besides: whoever comes back and has
    /// forgotten that it was in force goes on by the one before it.
    pub(crate) fn sunder_now(&mut self, shard: ShardId) {
        let Some(Sundered { hosts: far, for_us, in_the_dark }) = self.sundered else { return };
        let Some(group) = self.judges.configurations.latest(shard) else { return };
        let is_far = |replica: &&Replica| far.contains(&host_of(replica.node));
        let is_time = if in_the_dark {
            let goes = group.learners.iter().filter(is_far).count();
            !group.is_joint() && 2 * goes > group.voters.len()
        } else {
            let goes = group.outgoing.iter().filter(is_far).count();
            group.is_joint() && 2 * goes > group.outgoing.len()
        };
        let leader = self.judges.leader(shard).filter(|leader| !far.contains(leader));
        let Some(leader) = leader.filter(|_| is_time) else { return };
        let keys = self.keys_of(shard);
        self.sundered = None;
        self.log(format_args!("shard {shard} is changing, and {far:?} are cut off from all others"));
        let near = (0..self.hosts.len()).filter(|host| !far.contains(host));
        let links = near.flat_map(|near| far.into_iter().flat_map(move |far| [(near, far), (far, near)]));
        self.block(links.collect(), for_us + if in_the_dark { DARK_US } else { 2 * ELECTED_US });
        let mut pokes_us = vec![1_000, DEPOSED_US, ELECTED_US];
        if in_the_dark {
            for host in far {
                let after_us = self.random.between(10_000, 200_000);
                if self.hosts[host].process.is_some() {
                    self.restart_after(host, true, after_us);
                }
            }
            pokes_us.extend([2 * ELECTED_US, DARK_US - ELECTED_US]);
        }
        for after_us in pokes_us {
            for host in [leader, far[0], far[1]] {
                self.schedule(after_us, Next::Poke { host, keys: keys.clone(), left: POKES });
            }
        }
    }

    /// A member that leads is drained. The next leader that hands over since its group is about to leave it out, this one or another, is cut
    /// off: see [`World::retire_now`].
    pub(crate) fn retire(&mut self, for_us: u64, random: &mut Random) {
        self.retiring = Some(for_us);
        let mut leaders = self.active_hosts();
        if leaders.len() <= RETIRING_MIN {
            return;
        }
        leaders.retain(|host| !self.keys_led_by(*host).is_empty());
        if leaders.is_empty() {
            return;
        }
        let host = random.pick(&leaders);
        self.stand(host, Standing::Draining);
        self.schedule(SUNDER_US, Next::Step(Box::new(Step::Rejoin { hosts: vec![host] })));
    }

    /// A joint configuration is in force that has no place for its leader once it is left: that one is read from, until it hands over.
    pub(crate) fn see_off(&mut self, shard: ShardId) {
        let leader = self.judges.leader(shard).filter(|leader| self.leaves_out(shard, *leader));
        if let Some(host) = leader.filter(|_| self.retiring.is_some()) {
            let keys = self.keys_of(shard);
            self.schedule(0, Next::Poke { host, keys, left: POKES });
        }
    }

    /// It hands over. It is told nothing more, and so not that another one leads; what has been said to it until now still arrives.
    pub(crate) fn retire_now(&mut self, host: usize, shard: ShardId) {
        let keys = self.keys_of(shard);
        if keys.is_empty() || !self.leaves_out(shard, host) {
            return;
        }
        let Some(for_us) = self.retiring.take() else { return };
        self.log(format_args!("n{} hands shard {shard} over, and hears nothing more", host + 1));
        self.lose_frames_of(host, 0, 100);
        self.schedule(for_us.max(RETIRED_US), Next::Cure(Cure::MendAll { host }));
        self.poke(host, keys, POKES);
    }

    /// Whether a host leads a group whose joint configuration has no place for it once it is left.
    fn leaves_out(&self, shard: ShardId, host: usize) -> bool {
        let group = self.judges.configurations.latest(shard).filter(|group| group.is_joint());
        let is_here = |replica: &Replica| host_of(replica.node) == host;
        self.judges.leader(shard) == Some(host)
            && group.is_some_and(|group| !group.voters.iter().any(is_here))
    }

    /// Those that are in this shard.
    fn keys_of(&self, shard: ShardId) -> Vec<Bytes> {
        let is_its = |key: &&Bytes| self.shard_of_key(key) == Some(shard);
        self.clients.keys.settable().filter(is_its).cloned().collect()
    }

    /// A leader stands still until another one leads. Then it hears one node only, whose process has just begun and has not opened
    /// everything: what that node's replica has said to others is nothing to its node.
    pub(crate) fn misinform(&mut self, random: &mut Random) {
        let mut chances = Vec::new();
        for shard in self.shards() {
            let group = self.judges.configurations.latest(shard).filter(|group| !group.is_joint());
            let (Some(leader), Some(group)) = (self.judges.leader(shard), group) else { continue };
            let voters = group.voters.iter().map(|voter| host_of(voter.node));
            let is_up = |host: &usize| self.hosts.get(*host).is_some_and(Host::is_serving);
            let others: Vec<usize> = voters.filter(|host| *host != leader && is_up(host)).collect();
            if others.len() == 2 && is_up(&leader) && !self.keys_of(shard).is_empty() {
                chances.push((leader, random.pick(&others), shard));
            }
        }
        if chances.is_empty() {
            return;
        }
        let (host, witness, shard) = random.pick(&chances);
        let keys = self.keys_of(shard);
        self.log(format_args!("n{} leads shard {shard}, and will hear n{} only", host + 1, witness + 1));
        self.lose_frames_of(host, 0, 100);
        self.pause(host, REPLACED_US);
        for after_us in [ELECTED_US - DEPOSED_US, ELECTED_US - DEPOSED_US / 2] {
            self.schedule(after_us, Next::Poke { host, keys: keys.clone(), left: POKES });
        }
        let step = Step::Misinform { host, witness, keys };
        self.schedule(REPLACED_US - RESTARTED_US, Next::Step(Box::new(step)));
    }

    /// A process has begun a replica. It ends, and the next one begins with a layout that knows nothing of it.
    pub(crate) fn antedate(&mut self, at: usize, peer: PeerId) {
        let Some(for_us) = self.antedating.filter(|_| self.hosts[at].shelf.is_none()) else { return };
        let is_older = |layout: &&Arc<Layout>| layout.next_peer <= peer && layout.placed > Epoch(1);
        let Some(layout) = self.hosts[at].layouts.iter().rfind(is_older).cloned() else { return };
        self.antedating = None;
        self.log(format_args!("n{} has begun peer {peer}, and goes back to epoch {}", at + 1, layout.epoch));
        self.hosts[at].old_layout = Some(layout);
        self.restart_after(at, false, 0);
        let others = (0..self.hosts.len()).filter(|other| *other != at);
        self.block(others.flat_map(|other| [(at, other), (other, at)]).collect(), for_us.max(ANTEDATED_US));
    }

    /// The hosts of all members that have replicas, and serve.
    fn active_hosts(&self) -> Vec<usize> {
        let members = self.layout.iter().flat_map(|layout| &layout.members);
        let is_here = |member: &&Member| {
            let host = self.hosts.get(host_of(member.id));
            member.standing == Standing::Active && host.is_some_and(Host::is_serving)
        };
        members.filter(is_here).map(|member| host_of(member.id)).collect()
    }

    /// Members that were drained are given replicas again.
    fn rejoin(&mut self, hosts: Vec<usize>) {
        self.sundered.take_if(|sundered| hosts.contains(&sundered.hosts[0]));
        for host in hosts {
            self.stand(host, Standing::Active);
        }
    }

    /// How the group of a shard can be split, if it is changing.
    fn changing(&self, shard: ShardId) -> Option<Split> {
        let group = self.judges.configurations.latest(shard)?;
        let leader = self.judges.leader(shard).filter(|host| self.hosts[*host].process.is_some())?;
        let before = if group.is_joint() { &group.outgoing } else { &group.voters };
        let is_old = |replica: &Replica| before.contains(replica);
        let hosts = |is_near: bool| {
            let of = |replica: &Replica| host_of(replica.node);
            let replicas = group.replicas().filter(move |replica| {
                (of(replica) == leader || !is_old(replica)) == is_near && of(replica) < self.hosts.len()
            });
            replicas.map(|replica| of(&replica)).collect::<Vec<usize>>()
        };
        let (near, far) = (hosts(true), hosts(false));
        let keys = self.keys_of(shard);
        let is_useful = near.len() > 1 && near.contains(&leader) && 2 * far.len() > before.len();
        (is_useful && !keys.is_empty()).then_some(Split { leader, near, far, keys })
    }

    fn read_at(&mut self, host: usize, key: &Bytes) {
        let consistency = self.draw_fresh();
        self.ask(Asker::Passer, host, Request::Get { key: key.clone(), consistency }, 300);
    }

    pub(crate) fn go_on_with(&mut self, step: Step) {
        if self.is_calm {
            return;
        }
        match step {
            Step::FallAsleep { host, keys, for_us } if self.hosts[host].process.is_some() => {
                self.pause(host, for_us);
                self.schedule(ARRIVED_US, Next::Step(Box::new(Step::BeCutOff { host })));
                self.schedule(for_us + 400_000, Next::Cure(Cure::MendAll { host }));
                self.schedule(for_us + 100, Next::Poke { host, keys, left: POKES });
            }
            Step::BeCutOff { host } => self.lose_frames_of(host, 100, 100),
            Step::Abdicate { host, keys, for_us } => {
                self.lose_frames_of(host, 0, 100);
                self.ask_to_stop(host);
                self.schedule(for_us, Next::Cure(Cure::MendAll { host }));
                self.poke(host, keys, POKES);
            }
            Step::Blink { host, keys, more } if self.hosts[host].process.is_some() => {
                self.restart_after(host, false, 0);
                let up_us = self.random.between(15_000, 60_000);
                self.schedule(up_us, Next::Poke { host, keys: keys.clone(), left: POKES });
                if more > 0 {
                    let again_us = self.random.between(100_000, 250_000);
                    let again = Step::Blink { host, keys, more: more - 1 };
                    self.schedule(again_us, Next::Step(Box::new(again)));
                }
            }
            Step::Misinform { host, witness, keys } if self.hosts[host].process.is_some() => {
                self.restart_after(witness, false, 0);
                self.network.link(witness, host).loses_percent = 0;
                self.schedule(RESTARTED_US + 100, Next::Poke { host, keys, left: POKES });
                self.schedule(RESTARTED_US + RETIRED_US, Next::Cure(Cure::MendAll { host }));
            }
            Step::Estrange { left, for_us } => self.estrange(left, for_us),
            Step::Rejoin { hosts } => self.rejoin(hosts),
            Step::Move { host, for_us } => self.move_alone(host, for_us),
            Step::GoBack { host } => self.go_back(host),
            Step::Misinform { host, .. } => self.lose_frames_of(host, 0, 0),
            Step::FallAsleep { .. } | Step::Blink { .. } => {}
        }
    }
}
