//! The tolerance file: `TOLERANCE=N`, read again when it changes.
//!
//! The key may be in any case, with spaces around it and the number; `#` begins a comment; empty lines do not count. N is 1
//! to 7. A file that can't be read, or makes no sense, is said so, once, and the last good number stays in force.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

/// How often the file is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The numbers that make sense.
const NUMBERS: std::ops::RangeInclusive<u32> = 1..=7;
/// The longest file that is read.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// So much is shown of a line that makes no sense.
const SHOWN_CHARS: usize = 40;

/// The number that the file says.
pub(crate) fn read(path: &Path) -> Result<u32, String> {
    let mut text = String::new();
    open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| format!("can't read {}: {error}", path.display()))?;
    parse(text.trim_start_matches('\u{feff}')).map_err(|why| format!("{}: {why}", path.display()))
}

/// Without waiting, which opening a pipe does until somebody writes to it.
fn open(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn parse(text: &str) -> Result<u32, String> {
    let mut found = None;
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        // What it says instead is told, so that another mistake is another complaint.
        let said: String = line.chars().take(SHOWN_CHARS).collect();
        let wrong = || format!("line {number} is not TOLERANCE=N with N from 1 to 7: {said:?}");
        let (key, value) = line.split_once('=').ok_or_else(wrong)?;
        if !key.trim().eq_ignore_ascii_case("TOLERANCE") {
            return Err(wrong());
        }
        let value = value.trim().parse().ok().filter(|value| NUMBERS.contains(value)).ok_or_else(wrong)?;
        if found.replace(value).is_some() {
            return Err(format!("line {number} says TOLERANCE a second time"));
        }
    }
    found.ok_or_else(|| "it does not say TOLERANCE=N".to_owned())
}

/// Follows the file for as long as it is polled: `set` gets each new number, `complain` each new trouble.
pub(crate) async fn follow(path: &Path, first: u32, set: impl Fn(u32), complain: impl Fn(&str)) {
    let mut last = Ok(first);
    loop {
        tokio::time::sleep(LOOK).await;
        let path = path.to_owned();
        let Ok(now) = tokio::task::spawn_blocking(move || read(&path)).await else { return };
        if now == last {
            continue;
        }
        match &now {
            Ok(number) => set(*number),
            Err(why) => complain(why),
        }
        last = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_found_among_comments_in_any_case() {
        for text in
            ["TOLERANCE=2", "tolerance = +2\n", "# how many\n\n  Tolerance=2   # besides the leader\r\n"]
        {
            assert_eq!(parse(text), Ok(2), "{text:?}");
        }
    }

    #[test]
    fn a_mark_of_byte_order_does_not_count_and_a_pipe_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("tolerance.conf");
        std::fs::write(&file, "\u{feff}TOLERANCE=3\n").unwrap();
        assert_eq!(read(&file), Ok(3));
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(read(&pipe).unwrap_err().contains("no regular file"));
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (text, why) in [
            ("", "does not say"),
            ("TOLERANCE", "line 1"),
            ("# x\nTOLERANCE=0", "line 2"),
            ("TOLERANCE=8", "line 1 is not TOLERANCE=N with N from 1 to 7: \"TOLERANCE=8\""),
            ("TOLERANCE=two", "line 1"),
            ("LEVEL=2", "line 1"),
            ("TOLERANCE=1\nTOLERANCE=2", "a second time"),
        ] {
            let told = parse(text).unwrap_err();
            assert!(told.contains(why), "{text:?}: {told}");
        }
    }
}
