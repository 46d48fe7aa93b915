//! The one port: where connections come in, what they may cost, and which services they find.
//!
//! Bounds (PITFALLS 21, 22): so many connections, beyond which new ones are closed at once and nobody else
//! notices; HTTP/2's greeting within [`HANDSHAKE_MAX`]; so many streams, header bytes and resets a connection, which
//! `h2` enforces with GOAWAY; pings, so that a vanished client's connection goes too.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use crate::{StartError, exposure};

/// HTTP/2 flow control: bytes under way on one stream, and on one connection. Fixed, so that one stream's
/// throughput does not depend on a probe; wide, so that a frame of requests does not wait for an update.
pub(crate) const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
pub(crate) const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Most connections at once.
const CONNECTIONS_MAX: usize = 4096;
/// Streams (calls) at once on one connection.
pub(crate) const STREAMS_MAX: u32 = 1024;
/// Bytes of headers that one call may bring.
pub(crate) const HEADER_BYTES_MAX: u32 = 16 * 1024;
/// Resets that a connection may have unprocessed, and cause by its own errors, before it is closed.
pub(crate) const RESETS_MAX: usize = 256;
/// A client's connection that is silent this long is asked whether it lives, and then has so long to answer.
pub(crate) const PING_EVERY: Duration = Duration::from_secs(20);
pub(crate) const PING_MAX: Duration = Duration::from_secs(10);
/// A connection must have greeted within this time: HTTP/2's preface and the header of its first frame.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
const GREETING_BYTES: usize = 24 + 9;
/// How long to wait when the operating system has no descriptor for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds the address that `flag` says, or says why that can't be.
pub(crate) async fn bind(
    flag: &'static str,
    address: &str,
    insecure: bool,
) -> Result<TcpListener, StartError> {
    let resolved = exposure::resolve(flag, address, insecure).await?;
    TcpListener::bind(resolved).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => StartError::PortInUse { address: address.to_owned() },
        _ => StartError::Listen { address: address.to_owned(), source },
    })
}

/// Connections as they come in, within the bounds.
pub(crate) struct Incoming {
    listener: TcpListener,
    places: Arc<Semaphore>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    pub(crate) fn new(listener: TcpListener) -> Incoming {
        Incoming { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)), pause: None }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            let (stream, peer) = match std::task::ready!(self.listener.poll_accept(cx)) {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("can't accept a connection: {error}");
                    self.pause = Some(Box::pin(tokio::time::sleep(EXHAUSTED_PAUSE)));
                    continue;
                }
            };
            let Ok(place) = self.places.clone().try_acquire_owned() else {
                tracing::warn!("{peer} is turned away: {CONNECTIONS_MAX} connections are open");
                continue;
            };
            let _slower_without = stream.set_nodelay(true);
            return Poll::Ready(Some(Ok(Connection::new(stream, peer, place))));
        }
    }
}

/// One connection, which holds its place until it closes.
pub(crate) struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    /// Until it has greeted.
    silent: Option<Pin<Box<Sleep>>>,
    greeted_bytes: usize,
    _place: OwnedSemaphorePermit,
}

impl Connection {
    fn new(stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit) -> Connection {
        let silent = Some(Box::pin(tokio::time::sleep(HANDSHAKE_MAX)));
        Connection { stream, peer, silent, greeted_bytes: 0, _place: place }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        TcpConnectInfo { local_addr: self.stream.local_addr().ok(), remote_addr: Some(self.peer) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.greeted_bytes += buf.filled().len() - before;
        let greeted = self.greeted_bytes >= GREETING_BYTES;
        if let Some(silent) = &mut self.silent {
            if greeted {
                self.silent = None;
            } else if silent.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
