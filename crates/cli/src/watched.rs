//! The flags of `start` that are about those who watch the node.

use clap::Args;
use ringfort_server::{HttpConfig, HttpSettings};

/// Where those who watch the node are answered, unless another one there is.
const HTTP_DEFAULT: &str = "127.0.0.1:8080";

/// The port for those who watch the node.
#[derive(Args, Debug)]
pub(crate) struct Watched {
    /// Where to answer those who watch this node, by HTTP: /healthz, /readyz, /metrics, /debug/state; `off` for nowhere [default: 127.0.0.1:8080, if it is free]
    #[arg(long, value_name = "HOST:PORT")]
    http: Option<String>,
    /// Show metrics of each shard there, too: six series for each replica
    #[arg(long)]
    metrics_per_shard: bool,
}

impl Watched {
    /// The port, if there is to be one. An empty address is how scripts say that there is none.
    pub(crate) fn http(&self) -> Option<HttpConfig> {
        let settings = HttpSettings { metrics_per_shard: self.metrics_per_shard };
        let at = |listen: &str, is_optional| HttpConfig { listen: listen.to_owned(), is_optional, settings };
        match self.http.as_deref() {
            None => Some(at(HTTP_DEFAULT, true)),
            Some("" | "off") => None,
            Some(listen) => Some(at(listen, false)),
        }
    }
}
