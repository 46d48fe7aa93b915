//! `/metrics`: all numbers of the node, in `OpenMetrics` text, or in Prometheus' own older text format for who does not ask for that.
//!
//! What is counted as the node works is read where it stands; what the core knows is asked of it, for a moment at most. If it does not
//! answer, the rest is there all the same, and `ringfort_core_answers` is 0.
//!
//! Labels are few: doors, operations, codes, queues, members. A shard has series of its own only if that was asked for, since there may be
//! thousands of them.

mod page;
mod process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, prometheus_text, text};
use prometheus_client::registry::Registry;
use ringfort_node::Load;
use ringfort_types::{DiskState, ReplicaReport, Role};
use tokio::time::timeout;

use self::page::{Labels, Page, label};
use self::process::Process;
use crate::audit::Audit;
use crate::doors::places::DoorPlaces;
use crate::figures::CoreFigures;
use crate::metrics::Kind;
use crate::queue::{PEER_BYTES_MAX, REQUEST_BYTES_MAX, REQUESTS_MAX};
use crate::shared::Shared;

/// How long the core may take to say what it knows.
const PATIENCE: Duration = Duration::from_millis(500);

const OPEN_METRICS: &str = "application/openmetrics-text";
const OPEN_METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Where the numbers are.
#[derive(Clone, Debug)]
pub(in crate::doors) struct Source {
    pub(in crate::doors) shared: Arc<Shared>,
    /// Of all doors.
    pub(in crate::doors) places: Vec<DoorPlaces>,
    /// Whether each shard has series of its own.
    pub(in crate::doors) per_shard: bool,
}

impl Source {
    /// All of them, in the format that these headers ask for.
    pub(super) async fn page(&self, headers: &HeaderMap) -> Result<(&'static str, Bytes), String> {
        let core = timeout(PATIENCE, self.shared.figures.ask()).await;
        let core = core.ok().and_then(Result::ok);
        let (mut own, mut all) = (Registry::with_prefix("ringfort"), Registry::default());
        own.register_collector(Box::new(Numbers { source: self.clone(), core }));
        all.register_collector(Box::new(Standard));
        let mut page = String::new();
        // Nothing is wrong with a string.
        let encode = |page: &mut String| {
            if wants_open_metrics(headers) {
                text::encode_registry(page, &own)?;
                text::encode_registry(page, &all)?;
                text::encode_eof(page)?;
                return Ok(OPEN_METRICS_TYPE);
            }
            prometheus_text::encode(page, &own)?;
            prometheus_text::encode(page, &all)?;
            Ok::<_, fmt::Error>(prometheus_text::CONTENT_TYPE)
        };
        let kind = encode(&mut page).map_err(|error| format!("the metrics can't be written: {error}"))?;
        Ok((kind, page.into()))
    }
}

fn wants_open_metrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|kind| kind.trim_start().starts_with(OPEN_METRICS))
}

/// Those that all programs have.
#[derive(Debug)]
struct Standard;

impl Collector for Standard {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        Process::look().map_or(Ok(()), |process| process.write(&mut Page::new(encoder)))
    }
}

/// Those of a node, at one moment.
#[derive(Debug)]
struct Numbers {
    source: Source,
    core: Option<CoreFigures>,
}

impl Collector for Numbers {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page::new(encoder);
        self.node(&mut page)?;
        self.requests(&mut page)?;
        self.connections(&mut page)?;
        self.log_and_tables(&mut page)?;
        self.queues(&mut page)?;
        self.peers(&mut page)?;
        if let Some(core) = &self.core {
            cluster(core, &mut page)?;
            if self.source.per_shard {
                shards(&core.node.report.replicas, &mut page)?;
            }
        }
        Ok(())
    }
}

impl Numbers {
    fn node(&self, page: &mut Page<'_>) -> fmt::Result {
        let shared = &self.source.shared;
        let version = label("version", env!("CARGO_PKG_VERSION"));
        page.gauges("build_info", "Which version this is; always 1.", [(version, 1_u64)])?;
        if let Some(layout) = shared.layout()
            && let Some(member) = layout.member(shared.header.from)
        {
            let labels = vec![
                ("cluster", format!("{:016x}", layout.cluster).into()),
                ("node", member.name.clone().into()),
                ("zone", member.zone.clone().into()),
            ];
            page.gauges("node_info", "Who this node is; always 1.", [(labels, 1_u64)])?;
        }
        let is = |value: bool| f64::from(u8::from(value));
        let (serving, stopping) = (*shared.serving.borrow(), *shared.leaving.borrow());
        page.gauge("serving", "1 once all shards here are open.", is(serving))?;
        page.gauge("stopping", "1 once the node was asked to stop.", is(stopping))?;
        page.gauge(
            "core_answers",
            "0 if the node did not say in time what it knows.",
            is(self.core.is_some()),
        )
    }

    fn requests(&self, page: &mut Page<'_>) -> fmt::Result {
        let kinds: Vec<Kind> = self.source.shared.metrics.requests.kinds().collect();
        let labels = |kind: &Kind| -> Labels {
            vec![("door", kind.door.into()), ("operation", kind.operation.into())]
        };
        let failed = kinds.iter().flat_map(|kind| {
            kind.failed.iter().map(|(outcome, code, count)| {
                let more = [("outcome", (*outcome).into()), ("code", (*code).into())];
                (labels(kind).into_iter().chain(more).collect(), *count)
            })
        });
        page.counters(
            "request_errors",
            "Requests that were answered by an error. Of outcome rejected: nothing happened; unknown: it may have.",
            failed.collect::<Vec<_>>(),
        )?;
        page.counter(
            "slow_requests",
            "Requests that took longer than --slow-request.",
            self.source.shared.metrics.slow_requests.get(),
        )?;
        page.counter(
            "audit_dropped",
            "Lines of the audit log that could not be written, and are lost.",
            self.source.shared.audit.as_ref().map_or(0, Audit::dropped),
        )?;
        page.histograms(
            "request_duration_seconds",
            "How long requests took, from when they were whole until their answers were there, by door and operation.",
            kinds.into_iter().map(|kind| (labels(&kind), kind.took)),
        )
    }

    fn connections(&self, page: &mut Page<'_>) -> fmt::Result {
        let used: Vec<_> = self.source.places.iter().map(DoorPlaces::used).collect();
        let at = |door: &'static str| label("port", door.to_ascii_lowercase());
        let open = used.iter().map(|used| (at(used.door), used.open as u64));
        page.gauges("connections", "Open connections, by port.", open)?;
        let max = used.iter().map(|used| (at(used.door), used.max as u64));
        page.gauges("connections_max", "As many may be open, besides those of nodes.", max)?;
        let turned_away = used.iter().map(|used| (at(used.door), used.turned_away));
        page.counters("connections_turned_away", "Connections for which there was no place.", turned_away)?;
        let closed = self.source.places.iter().zip(&used).flat_map(|(places, used)| {
            places.closed().map(|(why, count)| ([at(used.door), label("reason", why)].concat(), count))
        });
        page.counters("connections_closed", "Connections that the node has closed, by why.", closed)?;
        self.tls(page)
    }

    fn tls(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(tls) = self.source.shared.tls() else { return Ok(()) };
        let handshakes = &self.source.shared.metrics.handshakes;
        let results = [("done", handshakes.done.get()), ("failed", handshakes.failed.get())];
        page.counters(
            "tls_handshakes",
            "Handshakes of TLS with clients and nodes that have connected here. Whoever speaks no TLS has failed.",
            results.map(|(result, count)| (label("result", result), count)),
        )?;
        let lifetime = tls.lifetime();
        let ends = [("node", lifetime.own), ("ca", lifetime.ca)];
        page.gauges(
            "tls_certificate_end_timestamp_seconds",
            "When a certificate in use ends, in seconds since 1970.",
            ends.into_iter().filter_map(|(of, ends)| Some((label("of", of), ends? as f64))),
        )
    }

    fn log_and_tables(&self, page: &mut Page<'_>) -> fmt::Result {
        let metrics = &self.source.shared.metrics;
        let whole = |histogram: &crate::metrics::Histogram| [(Labels::new(), histogram.counted())];
        page.histograms(
            "log_sync_duration_seconds",
            "How long it took to write and sync a batch to the log.",
            whole(&metrics.log_syncs),
        )?;
        page.counter("log_records", "Records that were written to the log.", metrics.log_records.get())?;
        page.counter("log_written_bytes", "Bytes that were written to the log.", metrics.log_bytes.get())?;
        page.gauge("log_size_bytes", "The log's files.", metrics.log_size.get() as f64)?;
        page.counter("applied_entries", "Log entries that were applied to tables.", metrics.applied.get())?;
        page.histograms(
            "table_flush_duration_seconds",
            "How long it took to write a table's memtable to disk.",
            whole(&metrics.flushes),
        )?;
        page.histograms(
            "table_compaction_duration_seconds",
            "How long a round of compaction of a table took.",
            whole(&metrics.compactions),
        )?;
        let Some(core) = &self.core else { return Ok(()) };
        page.gauge(
            "table_sealed_bytes",
            "Memtables that are full and not on disk yet.",
            core.sealed_bytes as f64,
        )?;
        let blocks = [("cache", core.blocks.cached), ("disk", core.blocks.read)];
        page.counters(
            "table_block_reads",
            "Blocks of tables that were read, out of the cache or from files.",
            blocks.map(|(source, count)| (label("source", source), count)),
        )
    }

    fn queues(&self, page: &mut Page<'_>) -> fmt::Result {
        let shared = &self.source.shared;
        let inbox = shared.inbox.load();
        let large = &shared.answers.large;
        let [of_users, of_addresses] = shared.shares.refused();
        let own = [
            load("core requests", inbox.requests, REQUESTS_MAX),
            load("core bytes of requests", inbox.request_bytes, REQUEST_BYTES_MAX),
            load("core bytes of peers", inbox.peer_bytes, PEER_BYTES_MAX),
            load("bytes of large answers", large.taken(), ringfort_types::limits::LARGE_ANSWERS_BYTES),
        ];
        let node = self.core.iter().flat_map(|core| &core.node.loads);
        let all: Vec<&Load> = own.iter().chain(node).collect();
        let of = |load: &Load| label("queue", load.what.replace(' ', "_"));
        let (bytes, items): (Vec<&Load>, Vec<&Load>) =
            all.into_iter().partition(|load| load.what.contains("bytes"));
        page.gauges("queue_items", "What waits.", items.iter().map(|load| (of(load), load.now as u64)))?;
        page.gauges(
            "queue_items_max",
            "As many may wait.",
            items.iter().filter(|load| load.most > 0).map(|load| (of(load), load.most as u64)),
        )?;
        page.gauges("queue_size_bytes", "What waits.", bytes.iter().map(|load| (of(load), load.now as u64)))?;
        page.gauges(
            "queue_size_max_bytes",
            "As much may wait.",
            bytes.iter().filter(|load| load.most > 0).map(|load| (of(load), load.most as u64)),
        )?;
        page.counters(
            "refusals",
            "Requests that were refused since this is full.",
            [
                (label("queue", "core"), inbox.refused),
                (label("queue", "large_answers"), large.refused()),
                (label("queue", "user"), of_users),
                (label("queue", "address"), of_addresses),
            ],
        )?;
        let helpers = self.core.iter().flat_map(|core| &core.helpers);
        page.gauges(
            "helper_queue_items",
            "What waits for the threads that write the log, apply entries, and fetch old ones.",
            helpers.map(|(helper, length)| (label("helper", *helper), *length as u64)),
        )
    }

    fn peers(&self, page: &mut Page<'_>) -> fmt::Result {
        let shared = &self.source.shared;
        let outboxes = shared.answers.outboxes();
        let to = |node| label("peer", shared.name_of(node).unwrap_or_else(|| format!("node {node}")));
        page.counters(
            "peer_sent_messages",
            "Messages that were sent to another node.",
            outboxes.iter().map(|outbox| (to(outbox.to()), outbox.metrics.messages.get())),
        )?;
        page.counters(
            "peer_sent_bytes",
            "Bytes that were sent to another node.",
            outboxes.iter().map(|outbox| (to(outbox.to()), outbox.metrics.bytes.get())),
        )?;
        page.gauges(
            "peer_outbox_bytes",
            "Bytes that wait to be sent to another node.",
            outboxes.iter().map(|outbox| (to(outbox.to()), outbox.bytes() as u64)),
        )?;
        let offsets =
            outboxes.iter().filter_map(|outbox| Some((outbox.to(), outbox.metrics.clock_offset()?)));
        page.gauges(
            "peer_clock_offset_seconds",
            "How far another node's clock is ahead of this one's, give or take half of a round trip.",
            offsets.map(|(node, us)| (to(node), us as f64 / 1e6)),
        )?;
        let others = || self.core.iter().flat_map(|core| &core.node.others);
        page.gauges(
            "peer_connected",
            "1 if this node has a connection to another one.",
            others().map(|other| (label("peer", other.name.clone()), u64::from(other.is_connected))),
        )?;
        let ages = others().filter_map(|other| Some((other, other.report_age_us?)));
        page.gauges(
            "peer_report_age_seconds",
            "How long ago another node last reported; it does so each second.",
            ages.map(|(other, us)| (label("peer", other.name.clone()), us as f64 / 1e6)),
        )
    }
}

fn load(what: &'static str, now: usize, most: usize) -> Load {
    Load { what, now, most }
}

/// The cluster as this node knows it, and what this node has of it.
fn cluster(core: &CoreFigures, page: &mut Page<'_>) -> fmt::Result {
    let node = &core.node;
    page.gauge("layout_epoch", "The version of the cluster's layout.", node.epoch.0 as f64)?;
    page.gauge("shards", "Shards of the cluster, the meta group among them.", node.shards as f64)?;
    page.gauge(
        "shards_without_leader",
        "Shards of the cluster of which this node knows no leader.",
        node.leaderless as f64,
    )?;
    page.gauge("shards_led", "Shards that this node leads.", node.led() as f64)?;
    page.gauge(
        "shards_moving",
        "Shards that this node leads and whose groups are on their way to other nodes.",
        node.moving() as f64,
    )?;
    let report = &node.report;
    page.gauge("replicas", "Replicas on this node.", report.replicas.len() as f64)?;
    page.gauge(
        "replicas_damaged",
        "Replicas on this node that take no part, because what is stored is damaged.",
        report.damaged.len() as f64,
    )?;
    page.gauge(
        "apply_lag_entries",
        "Entries that are committed and not applied yet, of the replica that has most of them.",
        node.apply_lags().max().unwrap_or_default() as f64,
    )?;
    let sum = |of: fn(&ReplicaReport) -> u64| report.replicas.iter().map(of).sum::<u64>() as f64;
    page.gauge("keys_estimate", "Keys on this node, about.", sum(|replica| replica.keys_estimate))?;
    page.gauge("table_size_bytes", "Tables on this node, about.", sum(|replica| replica.bytes_estimate))?;
    let states = [("working", DiskState::Working), ("full", DiskState::Full), ("hung", DiskState::Hung)];
    page.gauges(
        "disk_state",
        "1 at what the node's disk does: it works, it is full, or it does not finish what it is given.",
        states.map(|(name, state)| (label("state", name), u64::from(report.disk == state))),
    )?;
    page.gauge(
        "disk_slow",
        "1 if the disk is too slow for a leader's.",
        f64::from(u8::from(report.is_slow)),
    )?;
    if report.space.total > 0 {
        page.gauge("disk_free_bytes", "Room on the data directory's file system.", report.space.free as f64)?;
        page.gauge("disk_size_bytes", "The data directory's file system.", report.space.total as f64)?;
    }
    let counts = &node.counts;
    for (name, help, count) in [
        (
            "leader_changes",
            "Times that a shard with a replica here got another leader.",
            counts.leader_changes,
        ),
        ("elections_won", "Elections that replicas of this node have won.", counts.elections_won),
        ("snapshots_sent", "Snapshots that were sent whole to another node.", counts.snapshots_sent),
        ("snapshots_given_up", "Snapshots to other nodes that were given up.", counts.snapshots_given_up),
        ("snapshots_installed", "Snapshots that were put in place here.", counts.snapshots_installed),
        (
            "snapshot_sent_bytes",
            "Bytes of snapshots that other nodes have stored.",
            counts.snapshot_bytes_sent,
        ),
    ] {
        page.counter(name, help, count)?;
    }
    page.gauge("snapshots_sending", "Snapshots on their way from here.", report.sends.len() as f64)
}

/// Each shard that has a replica here.
fn shards(replicas: &[ReplicaReport], page: &mut Page<'_>) -> fmt::Result {
    let mut each = |name: &str, help: &str, of: fn(&ReplicaReport) -> u64| {
        let series = replicas.iter().map(|replica| (label("shard", replica.shard.to_string()), of(replica)));
        page.gauges(name, help, series)
    };
    each("shard_led", "1 if this node leads the shard.", |replica| u64::from(replica.role == Role::Leader))?;
    each("shard_term", "The Raft term of the replica here.", |replica| replica.term.0)?;
    each("shard_committed_index", "The last index that the replica knows to be committed.", |replica| {
        replica.committed.0
    })?;
    each("shard_applied_index", "The last index in the replica's table.", |replica| replica.applied.0)?;
    each("shard_keys_estimate", "Keys of the replica, about.", |replica| replica.keys_estimate)?;
    each("shard_size_bytes", "Table of the replica, about.", |replica| replica.bytes_estimate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_open_metrics_gets_it() {
        let asks = |accept: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for kind in accept {
                headers.append(ACCEPT, kind.parse().expect("a header"));
            }
            wants_open_metrics(&headers)
        };
        // As Prometheus 2.42 does.
        assert!(asks(&[
            "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        ]));
        assert!(asks(&["text/html", "text/plain, application/openmetrics-text"]));
        assert!(!asks(&["*/*"]) && !asks(&[]) && !asks(&["text/plain;version=0.0.4"]));
    }
}
