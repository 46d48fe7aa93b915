//! Floods of frames on a gRPC connection that cost the node more than who sends them: calls begun and given up at once (HTTP/2's "rapid
//! reset"), and what has to be answered.
//!
//! The HTTP/2 library bounds what of them is unprocessed at a moment (`grpc`), not how many there may be a second. So the headers of frames
//! (RFC 9113, section 4.1) are read here as bytes go by, whatever is in them is stepped over, and a connection with more than
//! [`CONNECTION_RESETS_MAX`] or [`CONNECTION_PINGS_MAX`] within a second is closed.

use std::time::{Duration, Instant};

use ringfort_types::limits::{CONNECTION_PINGS_MAX, CONNECTION_RESETS_MAX};

use crate::doors::places::Closed;

const SECOND: Duration = Duration::from_secs(1);
const FRAME_HEADER_BYTES: usize = 9;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
/// Of pings and settings: it answers one of the node's.
const ACK: u8 = 1;

/// What one connection's client sends.
#[derive(Debug)]
pub(crate) struct Frames {
    /// Of the next frame, as far as it has come.
    header: [u8; FRAME_HEADER_BYTES],
    header_len: usize,
    /// Bytes to step over: the preface at first, then what is in a frame.
    skip: usize,
    resets: WithinSecond,
    pings: WithinSecond,
}

#[derive(Debug, Default)]
struct WithinSecond {
    since: Option<Instant>,
    count: u32,
}

impl WithinSecond {
    /// One more; whether there are too many.
    fn add(&mut self, max: u32) -> bool {
        let now = Instant::now();
        if self.since.is_none_or(|since| now.duration_since(since) >= SECOND) {
            (self.since, self.count) = (Some(now), 0);
        }
        self.count += 1;
        self.count > max
    }
}

impl Frames {
    /// After so many bytes that every connection begins with.
    pub(crate) fn after(preface_bytes: usize) -> Frames {
        Frames {
            header: [0; FRAME_HEADER_BYTES],
            header_len: 0,
            skip: preface_bytes,
            resets: WithinSecond::default(),
            pings: WithinSecond::default(),
        }
    }

    /// Takes note of what has come; why the connection is to be closed, if it is.
    pub(crate) fn come(&mut self, mut bytes: &[u8]) -> Option<Closed> {
        loop {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(FRAME_HEADER_BYTES - self.header_len);
            self.header[self.header_len..][..taken].copy_from_slice(&bytes[..taken]);
            self.header_len += taken;
            bytes = &bytes[taken..];
            if self.header_len < FRAME_HEADER_BYTES {
                return None;
            }
            self.header_len = 0;
            let [high, middle, low, kind, flags, ..] = self.header;
            self.skip = u32::from_be_bytes([0, high, middle, low]) as usize;
            if kind == RST_STREAM && self.resets.add(CONNECTION_RESETS_MAX) {
                return Some(Closed::Resets);
            }
            if matches!(kind, PING | SETTINGS) && flags & ACK == 0 && self.pings.add(CONNECTION_PINGS_MAX) {
                return Some(Closed::Pings);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let length = (payload as u32).to_be_bytes();
        // What is in a frame looks like another one.
        [&length[1..], &[kind, flags, 0, 0, 0, 1], &[RST_STREAM; 9].repeat(payload)[..payload]].concat()
    }

    /// What comes of these bytes in pieces of this size.
    fn come(bytes: &[u8], piece: usize) -> Option<Closed> {
        let mut frames = Frames::after(4);
        let said = [b"PRI ", bytes].concat();
        said.chunks(piece).find_map(|piece| frames.come(piece))
    }

    #[test]
    fn too_many_of_a_kind_within_a_second_are_told_wherever_bytes_are_cut() {
        for piece in [1, 7, 9, 10, 1 << 20] {
            let most = frame(RST_STREAM, 0, 4).repeat(CONNECTION_RESETS_MAX as usize);
            assert_eq!(come(&most, piece), None);
            let data = frame(0, 0, 4000);
            assert_eq!(come(&[most, data, frame(RST_STREAM, 0, 4)].concat(), piece), Some(Closed::Resets));
        }
        let pings = frame(PING, 0, 8).repeat(CONNECTION_PINGS_MAX as usize - 1);
        let answers = frame(PING, ACK, 8).repeat(10);
        let settings = frame(SETTINGS, 0, 0);
        assert_eq!(come(&[&pings[..], &answers, &settings].concat(), 4096), None);
        assert_eq!(come(&[&pings[..], &answers, &settings, &settings].concat(), 4096), Some(Closed::Pings));
    }
}
