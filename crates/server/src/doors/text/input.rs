//! Lines out of a connection, in bounded memory.
//!
//! Every connection may hold [`LINE_BYTES_FREE`] of a line that is not complete. Beyond that it takes from what all text
//! connections of the node share ([`LineMemory`]), as much as its line has grown to, and gives it back when the line is
//! complete. Who finds nothing there waits, and is not read from meanwhile. What the longest line needs is kept apart, for one
//! of those that wait: it can be read to its end, and what it held comes back, so lines never wait for each other in a circle.
//!
//! Who holds some has [`LINE_TIME`] for the whole line, and [`CROWDED_TIME`] while others wait, not counting the time that it
//! waited itself. So lines that never end cost others a wait at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use ringfort_types::limits::{TEXT_LINE_BYTES_MAX, TEXT_LINES_BYTES};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Bytes of an unfinished line that every connection may hold.
const LINE_BYTES_FREE: usize = 16 * 1024;
/// So many more are taken at a time.
const STEP_BYTES: usize = 256 * 1024;
/// How long the client may take for a line, once it is larger than that.
const LINE_TIME: Duration = Duration::from_secs(10);
/// The same, while others wait for memory.
const CROWDED_TIME: Duration = Duration::from_secs(2);
/// How often it is looked whether others wait.
const LOOK: Duration = Duration::from_millis(250);

/// Memory for long lines, of all text connections.
#[derive(Clone, Debug)]
pub(super) struct LineMemory(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    /// Bytes.
    shared: Arc<Semaphore>,
    /// For one line, all that it may need.
    whole: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// What a long line holds.
enum Taken {
    Steps(OwnedSemaphorePermit),
    Whole(OwnedSemaphorePermit),
}

/// One that waits.
struct Waiting<'a>(&'a AtomicUsize);

impl Default for LineMemory {
    fn default() -> LineMemory {
        LineMemory(Arc::new(Parts {
            shared: Arc::new(Semaphore::new(TEXT_LINES_BYTES - TEXT_LINE_BYTES_MAX)),
            whole: Arc::new(Semaphore::new(1)),
            waiting: AtomicUsize::new(0),
        }))
    }
}

impl LineMemory {
    /// Waits for more.
    async fn take(&self) -> Taken {
        let Parts { shared, whole, waiting } = &*self.0;
        let _waiting = Waiting::one_of(waiting);
        let taken = tokio::select! {
            biased;
            more = shared.clone().acquire_many_owned(STEP_BYTES as u32) => more.map(Taken::Steps),
            whole = whole.clone().acquire_owned() => whole.map(Taken::Whole),
        };
        taken.expect("the semaphores are never closed")
    }

    /// How long a client may take for a line that holds some.
    fn time(&self) -> Duration {
        if self.0.waiting.load(Ordering::Relaxed) == 0 { LINE_TIME } else { CROWDED_TIME }
    }
}

impl Waiting<'_> {
    fn one_of(waiting: &AtomicUsize) -> Waiting<'_> {
        waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
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
    steps: Option<OwnedSemaphorePermit>,
    whole: Option<OwnedSemaphorePermit>,
    /// The time that the client has had for the long line under way.
    time: Duration,
    /// Since when it has had more.
    since: Option<Instant>,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    pub(super) fn new(reader: R, memory: LineMemory) -> Lines<R> {
        Lines {
            reader,
            buffer: BytesMut::new(),
            looked_at: 0,
            memory,
            steps: None,
            whole: None,
            time: Duration::ZERO,
            since: None,
        }
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
        (self.steps, self.whole) = (None, None);
        (self.time, self.since) = (Duration::ZERO, None);
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
            self.time += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            match self.memory.take().await {
                Taken::Whole(permit) => self.whole = Some(permit),
                Taken::Steps(more) => match &mut self.steps {
                    Some(steps) => steps.merge(more),
                    steps => *steps = Some(more),
                },
            }
            self.since = Some(Instant::now());
        }
        let room = self.room();
        self.buffer.reserve(room.min(STEP_BYTES));
        loop {
            let mut limited = (&mut self.reader).take(room as u64);
            let reading = limited.read_buf(&mut self.buffer);
            let read = match self.since {
                None => reading.await,
                Some(since) => {
                    // What is there already is read however late it is: that it waits is not the client's doing.
                    let left = self.memory.time().saturating_sub(self.time + since.elapsed());
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

    /// Bytes that may be read without taking more memory.
    fn room(&self) -> usize {
        let held = match (&self.whole, &self.steps) {
            (Some(_), _) => TEXT_LINE_BYTES_MAX + 1,
            (None, Some(steps)) => LINE_BYTES_FREE + steps.num_permits(),
            (None, None) => LINE_BYTES_FREE,
        };
        held.saturating_sub(self.buffer.len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    impl LineMemory {
        fn left(&self) -> (usize, usize) {
            (self.0.shared.available_permits(), self.0.whole.available_permits())
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
        for _ in 0..600 {
            let (mut client, server) = tokio::io::duplex(1024 * 1024);
            client.write_all(&vec![b'x'; 300_000]).await.unwrap();
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
            assert_eq!(stalled.await.unwrap(), End::TooSlow);
        }
    }
}
