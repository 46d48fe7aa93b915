//! Faults in several steps, each at the moment when it would hurt most.
//!
//! Single faults meet by chance, and some rules are broken only if several meet within a few milliseconds: that is what
//! these are for. Each is made of what can happen to real nodes.

use bytes::Bytes;
use ringfort_ring::Member;
use ringfort_types::{Replica, Request, ShardId, Standing};

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
    /// Two members that are being drained are so no longer, and are not waited for any more.
    Rejoin { hosts: [usize; 2] },
    /// A member goes to yet another address.
    Move { host: usize, for_us: u64 },
    /// A process ends and starts again at once, so many times more.
    Blink { host: usize, keys: Vec<Bytes>, more: u32 },
}

/// Two members that are to be cut off.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sundered {
    hosts: [usize; 2],
    for_us: u64,
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
    pub(crate) fn sunder(&mut self, for_us: u64, random: &mut Random) {
        let Some(layout) = self.layout.clone().filter(|_| self.sundered.is_none()) else { return };
        let is_here = |member: &&Member| {
            let host = self.hosts.get(host_of(member.id));
            member.standing == Standing::Active && host.is_some_and(Host::is_serving)
        };
        let mut active: Vec<usize> =
            layout.members.iter().filter(is_here).map(|member| host_of(member.id)).collect();
        if active.len() < SUNDERED_MIN {
            return;
        }
        let hosts = [0; 2].map(|_| active.swap_remove(random.below(active.len() as u64) as usize));
        self.sundered = Some(Sundered { hosts, for_us });
        for host in hosts {
            self.stand(host, Standing::Draining);
        }
        self.schedule(SUNDER_US, Next::Step(Box::new(Step::Rejoin { hosts })));
    }

    /// A joint configuration is in force for its leader, and for nobody else yet. If the majority of those who decided before are being
    /// drained, they are cut off from all others: they still decide by the configuration before, and whoever counts only the new
    /// half goes on without them.
    pub(crate) fn sunder_now(&mut self, shard: ShardId) {
        let Some(Sundered { hosts: far, for_us }) = self.sundered else { return };
        let Some(group) = self.judges.configurations.latest(shard) else { return };
        let is_far = |replica: &&Replica| far.contains(&host_of(replica.node));
        let goes = group.outgoing.iter().filter(is_far).count();
        let leader = self.judges.leader(shard).filter(|leader| !far.contains(leader));
        let Some(leader) = leader.filter(|_| group.is_joint() && 2 * goes > group.outgoing.len()) else {
            return;
        };
        self.sundered = None;
        self.log(format_args!("shard {shard} is changing, and {far:?} are cut off from all others"));
        let near = (0..self.hosts.len()).filter(|host| !far.contains(host));
        let links = near.flat_map(|near| far.into_iter().flat_map(move |far| [(near, far), (far, near)]));
        self.block(links.collect(), for_us + 2 * ELECTED_US);
        let mut keys: Vec<Bytes> = self.clients.keys.settable().cloned().collect();
        keys.retain(|key| self.shard_of_key(key) == Some(shard));
        for after_us in [1_000, DEPOSED_US, ELECTED_US] {
            for host in [leader, far[0], far[1]] {
                self.schedule(after_us, Next::Poke { host, keys: keys.clone(), left: POKES });
            }
        }
    }

    /// Two members that were drained are given replicas again.
    fn rejoin(&mut self, hosts: [usize; 2]) {
        self.sundered = None;
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
        let mut keys: Vec<Bytes> = self.clients.keys.settable().cloned().collect();
        keys.retain(|key| self.shard_of_key(key) == Some(shard));
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
            Step::Estrange { left, for_us } => self.estrange(left, for_us),
            Step::Rejoin { hosts } => self.rejoin(hosts),
            Step::Move { host, for_us } => self.move_alone(host, for_us),
            Step::FallAsleep { .. } | Step::Blink { .. } => {}
        }
    }
}
