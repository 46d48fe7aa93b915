//! `/metrics`: what a node counts, and that the book and what comes with Ringfort know all of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::http::{a_free_address, ask, get};
use crate::node::Node;
use crate::support::{eventually, free_ports, ringfort, run};
use crate::trio::Trio;

/// The value of the series whose name and labels this is.
fn value(page: &str, series: &str) -> Option<f64> {
    page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

/// Names as Prometheus stores them: of a histogram there are three series.
fn names(page: &str) -> BTreeSet<String> {
    let families = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    families.map(str::to_owned).collect()
}

/// All words in a text that could be such names.
fn named_in(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let is_one = |word: &&str| {
        (word.starts_with("ringfort_") && !word.starts_with("ringfort_server") && *word != "ringfort_")
            || word.starts_with("process_")
    };
    words.filter(is_one).map(str::to_owned).collect()
}

fn repository(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn what_is_counted_is_what_was_done() {
    let (http, text) = (a_free_address(), a_free_address());
    let node = Node::start_with(&["--http", &http, "--text-addr", &text]);
    let ask_for =
        |arguments: &[&str]| run(&mut ringfort(&[&["--addr", &node.address], arguments].concat()), b"");
    for number in 0..3 {
        assert!(ask_for(&["put", &format!("key{number}"), "value"]).status.success());
    }
    assert!(ask_for(&["put", "word", "value"]).status.success());
    assert!(ask_for(&["list"]).status.success());
    assert!(!ask_for(&["incr", "word"]).status.success(), "it is no number");
    let mut stream = std::net::TcpStream::connect(&text).expect("it listens");
    std::io::Write::write_all(&mut stream, b"SET 7 hello\nGET 7\n").expect("sent");
    let (status, head, _) = ask(&http, "GET /metrics");
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    let of = |door: &str, operation: &str| {
        format!("ringfort_request_duration_seconds_count{{door=\"{door}\",operation=\"{operation}\"}}")
    };
    let page = || get(&http, "/metrics").1;
    eventually("the text client is answered", || value(&page(), &of("text", "get")) == Some(1.0));
    let page = page();
    assert_eq!(value(&page, &of("v1", "put")), Some(4.0), "{page}");
    assert_eq!(value(&page, &of("v1", "list")), Some(1.0));
    assert_eq!(value(&page, &of("text", "put")), Some(1.0));
    let failed = "ringfort_request_errors_total{door=\"v1\",operation=\"increment\",outcome=\"rejected\",\
                  code=\"failed_precondition\"}";
    assert_eq!(value(&page, failed), Some(1.0), "{page}");
    assert_eq!(value(&page, "ringfort_shards_led"), Some(3.0));
    assert_eq!(value(&page, "ringfort_core_answers"), Some(1.0));
    assert_eq!(value(&page, "ringfort_connections{port=\"text\"}"), Some(1.0));
    for some in
        ["ringfort_log_sync_duration_seconds_count", "ringfort_log_written_bytes_total", "process_open_fds"]
    {
        assert!(value(&page, some).is_some_and(|some| some > 0.0), "{some}: {page}");
    }
    assert!(!page.contains("shard=") && !page.contains("# EOF"), "{page}");
}

/// Shown by a node that speaks TLS.
const OF_TLS: [&str; 2] = ["ringfort_tls_handshakes_total", "ringfort_tls_certificate_end_timestamp_seconds"];

#[test]
fn every_number_stands_in_the_book_and_whatever_uses_one_has_its_name_right() {
    let base = free_ports(3);
    let https: Vec<String> = (0..3).map(|node| format!("127.0.0.1:{}", base + node)).collect();
    let per_shard = |node: usize| {
        let flags = ["--http", &https[node], "--metrics-per-shard"];
        flags.map(str::to_owned).to_vec()
    };
    let trio = Trio::start_with(per_shard);
    let bench = ["bench", "--workload", "mixed", "--keys", "50", "--seconds", "1", "--at-most-once"];
    assert!(run(&mut trio.command(&bench), b"").status.success());
    run(&mut trio.command(&["put", "word", "value"]), b"");
    run(&mut trio.command(&["incr", "word"]), b"");
    let pages = || https.iter().map(|http| get(http, "/metrics").1).collect::<Vec<_>>().concat();
    eventually("clocks are known", || pages().contains("ringfort_peer_clock_offset_seconds{"));
    eventually("room on the disk is known", || pages().contains("ringfort_disk_free_bytes"));
    let shown = names(&pages());
    let book = named_in(&repository("docs/book/monitoring.md"));
    // Those of TLS are shown where it is spoken: ops/scrape.py asks for them there.
    let shown: BTreeSet<String> = shown.into_iter().chain(OF_TLS.map(str::to_owned)).collect();
    let missing: Vec<_> = shown.symmetric_difference(&book).collect();
    assert!(missing.is_empty(), "in the book or on the page alone: {missing:?}");
    for path in ["ops/prometheus/alerts.yaml", "ops/grafana/ringfort.json", "ops/scrape.py"] {
        let used = named_in(&repository(path));
        assert!(!used.is_empty());
        let series = |name: &str| {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            shown.contains(name) || family.is_some_and(|family| shown.contains(family))
        };
        let unknown: Vec<_> = used.iter().filter(|name| !series(name)).collect();
        assert!(unknown.is_empty(), "{path}: {unknown:?}");
    }
    let page = get(&https[0], "/metrics").1;
    for shard in 0..=16 {
        assert!(value(&page, &format!("ringfort_shard_applied_index{{shard=\"{shard}\"}}")).is_some());
    }
}

#[test]
fn a_node_that_is_cut_off_shows_it() {
    let base = free_ports(3);
    let http = format!("127.0.0.1:{base}");
    let mut trio =
        Trio::start_with(|node| vec!["--http".to_owned(), format!("127.0.0.1:{}", base + node as u16)]);
    let now = |series: &str| value(&get(&http, "/metrics").1, series);
    eventually("both are there", || {
        now("ringfort_peer_connected{peer=\"node2\"}") == Some(1.0)
            && now("ringfort_peer_connected{peer=\"node3\"}") == Some(1.0)
    });
    trio.kill(1);
    trio.kill(2);
    eventually("both are missed", || {
        now("ringfort_peer_connected{peer=\"node2\"}") == Some(0.0)
            && now("ringfort_peer_connected{peer=\"node3\"}") == Some(0.0)
    });
    eventually("no shard is led", || now("ringfort_shards_without_leader") == Some(17.0));
    assert_eq!(now("ringfort_serving"), Some(1.0));
    trio.start_node(1);
    eventually("shards are led again", || now("ringfort_shards_without_leader") == Some(0.0));
    assert!(now("ringfort_peer_sent_bytes_total{peer=\"node2\"}").is_some_and(|bytes| bytes > 0.0));
}
