//! `ringfort import FILE|-`
//!
//! A thread reads and checks lines; the sending task keeps many rows in flight and has each of them sent again for as
//! long as the import makes progress at all. A row whose outcome is unknown may be sent again because an imported key
//! has one writer, this one; and a key that comes twice in the input is not sent again before its earlier row is
//! acknowledged, so that the last one stays.
//!
//! Whatever ends the import early, it first waits for what is under way, so that its account is exact.

use std::collections::HashSet;
use std::fmt::Write;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use flate2::bufread::MultiGzDecoder;
use ringfort_client::{Client, Outcome};
use ringfort_types::{Code, Failure};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::connection::{Connect, with_options};
use crate::format::{Place, is_gzip};
use crate::ledger::Ledger;
use crate::out::{self, Output};
use crate::progress::Progress;
use crate::rows::{BadInput, Crlf, Row, RowReader};
use crate::show;
use crate::show::Transfer;
use crate::signals::Signals;
use crate::stop::{Stop, code_of};
use crate::waiting::{SILENT_MAX, nobody_there};

/// Bytes read from the input at once.
const READ_BYTES: usize = 256 * 1024;
/// A batch on its way from the reading thread is closed at so many rows or bytes.
const BATCH_ROWS: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
/// Most batches on their way.
const BATCHES_MAX: usize = 4;
/// Most bytes of rows under way at once (one row may be larger by itself).
const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most rows in flight that may be asked for.
const IN_FLIGHT_MAX: u32 = 16 * 1024;
/// Pause before a row is sent again after its time-out.
const PAUSE: Duration = Duration::from_millis(100);

/// Write rows from a file or stdin, one a line, as `list` and `export` print them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort import rows.tsv\n  ringfort import rows.jsonl.gz\n  \
    zcat rows.tsv.gz | ringfort import -\n  ringfort import --file rows --format jsonl\n\n\
    Rows that could not be written in time (--timeout) are sent again until there has been no progress for \
    --give-up; if nobody listens at any address from the start, it ends after three seconds. Rows are not written in the order of the input, except those of one key. A line that is no row ends the \
    import with its number, how much has been written, and where to go on. A revision in a \
    JSON line is passed over: the row gets one of its own. At the end it prints how much it was; JSON: rows, bytes, \
    seconds.")]
pub(crate) struct Import {
    #[command(flatten)]
    place: Place,
    /// Most rows under way at once
    #[arg(long, value_name = "N", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u32,
    /// Give up after so long without any progress
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = crate::duration::parse)]
    give_up: Duration,
    /// Pass over so many lines first: to go on where an earlier import stopped
    #[arg(long, value_name = "LINES", default_value_t = 0, hide_default_value = true)]
    skip: u64,
    /// What a carriage return at the end of a line of tsv is: a part of the line's end (strip), or of the value (keep); without
    /// this it is kept, and said once
    #[arg(long, value_name = "HOW", value_enum)]
    crlf: Option<Crlf>,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(import: &Import) -> Result<(), Stop> {
    let mut options = import.connect.options()?;
    options.in_flight_max = import.in_flight as usize;
    let format = import.place.format()?;
    let (input, total) = open(import)?;
    let begun = Instant::now();
    let progress = Progress::new(total);
    let (batches, taken) = mpsc::channel(BATCHES_MAX);
    let skip = import.skip;
    let mut rows = RowReader::new(BufReader::with_capacity(READ_BYTES, input), format, import.crlf);
    pass_over(&mut rows, skip)?;
    std::thread::spawn(move || read(rows, &batches));
    let (in_flight, give_up) = (import.in_flight as usize, import.give_up);
    let ledger = with_options(options, async move |client| {
        let sender = Sender {
            client,
            taken,
            in_flight,
            give_up,
            ledger: Ledger::new(skip),
            progress,
            keys: HashSet::new(),
            bytes: 0,
            rows: JoinSet::new(),
            stopping: Arc::default(),
            moved: Instant::now(),
            told: false,
            failed: None,
        };
        // On the runtime's own thread, beside the connections.
        tokio::spawn(sender.run()).await.map_err(|_| Stop::unavailable("the import broke down"))?
    })?;
    let moved = Transfer { rows: ledger.acknowledged, bytes: ledger.bytes, time: begun.elapsed() };
    out::line(if import.output.json { moved.object().finish() } else { moved.text("imported").into_bytes() })
}

/// The input, uncompressed, and its length, if that is known.
fn open(import: &Import) -> Result<(Box<dyn Read + Send>, Option<u64>), Stop> {
    if import.place.is_standard() {
        return Ok((Box::new(std::io::stdin()), None));
    }
    let path = import.place.path();
    let name = path.display();
    let unreadable = |error| Stop::usage(format!("can't read {name}: {error}"));
    let file = File::open(path).map_err(unreadable)?;
    let about = file.metadata().map_err(unreadable)?;
    if about.is_dir() {
        return Err(Stop::usage(format!("can't read {name}: it is a directory")));
    }
    if is_gzip(path) {
        // Of several members, as `cat a.gz b.gz` makes them, all are read.
        let members = MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, file));
        return Ok((Box::new(members), None));
    }
    Ok((Box::new(file), about.is_file().then_some(about.len())))
}

/// What the reading thread hands over.
enum Batch {
    Rows(Vec<Row>),
    /// The input can't be read on; the last batch.
    Bad(BadInput),
}

/// Passes over so many lines, before anything is sent.
fn pass_over(rows: &mut RowReader<impl BufRead>, skip: u64) -> Result<(), Stop> {
    let lines = rows.skip(skip).map_err(|error| Stop::usage(format!("can't read the input: {error}")))?;
    if lines < skip {
        let lines = show::count(lines, "row", "rows");
        return Err(Stop::usage(format!(
            "--skip {skip} is beyond the end of the input, which has {lines}: nothing was imported; look whether it is the \
             file that was imported before, and whole"
        )));
    }
    Ok(())
}

fn read(mut rows: RowReader<BufReader<impl Read>>, batches: &mpsc::Sender<Batch>) {
    loop {
        let mut batch = Vec::with_capacity(BATCH_ROWS);
        let mut bytes = 0;
        let end = loop {
            let next = rows.next_row();
            for notice in rows.take_notices() {
                let _nobody_reads =
                    std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("ringfort: {notice}\n"));
            }
            match next {
                Ok(Some(row)) => {
                    bytes += row.weight();
                    batch.push(row);
                    // Rows of a slow input are not held back for more to come.
                    if batch.len() == BATCH_ROWS || bytes >= BATCH_BYTES || rows.would_wait() {
                        break None;
                    }
                }
                Ok(None) => break Some(None),
                Err(bad) => break Some(Some(bad)),
            }
        };
        if batches.blocking_send(Batch::Rows(batch)).is_err() {
            return;
        }
        match end {
            None => {}
            Some(None) => return,
            Some(Some(bad)) => {
                let _ = batches.blocking_send(Batch::Bad(bad));
                return;
            }
        }
    }
}

/// What came of one row.
struct Done {
    line: u64,
    key: Bytes,
    /// Bytes of its key and value.
    weight: usize,
    /// The failure that ended the sending, with the outcome over all attempts.
    result: Result<(), Failure>,
}

/// A row that is not written, or may not be.
struct Failed {
    line: u64,
    failure: Failure,
}

struct Sender {
    client: Client,
    taken: mpsc::Receiver<Batch>,
    in_flight: usize,
    give_up: Duration,
    ledger: Ledger,
    progress: Progress,
    /// Keys under way.
    keys: HashSet<Bytes>,
    /// Bytes of rows under way.
    bytes: usize,
    rows: JoinSet<Done>,
    /// Tells rows not to try again.
    stopping: Arc<AtomicBool>,
    /// When the last row was acknowledged.
    moved: Instant,
    /// Whether it has been said that none has been since for a while.
    told: bool,
    /// The row that ended the import.
    failed: Option<Failed>,
}

impl Sender {
    /// Sends all rows; the account if it went well.
    async fn run(mut self) -> Result<Ledger, Stop> {
        let mut signals = Signals::new()?;
        let client = self.client.clone();
        let ended = tokio::select! {
            ended = self.send_all() => ended,
            stop = nobody_there(&client) => {
                self.rows.abort_all();
                Err(stop)
            }
            _ = signals.next() => Err(Stop::unavailable("interrupted")),
        };
        let Err(stop) = ended else { return Ok(self.ledger) };
        self.stopping.store(true, Ordering::Relaxed);
        self.progress.say("stopping: waiting for what is under way");
        // Each row ends within its time-out. The first one that did not succeed says most.
        let mut first = self.failed.take();
        while let Some(done) = self.rows.join_next().await {
            match done {
                Ok(done) => {
                    if let Err(failed) = self.settle(done)
                        && first.as_ref().is_none_or(|first| failed.line < first.line)
                    {
                        first = Some(failed);
                    }
                }
                // Ended from here: as long as nobody has been heard of, nothing has been sent.
                Err(_) if client.unheard().is_some() => self.ledger.refused += 1,
                Err(_) => self.ledger.unknown += 1,
            }
        }
        let mut message = format!("import stopped: {}", stop.message);
        if let Some(Failed { line, failure }) = first {
            let _ = write!(message, "; line {line}: {failure}");
        }
        Err(Stop { code: stop.code, message: format!("{message}; {}", self.ledger.account()) })
    }

    async fn send_all(&mut self) -> Result<(), Stop> {
        while let Some(batch) = self.taken.recv().await {
            match batch {
                Batch::Rows(rows) => {
                    for row in rows {
                        self.send(row).await?;
                    }
                    self.progress.set(self.ledger.bytes, self.ledger.acknowledged);
                }
                Batch::Bad(bad) => {
                    // What came before it is good, and is finished first.
                    while !self.rows.is_empty() {
                        self.next_done().await?;
                    }
                    return Err(match bad {
                        BadInput::Line(line, why) => Stop::usage(format!("line {line}: {why}")),
                        BadInput::Io(line, error) => {
                            Stop::usage(format!("can't read the input from line {line} on: {error}"))
                        }
                    });
                }
            }
            if self.moved.elapsed() > self.give_up && self.rows.is_empty() {
                // The input was slow, not the cluster.
                self.moved = Instant::now();
            }
        }
        while !self.rows.is_empty() {
            self.next_done().await?;
            self.progress.set(self.ledger.bytes, self.ledger.acknowledged);
        }
        Ok(())
    }

    async fn send(&mut self, row: Row) -> Result<(), Stop> {
        while !self.has_room_for(&row) {
            self.next_done().await?;
        }
        if self.rows.is_empty() {
            self.moved = Instant::now();
        }
        self.ledger.take(row.line);
        self.keys.insert(row.key.clone());
        self.bytes += row.weight();
        self.rows.spawn(write(self.client.clone(), row, self.stopping.clone()));
        // Takes what is done without waiting for it, so that the account keeps up with a slow input.
        while let Some(Ok(done)) = self.rows.try_join_next() {
            self.judge(done)?;
        }
        Ok(())
    }

    /// Whether this row may be sent now: rows, bytes and the ledger are bounded, and a key is under way once.
    fn has_room_for(&self, row: &Row) -> bool {
        let bytes = self.bytes + row.weight();
        self.rows.len() < self.in_flight
            && (bytes <= IN_FLIGHT_BYTES_MAX || self.rows.is_empty())
            && self.ledger.has_room()
            && !self.keys.contains(&row.key)
    }

    /// Waits until something is done; says so if that takes long, and gives up if it is too long.
    async fn next_done(&mut self) -> Result<(), Stop> {
        let give_up = self.moved + self.give_up;
        loop {
            let silent = self.moved + SILENT_MAX;
            let until = if self.told || silent > give_up { give_up } else { silent };
            match tokio::time::timeout_at(until.into(), self.rows.join_next()).await {
                Ok(Some(Ok(done))) => return self.judge(done),
                Ok(Some(Err(_))) => return Err(Stop::unavailable("a row's task broke down")),
                Ok(None) => return Ok(()),
                Err(_) if until < give_up => self.tell_of_silence(),
                Err(_) => {
                    let time = show::span(self.give_up);
                    return Err(Stop::unavailable(format!("no row could be written for {time}")));
                }
            }
        }
    }

    /// Says, once until the next row is written, that none is. While no node has answered yet, that is said instead.
    fn tell_of_silence(&mut self) {
        self.told = true;
        if self.client.unheard().is_none() {
            let (silent, give_up) = (show::span(SILENT_MAX), show::span(self.give_up));
            self.progress.note(&format!(
                "ringfort: no row could be written for {silent}; trying on until it has been {give_up} (--give-up)"
            ));
        }
    }

    /// Ends the import if a row has failed for good.
    fn judge(&mut self, done: Done) -> Result<(), Stop> {
        self.settle(done).map_err(|failed| {
            let code = code_of(&failed.failure);
            self.failed = Some(failed);
            Stop { code, message: "a row was refused".into() }
        })
    }

    /// Enters a row in the account.
    fn settle(&mut self, done: Done) -> Result<(), Failed> {
        self.keys.remove(&done.key);
        self.bytes -= done.weight;
        match done.result {
            Ok(()) => {
                self.moved = Instant::now();
                self.told = false;
                self.ledger.acknowledge(done.line, done.weight as u64);
                Ok(())
            }
            Err(failure) => {
                match failure.outcome {
                    Outcome::Unknown => self.ledger.unknown += 1,
                    Outcome::Rejected => self.ledger.refused += 1,
                }
                Err(Failed { line: done.line, failure })
            }
        }
    }
}

/// Writes one row, however often it takes; fails only if that can't help, or when the import is stopping.
async fn write(client: Client, row: Row, stopping: Arc<AtomicBool>) -> Done {
    let mut unknown = false;
    let result = loop {
        match client.put(row.key.clone(), row.value.clone()).await {
            Ok(_) => break Ok(()),
            Err(failure) => {
                unknown |= failure.outcome == Outcome::Unknown;
                let hopeless =
                    matches!(failure.code, Code::InvalidArgument | Code::FailedPrecondition | Code::DataLoss);
                if hopeless || stopping.load(Ordering::Relaxed) {
                    let outcome = if unknown { Outcome::Unknown } else { Outcome::Rejected };
                    break Err(Failure { outcome, ..failure });
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
    };
    Done { line: row.line, weight: row.weight(), key: row.key, result }
}
