//! Three nodes in lockstep: whatever one has to do in a step, the others hear of in the next. Disks sync what they are given, and tables
//! have applied it, by the next step.
//!
//! Rows are not kept: what a table does is not a node's. The meta group's layout is, since nodes go by it.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use ringfort_node::{ApplyJob, Config, Effect, Event, FoundReplica, Identity, Incoming, Node, Opened};
use ringfort_ring::Layout;
use ringfort_types::limits::TICK_MS;
use ringfort_types::{
    Call, ClusterState, Command, Configuration, Entry, EntryKind, Incarnation, Level, Levels, NodeId, Now,
    Reply, Request, ShardId, Token,
};

use crate::{counted, turn};

const NODES: usize = 3;
const SHARDS: u32 = 64;
/// How long a step is. A put takes some six of them.
const STEP_US: u64 = 100;
/// The node that is counted.
const COUNTED: usize = 0;
/// In which time a cluster is born, and all lead that should.
const BIRTH_MS_MAX: u64 = 60_000;
/// After that it is at rest.
const REST_MS: u64 = 2_000;

/// What a node hears.
enum Input {
    Event(Event),
    Frame { link: u64, bytes: Bytes },
}

pub(crate) struct Machines {
    now: Now,
    next_tick_us: u64,
    nodes: Vec<Node>,
    batches: Vec<u64>,
    /// What each hears in the next step.
    inputs: Vec<Vec<Input>>,
    layouts: Vec<Option<Arc<Layout>>>,
    next_token: u64,
    /// Calls that were answered since somebody asked.
    answered: u64,
    state: Option<ClusterState>,
    is_counting: bool,
}

impl Machines {
    /// A cluster at rest, with each shard led by the node that should.
    pub(crate) fn born() -> Machines {
        let addresses: Vec<String> = (1..=NODES).map(|n| format!("10.0.0.{n}:50051")).collect();
        let now = Now { monotonic_us: 1_000_000, wall_ms: 1_700_000_000_000 };
        let node = |n: usize| {
            let mut names = vec![String::new(); NODES];
            names[n] = format!("node{}", n + 1);
            let levels = Levels { min: Level::MAX, max: Level::MAX };
            let config = Config {
                address: addresses[n].clone(),
                addresses: addresses.clone(),
                names,
                shards: SHARDS,
                replicas: NODES as u32,
                replace_after_ms: 60_000,
                levels,
            };
            let identity = Identity {
                incarnation: incarnation(n),
                boot: 1,
                birth: None,
                layout: None,
                process: 1_000 + n as u64,
                marks: None,
            };
            Node::new(config, &identity, now).expect("a good configuration")
        };
        let mut machines = Machines {
            now,
            next_tick_us: now.monotonic_us,
            nodes: (0..NODES).map(node).collect(),
            batches: vec![0; NODES],
            inputs: (0..NODES).map(|_| Vec::new()).collect(),
            layouts: vec![None; NODES],
            next_token: 0,
            answered: 0,
            state: None,
            is_counting: false,
        };
        for (from, to) in
            (0..NODES).flat_map(|from| (0..NODES).map(move |to| (from, to))).filter(|(a, b)| a != b)
        {
            machines.hear(from, Event::PeerUp(id(to)));
        }
        for _ in 0..BIRTH_MS_MAX / TICK_MS {
            machines.run(TICK_MS);
            if machines.all_lead_that_should() {
                machines.run(REST_MS);
                return machines;
            }
        }
        panic!("the cluster is not born in a minute");
    }

    /// Which shard a key is of.
    pub(crate) fn shard_of(&self, key: &Bytes) -> ShardId {
        let layout = self.nodes[COUNTED].layout().expect("it is born");
        layout.shard_of_slot(ringfort_types::slot_of(key))
    }

    /// Makes calls, each at the node that leads its shard.
    pub(crate) fn ask(&mut self, calls: Vec<(ShardId, Call)>) {
        let state = self.state.as_ref().expect("it was born");
        let mut by_node: Vec<Vec<Incoming>> = (0..NODES).map(|_| Vec::new()).collect();
        for (shard, call) in calls {
            let leader =
                state.shards.iter().find(|known| known.shard == shard).and_then(|known| known.leader);
            let leader = leader.expect("every shard is led");
            self.next_token += 1;
            let token = Token { origin: leader, id: self.next_token };
            by_node[place(leader)].push(Incoming { token, call });
        }
        for (n, incoming) in by_node.into_iter().enumerate().filter(|(_, incoming)| !incoming.is_empty()) {
            self.hear(n, Event::Requests(incoming));
        }
    }

    /// How many calls were answered since this was last asked.
    pub(crate) fn take_answered(&mut self) -> u64 {
        std::mem::take(&mut self.answered)
    }

    /// From now on what the first node does is done by the functions that are counted.
    pub(crate) fn count(&mut self) {
        self.is_counting = true;
    }

    /// Everybody hears what there is to hear, and takes a turn.
    pub(crate) fn step(&mut self) {
        self.now.monotonic_us += STEP_US;
        self.now.wall_ms = 1_700_000_000_000 + self.now.monotonic_us / 1_000;
        if self.now.monotonic_us >= self.next_tick_us {
            self.next_tick_us += TICK_MS * 1_000;
            (0..NODES).for_each(|n| self.hear(n, Event::Tick));
        }
        let inputs: Vec<_> = self.inputs.iter_mut().map(std::mem::take).collect();
        for (n, inputs) in inputs.into_iter().enumerate() {
            let is_counted = self.is_counting && n == COUNTED;
            let (node, now) = (&mut self.nodes[n], self.now);
            for input in inputs {
                match (input, is_counted) {
                    (Input::Event(event), true) => counted::handle_event(node, now, event),
                    (Input::Event(event), false) => node.handle(now, event),
                    (Input::Frame { link, bytes }, true) => counted::handle_frame(node, now, link, bytes),
                    (Input::Frame { link, bytes }, false) => turn::handle_frame(node, now, link, bytes),
                }
            }
            let (effects, frames) = if is_counted {
                counted::end_turn(node, now, incarnation(n))
            } else {
                turn::end_turn(node, now, incarnation(n))
            };
            for (to, bytes) in frames {
                self.inputs[place(to)].push(Input::Frame { link: n as u64, bytes });
            }
            for effect in effects {
                self.carry_out(n, effect);
            }
        }
    }

    fn run(&mut self, ms: u64) {
        (0..ms * 1_000 / STEP_US).for_each(|_| self.step());
    }

    fn hear(&mut self, n: usize, event: Event) {
        self.inputs[n].push(Input::Event(event));
    }

    fn all_lead_that_should(&mut self) -> bool {
        self.next_token += 1;
        let token = Token { origin: id(COUNTED), id: self.next_token };
        self.hear(COUNTED, Event::Requests(vec![Incoming { token, call: Request::ClusterState.into() }]));
        self.run(1);
        let leads = |shard: &ringfort_types::ShardState| {
            shard.leader.is_some() && shard.leader == shard.replicas.first().map(|(node, _)| *node)
        };
        self.state.as_ref().is_some_and(|state| !state.shards.is_empty() && state.shards.iter().all(leads))
    }

    fn carry_out(&mut self, n: usize, effect: Effect) {
        match effect {
            Effect::SaveBirth(_) => self.hear(n, Event::BirthSaved),
            Effect::SaveMarks(_) => self.hear(n, Event::MarksSaved(true)),
            Effect::Open { born, shards } => self.open(n, &born, &shards),
            Effect::Persist { number, .. } => {
                self.batches[n] += 1;
                self.hear(n, Event::Persisted { number, batch: self.batches[n] });
            }
            Effect::Apply(jobs) => self.apply(n, jobs),
            Effect::Read(jobs) => self.answered += jobs.len() as u64,
            Effect::Reply(answers) => {
                for answered in answers {
                    match answered.reply {
                        Reply::Cluster(state) => self.state = Some(*state),
                        other => panic!("only its tables answer: {other:?}"),
                    }
                }
            }
            Effect::SaveLayout { .. } | Effect::Serving | Effect::Notice(_) => {}
            other => panic!("nothing goes wrong here: {other:?}"),
        }
    }

    /// All is empty.
    fn open(&mut self, n: usize, born: &Arc<Layout>, shards: &BTreeMap<ShardId, Configuration>) {
        self.layouts[n] = Some(born.clone());
        let (mut found, mut opened) = (BTreeMap::new(), BTreeMap::new());
        for (shard, configuration) in shards {
            let peer = configuration.peer_on(id(n)).expect("all nodes have a replica of each");
            found.insert(*shard, FoundReplica { peer, is_gone: false, generation: 0 });
            let configuration = configuration.clone();
            opened.insert(*shard, Opened { peer, configuration, ..Opened::default() });
        }
        self.hear(n, Event::Replicas { replicas: found, batch: 0 });
        self.hear(n, Event::Opened(opened));
        self.hear(n, Event::Layout(born.clone()));
    }

    fn apply(&mut self, n: usize, jobs: Vec<ApplyJob>) {
        let applied = jobs.iter().map(|job| (job.shard, job.entry.index)).collect();
        for job in jobs {
            if job.shard == ShardId::META {
                self.change_layout(n, &job);
            }
            self.answered += job.waiters.iter().filter(|token| **token != Token::NOBODY).count() as u64;
        }
        self.hear(n, Event::Applied(applied));
    }

    fn change_layout(&mut self, n: usize, job: &ApplyJob) {
        if job.entry.payload.is_empty() || job.entry.kind == EntryKind::Configuration {
            return;
        }
        let entry = Entry::decode(job.entry.payload.clone()).expect("our own encoding");
        for stamped in entry.commands {
            let Command::Layout(change) = stamped.command else { continue };
            let Some(next) = self.layouts[n].as_ref().and_then(|layout| layout.after(&change)) else {
                continue;
            };
            let next = Arc::new(next);
            self.layouts[n] = Some(next.clone());
            self.hear(n, Event::Layout(next));
        }
    }
}

fn id(n: usize) -> NodeId {
    NodeId(n as u64 + 1)
}

fn place(node: NodeId) -> usize {
    node.0 as usize - 1
}

fn incarnation(n: usize) -> Incarnation {
    Incarnation(100 + n as u64)
}
