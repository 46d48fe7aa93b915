//! Chains of random changes, while messages are lost, repeated and late, disks are slow, and power fails: nobody leads who
//! should not, what is committed stays, and at last all is well.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_consensus::{Outgoing, Restored};
use ringfort_types::ConfigurationChange::{self, AddLearner, EnterJoint, LeaveJoint, RemoveLearner};
use ringfort_types::{Configuration, Index, LogEntry, PeerId, Record, Role, Term};

use crate::replica::{Replica, born, place};

const SEEDS: u64 = 100;
const STEPS: u64 = 6_000;
/// Replicas that are there at one time, at most.
const REPLICAS_MAX: usize = 7;
/// Messages under way, at most: the oldest are lost.
const FLYING_MAX: usize = 200;

struct Chain {
    random: u64,
    born: Configuration,
    running: BTreeMap<u64, Replica>,
    /// What is synced of those that are down.
    down: BTreeMap<u64, Vec<Record>>,
    flying: Vec<(u64, Bytes)>,
    next_peer: u64,
    leaders: BTreeMap<Term, u64>,
    committed: BTreeMap<Index, LogEntry>,
    /// The configurations that were in force somewhere.
    configurations: BTreeMap<Index, Configuration>,
}

impl Chain {
    fn new(seed: u64) -> Chain {
        let running = (1..=3).map(|id| (id, Replica::new(id, born(3), &Restored::default()))).collect();
        Chain {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            born: born(3),
            running,
            down: BTreeMap::new(),
            flying: Vec::new(),
            next_peer: 4,
            leaders: BTreeMap::new(),
            committed: BTreeMap::new(),
            configurations: BTreeMap::new(),
        }
    }

    /// Less than `bound` (Marsaglia's xorshift).
    fn below(&mut self, bound: u64) -> u64 {
        for shift in [13, 0, 17] {
            match shift {
                0 => self.random ^= self.random >> 7,
                left => self.random ^= self.random << left,
            }
        }
        (self.random >> 20) % bound
    }

    fn one_of(&mut self, ids: impl Iterator<Item = u64>) -> Option<u64> {
        let ids: Vec<u64> = ids.collect();
        let at = self.below(ids.len().max(1) as u64) as usize;
        ids.get(at).copied()
    }

    /// Something happens to one that runs; what comes of it goes on its way.
    fn act(&mut self, id: u64, happens: impl FnOnce(&mut Replica) -> Vec<Outgoing>) {
        let Some(replica) = self.running.get_mut(&id) else { return };
        let mut sent = happens(replica);
        sent.extend(replica.turn());
        self.flying.extend(sent.into_iter().map(|(to, message)| (to.0, message)));
        let spilt = self.flying.len().saturating_sub(FLYING_MAX);
        self.flying.drain(..spilt);
        self.judge(id);
    }

    fn judge(&mut self, id: u64) {
        let replica = self.running.get_mut(&id).expect("it has just acted");
        let (group, committed) = (&replica.group, std::mem::take(&mut replica.committed));
        if group.role() == Role::Leader {
            let first = *self.leaders.entry(group.term()).or_insert(id);
            assert_eq!(first, id, "two leaders of term {}", group.term());
        }
        let configuration = group.configuration();
        let known = self.configurations.entry(configuration.at).or_insert_with(|| configuration.clone());
        assert_eq!(known, configuration, "of replica {id}");
        for entry in committed {
            let known = self.committed.entry(entry.index).or_insert_with(|| entry.clone());
            assert_eq!(*known, entry, "replica {id} has another entry committed");
        }
    }

    /// A change of what this leader has, and whatever new replica goes with it.
    fn change(&mut self, leader: u64) {
        let configuration = self.running[&leader].group.configuration().clone();
        let peers =
            |of: &[ringfort_types::Replica]| of.iter().map(|replica| replica.peer.0).collect::<Vec<_>>();
        let (voters, learners) = (peers(&configuration.voters), peers(&configuration.learners));
        let change = match self.below(4) {
            _ if configuration.is_joint() => LeaveJoint,
            0 if voters.len() + learners.len() < REPLICAS_MAX => {
                let id = self.next_peer;
                self.next_peer += 1;
                self.running.insert(id, Replica::new(id, self.born.clone(), &Restored::default()));
                AddLearner(place(id))
            }
            1 => match self.one_of(learners.into_iter()) {
                Some(learner) => RemoveLearner(PeerId(learner)),
                None => return,
            },
            _ => {
                let mut some = |ids: Vec<u64>| -> Vec<PeerId> {
                    ids.into_iter().filter(|_| self.below(2) == 0).map(PeerId).collect()
                };
                EnterJoint { promote: some(learners), demote: some(voters) }
            }
        };
        self.propose(leader, &change);
    }

    fn propose(&mut self, leader: u64, change: &ConfigurationChange) {
        self.act(leader, |replica| {
            replica.group.propose_change(change);
            Vec::new()
        });
    }

    fn leader(&mut self) -> Option<u64> {
        let leads = |(id, replica): (&u64, &Replica)| (replica.group.role() == Role::Leader).then_some(*id);
        let leaders: Vec<u64> = self.running.iter().filter_map(leads).collect();
        self.one_of(leaders.into_iter())
    }

    fn step(&mut self) {
        let Some(id) = self.one_of(self.running.keys().copied().collect::<Vec<_>>().into_iter()) else {
            return self.start_one();
        };
        match self.below(100) {
            0..65 if !self.flying.is_empty() => self.deliver(),
            65..85 => self.act(id, |replica| {
                replica.group.tick();
                Vec::new()
            }),
            85..88 => self.act(id, Replica::sync),
            88 => self.act(id, |replica| {
                replica.syncs ^= true;
                Vec::new()
            }),
            89 if self.below(2) == 0 => {
                let mut replica = self.running.remove(&id).expect("just looked at");
                replica.records.truncate(replica.synced);
                self.down.insert(id, replica.records);
            }
            90 => self.start_one(),
            91 => self.act(id, |replica| {
                replica.group.campaign();
                Vec::new()
            }),
            92..95 => {
                if let Some(leader) = self.leader() {
                    let payload = Bytes::from(self.below(1 << 30).to_string());
                    self.act(leader, |replica| {
                        replica.group.propose(payload);
                        Vec::new()
                    });
                }
            }
            95 => {
                if let Some(leader) = self.leader() {
                    self.act(leader, |replica| {
                        replica.group.transfer_to(PeerId(id));
                        Vec::new()
                    });
                }
            }
            _ => {
                if let Some(leader) = self.leader() {
                    self.change(leader);
                }
            }
        }
    }

    fn deliver(&mut self) {
        // Mostly in order.
        let within = if self.below(4) == 0 { self.flying.len() } else { 1 };
        let at = self.below(within as u64) as usize;
        let (to, message) = match self.below(20) {
            0 => return drop(self.flying.remove(at)),
            1 => self.flying[at].clone(),
            _ => self.flying.remove(at),
        };
        self.act(to, |replica| {
            replica.group.step(message).expect("our own encoding");
            Vec::new()
        });
    }

    fn start_one(&mut self) {
        let Some(id) = self.one_of(self.down.keys().copied().collect::<Vec<_>>().into_iter()) else { return };
        let records = self.down.remove(&id).expect("just looked at");
        self.running.insert(id, Replica::restart(id, &self.born, records));
        self.act(id, |_| Vec::new());
    }

    /// Nothing goes wrong any more: somebody leads, ends what was begun, and all who decide hear of it.
    fn heal(&mut self) {
        while !self.down.is_empty() {
            self.start_one();
        }
        for id in self.running.keys().copied().collect::<Vec<_>>() {
            self.act(id, |replica| {
                replica.syncs = true;
                replica.sync()
            });
        }
        for _ in 0..400 {
            for id in self.running.keys().copied().collect::<Vec<_>>() {
                self.act(id, |replica| {
                    replica.group.tick();
                    Vec::new()
                });
            }
            for (to, message) in std::mem::take(&mut self.flying) {
                self.act(to, |replica| {
                    replica.group.step(message).expect("our own encoding");
                    Vec::new()
                });
            }
            let Some(leader) = self.leader() else { continue };
            let group = &self.running[&leader].group;
            if group.configuration().is_joint() {
                let incoming = group.configuration().voters.clone();
                if incoming.contains(&place(leader)) {
                    self.propose(leader, &LeaveJoint);
                } else if let Some(next) = self.one_of(incoming.into_iter().map(|voter| voter.peer.0)) {
                    self.act(leader, |replica| {
                        replica.group.transfer_to(PeerId(next));
                        Vec::new()
                    });
                }
            }
        }
        let last = self.configurations.last_key_value().map(|(_, last)| last.clone()).expect("born");
        assert!(!last.is_joint(), "{last:?}");
        let leader = self.leader().expect("somebody leads");
        let committed = self.running[&leader].group.committed();
        assert!(last.decides(PeerId(leader)) && committed >= last.at, "{leader} at {committed}, {last:?}");
        for replica in last.replicas() {
            let group = &self.running[&replica.peer.0].group;
            assert_eq!((group.committed(), group.configuration()), (committed, &last), "of {replica:?}");
        }
    }
}

#[test]
fn whatever_happens_while_groups_change_nobody_contradicts_another_and_all_ends_well() {
    let (mut changes, mut terms) = (0, 0);
    for seed in 0..SEEDS {
        let mut chain = Chain::new(seed);
        for _ in 0..STEPS {
            chain.step();
        }
        chain.heal();
        changes += chain.configurations.len();
        terms += chain.leaders.len();
    }
    // Or it would show nothing.
    let enough = SEEDS as usize * 3;
    assert!(changes > enough && terms > enough, "{changes} configurations, {terms} terms");
}
