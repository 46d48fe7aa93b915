//! Sockets that are written to once a turn of their runtime.
//!
//! The HTTP library writes a call's headers as soon as it has them, and its message in its next turn, once the stream is open: two
//! system calls and two packets for each call, and as many wake-ups at the other end (`findings/two_writes_a_call.sh`). So a write
//! first lets all run that are ready, which add what they have to it.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use ringfort_tls::{Stream, Way};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tonic::transport::Uri;
use tower_service::Service;

/// Makes such sockets.
#[derive(Clone, Debug)]
pub(crate) struct Connector(ringfort_tls::Connector);

impl Connector {
    pub(crate) fn new(way: Way) -> Connector {
        Connector(ringfort_tls::Connector::new(way))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Gathered<Stream>>;
    type Error = <ringfort_tls::Connector as Service<Uri>>::Error;
    type Future = Pin<Box<dyn Future<Output = std::result::Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<std::result::Result<(), Self::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(TokioIo::new(Gathered::new(connecting.await?.into_inner()))) })
    }
}

/// A socket whose writes let others go first.
#[derive(Debug)]
pub(crate) struct Gathered<Socket> {
    socket: Socket,
    /// Whether others have run since something is to be written.
    is_due: bool,
}

impl<Socket> Gathered<Socket> {
    fn new(socket: Socket) -> Gathered<Socket> {
        Gathered { socket, is_due: false }
    }

    /// Ready in the second turn.
    fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_due {
            return Poll::Ready(());
        }
        self.is_due = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn written(&mut self, result: Poll<Result<usize>>) -> Poll<Result<usize>> {
        self.is_due = result.is_pending();
        result
    }
}

impl<Socket: AsyncRead + Unpin> AsyncRead for Gathered<Socket> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl<Socket: AsyncWrite + Unpin> AsyncWrite for Gathered<Socket> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        ready!(self.poll_due(cx));
        let result = Pin::new(&mut self.socket).poll_write(cx, buf);
        self.written(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        ready!(self.poll_due(cx));
        let result = Pin::new(&mut self.socket).poll_write_vectored(cx, bufs);
        self.written(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;
    use tokio::task::yield_now;
    use tonic::transport::Endpoint;

    use super::*;
    use crate::credentials::{Authorization, Authorized};
    use crate::unary::kv;

    /// Frames of HTTP/2 (RFC 9113, section 6).
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;

    /// The kinds of the frames in `bytes`, none of which is cut.
    fn kinds(mut bytes: &[u8]) -> Vec<u8> {
        let mut kinds = Vec::new();
        while let [a, b, c, kind, _flags, _, _, _, _, rest @ ..] = bytes {
            kinds.push(*kind);
            bytes = &rest[u32::from_be_bytes([0, *a, *b, *c]) as usize..];
        }
        assert!(bytes.is_empty(), "a frame is cut");
        kinds
    }

    #[tokio::test]
    async fn a_call_is_one_packet() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let call = tokio::spawn(async move {
            let channel = endpoint.connect_with_connector(Connector::new(Way::Plain)).await.unwrap();
            kv(&Authorized::new(channel, &Authorization::default()))
                .get(ringfort_proto::v1::GetRequest::default())
                .await
        });
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut preface = [0; 24];
        socket.read_exact(&mut preface).await.unwrap();
        let mut packets: Vec<Vec<u8>> = Vec::new();
        while !packets.iter().flatten().any(|kind| *kind == DATA) {
            let mut packet = vec![0; 64 * 1024];
            let bytes = socket.read(&mut packet).await.unwrap();
            packets.push(kinds(&packet[..bytes]));
        }
        let last = packets.last().unwrap();
        assert!(last.contains(&HEADERS) && last.contains(&DATA), "{packets:?}");
        assert!(packets[0].contains(&SETTINGS));
        call.abort();
    }

    #[tokio::test]
    async fn what_is_written_arrives_whole_and_in_order() {
        let (here, mut there) = tokio::io::duplex(3);
        let mut gathered = Gathered::new(here);
        let writing = tokio::spawn(async move {
            use tokio::io::AsyncWriteExt;
            gathered.write_all(b"one, two, ").await.unwrap();
            yield_now().await;
            gathered.write_all(b"three").await.unwrap();
            gathered.shutdown().await.unwrap();
        });
        let mut read = String::new();
        there.read_to_string(&mut read).await.unwrap();
        writing.await.unwrap();
        assert_eq!(read, "one, two, three");
    }
}
