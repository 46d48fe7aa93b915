//! Clients on a gRPC port that don't speak HTTP/2: a browser, `curl`, `telnet`, a client that insists on TLS.
//!
//! Each gets one HTTP/1.1 response with one line that says what is spoken here, and is closed. The status is 505 (HTTP Version Not
//! Supported): RFC 9110, section 15.6.6, means just this by it, with a text that says which protocols are supported. 426
//! (Upgrade Required) would have to name a protocol to upgrade to on this connection, which `h2c` no longer is (RFC 9113,
//! section 3.1), and 400 would blame a request that may be fine. Who speaks TLS could not read it, and is closed without a word.
//!
//! The response does not depend on the request, but for `HEAD`, which is answered without a body, and is sent before the
//! request is whole. So that it arrives nevertheless, we close our direction and read on for a while: closing a socket with unread
//! input makes the kernel reset the connection, and a reset may overtake what was written.
//!
//! Bounds: so many at once; beyond it they are closed unanswered. So much time and so many bytes for one.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::doors::listener::Connection;
use crate::doors::socket::TLS_HANDSHAKE;
use crate::doors::throttle::Throttle;

/// Most that are being answered.
const STRANGERS_MAX: usize = 64;
/// How long one may take to read its answer and to close.
const FAREWELL_MAX: Duration = Duration::from_secs(2);
/// Most bytes that are still read, and thrown away, so that the answer arrives.
const FAREWELL_BYTES_MAX: u64 = 1024 * 1024;

/// Those that are being answered. Dropping it closes them.
pub(crate) struct Strangers {
    packages: Arc<str>,
    answering: JoinSet<()>,
    tls: Arc<Throttle>,
}

impl Strangers {
    /// For a port with these packages.
    pub(crate) fn new(packages: &str) -> Strangers {
        Strangers {
            packages: packages.into(),
            answering: JoinSet::new(),
            tls: Throttle::new("clients tried TLS on the gRPC port, which has none,"),
        }
    }

    /// Answers one and closes it.
    pub(crate) fn take(&mut self, connection: Connection) {
        let peer = connection.peer();
        if connection.greeting().first() == Some(&TLS_HANDSHAKE) {
            self.tls.warn(|| {
                format!("{peer} tried TLS, which this port does not speak: let the client connect without (plaintext), or start the node with --tls-cert")
            });
            return;
        }
        while self.answering.try_join_next().is_some() {}
        if self.answering.len() >= STRANGERS_MAX {
            return;
        }
        tracing::debug!("{peer} speaks no HTTP/2");
        let packages = self.packages.clone();
        self.answering.spawn(async move {
            let _gone = tokio::time::timeout(FAREWELL_MAX, answer(connection, &packages)).await;
        });
    }
}

async fn answer(mut connection: Connection, packages: &str) -> io::Result<()> {
    let here = connection.local().map_or_else(|| "HOST:PORT".into(), |at| at.to_string());
    let wants_no_body = connection.greeting().starts_with(b"HEAD ");
    connection.write_all(response(packages, &here, wants_no_body).as_bytes()).await?;
    connection.shutdown().await?;
    tokio::io::copy(&mut connection.take(FAREWELL_BYTES_MAX), &mut tokio::io::sink()).await?;
    Ok(())
}

fn response(packages: &str, here: &str, wants_no_body: bool) -> String {
    let body = format!(
        "This port speaks gRPC (HTTP/2 without TLS, packages {packages}): try `ringfort status --addr {here}` or \
         `grpcurl -plaintext {here} list`.\n"
    );
    let head = format!(
        "HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    if wants_no_body { head } else { head + &body }
}
