//! A file that appears under its name when it is complete, and on disk, and not before.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::format::is_gzip;
use crate::stop::Stop;

const BUFFER_BYTES: usize = 256 * 1024;

/// A file that is not there until it is complete. Removed if it never is.
#[derive(Debug)]
pub(crate) struct Part {
    /// None once it has been put under its name.
    file: Option<Writer>,
    path: PathBuf,
    name: PathBuf,
}

#[derive(Debug)]
enum Writer {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
}

impl Part {
    /// Makes a file beside `name`, compressed if `name` says so.
    pub(crate) fn create(name: &Path) -> Result<Part, Stop> {
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
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let file = if is_gzip(name) {
            // Its header holds no time and no name: what is written depends on the rows alone.
            Writer::Gzip(GzEncoder::new(file, Compression::default()))
        } else {
            Writer::Plain(file)
        };
        Ok(Part { file: Some(file), path, name: name.to_owned() })
    }

    fn failed(&self, error: &io::Error) -> Stop {
        Stop::unavailable(format!("can't write {}: {error}; it is as it was before", self.name.display()))
    }

    /// Writes these bytes, sooner or later.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let written = match &mut self.file {
            None => Ok(()),
            Some(Writer::Plain(file)) => file.write_all(bytes),
            Some(Writer::Gzip(file)) => file.write_all(bytes),
        };
        written.map_err(|error| self.failed(&error))
    }

    /// Puts the file under its name, durably: first its bytes, then its name, then its directory.
    pub(crate) fn finish(mut self) -> Result<(), Stop> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let buffer = match file {
            Writer::Plain(file) => Ok(file),
            Writer::Gzip(file) => file.finish(),
        };
        let whole = buffer.and_then(|buffer| buffer.into_inner().map_err(io::IntoInnerError::into_error));
        let written = whole.and_then(|file| {
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
    use std::io::Read;

    use flate2::read::GzDecoder;

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
    fn what_is_compressed_is_so_byte_for_byte_again() {
        let directory = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let name = directory.path().join(name);
            let mut part = Part::create(&name).unwrap();
            part.write(b"a\t1\n").unwrap();
            part.write(b"b\t2\n").unwrap();
            part.finish().unwrap();
            fs::read(&name).unwrap()
        };
        let bytes = write("a.tsv.gz");
        let mut text = String::new();
        GzDecoder::new(&bytes[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "a\t1\nb\t2\n");
        assert_eq!(write("b.tsv.gz"), bytes);
    }

    #[test]
    fn a_place_that_can_not_be_written_is_wrong_usage() {
        let directory = tempfile::tempdir().unwrap();
        for name in [directory.path().to_owned(), directory.path().join("no/rows.tsv"), PathBuf::from("/")] {
            assert_eq!(Part::create(&name).map(|_| ()).map_err(|stop| stop.code), Err(2));
        }
    }
}
