//! What a run is to be like, and what will go wrong when. Drawn from its seed, so that seeds differ in kind and not
//! only in luck.
//!
//! The whole schedule is drawn before the run begins. So a fault can be left out to see whether a finding needs
//! it (`shrink`), and a run with some left out can be named: `--seed N --keep 3,17`.

use ringfort_types::planted::Bug;

use crate::opening::SEGMENT_BYTES;
use crate::random::Random;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A process ends between two writes; what it had written stays in the system's cache.
    Kill,
    /// As `Kill`, but after a write to the log and before its sync.
    KillDuringWrite,
    /// The power goes between two writes.
    PowerLoss,
    /// The power goes after a write to the log and before its sync: any of its sectors may be there.
    PowerLossDuringWrite,
    /// All nodes lose their power at once.
    Blackout,
    /// A sync fails, and with it the process.
    FailedSync,
    /// There is no room on a disk.
    DiskFull,
    /// No sync of a disk ends.
    DiskHangs,
    /// Syncs of a disk take much longer than those of others.
    DiskSlow,
    /// A process ends, and a byte of its log changes that had been synced long ago. It must refuse to start, until
    /// the byte is right again.
    Rot,
    /// A process ends in good order, and the last batches of its log are lost. It must refuse to start, until they are there
    /// again.
    LostEnd,
    /// From now on a part of a table can't be read. It happens on one node of a run.
    DamagedTable,
    /// A process ends and is started with an empty directory. The others must not let it in, until it has its own
    /// directory again.
    WrongDisk,
    /// A node is asked to stop, and started again.
    Stop,
    /// A node is cut off from all others.
    Isolate,
    /// One node can't send to another, but hears it.
    OneWay,
    /// Two nodes can't hear each other.
    Cut,
    /// A node loses all frames to and from the others for just as long as they need to put others in its place; then
    /// it can speak again, and hears little of what has happened.
    Depose,
    /// A leader that is being asked to read stands still before it hears the others' answers, and is cut off until after it
    /// goes on.
    Doze,
    /// A leader that has just read is asked to stop, and does not hear what comes of it.
    Abdicate,
    /// A follower that is being asked to read ends and starts again at once, several times; what was on its way to it arrives late.
    Blink,
    /// A connection breaks, with whatever is under way, and is made again.
    BreakLink,
    /// A connection gets slow.
    SlowLink,
    /// Frames get lost on the way, one by one.
    LoseFrames,
    /// Frames overtake each other, and some arrive that were sent on an earlier connection, or to an earlier process.
    ReorderFrames,
    /// Frames arrive twice (without the requests in them, which no transport repeats).
    RepeatFrames,
    /// A process stands still.
    Pause,
    /// A process takes much longer for everything.
    SlowProcess,
    /// A wall clock jumps, up to ten minutes either way.
    ClockJump,
    /// A spare host joins the cluster.
    Join,
    /// A member is to give its replicas to others, and stays.
    Drain,
    /// A member is to give its replicas to others, and is none any more then.
    Leave,
    /// A member is given replicas, whatever it was told before.
    Activate,
    /// A node is lost for good, with its disk, and a new one takes its place under its name.
    Replace,
    /// Shards are to have another number of copies.
    Copies,
    /// A node that is no member any more is started again. It must be refused.
    Return,
    /// A process ends, and the next one begins with a layout that was kept long before.
    OldLayout,
    /// A copy of a disk is kept, and some time later, with many writes since, the disk is put back as it was then.
    OldImage,
    /// The leader of a group that is changing is cut off from those who decided until then, together with those who are new.
    Estrange,
    /// Two members are to give their replicas to others, and are cut off from all of them at the very moment when a group that both decided in
    /// is in between: when its joint configuration is in force for its leader, and before they have heard so.
    Sunder,
    /// The same, but when the joint configuration is left, and their power goes, too: they come back, and are still cut off.
    Benight,
    /// A member that leads is to give its replicas to others, and is told nothing any more from when it hands over a group that is about to
    /// leave it out.
    Retire,
    /// A leader stands still until another one leads, and then hears one node only, which has just started anew.
    Misinform,
    /// A process ends as soon as it has begun a replica, and the next one begins with a layout that was kept before, and hears of no other one
    /// for a while.
    Antedate,
    /// A member comes back at another address, perhaps twice in a row; or where nobody finds it, and then where it was.
    Move,
    /// Two members change places.
    Swap,
    /// All members come back at other addresses.
    MoveAll,
}

/// All kinds, each with the longest time that it lasts, in milliseconds. Of those that end a process it is the time
/// until the next start.
const KINDS: [(Fault, u64); 29] = [
    (Fault::Kill, 15_000),
    (Fault::KillDuringWrite, 4_000),
    (Fault::PowerLoss, 4_000),
    (Fault::PowerLossDuringWrite, 4_000),
    (Fault::Blackout, 4_000),
    (Fault::FailedSync, 4_000),
    (Fault::DiskFull, 6_000),
    (Fault::DiskHangs, 9_000),
    (Fault::DiskSlow, 12_000),
    (Fault::Rot, 2_000),
    (Fault::LostEnd, 2_000),
    (Fault::DamagedTable, 0),
    (Fault::WrongDisk, 3_000),
    (Fault::Stop, 2_000),
    (Fault::Isolate, 4_000),
    (Fault::OneWay, 4_000),
    (Fault::Cut, 4_000),
    (Fault::Depose, 1_000),
    (Fault::Doze, 1_200),
    (Fault::Abdicate, 800),
    (Fault::Blink, 600),
    (Fault::BreakLink, 0),
    (Fault::SlowLink, 2_000),
    (Fault::LoseFrames, 3_000),
    (Fault::ReorderFrames, 3_000),
    (Fault::RepeatFrames, 3_000),
    (Fault::Pause, 2_500),
    (Fault::SlowProcess, 3_000),
    (Fault::ClockJump, 0),
];

/// What changes the shape of a cluster, and what is only of interest where it changes. Some seeds have these besides; for the others they
/// change nothing.
const SHAPES: [(Fault, u64); 10] = [
    (Fault::Join, 0),
    (Fault::Drain, 0),
    (Fault::Leave, 0),
    (Fault::Activate, 0),
    (Fault::Replace, 6_000),
    (Fault::Copies, 0),
    (Fault::Return, 0),
    (Fault::OldLayout, 2_000),
    (Fault::Estrange, 1_000),
    (Fault::OldImage, 12_000),
];
/// More of this kind, drawn besides, and for some of these seeds only.
const MOVES: [(Fault, u64); 4] =
    [(Fault::Sunder, 1_000), (Fault::Move, 3_000), (Fault::Swap, 3_000), (Fault::MoveAll, 2_000)];
/// How many of a hundred of them.
const MOVES_PERCENT: u64 = 60;
/// And these, in the same way.
const SWAPS: [(Fault, u64); 4] =
    [(Fault::Benight, 500), (Fault::Retire, 800), (Fault::Misinform, 0), (Fault::Antedate, 600)];
const SWAPS_PERCENT: u64 = 90;
/// Between two of these, at most, in milliseconds.
const SWAPS_GAP_MS: u64 = 7_000;
/// Hosts that there can be, lost and removed ones too, if it is not said otherwise.
pub(crate) const HOSTS_MAX: usize = 9;
/// Seeds of a hundred whose clusters change their shape.
const SHAPED_PERCENT: u64 = 40;
/// How many of a hundred seeds have processes of two versions.
const LEVELS_PERCENT: u64 = 20;
/// What a chain of changes is drawn from, and how long each lasts at most: hosts come, members go, are lost and replaced, and are away.
const CHAIN: [(Fault, u64); 10] = [
    (Fault::Join, 0),
    (Fault::Join, 0),
    (Fault::Leave, 0),
    (Fault::Leave, 0),
    (Fault::Replace, 2_000),
    (Fault::Replace, 2_000),
    (Fault::Kill, 4_000),
    (Fault::PowerLoss, 4_000),
    (Fault::Drain, 0),
    (Fault::Activate, 0),
];
/// Between two changes of a chain, in milliseconds: what the one before it moves may be on its way or done.
const CHAIN_GAP_MS: (u64, u64) = (500, 8_000);
/// When the first of these changes comes, at least: a cluster is born by then, as a rule.
const SHAPED_MS: u64 = 3_000;

/// One thing that goes wrong, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Its place in the schedule of its seed.
    pub number: usize,
    /// When, in milliseconds.
    pub at_ms: u64,
    /// What.
    pub fault: Fault,
    /// Where, from 0.
    pub host: usize,
    /// Towards whom, for a fault of a link. Another than `host`, unless there is only one.
    pub other: usize,
    /// How long, in milliseconds.
    pub for_ms: u64,
    /// Whatever else has to be decided.
    pub luck: u64,
}

impl Fault {
    /// Whether it is one of those that change a cluster's shape.
    pub(crate) fn changes_shape(self) -> bool {
        SHAPES.iter().chain(&MOVES).chain(&SWAPS).any(|(fault, _)| *fault == self)
    }
}

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Decides everything, also the rest of this plan if it was made from it.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many replicas each shard is to have.
    pub replicas: u32,
    /// How many shards.
    pub shards: u32,
    /// How many clients, each with one request at a time.
    pub clients: usize,
    /// How many connections, each with several requests at a time.
    pub pipes: usize,
    /// How many keys they fight about.
    pub keys: usize,
    /// When everything heals, in milliseconds.
    pub chaos_ms: u64,
    /// When the run ends, in milliseconds, if the verdict is there by then.
    pub length_ms: u64,
    /// How long a node is away until others get its replicas, in milliseconds.
    pub replace_after_ms: u64,
    /// Bytes of log that a node keeps.
    pub log_bytes: u64,
    /// Longest time that a sync takes, in microseconds.
    pub sync_us_max: u64,
    /// Longest time that a message takes, in microseconds.
    pub message_us_max: u64,
    /// How many hosts there may be, lost and removed ones too.
    pub hosts_max: usize,
    /// What goes wrong, in order of time.
    pub strikes: Vec<Strike>,
    /// Whether processes are of two versions, which know levels 1, and 1 and 2.
    pub mixes_levels: bool,
    /// What is wrong on purpose.
    pub plant: Option<Bug>,
    /// Whether single faults come after the healing, each of which others must make up for soon.
    pub examines: bool,
    /// Whether the trace's text is kept, besides its hash.
    pub keeps_trace: bool,
}

impl Plan {
    /// The plan of a seed: sixty seconds. Three or five nodes; every tenth seed one, two or four.
    pub fn from_seed(seed: u64) -> Plan {
        let mut plan = Plan::before_moves(seed);
        if plan.changes_shape().is_some() {
            plan.move_members();
            plan.swap_replicas();
        }
        plan
    }

    /// As plans were drawn before members moved, and with fewer ambushes: for what was found then.
    pub fn before_moves(seed: u64) -> Plan {
        // Not the generator of the run itself: plans may grow without changing what follows.
        let mut random = Random::new(seed ^ 0x706c_616e);
        let few = [1, 2, 4];
        let nodes = if seed % 10 == 9 { random.pick(&few) } else { random.pick(&[3, 3, 5]) };
        let mut plan = Plan {
            seed,
            nodes,
            replicas: if nodes == 5 { random.pick(&[3, 3, 5]) } else { 3 },
            shards: random.pick(&[8, 8, 8, 16, 16, 32, 64]),
            clients: random.between(2, 12) as usize,
            pipes: 0,
            keys: random.between(2, 16) as usize,
            chaos_ms: 50_000,
            length_ms: 60_000,
            replace_after_ms: 60_000,
            log_bytes: u64::MAX,
            sync_us_max: random.pick(&[500, 3_000, 40_000]),
            message_us_max: random.pick(&[300, 2_000, 20_000]),
            hosts_max: HOSTS_MAX,
            strikes: Vec::new(),
            mixes_levels: Random::new(seed ^ 0x6c65_7665_6c73).chance(LEVELS_PERCENT),
            plant: None,
            examines: true,
            keeps_trace: false,
        };
        let percent = random.pick(&[20, 50, 80, 100]);
        let kinds: Vec<Fault> =
            KINDS.iter().map(|(fault, _)| *fault).filter(|_| random.chance(percent)).collect();
        let first_ms = random.pick(&[100, 2_500, 2_500, 2_500]);
        let gap_ms = random.pick(&[500, 1_500, 3_000]);
        plan.schedule(&kinds, first_ms, gap_ms);
        plan.log_bytes = random.pick(&[3, 3, 6, 24]) * SEGMENT_BYTES;
        plan.pipes = random.pick(&[0, 1, 2, 2]);
        plan.change_shape();
        plan
    }

    /// For seeds whose clusters change their shape, what decides how.
    fn changes_shape(&self) -> Option<Random> {
        let mut random = Random::new(self.seed ^ 0x7368_6170_6573);
        random.chance(SHAPED_PERCENT).then_some(random)
    }

    /// Some seeds' clusters change their shape: a few more strikes, in order of time among themselves.
    fn change_shape(&mut self) {
        let Some(mut random) = self.changes_shape() else { return };
        self.replace_after_ms = random.pick(&[2_000, 6_000, 60_000]);
        let percent = random.pick(&[40, 80, 100]);
        let mut kinds: Vec<(Fault, u64)> = SHAPES.into_iter().filter(|_| random.chance(percent)).collect();
        // Without spare hosts there is little that could change.
        kinds.extend([SHAPES[0]; 2]);
        let gap_ms = random.pick(&[2_000, 6_000, 12_000]);
        let at_ms = SHAPED_MS + random.below(4_000);
        self.strike_from(at_ms, &kinds, (100, gap_ms), &mut random);
    }

    /// Strikes of these kinds, each with how long it lasts at most, from this time until all heals, and so long apart.
    fn strike_from(&mut self, from_ms: u64, kinds: &[(Fault, u64)], gap_ms: (u64, u64), random: &mut Random) {
        let mut at_ms = from_ms;
        while at_ms < self.chaos_ms && !kinds.is_empty() {
            let (fault, longest_ms) = random.pick(kinds);
            let (number, host, other) = (self.strikes.len(), random.below(self.nodes as u64) as usize, 0);
            let (for_ms, luck) = (random.between(0, longest_ms), random.next());
            self.strikes.push(Strike { number, at_ms, fault, host, other, for_ms, luck });
            at_ms += random.between(gap_ms.0, gap_ms.1);
        }
    }

    /// In some of them members move, or are cut off from those who take their place.
    fn move_members(&mut self) {
        let mut random = Random::new(self.seed ^ 0x006d_6f76_6573);
        if !random.chance(MOVES_PERCENT) {
            return;
        }
        let kinds: Vec<(Fault, u64)> = MOVES.into_iter().filter(|_| random.chance(60)).collect();
        let gap_ms = random.pick(&[6_000, 12_000, 20_000]);
        let at_ms = SHAPED_MS + random.below(2 * gap_ms);
        self.strike_from(at_ms, &kinds, (500, gap_ms), &mut random);
    }

    /// In some of them members lose their replicas to others, and are cut off when it hurts most.
    fn swap_replicas(&mut self) {
        let mut random = Random::new(self.seed ^ 0x0073_7761_7073);
        if !random.chance(SWAPS_PERCENT) {
            return;
        }
        let at_ms = SHAPED_MS + random.below(SWAPS_GAP_MS);
        self.strike_from(at_ms, &SWAPS, (1_000, SWAPS_GAP_MS), &mut random);
    }

    /// Three nodes whose cluster changes its shape so many times in a row, and nothing else goes wrong.
    pub fn chain(seed: u64, changes: usize) -> Plan {
        let mut random = Random::new(seed ^ 0x0063_6861_696e);
        let mut plan = Plan { nodes: 3, replicas: 3, pipes: 0, examines: false, ..Plan::from_seed(seed) };
        plan.shards = plan.shards.min(16);
        plan.replace_after_ms = random.pick(&[2_000, 6_000, 60_000]);
        plan.hosts_max = plan.nodes + changes;
        plan.strikes.clear();
        let mut at_ms = SHAPED_MS;
        for number in 0..changes {
            let (fault, longest_ms) = random.pick(&CHAIN);
            let (for_ms, luck) = (random.between(0, longest_ms), random.next());
            plan.strikes.push(Strike { number, at_ms, fault, host: 0, other: 0, for_ms, luck });
            at_ms += random.between(CHAIN_GAP_MS.0, CHAIN_GAP_MS.1);
        }
        (plan.chaos_ms, plan.length_ms) = (at_ms, at_ms + 10_000);
        plan
    }

    /// Draws a schedule of these faults, from `first_ms` on, with up to `gap_ms` between two.
    pub fn schedule(&mut self, kinds: &[Fault], first_ms: u64, gap_ms: u64) {
        let mut random = Random::new(self.seed ^ 0x6661_756c_7473);
        self.strikes.clear();
        let mut at_ms = first_ms;
        while at_ms < self.chaos_ms && !kinds.is_empty() {
            let fault = random.pick(kinds);
            let (_, longest_ms) = KINDS.iter().find(|(kind, _)| *kind == fault).expect("all kinds are there");
            let nodes = self.nodes as u64;
            let host = random.below(nodes);
            let other = (host + 1 + random.below(nodes.max(2) - 1)) % nodes;
            // Short ones are more frequent.
            let longest_ms = random.pick(&[100, 1_000, *longest_ms]).min(*longest_ms);
            self.strikes.push(Strike {
                number: self.strikes.len(),
                at_ms,
                fault,
                host: host as usize,
                other: other as usize,
                for_ms: random.between(longest_ms.min(10), longest_ms),
                luck: random.next(),
            });
            at_ms += random.between(20, gap_ms);
        }
    }

    /// The same, with these strikes of its schedule only.
    #[must_use]
    pub fn keeping(&self, numbers: &[usize]) -> Plan {
        let mut plan = self.clone();
        plan.strikes.retain(|strike| numbers.contains(&strike.number));
        plan
    }

    /// A plan under which nothing goes wrong.
    pub fn calm(seed: u64, nodes: usize) -> Plan {
        let calm = Plan {
            nodes,
            chaos_ms: 3_000,
            length_ms: 6_000,
            shards: 4,
            replace_after_ms: 60_000,
            ..Plan::from_seed(seed)
        };
        Plan { strikes: Vec::new(), examines: false, ..calm }
    }
}
