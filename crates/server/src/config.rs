//! What a node is started with, and the list of nodes that follows from it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringfort_tls::NodeFiles;
use ringfort_types::limits::{BIRTH_NODES_MAX, CALL_TIMEOUT_MAX_MS, HELD_READS_BYTES, SHARDS_MAX};
use ringfort_types::{is_every_address, is_name};

use crate::StartError;
use crate::audit::AuditConfig;
use crate::doors::http::HttpSettings;
use crate::doors::text::TextSettings;
use crate::log_levels::LogLevels;
use ringfort_ring::WEIGHT_MAX;

/// The text protocol's port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextConfig {
    /// Where to listen, as `HOST:PORT`. Port 0 takes a free one.
    pub listen: String,
    /// How it answers.
    pub settings: TextSettings,
}

/// The port for those who watch the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where to listen, as `HOST:PORT`. Port 0 takes a free one.
    pub listen: String,
    /// The node starts without, if somebody else has that port.
    pub is_optional: bool,
    /// What is shown there.
    pub settings: HttpSettings,
}

/// What a node is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line, by its name")]
pub struct Config {
    /// The operator's name for it; without one, the name in the data directory or a new one.
    pub name: Option<String>,
    /// Where to listen, as `HOST:PORT`. Port 0 takes a free one, for a cluster of one.
    pub listen: String,
    /// A node that has a data directory listens where it was last, not on `listen`, unless `advertise` says where it is.
    pub stays: bool,
    /// Open ports that other machines can reach, though whoever reaches them can do anything.
    pub insecure: bool,
    /// Its certificate and what belongs to it: TLS is spoken on all its ports, and with other nodes. Without them there is no TLS.
    pub tls: Option<NodeFiles>,
    /// Where the others and the clients find it, if that is not `listen`.
    pub advertise: Option<String>,
    /// The port for the text protocol; `None` for no such port.
    pub text: Option<TextConfig>,
    /// The port for those who watch the node; `None` for no such port.
    pub http: Option<HttpConfig>,
    /// Requests that take longer are told of in the log; none without it.
    pub slow_request: Option<Duration>,
    /// What changes which lines are logged; without it nobody can ask for that.
    pub log_levels: Option<LogLevels>,
    /// Its audit log, if it has one.
    pub audit: Option<AuditConfig>,
    /// Where its data is.
    pub data_dir: PathBuf,
    /// The other nodes of a new cluster, with their names where they are known. May list this node too. The
    /// same list on every node; empty for a cluster of one.
    pub peers: Vec<(Option<String>, String)>,
    /// Members of a cluster that is there, one of which is asked to take this node in. Instead of `peers`.
    pub join: Vec<String>,
    /// A node of no cluster waits until a member invites it. Instead of `peers` and `join`.
    pub invited: bool,
    /// It takes the place of the member that has its name, whose data directory is lost for good.
    pub replace: bool,
    /// Its zone, if it joins; empty for none.
    pub zone: String,
    /// How much it takes compared to others, if it joins.
    pub weight: u32,
    /// How many shards a new cluster has, if not [`SHARDS_DEFAULT`]. Must be right of one that is there, if it is said.
    pub shards: Option<u32>,
    /// How many copies of each shard a new cluster keeps, if not [`REPLICAS_DEFAULT`]. The same.
    pub replicas: Option<u32>,
    /// How long a node is not heard of until its replicas are made anew elsewhere.
    pub replace_after: Duration,
    /// Bytes of rows in memory beyond which the largest table is flushed.
    pub memtable_bytes: u64,
    /// Bytes that may be written while long reads need older versions of rows; beyond it, those that cost most are given up.
    pub held_reads_bytes: u64,
    /// Bytes of cache for table blocks.
    pub cache_bytes: u64,
    /// Bytes of log that are kept for followers that come back; the log takes up to half as much again on disk.
    pub log_bytes: u64,
    /// Bytes a second, at most, that are read for followers that need a whole table.
    pub snapshot_bytes_per_s: u64,
}

/// Shards of a new cluster, if nobody says otherwise.
pub const SHARDS_DEFAULT: u32 = 64;
/// Copies of each of them.
pub const REPLICAS_DEFAULT: u32 = 3;
/// The least and the most time that a text command may be given.
const TEXT_TIMEOUT_MIN: Duration = Duration::from_millis(100);
const TEXT_TIMEOUT_MAX: Duration = Duration::from_millis(CALL_TIMEOUT_MAX_MS as u64);
/// The shortest time after which a node is replaced: longer than a restart takes.
const REPLACE_AFTER_MIN: Duration = Duration::from_secs(5);
/// The smallest log: a few segments.
const LOG_BYTES_MIN: u64 = 1024 * 1024;
/// The slowest snapshots: fast enough that each part comes before its receiver gives up.
const SNAPSHOT_BYTES_PER_S_MIN: u64 = 1024 * 1024;

impl Config {
    /// A cluster of one with everything else by default.
    pub fn new(listen: impl Into<String>, data_dir: impl Into<PathBuf>) -> Config {
        Config {
            name: None,
            listen: listen.into(),
            stays: false,
            insecure: false,
            tls: None,
            advertise: None,
            text: None,
            http: None,
            slow_request: None,
            log_levels: None,
            audit: None,
            data_dir: data_dir.into(),
            peers: Vec::new(),
            join: Vec::new(),
            invited: false,
            replace: false,
            zone: String::new(),
            weight: 1,
            shards: None,
            replicas: None,
            replace_after: Duration::from_mins(1),
            memtable_bytes: 64 * 1024 * 1024,
            held_reads_bytes: HELD_READS_BYTES,
            cache_bytes: 64 * 1024 * 1024,
            log_bytes: 256 * 1024 * 1024,
            snapshot_bytes_per_s: 64 * 1024 * 1024,
        }
    }

    /// Whether it may listen where others than this machine can reach it.
    pub(crate) fn is_open(&self) -> bool {
        self.insecure || self.tls.is_some()
    }

    /// Refuses what can't be right, before anything is touched.
    pub(crate) fn validate(&self) -> Result<(), StartError> {
        let usage = |message: String| Err(StartError::Usage(message));
        let names = self.peers.iter().filter_map(|(name, _)| name.as_ref()).chain(&self.name);
        for name in names {
            if !is_name(name) {
                return usage(format!(
                    "{name:?} is not a name for a node: use 1 to 64 letters, digits, '-', '_' or '.'"
                ));
            }
        }
        if let Some(shards) = self.shards.filter(|shards| !(1..=SHARDS_MAX).contains(shards)) {
            return usage(format!("--shards {shards}: give a number from 1 to {SHARDS_MAX}"));
        }
        let replicas_max = BIRTH_NODES_MAX as u32;
        if let Some(replicas) = self.replicas.filter(|replicas| !(1..=replicas_max).contains(replicas)) {
            return usage(format!("--replicas {replicas}: give a number from 1 to {replicas_max}"));
        }
        if !self.join.is_empty() && !self.peers.is_empty() {
            return usage(
                "--peers are the nodes that a new cluster is born with, --join is for one that is there: give one of them"
                    .to_owned(),
            );
        }
        if self.invited && (!self.join.is_empty() || !self.peers.is_empty() || self.replace) {
            return usage(
                "--invited waits until a member of a cluster invites this node: leave out --peers, --join and --replace"
                    .to_owned(),
            );
        }
        if self.replace && (self.join.is_empty() || self.name.is_none()) {
            return usage(
                "--replace: say which node with --id, and where the others are with --join".to_owned(),
            );
        }
        if !self.zone.is_empty() && !is_name(&self.zone) {
            return usage(format!(
                "{:?} is not a name for a zone: use 1 to 64 letters, digits, '-', '_' or '.'",
                self.zone
            ));
        }
        if self.weight == 0 || self.weight > WEIGHT_MAX {
            return usage(format!("--weight {}: give a number from 1 to {WEIGHT_MAX}", self.weight));
        }
        if self.replace_after < REPLACE_AFTER_MIN {
            return usage(format!(
                "nodes replaced after {:?}: give them {REPLACE_AFTER_MIN:?} at least",
                self.replace_after
            ));
        }
        if self.peers.len() >= BIRTH_NODES_MAX {
            return usage(format!(
                "--peers lists {} nodes: a cluster is born from {BIRTH_NODES_MAX} at most",
                self.peers.len()
            ));
        }
        if self.log_bytes < LOG_BYTES_MIN {
            return usage(format!("a log of {} bytes: give it {LOG_BYTES_MIN} at least", self.log_bytes));
        }
        if self.snapshot_bytes_per_s < SNAPSHOT_BYTES_PER_S_MIN {
            return usage(format!(
                "snapshots at {} bytes a second: allow them {SNAPSHOT_BYTES_PER_S_MIN} at least",
                self.snapshot_bytes_per_s
            ));
        }
        if let Some(TextConfig { settings, .. }) = &self.text
            && !(TEXT_TIMEOUT_MIN..=TEXT_TIMEOUT_MAX).contains(&settings.timeout)
        {
            return usage(format!(
                "a text command's time of {:?}: give it {TEXT_TIMEOUT_MIN:?} to {TEXT_TIMEOUT_MAX:?}",
                settings.timeout
            ));
        }
        for (_, address) in &self.peers {
            check_address("--peers", address)?;
        }
        for address in &self.join {
            check_address("--join", address)?;
        }
        if let Some(address) = &self.advertise {
            check_address("--advertise", address)?;
        }
        Ok(())
    }

    /// The address to be known by, given the one that was bound.
    pub(crate) fn advertised(&self, bound: SocketAddr) -> Result<String, StartError> {
        if let Some(address) = &self.advertise {
            return Ok(address.clone());
        }
        let has_others = !self.peers.is_empty() || !self.join.is_empty() || self.invited;
        if bound.ip().is_unspecified() && has_others {
            return Err(StartError::Usage(format!(
                "{} is every address of this machine, and none that other nodes could use: name one with --advertise HOST:PORT",
                self.listen
            )));
        }
        if self.listen.ends_with(":0") {
            if !has_others {
                return Ok(bound.to_string());
            }
            return Err(StartError::Usage(
                "port 0 is another one at each start, and the other nodes could not find it: choose a port"
                    .into(),
            ));
        }
        Ok(self.listen.clone())
    }

    /// All nodes' addresses, sorted, and the names given for them; this node's own among them.
    pub(crate) fn nodes(&self, me: &str, name: &str) -> Result<Vec<(String, String)>, StartError> {
        let mut nodes = vec![(me.to_owned(), name.to_owned())];
        for (name, address) in &self.peers {
            let name = name.clone().unwrap_or_default();
            match nodes.iter_mut().find(|(known, _)| known == address) {
                None => nodes.push((address.clone(), name)),
                Some((_, known)) if name.is_empty() || *known == name => {}
                Some((_, known)) if known.is_empty() && address == me => {
                    return Err(StartError::Usage(format!(
                        "{address} is this node itself, and --peers calls it {name}: give it that name with --id"
                    )));
                }
                Some((_, known)) => {
                    return Err(StartError::Usage(format!(
                        "{address} is called {known} and {name}: a node has one name"
                    )));
                }
            }
        }
        nodes.sort();
        for (at, (address, name)) in nodes.iter().enumerate() {
            if let Some((other, _)) = nodes[..at].iter().find(|(_, known)| !name.is_empty() && known == name)
            {
                return Err(StartError::Usage(format!(
                    "{other} and {address} are both called {name}: give each node a name of its own"
                )));
            }
        }
        Ok(nodes)
    }
}

/// Checks the form `HOST:PORT`.
fn check_address(flag: &'static str, address: &str) -> Result<(), StartError> {
    ringfort_types::check_address(address).map_err(|why| StartError::Address {
        flag,
        address: address.to_owned(),
        purpose: "reach a node",
        reason: format!("it {why}"),
    })?;
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if is_every_address(host) {
        return Err(StartError::Address {
            flag,
            address: address.to_owned(),
            purpose: "reach a node",
            reason:
                "it is every address of whoever uses it, and leads each node to itself: give the node's own"
                    .into(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(peers: &[(Option<&str>, &str)]) -> Config {
        let peers = peers.iter().map(|(name, at)| (name.map(str::to_owned), (*at).to_owned())).collect();
        Config { peers, ..Config::new("127.0.0.1:50051", "/nowhere") }
    }

    #[test]
    fn an_address_that_is_every_address_leads_to_nobody() {
        for address in [
            "0.0.0.0:22301",
            "[::]:22301",
            "0:22301",
            "0.0:22301",
            "000.0.0.0:22301",
            "[::ffff:0.0.0.0]:22301",
        ] {
            for config in [
                config(&[(Some("n2"), address)]),
                Config { join: vec![address.to_owned()], ..config(&[]) },
                Config { advertise: Some(address.to_owned()), ..config(&[]) },
            ] {
                let refused = config.validate().unwrap_err().to_string();
                assert!(refused.contains(address) && refused.contains("give the node's own"), "{refused}");
            }
        }
        config(&[(None, "10.0.0.0:22301"), (None, "[::1]:22301")]).validate().unwrap();
    }

    #[test]
    fn the_list_is_sorted_and_holds_this_node_once() {
        let config =
            config(&[(Some("c"), "127.0.0.1:50053"), (None, "127.0.0.1:50051"), (None, "127.0.0.1:50052")]);
        config.validate().unwrap();
        let nodes = config.nodes("127.0.0.1:50051", "a").unwrap();
        let nodes: Vec<_> = nodes.iter().map(|(address, name)| (&address[10..], name.as_str())).collect();
        assert_eq!(nodes, [("50051", "a"), ("50052", ""), ("50053", "c")]);
    }

    #[test]
    fn one_name_twice_and_two_names_for_one_are_refused() {
        let twice = config(&[(Some("a"), "127.0.0.1:50052")]);
        assert!(twice.nodes("127.0.0.1:50051", "a").is_err());
        let two = config(&[(Some("b"), "127.0.0.1:50051")]);
        assert!(two.nodes("127.0.0.1:50051", "a").is_err());
    }

    #[test]
    fn mistyped_addresses_and_numbers_are_refused() {
        for address in ["", "50051", "host:", ":50051", "host:99999", "host:0", "http://host:1", "a b:1"] {
            let error = config(&[(None, address)]).validate().unwrap_err();
            assert_eq!(error.exit_code(), 2, "{address}: {error}");
        }
        assert!(Config { shards: Some(0), ..config(&[]) }.validate().is_err());
        assert!(Config { replicas: Some(0), ..config(&[]) }.validate().is_err());
        assert!(Config { log_bytes: 1_000_000, ..config(&[]) }.validate().is_err());
        assert!(Config { snapshot_bytes_per_s: 0, ..config(&[]) }.validate().is_err());
        assert!(Config { name: Some("a b".into()), ..config(&[]) }.validate().is_err());
        let invited = |config: Config| Config { invited: true, ..config }.validate();
        assert!(invited(config(&[])).is_ok() && invited(config(&[(None, "127.0.0.1:50052")])).is_err());
        assert!(invited(Config { join: vec!["127.0.0.1:50052".into()], ..config(&[]) }).is_err());
    }

    #[test]
    fn what_is_bound_must_be_reachable_for_peers() {
        let any: SocketAddr = "0.0.0.0:50051".parse().unwrap();
        let alone = Config { listen: "0.0.0.0:50051".into(), ..config(&[]) };
        assert_eq!(alone.advertised(any).unwrap(), "0.0.0.0:50051");
        let among = Config { listen: "0.0.0.0:50051".into(), ..config(&[(None, "127.0.0.1:50052")]) };
        assert!(among.advertised(any).is_err());
    }
}
