//! Makes connections to nodes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::Uri;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use tower_service::Service;

use crate::{ClientTls, NodeTls, Stream};

/// What a connection is made with.
#[derive(Clone, Debug)]
pub enum Way {
    /// Without TLS.
    Plain,
    /// As a client, with a node that has a certificate for the name or address that it is asked under.
    Client(ClientTls),
    /// As a node, with the node of this name, or whichever it is.
    Peer(NodeTls, Option<String>),
}

impl Way {
    /// What addresses of nodes begin with.
    pub fn scheme(&self) -> &'static str {
        if matches!(self, Way::Plain) { "http" } else { "https" }
    }
}

/// Makes them this way.
#[derive(Clone, Debug)]
pub struct Connector {
    tcp: HttpConnector,
    way: Way,
}

impl Connector {
    /// For this way.
    pub fn new(way: Way) -> Connector {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.enforce_http(false);
        Connector { tcp, way }
    }
}

/// Why there is no connection.
type Why = Box<dyn std::error::Error + Send + Sync>;

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = Why;
    type Future = Pin<Box<dyn Future<Output = Result<TokioIo<Stream>, Why>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Why>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.tcp.call(uri.clone());
        let way = self.way.clone();
        Box::pin(async move {
            let socket = connecting.await?.into_inner();
            let host = uri.host().unwrap_or_default();
            let stream = match way {
                Way::Plain => Stream::Plain(socket),
                Way::Client(tls) => {
                    let name = uri.authority().and_then(|address| tls.name_of(address.as_str()));
                    Stream::guarded(socket, tls.config(), name.as_deref().unwrap_or(host)).await?
                }
                Way::Peer(tls, wanted) => {
                    let stream = Stream::guarded(socket, tls.peer(), host).await?;
                    let found = stream.certified().node.unwrap_or_default();
                    if wanted.is_some_and(|wanted| wanted != found) {
                        return Err(io::Error::new(
                            io::ErrorKind::PermissionDenied,
                            format!("its certificate is that of the node {found}, which is another one"),
                        )
                        .into());
                    }
                    stream
                }
            };
            Ok(TokioIo::new(stream))
        })
    }
}
