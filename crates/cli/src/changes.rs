//! The lines of an atomic write: one for each key, what becomes of it, and under which condition.
//!
//! ```text
//! put    <TAB> key <TAB> value [<TAB> condition]
//! delete <TAB> key [<TAB> condition]
//! add    <TAB> key <TAB> number [<TAB> condition]
//! check  <TAB> key <TAB> condition
//! condition = if-absent | if-present | if-revision=N | if-value=V
//! ```
//!
//! Keys and values are escaped as in a file of rows. Reading is strict, and in bounded memory: the first line that can't
//! be part of a write ends it with its number, before anything is sent. Whether all keys are of one shard is for the
//! nodes to say, who know the layout.

use std::collections::BTreeMap;
use std::io::BufRead;

use bytes::Bytes;
use ringfort_client::{Condition, Write};
use ringfort_types::limits::{WRITE_BYTES_MAX, WRITE_PARTS_MAX};
use ringfort_types::{Change, Part, Request, Revision};

use crate::escape::unescape_into;
use crate::lines::read_line;
use crate::rows::BadInput;

/// The longest line that can be part of a write: every byte may be written as two, and there are words around them.
const LINE_BYTES_MAX: usize = 2 * WRITE_BYTES_MAX + 1024;
const CONDITIONS: &str = "if-absent, if-present, if-revision=N or if-value=V";

/// Reads all of `input`; `None` if there is nothing in it.
pub(crate) fn read(input: &mut impl BufRead) -> Result<Option<Write>, BadInput> {
    let mut write = Write::new();
    let mut lines: BTreeMap<Bytes, u64> = BTreeMap::new();
    let mut bytes = 0;
    let mut text = Vec::new();
    for line in 1.. {
        if !read_line(input, &mut text, LINE_BYTES_MAX).map_err(|error| BadInput::Io(line, error))? {
            break;
        }
        let refused = |why: String| BadInput::Line(line, why);
        if lines.len() == WRITE_PARTS_MAX {
            let why = format!("an atomic write has at most {WRITE_PARTS_MAX} lines, and this is one more");
            return Err(refused(why));
        }
        if text.len() > LINE_BYTES_MAX {
            return Err(refused(too_many_bytes()));
        }
        let part = parse(&text).map_err(refused)?;
        bytes += part.weight();
        if bytes > WRITE_BYTES_MAX {
            return Err(refused(too_many_bytes()));
        }
        if let Some(earlier) = lines.insert(part.key.clone(), line) {
            return Err(refused(format!(
                "its key is in line {earlier} too: put what becomes of a key and its condition into one line"
            )));
        }
        write = with(write, part);
    }
    Ok((!lines.is_empty()).then_some(write))
}

fn too_many_bytes() -> String {
    format!("an atomic write has at most {WRITE_BYTES_MAX} bytes, and with this line it has more")
}

/// What a line says, if a node would take it.
fn parse(line: &[u8]) -> Result<Part, String> {
    let mut fields = line.split(|&byte| byte == b'\t');
    let verb = fields.next().unwrap_or_default();
    let shape = match verb {
        b"put" => "put<TAB>KEY<TAB>VALUE",
        b"delete" => "delete<TAB>KEY",
        b"add" => "add<TAB>KEY<TAB>NUMBER",
        b"check" => "check<TAB>KEY<TAB>CONDITION",
        other => {
            let other = other[..other.len().min(64)].escape_ascii();
            return Err(format!(
                "it begins with \"{other}\": a line is put, delete, add or check, a tab, and the rest"
            ));
        }
    };
    let lacks = || format!("something is missing: the line is {shape}");
    let key = unescaped(fields.next().ok_or_else(lacks)?)?;
    let change = match verb {
        b"put" => Change::put(unescaped(fields.next().ok_or_else(lacks)?)?),
        b"delete" => Change::DELETE,
        b"add" => Change::Add(number(fields.next().ok_or_else(lacks)?)?),
        _ => Change::Keep,
    };
    let condition = fields.next().map(condition).transpose()?;
    if condition.is_none() && change == Change::Keep {
        return Err(format!("check needs a condition: {CONDITIONS}"));
    }
    if fields.next().is_some() {
        return Err(r"a tab too many (inside a key or value a tab is written \t)".into());
    }
    let part = Part { key, condition, change };
    let alone = Request::Write { parts: vec![part.clone()] };
    alone.validate().map_err(|failure| failure.message).map(|()| part)
}

fn condition(field: &[u8]) -> Result<Condition, String> {
    match field {
        b"if-absent" => return Ok(Condition::Absent),
        b"if-present" => return Ok(Condition::Present),
        _ => {}
    }
    if let Some(value) = field.strip_prefix(b"if-value=") {
        return unescaped(value).map(Condition::Value);
    }
    if let Some(number) = field.strip_prefix(b"if-revision=") {
        let number = std::str::from_utf8(number).ok().and_then(|number| number.parse().ok());
        return number
            .map(|number| Condition::Revision(Revision(number)))
            .ok_or_else(|| "if-revision= needs a whole number after it, as --json prints it".to_owned());
    }
    let field = field[..field.len().min(64)].escape_ascii();
    Err(format!("\"{field}\" is no condition: there are {CONDITIONS}"))
}

fn number(field: &[u8]) -> Result<i64, String> {
    let number = std::str::from_utf8(field).ok().and_then(|number| number.parse().ok());
    number.ok_or_else(|| {
        let field = field[..field.len().min(64)].escape_ascii();
        format!("\"{field}\" is not a whole number from -2^63 to 2^63-1")
    })
}

fn unescaped(field: &[u8]) -> Result<Bytes, String> {
    let mut bytes = Vec::with_capacity(field.len());
    unescape_into(&mut bytes, field).map_err(|bad| bad.to_string())?;
    Ok(bytes.into())
}

fn with(write: Write, Part { key, condition, change }: Part) -> Write {
    match (change, condition) {
        (Change::Put(new), None) => write.put(key, new.value),
        (Change::Put(new), Some(condition)) => write.put_if(key, new.value, condition),
        (Change::Delete { .. }, None) => write.delete(key),
        (Change::Delete { .. }, Some(condition)) => write.delete_if(key, condition),
        (Change::Add(by), None) => write.add(key, by),
        (Change::Add(by), Some(condition)) => write.add_if(key, by, condition),
        (Change::Keep, Some(condition)) => write.check(key, condition),
        // Refused above.
        (Change::Keep, None) => write,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::escape::escape_into;

    fn why(mut input: &[u8]) -> (u64, String) {
        match read(&mut input) {
            Err(BadInput::Line(line, why)) => (line, why),
            other => panic!("should be refused: {other:?}"),
        }
    }

    #[test]
    fn every_kind_of_line_is_what_it_says() {
        let text = b"put\ta\t1\nput\tb\t\tif-absent\ndelete\tc\ndelete\td\tif-revision=7\n\
            check\te\tif-value=x\\ty\nput\tf\tif-absent\tif-present\nadd\tg\t-2\nadd\th\t1\tif-present";
        let expected = Write::new()
            .put("a", "1")
            .put_if("b", "", Condition::Absent)
            .delete("c")
            .delete_if("d", Condition::Revision(Revision(7)))
            .check("e", Condition::Value("x\ty".into()))
            .put_if("f", "if-absent", Condition::Present)
            .add("g", -2)
            .add_if("h", 1, Condition::Present);
        assert_eq!(read(&mut &text[..]).expect("is right"), Some(expected));
        assert!(read(&mut &b""[..]).expect("is right").is_none());
    }

    #[test]
    fn a_line_that_can_not_be_done_is_named() {
        for (line, says) in [
            (&b"a\t1"[..], "it begins with \"a\""),
            (b"", "it begins with \"\""),
            (b"put\ta", "the line is put<TAB>KEY<TAB>VALUE"),
            (b"delete", "the line is delete<TAB>KEY"),
            (b"check\ta", "check needs a condition"),
            (b"add\ta\tx", "\"x\" is not a whole number"),
            (b"put\t\t1", "empty key"),
            (b"put\ta\t1\tif-absent\tx", "a tab too many"),
            (b"put\ta\t1\tabsent", "\"absent\" is no condition"),
            (b"put\ta\t1\tif-revision=", "needs a whole number"),
            (b"put\ta\t1\tif-revision=0", "no key has revision 0"),
            (b"put\ta\t1\tif-value=\\q", "is no escape"),
            (b"put\ta\\", "is no escape"),
            (b"put\tok\t1", "its key is in line 1 too"),
        ] {
            let (number, why) = why(&[b"put\tok\t1\n", line, b"\n"].concat());
            assert!(number == 2 && why.contains(says), "{}: {number}: {why}", line.escape_ascii());
        }
    }

    #[test]
    fn limits_are_kept_without_reading_the_rest() {
        let lines: Vec<_> = (0..=WRITE_PARTS_MAX).map(|n| format!("delete\tk{n}\n")).collect();
        let (number, says) = why(lines.concat().as_bytes());
        assert_eq!((number, says.contains("at most 1024 lines")), (1025, true));
        let half = "v".repeat(5 * 1024 * 1024);
        let (number, says) = why(format!("put\ta\t{half}\nput\tb\t{half}\n").as_bytes());
        assert_eq!((number, says.contains("bytes, and with this line")), (2, true));
        let endless = std::io::Read::chain(&b"put\ta\t"[..], std::io::repeat(b'v'));
        let read = read(&mut std::io::BufReader::new(endless));
        assert!(matches!(read, Err(BadInput::Line(1, why)) if why.contains("bytes, and with this line")));
    }

    proptest! {
        #[test]
        fn bytes_come_as_they_are(
            key in proptest::collection::vec(any::<u8>(), 1..20), value in proptest::collection::vec(any::<u8>(), 0..40),
            was in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut line = b"put\t".to_vec();
            escape_into(&mut line, &key);
            line.push(b'\t');
            escape_into(&mut line, &value);
            line.extend_from_slice(b"\tif-value=");
            escape_into(&mut line, &was);
            let expected = Write::new().put_if(key, value, Condition::Value(was.into()));
            prop_assert_eq!(read(&mut &line[..]).expect("is right"), Some(expected));
        }
    }
}
