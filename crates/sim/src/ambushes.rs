//! Faults in several steps, each at the moment when it would hurt most.
//!
//! Single faults meet by chance, and some rules are broken only if several meet within a few milliseconds: that is what
//! these are for. Each is made of what can happen to real nodes.

use bytes::Bytes;
use ringfort_types::{Replica, Request, ShardId};

use crate::clients::Asker;
use crate::faults::Cure;
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
    /// A process ends and starts again at once, so many times more.
    Blink { host: usize, keys: Vec<Bytes>, more: u32 },
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
            Step::FallAsleep { .. } | Step::Blink { .. } => {}
        }
    }
}
