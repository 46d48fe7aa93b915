//! Lines out of a connection, in bounded memory.
//!
//! Every connection may hold [`LINE_BYTES_FREE`] of a line that is not complete. Beyond that it needs a place among those that all
//! text connections of the node share ([`LineMemory`]): a long line's, and, once that is full, a longest line's in its stead. A place
//! is given back when the line is complete. Who finds none free waits, and is not read from meanwhile.
//!
//! Who has a place has [`LINE_TIME`] for what fits there, and [`CROWDED_TIME`] while others wait for such a place; waiting for the
//! larger one counts. So lines that never end cost others a wait at most, and nobody with a place waits for one of its own kind.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{
    TEXT_LINE_BYTES_FREE, TEXT_LINE_BYTES_MAX, TEXT_LINE_CROWDED_MS, TEXT_LINE_MS, TEXT_LINES_BYTES,
};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use crate::doors::crowd::Crowd;

/// Bytes of an unfinished line that every connection may hold.
const LINE_BYTES_FREE: usize = TEXT_LINE_BYTES_FREE;
/// Of a long line: a message of a million bytes fits.
const LONG_BYTES: usize = 1024 * 1024 + 64 * 1024;
/// How many longest lines may be under way. All other places are for long ones.
const LONGEST_PLACES: usize = 3;
const LONG_PLACES: usize = (TEXT_LINES_BYTES - LONGEST_PLACES * TEXT_LINE_BYTES_MAX) / LONG_BYTES;
/// A buffer grows by so much at least.
const STEP_BYTES: usize = 256 * 1024;
/// How long the client may take for what fits into a place.
const LINE_TIME: Duration = Duration::from_millis(TEXT_LINE_MS);
/// The same, while others wait for one.
const CROWDED_TIME: Duration = Duration::from_millis(TEXT_LINE_CROWDED_MS);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// Memory for long lines, of all text connections.
#[derive(Clone, Debug)]
pub(super) struct LineMemory(Arc<[Places; 2]>);

/// Places of one size.
#[derive(Debug)]
struct Places {
    bytes: usize,
    free: Arc<Semaphore>,
    waiting: Crowd,
}

/// A place that a line has.
struct Place {
    /// Its size, as a number among them.
    size: usize,
    since: Instant,
    _permit: OwnedSemaphorePermit,
}

impl Default for LineMemory {
    fn default() -> LineMemory {
        let places =
            |bytes, count| Places { bytes, free: Arc::new(Semaphore::new(count)), waiting: Crowd::default() };
        // One byte more shows that a line is too long.
        LineMemory(Arc::new([
            places(LONG_BYTES, LONG_PLACES),
            places(TEXT_LINE_BYTES_MAX + 1, LONGEST_PLACES),
        ]))
    }
}

impl LineMemory {
    /// How long a client with this place may still take.
    fn time_left(&self, place: &Place) -> Duration {
        let time = if self.0[place.size].waiting.is_there() { CROWDED_TIME } else { LINE_TIME };
        time.saturating_sub(place.since.elapsed())
    }

    /// Waits for a place that is larger than this one, which it has meanwhile.
    async fn larger(&self, place: Option<&Place>) -> Result<Place, End> {
        let size = place.map_or(0, |place| place.size + 1);
        let Places { free, waiting, .. } = &self.0[size];
        let _waiting = waiting.join();
        let mut permit = pin!(free.clone().acquire_owned());
        let permit = loop {
            let Some(place) = place else { break permit.await };
            let left = self.time_left(place);
            match timeout(left.min(LOOK), &mut permit).await {
                Ok(permit) => break permit,
                Err(_) if left > LOOK => {}
                Err(_) => return Err(End::TooMany),
            }
        };
        Ok(Place { size, since: Instant::now(), _permit: permit.expect("the semaphores are never closed") })
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
    /// There is no place for a line as long as this one, nor was there for a while.
    TooMany,
}

/// Lines of one connection.
pub(super) struct Lines<R> {
    reader: R,
    buffer: BytesMut,
    /// So much of the buffer has no end of line in it.
    looked_at: usize,
    memory: LineMemory,
    /// The long line's that is under way.
    place: Option<Place>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, memory: LineMemory) -> Lines<R> {
        Lines { reader, buffer: BytesMut::new(), looked_at: 0, memory, place: None }
    }

    /// Looks for the end of the next line.
    fn has_line(&mut self) -> bool {
        let found = self.buffer[self.looked_at..].iter().position(|&byte| byte == b'\n');
        self.looked_at = found.map_or(self.buffer.len(), |at| self.looked_at + at);
        found.is_some()
    }

    /// Whether a line has a place and is not complete: it is read to its end, whatever else has to wait.
    pub(super) fn is_half(&mut self) -> bool {
        self.place.is_some() && !self.has_line()
    }

    /// A line that is there already.
    pub(super) fn ready(&mut self) -> Option<Bytes> {
        if !self.has_line() {
            return None;
        }
        let end = self.looked_at;
        if end > TEXT_LINE_BYTES_MAX {
            // To be refused.
            return None;
        }
        let mut line = self.buffer.split_to(end + 1);
        line.truncate(end);
        self.looked_at = 0;
        if self.place.take().is_some() || self.buffer.is_empty() {
            // The lines that follow would keep a long one's memory for as long as they wait for their answers.
            self.buffer = BytesMut::from(&self.buffer[..]);
        }
        Some(line.freeze())
    }

    /// Waits for more bytes. May be cancelled.
    pub(super) async fn read(&mut self) -> Result<(), End> {
        if self.buffer.len() > TEXT_LINE_BYTES_MAX {
            return Err(End::TooLong);
        }
        if self.room() == 0 {
            self.place = Some(self.memory.larger(self.place.as_ref()).await?);
        }
        let room = self.room();
        self.buffer.reserve(room.min(STEP_BYTES));
        loop {
            let mut limited = (&mut self.reader).take(room as u64);
            let reading = limited.read_buf(&mut self.buffer);
            let read = match &self.place {
                None => reading.await,
                Some(place) => {
                    // What is there already is read however late it is: that it waits is not the client's doing.
                    let left = self.memory.time_left(place);
                    match timeout(left.min(LOOK), reading).await {
                        Ok(read) => read,
                        Err(_) if left > LOOK => continue,
                        Err(_) => return Err(End::TooSlow),
                    }
                }
            };
            return match read {
                Ok(0) | Err(_) => Err(End::Closed),
                Ok(_) => Ok(()),
            };
        }
    }

    /// Reads what comes until the other side closes, up to so many bytes, and keeps none of it.
    pub(super) async fn pass_over(&mut self, bytes_max: usize) {
        let mut bytes = vec![0; LINE_BYTES_FREE];
        let mut left = bytes_max;
        while left > 0
            && let Ok(read @ 1..) = self.reader.read(&mut bytes).await
        {
            left = left.saturating_sub(read);
        }
    }

    /// Bytes that may be read without a larger place.
    fn room(&self) -> usize {
        let held = self.place.as_ref().map_or(LINE_BYTES_FREE, |place| self.memory.0[place.size].bytes);
        held.saturating_sub(self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    impl LineMemory {
        fn left(&self) -> [usize; 2] {
            [0, 1].map(|size| self.0[size].free.available_permits())
        }
    }

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
        assert_eq!(memory.left(), LineMemory::default().left(), "what was taken is given back");
    }

    #[tokio::test]
    async fn a_short_line_does_not_keep_the_memory_of_the_long_one_before_it() {
        let bytes = [&vec![b'x'; 1_000_000][..], b"\nshort\n"].concat();
        let mut lines = Lines::new(&bytes[..], LineMemory::default());
        let (mut long, mut short) = (None, None);
        while short.is_none() {
            lines.read().await.unwrap();
            long = long.or_else(|| lines.ready());
            short = if long.is_some() { lines.ready() } else { None };
        }
        let (long, short) = (long.unwrap(), short.unwrap());
        let memory = long.as_ptr_range();
        assert_eq!(short, "short");
        assert!(!memory.contains(&short.as_ptr()) && memory.end.addr().abs_diff(short.as_ptr().addr()) > 1);
        assert!(long.is_unique(), "nobody else has a part of it");
    }

    #[tokio::test]
    async fn a_line_that_is_too_long_ends_the_reading() {
        for (bytes, found, end) in [
            (TEXT_LINE_BYTES_MAX, vec![TEXT_LINE_BYTES_MAX], End::Closed),
            (TEXT_LINE_BYTES_MAX + 1, vec![], End::TooLong),
            (TEXT_LINE_BYTES_MAX + STEP_BYTES, vec![], End::TooLong),
        ] {
            let line = [&vec![b'x'; bytes][..], b"\n"].concat();
            assert_eq!(all(Lines::new(&line[..], LineMemory::default())).await, (found, end), "{bytes}");
        }
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

    /// As many long lines at once as would hold all memory half-way, if each took what it could.
    #[tokio::test(start_paused = true)]
    async fn lines_that_want_more_together_than_there_is_all_come_to_their_ends() {
        let memory = LineMemory::default();
        let mut readers = Vec::new();
        for _ in 0..300 {
            let (mut client, server) = tokio::io::duplex(64 * 1024);
            let mut lines = Lines::new(server, memory.clone());
            tokio::spawn(async move {
                let half = vec![b'x'; 500_000];
                client.write_all(&half).await?;
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.write_all(&half).await?;
                client.write_all(b"\n").await
            });
            readers.push(tokio::spawn(async move {
                loop {
                    if let Some(line) = lines.ready() {
                        return Ok::<_, End>(line.len());
                    }
                    lines.read().await?;
                }
            }));
        }
        for reader in readers {
            assert_eq!(reader.await.unwrap(), Ok(1_000_000));
        }
        assert_eq!(memory.left(), LineMemory::default().left());
    }

    #[tokio::test(start_paused = true)]
    async fn lines_that_stand_still_make_room_for_others_soon() {
        let memory = LineMemory::default();
        let mut clients = Vec::new();
        let mut stalled = Vec::new();
        // Half of them have a place and want a larger one.
        for at in 0..300 {
            let (mut client, server) = tokio::io::duplex(2 * LONG_BYTES);
            client.write_all(&vec![b'x'; if at % 2 == 0 { 300_000 } else { LONG_BYTES + 1 }]).await.unwrap();
            clients.push(client);
            let mut lines = Lines::new(server, memory.clone());
            stalled.push(tokio::spawn(async move {
                loop {
                    assert!(lines.ready().is_none());
                    if let Err(end) = lines.read().await {
                        return end;
                    }
                }
            }));
        }
        tokio::task::yield_now().await;
        let begun = Instant::now();
        let large = [&vec![b'x'; 1_000_000][..], b"\n"].concat();
        let (found, end) = all(Lines::new(&large[..], memory.clone())).await;
        assert_eq!((found, end), (vec![1_000_000], End::Closed));
        assert!(begun.elapsed() < LINE_TIME, "{:?}", begun.elapsed());
        for stalled in stalled {
            let end = stalled.await.unwrap();
            assert!(matches!(end, End::TooSlow | End::TooMany), "{end:?}");
        }
        assert_eq!(memory.left(), LineMemory::default().left());
    }
}
