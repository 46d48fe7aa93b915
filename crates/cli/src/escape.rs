//! The line format of `list`, `import` and `export`: `key<TAB>value`, a row a line.
//!
//! Four bytes would break a line apart and are written as two: tab `\t`, newline `\n`, carriage return
//! `\r`, backslash `\\`. All others stand for themselves, whether or not they are UTF-8, so that every key
//! and value comes back byte for byte. Reading is strict: an escape that this writer would not have made is
//! an error, never a guess.

/// Appends `bytes` to `out`, escaped.
pub(crate) fn escape_into(out: &mut Vec<u8>, mut bytes: &[u8]) {
    while let Some(at) = bytes.iter().position(|&b| matches!(b, b'\t' | b'\n' | b'\r' | b'\\')) {
        out.extend_from_slice(&bytes[..at]);
        out.extend_from_slice(match bytes[at] {
            b'\t' => b"\\t",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            _ => b"\\\\",
        });
        bytes = &bytes[at + 1..];
    }
    out.extend_from_slice(bytes);
}

/// Appends one row as a line, its end included. No tab is written without a value.
pub(crate) fn row_into(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    escape_into(out, key);
    if let Some(value) = value {
        out.push(b'\t');
        escape_into(out, value);
    }
    out.push(b'\n');
}

/// A backslash that begins no known escape; what follows it, if anything does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BadEscape(pub(crate) Option<u8>);

impl std::fmt::Display for BadEscape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(byte) => write!(f, "\"\\{}\" is no escape", byte.escape_ascii())?,
            None => f.write_str("a backslash at the end is no escape")?,
        }
        f.write_str(r" (there are \t, \n, \r and \\)")
    }
}

/// Appends `bytes` to `out`, their escapes resolved.
pub(crate) fn unescape_into(out: &mut Vec<u8>, mut bytes: &[u8]) -> Result<(), BadEscape> {
    while let Some(at) = bytes.iter().position(|&b| b == b'\\') {
        out.extend_from_slice(&bytes[..at]);
        out.push(match bytes.get(at + 1) {
            Some(b't') => b'\t',
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b'\\') => b'\\',
            other => return Err(BadEscape(other.copied())),
        });
        bytes = &bytes[at + 2..];
    }
    out.extend_from_slice(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape_into(&mut out, bytes);
        out
    }

    fn unescaped(bytes: &[u8]) -> Result<Vec<u8>, BadEscape> {
        let mut out = Vec::new();
        unescape_into(&mut out, bytes).map(|()| out)
    }

    #[test]
    fn only_what_breaks_a_line_is_escaped() {
        assert_eq!(escaped(b"a\tb\nc\rd\\e"), br"a\tb\nc\rd\\e");
        assert_eq!(escaped("Blåbær \u{1f980} \"'#".as_bytes()), "Blåbær \u{1f980} \"'#".as_bytes());
        assert_eq!(escaped(&[0, 0xff, 0x1b]), [0, 0xff, 0x1b]);
        let mut line = Vec::new();
        row_into(&mut line, b"k\t", Some(b""));
        row_into(&mut line, b"k", None);
        assert_eq!(line, b"k\\t\t\nk\n");
    }

    #[test]
    fn an_escape_that_nobody_wrote_is_refused() {
        assert_eq!(unescaped(br"a\x"), Err(BadEscape(Some(b'x'))));
        assert_eq!(unescaped(br"a\"), Err(BadEscape(None)));
        assert_eq!(BadEscape(Some(b'x')).to_string(), r#""\x" is no escape (there are \t, \n, \r and \\)"#);
    }

    proptest! {
        #[test]
        fn comes_back_byte_for_byte(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), proptest::sample::select(b"\\\t\n\rtnr".to_vec())], 0..200)) {
            let line = escaped(&bytes);
            prop_assert!(!line.iter().any(|b| matches!(b, b'\t' | b'\n' | b'\r')));
            prop_assert_eq!(unescaped(&line), Ok(bytes));
        }

        #[test]
        fn what_is_accepted_is_written_back_as_it_was(line in "[a-z\\\\]{0,40}") {
            if let Ok(bytes) = unescaped(line.as_bytes()) {
                prop_assert_eq!(escaped(&bytes), line.into_bytes());
            }
        }
    }
}
