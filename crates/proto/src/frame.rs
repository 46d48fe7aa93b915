//! A session's frame of requests, decoded by hand for one reason: its bound.
//!
//! An empty request takes two bytes on the wire and a hundred in memory. A frame of the size that a large value
//! needs could ask for a gigabyte; so the requests of a frame are counted while they are decoded, and the frame is
//! refused as soon as there are too many. Otherwise this is what `prost` would have generated.

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, message, skip_field};
use prost::{DecodeError, Message};
use ringfort_types::limits::CONNECTION_REQUESTS_MAX;

use crate::v1::SessionOp;

/// Most requests in one frame: so many that a full session can still take one whole.
pub const FRAME_OPS_MAX: usize = 2 * CONNECTION_REQUESTS_MAX;
const OPS: u32 = 1;

/// One frame of requests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionRequest {
    /// In order. At most [`FRAME_OPS_MAX`].
    pub ops: Vec<SessionOp>,
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
        if self.ops.len() == FRAME_OPS_MAX {
            #[expect(
                deprecated,
                reason = "prost has no other way yet to say that a message is not acceptable"
            )]
            return Err(DecodeError::new("too many requests in one frame"));
        }
        message::merge_repeated(wire_type, &mut self.ops, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        message::encoded_len_repeated(OPS, &self.ops)
    }

    fn clear(&mut self) {
        self.ops.clear();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_frame_round_trips_and_skips_what_it_does_not_know() {
        let frame = SessionRequest { ops: vec![SessionOp { id: 7, ..SessionOp::default() }; 3] };
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
}
