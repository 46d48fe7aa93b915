//! TLS on a port: whom connections are taken from, and how much of greeting them is done at a time.
//!
//! A handshake costs about a millisecond of processor, and the connection of somebody who only begins one costs its place. So there are
//! [`HANDSHAKES_MAX`] at a time at a port, [`HANDSHAKES_OF_ADDRESS_MAX`] of them from one address, each with [`HANDSHAKE_MS`]; who
//! comes later waits, within the time that a greeting may take. Nobody begins before something has been said.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ringfort_tls::{NodeTls, Protocol};
use ringfort_types::limits::{HANDSHAKE_MS, HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::doors::socket::{Socket, TLS_HANDSHAKE};
use crate::doors::throttle::Throttle;
use crate::metrics::Handshakes;

/// How long whoever is not let in may take to read why, and how much is still read of it.
const FAREWELL_MAX: Duration = Duration::from_millis(500);
const FAREWELL_BYTES_MAX: u64 = 64 * 1024;

/// What makes sockets of connections at one port. A clone counts the same handshakes.
#[derive(Clone, Debug)]
pub(crate) struct Guard(Arc<AtPort>);

#[derive(Debug)]
struct AtPort {
    tls: NodeTls,
    protocol: Protocol,
    /// What somebody is told who begins without TLS.
    without_tls: &'static [u8],
    free: Arc<Semaphore>,
    of_addresses: Mutex<BTreeMap<IpAddr, Arc<Semaphore>>>,
    handshakes: Arc<Handshakes>,
    failed: Arc<Throttle>,
}

/// A handshake that may go on.
struct Turn<'a> {
    at: &'a AtPort,
    address: IpAddr,
    of_address: Option<OwnedSemaphorePermit>,
    of_port: Option<OwnedSemaphorePermit>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        (self.of_address, self.of_port) = (None, None);
        let mut all = self.at.of_addresses.lock().unwrap_or_else(PoisonError::into_inner);
        // Who waits has it, too.
        if all.get(&self.address).is_some_and(|one| Arc::strong_count(one) == 1) {
            all.remove(&self.address);
        }
    }
}

impl Guard {
    pub(crate) fn new(
        door: &'static str,
        tls: NodeTls,
        protocol: Protocol,
        without_tls: &'static [u8],
        handshakes: Arc<Handshakes>,
    ) -> Guard {
        Guard(Arc::new(AtPort {
            tls,
            protocol,
            without_tls,
            free: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            of_addresses: Mutex::default(),
            handshakes,
            failed: Throttle::new(format!("handshakes failed on the {door} port")),
        }))
    }

    /// Greets a client. An error that is said already is none of the log's.
    pub(crate) async fn greet(&self, mut stream: TcpStream, peer: SocketAddr) -> io::Result<Socket> {
        let mut first = [0];
        if stream.peek(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let made = if first[0] == TLS_HANDSHAKE {
            let turn = self.0.turn(peer.ip()).await;
            let config = self.0.tls.server(self.0.protocol);
            let making = Socket::guarded(stream, config);
            let made = timeout(Duration::from_millis(HANDSHAKE_MS), making).await;
            drop(turn);
            match made {
                Ok(Ok(socket)) => Ok(socket),
                Ok(Err((error, socket))) => {
                    if let Some(socket) = socket {
                        close(socket).await;
                    }
                    Err(error)
                }
                Err(_late) => Err(io::Error::other("it takes too long")),
            }
        } else {
            // Who writes on may see the end of the connection only.
            let _gone = stream.write_all(self.0.without_tls).await;
            close(stream).await;
            Err(io::Error::other("it speaks no TLS, which is needed here"))
        };
        match &made {
            Ok(_) => self.0.handshakes.done.add(1),
            Err(error) => {
                self.0.handshakes.failed.add(1);
                self.0.failed.warn(|| format!("{peer} is not let in: {error}"));
            }
        }
        made
    }
}

/// Closes a connection so that its client can read what it was told last: closing one with unread input resets it, and the reset may overtake that.
async fn close(mut stream: TcpStream) {
    let _gone = stream.shutdown().await;
    let mut rest = stream.take(FAREWELL_BYTES_MAX);
    let _longer = timeout(FAREWELL_MAX, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
}

impl AtPort {
    async fn turn(&self, address: IpAddr) -> Turn<'_> {
        let one = {
            let mut all = self.of_addresses.lock().unwrap_or_else(PoisonError::into_inner);
            let one =
                all.entry(address).or_insert_with(|| Arc::new(Semaphore::new(HANDSHAKES_OF_ADDRESS_MAX)));
            one.clone()
        };
        // First, so that whoever gives up while it waits leaves nothing.
        let mut turn = Turn { at: self, address, of_address: None, of_port: None };
        turn.of_address = one.acquire_owned().await.ok();
        turn.of_port = self.free.clone().acquire_owned().await.ok();
        turn
    }
}

#[cfg(test)]
mod tests;
