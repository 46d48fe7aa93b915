//! Protobuf in buffers that fit.
//!
//! tonic's own codec (0.14) begins with a buffer of 8 KiB for each message of a call in each direction, and whoever keeps a value out of a
//! message keeps that buffer. Most messages are much smaller: here a buffer begins small, and grows at once to what a message takes.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

/// What a buffer begins with: enough for most messages of a call, and for a stream's, whose buffer is made anew again and again, not so little
/// that each of them grows it twice.
const FIRST_BYTES: usize = 2048;
/// Messages of a stream that wait together share a buffer, until it has so many bytes.
const TOGETHER_BYTES: usize = 32 * 1024;

fn buffers() -> BufferSettings {
    BufferSettings::new(FIRST_BYTES, TOGETHER_BYTES)
}

/// Protobuf, with buffers as large as needed.
#[derive(Debug)]
pub struct FittingCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for FittingCodec<T, U> {
    fn default() -> FittingCodec<T, U> {
        FittingCodec(PhantomData)
    }
}

impl<T, U> Codec for FittingCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = FittingEncoder<T>;
    type Decoder = FittingDecoder<U>;

    fn encoder(&mut self) -> FittingEncoder<T> {
        FittingEncoder(PhantomData)
    }

    fn decoder(&mut self) -> FittingDecoder<U> {
        FittingDecoder(PhantomData)
    }
}

/// The half of [`FittingCodec`] that sends.
#[derive(Debug)]
pub struct FittingEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for FittingEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).expect("there is room for it");
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

/// The half of [`FittingCodec`] that receives.
#[derive(Debug)]
pub struct FittingDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for FittingDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = U::decode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        buffers()
    }
}

#[cfg(test)]
mod tests {
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use bytes::Bytes;
    use http_body::{Body, Frame};
    use tonic::codec::{EncodeBody, Streaming};
    use tonic::codegen::tokio_stream::{self, Stream};

    use super::*;
    use crate::v1::PutRequest;

    type Sent = Result<PutRequest, Status>;

    fn put(bytes: usize) -> PutRequest {
        PutRequest { key: "key".into(), value: vec![7; bytes].into(), ..PutRequest::default() }
    }

    fn ready<T>(poll: Poll<T>) -> T {
        let Poll::Ready(ready) = poll else { panic!("nothing has to be waited for") };
        ready
    }

    fn sent(message: PutRequest) -> Bytes {
        let encoder = FittingEncoder(PhantomData);
        let body = EncodeBody::new_client(encoder, tokio_stream::once(Sent::Ok(message)), None, None);
        let frame = ready(pin!(body).poll_frame(&mut Context::from_waker(Waker::noop())));
        frame.unwrap().unwrap().into_data().unwrap()
    }

    /// A message that comes in these pieces.
    struct Pieces(std::vec::IntoIter<Bytes>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Status;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(piece))))
        }
    }

    fn received(pieces: Vec<Bytes>) -> PutRequest {
        let decoder = FittingDecoder::<PutRequest>(PhantomData);
        let mut messages =
            pin!(Streaming::new_request(decoder, Pieces(pieces.into_iter()), None, Some(1 << 20)));
        let message = messages.as_mut().poll_next(&mut Context::from_waker(Waker::noop()));
        ready(message).unwrap().unwrap()
    }

    #[test]
    fn messages_come_back_from_whatever_pieces_they_come_in() {
        for bytes in [0, 1, 100, FIRST_BYTES, 70_000] {
            let all = sent(put(bytes));
            for piece_bytes in [1, 7, 1_000, all.len()] {
                let pieces = all.chunks(piece_bytes).map(Bytes::copy_from_slice).collect();
                assert_eq!(received(pieces), put(bytes), "{bytes} bytes in pieces of {piece_bytes}");
            }
        }
    }

    #[test]
    fn who_keeps_a_value_keeps_little_more() {
        for bytes in [10, 100, 5_000, 70_000] {
            let value = received(vec![sent(put(bytes))]).value;
            let kept = value.try_into_mut().expect("nobody else has it").capacity();
            // A buffer that grows may double.
            assert!(kept <= 2 * bytes + FIRST_BYTES, "{kept} for {bytes}");
        }
    }
}
