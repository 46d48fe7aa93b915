//! A secret that is typed: asked for on the terminal, and not shown there.
//!
//! The terminal gives each key at once meanwhile, Ctrl+C among them, so that it is as before whatever is typed.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr};

use crate::stop::Stop;

/// What no secret is longer than.
const BYTES_MAX: usize = 1024;

/// Asks; none if there is no terminal to ask on.
pub(crate) fn ask(question: &str) -> Result<Option<String>, Stop> {
    if !io::stderr().is_terminal() {
        return Ok(None);
    }
    let Ok(mut terminal) = OpenOptions::new().read(true).write(true).open("/dev/tty") else {
        return Ok(None);
    };
    let failed = |error: io::Error| Stop::usage(format!("can't ask on the terminal: {error}"));
    let before = tcgetattr(&terminal).map_err(|error| failed(error.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    silent.special_codes[SpecialCodeIndex::VMIN] = 1;
    silent.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&terminal, OptionalActions::Flush, &silent).map_err(|error| failed(error.into()))?;
    let restored = Restored { terminal: terminal.try_clone().map_err(failed)?, before };
    terminal.write_all(question.as_bytes()).map_err(failed)?;
    let typed = typed(&mut terminal);
    let _ = terminal.write_all(b"\r\n");
    drop(restored);
    let typed = typed.map_err(failed)?.ok_or_else(|| Stop::silent(130))?;
    let text = String::from_utf8(typed).map_err(|_| Stop::usage("what was typed is not UTF-8"))?;
    if text.is_empty() { Err(Stop::usage("nothing was typed")) } else { Ok(Some(text)) }
}

/// Gives the terminal back as it was.
struct Restored {
    terminal: File,
    before: Termios,
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _gone = tcsetattr(&self.terminal, OptionalActions::Now, &self.before);
    }
}

/// A line; none if it is broken off.
fn typed(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let (mut line, mut key) = (Vec::new(), [0]);
    loop {
        if input.read(&mut key)? == 0 {
            return Ok(None);
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(Some(line)),
            // Ctrl+C and Ctrl+D.
            3 | 4 => return Ok(None),
            // Backspace takes a character with all its bytes.
            8 | 127 => while line.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {},
            // Ctrl+U.
            21 => line.clear(),
            byte if line.len() < BYTES_MAX => line.push(byte),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_make_a_line() {
        for (keys, line) in [
            (&b"secret\r"[..], Some("secret")),
            (b"secrex\x7ft\nmore", Some("secret")),
            ("g\u{e9}\x7f\x7fh\n".as_bytes(), Some("h")),
            (b"wrong\x15right\n", Some("right")),
            (b"\x7f\n", Some("")),
            (b"half\x03", None),
            (b"half\x04", None),
            (b"half", None),
        ] {
            let read = typed(&mut &keys[..]).expect("memory can be read");
            assert_eq!(read.as_deref(), line.map(str::as_bytes), "{keys:?}");
        }
    }
}
