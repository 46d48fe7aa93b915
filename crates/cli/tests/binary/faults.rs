//! What an operator sees of a node in trouble: within ten seconds by metrics, log and `status` alike. docs/book/monitoring.md has it as a table.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::http::get;
use crate::support::{eventually, free_ports, preloadable, ringfort, run};
use crate::syncs::Syncs;
use crate::trio::Trio;

/// So soon all of it is to be seen.
const SOON: Duration = Duration::from_secs(10);

/// Three nodes; the first one's disk does as it is told.
struct Troubled {
    trio: Trio,
    syncs: Syncs,
    base: u16,
}

impl Troubled {
    fn new() -> Troubled {
        let (syncs, base) = (Syncs::new(), free_ports(3));
        let mut trio = Trio::idle(tempfile::tempdir().expect("a directory"));
        let libraries = [syncs.directory.path(), trio.directory.path()];
        let libraries = [preloadable("slow_sync", libraries[0]), preloadable("full_disk", libraries[1])];
        let libraries = libraries.map(|library| library.display().to_string()).join(":");
        for node in 0..3 {
            let http = format!("127.0.0.1:{}", base + node as u16);
            let (full, data) =
                (trio.directory.path().join("full"), trio.directory.path().join("node1/lane-0"));
            syncs.start_with(&mut trio, node, |command| {
                let command = command.args(["--http", &http]).env("LD_PRELOAD", &libraries);
                // The first one's alone.
                command.env("DISK_FULL_FILE", &full).env("DISK_FULL_DIR", &data)
            });
        }
        eventually("all serve", || (0..3).all(|node| trio.said(node).contains("serves on")));
        let troubled = Troubled { trio, syncs, base };
        eventually("the first one leads", || {
            troubled.series(0, "ringfort_shards_led").is_some_and(|led| led > 0.0)
        });
        troubled
    }

    /// What a node shows.
    fn series(&self, node: u16, series: &str) -> Option<f64> {
        let page = get(&format!("127.0.0.1:{}", self.base + node), "/metrics").1;
        page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
    }

    /// What `status` says of the first one, asked of another.
    fn status(&self, asked: usize) -> Value {
        let status = ["status", "--json", "--timeout", "1s"];
        let output = run(ringfort(&status).env("RINGFORT_ADDR", self.trio.address(asked)), b"");
        serde_json::from_slice(&output.stdout).unwrap_or_default()
    }

    /// Something for its disk to do, through the others.
    fn write(&self) {
        let others = format!("{},{}", self.trio.address(1), self.trio.address(2));
        let mut children: Vec<_> = (0..24)
            .map(|n| {
                let mut put = ringfort(&["--timeout", "1s", "put", &format!("key{n}"), "value"]);
                put.env("RINGFORT_ADDR", &others).stdout(Stdio::null()).stderr(Stdio::null());
                put.spawn().expect("starts")
            })
            .collect();
        for child in &mut children {
            let _late = child.wait();
        }
    }

    fn full(&self) -> &Path {
        self.trio.directory.path()
    }

    /// All of these hold within ten seconds, while there is something to write.
    fn shows(&self, what: &str, shown: &[(&str, &dyn Fn() -> bool)]) {
        let begun = Instant::now();
        loop {
            self.write();
            let left: Vec<_> =
                shown.iter().filter(|(_, is_shown)| !is_shown()).map(|(name, _)| name).collect();
            if left.is_empty() {
                return;
            }
            assert!(begun.elapsed() < SOON, "{what}: not shown by {left:?}: {}", self.trio.said(0));
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_slow_disk_and_then_a_hung_one() {
    let troubled = Troubled::new();
    let said = |line: &str| troubled.trio.said(0).contains(line);
    let leads_nothing = || troubled.status(1)["nodes"][0]["leads"] == 0;
    troubled.syncs.take(0, 200);
    troubled.shows(
        "200 ms a sync",
        &[
            ("metrics", &|| troubled.series(0, "ringfort_disk_slow") == Some(1.0)),
            ("the histogram", &|| {
                troubled.series(0, "ringfort_log_sync_duration_seconds_bucket{le=\"0.25\"}")
                    > troubled.series(0, "ringfort_log_sync_duration_seconds_bucket{le=\"0.1\"}")
            }),
            ("the log", &|| said("the disk is slow; leaderships go to nodes whose disks are faster")),
            ("status", &leads_nothing),
        ],
    );
    troubled.syncs.take(0, 3_600_000);
    troubled.shows(
        "no sync returns",
        &[
            ("metrics", &|| troubled.series(0, "ringfort_disk_state{state=\"hung\"}") == Some(1.0)),
            ("the log", &|| said("the disk hangs; leaderships go to nodes whose disks work")),
            ("status", &|| troubled.status(1)["nodes"][0]["disk_hung"] == true && leads_nothing()),
        ],
    );
}

#[test]
fn a_full_disk() {
    let troubled = Troubled::new();
    fs::write(troubled.full().join("full"), "all").expect("written");
    let said = |line: &str| troubled.trio.said(0).contains(line);
    troubled.shows(
        "no room",
        &[
            ("metrics", &|| troubled.series(0, "ringfort_disk_state{state=\"full\"}") == Some(1.0)),
            ("the log", &|| said("no room for the log") && said("this node takes no writes until there is")),
            ("status", &|| {
                let node = &troubled.status(1)["nodes"][0];
                node["disk_full"] == true && node["leads"] == 0
            }),
        ],
    );
}

#[test]
fn a_node_that_is_cut_off() {
    let mut troubled = Troubled::new();
    // They are there, and don't answer: as behind a cable that was pulled.
    troubled.trio.stop(1);
    troubled.trio.stop(2);
    let begun = Instant::now();
    let (http, node) = (format!("127.0.0.1:{}", troubled.base), troubled.trio.address(0));
    let is_shown = || {
        let status = run(ringfort(&["status", "--json", "--timeout", "1s"]).env("RINGFORT_ADDR", &node), b"");
        let status: Value = serde_json::from_slice(&status.stdout).unwrap_or_default();
        let down =
            status["nodes"].as_array().into_iter().flatten().filter(|node| node["state"] == "down").count();
        let ready = get(&http, "/readyz?quorum=true");
        [
            ("metrics", troubled.series(0, "ringfort_shards_without_leader") == Some(17.0)),
            ("connections", troubled.series(0, "ringfort_peer_connected{peer=\"node2\"}") == Some(0.0)),
            (
                "the log",
                troubled.trio.said(0).contains("can't reach node2")
                    || troubled.trio.said(0).contains("can't reach node3"),
            ),
            ("status", down == 2),
            ("readiness", ready.0 == 503 && ready.1.contains("knows no leader of 17 of 17 shards")),
        ]
    };
    // The line about an unreachable node comes once that has lasted five seconds, and a dead connection is noticed within five.
    while let Some((left, _)) = is_shown().iter().find(|(_, is_shown)| !is_shown) {
        assert!(
            begun.elapsed() < SOON + Duration::from_secs(5),
            "not shown by {left}: {}",
            troubled.trio.said(0)
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    troubled.trio.go_on(1);
    troubled.trio.go_on(2);
    troubled.trio.kill(1);
}
