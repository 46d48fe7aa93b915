//! What is tried, in order, on one cluster. After each fault: no write failed, all rows are there, all replicas agree.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::cluster::{Cluster, LB, NETWORK, NODES};
use super::engine::{self, docker, eventually};
use super::feed::{Feed, value_of};
use super::step;

/// Writes before and after a fault: some seconds of them.
const ROWS: u64 = 500;
/// A node says itself that five seconds are the most that it takes to stop; docker and this machine need some too.
const STOP_MAX: Duration = Duration::from_secs(8);
/// How long a hung node may hold up its clients behind `HAProxy`: the client's time-out has to be longer.
const PATIENT: &str = "10s";
const USUAL: &str = "3s";

/// The rows that have been acknowledged.
type Rows = BTreeMap<String, String>;

/// All of it: with TLS, as `compose.yaml` is, then what differs without.
pub(super) fn tell(cluster: &Cluster) -> Result<()> {
    let mut rows = Rows::new();
    step("docker-compose up --build -d: three healthy nodes", || cluster.up(true))?;
    step("the image: small, not root, and it says why it won't listen on everything", || image(cluster))?;
    step("each has its own files of TLS and no others'", || files(cluster))?;
    step("every published port takes writes and has all of them", || ports(cluster, &mut rows))?;
    step("who speaks no TLS is told that it is needed, and gets nothing", || strangers(cluster))?;
    step("a node is killed while rows are written", || killed(cluster, &mut rows))?;
    step("a node is cut off while rows are written", || cut_off(cluster, &mut rows))?;
    step("a node is asked to stop while rows are written", || stopped(cluster, &mut rows))?;
    step("a node's certificate is replaced while rows are written", || renewed(cluster, &mut rows))?;
    step("docker-compose down, up: the data and the files of TLS are there", || again(cluster, &rows))?;
    step("behind HAProxy, one address: a node is killed", || behind_lb(cluster, &mut rows))?;
    step("behind HAProxy, one address: a node hangs", || hangs_behind_lb(cluster, &mut rows))?;
    step("Prometheus has seen it all", || watched(cluster))?;

    let mut rows = Rows::new();
    step("with compose.insecure.yaml: three healthy nodes", || {
        cluster.begin_insecure()?;
        cluster.up(true)
    })?;
    step("every published port takes writes and has all of them", || ports(cluster, &mut rows))?;
    step("behind HAProxy, one address: a node is killed", || behind_lb(cluster, &mut rows))?;
    step("behind HAProxy, one address: a node hangs", || hangs_behind_lb(cluster, &mut rows))?;
    step("Prometheus has seen it all", || watched(cluster))?;
    Ok(())
}

/// All rows are there, seen through these, and no others.
fn complete(cluster: &Cluster, services: &[&str], rows: &Rows) -> Result<()> {
    let exported = cluster.ask(services, &["export", "-", "--timeout", PATIENT])?;
    let there: Rows = exported
        .lines()
        .map(|line| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned())))
        .collect::<Option<_>>()
        .context("export printed a line without a tab")?;
    let lost: Vec<_> = rows.iter().filter(|(key, value)| there.get(*key) != Some(*value)).take(5).collect();
    ensure!(lost.is_empty(), "lost, or not as written, through {services:?}: {lost:?}");
    ensure!(there.len() == rows.len(), "{} rows, not {}", there.len(), rows.len());
    Ok(())
}

fn add(rows: &mut Rows, keys: Vec<String>) {
    println!("docker:   {} writes acknowledged, none failed", keys.len());
    rows.extend(keys.into_iter().map(|key| (key.clone(), value_of(&key))));
}

fn image(cluster: &Cluster) -> Result<()> {
    let image = cluster.image();
    let said = docker(&["inspect", "--format", "{{.Config.User}} {{.Size}}", &image])?;
    let (user, bytes) = said.trim().split_once(' ').context("docker says user and size")?;
    let megabytes = bytes.parse::<u64>()? / 1_000_000;
    println!("docker:   {megabytes} MB, runs as {user}");
    ensure!(user == "10001:10001", "it runs as {user:?}");
    ensure!(megabytes < 200, "{megabytes} MB is not small");
    let refused = engine::run(engine::limited("docker", engine::QUICK).args(["run", "--rm", &image]))?;
    let why = String::from_utf8_lossy(&refused.stderr);
    ensure!(refused.status.code() == Some(2) && why.contains("--insecure"), "{refused:?}");
    Ok(())
}

fn ports(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    for node in NODES {
        cluster.ask(&[node], &["health"])?;
        let mut keys: Vec<_> = (0..5).map(|number| format!("through-{node}-{number}")).collect();
        for key in &keys {
            cluster.ask(&[node], &["put", key, &value_of(key)])?;
        }
        let text = format!("text-{node}");
        let said = cluster.say(node, &format!("SET {text} {}", value_of(&text)))?;
        ensure!(said == "OK", "{node}'s port for text says {said:?}");
        keys.push(text);
        add(rows, keys);
    }
    NODES.iter().try_for_each(|node| complete(cluster, &[node], rows))
}

fn files(cluster: &Cluster) -> Result<()> {
    let owner = fs::metadata(cluster.certs())?.uid();
    let mut names = Vec::new();
    for file in fs::read_dir(cluster.certs())? {
        let file = file?.path();
        let data = fs::metadata(&file)?;
        let mode = if file.extension().is_some_and(|ending| ending == "key") { 0o600 } else { 0o644 };
        ensure!((data.mode() & 0o777, data.uid()) == (mode, owner), "{}: {data:?}", file.display());
        names.push(file.file_name().unwrap_or_default().to_string_lossy().into_owned());
    }
    names.sort();
    let all = "admin.crt admin.key ca.crt ca.key node1.crt node1.key node2.crt node2.key node3.crt node3.key";
    ensure!(names.join(" ") == all, "the operator has {names:?}");
    for node in NODES {
        let look = "cd /etc/ringfort; stat --format '%n %u %a' *";
        let said = docker(&["exec", &cluster.container(node), "sh", "-c", look])?;
        let wanted = "ca.crt 10001 644\nnode.crt 10001 644\nnode.key 10001 600\n";
        ensure!(said == wanted, "{node} has {said}");
        ensure!(cluster.shows(node)?, "{node} shows another certificate than {node}.crt");
    }
    Ok(())
}

fn strangers(cluster: &Cluster) -> Result<()> {
    for node in NODES {
        let said = engine::run(&mut cluster.stranger(&[node], &["get", "through-node1-0"]))?;
        let why = String::from_utf8_lossy(&said.stderr);
        ensure!(said.status.code() == Some(3) && why.contains("TLS only"), "{said:?}");
        let said = cluster.say_plainly(node, "GET through-node1-0")?;
        ensure!(said.starts_with("ERROR rejected: this port speaks TLS only"), "{said}");
    }
    Ok(())
}

fn killed(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    let feed = Feed::start(cluster, &NODES, "killed", USUAL)?;
    feed.goes_on(ROWS)?;
    docker(&["kill", &cluster.container("node2")])?;
    feed.goes_on(ROWS)?;
    add(rows, feed.finish()?);
    complete(cluster, &["node1"], rows)?;
    complete(cluster, &["node3"], rows)?;
    docker(&["start", &cluster.container("node2")])?;
    cluster.healthy(&NODES)?;
    cluster.agrees(&NODES)?;
    complete(cluster, &["node2"], rows)
}

fn cut_off(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    let node3 = cluster.container("node3");
    let feed = Feed::start(cluster, &NODES, "cut", USUAL)?;
    feed.goes_on(ROWS)?;
    docker(&["network", "disconnect", NETWORK, &node3])?;
    feed.goes_on(ROWS)?;
    add(rows, feed.finish()?);
    // It has no majority, so it says nothing rather than something old; but an old row may be asked for.
    let (last, _) = rows.iter().rfind(|(key, _)| key.starts_with("cut-")).context("there are some")?;
    let asked = cluster.inside("node3", &["get", last, "--timeout", "2s"])?;
    ensure!(asked.status.code() == Some(3), "a node that is cut off answered: {asked:?}");
    let asked = cluster.inside("node3", &["get", "through-node1-0", "--stale"])?;
    ensure!(asked.status.success(), "a node that is cut off has no rows: {asked:?}");
    complete(cluster, &["node1", "node2"], rows)?;
    // Compose gave it this name when it made the container; so has whoever connects it by hand.
    docker(&["network", "connect", "--alias", "node3", NETWORK, &node3])?;
    eventually("the node that was cut off has what it missed", Duration::from_secs(30), || {
        Ok(cluster.inside("node3", &["get", last, "--stale"])?.status.success())
    })?;
    cluster.agrees(&NODES)?;
    complete(cluster, &["node3"], rows)
}

fn stopped(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    let node1 = cluster.container("node1");
    let feed = Feed::start(cluster, &NODES, "stopped", USUAL)?;
    feed.goes_on(ROWS)?;
    let begun = Instant::now();
    docker(&["stop", "-t", "15", &node1])?;
    let took = begun.elapsed();
    feed.goes_on(ROWS)?;
    add(rows, feed.finish()?);
    let code = docker(&["inspect", "--format", "{{.State.ExitCode}}", &node1])?;
    println!("docker:   exit code {} after {:.1} s", code.trim(), took.as_secs_f64());
    ensure!(code.trim() == "0", "exit code {code}");
    ensure!(took < STOP_MAX, "it took {took:?} to stop");
    docker(&["start", &node1])?;
    cluster.healthy(&NODES)?;
    cluster.agrees(&NODES)?;
    complete(cluster, &["node1"], rows)
}

fn renewed(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    let feed = Feed::start(cluster, &NODES, "renewed", USUAL)?;
    feed.goes_on(ROWS)?;
    for ending in ["crt", "key"] {
        fs::remove_file(cluster.certs().join(format!("node2.{ending}")))?;
    }
    cluster.make_certs()?;
    eventually("the node shows its new certificate", Duration::from_secs(30), || cluster.shows("node2"))?;
    feed.goes_on(ROWS)?;
    add(rows, feed.finish()?);
    // With a new connection each, the others' to it among them.
    docker(&["restart", &cluster.container("node1")])?;
    cluster.healthy(&NODES)?;
    cluster.agrees(&NODES)?;
    complete(cluster, &["node2"], rows)
}

fn again(cluster: &Cluster, rows: &Rows) -> Result<()> {
    let ca = fs::read(cluster.certs().join("ca.crt"))?;
    cluster.down()?;
    cluster.up(false)?;
    ensure!(ca == fs::read(cluster.certs().join("ca.crt"))?, "the CA was made anew");
    for node in NODES {
        ensure!(cluster.shows(node)?, "{node} shows another certificate than {node}.crt");
    }
    cluster.agrees(&NODES)?;
    complete(cluster, &NODES, rows)
}

fn behind_lb(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    cluster.up_with_lb()?;
    eventually("HAProxy has found a node", Duration::from_secs(30), || {
        Ok(engine::run(&mut cluster.client(&[LB], &["health"]))?.status.success())
    })?;
    for (round, node) in NODES.into_iter().enumerate() {
        // Whichever node the client's calls go to, it is killed once.
        let feed = Feed::start(cluster, &[LB], &format!("lb-{round}"), USUAL)?;
        feed.goes_on(ROWS)?;
        docker(&["kill", &cluster.container(node)])?;
        feed.goes_on(ROWS)?;
        docker(&["start", &cluster.container(node)])?;
        add(rows, feed.finish()?);
        complete(cluster, &[LB], rows)?;
        cluster.healthy(&NODES)?;
    }
    cluster.agrees(&[LB])
}

fn hangs_behind_lb(cluster: &Cluster, rows: &mut Rows) -> Result<()> {
    for (round, node) in NODES.into_iter().enumerate() {
        let feed = Feed::start(cluster, &[LB], &format!("hangs-{round}"), PATIENT)?;
        feed.goes_on(ROWS)?;
        docker(&["pause", &cluster.container(node)])?;
        let went_on = feed.goes_on(ROWS);
        docker(&["unpause", &cluster.container(node)])?;
        if let Err(error) = went_on {
            // The write's own failure says more.
            feed.finish()?;
            bail!(error);
        }
        add(rows, feed.finish()?);
        cluster.healthy(&NODES)?;
    }
    cluster.agrees(&[LB])?;
    complete(cluster, &[LB], rows)
}

fn watched(cluster: &Cluster) -> Result<()> {
    eventually("Prometheus scrapes three nodes", Duration::from_mins(1), || {
        Ok(cluster.watched("sum(up)")?.contains("\"3\""))
    })?;
    let puts = cluster.watched("sum(ringfort_request_duration_seconds_count{operation=%22put%22})")?;
    ensure!(puts.contains("\"value\""), "no puts: {puts}");
    let killed = cluster.watched("max(changes(process_start_time_seconds[10m]))")?;
    ensure!(killed.contains("\"value\"") && !killed.contains("\"0\""), "no node was started twice: {killed}");
    Ok(())
}
