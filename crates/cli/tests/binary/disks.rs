//! Disks that hang, and files that were damaged, cut or readable by others.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ringfort_proto::v1;
use ringfort_proto::v1::kv_client::KvClient;
use rustix::process::Signal;
use tonic::transport::Endpoint;

use crate::node::resident;
use crate::solo::Solo;
use crate::support::{copy, ended, eventually, preloadable, refusal, ringfort, run, stderr};
use crate::syncs::Syncs;
use crate::trio::Trio;

#[test]
fn a_log_that_has_lost_its_end_is_refused_and_nothing_is_changed() {
    for signal in [Signal::TERM, Signal::KILL] {
        let mut solo = Solo::new();
        solo.start();
        solo.fill();
        solo.stop(signal);
        let segment = solo.segment();
        let whole = fs::read(&segment).expect("a segment");
        let used = whole.iter().rposition(|byte| *byte != 0).expect("something") + 1;
        // Half of what the file holds: all that follows is gone.
        fs::write(&segment, &whole[..used / 2]).expect("written");
        let told = solo.refuses();
        let place = format!("{} is damaged at byte {}", segment.display(), used / 2);
        assert!(told.contains(&place) && told.contains("shorter than it was made"), "{told}");
        assert_eq!(fs::read(&segment).expect("a segment").len(), used / 2, "nothing is changed");
        if signal == Signal::TERM {
            // As long as it was, but empty: it had been stopped in good order.
            let mut zeroed = whole.clone();
            zeroed[used / 2..].fill(0);
            fs::write(&segment, zeroed).expect("written");
            let told = solo.refuses();
            assert!(told.contains("a later batch was synced") || told.contains("checksum"), "{told}");
        }
        fs::write(&segment, whole).expect("written");
        solo.start();
        assert_eq!(solo.ask(&["get", "key299"], b"").trim_end().len(), 3000);
    }
}

/// What is still there of the node, its identity and more, says that there was one.
#[test]
fn a_log_that_is_gone_is_refused_and_nothing_is_changed() {
    for (signal, with_its_directory) in
        [(Signal::TERM, false), (Signal::TERM, true), (Signal::KILL, false), (Signal::KILL, true)]
    {
        let mut solo = Solo::new();
        solo.start();
        solo.fill();
        solo.stop(signal);
        let (lane, aside) = (solo.data().join("lane-0"), solo.directory.path().join("aside"));
        copy(&lane, &aside);
        if with_its_directory {
            fs::remove_dir_all(&lane).expect("removed");
        } else {
            for file in fs::read_dir(lane.join("log")).expect("a log") {
                fs::remove_file(file.expect("an entry").path()).expect("removed");
            }
        }
        for _ in 0..2 {
            let (code, told) = refusal(&run(&mut solo.command(), b""));
            let place = format!("{} has no segment of the log", lane.join("log").display());
            assert!(code == Some(3) && told.contains(&place), "{code:?}: {told}");
            assert!(told.contains("put the directory back as it was"), "{told}");
            assert_eq!(lane.exists(), !with_its_directory, "nothing is changed");
        }
        if !with_its_directory {
            fs::remove_dir_all(&lane).expect("removed");
        }
        copy(&aside, &lane);
        solo.start();
        assert_eq!(solo.ask(&["get", "key299"], b"").trim_end().len(), 3000);
    }
}

/// Nobody can tell a batch that was never synced from one whose bytes are gone, and nothing else is claimed.
#[test]
fn a_log_whose_end_may_have_been_synced_is_not_said_to_have_held_nothing() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(Signal::TERM);
    let segment = solo.segment();
    let mut bytes = fs::read(&segment).expect("a segment");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("something") + 1;
    bytes[used / 2..].fill(0);
    fs::write(&segment, bytes).expect("written");
    fs::remove_file(segment.with_file_name("reached")).expect("removed");
    solo.start();
    assert_ne!(solo.ask(&["list", "--keys-only"], b"").lines().count(), 300, "acknowledged rows are gone");
    let said = solo.said();
    let line = said.lines().find(|line| line.contains("was not written whole")).expect("it is said");
    assert!(
        line.contains(&format!("on of {}", segment.display())) && line.contains(" bytes from byte "),
        "{line}"
    );
    assert!(line.contains("what they held is lost here") && !line.contains("acknowledged"), "{line}");
}

#[test]
fn what_is_cut_is_said() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(Signal::KILL);
    let segment = solo.segment();
    let mut bytes = fs::read(&segment).expect("a segment");
    let last = bytes.iter().rposition(|byte| *byte != 0).expect("something");
    bytes[last] ^= 0x10;
    fs::write(&segment, bytes).expect("written");
    solo.start();
    let said = solo.said();
    assert!(
        said.contains("was not written whole") && said.contains(&segment.display().to_string()),
        "{said}"
    );
    solo.stop(Signal::TERM);
    solo.start();
    assert!(!solo.said().contains("was not written whole"), "{}", solo.said());
}

#[test]
fn data_is_its_owners_alone() {
    let mut solo = Solo::new();
    let start = solo.command();
    let mut command = Command::new("sh");
    command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(start.get_program()).args(start.get_args());
    for (name, value) in start.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.args(["--memtable-mb", "1"]);
    solo.spawn(command);
    solo.fill();
    solo.stop(Signal::TERM);
    let mut seen = 0;
    let mut directories = vec![solo.data()];
    while let Some(directory) = directories.pop() {
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!(mode(&directory), 0o700, "{}", directory.display());
        for entry in fs::read_dir(&directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            assert_eq!(mode(&path), 0o600, "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen > 5, "only {seen} files");
}

#[test]
fn a_node_starts_on_a_full_disk_and_reads() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(Signal::TERM);
    let identity = fs::read(solo.data().join("identity")).expect("an identity");
    let full = solo.directory.path().join("full");
    fs::write(&full, "").expect("written");
    let mut command = solo.command();
    command.env("LD_PRELOAD", preloadable("full_disk", solo.directory.path()));
    command.env("DISK_FULL_FILE", &full).env("DISK_FULL_DIR", solo.data());
    solo.spawn(command);
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end().len(), 3000);
    let place = format!("no room to count this start in {}/identity", solo.data().display());
    eventually("it says so", || solo.said().contains(&place));
    assert_eq!(fs::read(solo.data().join("identity")).expect("an identity"), identity);
    // There is room again.
    fs::remove_file(&full).expect("it is there");
    eventually("it takes writes", || {
        let mut put = ringfort(&["--timeout", "1s", "put", "key299", "new"]);
        put.env("RINGFORT_ADDR", &solo.address).output().expect("runs").status.success()
    });
    solo.stop(Signal::TERM);
    solo.start();
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end(), "new");
    assert!(!solo.said().contains("no room"), "{}", solo.said());
}

/// Starts a node that finds no room for a write as long as the file that is returned is there, with something in it.
fn start_with_quota(solo: &mut Solo) -> PathBuf {
    let full = solo.directory.path().join("full");
    let mut command = solo.command();
    command.env("LD_PRELOAD", preloadable("full_disk", solo.directory.path()));
    command.env("DISK_FULL_FILE", &full).env("DISK_FULL_DIR", solo.data());
    solo.spawn(command);
    full
}

fn takes(solo: &Solo, value: &str) -> bool {
    let mut put = ringfort(&["--timeout", "1s", "put", "key299", value]);
    put.env("RINGFORT_ADDR", &solo.address).output().expect("runs").status.success()
}

#[test]
fn a_write_to_the_log_for_which_there_is_no_room_is_waited_out() {
    let mut solo = Solo::new();
    let full = start_with_quota(&mut solo);
    assert!(takes(&solo, "before"));
    fs::write(&full, "all").expect("written");
    assert!(!takes(&solo, "not acknowledged"));
    let place = format!("no room for the log (can't write to {}", solo.segment().display());
    eventually("it says so", || solo.said().contains(&place));
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end(), "before");
    fs::remove_file(&full).expect("it is there");
    eventually("it takes writes", || takes(&solo, "after"));
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end(), "after");
    solo.stop(Signal::KILL);
    solo.start();
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end(), "after");
    assert!(!solo.said().contains("was not written whole"), "{}", solo.said());
}

#[test]
fn a_node_with_a_full_disk_ends_in_good_order_and_loses_nothing() {
    for stop in [Signal::TERM, Signal::KILL] {
        let mut solo = Solo::new();
        let full = start_with_quota(&mut solo);
        assert!(takes(&solo, "acknowledged"));
        fs::write(&full, "all").expect("written");
        assert!(!takes(&solo, "not acknowledged"));
        eventually("it says so", || solo.said().contains("no room for the log"));
        let mut node = solo.node.take().expect("it runs");
        rustix::process::kill_process(rustix::process::Pid::from_child(&node), stop).expect("it runs");
        let ended = ended(&mut node);
        if stop == Signal::TERM {
            assert_eq!(ended.code(), Some(0), "{}", solo.said());
            assert!(!solo.said().contains("could not be handed over"), "{}", solo.said());
            assert!(!solo.said().contains("ringfort: "), "{}", solo.said());
        }
        fs::remove_file(&full).expect("it is there");
        solo.start();
        assert_eq!(solo.ask(&["get", "key299"], b"").trim_end(), "acknowledged");
        assert!(takes(&solo, "and goes on"));
    }
}

#[test]
fn a_log_segment_that_is_longer_than_it_was_made_is_refused() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(Signal::TERM);
    let segment = solo.segment();
    let length = fs::metadata(&segment).expect("a segment").len();
    for more in [length + 1, 20 << 30] {
        let file = fs::File::options().write(true).open(&segment).expect("a segment");
        file.set_len(more).expect("longer");
        let told = solo.refuses();
        let place = format!("{} is damaged at byte {length}: ", segment.display());
        let lengths = format!("longer than it was made: {more} bytes instead of {length}");
        assert!(told.contains(&place) && told.contains(&lengths), "{told}");
        file.set_len(length).expect("as it was");
    }
    solo.start();
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end().len(), 3000);
}

#[test]
fn what_is_no_file_is_named_with_what_helps() {
    let mut solo = Solo::new();
    solo.start();
    solo.fill();
    solo.stop(Signal::TERM);
    let log = solo.data().join("lane-0/log");
    let (spare, reached) = (log.join("spare"), log.join("reached"));
    let _there_may_be_one = fs::remove_file(&spare);
    fs::create_dir(&spare).expect("made");
    let told = solo.refuses();
    assert!(told.contains(&format!("{}: Is a directory", spare.display())), "{told}");
    assert!(told.contains("move it away"), "{told}");
    fs::remove_dir(&spare).expect("removed");
    // It can be done without, and is made anew.
    fs::remove_file(&reached).expect("removed");
    std::os::unix::fs::symlink(&reached, &reached).expect("made");
    solo.start();
    let line = format!("{} is not to be read (Too many levels of symbolic links", reached.display());
    assert!(solo.said().contains(&line), "{}", solo.said());
    assert_eq!(solo.ask(&["get", "key299"], b"").trim_end().len(), 3000);
    assert!(fs::metadata(&reached).expect("it is there").is_file());
}

#[test]
fn a_lone_node_takes_a_layout_that_is_lost_from_its_table_and_says_so() {
    let mut solo = Solo::new();
    solo.start();
    let layout = solo.data().join("layout");
    // What is in the log behind the last one is not known to be committed at the next start.
    for preference in ["highest-id", "ring", "highest-id"] {
        solo.ask(&["cluster", "set", &format!("leader-preference={preference}")], b"");
    }
    eventually("the layout is kept", || layout.exists());
    solo.stop(Signal::TERM);
    for is in ["is damaged (its checksum is wrong)", "is missing"] {
        if is == "is missing" {
            fs::remove_file(&layout).expect("removed");
        } else {
            let mut bytes = fs::read(&layout).expect("a layout");
            bytes[20] ^= 1;
            fs::write(&layout, bytes).expect("written");
        }
        let before = fs::read(&layout).ok();
        solo.start();
        let line =
            format!("{} {is}: the cluster's layout is taken from the table of shard 0", layout.display());
        eventually("it says so", || solo.said().contains(&line));
        assert!(!solo.said().contains("other nodes"), "{}", solo.said());
        eventually("it is made anew", || fs::read(&layout).is_ok_and(|found| Some(found) != before));
        solo.stop(Signal::TERM);
    }
    solo.start();
    assert!(!solo.said().contains("layout"), "{}", solo.said());
}

/// How many of these keys, which are of all shards, take a write within a second, through two nodes whose disks are well.
fn writable(trio: &Trio) -> usize {
    let keys: Vec<_> = (0..48).map(|n| format!("key{n}")).collect();
    let addresses = format!("{},{}", trio.address(1), trio.address(2));
    let children: Vec<_> = keys
        .iter()
        .map(|key| {
            let mut command = ringfort(&["--timeout", "1s", "put", key, "value"]);
            command.env("RINGFORT_ADDR", &addresses).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("starts")
        })
        .collect();
    children
        .into_iter()
        .filter_map(|mut child| child.wait().ok())
        .filter(std::process::ExitStatus::success)
        .count()
}

fn status(trio: &Trio) -> serde_json::Value {
    let mut command = ringfort(&["status", "--json"]);
    let output = run(command.env("RINGFORT_ADDR", trio.address(1)), b"");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
fn leaderships_leave_a_disk_that_hangs_and_come_back() {
    let syncs = Syncs::new();
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for node in 0..3 {
        syncs.start(&mut trio, node);
    }
    eventually("all serve", || (0..3).all(|node| trio.said(node).contains("serves on")));
    let leads = |trio: &Trio| status(trio)["nodes"][0]["leads"].as_u64().expect("a number");
    eventually("it leads", || leads(&trio) > 0 && writable(&trio) == 48);

    // Slow is no reason to go while nobody waits for it.
    syncs.take(0, 300);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        assert!(leads(&trio) > 0);
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(!trio.said(0).contains("the disk"), "{}", trio.said(0));

    syncs.take(0, 3_600_000);
    // Something for it to sync: else it does not notice.
    writable(&trio);
    eventually("it is shown", || status(&trio)["nodes"][0]["disk_hung"] == true);
    eventually("others lead", || leads(&trio) == 0);
    // More than a leader takes that can't sync.
    for _ in 0..3 {
        assert_eq!(writable(&trio), 48, "all keys take writes");
    }
    assert!(
        trio.said(0).contains("the disk hangs; leaderships go to nodes whose disks work"),
        "{}",
        trio.said(0)
    );

    syncs.take(0, 0);
    let begun = Instant::now();
    while leads(&trio) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing came back: {}", trio.said(0));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(status(&trio)["nodes"][0]["disk_hung"], false);
    assert_eq!(writable(&trio), 48);
}

/// Gets and a list of these rows through the first node give what was written last, soon. (The client library would go to the
/// leaders by itself.)
fn reads_through_the_first(trio: &Trio, value: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let endpoint = Endpoint::from_shared(format!("http://{}", trio.address(0))).expect("an address");
        let mut client = KvClient::new(endpoint.connect().await.expect("connects"));
        for row in 0..48 {
            let key = format!("key{row}").into_bytes().into();
            let request = v1::GetRequest { key, ..v1::GetRequest::default() };
            let got = client.get(request).await.expect("it is answered").into_inner();
            assert_eq!(got.value, value.as_bytes(), "key{row}");
        }
        let request = v1::ListRequest { prefix: b"key".to_vec().into(), ..v1::ListRequest::default() };
        let mut pages = client.list(request).await.expect("a list").into_inner();
        let mut listed = Vec::new();
        while let Some(page) = pages.message().await.expect("it is answered") {
            listed.extend(page.rows);
        }
        assert!(listed.len() == 48 && listed.iter().all(|row| row.value == value.as_bytes()));
    });
}

/// Writes this value under 48 keys, of all shards, through the other two nodes.
fn write_through_the_others(trio: &Trio, value: &str) {
    let rows: Vec<_> = (0..48).map(|row| format!("key{row}\t{value}\n")).collect();
    let mut import = ringfort(&["import", "-"]);
    let others = format!("{},{}", trio.address(1), trio.address(2));
    let output = run(import.env("RINGFORT_ADDR", others), rows.concat().as_bytes());
    assert!(output.status.success(), "{}", stderr(&output));
}

/// No write comes to its tables any more: what must see the latest is read elsewhere.
#[test]
fn reads_through_a_node_whose_disk_hangs_or_is_full_go_on() {
    let syncs = Syncs::new();
    let full = syncs.directory.path().join("full");
    let full_disk = preloadable("full_disk", syncs.directory.path());
    for is_full in [false, true] {
        let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
        for node in 0..3 {
            let data = trio.directory.path().join(format!("node{}", node + 1));
            syncs.start_with(&mut trio, node, |command| {
                if is_full && node == 0 {
                    command
                        .env("LD_PRELOAD", &full_disk)
                        .env("DISK_FULL_FILE", &full)
                        .env("DISK_FULL_DIR", &data);
                    command.args(["--memtable-mb", "1", "--log-mb", "16"]);
                }
                command
            });
        }
        eventually("all take writes", || writable(&trio) == 48);
        if is_full {
            fs::write(&full, "").expect("written");
            // Until the room is used up that its log has made already.
            let value = "v".repeat(64 * 1024);
            let begun = Instant::now();
            while status(&trio)["nodes"][0]["disk_full"] != true {
                assert!(begun.elapsed() < Duration::from_mins(1), "{}", trio.said(0));
                let rows: Vec<_> = (0..64).map(|row| format!("fill{row}\t{value}\n")).collect();
                let others = format!("{},{}", trio.address(1), trio.address(2));
                run(ringfort(&["import", "-"]).env("RINGFORT_ADDR", others), rows.concat().as_bytes());
            }
        } else {
            syncs.take(0, 3_600_000);
            write_through_the_others(&trio, "while nothing is noticed");
            eventually("it is shown", || status(&trio)["nodes"][0]["disk_hung"] == true);
        }
        eventually("others lead", || leads(&trio) == 0);
        for round in ["first", "second", "third"] {
            write_through_the_others(&trio, round);
            reads_through_the_first(&trio, round);
        }
        syncs.take(0, 0);
        if is_full {
            fs::remove_file(&full).expect("it is there");
        }
    }
}

/// No later layout comes that would take its place.
#[test]
fn a_layout_for_which_there_is_no_room_is_kept_as_soon_as_there_is() {
    let syncs = Syncs::new();
    let full = syncs.directory.path().join("full");
    let full_disk = preloadable("full_disk", syncs.directory.path());
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    let data = trio.directory.path().join("node1");
    syncs.start_with(&mut trio, 0, |command| {
        // Not the file that its lines go to, whose name begins alike.
        let below = data.join("");
        command.env("LD_PRELOAD", &full_disk).env("DISK_FULL_FILE", &full).env("DISK_FULL_DIR", below)
    });
    (1..3).for_each(|node| syncs.start(&mut trio, node));
    eventually("all serve", || (0..3).all(|node| trio.said(node).contains("serves on")));
    assert!(!data.join("layout").exists(), "the first one is the birth's");

    fs::write(&full, "").expect("written");
    let mut set = ringfort(&["cluster", "set", "leader-preference=highest-id"]);
    assert!(run(set.env("RINGFORT_ADDR", trio.address(1)), b"").status.success());
    eventually("it is said", || trio.said(0).contains("it is tried again; a start before that begins"));
    fs::remove_file(&full).expect("it is there");
    eventually("it is kept", || data.join("layout").exists());
}

/// How many shards the first node leads.
fn leads(trio: &Trio) -> u64 {
    status(trio)["nodes"][0]["leads"].as_u64().expect("a number")
}

/// It can write, but everybody waits for it where it leads, and nobody where others do.
#[test]
fn leaderships_leave_a_disk_that_is_slower_than_the_others_within_ten_seconds() {
    let syncs = Syncs::new();
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for node in 0..3 {
        syncs.start(&mut trio, node);
    }
    eventually("it leads", || writable(&trio) == 48 && leads(&trio) > 0);
    syncs.take(0, 200);
    let (begun, mut rounds) = (Instant::now(), 0);
    while leads(&trio) > 0 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} shards after {rounds} rounds", leads(&trio));
        write_through_the_others(&trio, &format!("round {rounds}"));
        rounds += 1;
    }
    let said = trio.said(0);
    assert!(said.contains("the disk is slow; leaderships go to nodes whose disks are faster"), "{said}");
    assert_eq!(status(&trio)["nodes"][0]["disk_hung"], true);
    // And stay away while it is slow.
    for _ in 0..20 {
        write_through_the_others(&trio, "afterwards");
        assert_eq!(leads(&trio), 0, "{}", trio.said(0));
    }
    syncs.take(0, 0);
    reads_through_the_first(&trio, "afterwards");
}

/// A sync is done after so long, again and again: too long for one who leads.
#[test]
fn a_node_whose_syncs_take_seconds_leads_nothing() {
    let syncs = Syncs::new();
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for node in 0..3 {
        syncs.start(&mut trio, node);
    }
    eventually("it leads", || writable(&trio) == 48 && leads(&trio) > 0);
    syncs.take(0, 4_000);
    writable(&trio);
    eventually("others lead", || leads(&trio) == 0);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(9) {
        eventually("all keys take writes", || writable(&trio) == 48);
        assert_eq!(leads(&trio), 0, "it gets nothing back in between");
    }
    syncs.take(0, 0);
    let begun = Instant::now();
    while leads(&trio) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing came back: {}", trio.said(0));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The log is well, and the files of the tables are not.
#[test]
fn leaderships_leave_a_node_whose_tables_hang_as_soon_as_one_whose_log_does() {
    let syncs = Syncs::new();
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for node in 0..3 {
        syncs.start_with(&mut trio, node, |command| {
            command.args(["--memtable-mb", "1", "--log-mb", "16"]).env("SYNC_MS_IN", "/shards/")
        });
    }
    eventually("it leads", || writable(&trio) == 48 && leads(&trio) > 0);
    syncs.take(0, 3_600_000);
    let value = "v".repeat(8 * 1024);
    let mut round = 0;
    let mut write = |trio: &Trio| {
        round += 1;
        let rows: Vec<_> = (0..128).map(|row| format!("row{round}-{row}\t{value}\n")).collect();
        let mut import = ringfort(&["import", "-", "--give-up", "1s"]);
        run(import.env("RINGFORT_ADDR", trio.address(1)), rows.concat().as_bytes());
    };
    let begun = Instant::now();
    while !trio.said(0).contains("the flush of a table has taken") {
        assert!(begun.elapsed() < Duration::from_secs(20), "no table is flushed: {}", trio.said(0));
        write(&trio);
    }
    let noticed = Instant::now();
    eventually("it is shown, and others lead", || {
        status(&trio)["nodes"][0]["disk_hung"] == true && leads(&trio) == 0
    });
    println!("others lead {:?} after the first line", noticed.elapsed());
    for _ in 0..3 {
        // Each within a second, if the machine has the time for 48 processes.
        eventually("all keys take writes", || writable(&trio) == 48);
    }
    let said = trio.said(0);
    assert!(said.contains("is not done: the disk hangs; leaderships go to nodes whose disks work"), "{said}");

    syncs.take(0, 0);
    let begun = Instant::now();
    while leads(&trio) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "nothing came back: {}", trio.said(0));
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(status(&trio)["nodes"][0]["disk_hung"], false);
    assert_eq!(writable(&trio), 48);
}

/// What is written while a disk hangs, and how much of it the node there may keep in memory, in MiB.
const WRITTEN_MB: usize = 240;
const KEPT_MB: u64 = 160;
/// How long a node may take to catch up with that.
const CAUGHT_UP: Duration = Duration::from_mins(2);

#[test]
fn a_node_whose_disk_hangs_keeps_a_bounded_part_of_what_others_write() {
    let syncs = Syncs::new();
    let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
    for node in 0..3 {
        syncs.start(&mut trio, node);
    }
    eventually("all take writes", || writable(&trio) == 48);
    syncs.take(0, 3_600_000);
    // Something for it to sync: else it does not notice.
    writable(&trio);
    eventually("others lead", || status(&trio)["nodes"][0]["leads"] == 0);
    let memory = |trio: &Trio| resident(trio.nodes[0].as_ref().expect("it runs"));
    let before = memory(&trio);
    let value = "v".repeat(256 * 1024);
    let rows: Vec<_> = (0..WRITTEN_MB * 4).map(|number| format!("row{number:06}\t{value}\n")).collect();
    let others = format!("{},{}", trio.address(1), trio.address(2));
    let import = run(ringfort(&["import", "-"]).env("RINGFORT_ADDR", others), rows.concat().as_bytes());
    assert!(import.status.success(), "{}", stderr(&import));
    let more_mb = memory(&trio).saturating_sub(before) / (1024 * 1024);
    println!("{WRITTEN_MB} MiB written, {more_mb} MiB more in memory");
    assert!(more_mb < KEPT_MB, "{more_mb} MiB");

    syncs.take(0, 0);
    let begun = Instant::now();
    let lags = |trio: &Trio| {
        let state = status(trio);
        let shards = state["shards"].as_array().expect("shards").clone();
        shards.iter().any(|shard| shard["lag"] != 0)
    };
    while lags(&trio) {
        assert!(begun.elapsed() < CAUGHT_UP, "{}", trio.said(0));
        std::thread::sleep(Duration::from_millis(200));
    }
}
