//! Which cluster to talk to, and a client of it for the length of one command.
//!
//! The command itself runs on the main thread, the connections on a thread of their own: a command that blocks, on a slow
//! reader of its output, say, does not keep the connections from being served.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use clap::Args;
use ringfort_client::{Client, ClientFiles, ClientTls, Options, parse_addresses};

use crate::credentials::Asker;
use crate::runtimes::Beside;
use crate::stop::Stop;

/// Where a node listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:50051";

/// Which cluster to talk to.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// Addresses of some nodes, separated by commas; the others are learnt from them
    #[arg(long, alias = "endpoints", value_name = "HOST:PORT,…", default_value = ADDRESS_DEFAULT, value_parser = addresses)]
    addr: Addresses,
    /// How long to keep trying: 500ms, 3s, 1m
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = crate::duration::parse)]
    timeout: Duration,
    #[command(flatten)]
    tls: Tls,
    #[command(flatten)]
    asker: Asker,
}

/// How a client speaks TLS
#[derive(Args, Clone, Debug, PartialEq, Eq)]
struct Tls {
    /// Speak TLS, with nodes that have a certificate of this CA (PEM)
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The client's own certificate, which says who it is (PEM)
    #[arg(id = "own_cert", long = "cert", value_name = "FILE", requires_all = ["ca", "own_key"])]
    cert: Option<PathBuf>,
    /// The key to it
    #[arg(id = "own_key", long = "key", value_name = "FILE", requires = "own_cert")]
    key: Option<PathBuf>,
}

impl Tls {
    /// What TLS is spoken with, if it is.
    fn load(&self) -> Result<Option<ClientTls>, Stop> {
        let Some(ca) = self.ca.clone() else { return Ok(None) };
        let own = self.cert.clone().zip(self.key.clone());
        let loaded = ClientTls::load(ClientFiles { ca, own });
        loaded.map(Some).map_err(|error| Stop::usage(error.to_string()))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses(Vec<String>);

fn addresses(text: &str) -> Result<Addresses, String> {
    parse_addresses(text).map(Addresses).map_err(|failure| failure.to_string())
}

impl Connect {
    /// The client's settings.
    pub(crate) fn options(&self) -> Result<Options, Stop> {
        let mut options = self.options_of_nobody()?;
        self.asker.apply(&mut options)?;
        Ok(options)
    }

    /// The same for what nobody has to say who they are.
    pub(crate) fn options_of_nobody(&self) -> Result<Options, Stop> {
        let mut options = Options::new(self.addr.0.clone());
        options.timeout = self.timeout;
        options.tls = self.tls.load()?;
        Ok(options)
    }

    /// How long to keep trying.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }
}

/// Connects, and runs a command.
pub(crate) fn with_client<T>(
    connect: &Connect,
    command: impl AsyncFnOnce(Client) -> Result<T, Stop>,
) -> Result<T, Stop> {
    with_options(connect.options()?, command)
}

/// Connects with these settings, and runs a command.
pub(crate) fn with_options<T>(
    options: Options,
    command: impl AsyncFnOnce(Client) -> Result<T, Stop>,
) -> Result<T, Stop> {
    Beside::new()?.block_on(async { command(Client::connect(options).await?).await })
}

/// An argument's bytes: keys and values need not be UTF-8.
pub(crate) fn argument(text: &OsStr) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
