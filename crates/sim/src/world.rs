//! The queue of what happens next, and the course of a run.

use std::collections::BTreeMap;
use std::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;

use crate::Plan;
use crate::clients::Clients;
use crate::clock::Clock;
use crate::faults::Cure;
use crate::history::Operation;
use crate::host::{Host, Work};
use crate::network::Network;
use crate::random::Random;
use crate::safety::Safety;
use crate::trace::Trace;

/// More than any healthy run makes.
const STEPS_MAX: u64 = 5_000_000;

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What went wrong that never should; empty if all is well.
    pub findings: Vec<String>,
    /// What happened, line by line.
    pub trace: String,
    /// Requests that were acknowledged, rejected, and of unknown outcome.
    pub requests: (u64, u64, u64),
    /// How long it took until every shard took a write again, after everything had healed.
    pub healed_ms: u64,
}

/// Something that will happen.
#[derive(Debug)]
pub(crate) enum Next {
    /// A process does something, if it is still the same one.
    Work {
        host: usize,
        life: u64,
        work: Work,
    },
    Arrival {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Bytes,
    },
    Connect {
        from: usize,
        to: usize,
        connection: u64,
    },
    Start {
        host: usize,
        life: u64,
    },
    /// A client asks for something.
    Act {
        client: usize,
    },
    /// An answer reaches its client.
    Answer {
        id: u64,
        reply: Box<ringfort_types::Reply>,
    },
    /// A client stops waiting.
    GiveUp {
        id: u64,
    },
    /// Somebody looks at who leads.
    Look,
    /// A process that was asked to stop must be gone by now.
    MustBeGone {
        host: usize,
        life: u64,
        pauses: u64,
    },
    Fault,
    Cure(Cure),
}

/// Everything.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) now_us: u64,
    queue: BTreeMap<(u64, u64), Next>,
    scheduled: u64,
    pub(crate) random: Random,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) history: Vec<Operation>,
    pub(crate) safety: Safety,
    pub(crate) trace: Trace,
    pub(crate) findings: Vec<String>,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    pub(crate) healed_ms: u64,
}

/// Runs a plan from birth to verdict.
pub fn run(plan: &Plan) -> Report {
    let mut world = World::new(plan.clone());
    // A broken invariant inside a node panics there, and is a finding like others.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(without words)");
        world.find(format_args!("panicked: {words}"));
    }
    world.into_report()
}

impl World {
    pub(crate) fn into_report(self) -> Report {
        Report {
            seed: self.plan.seed,
            findings: self.findings,
            trace: self.trace.into_text(),
            requests: self.clients.counts(),
            healed_ms: self.healed_ms,
        }
    }

    pub(crate) fn new(plan: Plan) -> World {
        let mut random = Random::new(plan.seed);
        let host = |number: usize, random: &mut Random| Host {
            address: format!("10.0.0.{}:50051", number + 1),
            disk: crate::power::PluggedDisk::default(),
            tables: ringfort_storage::MemoryTables::new(),
            sealed: BTreeMap::new(),
            clock: Clock::new(random),
            life: 0,
            process: None,
            paused: None,
            pauses: 0,
            stalled: std::collections::VecDeque::new(),
            trap: None,
        };
        let hosts = (0..plan.nodes).map(|number| host(number, &mut random)).collect();
        World {
            network: Network::new(plan.nodes, plan.message_us_max),
            clients: Clients::new(&plan),
            plan,
            now_us: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            random,
            hosts,
            history: Vec::new(),
            safety: Safety::default(),
            trace: Trace::default(),
            findings: Vec::new(),
            is_calm: false,
            healed_ms: 0,
        }
    }

    fn live(&mut self) {
        self.begin();
        self.schedule(self.plan.first_fault_ms * 1_000, Next::Fault);
        self.run_until(self.plan.chaos_ms * 1_000);
        self.heal();
        self.judge();
    }

    /// Processes and clients begin, each a little later than the one before.
    pub(crate) fn begin(&mut self) {
        self.log(format_args!("{:?}", self.plan.clone()));
        for host in 0..self.hosts.len() {
            let after_us = self.random.below(500_000);
            self.schedule(after_us, Next::Start { host, life: 0 });
        }
        for client in 0..self.plan.clients {
            let after_us = self.random.between(500_000, 3_000_000);
            self.schedule(after_us, Next::Act { client });
        }
        self.schedule(1_000_000, Next::Look);
    }

    /// Goes on until this time.
    pub(crate) fn run_until(&mut self, until_us: u64) {
        while self.queue.first_key_value().is_some_and(|((at_us, _), _)| *at_us <= until_us) {
            self.step();
        }
        self.now_us = self.now_us.max(until_us);
    }

    /// Goes on until something is so, or this much time has passed. Whether it is so.
    pub(crate) fn run_while(&mut self, most_us: u64, mut waiting: impl FnMut(&World) -> bool) -> bool {
        let until_us = self.now_us + most_us;
        while waiting(self) {
            if self.queue.first_key_value().is_none_or(|((at_us, _), _)| *at_us > until_us) {
                return false;
            }
            self.step();
        }
        true
    }

    fn step(&mut self) {
        let Some(((at_us, _), next)) = self.queue.pop_first() else { return };
        assert!(self.scheduled < STEPS_MAX, "the simulation never comes to rest");
        self.now_us = at_us;
        match next {
            Next::Work { host, life, work } => {
                if self.hosts[host].life == life {
                    self.work(host, work);
                }
            }
            Next::Arrival { from, to, connection, bytes } => self.arrive(from, to, connection, bytes),
            Next::Connect { from, to, connection } => self.connect(from, to, connection),
            Next::Start { host, life } => {
                if self.hosts[host].life == life && self.hosts[host].process.is_none() {
                    self.start(host);
                }
            }
            Next::Act { client } => self.act(client),
            Next::Answer { id, reply } => self.hear_answer(id, *reply),
            Next::GiveUp { id } => self.give_up(id),
            Next::Look => self.look(),
            Next::MustBeGone { host, life, pauses } => self.must_be_gone(host, life, pauses),
            Next::Fault => self.strike(),
            Next::Cure(cure) => self.cure(cure),
        }
    }

    /// Puts something into the queue, so long from now. What is put first happens first.
    pub(crate) fn schedule(&mut self, after_us: u64, next: Next) {
        self.schedule_at(self.now_us + after_us, next);
    }

    pub(crate) fn schedule_at(&mut self, at_us: u64, next: Next) {
        self.scheduled += 1;
        self.queue.insert((at_us, self.scheduled), next);
    }

    pub(crate) fn log(&mut self, what: Arguments<'_>) {
        self.trace.line(self.now_us, what);
    }

    /// Something is wrong that never should be.
    pub(crate) fn find(&mut self, what: Arguments<'_>) {
        self.log(format_args!("FOUND: {what}"));
        self.findings.push(format!("at {} ms: {what}", self.now_us / 1_000));
    }
}
