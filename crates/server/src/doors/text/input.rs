//! Lines out of a connection, in bounded memory.
//!
//! Every connection may hold [`LINE_BYTES_FREE`] of a line that is not complete. Beyond that it takes from what all text
//! connections of the node share, [`Shared`], as much as its line has grown to, and gives it back when the line is complete.
//! Who finds nothing there waits, and is not read from meanwhile; who holds some has [`LINE_TIME`] for the whole line. So
//! lines that never end cost others a wait at most.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{TEXT_LINE_BYTES_MAX, TEXT_LINES_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

/// Bytes of an unfinished line that every connection may hold.
const LINE_BYTES_FREE: usize = 16 * 1024;
/// So many more are taken at a time.
const STEP_BYTES: usize = 256 * 1024;
/// How long a line may take, once it is larger than that.
const LINE_TIME: Duration = Duration::from_secs(10);

/// Memory for long lines, of all text connections.
#[derive(Clone, Debug)]
pub(super) struct LineMemory(Arc<Semaphore>);

impl Default for LineMemory {
    fn default() -> LineMemory {
        LineMemory(Arc::new(Semaphore::new(TEXT_LINES_BYTES)))
    }
}

/// Why there are no more lines.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client has closed its side, or the connection broke.
    Closed,
    /// A line is longer than any may be.
    TooLong,
    /// A long line took too long.
    TooSlow,
}

/// Lines of one connection.
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// So much of the buffer has no end of line in it.
    looked_at: usize,
    memory: LineMemory,
    permit: Option<OwnedSemaphorePermit>,
    /// When the long line under way has to be complete.
    deadline: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, memory: LineMemory) -> Lines<R> {
        Lines { reader, buffer: BytesMut::new(), looked_at: 0, memory, permit: None, deadline: None }
    }

    /// A line that is there already.
    pub(super) fn ready(&mut self) -> Option<Bytes> {
        let found = self.buffer[self.looked_at..].iter().position(|&byte| byte == b'\n');
        let Some(end) = found else {
            self.looked_at = self.buffer.len();
            return None;
        };
        let end = self.looked_at + end;
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        self.looked_at = 0;
        (self.permit, self.deadline) = (None, None);
        if self.buffer.is_empty() {
            // A large buffer is not kept for the next, small line.
            self.buffer = BytesMut::new();
        }
        Some(line.freeze())
    }

    /// Waits for more bytes. May be cancelled.
    pub(super) async fn read(&mut self) -> Result<(), End> {
        if self.buffer.len() > TEXT_LINE_BYTES_MAX {
            return Err(End::TooLong);
        }
        if self.room() == 0 {
            let deadline = *self.deadline.get_or_insert_with(|| Instant::now() + LINE_TIME);
            let more = self.memory.0.clone().acquire_many_owned(STEP_BYTES as u32);
            let more = timeout_at(deadline, more).await.map_err(|_| End::TooSlow)?;
            let more = more.expect("the semaphore is never closed");
            match &mut self.permit {
                Some(permit) => permit.merge(more),
                permit => *permit = Some(more),
            }
        }
        let room = self.room();
        self.buffer.reserve(room.min(STEP_BYTES));
        let mut limited = (&mut self.reader).take(room as u64);
        let reading = limited.read_buf(&mut self.buffer);
        let read = match self.deadline {
            None => reading.await,
            Some(deadline) => timeout_at(deadline, reading).await.map_err(|_| End::TooSlow)?,
        };
        match read {
            Ok(0) | Err(_) => Err(End::Closed),
            Ok(_) => Ok(()),
        }
    }

    /// Bytes that may be read without taking more memory.
    fn room(&self) -> usize {
        let held = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        (LINE_BYTES_FREE + held).saturating_sub(self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    async fn all(mut lines: Lines<&[u8]>) -> (Vec<usize>, End) {
        let mut found = Vec::new();
        loop {
            while let Some(line) = lines.ready() {
                found.push(line.len());
            }
            if let Err(end) = lines.read().await {
                return (found, end);
            }
        }
    }

    #[tokio::test]
    async fn lines_come_whole_whatever_their_length_and_the_last_one_needs_its_end() {
        let large = [&vec![b'x'; 1_000_000][..], b"\nshort\n\nunfinished"].concat();
        let memory = LineMemory::default();
        let (found, end) = all(Lines::new(&large[..], memory.clone())).await;
        assert_eq!((found, end), (vec![1_000_000, 5, 0], End::Closed));
        assert_eq!(memory.0.available_permits(), TEXT_LINES_BYTES, "what was taken is given back");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_ends_the_reading() {
        let endless = vec![b'x'; TEXT_LINE_BYTES_MAX + STEP_BYTES];
        let (found, end) = all(Lines::new(&endless[..], LineMemory::default())).await;
        assert_eq!((found, end), (vec![], End::TooLong));
    }

    #[tokio::test(start_paused = true)]
    async fn who_holds_memory_has_limited_time_and_who_holds_none_has_all_of_it() {
        let memory = LineMemory::default();
        let (mut client, server) = tokio::io::duplex(1024 * 1024);
        let mut lines = Lines::new(server, memory.clone());
        client.write_all(&vec![b'x'; LINE_BYTES_FREE]).await.unwrap();
        lines.read().await.unwrap();
        assert!(lines.ready().is_none());
        assert_eq!(lines.read().await, Err(End::TooSlow), "it holds memory now, and does not go on");

        let (mut client, server) = tokio::io::duplex(1024 * 1024);
        let mut lines = Lines::new(server, memory);
        client.write_all(b"half a command").await.unwrap();
        lines.read().await.unwrap();
        let idle = tokio::time::timeout(Duration::from_hours(1), lines.read()).await;
        assert!(idle.is_err(), "nobody minds a short line that takes an hour");
    }
}
