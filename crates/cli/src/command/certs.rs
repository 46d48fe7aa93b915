//! `ringfort certs init|node|client`
//!
//! A CA and certificates for those who have none. Whoever has a CA of their own needs none of this: a node's certificate has to have the
//! alternative name that `ringfort_tls::node_uri` says, and a user's the user as its common name.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose as Purpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose as Usage, SanType,
};
use ringfort_tls::node_uri;
use ringfort_types::is_name;
use time::{Duration, OffsetDateTime};

use crate::json::Object;
use crate::out::{self, Output};
use crate::stop::Stop;

/// Where the files go if nobody says otherwise.
const DIRECTORY: &str = "certs";
/// How far back certificates hold, for clocks that are behind.
const BACK: Duration = Duration::hours(1);
/// The longest that one may hold.
const DAYS_MAX: u32 = 36_500;

/// Make a CA, and certificates for nodes and users, for those who have none
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort certs init\n  ringfort certs node node1 --host node1.example.com,10.0.0.1\n  \
    ringfort certs client alice\n\n\
    Files go into --dir: ca.crt and ca.key, and NAME.crt and NAME.key for each node and user. Keys can be read by their owner only. What is there is \
    never overwritten.\n\n\
    Every node gets ca.crt and its own two files (`ringfort start --tls-ca ca.crt --tls-cert node1.crt --tls-key node1.key`), every user ca.crt and theirs \
    (`--ca ca.crt --cert alice.crt --key alice.key`, or RINGFORT_CA, RINGFORT_CERT, RINGFORT_KEY). ca.key makes new ones: keep it where no node is.\n\n\
    A node's certificate names the node, the hosts given, and localhost. Clients look at the host, other nodes at the node's name. One CA for each cluster: \
    whoever has a node's certificate of it may be that node.\n\n\
    JSON, one object: certificate, key (the files), name, days."
)]
pub(crate) struct Certs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Make a CA
    Init(Init),
    /// Make a node's certificate
    Node(Node),
    /// Make a user's certificate
    Client(Client),
}

#[derive(Args, Debug)]
struct Init {
    /// For how many days it holds
    #[arg(long, value_name = "N", default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
    #[command(flatten)]
    files: Files,
}

#[derive(Args, Debug)]
struct Node {
    /// The node's name: what `ringfort start --id` says
    #[arg(value_name = "NAME")]
    name: String,
    /// Names and addresses under which clients find it, separated by commas
    #[arg(long, value_name = "HOST,…", value_delimiter = ',', required = true)]
    host: Vec<String>,
    #[command(flatten)]
    days: Days,
    #[command(flatten)]
    files: Files,
}

#[derive(Args, Debug)]
struct Client {
    /// The user's name
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    days: Days,
    #[command(flatten)]
    files: Files,
}

#[derive(Args, Debug)]
struct Days {
    /// For how many days it holds
    #[arg(long, value_name = "N", default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=i64::from(DAYS_MAX)))]
    days: u32,
}

#[derive(Args, Debug)]
struct Files {
    /// Where the files are and go
    #[arg(long, value_name = "DIR", default_value = DIRECTORY)]
    dir: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(asked: &Certs) -> Result<(), Stop> {
    match &asked.what {
        What::Init(init) => make_ca(init),
        What::Node(node) => {
            check_name(&node.name)?;
            let mut params = params(&node.name, node.days.days)?;
            params.extended_key_usages = vec![Purpose::ServerAuth, Purpose::ClientAuth];
            let unfit = |_| Stop::usage(format!("{} can't stand in a certificate", node.name));
            params.subject_alt_names = vec![SanType::URI(node_uri(&node.name).try_into().map_err(unfit)?)];
            let local = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
            for host in node.host.iter().chain(local.iter().filter(|one| !node.host.contains(one))) {
                params.subject_alt_names.push(host_name(host)?);
            }
            let hosts = node.host.join(", ");
            let what = format!("the certificate of the node {}, found at {hosts} and localhost", node.name);
            issue(&node.name, &params, node.days.days, &node.files, &what)
        }
        What::Client(client) => {
            check_name(&client.name)?;
            let mut params = params(&client.name, client.days.days)?;
            params.extended_key_usages = vec![Purpose::ClientAuth];
            let what = format!("the certificate of the user {}", client.name);
            issue(&client.name, &params, client.days.days, &client.files, &what)
        }
    }
}

fn check_name(name: &str) -> Result<(), Stop> {
    if is_name(name) && name != "ca" {
        return Ok(());
    }
    Err(Stop::usage(format!(
        "{name:?} is not a name for a node or a user: use 1 to 64 letters, digits, '-', '_' or '.', and not ca"
    )))
}

fn host_name(host: &str) -> Result<SanType, Stop> {
    if let Ok(address) = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SanType::IpAddress(address));
    }
    let is_host = |host: &str| {
        !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-._*".contains(c))
    };
    let wrong = || Stop::usage(format!("--host {host}: give a host's name or address, without a port"));
    if !is_host(host) {
        return Err(wrong());
    }
    host.try_into().map(SanType::DnsName).map_err(|_| wrong())
}

/// What all have in common.
fn params(name: &str, days: u32) -> Result<CertificateParams, Stop> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = OffsetDateTime::now_utc();
    params.not_before = now - BACK;
    params.not_after = now + Duration::days(days.into());
    params.key_usages = vec![Usage::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial)
        .map_err(|error| Stop::unavailable(format!("can't draw a number: {error}")))?;
    // Positive, whatever is drawn.
    serial[0] &= 0x7f;
    params.serial_number = Some(serial.to_vec().into());
    Ok(params)
}

fn make_ca(init: &Init) -> Result<(), Stop> {
    let mut params = params("", init.days)?;
    // A name of its own, so that two CAs are not taken for one.
    let number = params.serial_number.as_ref().map_or_else(Vec::new, rcgen::SerialNumber::to_bytes);
    let mut name = "Ringfort CA ".to_owned();
    for byte in number.iter().take(4) {
        write!(name, "{byte:02x}").expect("a string takes it");
    }
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, &name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![Usage::KeyCertSign, Usage::CrlSign, Usage::DigitalSignature];
    params.use_authority_key_identifier_extension = false;
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let dir = &init.files.dir;
    std::fs::create_dir_all(dir)
        .map_err(|error| Stop::usage(format!("can't make {}: {error}", dir.display())))?;
    let what = "a CA. Keep its key where no node is; nodes and clients get the certificate";
    keep(("ca", &name), init.days, &init.files, (&certificate.pem(), &key.serialize_pem()), what)
}

fn issue(name: &str, params: &CertificateParams, days: u32, files: &Files, what: &str) -> Result<(), Stop> {
    let (certificate, key) = (files.dir.join("ca.crt"), files.dir.join("ca.key"));
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| {
            let dir = files.dir.display();
            Stop::usage(format!(
                "can't read {}: {error}; make a CA with `ringfort certs init --dir {dir}`",
                path.display()
            ))
        })
    };
    let wrong = |path: &Path| {
        let path = path.display().to_string();
        move |error: rcgen::Error| Stop::usage(format!("{path} can't be used: {error}"))
    };
    let ca_key = KeyPair::from_pem(&read(&key)?).map_err(wrong(&key))?;
    let issuer = Issuer::from_ca_cert_pem(&read(&certificate)?, ca_key).map_err(wrong(&certificate))?;
    let own = KeyPair::generate().map_err(failed)?;
    let signed = params.signed_by(&own, &issuer).map_err(failed)?;
    keep((name, name), days, files, (&signed.pem(), &own.serialize_pem()), what)
}

#[expect(clippy::needless_pass_by_value, reason = "as map_err gives it")]
fn failed(error: rcgen::Error) -> Stop {
    Stop::unavailable(format!("can't make a certificate: {error}"))
}

/// Writes both files, or neither, and says so.
fn keep(
    (file, name): (&str, &str),
    days: u32,
    files: &Files,
    (certificate, key): (&str, &str),
    what: &str,
) -> Result<(), Stop> {
    let place = |ending: &str| files.dir.join(format!("{file}.{ending}"));
    let (certificate_at, key_at) = (place("crt"), place("key"));
    write_new(&key_at, key, 0o600)?;
    write_new(&certificate_at, certificate, 0o644).inspect_err(|_| {
        let _left = std::fs::remove_file(&key_at);
    })?;
    if files.output.json {
        let object = Object::new()
            .field("certificate", certificate_at.display().to_string())
            .field("key", key_at.display().to_string());
        return out::line(object.field("name", name).field("days", days).finish());
    }
    out::line(format!(
        "{} and {}: {what}; it holds for {days} days",
        certificate_at.display(),
        key_at.display()
    ))
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Stop> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => Stop::usage(format!(
            "{} is there already, and is never overwritten: move it away, or choose another --dir",
            path.display()
        )),
        _ => Stop::usage(format!("can't write {}: {error}", path.display())),
    })
}
