//! The messages whose parts are many and small, decoded by hand for one reason: their bounds.
//!
//! An empty request takes two bytes on the wire and a hundred in memory. A frame of the size that a large value
//! needs could ask for a gigabyte; so the requests of a frame are counted while they are decoded, and with them the
//! parts of atomic writes and the keys that are read at once, and the frame is refused as soon as there are too many.
//! Otherwise this is what `prost` would have generated.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType, int32, message, skip_field, uint32};
use prost::{DecodeError, Message};
use ringfort_types::limits::{CONNECTION_REQUESTS_MAX, GET_MANY_KEYS_MAX, WRITE_PARTS_MAX};

use crate::v1::session_op::Request;
use crate::v1::{SessionOp, SessionStamp, WritePart};

/// Most requests in one frame, parts and keys of one request included: so many that a full session can still take
/// one whole.
pub const FRAME_OPS_MAX: usize = 2 * CONNECTION_REQUESTS_MAX;
const OPS: u32 = 1;
const PARTS: u32 = 1;
const STAMP: u32 = 3;
const COPIES: u32 = 5;
const KEYS: u32 = 1;
const CONSISTENCY: u32 = 2;

/// One frame of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionRequest {
    /// In order. At most [`FRAME_OPS_MAX`].
    pub ops: Vec<SessionOp>,
    /// Those, and the parts and keys in them.
    items: usize,
}

impl From<Vec<SessionOp>> for SessionRequest {
    fn from(ops: Vec<SessionOp>) -> SessionRequest {
        let items = ops.iter().map(items).sum();
        SessionRequest { ops, items }
    }
}

fn items(op: &SessionOp) -> usize {
    1 + match &op.request {
        Some(Request::Write(write)) => write.parts.len(),
        Some(Request::GetMany(many)) => many.keys.len(),
        _ => 0,
    }
}

fn too_many(what: &'static str) -> DecodeError {
    #[expect(deprecated, reason = "prost has no other way yet to say that a message is not acceptable")]
    DecodeError::new(what)
}

impl Message for SessionRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(OPS, &self.ops, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if tag != OPS {
            return skip_field(wire_type, tag, buf, ctx);
        }
        if self.items >= FRAME_OPS_MAX {
            return Err(too_many("too many requests in one frame"));
        }
        message::merge_repeated(wire_type, &mut self.ops, buf, ctx)?;
        self.items += self.ops.last().map_or(0, items);
        Ok(())
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(OPS, &self.ops)
    }

    fn clear(&mut self) {
        *self = SessionRequest::default();
    }
}

/// An atomic write.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WriteRequest {
    /// At most [`WRITE_PARTS_MAX`].
    pub parts: Vec<WritePart>,
    /// Its place in a session, if it has one.
    pub stamp: Option<SessionStamp>,
    /// How many replicas are to have it on disk before it is acknowledged; 0 for a majority.
    pub copies: u32,
}

impl Message for WriteRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(PARTS, &self.parts, buf);
        if let Some(stamp) = &self.stamp {
            message::encode(STAMP, stamp, buf);
        }
        if self.copies != 0 {
            uint32::encode(COPIES, &self.copies, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            PARTS if self.parts.len() == WRITE_PARTS_MAX => {
                Err(too_many("too many parts in an atomic write: the limit is 1024"))
            }
            PARTS => message::merge_repeated(wire_type, &mut self.parts, buf, ctx),
            STAMP => message::merge(wire_type, self.stamp.get_or_insert_default(), buf, ctx),
            COPIES => uint32::merge(wire_type, &mut self.copies, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(PARTS, &self.parts)
            + self.stamp.as_ref().map_or(0, |stamp| message::encoded_len(STAMP, stamp))
            + if self.copies == 0 { 0 } else { uint32::encoded_len(COPIES, &self.copies) }
    }

    fn clear(&mut self) {
        *self = WriteRequest::default();
    }
}

/// A question for several keys.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GetManyRequest {
    /// At most [`GET_MANY_KEYS_MAX`].
    pub keys: Vec<Bytes>,
    /// How fresh the answer has to be: a [`Consistency`](crate::v1::Consistency).
    pub consistency: i32,
}

impl Message for GetManyRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::bytes::encode_repeated(KEYS, &self.keys, buf);
        if self.consistency != 0 {
            int32::encode(CONSISTENCY, &self.consistency, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            KEYS if self.keys.len() == GET_MANY_KEYS_MAX => {
                Err(too_many("too many keys to read at once: the limit is 1024"))
            }
            KEYS => encoding::bytes::merge_repeated(wire_type, &mut self.keys, buf, ctx),
            CONSISTENCY => int32::merge(wire_type, &mut self.consistency, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let consistency = self.consistency;
        encoding::bytes::encoded_len_repeated(KEYS, &self.keys)
            + if consistency == 0 { 0 } else { int32::encoded_len(CONSISTENCY, &consistency) }
    }

    fn clear(&mut self) {
        *self = GetManyRequest::default();
    }
}

const _: () = assert!(WRITE_PARTS_MAX == 1024 && GET_MANY_KEYS_MAX == 1024, "as the refusals say");

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_frame_round_trips_and_skips_what_it_does_not_know() {
        let frame = SessionRequest::from(vec![SessionOp { id: 7, ..SessionOp::default() }; 3]);
        let mut bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        bytes.extend([0x12, 0x01, 0xff]);
        assert_eq!(SessionRequest::decode(Bytes::from(bytes)).unwrap(), frame);
    }

    #[test]
    fn a_frame_of_too_many_empty_requests_is_refused() {
        let most = [0x0a, 0x00].repeat(FRAME_OPS_MAX);
        assert_eq!(SessionRequest::decode(Bytes::from(most)).unwrap().ops.len(), FRAME_OPS_MAX);
        let more = [0x0a, 0x00].repeat(FRAME_OPS_MAX + 1);
        assert!(SessionRequest::decode(Bytes::from(more)).is_err());
    }

    #[test]
    fn parts_and_keys_count_too() {
        let part = WritePart::default();
        let stamp = Some(SessionStamp::default());
        let write = WriteRequest { parts: vec![part; WRITE_PARTS_MAX], stamp, copies: 3 };
        let bytes = Bytes::from(write.encode_to_vec());
        assert_eq!(
            (bytes.len(), WriteRequest::decode(bytes.clone()).unwrap()),
            (write.encoded_len(), write.clone())
        );
        assert!(WriteRequest::decode(Bytes::from([&bytes[..], &[0x0a, 0x00]].concat())).is_err());

        let many = GetManyRequest { keys: vec![Bytes::from_static(b"k"); GET_MANY_KEYS_MAX], consistency: 1 };
        let bytes = Bytes::from(many.encode_to_vec());
        assert_eq!(
            (bytes.len(), GetManyRequest::decode(bytes.clone()).unwrap()),
            (many.encoded_len(), many.clone())
        );
        assert!(GetManyRequest::decode(Bytes::from([&bytes[..], &[0x0a, 0x00]].concat())).is_err());

        for request in [Request::Write(write), Request::GetMany(many)] {
            let op = SessionOp { id: 1, timeout_ms: 0, request: Some(request) };
            let most = vec![op.clone(); FRAME_OPS_MAX / 1025 + 1];
            let frame = SessionRequest::from(most);
            let bytes = frame.encode_to_vec();
            assert_eq!(SessionRequest::decode(Bytes::from(bytes.clone())).unwrap(), frame);
            let more = [bytes, SessionRequest::from(vec![op]).encode_to_vec()].concat();
            assert!(SessionRequest::decode(Bytes::from(more)).is_err());
        }
    }
}
