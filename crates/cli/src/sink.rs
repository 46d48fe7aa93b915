//! What a node that runs has to say, on its way to stdout or stderr.
//!
//! Who reads that may be slow, or gone, or a file on a full disk. So a thread of its own writes, out of a bounded queue. What does
//! not fit is dropped, and counted where the next line is written. Nothing that a write returns reaches anybody.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::show;

/// Lines that wait to be written.
const LINES_MAX: usize = 1024;
/// Bytes of a line that are kept.
const LINE_BYTES_MAX: usize = 8 * 1024;
/// How often it is looked whether all is written, when somebody waits for that.
const LOOK: Duration = Duration::from_millis(5);

/// Where lines go.
#[derive(Clone, Debug)]
pub(crate) struct Sink {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// In the queue, or being written.
    waiting: AtomicU64,
    dropped: AtomicU64,
}

impl Sink {
    /// Writes to this. Without a thread for it, everything is dropped.
    pub(crate) fn new(to: impl Write + Send + 'static) -> Sink {
        let (lines, taken) = mpsc::sync_channel(LINES_MAX);
        let counts = Arc::<Counts>::default();
        let sink = Sink { lines, counts: counts.clone() };
        let writing = std::thread::Builder::new().name("lines".into());
        let _without = writing.spawn(move || write(to, &taken, &counts));
        sink
    }

    /// Has a line written, without its end, which is added.
    pub(crate) fn line(&self, line: impl Into<Vec<u8>>) {
        let mut line = line.into();
        line.truncate(LINE_BYTES_MAX);
        line.push(b'\n');
        self.counts.waiting.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line).is_err() {
            self.counts.waiting.fetch_sub(1, Ordering::AcqRel);
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is written, but no longer than this.
    pub(crate) fn flush(&self, within: Duration) {
        let until = Instant::now() + within;
        while self.counts.waiting.load(Ordering::Acquire) > 0 && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

fn write(mut to: impl Write, lines: &Receiver<Vec<u8>>, counts: &Counts) {
    for line in lines {
        let dropped = counts.dropped.swap(0, Ordering::Relaxed);
        let count = if dropped == 0 {
            String::new()
        } else {
            format!("({} could not be written here)\n", show::count(dropped, "line", "lines"))
        };
        let written = to.write_all(count.as_bytes()).and_then(|()| to.write_all(&line));
        if written.and_then(|()| to.flush()).is_err() {
            counts.dropped.fetch_add(dropped + 1, Ordering::Relaxed);
        }
        counts.waiting.fetch_sub(1, Ordering::AcqRel);
    }
}

/// One line of the log, sent when it is complete.
pub(crate) struct Line<'a> {
    sink: &'a Sink,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = LINE_BYTES_MAX.saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if !bytes.is_empty() {
            self.sink.line(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
        }
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: self, bytes: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Takes what it is given, or fails, once it is let.
    #[derive(Clone, Default)]
    struct Slow {
        taken: Arc<Mutex<Vec<u8>>>,
        /// Whoever holds it keeps all writes waiting.
        gate: Arc<Mutex<()>>,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _passed = self.gate.lock().unwrap();
            if bytes.starts_with(b"bad") {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.taken.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_costs_lines_and_nothing_else() {
        let slow = Slow::default();
        let shut = slow.gate.lock().unwrap();
        let sink = Sink::new(slow.clone());
        for number in 0..LINES_MAX + 500 {
            sink.line(format!("line {number}"));
        }
        let begun = Instant::now();
        sink.flush(Duration::from_millis(50));
        assert!(begun.elapsed() < Duration::from_secs(5), "it is not waited for");
        drop(shut);
        sink.flush(Duration::from_mins(1));
        sink.line("bad");
        writeln!(sink.make_writer(), "the last").unwrap();
        sink.flush(Duration::from_mins(1));
        let taken = String::from_utf8(slow.taken.lock().unwrap().clone()).unwrap();
        let lines: Vec<&str> = taken.lines().collect();
        assert!(lines[..2].contains(&"line 0"), "{:?}", &lines[..2]);
        // The thread may have taken one out of the queue before it was full, and have counted those that were dropped by then.
        let count = |line: &&str| line.strip_prefix('(')?.split(' ').next()?.parse::<usize>().ok();
        let dropped: Vec<usize> = lines.iter().filter_map(count).collect();
        assert!((500..=502).contains(&dropped.iter().sum::<usize>()), "the bad one, too: {dropped:?}");
        assert_eq!(lines[lines.len() - 1], "the last");
        assert!(
            taken.contains("\n(1 line could not be written here)\nthe last\n"),
            "a failed write counts, too"
        );
    }
}
