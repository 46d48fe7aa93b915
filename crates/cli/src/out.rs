//! Standard output: for people or as JSON, buffered, and free to be closed by its reader at any time.
//!
//! Nothing here panics on a closed pipe, as `println!` would: the writing fails with a [`Stop`] that ends the
//! process quietly.

use std::io::{BufWriter, StdoutLock, Write};

use clap::Args;

use crate::stop::Stop;

const BUFFER_BYTES: usize = 64 * 1024;

/// How to print.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    pub(crate) fn new() -> Out {
        Out(BufWriter::with_capacity(BUFFER_BYTES, std::io::stdout().lock()))
    }

    /// Writes these bytes, sooner or later.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        self.0.write_all(bytes).map_err(|error| Stop::stdout(&error))
    }

    /// Writes a line and everything before it, now.
    pub(crate) fn line(&mut self, line: impl AsRef<[u8]>) -> Result<(), Stop> {
        self.write(line.as_ref())?;
        self.write(b"\n")?;
        self.flush()
    }

    /// Writes everything, now.
    pub(crate) fn flush(&mut self) -> Result<(), Stop> {
        self.0.flush().map_err(|error| Stop::stdout(&error))
    }
}

/// Writes one line to stdout.
pub(crate) fn line(line: impl AsRef<[u8]>) -> Result<(), Stop> {
    Out::new().line(line)
}
