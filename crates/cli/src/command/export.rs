//! `ringfort export FILE|-`

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use ringfort_client::{Client, List};
use tokio_stream::StreamExt;

use crate::args::Connect;
use crate::connection::with_client;
use crate::escape::row_into;
use crate::out::{self, Out};
use crate::progress::Progress;
use crate::show;
use crate::signals::Signals;
use crate::stop::Stop;

/// Rows between two looks of the progress line.
const PROGRESS_ROWS: u64 = 1024;

/// Write all rows to a file or stdout in key order, a line each, as `import` reads them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort export rows.tsv\n  ringfort export - | gzip > rows.tsv.gz\n\n\
    A file appears under its name only when it is complete and on disk; until then, an older one stays.")]
pub(crate) struct Export {
    /// The file; `-` for stdout
    file: PathBuf,
    #[command(flatten)]
    pub(crate) connect: Connect,
}

pub(crate) fn run(export: &Export) -> Result<(), Stop> {
    let begun = Instant::now();
    let (rows, bytes) = if export.file.as_os_str() == "-" {
        with_client(&export.connect, async |client| {
            let mut out = Out::new();
            let copied = copy(&client, |line| out.write(line)).await?;
            out.flush()?;
            Ok(copied)
        })?
    } else {
        let mut part = Part::create(&export.file)?;
        let copied = with_client(&export.connect, async |client| {
            // An unfinished file does not stay behind.
            let mut signals = Signals::new()?;
            tokio::select! {
                copied = copy(&client, |line| part.write(line)) => copied,
                asked = signals.next() => Err(asked.stop()),
            }
        })?;
        part.finish()?;
        copied
    };
    let time = begun.elapsed();
    let summary = format!(
        "exported {}, {} in {} ({} rows/s)",
        show::count(rows, "row", "rows"),
        show::bytes(bytes),
        show::span(time),
        show::rate(rows, time)
    );
    if export.file.as_os_str() == "-" {
        let _ = writeln!(io::stderr(), "{summary}");
        Ok(())
    } else {
        out::line(summary)
    }
}

/// Gives every row's line to `write`; counts rows and bytes.
async fn copy(client: &Client, mut write: impl FnMut(&[u8]) -> Result<(), Stop>) -> Result<(u64, u64), Stop> {
    let mut rows = client.list(List::default()).await?;
    let progress = Progress::new(None);
    let mut line = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next().await {
        let (key, value) = row.map_err(|failure| {
            let stop = Stop::from(failure);
            Stop { message: format!("export stopped after {count} rows: {}", stop.message), ..stop }
        })?;
        line.clear();
        row_into(&mut line, &key, Some(&value));
        write(&line)?;
        count += 1;
        bytes += (key.len() + value.len()) as u64;
        if count % PROGRESS_ROWS == 0 {
            progress.set(bytes, count);
        }
    }
    Ok((count, bytes))
}

/// A file that is not there until it is complete. Removed if it never is.
struct Part {
    file: Option<BufWriter<File>>,
    path: PathBuf,
    name: PathBuf,
}

impl Part {
    fn create(name: &Path) -> Result<Part, Stop> {
        let failed = |error: &dyn std::fmt::Display| {
            Stop::usage(format!("can't write {}: {error}; choose another place", name.display()))
        };
        if name.is_dir() {
            return Err(failed(&"it is a directory"));
        }
        let Some(last) = name.file_name() else { return Err(failed(&"it is no file name")) };
        let mut part = std::ffi::OsString::from(".");
        part.push(last);
        part.push(format!(".part-{}", std::process::id()));
        let path = name.with_file_name(part);
        let file = File::create_new(&path).map_err(|error| failed(&error))?;
        Ok(Part { file: Some(BufWriter::with_capacity(256 * 1024, file)), path, name: name.to_owned() })
    }

    fn failed(&self, error: &io::Error) -> Stop {
        Stop::unavailable(format!("can't write {}: {error}; it is as it was before", self.name.display()))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        match self.file.as_mut().map(|file| file.write_all(bytes)) {
            Some(Err(error)) => Err(self.failed(&error)),
            _ => Ok(()),
        }
    }

    /// Puts the file under its name, durably: first its bytes, then its name, then its directory.
    fn finish(mut self) -> Result<(), Stop> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let written = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| {
            file.sync_all()?;
            fs::rename(&self.path, &self.name)
        });
        if let Err(error) = written {
            let _ = fs::remove_file(&self.path);
            return Err(self.failed(&error));
        }
        let directory = self.name.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new("."))).and_then(|directory| directory.sync_all()).map_err(
            |error| {
                let name = self.name.display();
                Stop::unavailable(format!("{name} is complete, but may not survive a power failure: {error}"))
            },
        )
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_appears_when_it_is_complete_and_not_before() {
        let directory = tempfile::tempdir().unwrap();
        let name = directory.path().join("rows.tsv");
        fs::write(&name, "old").unwrap();
        let mut part = Part::create(&name).unwrap();
        part.write(b"new").unwrap();
        drop(part);
        assert_eq!(fs::read(&name).unwrap(), b"old");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        let mut part = Part::create(&name).unwrap();
        part.write(b"new").unwrap();
        part.finish().unwrap();
        assert_eq!(fs::read(&name).unwrap(), b"new");
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_place_that_can_not_be_written_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        for name in [directory.path().to_owned(), directory.path().join("no/rows.tsv"), PathBuf::from("/")] {
            assert_eq!(Part::create(&name).map(|_| ()).map_err(|stop| stop.code), Err(2));
        }
    }
}
