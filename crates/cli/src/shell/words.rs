//! The words of a line, and their quotes, as redis-cli has them.
//!
//! A word ends at white space. One that begins with a quote ends at the next one: in `"…"` a backslash begins an escape (`\n`, `\r`,
//! `\t`, `\\`, `\"`, `\xHH`), in `'…'` only `\'` does. A quote inside a word stands for itself.

use std::borrow::Cow;

/// Why a quoted word is none.
pub(super) type BadQuote = &'static str;

/// What a quote at the beginning of a word is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Quotes {
    /// It goes around the word.
    Around,
    /// A part of the word, as any other byte.
    Part,
}

/// A word without its quotes.
pub(super) type Word<'a> = Cow<'a, [u8]>;

const NOT_CLOSED: BadQuote =
    "a quote is not closed: \"…\" or '…' around a word; inside \"…\" a quote is written \\\"";
const NOT_LAST: BadQuote = "something follows a closing quote: \"…\" or '…' goes around a whole word";
const NO_ESCAPE: BadQuote =
    "in \"…\" a backslash begins \\n, \\r, \\t, \\\\, \\\" or \\xHH; '…' takes all as it is";

/// The first word as it stands, and what follows it.
pub(super) fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

/// The first word without its quotes, if there is one, and what follows it.
pub(super) fn argument(text: &[u8], quotes: Quotes) -> Result<(Option<Word<'_>>, &[u8]), BadQuote> {
    let text = text.trim_ascii_start();
    match text.first() {
        None => Ok((None, text)),
        Some(quote @ (b'"' | b'\'')) if quotes == Quotes::Around => {
            let (inside, rest) = quoted(*quote, &text[1..])?;
            if rest.first().is_some_and(|next| !next.is_ascii_whitespace()) {
                return Err(NOT_LAST);
            }
            Ok((Some(inside.into()), rest))
        }
        Some(_) => {
            let (word, rest) = word(text);
            Ok((Some(word.into()), rest))
        }
    }
}

/// The rest of a line as one value: without its quotes if it begins with one, else as it is, but for the spaces around it.
pub(super) fn rest_of_line(text: &[u8], quotes: Quotes) -> Result<Option<Word<'_>>, BadQuote> {
    let text = text.trim_ascii();
    if quotes == Quotes::Part || !matches!(text.first(), Some(b'"' | b'\'')) {
        return Ok((!text.is_empty()).then_some(text.into()));
    }
    let (value, rest) = argument(text, quotes)?;
    if rest.is_empty() { Ok(value) } else { Err(NOT_LAST) }
}

/// What stands before the closing quote, its escapes resolved, and what stands after it.
fn quoted(quote: u8, text: &[u8]) -> Result<(Vec<u8>, &[u8]), BadQuote> {
    let mut inside = Vec::new();
    let mut at = 0;
    while let Some(&byte) = text.get(at) {
        match (byte, quote) {
            (byte, _) if byte == quote => return Ok((inside, &text[at + 1..])),
            (b'\\', b'"') => {
                let (byte, length) = escape(&text[at + 1..])?;
                inside.push(byte);
                at += length;
            }
            (b'\\', _) if text.get(at + 1) == Some(&b'\'') => {
                inside.push(b'\'');
                at += 1;
            }
            (byte, _) => inside.push(byte),
        }
        at += 1;
    }
    Err(NOT_CLOSED)
}

/// The byte that an escape stands for, and how long that is after its backslash.
fn escape(text: &[u8]) -> Result<(u8, usize), BadQuote> {
    match text {
        [b'n', ..] => Ok((b'\n', 1)),
        [b'r', ..] => Ok((b'\r', 1)),
        [b't', ..] => Ok((b'\t', 1)),
        [byte @ (b'\\' | b'"'), ..] => Ok((*byte, 1)),
        [b'x', high, low, ..] => {
            let digits = [*high, *low].map(|digit| char::from(digit).to_digit(16));
            match digits {
                [Some(high), Some(low)] => Ok(((16 * high + low) as u8, 3)),
                _ => Err(NO_ESCAPE),
            }
        }
        [] => Err(NOT_CLOSED),
        _ => Err(NO_ESCAPE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(mut text: &[u8]) -> Result<Vec<Vec<u8>>, BadQuote> {
        let mut words = Vec::new();
        while let (Some(word), rest) = argument(text, Quotes::Around)? {
            words.push(word.into_owned());
            text = rest;
        }
        Ok(words)
    }

    #[test]
    fn words_and_quotes() {
        assert_eq!(
            words(br#" a  "b c" 'd e' "" f"g' "#).unwrap(),
            [&b"a"[..], b"b c", b"d e", b"", b"f\"g'"]
        );
        assert_eq!(words(br#""\n\r\t\\\"\x00\xfF'""#).unwrap(), [b"\n\r\t\\\"\x00\xff'"]);
        assert_eq!(words(br#"'\n\'"'"#).unwrap(), [br#"\n'""#]);
    }

    #[test]
    fn what_is_not_quoted_right_is_refused() {
        for (text, why) in [
            (&br#""a"#[..], NOT_CLOSED),
            (b"'a", NOT_CLOSED),
            (br#""a\"#, NOT_CLOSED),
            (br#""a"b"#, NOT_LAST),
            (br#""\q""#, NO_ESCAPE),
            (br#""\x1""#, NO_ESCAPE),
            (br#""\xg0""#, NO_ESCAPE),
        ] {
            assert_eq!(words(text), Err(why), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn a_value_is_the_rest_of_the_line() {
        let rest = |text| rest_of_line(text, Quotes::Around).map(|value| value.map(Cow::into_owned));
        assert_eq!(rest(b"  a  \"b\" c \r"), Ok(Some(b"a  \"b\" c".to_vec())));
        assert_eq!(rest(br#" " a " "#), Ok(Some(b" a ".to_vec())));
        assert_eq!(rest(br#""""#), Ok(Some(Vec::new())));
        assert_eq!(rest(b"  "), Ok(None));
        assert_eq!(rest(br#""a" b"#), Err(NOT_LAST));
    }
}
