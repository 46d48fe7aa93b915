//! The file that lines go to, and the thread that writes them.
//!
//! It is only appended to. Once a second it is looked whether the file at its path is another one, or none: then it has been moved away, and a
//! new one is made. It is opened again at once when that is asked for, whatever is at its path. A line that could be written in part goes on where it ended, or, if it is given up, has its end before the next one.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::doors::throttle::Throttle;
use crate::metrics::Counter;

/// How often it is looked whether the file was moved away.
const LOOK: Duration = Duration::from_secs(1);
/// How soon a line that must be written is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// A line on its way.
#[derive(Debug)]
pub(crate) struct Entry {
    /// With its end; nothing, if somebody wants to know that all before it is written.
    pub(super) line: Vec<u8>,
    /// Is told whether it is written.
    pub(super) written: Option<oneshot::Sender<bool>>,
}

/// What is known of the file, by all.
#[derive(Debug)]
pub(super) struct State {
    path: String,
    is_failing: AtomicBool,
    /// It is to be opened again.
    reopen: AtomicBool,
    why: Mutex<String>,
    dropped: Counter,
    told: Arc<Throttle>,
}

impl State {
    pub(super) fn new(path: &Path) -> State {
        State {
            path: path.display().to_string(),
            is_failing: AtomicBool::new(false),
            reopen: AtomicBool::new(false),
            why: Mutex::default(),
            dropped: Counter::default(),
            told: Throttle::new("lines of the audit log could not be written"),
        }
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    /// Why a line waits that could not be written, if one does.
    pub(super) fn failing(&self) -> Option<String> {
        let is_failing = self.is_failing.load(Ordering::Acquire);
        is_failing.then(|| self.why.lock().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// Has it opened again before the next line is written.
    pub(super) fn reopen(&self) {
        self.reopen.store(true, Ordering::Release);
    }

    fn fails(&self, error: &io::Error) {
        *self.why.lock().unwrap_or_else(PoisonError::into_inner) = error.to_string();
        if !self.is_failing.swap(true, Ordering::AcqRel) {
            tracing::warn!(
                "the audit log {} takes no lines ({error}): what must have one is refused until it does",
                self.path
            );
        }
    }

    fn works(&self) {
        if self.is_failing.swap(false, Ordering::AcqRel) {
            tracing::warn!("the audit log {} takes lines again", self.path);
        }
    }

    /// A line is dropped.
    pub(super) fn drop_one(&self, why: &str) {
        self.dropped.add(1);
        // Without one, the node is ending.
        if Handle::try_current().is_ok() {
            self.told.warn(|| {
                format!(
                    "the audit log {} takes no lines ({why}): they are dropped, and counted in ringfort_audit_dropped_total",
                    self.path
                )
            });
        }
    }
}

/// The file, open.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    /// It ends within a line.
    is_torn: bool,
}

impl AuditFile {
    /// Opens it, or makes it, for its owner alone.
    pub(crate) fn open(path: &Path) -> io::Result<AuditFile> {
        // To open one would wait for a reader.
        if std::fs::metadata(path).is_ok_and(|there| there.file_type().is_fifo()) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe"));
        }
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        let is_torn = ends_within_a_line(path, &file.metadata()?);
        Ok(AuditFile { path: path.to_owned(), file, looked: Instant::now(), is_torn })
    }

    /// Writes what is left of a line. An error leaves `done` where it came to.
    fn write(&mut self, line: &[u8], done: &mut usize) -> io::Result<()> {
        if self.looked.elapsed() >= LOOK {
            self.look(done)?;
        }
        if self.is_torn && *done == 0 {
            self.file.write_all(b"\n")?;
            self.is_torn = false;
        }
        while *done < line.len() {
            match self.file.write(&line[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => *done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The file that is at the path now. In another one, a line begins anew.
    fn look(&mut self, done: &mut usize) -> io::Result<()> {
        let own = self.file.metadata()?;
        let is_same = std::fs::metadata(&self.path)
            .is_ok_and(|there| (there.dev(), there.ino()) == (own.dev(), own.ino()));
        if is_same {
            self.looked = Instant::now();
        } else {
            *self = AuditFile::open(&self.path)?;
            *done = 0;
        }
        Ok(())
    }
}

fn ends_within_a_line(path: &Path, of: &Metadata) -> bool {
    if !of.is_file() || of.len() == 0 {
        return false;
    }
    let mut last = [b'\n'];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut last, of.len() - 1));
    read.is_ok() && last != [b'\n']
}

/// Begins to write lines as they come, until nobody sends any more. To be called on a runtime.
pub(super) fn start(
    file: AuditFile,
    lines: mpsc::Receiver<Entry>,
    state: Arc<State>,
    required: bool,
) -> io::Result<()> {
    let runtime = Handle::current();
    let writing = std::thread::Builder::new().name("audit".to_owned());
    writing.spawn(move || {
        let _for_throttled_lines = runtime.enter();
        write_all(file, lines, &state, required);
    })?;
    Ok(())
}

fn write_all(mut file: AuditFile, mut lines: mpsc::Receiver<Entry>, state: &State, required: bool) {
    while let Some(Entry { line, written }) = lines.blocking_recv() {
        let mut done = 0;
        if state.reopen.swap(false, Ordering::AcqRel) {
            match AuditFile::open(&file.path) {
                Ok(again) => {
                    file = again;
                    tracing::warn!("the audit log {} is opened again", state.path);
                }
                Err(error) => tracing::warn!(
                    "the audit log {} can't be opened again ({error}): it goes on in the file that it had",
                    state.path
                ),
            }
        }
        let is_written = loop {
            match file.write(&line, &mut done) {
                Ok(()) => break true,
                Err(error) if required => {
                    state.fails(&error);
                    if lines.is_closed() {
                        break false;
                    }
                    std::thread::sleep(AGAIN);
                }
                Err(error) => {
                    file.is_torn |= done > 0;
                    state.drop_one(&error.to_string());
                    break false;
                }
            }
        };
        if is_written {
            state.works();
        }
        if let Some(written) = written {
            let _gone = written.send(is_written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_ends_before_the_next_one() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("audit");
        std::fs::write(&path, "{\"cut").expect("written");
        for _ in 0..2 {
            let mut file = AuditFile::open(&path).expect("it can be opened");
            file.write(b"{}\n", &mut 0).expect("there is room");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{\"cut\n{}\n{}\n");
    }

    #[test]
    fn a_line_goes_on_where_it_was_cut_and_begins_anew_in_another_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, moved) = (directory.path().join("audit"), directory.path().join("audit.1"));
        let mut file = AuditFile::open(&path).expect("it can be opened");
        file.write(b"{\"half", &mut 0).expect("there is room");
        file.write(b"{\"half\":1}\n", &mut 6).expect("there is room");
        std::fs::rename(&path, &moved).expect("moved");
        file.looked -= LOOK;
        file.write(b"{\"half\":2}\n", &mut 6).expect("there is room");
        assert_eq!(std::fs::read_to_string(&moved).expect("there"), "{\"half\":1}\n");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "{\"half\":2}\n");
    }
}
