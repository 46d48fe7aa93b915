//! Reads rows for `import`: one line at a time, in bounded memory, whatever the input holds.
//!
//! A line is refused, with its number, if it is no row in the format asked for (no tab or more than one, a bad escape,
//! no object with a key and a value), has an empty key, or something over its limit. Nothing is skipped: an input that is not what it should be is stopped at.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use clap::ValueEnum;
use ringfort_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::escape::unescape_into;
use crate::format::Format;
use crate::json;
use crate::lines::read_line;

/// UTF-8's, which some editors put in front of a text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// What a text in UTF-16 begins with, of either byte order: its bytes would be read as keys and values, each second one of them
/// a zero.
const UTF_16: [[u8; 2]; 2] = [[0xff, 0xfe], [0xfe, 0xff]];
/// What a gzip file begins with: magic, and the one method there is.
const GZIP: [u8; 3] = [0x1f, 0x8b, 8];

/// One row of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its line, from 1.
    pub(crate) line: u64,
    /// Within its limits.
    pub(crate) key: Bytes,
    /// Within its limits.
    pub(crate) value: Bytes,
}

impl Row {
    /// Bytes of its key and value.
    pub(crate) fn weight(&self) -> usize {
        self.key.len() + self.value.len()
    }
}

/// What becomes of a carriage return at the end of a line of tab-separated rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Crlf {
    // Not doc comments: clap would print them, and make a page of the help.
    // It belongs to the line's end.
    Strip,
    // It belongs to the value.
    Keep,
}

/// Why the reading ended early.
#[derive(Debug)]
pub(crate) enum BadInput {
    /// This line is no row.
    Line(u64, String),
    /// The input itself failed, in this line.
    Io(u64, io::Error),
}

/// Rows from an input.
#[derive(Debug)]
pub(crate) struct RowReader<R> {
    input: R,
    format: Format,
    /// Lines taken so far.
    lines: u64,
    /// The present line, without its end.
    line: Vec<u8>,
    /// As the user says, if they do.
    crlf: Option<Crlf>,
    /// What was kept although it may not be meant, until it is taken.
    notices: Vec<String>,
    /// Some line has ended with a carriage return.
    has_returns: bool,
}

impl<R: Read> RowReader<BufReader<R>> {
    /// Whether the next row may have to be waited for.
    pub(crate) fn would_wait(&self) -> bool {
        self.input.buffer().is_empty()
    }
}

impl<R: BufRead> RowReader<R> {
    /// Reads from the start of `input`.
    pub(crate) fn new(input: R, format: Format, crlf: Option<Crlf>) -> RowReader<R> {
        RowReader { input, format, lines: 0, line: Vec::new(), crlf, notices: Vec::new(), has_returns: false }
    }

    /// What was kept although it may not be meant: said once.
    pub(crate) fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Of a file that came from elsewhere: ends of lines with a carriage return, and a byte-order mark. Both may be meant.
    fn look_at_ends(&mut self) {
        if self.lines == 1 && self.line.starts_with(BYTE_ORDER_MARK) {
            self.notices.push(
                "the first key begins with a byte-order mark (EF BB BF), which is kept: if it is not meant, delete that key and import \
                 the file without its first three bytes"
                    .into(),
            );
        }
        if self.line.last() != Some(&b'\r') {
            return;
        }
        match self.crlf {
            Some(Crlf::Keep) => {}
            Some(Crlf::Strip) => {
                self.line.pop();
            }
            None if self.has_returns => {}
            None => {
                let line = self.lines;
                self.notices.push(format!(
                    "line {line} ends with a carriage return, which is kept as part of the value, as in all such lines: --crlf strip \
                     takes it for a part of the line's end, --crlf keep says that it is meant"
                ));
            }
        }
        self.has_returns = true;
    }

    /// Passes over `count` lines without looking into them; returns how many there were.
    pub(crate) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut begun = false;
        while self.lines < count {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                self.lines += u64::from(begun);
                break;
            }
            let end = buffer.iter().position(|&b| b == b'\n');
            let used = end.map_or(buffer.len(), |end| end + 1);
            self.lines += u64::from(end.is_some());
            begun = end.is_none();
            self.input.consume(used);
        }
        Ok(self.lines)
    }

    /// The next row, or `None` at the end.
    pub(crate) fn next_row(&mut self) -> Result<Option<Row>, BadInput> {
        let line = self.lines + 1;
        let read = read_line(&mut self.input, &mut self.line, self.format.line_bytes_max());
        if !read.map_err(|error| BadInput::Io(line, error))? {
            return Ok(None);
        }
        self.lines = line;
        // A key may begin like that; but in UTF-16 tabs and digits have a zero, too.
        let has_mark = UTF_16.iter().any(|mark| self.line.starts_with(mark));
        if line == 1 && has_mark && self.line.contains(&0) {
            let why = "this is UTF-16, which import does not read: make it UTF-8 (`iconv -f UTF-16 -t UTF-8 FILE | ringfort import -`)";
            return Err(BadInput::Line(line, why.to_owned()));
        }
        if self.format == Format::Tsv {
            self.look_at_ends();
        }
        parse(line, &self.line, self.format)
            .map(Some)
            .map_err(|why| BadInput::Line(line, format!("{why}{}", hint(line, &self.line, self.format))))
    }
}

/// What an input whose first line is no row may be instead.
fn hint(line: u64, text: &[u8], format: Format) -> &'static str {
    match text.first() {
        _ if line > 1 => "",
        Some(_) if text.starts_with(&GZIP) => {
            " (this is gzip: call the file .gz, or use `zcat FILE | ringfort import -`)"
        }
        Some(_) if format == Format::Jsonl && text.starts_with(BYTE_ORDER_MARK) => {
            " (the file begins with a byte-order mark: leave out its first three bytes)"
        }
        Some(b'{') if format == Format::Tsv => " (for JSON lines, say --format jsonl)",
        Some(_) if format == Format::Jsonl && text.contains(&b'\t') => {
            " (for key, tab, value, say --format tsv)"
        }
        _ => "",
    }
}

fn parse(line: u64, text: &[u8], format: Format) -> Result<Row, String> {
    // One buffer for both, so that a row is one allocation.
    let mut row = Vec::with_capacity(text.len().min(KEY_BYTES_MAX + VALUE_BYTES_MAX));
    let split = match format {
        _ if text.len() > format.line_bytes_max() => return Err(value_too_long()),
        Format::Tsv => parse_tsv(&mut row, text)?,
        Format::Jsonl => json::parse_row(&mut row, text)?,
    };
    if split == 0 {
        return Err(format!("empty key: a key has 1 to {KEY_BYTES_MAX} bytes"));
    }
    if split > KEY_BYTES_MAX {
        return Err(format!("key of {split} bytes: the limit is {KEY_BYTES_MAX}"));
    }
    if row.len() - split > VALUE_BYTES_MAX {
        return Err(value_too_long());
    }
    let row = Bytes::from(row);
    Ok(Row { line, key: row.slice(..split), value: row.slice(split..) })
}

fn value_too_long() -> String {
    format!("value of more than {VALUE_BYTES_MAX} bytes, which is the limit")
}

/// Appends a line's key and then its value to `row`; returns the key's length.
fn parse_tsv(row: &mut Vec<u8>, text: &[u8]) -> Result<usize, String> {
    let Some(tab) = text.iter().position(|&b| b == b'\t') else {
        return Err("no tab between key and value".into());
    };
    let (key, value) = (&text[..tab], &text[tab + 1..]);
    if value.contains(&b'\t') {
        return Err(r"a second tab (inside a key or value a tab is written \t)".into());
    }
    unescape_into(row, key).map_err(|bad| bad.to_string())?;
    let split = row.len();
    unescape_into(row, value).map_err(|bad| bad.to_string())?;
    Ok(split)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::escape::row_into;

    type Numbered = (u64, Bytes, Bytes);

    fn read(input: &[u8]) -> Result<Vec<Numbered>, (u64, String)> {
        read_as(Format::Tsv, input)
    }

    fn read_as(format: Format, input: &[u8]) -> Result<Vec<Numbered>, (u64, String)> {
        let mut reader = RowReader::new(input, format, None);
        let mut rows = Vec::new();
        loop {
            match reader.next_row() {
                Ok(Some(row)) => rows.push((row.line, row.key, row.value)),
                Ok(None) => return Ok(rows),
                Err(BadInput::Line(line, why)) => return Err((line, why)),
                Err(BadInput::Io(line, error)) => return Err((line, error.to_string())),
            }
        }
    }

    fn why(input: &[u8]) -> (u64, String) {
        read(input).expect_err("should be refused")
    }

    #[test]
    fn a_row_a_line_the_last_one_with_or_without_an_end() {
        let two = vec![(1, "a".into(), "1".into()), (2, "b".into(), "".into())];
        assert_eq!(read(b"a\t1\nb\t\n"), Ok(two.clone()));
        assert_eq!(read(b"a\t1\nb\t"), Ok(two));
        assert_eq!(read(b""), Ok(vec![]));
    }

    #[test]
    fn a_line_that_is_no_row_is_named() {
        assert_eq!(why(b"a\t1\nb\n").0, 2);
        assert_eq!(why(b"a\t1\n\nb\t1\n"), (2, "no tab between key and value".into()));
        assert_eq!(why(b"a\t1\t2\n").0, 1);
        assert_eq!(why(b"\t1\n"), (1, "empty key: a key has 1 to 16384 bytes".into()));
        assert!(why(b"a\t\\q\n").1.contains("is no escape"));
    }

    #[test]
    fn limits_are_kept_without_reading_the_rest() {
        let key = "k".repeat(KEY_BYTES_MAX);
        assert!(read(format!("{key}\tv\n").as_bytes()).is_ok());
        assert!(why(format!("{key}k\tv\n").as_bytes()).1.starts_with("key of 16385 bytes"));
        for (format, start) in [(Format::Tsv, "k\t"), (Format::Jsonl, "{\"key\":\"k\",\"value\":\"")] {
            let endless = BufReader::new(start.as_bytes().chain(io::repeat(b'v')));
            let mut reader = RowReader::new(endless, format, None);
            assert!(
                matches!(reader.next_row(), Err(BadInput::Line(1, why)) if why.starts_with("value of more"))
            );
        }
    }

    #[test]
    fn json_lines_are_rows_too_within_the_same_limits() {
        let rows = vec![(1, "a".into(), "\n".into()), (2, "b".into(), Bytes::from_static(b"\xff"))];
        let text = b"{\"key\":\"a\",\"value\":\"\\n\"}\n {\"value_base64\":\"/w==\", \"key\":\"b\"}\r\n";
        assert_eq!(read_as(Format::Jsonl, text), Ok(rows));
        let refused = |text: &str| read_as(Format::Jsonl, text.as_bytes()).expect_err("should be refused");
        assert_eq!(refused("{\"key\":\"\",\"value\":\"\"}\n").1, "empty key: a key has 1 to 16384 bytes");
        assert_eq!(refused("{\"key\":\"a\",\"value\":\"\"}\n{}\n").0, 2);
        let key = "k".repeat(KEY_BYTES_MAX + 1);
        assert!(
            refused(&format!("{{\"key\":\"{key}\",\"value\":\"\"}}")).1.starts_with("key of 16385 bytes")
        );
    }

    #[test]
    fn an_input_of_another_kind_is_told_what_it_looks_like() {
        assert!(why(b"{\"key\":\"a\"}\n").1.ends_with("say --format jsonl)"));
        assert!(why(b"\x1f\x8b\x08\0\0\n").1.contains("zcat"));
        assert!(read_as(Format::Jsonl, b"a\t1\n").expect_err("refused").1.ends_with("say --format tsv)"));
        // Later lines are just wrong, and such a key is a key.
        assert_eq!(why(b"a\t1\n{\n").1, "no tab between key and value");
        assert!(read(b"{a}\t1\n\x1f\x8b\x08\t1\n").is_ok());
    }

    #[test]
    fn skipping_goes_by_lines() {
        let mut reader =
            RowReader::new(BufReader::with_capacity(3, &b"a\t1\nlonger\t2\nc\t3"[..]), Format::Tsv, None);
        assert_eq!(reader.skip(2).expect("reads"), 2);
        assert_eq!(reader.next_row().expect("a row").map(|row| (row.line, row.key)), Some((3, "c".into())));
        let mut short = RowReader::new(&b"a\t1\nb"[..], Format::Tsv, None);
        assert_eq!(short.skip(9).expect("reads"), 2);
    }

    proptest! {
        #[test]
        fn what_export_writes_import_reads(rows in proptest::collection::vec(
            (proptest::collection::vec(any::<u8>(), 1..20), proptest::collection::vec(any::<u8>(), 0..40)), 0..20)) {
            let mut text = Vec::new();
            for (key, value) in &rows {
                row_into(&mut text, key, Some(value));
            }
            let expected: Vec<_> = rows.into_iter().zip(1u64..)
                .map(|((key, value), line)| (line, Bytes::from(key), Bytes::from(value))).collect();
            prop_assert_eq!(read(&text), Ok(expected));
        }
    }

    #[test]
    fn carriage_returns_and_byte_order_marks_are_kept_and_said_or_as_the_user_says() {
        let text = &b"\xef\xbb\xbfa\t1\r\nb\t2\nc\t3\r\n"[..];
        let read = |crlf| {
            let mut reader = RowReader::new(text, Format::Tsv, crlf);
            let (mut values, mut notices) = (Vec::new(), Vec::new());
            while let Some(row) = reader.next_row().unwrap() {
                values.push(row.value);
                notices.extend(reader.take_notices());
            }
            (values, notices)
        };
        let (values, notices) = read(None);
        assert_eq!(values, ["1\r", "2", "3\r"]);
        assert_eq!(notices.len(), 2, "{notices:?}");
        assert!(notices[1].contains("line 1") && notices[1].contains("--crlf strip"), "{notices:?}");
        let (values, notices) = read(Some(Crlf::Strip));
        assert_eq!(values, ["1", "2", "3"]);
        assert!(notices.len() == 1 && notices[0].contains("byte-order mark"), "{notices:?}");
        assert_eq!(read(Some(Crlf::Keep)).0, ["1\r", "2", "3\r"]);
    }
}
