//! Responses that are streams of gRPC messages, and whose bodies are made here.
//!
//! tonic (0.14.9) makes all messages of a stream in one buffer, which it keeps as large as the largest of them for as long as the stream
//! is open, long after the client has that message (`findings/tonic_last_message.sh`). So a service that streams gives tonic nothing
//! ([`Elsewhere`]), and the response goes with a body of frames, each of which is in memory only until the HTTP/2 library has sent it.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Response};
use http_body::Frame;
use prost::Message;
use tokio_stream::Stream;
use tonic::Status;
use tonic::body::Body;

/// What tonic is given instead of the messages.
pub(super) type Elsewhere<M> = tokio_stream::Empty<Result<M, Status>>;

/// The body that takes the place of tonic's.
#[derive(Clone)]
struct Made(Arc<Mutex<Option<Body>>>);

/// A response of these frames: any number of whole messages, in pieces of any size.
pub(super) fn response<M>(
    frames: impl Stream<Item = Result<Bytes, Status>> + Send + 'static,
) -> tonic::Response<Elsewhere<M>> {
    let body = Body::new(StreamBody { frames: Some(Box::pin(frames)) });
    let mut response = tonic::Response::new(tokio_stream::empty());
    response.extensions_mut().insert(Made(Arc::new(Mutex::new(Some(body)))));
    response
}

/// Gives a response the body that was made for it, if one was.
pub(super) fn put_body(response: &mut Response<Body>) {
    let made = response.extensions_mut().remove::<Made>();
    let body = made.and_then(|Made(body)| body.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(body) = body {
        *response.body_mut() = body;
    }
}

/// Adds a message as gRPC sends it: whether it is compressed, its length, and itself ("Length-Prefixed-Message" of gRPC over HTTP/2).
pub(super) fn put_message(message: &impl Message, buffer: &mut BytesMut) {
    let length = message.encoded_len();
    buffer.reserve(1 + 4 + length);
    buffer.put_u8(0);
    buffer.put_u32(length as u32);
    message.encode(buffer).expect("there is room for it");
}

/// Such a message by itself.
pub(super) fn frame_of(message: &impl Message) -> Bytes {
    let mut buffer = BytesMut::new();
    put_message(message, &mut buffer);
    buffer.freeze()
}

/// Frames, and then the status.
struct StreamBody<S> {
    /// Nothing once the status is told.
    frames: Option<Pin<Box<S>>>,
}

impl<S: Stream<Item = Result<Bytes, Status>>> http_body::Body for StreamBody<S> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(frames) = &mut self.frames else { return Poll::Ready(None) };
        let status = match ready!(frames.as_mut().poll_next(cx)) {
            Some(Ok(frame)) => return Poll::Ready(Some(Ok(Frame::data(frame)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.frames = None;
        let mut trailers = HeaderMap::new();
        Poll::Ready(Some(status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))))
    }
}
