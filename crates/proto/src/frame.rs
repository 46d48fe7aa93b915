//! The messages whose parts are many and small, decoded by hand for one reason: their bounds.
//!
//! An empty request takes two bytes on the wire and a hundred in memory. A frame of the size that a large value
//! needs could ask for a gigabyte; so the requests of a frame are counted while they are decoded, and with them the
//! parts of atomic writes and the keys that are read at once. What is beyond a bound is counted, and not kept: the message can
//! still be read, so that its sender is told which bound it was. Otherwise this is what `prost` would have generated.

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{self, DecodeContext, WireType, int32, message, skip_field, uint32};
use prost::{DecodeError, Message};
use ringfort_types::limits::{CONNECTION_REQUESTS_MAX, GET_MANY_KEYS_MAX, WRITE_PARTS_MAX};

use crate::v1::session_op::Request;
use crate::v1::{SessionOp, SessionStamp, WritePart};

/// Most requests in one frame, parts and keys of one request included: so many that a full session can still take
/// one whole.
pub const FRAME_OPS_MAX: usize = 2 * CONNECTION_REQUESTS_MAX;
/// Most requests of one frame beyond those that are remembered by their numbers, so that each is refused by itself.
pub const FRAME_SURPLUS_MAX: usize = FRAME_OPS_MAX;
const OPS: u32 = 1;
const MESSAGE_BYTES: u32 = 2;
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
    /// The largest message that the client takes, in bytes; 0 if it does not say.
    pub max_message_bytes: u32,
    /// The numbers of requests beyond the bound, which are not kept. At most [`FRAME_SURPLUS_MAX`].
    pub surplus: Vec<u64>,
    /// How many requests there are beyond the bound.
    pub surplus_count: usize,
    /// Those that are kept, and the parts and keys in them.
    items: usize,
}

impl From<Vec<SessionOp>> for SessionRequest {
    fn from(ops: Vec<SessionOp>) -> SessionRequest {
        let items = ops.iter().map(items).sum();
        SessionRequest { ops, items, ..SessionRequest::default() }
    }
}

fn items(op: &SessionOp) -> usize {
    1 + match &op.request {
        Some(Request::Write(write)) => write.parts.len(),
        Some(Request::GetMany(many)) => many.keys.len(),
        _ => 0,
    }
}

impl Message for SessionRequest {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        message::encode_repeated(OPS, &self.ops, buf);
        if self.max_message_bytes != 0 {
            uint32::encode(MESSAGE_BYTES, &self.max_message_bytes, buf);
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
            OPS if self.items >= FRAME_OPS_MAX => {
                self.surplus_count += 1;
                if self.surplus.len() == FRAME_SURPLUS_MAX {
                    return skip_field(wire_type, tag, buf, ctx);
                }
                let mut op = SessionOp::default();
                message::merge(wire_type, &mut op, buf, ctx)?;
                self.surplus.push(op.id);
                Ok(())
            }
            OPS => {
                message::merge_repeated(wire_type, &mut self.ops, buf, ctx)?;
                self.items += self.ops.last().map_or(0, items);
                Ok(())
            }
            MESSAGE_BYTES => uint32::merge(wire_type, &mut self.max_message_bytes, buf, ctx),
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        let bytes = self.max_message_bytes;
        message::encoded_len_repeated(OPS, &self.ops)
            + if bytes == 0 { 0 } else { uint32::encoded_len(MESSAGE_BYTES, &bytes) }
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
    /// How many parts there are beyond the bound, which are not kept.
    pub surplus: usize,
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
                self.surplus += 1;
                skip_field(wire_type, tag, buf, ctx)
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
    /// How many keys there are beyond the bound, which are not kept.
    pub surplus: usize,
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
                self.surplus += 1;
                skip_field(wire_type, tag, buf, ctx)
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_frame_round_trips_and_skips_what_it_does_not_know() {
        let frame = SessionRequest::from(vec![SessionOp { id: 7, ..SessionOp::default() }; 3]);
        let mut bytes = frame.encode_to_vec();
        assert_eq!(bytes.len(), frame.encoded_len());
        bytes.extend([0x7a, 0x01, 0xff]);
        assert_eq!(SessionRequest::decode(Bytes::from(bytes)).unwrap(), frame);
    }

    #[test]
    fn requests_beyond_the_bound_are_known_by_their_numbers_and_not_kept() {
        let op = |id| SessionOp { id, ..SessionOp::default() };
        let of = |count: usize| {
            let ops: Vec<SessionOp> = (1..=count as u64).map(op).collect();
            SessionRequest::decode(Bytes::from(SessionRequest::from(ops).encode_to_vec())).unwrap()
        };
        let most = of(FRAME_OPS_MAX);
        assert_eq!((most.ops.len(), most.surplus_count), (FRAME_OPS_MAX, 0));
        let more = of(FRAME_OPS_MAX + 2);
        let numbers = [FRAME_OPS_MAX as u64 + 1, FRAME_OPS_MAX as u64 + 2];
        assert_eq!((more.ops.len(), &more.surplus[..], more.surplus_count), (FRAME_OPS_MAX, &numbers[..], 2));
        let most_of_all = of(FRAME_OPS_MAX + FRAME_SURPLUS_MAX + 1);
        assert_eq!(most_of_all.surplus.len(), FRAME_SURPLUS_MAX);
        assert_eq!(most_of_all.surplus_count, FRAME_SURPLUS_MAX + 1);
    }

    #[test]
    fn parts_and_keys_count_too() {
        let part = WritePart::default();
        let stamp = Some(SessionStamp::default());
        let write = WriteRequest { parts: vec![part; WRITE_PARTS_MAX], stamp, copies: 3, surplus: 0 };
        let bytes = Bytes::from(write.encode_to_vec());
        assert_eq!(
            (bytes.len(), WriteRequest::decode(bytes.clone()).unwrap()),
            (write.encoded_len(), write.clone())
        );
        let more = WriteRequest::decode(Bytes::from([&bytes[..], &[0x0a, 0x00]].concat())).unwrap();
        assert_eq!((more.parts.len(), more.surplus), (WRITE_PARTS_MAX, 1));

        let keys = vec![Bytes::from_static(b"k"); GET_MANY_KEYS_MAX];
        let many = GetManyRequest { keys, consistency: 1, surplus: 0 };
        let bytes = Bytes::from(many.encode_to_vec());
        assert_eq!(
            (bytes.len(), GetManyRequest::decode(bytes.clone()).unwrap()),
            (many.encoded_len(), many.clone())
        );
        let more = GetManyRequest::decode(Bytes::from([&bytes[..], &[0x0a, 0x00]].concat())).unwrap();
        assert_eq!((more.keys.len(), more.surplus), (GET_MANY_KEYS_MAX, 1));

        for request in [Request::Write(write), Request::GetMany(many)] {
            let op = SessionOp { id: 1, timeout_ms: 0, request: Some(request) };
            let most = vec![op.clone(); FRAME_OPS_MAX / 1025 + 1];
            let frame = SessionRequest { max_message_bytes: 5, ..SessionRequest::from(most) };
            let bytes = frame.encode_to_vec();
            assert_eq!(bytes.len(), frame.encoded_len());
            assert_eq!(SessionRequest::decode(Bytes::from(bytes.clone())).unwrap(), frame);
            let more = [bytes, SessionRequest::from(vec![op]).encode_to_vec()].concat();
            assert_eq!(SessionRequest::decode(Bytes::from(more)).unwrap().surplus, [1]);
        }
    }
}
