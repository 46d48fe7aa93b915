//! A segment read forward in large pieces, so that scanning goes at memory speed in bounded memory: one
//! piece, or one frame if that is larger.

use std::io;
use std::sync::Arc;

use super::frame::{FRAME_HEADER_BYTES, FrameHeader};
use crate::disk::File;

/// Piece for passing over the whole log.
pub(super) const PIECE_BYTES: usize = 1024 * 1024;
/// Piece for looking up a few entries.
pub(super) const SMALL_PIECE_BYTES: usize = 64 * 1024;

/// One open segment and the piece of it that was read last.
#[derive(Debug)]
pub(super) struct Window {
    file: Arc<dyn File>,
    length: u64,
    seed: u32,
    piece: usize,
    start: u64,
    bytes: Vec<u8>,
}

/// What is found where a frame should begin.
#[derive(Debug)]
pub(super) enum Found<'a> {
    /// A whole frame: its header, and its records.
    Frame(FrameHeader, &'a [u8]),
    /// Zeroes, or no room for a header: nothing was written here, as far as this header goes.
    Nothing,
    /// Bytes that are no valid frame.
    Bad(&'static str),
}

impl Window {
    pub(super) fn new(file: Arc<dyn File>, seed: u32, piece: usize) -> io::Result<Window> {
        Ok(Window { length: file.len()?, file, seed, piece, start: 0, bytes: Vec::new() })
    }

    pub(super) fn length(&self) -> u64 {
        self.length
    }

    /// `count` bytes from `offset`, or fewer at the end of the file.
    pub(super) fn get(&mut self, offset: u64, count: usize) -> io::Result<&[u8]> {
        let count = (self.length.saturating_sub(offset)).min(count as u64) as usize;
        let held = self.start..=self.start + self.bytes.len() as u64;
        if !(held.contains(&offset) && held.contains(&(offset + count as u64))) {
            // Keep what is held already of the new piece.
            let kept = if held.contains(&offset) {
                self.bytes.split_off((offset - self.start) as usize)
            } else {
                Vec::new()
            };
            let wanted = self.length.saturating_sub(offset).min(count.max(self.piece) as u64) as usize;
            let from = kept.len();
            self.bytes = kept;
            self.bytes.resize(wanted.max(from), 0);
            self.start = offset;
            let read = self.file.read_at(offset + from as u64, &mut self.bytes[from..])?;
            self.bytes.truncate(from + read);
        }
        let at = (offset - self.start) as usize;
        Ok(&self.bytes[at.min(self.bytes.len())..(at + count).min(self.bytes.len())])
    }

    /// What begins at `offset`.
    pub(super) fn frame(&mut self, offset: u64) -> io::Result<Found<'_>> {
        let seed = self.seed;
        let bytes = self.get(offset, FRAME_HEADER_BYTES)?;
        let Some(header) = FrameHeader::decode(bytes, seed) else {
            let nothing = bytes.iter().all(|byte| *byte == 0);
            return Ok(if nothing { Found::Nothing } else { Found::Bad("there is no valid batch here") });
        };
        let records = self.get(offset + FRAME_HEADER_BYTES as u64, header.length as usize)?;
        if header.holds(records, seed) {
            Ok(Found::Frame(header, records))
        } else {
            Ok(Found::Bad("the batch's checksum is wrong"))
        }
    }

    /// The header at `offset`, whatever follows it.
    pub(super) fn header(&mut self, offset: u64) -> io::Result<Option<FrameHeader>> {
        let seed = self.seed;
        Ok(FrameHeader::decode(self.get(offset, FRAME_HEADER_BYTES)?, seed))
    }

    /// The first byte at `offset` or after it that is not zero.
    pub(super) fn first_set(&mut self, mut offset: u64) -> io::Result<Option<u64>> {
        while offset < self.length {
            let piece = self.get(offset, self.piece)?;
            if piece.is_empty() {
                break;
            }
            if let Some(at) = first_set(piece) {
                return Ok(Some(offset + at as u64));
            }
            offset += piece.len() as u64;
        }
        Ok(None)
    }

    /// The first place at `offset` or after it where these bytes are.
    pub(super) fn find(&mut self, mut offset: u64, wanted: [u8; 4]) -> io::Result<Option<u64>> {
        while offset + wanted.len() as u64 <= self.length {
            let piece = self.get(offset, self.piece)?;
            if piece.len() < wanted.len() {
                break;
            }
            if let Some(at) = piece.windows(wanted.len()).position(|four| four == wanted) {
                return Ok(Some(offset + at as u64));
            }
            offset += (piece.len() - wanted.len() + 1) as u64;
        }
        Ok(None)
    }
}

fn first_set(bytes: &[u8]) -> Option<usize> {
    // A block at a time, so that the compiler compares many bytes at once.
    const BLOCK: usize = 512;
    const ZEROES: [u8; BLOCK] = [0; BLOCK];
    let blocks = bytes.chunks(BLOCK).take_while(|block| **block == ZEROES[..block.len()]).count();
    let skipped = (blocks * BLOCK).min(bytes.len());
    bytes[skipped..].iter().position(|byte| *byte != 0).map(|at| skipped + at)
}
