//! Damage runs over one node of three: something happens to one of its files while it is stopped, and it is started again. Whatever that was,
//! the cluster serves on with right values, the node comes up or says which file is damaged, and within a minute there are three whole
//! copies of everything again: by themselves, or by the command that the node's last line names.
//!
//! `RINGFORT_DAMAGES` and `RINGFORT_DAMAGE_SEED` say how many and which, as for those of a single node (`damage`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::process::Stdio;
use std::time::{Duration, Instant};

use ringfort_client::{Client, Condition, Options};
use rustix::process::Signal;

use crate::members::Members;
use crate::spoil::{Random, damage, files, names};
use crate::support::{ended, eventually, run, stdout};

const DAMAGES: u64 = 6;
const KEYS: usize = 240;
/// Until it serves, or has ended.
const START_MAX: Duration = Duration::from_secs(20);
/// Until there are three whole copies.
const WHOLE_MAX: Duration = Duration::from_mins(1);
/// Whose files are damaged.
const NODE: usize = 2;

fn key(number: usize) -> String {
    format!("key{number}")
}

fn value(number: usize, round: u64) -> String {
    format!("value {number} of round {round} ").repeat(60)
}

/// A cluster, and in which round each key was written last.
struct Run {
    members: Members,
    rounds: Vec<u64>,
    round: u64,
}

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    /// It serves, and says nothing of the file.
    Serves,
    /// It serves, and says which file is damaged.
    Says,
    /// It does not start; its place is taken by an empty directory.
    Replaced,
}

impl Run {
    /// Tables of several levels, several segments of the log, and rows that are only there.
    fn new() -> Run {
        let mut members = Members::start(&["--memtable-mb", "1", "--log-mb", "1"]);
        members.join();
        members.join();
        let mut run = Run { members, rounds: vec![0; KEYS], round: 0 };
        for part in [1, 1, 2, 3, 4] {
            run.write(part);
        }
        run.wait_until_whole("at first");
        run
    }

    /// A new value under every so-many-th key, through the other nodes.
    fn write(&mut self, part: usize) {
        self.round += 1;
        let numbers = (0..KEYS).filter(|number| number % part == 0);
        let row = |number| [&key(number), "\t", &value(number, self.round), "\n"].concat();
        let rows: String = numbers.clone().map(row).collect();
        let mut import = self.members.cli(0, &["import", "-"]);
        import.env("RINGFORT_ADDR", self.members.addresses(&[0, 1]).join(","));
        let output = run(&mut import, rows.as_bytes());
        assert!(output.status.success(), "{output:?}");
        numbers.for_each(|number| self.rounds[number] = self.round);
    }

    fn wait_until_whole(&self, what: &str) -> Duration {
        let begun = Instant::now();
        loop {
            let checked = run(&mut self.members.cli(0, &["check"]), b"");
            if checked.status.success() && stdout(&checked).contains("all replicas agree") {
                return begun.elapsed();
            }
            assert!(begun.elapsed() < WHOLE_MAX, "{what}: {checked:?}: {}", self.members.said(NODE));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(&mut self, signal: Signal) {
        self.members.signal(NODE, signal);
        ended(self.members.nodes[NODE].as_mut().expect("it runs"));
        self.members.nodes[NODE] = None;
    }

    /// Starts it by the line it was started with: whether it serves. Else it has ended, with a reason.
    fn start(&mut self, what: &str) -> bool {
        let log = File::create(self.members.directory.path().join(format!("{NODE}.log"))).expect("a log");
        let errors = log.try_clone().expect("a log");
        let mut command = self.members.command(NODE, &[]);
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts");
        self.members.nodes[NODE] = Some(child);
        let begun = Instant::now();
        loop {
            let said = self.members.said(NODE);
            // Some damage is noticed only by others, or once replicas are opened: then it serves first.
            if said.contains("serves on") {
                return true;
            }
            let child = self.members.nodes[NODE].as_mut().expect("it was started");
            if let Some(status) = child.try_wait().expect("a child") {
                assert!(matches!(status.code(), Some(2 | 3)), "{what}: {status}: {said}");
                self.members.nodes[NODE] = None;
                return false;
            }
            assert!(begun.elapsed() < START_MAX, "{what}: the start hangs: {said}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// It may have been refused by the others, or ended by what it found, after it began to serve.
    fn has_ended_since(&mut self) -> bool {
        let child = self.members.nodes[NODE].as_mut().expect("it was started");
        let has_ended = child.try_wait().expect("a child").is_some();
        if has_ended {
            self.members.nodes[NODE] = None;
        }
        has_ended
    }

    /// Nobody can take the place of a node that may live.
    fn wait_until_down(&self) {
        eventually("it is known to be down", || {
            let nodes = run(&mut self.members.cli(0, &["cluster", "nodes", "--json"]), b"");
            stdout(&nodes).contains("\"state\":\"down\"")
        });
    }

    /// Puts an empty directory in its place.
    fn replace(&mut self) {
        fs::remove_dir_all(self.members.data(NODE)).expect("it was there");
        let member = self.members.address(0);
        self.members.start_node(NODE, &["--join", &member, "--replace"]);
    }

    /// All values are right, whoever is asked first, and writes under a condition are taken.
    fn read(&mut self, what: &str) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let addresses = self.members.addresses(&[NODE, 0, 1]);
        let rounds = &mut self.rounds;
        self.round += 1;
        let round = self.round;
        runtime.block_on(async {
            let client = Client::connect(Options::new(addresses)).await.expect("connects");
            for (number, round) in rounds.iter().enumerate() {
                let row = client.get(key(number)).await.unwrap_or_else(|error| panic!("{what}: {error}"));
                let found = row.map(|row| row.value);
                let right = found.as_deref() == Some(value(number, *round).as_bytes());
                assert!(right, "{what}: wrong value of {}: {found:?}", key(number));
            }
            for number in (0..KEYS).step_by(40) {
                let written = client.put_if(key(number), value(number, round), Condition::Present).await;
                assert!(written.is_ok(), "{what}: {written:?}");
                rounds[number] = round;
            }
        });
    }
}

#[test]
fn damage_to_one_node_of_three_is_made_up_for_within_a_minute() {
    let number = |name: &str, default| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (damages, first) = (number("RINGFORT_DAMAGES", DAMAGES), number("RINGFORT_DAMAGE_SEED", 1));
    let mut run = Run::new();
    let mut figures: BTreeMap<(&str, Outcome), u64> = BTreeMap::new();
    let mut longest = Duration::ZERO;
    for seed in first..first + damages {
        let mut random = Random(seed);
        let signal = [Signal::TERM, Signal::KILL][random.below(2)];
        run.stop(signal);
        let mut found = BTreeMap::new();
        files(&run.members.data(NODE), &mut found);
        let kinds: Vec<_> = found.keys().copied().collect();
        let kind = kinds[random.below(kinds.len())];
        let path = found[kind][random.below(found[kind].len())].clone();
        let (done, other) = damage(&path, &found[kind], &mut random);
        let what = format!("seed {seed}, after {signal:?}: {} {done}", path.display());
        if random.below(2) == 0 {
            run.write(3);
        }

        let begun = Instant::now();
        let serves = run.start(&what);
        let is_named = |run: &Run| {
            let said = run.members.said(NODE);
            [Some(&path), other.as_ref()].into_iter().flatten().any(|path| names(&said, path))
        };
        run.read(&what);
        let outcome = if serves && !run.has_ended_since() {
            if is_named(&run) { Outcome::Says } else { Outcome::Serves }
        } else {
            assert!(is_named(&run), "{what}: not named: {}", run.members.said(NODE));
            run.wait_until_down();
            run.replace();
            Outcome::Replaced
        };
        run.wait_until_whole(&what);
        longest = longest.max(begun.elapsed());
        assert!(begun.elapsed() < WHOLE_MAX, "{what}: {:?}", begun.elapsed());
        run.read(&what);
        for node in 0..3 {
            assert!(!run.members.said(node).contains("panicked"), "{what}: {}", run.members.said(node));
        }
        *figures.entry((kind, outcome)).or_default() += 1;
    }
    for ((kind, outcome), count) in &figures {
        println!("{kind}: {outcome:?} {count}");
    }
    println!("whole again after {longest:?} at most");
    assert_eq!(figures.values().sum::<u64>(), damages);
}
