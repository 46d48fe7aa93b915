//! How far a long command has come: a line on stderr that is drawn over, on a terminal only.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::show;

/// The line, or nothing if nobody watches.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// `total` in bytes, if it is known.
    pub(crate) fn new(total: Option<u64>) -> Progress {
        if !std::io::stderr().is_terminal() {
            return Progress(None);
        }
        let template = if total.is_some() { "{bar:30} {percent:>3}%  {msg}" } else { "{spinner}  {msg}" };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style);
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress(Some(bar))
    }

    /// So many bytes and rows are done.
    pub(crate) fn set(&self, bytes: u64, rows: u64) {
        if let Some(bar) = &self.0 {
            bar.set_position(bytes);
            let rate = show::rate(rows, bar.elapsed());
            let rows = show::grouped_count(rows, "row", "rows");
            bar.set_message(format!("{rows}, {}, {rate} rows/s", show::bytes(bytes)));
        }
    }

    /// Says something beside it, in a line that stays.
    pub(crate) fn note(&self, line: &str) {
        match &self.0 {
            Some(bar) => bar.println(line),
            None => {
                let _nobody_reads = writeln!(std::io::stderr(), "{line}");
            }
        }
    }

    /// Says something instead.
    pub(crate) fn say(&self, text: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(text.to_owned());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
