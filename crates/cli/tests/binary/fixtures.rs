//! Data directories that binaries of each level have written (`tests/fixtures/level-N`): every later version reads them, for ever.
//!
//! `solo` is of a node alone that was killed: some rows are in tables, some only in its log. `trio` is of three nodes that were stopped
//! in good order. Beside the directories stands what was in them, as the binary that wrote them exported it. `cargo xtask fixture` makes
//! those of the present level, by way of the test below.
//!
//! A data directory knows the address of its node, so these have addresses that nothing else on this machine uses; and since two runs of
//! these tests may go on at once, they wait for each other.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ringfort_client::{Client, Options};
use ringfort_types::{Access, LayoutChange, Level, Right, UserChange, UserState, UsersState};
use rustix::fs::{FlockOperation, flock};

use crate::support::{ask_to_stop, ended, eventually, ringfort, run, stderr, stdout};

const SOLO: &str = "127.0.66.1:24601";
const TRIO: [&str; 3] = ["127.0.66.2:24602", "127.0.66.3:24603", "127.0.66.4:24604"];
/// Enough for a table to be flushed by itself, since a memtable has a MiB here.
const ROWS: usize = 700;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// One of the fixtures, unpacked, and its nodes.
struct Unpacked {
    directory: tempfile::TempDir,
    addresses: &'static [&'static str],
    nodes: Vec<Child>,
    _alone: File,
}

impl Unpacked {
    /// Nothing in it yet.
    fn empty(addresses: &'static [&'static str]) -> Unpacked {
        let lock = File::create(std::env::temp_dir().join("ringfort-fixtures.lock")).expect("a lock");
        flock(&lock, FlockOperation::LockExclusive).expect("it can be waited for");
        let directory = tempfile::tempdir().expect("a directory");
        Unpacked { directory, addresses, nodes: Vec::new(), _alone: lock }
    }

    fn of(archive: &Path, addresses: &'static [&'static str]) -> Unpacked {
        let unpacked = Unpacked::empty(addresses);
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(archive).arg("-C").arg(unpacked.directory.path());
        assert!(tar.status().expect("there is tar").success());
        unpacked
    }

    fn pack(self, archive: &Path) {
        let mut tar = Command::new("tar");
        tar.args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--exclude=*.said",
            "--exclude=spare",
        ]);
        tar.arg("-czf").arg(archive).arg("-C").arg(self.directory.path()).arg(".");
        assert!(tar.status().expect("there is tar").success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn start(&mut self) {
        let named = |at: usize| format!("node{}={}", at + 1, self.addresses[at]);
        for (at, address) in self.addresses.iter().enumerate() {
            let said = File::create(self.path(&format!("node{}.said", at + 1))).expect("a log");
            let id = format!("node{}", at + 1);
            let mut command = ringfort(&["start", "--id", &id, "--addr", address, "--shards", "4"]);
            command.args(["--memtable-mb", "1", "--log-mb", "1", "--data-dir"]).arg(self.path(&id));
            let others: Vec<_> = (0..self.addresses.len()).filter(|other| *other != at).map(named).collect();
            if !others.is_empty() {
                command.args(["--peers", &others.join(",")]);
            }
            let errors = said.try_clone().expect("a log");
            command.stdin(Stdio::null()).stdout(said).stderr(errors);
            self.nodes.push(command.spawn().expect("it starts"));
        }
        eventually("all serve", || {
            (1..=self.addresses.len()).all(|node| self.said(node).contains("serves on"))
        });
    }

    fn said(&self, node: usize) -> String {
        fs::read_to_string(self.path(&format!("node{node}.said"))).unwrap_or_default()
    }

    fn stop(&mut self) {
        self.nodes.iter().for_each(ask_to_stop);
        for mut node in self.nodes.drain(..) {
            assert!(ended(&mut node).success());
        }
    }

    fn kill(&mut self) {
        for mut node in self.nodes.drain(..) {
            let _gone = node.kill();
            let _gone = node.wait();
        }
    }

    fn ask(&self, arguments: &[&str], input: &[u8]) -> String {
        let output = run(ringfort(arguments).env("RINGFORT_ADDR", self.addresses.join(",")), input);
        assert!(output.status.success(), "{arguments:?}: {}", stderr(&output));
        stdout(&output)
    }

    /// Asks as a program would.
    fn call<T>(&self, ask: impl AsyncFnOnce(Client) -> T) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let addresses = self.addresses.iter().map(|address| (*address).to_owned()).collect();
            ask(Client::connect(Options::new(addresses)).await.expect("good addresses")).await
        })
    }

    /// Every row with its revision.
    fn rows(&self) -> String {
        self.ask(&["list", "--json"], b"")
    }
}

impl Drop for Unpacked {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts it twice: what was written is there, with its revisions, and more can be written.
fn assert_is_read(level: Level, archive: &Path, addresses: &'static [&'static str]) {
    let mut unpacked = Unpacked::of(archive, addresses);
    let expected = fs::read_to_string(unpacked.path("rows.json")).expect("it is beside the data");
    assert!(expected.lines().count() > ROWS / 2);
    unpacked.start();
    assert_eq!(unpacked.rows(), expected, "{}", archive.display());
    unpacked.ask(&["check"], b"");
    assert!(unpacked.ask(&["cluster", "set"], b"").contains("leader-preference = highest-id"));
    if level >= Level::USERS {
        assert_eq!(unpacked.call(async |client| client.users().await), Ok(users()));
    }
    // Counters go on, and conditions hold by the revisions that are there.
    assert_eq!(unpacked.ask(&["incr", "counter", "2"], b"").trim(), "44");
    unpacked.ask(&["put", "new", "row", "--if-absent"], b"");
    unpacked.ask(&["put", "new", "value", "--if-value", "row"], b"");
    unpacked.stop();
    unpacked.start();
    assert_eq!(unpacked.ask(&["get", "--raw", "counter"], b""), "44");
    assert_eq!(unpacked.ask(&["get", "--raw", "new"], b""), "value");
    let others = |rows: &str| {
        let is_other = |line: &&str| !line.contains("\"counter\"") && !line.contains("\"new\"");
        rows.lines().filter(is_other).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(others(&unpacked.rows()), others(&expected));
    for node in 1..=addresses.len() {
        assert!(!unpacked.said(node).contains("damage"), "{}", unpacked.said(node));
    }
}

#[test]
fn what_every_level_has_written_is_read() {
    if std::env::var_os("RINGFORT_WRITE_FIXTURE").is_some() {
        make_those_of_this_level();
    }
    let mut levels: Vec<PathBuf> = fs::read_dir(fixtures())
        .expect("there are some")
        .map(|entry| entry.expect("a level").path())
        .collect();
    levels.sort();
    for level in Level::MIN.0..=Level::MAX.0 {
        let name = format!("level-{level}");
        assert!(levels.iter().any(|path| path.ends_with(&name)), "make one of {name}: cargo xtask fixture");
    }
    for path in levels {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        let number = name.strip_prefix("level-").and_then(|number| number.parse().ok());
        let level = Level(number.expect("level-N"));
        assert_is_read(level, &path.join("solo.tar.gz"), &[SOLO]);
        assert_is_read(level, &path.join("trio.tar.gz"), &TRIO);
    }
}

/// Rows that were overwritten and deleted; of all sizes; with conditions, increments, and a changed layout.
fn fill(unpacked: &Unpacked) {
    let rows = |from: usize, value: &dyn Fn(usize) -> String| {
        let rows: Vec<_> = (from..ROWS).map(|n| format!("key{n:04}\t{}\n", value(n))).collect();
        rows.concat()
    };
    unpacked.ask(&["import", "-"], rows(0, &|n| "old ".repeat(n)).as_bytes());
    unpacked.ask(&["import", "-"], rows(ROWS / 3, &|n| "v".repeat(n * 11)).as_bytes());
    unpacked.ask(&["put", "large", &"large ".repeat(15_000)], b"");
    for n in 0..20 {
        unpacked.ask(&["delete", &format!("key{n:04}")], b"");
    }
    unpacked.ask(&["incr", "counter", "41"], b"");
    unpacked.ask(&["incr", "counter"], b"");
    unpacked.ask(&["put", "here", "1", "--if-absent"], b"");
    unpacked.ask(&["put", "here", "2", "--if-value", "1"], b"");
    unpacked.ask(&["cluster", "set", "leader-preference=highest-id"], b"");
    let in_force = format!("(level {} is in force)", Level::MAX);
    eventually("the level rises", || unpacked.ask(&["cluster", "set"], b"").contains(&in_force));
    for change in user_changes() {
        let changed = unpacked.call(async |client| client.change_layout(LayoutChange::Users(change)).await);
        changed.expect("it can be made");
    }
}

/// Ada, who may change the cluster, and bob, with a password and some rights.
fn user_changes() -> Vec<UserChange> {
    const HASH: &str =
        "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";
    let over = |access, prefix: &'static str| Right::Over(access, prefix.into());
    let (ada, bob) = (|| "ada".to_owned(), || "bob".to_owned());
    vec![
        UserChange::Add { name: ada(), password: None, token: Some([7; 32]) },
        UserChange::Grant(ada(), Right::Cluster),
        UserChange::Add { name: "gone".to_owned(), password: None, token: None },
        UserChange::Remove("gone".to_owned()),
        UserChange::Add { name: bob(), password: Some(HASH.to_owned()), token: None },
        UserChange::Grant(bob(), over(Access::Read, "")),
        UserChange::Grant(bob(), over(Access::Admin, "bob/")),
    ]
}

/// What they come to.
fn users() -> UsersState {
    let over = |access, prefix: &'static str| Right::Over(access, prefix.into());
    let user = |name: &str, has_password: bool, rights: Vec<Right>| UserState {
        name: name.to_owned(),
        has_password,
        has_token: !has_password,
        rights,
    };
    let bob = vec![over(Access::Read, ""), over(Access::Admin, "bob/")];
    UsersState {
        enforced: false,
        users: vec![user("ada", false, vec![Right::Cluster]), user("bob", true, bob)],
    }
}

fn make_those_of_this_level() {
    let level = fixtures().join(format!("level-{}", Level::MAX));
    assert!(!level.exists(), "{} is there: a fixture stays as it was made", level.display());
    fs::create_dir_all(&level).expect("it can be written");
    for (name, addresses) in [("solo", &[SOLO][..]), ("trio", &TRIO)] {
        let mut unpacked = Unpacked::empty(addresses);
        unpacked.start();
        fill(&unpacked);
        unpacked.stop();
        unpacked.start();
        for n in 100..120 {
            unpacked.ask(&["put", &format!("key{n:04}"), "late"], b"");
        }
        fs::write(unpacked.path("rows.json"), unpacked.rows()).expect("written");
        if addresses.len() == 1 {
            unpacked.kill();
        } else {
            unpacked.stop();
        }
        unpacked.pack(&level.join(format!("{name}.tar.gz")));
    }
}
