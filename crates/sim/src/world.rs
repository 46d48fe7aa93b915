//! The queue of what happens next, and the course of a run.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Arguments;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::{Request, Stamp, planted};

use crate::Plan;
use crate::ambushes::{Step, Sundered};
use crate::clients::Clients;
use crate::faults::Cure;
use crate::history::Operation;
use crate::host::{Host, Work};
use crate::judges::{Broken, Judges};
use crate::members::Joining;
use crate::network::Network;
use crate::pipes::Pipe;
use crate::plan::{Fault, Strike};
use crate::random::Random;
use crate::rights::{Rights, has_users};
use crate::sessions::Sessions;
use crate::trace::Trace;

/// More than any healthy run makes.
const STEPS_MAX: u64 = 20_000_000;

/// Something that went wrong that never should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Which promise is broken.
    pub invariant: &'static str,
    /// When that was seen, in milliseconds.
    pub at_ms: u64,
    /// How.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "at {} ms: {}: {}", self.at_ms, self.invariant, self.what)
    }
}

/// What came of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its seed.
    pub seed: u64,
    /// What went wrong that never should; empty if all is well.
    pub findings: Vec<Finding>,
    /// The hash of everything that happened.
    pub hash: u64,
    /// What happened, line by line, if the plan wants it.
    pub trace: String,
    /// Requests that were acknowledged, rejected, and of unknown outcome.
    pub requests: (u64, u64, u64),
    /// How long it took until every shard took a write again, after everything had healed.
    pub healed_ms: u64,
    /// How much time passed in the simulated world, in milliseconds.
    pub lived_ms: u64,
    /// The epoch of the last layout.
    pub epochs: u64,
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
    Arrival(Box<Arrival>),
    Connect {
        from: usize,
        to: usize,
        connection: u64,
    },
    Start {
        host: usize,
        life: u64,
    },
    /// A host is put back on its image, as soon as nothing is lost by that: so many more looks.
    PutBack {
        host: usize,
        looks: u32,
    },
    /// A client asks for something.
    Act {
        client: usize,
    },
    /// A connection asks for several things.
    Pipe {
        pipe: usize,
    },
    /// Passers-by write these keys through others and read them here, as often as this, one after the other.
    Poke {
        host: usize,
        keys: Vec<Bytes>,
        left: u32,
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
    /// The host that wants to join asks again, or begins.
    Join,
    /// Somebody changes users.
    ChangeUsers,
    /// Somebody looks at who leads.
    Look,
    /// A copy of a stamped write is sent.
    Copy {
        stamp: Stamp,
        request: Box<Request>,
    },
    Strike(Box<Strike>),
    /// A later step of a fault that has several.
    Step(Box<Step>),
    Cure(Cure),
}

/// A frame at the end of its way.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) connection: u64,
    /// The receiver's life when it was sent.
    pub(crate) life: u64,
    /// Arrives even if its connection is gone.
    pub(crate) is_stray: bool,
    pub(crate) bytes: Bytes,
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
    /// The one that has damaged tables, if there is one.
    pub(crate) damaged_host: Option<usize>,
    pub(crate) network: Network,
    pub(crate) clients: Clients,
    pub(crate) sessions: Sessions,
    pub(crate) rights: Rights,
    pub(crate) pipes: Vec<Pipe>,
    pub(crate) history: Vec<Operation>,
    pub(crate) judges: Judges,
    pub(crate) trace: Trace,
    pub(crate) findings: Vec<Finding>,
    /// The newest that any process has gone by, once a node is born. Which shard has which slots does not change.
    pub(crate) layout: Option<Arc<Layout>>,
    /// The cluster changes its shape in this run.
    pub(crate) changes_shape: bool,
    /// Something may be lost for good, or damaged, in this run.
    pub(crate) may_lose: bool,
    /// Hosts that want to join, one after the other.
    pub(crate) joining: VecDeque<Joining>,
    /// When members were told to give their replicas to others.
    pub(crate) stands_us: Vec<u64>,
    /// Members that are to be cut off once a group is about to do without them.
    pub(crate) sundered: Option<Sundered>,
    /// Whoever hands over next since its group is about to do without it hears nothing any more for so long, in microseconds.
    pub(crate) retiring: Option<u64>,
    /// Whoever begins a replica next forgets the layout that says so, and hears nothing for so long, in microseconds.
    pub(crate) antedating: Option<u64>,
    /// Nothing goes wrong any more.
    pub(crate) is_calm: bool,
    pub(crate) healed_ms: u64,
}

/// Runs a plan from birth to verdict.
pub fn run(plan: &Plan) -> Report {
    planted::plant(plan.plant);
    let mut world = World::new(plan.clone());
    // A broken invariant inside a node panics there, and is a finding like others.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| world.live())) {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("(without words)");
        world.find("no assertion in the code fails", format_args!("{words}"));
    }
    planted::plant(None);
    world.into_report()
}

impl World {
    pub(crate) fn into_report(self) -> Report {
        let (hash, trace) = self.trace.finish();
        Report {
            seed: self.plan.seed,
            findings: self.findings,
            hash,
            trace,
            requests: self.clients.counts(),
            healed_ms: self.healed_ms,
            lived_ms: self.now_us / 1_000,
            epochs: self.judges.layouts.newest().0,
        }
    }

    pub(crate) fn new(plan: Plan) -> World {
        let mut random = Random::new(plan.seed);
        let hosts = (0..plan.nodes).map(|number| Host::new(number, &mut random)).collect();
        let changes_shape = plan.strikes.iter().any(|strike| strike.fault.changes_shape());
        let loses = |strike: &Strike| matches!(strike.fault, Fault::Replace | Fault::DamagedTable);
        let may_lose = plan.strikes.iter().any(loses);
        World {
            network: Network::new(plan.nodes, plan.message_us_max),
            clients: Clients::new(&plan),
            sessions: Sessions::default(),
            rights: Rights::default(),
            pipes: (0..plan.pipes).map(|_| Pipe::default()).collect(),
            trace: Trace::new(plan.keeps_trace),
            plan,
            now_us: 0,
            queue: BTreeMap::new(),
            scheduled: 0,
            random,
            hosts,
            damaged_host: None,
            history: Vec::new(),
            judges: Judges::default(),
            findings: Vec::new(),
            layout: None,
            changes_shape,
            may_lose,
            joining: VecDeque::new(),
            stands_us: Vec::new(),
            sundered: None,
            retiring: None,
            antedating: None,
            is_calm: false,
            healed_ms: 0,
        }
    }

    fn live(&mut self) {
        self.begin();
        for strike in std::mem::take(&mut self.plan.strikes) {
            self.log(format_args!("planned: {strike:?}"));
            self.schedule(strike.at_ms * 1_000, Next::Strike(Box::new(strike)));
        }
        self.run_until(self.plan.chaos_ms * 1_000);
        self.heal();
        self.reach_a_verdict();
    }

    /// Processes and clients begin, each a little later than the one before.
    pub(crate) fn begin(&mut self) {
        let Plan { seed, nodes, replicas, shards, clients, pipes, keys, .. } = self.plan;
        let (sync_us_max, message_us_max) = (self.plan.sync_us_max, self.plan.message_us_max);
        self.log(format_args!(
            "seed {seed}: {nodes} nodes, {shards} shards of {replicas} replicas, {clients} clients, {pipes} connections, {keys} keys, syncs up to {sync_us_max} us, \
             messages up to {message_us_max} us"
        ));
        for host in 0..self.hosts.len() {
            let after_us = self.random.below(500_000);
            self.schedule(after_us, Next::Start { host, life: 0 });
        }
        for client in 0..self.plan.clients {
            let after_us = self.random.between(500_000, 3_000_000);
            self.schedule(after_us, Next::Act { client });
        }
        for pipe in 0..self.plan.pipes {
            let after_us = self.random.between(500_000, 3_000_000);
            self.schedule(after_us, Next::Pipe { pipe });
        }
        self.schedule(1_000_000, Next::Look);
        if has_users(self.plan.seed) {
            self.schedule(1_000_000, Next::ChangeUsers);
        }
    }

    /// Goes on until this time.
    pub(crate) fn run_until(&mut self, until_us: u64) {
        while self.queue.first_key_value().is_some_and(|((at_us, _), _)| *at_us <= until_us) {
            self.step();
        }
        self.now_us = self.now_us.max(until_us);
    }

    /// Goes on while something is so, for this long at most. Whether it has ended.
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
            Next::Arrival(arrival) => self.arrive(*arrival),
            Next::Connect { from, to, connection } => self.connect(from, to, connection),
            Next::Start { host, life } => {
                if self.hosts[host].life == life && self.hosts[host].process.is_none() {
                    self.start(host);
                }
            }
            Next::Step(step) => self.go_on_with(*step),
            Next::Act { client } => self.act(client),
            Next::Pipe { pipe } => self.act_in_pipe(pipe),
            Next::Poke { host, keys, left } => self.poke(host, keys, left),
            Next::Answer { id, reply } => self.hear_answer(id, *reply),
            Next::GiveUp { id } => self.give_up(id),
            Next::PutBack { host, looks } => self.put_back(host, looks),
            Next::Join => self.join(),
            Next::ChangeUsers => self.change_users(),
            Next::Look => self.look(),
            Next::Copy { stamp, request } => self.send_copy(stamp, *request),
            Next::Strike(strike) => self.strike(*strike),
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
    pub(crate) fn find(&mut self, invariant: &'static str, what: Arguments<'_>) {
        self.log(format_args!("FOUND: {invariant}: {what}"));
        let at_ms = self.now_us / 1_000;
        // The first few say it all; a broken world must not fill the memory.
        if self.findings.len() < 20 {
            self.findings.push(Finding { invariant, at_ms, what: what.to_string() });
        }
    }

    /// What judges have found of a host, unless that has lost something: it is judged by what comes of it elsewhere.
    pub(crate) fn find_of(&mut self, host: usize, broken: Vec<Broken>) {
        if !self.hosts[host].is_older {
            self.find_all(broken);
        }
    }

    /// What judges have found.
    pub(crate) fn find_all(&mut self, broken: Vec<Broken>) {
        for Broken { invariant, what } in broken {
            self.find(invariant, format_args!("{what}"));
        }
    }
}
