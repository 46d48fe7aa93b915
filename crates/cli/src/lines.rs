//! Lines of an input, each in bounded memory.

use std::io::{self, BufRead};

/// Puts the next line, without its end, into `line`; false at the end of the input. Of a line longer than `max`, a
/// little more than `max` bytes are taken, so that the caller can see that it is.
pub(crate) fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, max: usize) -> io::Result<bool> {
    line.clear();
    let mut begun = false;
    loop {
        let buffer = match input.fill_buf() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            other => other?,
        };
        if buffer.is_empty() {
            return Ok(begun);
        }
        begun = true;
        let end = buffer.iter().position(|&b| b == b'\n');
        line.extend_from_slice(&buffer[..end.unwrap_or(buffer.len())]);
        let used = end.map_or(buffer.len(), |end| end + 1);
        input.consume(used);
        if end.is_some() || line.len() > max {
            return Ok(true);
        }
    }
}
