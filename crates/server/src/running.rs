//! Starting a node, and the handle on one that runs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ringfort_node::{Config as NodeConfig, Event, Identity, Node};
use ringfort_ring::Layout;
use ringfort_storage::{DataDir, FileDisk, LogOptions, LsmTables, Stored, TableOptions, Who};
use ringfort_tls::{NodeTls, Way};
use ringfort_types::limits::CALL_TIMEOUT_DEFAULT_MS;
use ringfort_types::{ClusterState, Door, Failure, Level, Levels, Newcomer, NodeId, Principal, is_name};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::answers::Answers;
use crate::clock::Clock;
use crate::config::{REPLICAS_DEFAULT, SHARDS_DEFAULT};
use crate::core::{Core, Helpers};
use crate::descriptors::Shares;
use crate::doors::Ports;
use crate::doors::places::Places;
use crate::doors::spread::Runtimes;
use crate::doors::tolerance::Tolerance;
use crate::gate::Gate;
use crate::join::{Joined, join};
use crate::links::{self, Links, Other};
use crate::open::LAYOUT_OF_TABLE;
use crate::ports::bind;
use crate::shared::{Header, Report, Shared};
use crate::whereabouts::Told;
use crate::{Config, StartError, audit, certificates, descriptors, doors, invited, space, whereabouts};

/// How long to wait for leaderships to be handed over.
const HAND_OVER_MAX: Duration = Duration::from_millis(3_600);
/// How long to wait for answers to leave once nothing new is taken.
const DRAIN_MAX: Duration = Duration::from_millis(700);
/// What comes of a layout that was kept and is no more.
const LAYOUT_OF_NODES: &str =
    "the other nodes are asked for the cluster's layout, and the file is written anew";
/// Other nodes for which there is room, whatever the list says: some may join.
const PEERS_FORESEEN: usize = 8;

/// A node that serves, for its operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Its number.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Where the others and the clients find it.
    pub address: String,
    /// How many nodes the cluster has.
    pub nodes: usize,
    /// How many shards it has.
    pub shards: u32,
    /// Where the text protocol is spoken, if it is.
    pub text: Option<SocketAddr>,
    /// Where it is watched over HTTP, if it can be.
    pub http: Option<SocketAddr>,
    /// How long it took from the start.
    pub took: Duration,
}

/// A node that runs. Dropping it ends the node soon, as a crash would, but for the sync under way; its directory is
/// unlocked when it has.
#[derive(Debug)]
pub struct Running {
    tolerance: Tolerance,
    shared: Arc<Shared>,
    reports: mpsc::UnboundedReceiver<Report>,
    /// Closes when the core has ended, and with it its threads.
    core: oneshot::Receiver<()>,
    sockets: JoinSet<()>,
    data_dir: PathBuf,
    summary: Summary,
    started: Instant,
}

/// Checks the flags, binds the port, locks the directory, and starts the node. It serves once
/// [`Running::serving`] says so, which is after its peers have been met if it is new.
///
/// All of it is on the runtime that this is called on, but for what has a thread of its own.
pub async fn start(config: Config) -> Result<Running, StartError> {
    start_on(config, Vec::new()).await
}

/// The same, with its connections spread over this runtime and others. Those should be current-thread runtimes that somebody drives for as
/// long as the node lives.
pub async fn start_on(config: Config, others: Vec<Handle>) -> Result<Running, StartError> {
    let started = Instant::now();
    Clock::check()?;
    let config = checked(config)?;
    let audit_file = audit::open(config.audit.as_ref())?;
    let (mut ports, bound) = bind(&config).await?;
    let address = config.advertised(bound.grpc)?;
    let listed = listed(&config, &address)?;

    let disk = Arc::new(FileDisk::open(&config.data_dir)?);
    let who = Who { name: config.name.clone(), address: address.clone(), fresh: draw()? };
    let (data, mut stored) = DataDir::open_anywhere(disk.clone(), &who, ringfort_node::is_member)?;
    ports.tls = guard(&config, &data, &stored)?;
    let runtimes = Runtimes::new([Handle::current()].into_iter().chain(others));
    let (kept, lost) = become_member(&config, &address, &data, &mut stored, (&ports, &runtimes)).await?;
    let Origin { nodes, shards, replicas, is_member } = Origin::of(&config, &address, listed, &stored)?;
    let is_counted = stored.is_counted();
    let options = TableOptions::default();
    let limit = descriptors::raise_limit();
    let files = Shares::of(limit, PEERS_FORESEEN.max(nodes.len() - 1), options.open_files)
        .map_err(|least| StartError::FewDescriptors { limit, least })?;
    let options = TableOptions { cache_bytes: config.cache_bytes, open_files: files.tables, ..options };
    let tables = LsmTables::new(disk, stored.incarnation, options);

    let (identity, unreadable) = identity(&data, &stored, kept)?;
    let name = node_name(&stored.name);
    let (addresses, names): (Vec<_>, Vec<_>) = nodes.into_iter().unzip();
    let clock = Clock::new();
    let begins = node_config(&config, &address, (&addresses, &names), (shards, replicas));
    let node = Node::new(begins, &identity, clock.now())?;

    let me = node.id();
    let told = told(&config, &address, &node)?;
    let socket_threads = runtimes.handles().map(|runtime| runtime.metrics().num_workers()).sum();
    let (reporting, reports) = mpsc::unbounded_channel();
    let answers = Answers::new(me, runtimes.handles());
    let header = Header::new(&node, stored.incarnation);
    let shared = Shared::new(answers, header, Handle::current(), shards, reporting);
    let shared = shared.that_logs(config.slow_request, config.log_levels.clone());
    let audit = audit::start(config.audit.as_ref(), audit_file, &name, shared.watch_layout())?;
    let shared = Arc::new(shared.that_guards(ports.tls.clone()).that_audits(audit));
    let is_alone = !is_member && addresses.len() == 1 && !config.peers.is_empty();
    let alone = is_alone.then(|| peerless(&address));
    let uncounted = (!is_counted).then(|| uncounted(&config.data_dir));
    let has_joined = stored.birth.as_ref().is_some_and(ringfort_node::is_joined);
    let of_cluster = if has_joined { unheeded_numbers(&config, &node) } else { None };
    let told_first = [alone, lost, unreadable, uncounted, unheeded(&config, &node), of_cluster];
    told_first.into_iter().flatten().for_each(|line| shared.notice(line));
    let links = Arc::<Links>::default();

    let mut tasks = JoinSet::new();
    let others = if is_member { Vec::new() } else { others_of(me, &addresses, names) };
    tasks.spawn(links::keep_all_connected(shared.clone(), others, told));
    if let Some(tls) = ports.tls.clone() {
        tasks.spawn(certificates::watch(shared.clone(), tls));
    }
    tasks.spawn(space::watch(shared.clone(), config.data_dir.clone()));
    let tolerance = Tolerance::default();
    let places = Places::new(files.connections, if bound.text.is_some() { 2 } else { 1 });
    tasks.spawn(doors::serve(shared.clone(), links.clone(), ports, places, tolerance.clone(), runtimes));
    if files.is_short() {
        shared.notice(few_files(limit, files));
    }

    let core = Core {
        node,
        shared: shared.clone(),
        links,
        clock,
        data: Arc::new(data),
        tables: Arc::new(tables),
        memtable_bytes: config.memtable_bytes,
        held_reads_bytes: config.held_reads_bytes,
        log_options: LogOptions::with_budget(config.log_bytes),
        snapshot_bytes_per_s: config.snapshot_bytes_per_s,
        socket_threads,
        helpers: Helpers::default(),
    };
    let summary = Summary {
        node: me,
        name,
        address,
        nodes: addresses.len(),
        shards,
        text: bound.text,
        http: bound.http,
        took: Duration::ZERO,
    };
    Ok(Running {
        tolerance,
        shared,
        reports,
        core: core.start()?,
        sockets: tasks,
        data_dir: config.data_dir,
        summary,
        started,
    })
}

/// What TLS is spoken with, if it is. Without good files for it a new directory is left as if it had not been touched.
fn guard(config: &Config, data: &DataDir, stored: &Stored) -> Result<Option<NodeTls>, StartError> {
    let name = node_name(&stored.name);
    let loaded = config.tls.clone().map(|files| NodeTls::load(files, &name)).transpose();
    loaded.map_err(|error| {
        if stored.boot == 1 {
            data.discard();
        }
        StartError::Usage(error.to_string())
    })
}

/// What a node is told that begins as these nodes, of which it is one.
fn node_config(
    config: &Config,
    address: &str,
    (addresses, names): (&[String], &[String]),
    (shards, replicas): (u32, u32),
) -> NodeConfig {
    NodeConfig {
        address: address.to_owned(),
        addresses: addresses.to_vec(),
        names: names.to_vec(),
        shards,
        replicas,
        replace_after_ms: config.replace_after.as_millis() as u64,
        levels: Levels::KNOWN,
    }
}

/// The other nodes of the list that a cluster is born of.
fn others_of(me: NodeId, addresses: &[String], names: Vec<String>) -> Vec<Other> {
    let listed = (1..).map(NodeId).zip(addresses.iter().cloned().zip(names));
    let others = listed.filter(|(node, _)| *node != me);
    others.map(|(node, (address, name))| Other { node, address, name }).collect()
}

/// Who the node is, and what can't be read of what it remembers of others, if that is so.
fn identity(
    data: &DataDir,
    stored: &Stored,
    layout: Option<Bytes>,
) -> Result<(Identity, Option<String>), StartError> {
    let (marks, unreadable) =
        data.marks().map_or_else(|error| (None, Some(error.to_string())), |marks| (marks, None));
    let Stored { incarnation, boot, birth, .. } = stored.clone();
    Ok((Identity { incarnation, boot, birth, layout, process: draw()?.max(1), marks }, unreadable))
}

/// With flags that can be right, before anything is touched.
fn checked(config: Config) -> Result<Config, StartError> {
    config.validate()?;
    let says_where = !config.zone.is_empty() || config.weight != 1;
    let joins = !config.join.is_empty() || config.invited;
    if says_where && !joins && !whereabouts::is_used(&config.data_dir) {
        let why = "--zone and --weight are of a node that joins: say whom with --join, or give --invited";
        return Err(StartError::Usage(why.to_owned()));
    }
    at_its_place(config)
}

/// With the address that its node had last, if no other one was given.
fn at_its_place(config: Config) -> Result<Config, StartError> {
    if !config.stays || config.advertise.is_some() {
        return Ok(config);
    }
    let last = whereabouts::last_address(&config.data_dir)?;
    Ok(match last {
        Some(listen) => Config { listen, ..config },
        None => config,
    })
}

/// The list of nodes that follows from the flags. A member's may be from before it moved, and is not looked at; a new node makes nothing if
/// its list is bad.
fn listed(config: &Config, address: &str) -> Result<Result<Vec<(String, String)>, StartError>, StartError> {
    let listed = config.nodes(address, config.name.as_deref().unwrap_or_default());
    Ok(if whereabouts::is_used(&config.data_dir) { listed } else { Ok(listed?) })
}

/// Where a member is to look for the others, by its flags. Refuses an address at which it can't be.
fn told(config: &Config, address: &str, node: &Node) -> Result<Told, StartError> {
    let (Some(born), Some(layout)) = (node.born_layout(), node.layout()) else { return Ok(Told::default()) };
    let told = whereabouts::told(config, node.id(), address, &born, layout)?;
    whereabouts::check_own(config, node.id(), address, layout, &told)?;
    Ok(told)
}

/// What a node begins with: a new cluster's list, or nothing but itself if it is a member of one.
struct Origin {
    /// The addresses, with the names that are known.
    nodes: Vec<(String, String)>,
    shards: u32,
    replicas: u32,
    is_member: bool,
}

impl Origin {
    fn of(
        config: &Config,
        address: &str,
        listed: Result<Vec<(String, String)>, StartError>,
        stored: &Stored,
    ) -> Result<Origin, StartError> {
        let name = node_name(&stored.name);
        let is_member = stored.birth.as_ref().is_some_and(ringfort_node::is_member);
        let born = stored.birth.as_ref().map(ringfort_node::born_numbers).transpose()?;
        let has_joined = stored.birth.as_ref().is_some_and(ringfort_node::is_joined);
        // What is not said is as it was; of a node that has joined it is, whatever is said.
        let said = if has_joined { (None, None) } else { (config.shards, config.replicas) };
        let (shards, replicas) = born.unwrap_or((SHARDS_DEFAULT, REPLICAS_DEFAULT));
        let with_own = |(at, known)| if at == address { (at, name.clone()) } else { (at, known) };
        Ok(Origin {
            nodes: if is_member {
                // Who else there is its layout says.
                vec![(address.to_owned(), name)]
            } else {
                listed?.into_iter().map(with_own).collect()
            },
            shards: said.0.unwrap_or(shards),
            replicas: said.1.unwrap_or(replicas),
            is_member,
        })
    }
}

/// Makes this node a member of the cluster that it was told to join, or is invited into at a door of its own, unless it belongs to one already.
/// The layout that is kept, and why there is none.
async fn become_member(
    config: &Config,
    address: &str,
    data: &DataDir,
    stored: &mut Stored,
    (ports, runtimes): (&Ports, &Runtimes),
) -> Result<(Option<Bytes>, Option<String>), StartError> {
    let has_joined = stored.birth.as_ref().is_some_and(ringfort_node::is_joined);
    let (kept, lost) = match data.layout() {
        Ok(Some(kept)) => (Some(kept), None),
        // A node that has joined keeps one from then on. Of another one shard 0's table tells whether there was one (`open`).
        Ok(None) => {
            (None, has_joined.then(|| format!("{} is missing: {LAYOUT_OF_NODES}", data.layout_place())))
        }
        Err(error) => {
            let is_alone = !has_joined && config.peers.len() <= 1;
            let source = if is_alone { LAYOUT_OF_TABLE } else { LAYOUT_OF_NODES };
            (None, Some(format!("{error}: {source}")))
        }
    };
    if !config.join.is_empty() && !has_joined && is_cluster_of_one(stored, kept.as_ref()) {
        return Err(StartError::Usage(format!(
            "--join: {} holds a cluster of its own, of one node, and what is in it would not go along: leave --join out to go on with it, \
             or join from an empty directory, with another --data-dir",
            config.data_dir.display()
        )));
    }
    let waits = config.invited && stored.birth.is_none();
    // One that has lost the layout may know nobody any more whom it could ask for it.
    let joins = !config.join.is_empty() && (stored.birth.is_none() || (kept.is_none() && has_joined));
    if !waits && !joins {
        return Ok((kept, lost));
    }
    let newcomer = Newcomer {
        name: node_name(&stored.name),
        address: address.to_owned(),
        incarnation: stored.incarnation,
        weight: config.weight,
        zone: config.zone.clone(),
        replaces: config.replace,
        max: Level::MAX,
    };
    if waits {
        let ports = ports.again().map_err(|source| StartError::System { action: "listen twice", source })?;
        let (joined, redeemed) =
            invited::wait(ports, runtimes.clone(), config.shards.unwrap_or(SHARDS_DEFAULT), &newcomer)
                .await?;
        let kept = keep(data, stored, &joined)?;
        redeemed.tell().await;
        return Ok((Some(kept), None));
    }
    // The same list may be given to all.
    let others: Vec<&str> = config.join.iter().map(String::as_str).filter(|at| *at != address).collect();
    if others.is_empty() {
        return Err(StartError::Usage(format!(
            "--join {address}: that is this node itself; name another one"
        )));
    }
    let way = ports.tls.clone().map_or(Way::Plain, |tls| Way::Peer(tls, None));
    let joined = match join(&others, &newcomer, &way).await {
        Ok(joined) => joined,
        Err(error) => {
            if stored.boot == 1 {
                data.discard();
            }
            return Err(error);
        }
    };
    Ok((Some(keep(data, stored, &joined)?), None))
}

/// What flags say that hold for a node that joins, and are another thing than it joined with.
fn unheeded(config: &Config, node: &Node) -> Option<String> {
    let member = node.layout()?.member(node.id())?;
    let is_other_zone = !config.zone.is_empty() && config.zone != member.zone;
    let is_other_weight = config.weight != 1 && config.weight != member.weight;
    (is_other_zone || is_other_weight).then(|| {
        let zone = if member.zone.is_empty() { "no zone".to_owned() } else { format!("zone {}", member.zone) };
        format!(
            "--zone and --weight are not heeded: this node is a member, with {zone} and weight {}; it can be removed, and join with others",
            member.weight
        )
    })
}

/// The same of what a cluster was born with, to a node that has joined it.
fn unheeded_numbers(config: &Config, node: &Node) -> Option<String> {
    let layout = node.layout()?;
    let shards = layout.shards.len() as u32 - 1;
    let is_other = config.shards.is_some_and(|said| said != shards)
        || config.replicas.is_some_and(|said| said != layout.copies);
    is_other.then(|| {
        format!(
            "--shards and --replicas are not heeded: this node has joined a cluster of {shards} shards and {} copies of each; `ringfort \
             cluster set replicas=N` changes the copies",
            layout.copies
        )
    })
}

/// Whether a directory is that of a cluster which has no other node.
fn is_cluster_of_one(stored: &Stored, kept: Option<&Bytes>) -> bool {
    let born = || ringfort_node::read_birth(stored.birth.as_ref()?, stored.incarnation).ok().flatten();
    let layout = kept.and_then(|kept| Layout::decode(kept.clone()).ok());
    let layout = layout.or_else(|| Some(born()?.1));
    layout.is_some_and(|layout| layout.members.len() == 1)
}

/// Keeps what a node was told that has joined. Durable when it returns; the layout.
fn keep(data: &DataDir, stored: &mut Stored, joined: &Joined) -> Result<Bytes, StartError> {
    let Joined { node, born, layout } = joined;
    let (record, kept) = (ringfort_node::joined(*node, born), layout.encode());
    // The record comes first: with it the layout can be asked for.
    if !stored.birth.as_ref().is_some_and(ringfort_node::is_joined) {
        data.save_birth(&record, true)?;
        stored.birth = Some(record);
    }
    data.save_layout(layout.epoch, &kept, None)?;
    Ok(kept)
}

/// A number that nobody else draws.
pub(crate) fn draw() -> Result<u64, StartError> {
    getrandom::u64().map_err(|error| StartError::System {
        action: "draw a random number",
        source: std::io::Error::other(error),
    })
}

/// What is said of a list of one.
fn peerless(address: &str) -> String {
    format!("--peers lists this node alone, {address}: it is a cluster of one, without copies elsewhere")
}

/// What is said of a start on a full disk.
fn uncounted(data_dir: &Path) -> String {
    format!(
        "no room to count this start in {}/identity: the node serves all the same, and reads go on; make room there",
        data_dir.display()
    )
}

/// What is said where few files may be open.
fn few_files(limit: usize, Shares { tables, connections }: Shares) -> String {
    format!(
        "{limit} files may be open: {tables} of tables, {connections} connections of clients, the rest for the node itself; for more \
         connections raise the limit (ulimit -n, LimitNOFILE)"
    )
}

/// A stored name, or what an address makes for one: others accept letters, digits, `-`, `_` and `.` only.
fn node_name(stored: &str) -> String {
    if is_name(stored) {
        return stored.to_owned();
    }
    let name: String =
        stored.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    let name = name.trim_matches('-');
    name[..name.len().min(ringfort_types::limits::NAME_BYTES_MAX)].to_owned()
}

/// Looks at the cluster through a node.
#[derive(Clone, Debug)]
pub struct Observer {
    pub(crate) gate: Gate,
}

impl Observer {
    /// The cluster as the node knows it now.
    pub async fn cluster(&self) -> Result<ClusterState, Failure> {
        self.gate.cluster(CALL_TIMEOUT_DEFAULT_MS).await
    }
}

impl Running {
    /// Waits until requests are served; at once if they are.
    pub async fn serving(&mut self) -> Result<Summary, StartError> {
        while self.summary.took.is_zero() {
            match self.reports.recv().await {
                Some(Report::Serving) => {
                    self.summary.nodes = self.shared.layout().map_or(1, |layout| layout.members.len());
                    self.summary.took = self.started.elapsed();
                }
                Some(Report::Failed(error)) => return Err(error),
                Some(Report::Stopped) => return Err(StartError::Ended("it was told to before it served")),
                Some(Report::Removed) => return Err(self.removed()),
                None => return Err(StartError::Ended("its threads have ended")),
            }
        }
        Ok(self.summary.clone())
    }

    /// Waits until the node can't go on, for as long as it can.
    pub async fn failed(&mut self) -> StartError {
        loop {
            match self.reports.recv().await {
                Some(Report::Failed(error)) => return error,
                Some(Report::Removed) => return self.removed(),
                Some(Report::Serving) => {}
                Some(Report::Stopped) | None => return StartError::Ended("its threads have ended"),
            }
        }
    }

    fn removed(&self) -> StartError {
        StartError::Removed(self.data_dir.display().to_string())
    }

    /// Where the others and the clients find it.
    pub fn address(&self) -> &str {
        &self.summary.address
    }

    /// What has the audit log opened again, if there is one.
    pub fn audit_reopener(&self) -> impl Fn() + Send + Sync + use<> {
        let audit = self.shared.audit.clone();
        move || {
            if let Some(audit) = &audit {
                audit.reopen();
            }
        }
    }

    /// Sets how many replicas besides the leader are to have a disk register's message before it is acknowledged, whenever it
    /// is called.
    pub fn tolerance_setter(&self) -> impl Fn(u32) + Send + Sync + use<> {
        let tolerance = self.tolerance.clone();
        move |besides_leader| tolerance.set(besides_leader)
    }

    /// For looks at the cluster as this node knows it.
    pub fn observer(&self) -> Observer {
        Observer { gate: Gate::new(self.shared.clone(), Door::V1).by(Principal::NODE) }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.summary.name
    }

    /// Hands leaderships over, answers what it can, seals the log and ends. Takes five seconds at most.
    pub async fn stop(mut self) -> Result<(), StartError> {
        let started = Instant::now();
        // First, so that who heeds it asks others from now on.
        self.shared.leaving.send_replace(true);
        self.shared.inbox.push(Event::Stop);
        let handed_over = async {
            while let Some(report) = self.reports.recv().await {
                if matches!(report, Report::Stopped | Report::Failed(_)) {
                    return;
                }
            }
        };
        if tokio::time::timeout(HAND_OVER_MAX, handed_over).await.is_err() {
            tracing::warn!("leaderships could not be handed over in time; the other nodes will elect");
        }
        tracing::info!("leaderships are handed over after {} ms", started.elapsed().as_millis());
        self.shared.stopping.send_replace(true);
        self.shared.inbox.close();
        let _longer = tokio::time::timeout(DRAIN_MAX, &mut self.core).await;
        tracing::debug!("log sealed after {:?}", started.elapsed());
        let drained = async { while self.sockets.join_next().await.is_some() {} };
        let _longer = tokio::time::timeout(DRAIN_MAX, drained).await;
        if let Some(audit) = &self.shared.audit {
            audit.flush().await;
        }
        tracing::info!("this node has stopped after {} ms", started.elapsed().as_millis());
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.sockets.abort_all();
        self.shared.stopping.send_replace(true);
        self.shared.inbox.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_makes_a_name() {
        assert_eq!(node_name("node1"), "node1");
        assert_eq!(node_name("127.0.0.1:50051"), "127.0.0.1-50051");
        assert_eq!(node_name("[::1]:50051"), "1--50051");
        assert!(is_name(&node_name(&"x".repeat(200))));
    }
}
