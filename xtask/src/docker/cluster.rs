//! The compose project under test, and clients of the image that it is made of.
//!
//! Clients run in containers on this machine's own network: they reach what is published, as a user's would, and not the
//! containers' names. Ports are free ones, so that a cluster which somebody has running does not mind, and what `compose.yaml` makes in
//! `./certs` goes into a directory of its own.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::engine::{self, QUICK, SLOW, docker, eventually, limited, ok};

pub(super) const NODES: [&str; 3] = ["node1", "node2", "node3"];
/// `HAProxy`'s service, and that of what watches all: both are in the profile of this name.
pub(super) const LB: &str = "haproxy";
const WATCH: &str = "prometheus";
const PROFILE: &str = "watch";
/// The project's name: one run at a time, since a second would take the first one's containers for its own.
const PROJECT: &str = "ringfort-xtask";
/// The network that compose makes for it.
pub(super) const NETWORK: &str = "ringfort-xtask_default";
/// Where to look for free ports.
const PORTS_FROM: u16 = 30_100;
/// For nodes to meet and to serve.
const SERVING_MAX: Duration = Duration::from_secs(90);
/// Sends a line to 127.0.0.1, by TLS if a CA's file is given, and prints the line of answer.
const SAY: &str = r#"
import socket, ssl, sys
port, line, ca = sys.argv[1:]
talk = socket.create_connection(("127.0.0.1", int(port)), timeout=60)
if ca:
    talk = ssl.create_default_context(cafile=ca).wrap_socket(talk, server_hostname="127.0.0.1")
talk.sendall(line.encode() + b"\n")
print(talk.makefile().readline().rstrip())
"#;
/// Prints whether the certificate that is shown at this port is the one in this file.
const SHOWS: &str = r#"
import ssl, sys
port, file = sys.argv[1:]
shown = ssl.get_server_certificate(("127.0.0.1", int(port)), timeout=60)
print(ssl.PEM_cert_to_DER_cert(shown) == ssl.PEM_cert_to_DER_cert(open(file).read()))
"#;

/// The project. Its containers, networks, volumes and images go when it is dropped.
pub(super) struct Cluster {
    root: PathBuf,
    keep: bool,
    /// In place of `./certs`.
    certs: PathBuf,
    /// Whether `compose.insecure.yaml` is laid over.
    is_insecure: Cell<bool>,
    /// Of each service that is published.
    ports: BTreeMap<&'static str, u16>,
    /// Container by service; those that are made anew get a new one.
    containers: RefCell<BTreeMap<&'static str, String>>,
    image: RefCell<String>,
}

impl Cluster {
    /// Nothing is started yet; what an earlier run may have left is removed.
    pub(super) fn new(root: &Path, keep: bool) -> Result<Cluster> {
        let first = (PORTS_FROM..PORTS_FROM + 1_600)
            .step_by(16)
            .find(|first| (*first..first + 16).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()))
            .context("no sixteen free ports in a row")?;
        let mut ports: BTreeMap<_, _> = NODES.into_iter().chain([LB]).zip(first..).collect();
        ports.insert(WATCH, first + 12);
        let certs = root.join("target").join("docker").join("certs");
        let _absent = fs::remove_dir_all(&certs);
        fs::create_dir_all(&certs).with_context(|| format!("can't make {}", certs.display()))?;
        let cluster = Cluster {
            root: root.to_owned(),
            keep,
            certs,
            is_insecure: Cell::default(),
            ports,
            containers: RefCell::default(),
            image: RefCell::default(),
        };
        remove_clients()?;
        cluster.compose(&["--profile", PROFILE, "down", "--volumes", "--remove-orphans"], QUICK)?;
        Ok(cluster)
    }

    fn compose(&self, arguments: &[&str], limit: Duration) -> Result<String> {
        let compose = engine::compose_command();
        let mut command = limited(&compose.get_program().to_string_lossy(), limit);
        command
            .args(compose.get_args())
            .args(["--project-name", PROJECT])
            .args(["--file", "compose.yaml"])
            .args(if self.is_insecure.get() { &["--file", "compose.insecure.yaml"][..] } else { &[] })
            .args(arguments)
            .env("CERTS_DIR", &self.certs)
            .current_dir(&self.root);
        for (service, port) in &self.ports {
            let name = if *service == LB { "LB".to_owned() } else { service.to_uppercase() };
            command.env(format!("{name}_PORT"), port.to_string());
            // Behind those for gRPC, and behind these those for HTTP.
            command.env(format!("{name}_TEXT_PORT"), (port + 4).to_string());
            command.env(format!("{name}_HTTP_PORT"), (port + 8).to_string());
        }
        ok(&mut command)
    }

    /// As the README says; waits until all nodes are healthy.
    pub(super) fn up(&self, build: bool) -> Result<()> {
        self.compose(if build { &["up", "--build", "-d"] } else { &["up", "-d"] }, SLOW)?;
        self.look_up(&NODES)?;
        let image = docker(&["inspect", "--format", "{{.Image}}", &self.container("node1")])?;
        image.trim().clone_into(&mut self.image.borrow_mut());
        self.healthy(&NODES)
    }

    /// The same with `HAProxy` and Prometheus.
    pub(super) fn up_with_lb(&self) -> Result<()> {
        self.compose(&["--profile", PROFILE, "up", "-d"], SLOW)?;
        self.look_up(&NODES)?;
        self.look_up(&[LB, WATCH])
    }

    /// What Prometheus says that a query comes to, in its own JSON.
    pub(super) fn watched(&self, query: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}/api/v1/query?query={query}", self.ports[WATCH]);
        let ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=5).read().decode())";
        ok(limited("python3", QUICK).args(["-c", ask, &url]))
    }

    /// Stops all and removes the containers, not the data.
    pub(super) fn down(&self) -> Result<()> {
        self.compose(&["--profile", PROFILE, "down"], QUICK).map(drop)
    }

    /// Throws all of it away, so that the next one is a new cluster without TLS.
    pub(super) fn begin_insecure(&self) -> Result<()> {
        self.compose(&["--profile", PROFILE, "down", "--volumes"], QUICK)?;
        self.is_insecure.set(true);
        Ok(())
    }

    /// Where the operator finds the files of TLS.
    pub(super) fn certs(&self) -> &Path {
        &self.certs
    }

    /// Makes the files of TLS that are not there, as an operator does who has taken some away.
    pub(super) fn make_certs(&self) -> Result<()> {
        self.compose(&["run", "--rm", "certs"], QUICK).map(drop)
    }

    /// Whether a node shows the certificate that is in the operator's file.
    pub(super) fn shows(&self, node: &str) -> Result<bool> {
        let (port, file) = (self.ports[node].to_string(), self.certs.join(format!("{node}.crt")));
        let said = ok(limited("python3", QUICK).args(["-c", SHOWS, &port]).arg(file))?;
        Ok(said.trim() == "True")
    }

    fn look_up(&self, services: &[&'static str]) -> Result<()> {
        for service in services {
            let id = self.compose(&["--profile", PROFILE, "ps", "-q", service], QUICK)?.trim().to_owned();
            if id.is_empty() {
                bail!("{service} has no container");
            }
            self.containers.borrow_mut().insert(service, id);
        }
        Ok(())
    }

    /// A service's container.
    pub(super) fn container(&self, service: &str) -> String {
        self.containers.borrow().get(service).cloned().unwrap_or_default()
    }

    /// The image that the nodes run.
    pub(super) fn image(&self) -> String {
        self.image.borrow().clone()
    }

    /// Waits until docker says so of all of these.
    pub(super) fn healthy(&self, nodes: &[&str]) -> Result<()> {
        eventually(&format!("healthy: {}", nodes.join(", ")), SERVING_MAX, || {
            for node in nodes {
                let health =
                    docker(&["inspect", "--format", "{{.State.Health.Status}}", &self.container(node)])?;
                if health.trim() != "healthy" {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .with_context(|| self.logs())
    }

    fn logs(&self) -> String {
        self.compose(&["logs", "--tail", "20"], QUICK).unwrap_or_default()
    }

    /// Where this machine finds these services, as `--addr` takes it.
    pub(super) fn published(&self, services: &[&str]) -> String {
        let addresses: Vec<_> =
            services.iter().map(|name| format!("127.0.0.1:{}", self.ports[name])).collect();
        addresses.join(",")
    }

    /// Sends a line to a service's published port for text, and gives the line of answer.
    pub(super) fn say(&self, service: &str, line: &str) -> Result<String> {
        let ca = self.certs.join("ca.crt");
        self.say_by(service, line, if self.is_insecure.get() { Path::new("") } else { &ca })
    }

    /// The same without TLS, whatever is spoken there.
    pub(super) fn say_plainly(&self, service: &str, line: &str) -> Result<String> {
        self.say_by(service, line, Path::new(""))
    }

    fn say_by(&self, service: &str, line: &str, ca: &Path) -> Result<String> {
        let port = self.ports.get(service).context("it is published")? + 4;
        let said = ok(limited("python3", QUICK).args(["-c", SAY, &port.to_string(), line]).arg(ca))?;
        Ok(said.trim_end().to_owned())
    }

    /// A client of the nodes' own image that knows these services and has the operator's files, to be started.
    pub(super) fn client(&self, services: &[&str], arguments: &[&str]) -> Command {
        let mut more = Vec::new();
        if !self.is_insecure.get() {
            // As whoever owns the files, since nobody else can read the key.
            let owner = fs::metadata(&self.certs).map_or((0, 0), |data| (data.uid(), data.gid()));
            more.push(format!("--user={}:{}", owner.0, owner.1));
            more.push(format!("--volume={}:/certs:ro", self.certs.display()));
            more.extend(
                [("CA", "ca.crt"), ("CERT", "admin.crt"), ("KEY", "admin.key")]
                    .map(|(name, file)| format!("--env=RINGFORT_{name}=/certs/{file}")),
            );
        }
        self.client_with(&more, services, arguments)
    }

    /// The same without any of them.
    pub(super) fn stranger(&self, services: &[&str], arguments: &[&str]) -> Command {
        self.client_with(&[], services, arguments)
    }

    fn client_with(&self, more: &[String], services: &[&str], arguments: &[&str]) -> Command {
        let mut command = limited("docker", SLOW);
        // --init, so that it ends by a signal also where it has no handler.
        command.args([
            "run",
            "--rm",
            "--init",
            "--interactive",
            "--no-healthcheck",
            "--network",
            "host",
            "--label",
            PROJECT,
        ]);
        command.args(more);
        command.args(["--env", &format!("RINGFORT_ADDR={}", self.published(services)), &self.image()]);
        command.args(arguments);
        command
    }

    /// What such a client prints, if it ends well.
    pub(super) fn ask(&self, services: &[&str], arguments: &[&str]) -> Result<String> {
        ok(&mut self.client(services, arguments))
    }

    /// What comes of a command in a node's own container.
    pub(super) fn inside(&self, node: &str, arguments: &[&str]) -> Result<Output> {
        engine::run(
            limited("docker", QUICK).args(["exec", &self.container(node), "ringfort"]).args(arguments),
        )
    }

    /// Waits until all replicas have the same rows.
    pub(super) fn agrees(&self, services: &[&str]) -> Result<()> {
        eventually("all replicas agree", SERVING_MAX, || {
            let check = engine::run(&mut self.client(services, &["check", "--timeout", "20s"]))?;
            Ok(check.status.success())
        })
    }
}

/// Clients that a story which failed has left.
fn remove_clients() -> Result<()> {
    for client in docker(&["ps", "--all", "--quiet", "--filter", &format!("label={PROJECT}")])?.lines() {
        // Gone by itself, maybe.
        let _gone = docker(&["rm", "--force", client]);
    }
    Ok(())
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let mut down = vec!["--profile", PROFILE, "down", "--volumes", "--remove-orphans", "--timeout", "10"];
        if !self.keep {
            down.extend(["--rmi", "local"]);
        }
        let removed = remove_clients().and_then(|()| self.compose(&down, 2 * QUICK));
        // Builders without BuildKit leave an image of each stage.
        let stages = ["image", "prune", "--force", "--filter", "label=org.ringfort.build=true"];
        let removed = removed.and_then(|_| if self.keep { Ok(String::new()) } else { docker(&stages) });
        let _absent = fs::remove_dir_all(&self.certs);
        if let Err(error) = removed {
            eprintln!("docker: what was made could not be removed: {error:#}");
        }
    }
}
