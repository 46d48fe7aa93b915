//! Damage runs: something happens to one file of a stopped node, and the node is started. It serves right values, or says
//! which file is damaged, in its log, as the reason why it does not start, or in answers; never a wrong value, a panic,
//! or a start that hangs.
//!
//! `RINGFORT_DAMAGES=500 cargo test -p ringfort-cli --test binary damage -- --nocapture` does more of them than usual;
//! `RINGFORT_DAMAGE_SEED` begins elsewhere. What came of 500 stands in `docs/testing.md`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use ringfort_client::{Client, Condition, Consistency, Decision, Options, ReadsFrom};
use rustix::process::Signal;

use crate::solo::Solo;
use crate::spoil::{Random, damage, files, names};
use crate::support::{copy, ended, eventually, ringfort, run, stderr};
use crate::trio::Trio;

const DAMAGES: u64 = 20;
const KEYS: usize = 240;
/// How long a start may take, and a call.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(number: usize) -> String {
    format!("key{number}")
}

/// Larger than a page together with its neighbours, so that damage often hits one that is read.
fn value(number: usize, round: usize) -> String {
    format!("value {number} of round {round} ").repeat(60)
}

/// The newest value of each key, as `import` takes it.
fn newest_rows() -> String {
    (0..KEYS).map(|n| [&key(n), "\t", &value(n, newest(n)), "\n"].concat()).collect()
}

/// A node's directory after a life: with tables, merged ones too, several segments and a spare one, a layout that has been changed, and rows
/// that are only in the log.
fn live(solo: &mut Solo, signal: Signal) {
    let mut command = solo.command();
    command.args(["--memtable-mb", "1", "--log-mb", "1"]);
    solo.spawn(command);
    for round in 0..6 {
        let rows: Vec<_> = (0..KEYS)
            .filter(|n| n % 6 >= round || round == 0)
            .map(|n| format!("{}\t{}\n", key(n), value(n, round)))
            .collect();
        solo.ask(&["import", "-"], rows.concat().as_bytes());
    }
    solo.ask(&["cluster", "set", "leader-preference=highest-id"], b"");
    let kinds = |solo: &Solo| {
        let mut found = BTreeMap::new();
        files(&solo.data(), &mut found);
        found
    };
    eventually("the layout is kept", || kinds(solo).contains_key("layout"));
    for _ in 0..20 {
        // Quiet for a moment: the log is sealed.
        std::thread::sleep(Duration::from_millis(400));
        if kinds(solo).contains_key("spare segment") {
            break;
        }
        // The next one is made once enough of a segment is used.
        solo.ask(&["import", "-"], newest_rows().as_bytes());
    }
    solo.stop(signal);
}

/// The round in which a key was written last.
fn newest(number: usize) -> usize {
    (1..6).rev().find(|round| number % 6 >= *round).unwrap_or(0)
}

/// What came of a damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Harmless,
    Said,
    Refused,
    ReadFailed,
    CutAsTorn,
}

/// Starts a node; `None` if it ended, which it has to have done with a reason.
fn start(solo: &mut Solo, what: &str) -> bool {
    let log = fs::File::create(solo.directory.path().join("log")).expect("a log");
    let errors = log.try_clone().expect("a log");
    let mut command = solo.command();
    command.args(["--memtable-mb", "1", "--log-mb", "1"]);
    let mut node: Child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("starts");
    let begun = Instant::now();
    loop {
        if solo.said().contains("serves on") {
            solo.node = Some(node);
            return true;
        }
        if let Some(status) = node.try_wait().expect("a child") {
            assert!(matches!(status.code(), Some(2 | 3)), "{what}: {status}: {}", solo.said());
            return false;
        }
        if begun.elapsed() > PATIENCE {
            node.kill().expect("it runs");
            node.wait().expect("it ends");
            panic!("{what}: the start hangs: {}", solo.said());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reads all keys, writes under a condition on some, and gives the errors.
async fn use_it(solo: &Solo, what: &str, may_be_old: bool) -> (Vec<String>, bool) {
    let options = Options { timeout: PATIENCE, ..Options::new(vec![solo.address.clone()]) };
    let client = Client::connect(options).await.unwrap_or_else(|error| panic!("{what}: {error}"));
    let (mut errors, mut is_old) = (Vec::new(), false);
    for number in 0..KEYS {
        match client.get(key(number)).await {
            Err(error) => errors.push(error.to_string()),
            Ok(row) => {
                let found = row.map(|row| row.value);
                if found.as_deref() == Some(value(number, newest(number)).as_bytes()) {
                    continue;
                }
                let is_earlier = (0..newest(number))
                    .any(|round| found.as_deref() == Some(value(number, round).as_bytes()));
                assert!(
                    may_be_old && (is_earlier || found.is_none()),
                    "{what}: wrong value of {}: {found:?}",
                    key(number)
                );
                is_old = true;
            }
        }
    }
    for number in (0..KEYS).step_by(40) {
        if let Err(error) = client.put_if(key(number), "new", Condition::Present).await {
            errors.push(error.to_string());
        }
    }
    (errors, is_old)
}

#[test]
fn damage_is_said_and_never_served() {
    let number = |name: &str, default| {
        std::env::var(name).ok().map_or(default, |text| text.parse().expect("a number"))
    };
    let (damages, first) = (number("RINGFORT_DAMAGES", DAMAGES), number("RINGFORT_DAMAGE_SEED", 1));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut lives = [Signal::TERM, Signal::KILL].map(|signal| {
        let mut solo = Solo::new();
        live(&mut solo, signal);
        (signal, solo)
    });
    let mut figures: BTreeMap<(&str, Outcome), u64> = BTreeMap::new();
    for seed in first..first + damages {
        let mut random = Random(seed);
        let (signal, solo) = &mut lives[random.below(2)];
        let whole = solo.directory.path().join("whole");
        if !whole.exists() {
            fs::rename(solo.data(), &whole).expect("moved");
        }
        copy(&whole, &solo.data());
        let mut found = BTreeMap::new();
        files(&solo.data(), &mut found);
        let kinds: Vec<_> = found.keys().copied().collect();
        let kind = kinds[random.below(kinds.len())];
        let path = found[kind][random.below(found[kind].len())].clone();
        let (done, other) = damage(&path, &found[kind], &mut random);
        let names =
            |text: &str| [Some(&path), other.as_ref()].into_iter().flatten().any(|path| names(text, path));
        let what = format!("seed {seed}, after {signal:?}: {} {done}", path.display());

        let is_up = start(solo, &what);
        let mut outcome = Outcome::Refused;
        if is_up {
            // Only a batch that no other one follows, of a node that was killed, can't be told from one never synced.
            let was_cut = solo.said().contains("was not written whole") && names(&solo.said());
            let may_be_old = was_cut && *signal == Signal::KILL;
            let (mut errors, mut is_old) = runtime.block_on(use_it(solo, &what, may_be_old));
            if kind == "spare segment" {
                // It is written to, and read at the next start.
                for _ in 0..4 {
                    solo.ask(&["import", "-"], newest_rows().as_bytes());
                }
                solo.stop(Signal::KILL);
                assert!(start(solo, &what), "{what}: {}", solo.said());
                (errors, is_old) = runtime.block_on(use_it(solo, &what, false));
            }
            outcome = match (errors.first(), names(&solo.said())) {
                (Some(_), _) => Outcome::ReadFailed,
                (None, _) if is_old => Outcome::CutAsTorn,
                (None, true) => Outcome::Said,
                (None, false) => Outcome::Harmless,
            };
            let told = |error: &String| names(error) || names(&solo.said());
            assert!(errors.iter().all(told), "{what}: {errors:?}: {}", solo.said());
            solo.stop(Signal::KILL);
        } else {
            assert!(names(&solo.said()), "{what}: not named: {}", solo.said());
        }
        assert!(!solo.said().contains("panicked"), "{what}: {}", solo.said());
        *figures.entry((kind, outcome)).or_default() += 1;
        fs::remove_dir_all(solo.data()).expect("removed");
    }
    for ((kind, outcome), count) in &figures {
        println!("{kind}: {outcome:?} {count}");
    }
    assert_eq!(figures.values().sum::<u64>(), damages);
}

/// The tables of a node's shards, by shard.
fn tables(data: &Path) -> BTreeMap<String, Vec<PathBuf>> {
    let mut found = BTreeMap::new();
    files(data, &mut found);
    let mut shards: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for path in found.remove("table").unwrap_or_default() {
        let shard = path
            .ancestors()
            .nth(2)
            .and_then(Path::file_name)
            .expect("a shard")
            .to_string_lossy()
            .into_owned();
        shards.entry(shard).or_default().push(path);
    }
    shards
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).expect("a file");
    bytes[at] ^= 1;
    fs::write(path, bytes).expect("written");
}

/// Whether another node shows these shards, and no others, as damaged on the first one.
fn shows_damaged(trio: &Trio, shards: &[u32]) -> bool {
    let output = run(trio.command(&["status", "--json"]).env("RINGFORT_ADDR", trio.address(1)), b"");
    let state: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = state["nodes"].as_array().expect("nodes");
    let damaged = |node: &serde_json::Value| {
        let shards = node["damaged_shards"].as_array().expect("shards").iter();
        shards.map(|shard| shard.as_u64().expect("a number") as u32).collect::<Vec<_>>()
    };
    nodes.iter().all(|node| {
        let mut expected = if node["name"] == "node1" { shards.to_vec() } else { Vec::new() };
        expected.sort_unstable();
        damaged(node) == expected
    })
}

#[test]
fn replicas_whose_tables_are_damaged_are_made_anew_while_the_others_go_on() {
    let mut trio = Trio::start_with(|_| ["--memtable-mb", "1", "--log-mb", "1"].map(str::to_owned).into());
    let import = |trio: &Trio, round: usize| {
        let rows: Vec<_> = (0..KEYS).map(|n| format!("{}\t{}\n", key(n), value(n, round))).collect();
        let output = run(&mut trio.command(&["import", "-"]), rows.concat().as_bytes());
        assert!(output.status.success(), "{}", stderr(&output));
    };
    for round in 0..6 {
        import(&trio, round);
    }
    let data = trio.directory.path().join("node1");
    eventually("tables are written", || tables(&data).len() >= 4);
    trio.terminate(0);
    let shards = tables(&data);
    let mut shards = shards.iter();
    let ((read_shard, read), (missing_shard, missing)) =
        (shards.next().expect("a shard"), shards.next().expect("another"));
    let ((swapped_shard, swapped), (_, whole)) =
        (shards.next().expect("a third"), shards.next().expect("a fourth"));
    // All blocks of one shard's rows, so that whatever is read of it meets damage; and one table of another is gone.
    for path in read {
        flip(path, 50);
    }
    fs::remove_file(&missing[0]).expect("it is there");
    fs::copy(&whole[0], &swapped[0]).expect("copied");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    trio.start_node(0);
    eventually("it serves", || trio.said(0).contains("serves on"));
    eventually("what is missing is named", || {
        trio.said(0).contains(&format!("{} is damaged at byte 0: the file is missing", missing[0].display()))
    });
    let client = |node: usize| {
        let addresses = vec![trio.address(node)];
        let options =
            Options { timeout: PATIENCE, reads_from: ReadsFrom::Replicas, ..Options::new(addresses) };
        Client::connect(options)
    };
    runtime.block_on(async {
        let client = client(0).await.expect("connects");
        for number in 0..KEYS {
            let row = client.get(key(number)).await.expect("another replica has it").expect("it is there");
            assert_eq!(row.value, value(number, 5), "{}", key(number));
            // Whatever it is asked for, this node says nothing wrong; how far it is behind is another matter.
            let stale = client.get_with(key(number), Consistency::Stale).await;
            let stale = stale.expect("another replica has it").row.expect("it is there").value;
            assert!((0..6).any(|round| stale == value(number, round)), "{}", key(number));
        }
        for number in (0..KEYS).step_by(7) {
            let decision = client.put_if(key(number), value(number, 5), Condition::Present).await;
            assert!(matches!(decision, Ok(Decision::Done(_))), "{decision:?}");
        }
    });
    eventually("what was read is named", || {
        // A client may find this node slow, and ask the others; whoever compares replicas asks each.
        run(&mut trio.command(&["check"]), b"");
        read.iter().any(|path| trio.said(0).contains(&format!("{} is damaged at byte 0", path.display())))
    });
    let misplaced = format!("{} is not the file that was written there: ", swapped[0].display());
    assert!(trio.said(0).contains(&misplaced), "{}", trio.said(0));
    for shard in [read_shard, missing_shard, swapped_shard] {
        let line = format!("the replica of shard {shard} on this node is made anew from the others");
        eventually("its new replica begins", || trio.said(0).contains(&line));
    }
    eventually("nothing is damaged any more", || shows_damaged(&trio, &[]));
    let agree = |trio: &Trio| run(&mut trio.command(&["check"]), b"").status.success();
    eventually("all replicas agree", || agree(&trio));
    assert!(!trio.said(0).contains("panicked"), "{}", trio.said(0));
    trio.kill(0);
    trio.start_node(0);
    eventually("it serves", || trio.said(0).contains("serves on"));
    eventually("what was made anew is whole after kill -9, too", || agree(&trio));
    assert!(!trio.said(0).contains("damage"), "{}", trio.said(0));
}

#[test]
fn a_lone_node_with_a_damaged_table_is_not_told_to_wait_for_an_election() {
    let mut solo = Solo::new();
    let start = |solo: &mut Solo| {
        let mut command = solo.command();
        command.args(["--memtable-mb", "1", "--log-mb", "1"]);
        solo.spawn(command);
    };
    start(&mut solo);
    for round in 0..6 {
        let rows: Vec<_> = (0..KEYS).map(|n| format!("{}\t{}\n", key(n), value(n, round))).collect();
        solo.ask(&["import", "-"], rows.concat().as_bytes());
    }
    eventually("tables are written", || tables(&solo.data()).len() >= 2);
    solo.stop(Signal::TERM);
    for path in tables(&solo.data()).into_values().flatten() {
        fs::remove_file(path).expect("it is there");
    }
    start(&mut solo);
    eventually("what helps is said", || {
        let output = run(ringfort(&["status"]).env("RINGFORT_ADDR", &solo.address), b"");
        assert!(!stderr(&output).contains("an election takes"), "{}", stderr(&output));
        stderr(&output).contains("damaged for an election: see the log of ")
    });
}

/// Two shards' directories in each other's places, with or without the file that says whose they are; each with the shard whose files it
/// has.
fn exchanged(solo: &mut Solo, with_owner: bool) -> Vec<(PathBuf, String)> {
    live(solo, Signal::KILL);
    let shards: Vec<_> = tables(&solo.data()).into_keys().filter(|shard| shard != "0").collect();
    let place = |shard: &str| solo.data().join("lane-0/shards").join(shard);
    let (one, two, aside) = (place(&shards[0]), place(&shards[1]), place("aside"));
    fs::rename(&one, &aside).expect("moved");
    fs::rename(&two, &one).expect("moved");
    fs::rename(&aside, &two).expect("moved");
    if !with_owner {
        let [first, second] = [&one, &two].map(|dir| dir.join("owner"));
        let [of_second, of_first] = [&first, &second].map(|owner| fs::read(owner).expect("it is there"));
        fs::write(first, of_first).expect("written");
        fs::write(second, of_second).expect("written");
    }
    vec![(one, shards[1].clone()), (two, shards[0].clone())]
}

#[test]
fn shards_in_each_others_places_are_named_and_nothing_of_them_is_absent() {
    for (with_owner, why) in [(true, "another place"), (false, "in its place")] {
        let mut solo = Solo::new();
        let exchanged = exchanged(&mut solo, with_owner);
        assert!(start(&mut solo, "exchanged"), "the others are served: {}", solo.said());
        for (dir, other) in exchanged {
            let dir = dir.display();
            let line = if with_owner {
                format!(
                    "{dir}/owner is not the file that was written there: it, or the whole directory, belongs to another place: the \
                     directory of shard {other}"
                )
            } else {
                format!("in {dir} is damaged: it has rows of shard {other}, whose files are in its place")
            };
            assert!(solo.said().contains(&line), "{}", solo.said());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (errors, _) = runtime.block_on(use_it(&solo, "exchanged", false));
        assert!(!errors.is_empty() && errors.iter().all(|error| error.contains(why)), "{errors:?}");
    }
}

#[test]
fn a_cluster_goes_on_without_the_node_whose_log_is_damaged() {
    let mut trio = Trio::start();
    let put = |trio: &Trio, value: &str| run(&mut trio.command(&["put", "key", value]), b"").status.success();
    for number in 0..20 {
        assert!(put(&trio, &number.to_string()));
    }
    trio.terminate(0);
    let mut found = BTreeMap::new();
    files(&trio.directory.path().join("node1"), &mut found);
    let segment = found["log segment"][0].clone();
    flip(&segment, 100);
    for _ in 0..2 {
        trio.start_node(0);
        let mut node = trio.nodes[0].take().expect("it was started");
        assert_eq!(ended(&mut node).code(), Some(3));
        let said = trio.said(0);
        assert!(said.contains(&format!("{} is damaged at byte 64", segment.display())), "{said}");
        assert!(!said.contains("panicked") && said.lines().count() == 1, "{said}");
        assert!(put(&trio, "new"));
    }
}
