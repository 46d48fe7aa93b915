//! A client's socket, with TLS or without, that can be given to another runtime.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringfort_tls::{Certified, explained};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// TLS's record type of a handshake, which is how a `ClientHello` begins: no text and no other protocol's greeting.
pub(crate) const TLS_HANDSHAKE: u8 = 0x16;

/// One of the two.
#[derive(Debug)]
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<Movable>>),
}

/// A socket below TLS. It is away only while it is moved.
#[derive(Debug)]
pub(crate) struct Movable(Option<TcpStream>);

impl Movable {
    fn there(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        self.get_mut().0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Socket {
    /// Greets a client that begins TLS, and reads its certificate. If that fails, the client has been told why, and its connection is to be closed.
    pub(crate) async fn guarded(
        stream: TcpStream,
        config: Arc<ServerConfig>,
    ) -> Result<Socket, (io::Error, Option<TcpStream>)> {
        let made = TlsAcceptor::from(config).accept(Movable(Some(stream))).into_fallible().await;
        made.map(|stream| Socket::Tls(Box::new(stream)))
            .map_err(|(error, Movable(socket))| (explained(error), socket))
    }

    /// Whom the certificate names that the client has shown, if it has.
    pub(crate) fn certified(&self) -> Option<Certified> {
        let Socket::Tls(stream) = self else { return None };
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first)?;
        Some(Certified::of(shown))
    }

    /// Where it was made to.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        match self {
            Socket::Plain(stream) => stream.local_addr().ok(),
            Socket::Tls(stream) => stream.get_ref().0.0.as_ref()?.local_addr().ok(),
        }
    }

    /// Registers it with this runtime.
    pub(crate) fn to(self, runtime: &Handle) -> io::Result<Socket> {
        let registered = |stream: TcpStream| {
            let socket = stream.into_std()?;
            let _there = runtime.enter();
            TcpStream::from_std(socket)
        };
        Ok(match self {
            Socket::Plain(stream) => Socket::Plain(registered(stream)?),
            Socket::Tls(mut stream) => {
                let Movable(socket) = stream.get_mut().0;
                *socket = socket.take().map(registered).transpose()?;
                Socket::Tls(stream)
            }
        })
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Socket::Tls(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Socket::Tls(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Socket::Plain(stream) => stream.is_write_vectored(),
            Socket::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Socket::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Socket::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Movable {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.there()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for Movable {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.there()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.there()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.there()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.there()?.poll_shutdown(cx)
    }
}
