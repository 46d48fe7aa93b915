//! A node's ports, as its flags have them: who wants the same one is told which flag to change.

use std::net::SocketAddr;

use crate::config::{HttpConfig, TextConfig};
use crate::doors::{self, Ports};
use crate::{Config, StartError, exposure};

fn has_port(address: &str, port: u16) -> bool {
    address.rsplit(':').next().is_some_and(|given| given.parse() == Ok(port))
}

/// Where a node listens.
pub(crate) struct Bound {
    pub(crate) grpc: SocketAddr,
    pub(crate) text: Option<SocketAddr>,
    pub(crate) http: Option<SocketAddr>,
}

/// Binds them.
pub(crate) async fn bind(config: &Config) -> Result<(Ports, Bound), StartError> {
    // What is wrong in itself is said first, whatever else listens here.
    if let Some(text) = &config.text {
        exposure::resolve("--text-addr", &text.listen, config.is_open()).await?;
    }
    if let Some(http) = &config.http {
        exposure::resolve("--http", &http.listen, config.is_open()).await?;
    }
    let (grpc, bound) = doors::listener::bind("--addr", &config.listen, config.is_open()).await?;
    let mut bound = Bound { grpc: bound, text: None, http: None };
    let mut text = None;
    if let Some(TextConfig { listen, settings }) = &config.text {
        let binding = doors::listener::bind("--text-addr", listen, config.is_open()).await;
        let (listener, at) = binding.map_err(|error| match error {
            StartError::PortInUse { address } if has_port(&address, bound.grpc.port()) => {
                StartError::Usage(format!(
                    "--text-addr {address} is where gRPC is spoken (--addr): give the text protocol a port of its own"
                ))
            }
            other => other,
        })?;
        (text, bound.text) = (Some((listener, *settings)), Some(at));
    }
    let mut http = None;
    if let Some(HttpConfig { listen, is_optional, settings }) = &config.http {
        match doors::listener::bind("--http", listen, config.is_open()).await {
            Ok((listener, at)) => (http, bound.http) = (Some((listener, *settings)), Some(at)),
            Err(StartError::PortInUse { address }) if *is_optional => {
                tracing::info!(
                    "{address} is in use, so this node has no HTTP port: give it another one with --http"
                );
            }
            Err(StartError::PortInUse { address }) => {
                return Err(StartError::Usage(format!(
                    "--http {address} is in use: give HTTP a port of its own, or leave it out with --http \"\""
                )));
            }
            Err(other) => return Err(other),
        }
    }
    Ok((Ports { grpc, text, http, tls: None }, bound))
}
