//! One line of the text protocol: what it orders, and what is said to it.
//!
//! ```text
//! SET <id> <message>      the message is the rest of the line; it may hold spaces
//! GET <id>
//! DEL <id>
//! AUTH <name> <password>  the password is the rest of the line; or AUTH <token>
//! STATS | NODES | HELP | QUIT | EXIT
//! ```
//!
//! Lines end with `\n` or `\r\n`; white space around them does not count. Verbs come in any case. An id is a key: bytes
//! without white space. Messages are UTF-8 without carriage returns, since one could not be told in a line of answer.

use std::fmt;

use bytes::Bytes;

/// The syntax, in one line.
pub(super) const HELP: &str =
    "SET <id> <message> | GET <id> | DEL <id> | AUTH <name> <password> | STATS | NODES | HELP | QUIT | EXIT";

/// What is not to be shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(pub(super) Bytes);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What a line orders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To keep a message under an id.
    Set(Bytes, Bytes),
    /// To tell it.
    Get(Bytes),
    /// To remove it.
    Del(Bytes),
    /// To know who asks, by a name and a password.
    Auth(Bytes, Secret),
    /// The same, by a token.
    AuthToken(Secret),
    /// To tell how much there is.
    Stats,
    /// To tell who is there.
    Nodes,
    /// To tell the syntax.
    Help,
    /// To say goodbye.
    Quit,
    /// What an HTTP client says: none of its lines are meant for us, those that look like commands least of all.
    Http,
}

/// Reads a line without its end. `None` if there is nothing in it; an error is one line for people.
pub(super) fn parse(line: &Bytes) -> Option<Result<Order, String>> {
    let line = line.slice_ref(line.trim_ascii());
    if line.is_empty() {
        return None;
    }
    let (verb, rest) = first_word(&line);
    let rest = rest.slice_ref(rest.trim_ascii_start());
    let order = match verb.to_ascii_uppercase().as_slice() {
        b"GET" | b"POST" | b"PUT" | b"DELETE" | b"HEAD" | b"PATCH" | b"OPTIONS" | b"CONNECT" | b"TRACE"
        | b"PRI"
            if rest.windows(6).any(|part| part == b" HTTP/") =>
        {
            Ok(Order::Http)
        }
        b"SET" => set(&rest),
        b"GET" => one(&rest, "GET <id>").map(Order::Get),
        b"DEL" => one(&rest, "DEL <id>").map(Order::Del),
        b"AUTH" => auth(&rest),
        b"STATS" => none(&rest, "STATS", Order::Stats),
        b"NODES" => none(&rest, "NODES", Order::Nodes),
        b"HELP" => none(&rest, "HELP", Order::Help),
        b"QUIT" => none(&rest, "QUIT", Order::Quit),
        b"EXIT" => none(&rest, "EXIT", Order::Quit),
        _ => {
            let verb = verb[..verb.len().min(32)].escape_ascii();
            Err(format!("unknown command \"{verb}\": {HELP}"))
        }
    };
    Some(order)
}

fn set(rest: &Bytes) -> Result<Order, String> {
    let (id, message) = first_word(rest);
    if id.is_empty() || message.is_empty() {
        return Err("usage: SET <id> <message>".into());
    }
    if std::str::from_utf8(&id).is_err() {
        return Err("the id is not UTF-8: nothing was stored".into());
    }
    if std::str::from_utf8(&message).is_err() {
        return Err("the message is not UTF-8: nothing was stored".into());
    }
    if message.contains(&b'\r') {
        return Err("the message has a carriage return in it, so it could not be an answer of one line: nothing was stored".into());
    }
    Ok(Order::Set(id, message))
}

fn auth(rest: &Bytes) -> Result<Order, String> {
    let (first, password) = first_word(rest);
    let password = password.slice_ref(password.trim_ascii());
    match (first.is_empty(), password.is_empty()) {
        (true, _) => Err("usage: AUTH <name> <password>, or AUTH <token>".into()),
        (false, true) => Ok(Order::AuthToken(Secret(first))),
        (false, false) => Ok(Order::Auth(first, Secret(password))),
    }
}

fn one(rest: &Bytes, usage: &str) -> Result<Bytes, String> {
    let (id, more) = first_word(rest);
    if id.is_empty() || !more.is_empty() { Err(format!("usage: {usage}")) } else { Ok(id) }
}

fn none(rest: &Bytes, verb: &str, order: Order) -> Result<Order, String> {
    if rest.is_empty() { Ok(order) } else { Err(format!("usage: {verb}")) }
}

/// Up to the first white space, and what follows it: one byte of white space is skipped, more belong to a message.
fn first_word(line: &Bytes) -> (Bytes, Bytes) {
    match line.iter().position(u8::is_ascii_whitespace) {
        None => (line.clone(), Bytes::new()),
        Some(end) => (line.slice(..end), line.slice(end + 1..)),
    }
}

/// A value as one line of answer.
pub(super) fn shown(value: &[u8]) -> Result<&[u8], String> {
    if value.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        return Err(
            "the value has line breaks, so it is no answer of one line: read it through ringfort.v1".into()
        );
    }
    if std::str::from_utf8(value).is_err() {
        return Err("the value is not UTF-8: read it through ringfort.v1".into());
    }
    Ok(value)
}

/// A text of ours as the rest of one line of answer.
pub(super) fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &'static str) -> Option<Result<Order, String>> {
        parse(&Bytes::from_static(line.as_bytes()))
    }

    #[test]
    fn verbs_come_in_any_case_and_messages_keep_their_spaces() {
        let set = |id: &'static str, message: &'static str| Some(Ok(Order::Set(id.into(), message.into())));
        assert_eq!(parsed("SET 7 hello"), set("7", "hello"));
        assert_eq!(parsed("  set 7 two  words  "), set("7", "two  words"));
        assert_eq!(parsed("GET  7"), Some(Ok(Order::Get("7".into()))));
        assert_eq!(parsed("SET \t 7 hello"), set("7", "hello"));
        assert_eq!(parsed("Set 7  indented"), set("7", " indented"));
        assert_eq!(parsed("SET 7 \u{e9}t\u{e9}\t!"), set("7", "\u{e9}t\u{e9}\t!"));
        assert_eq!(parsed("gEt 007"), Some(Ok(Order::Get("007".into()))));
        assert_eq!(parsed("del x"), Some(Ok(Order::Del("x".into()))));
        let auth = |name: &'static str, password: &'static str| {
            Some(Ok(Order::Auth(name.into(), Secret(password.into()))))
        };
        assert_eq!(parsed("AUTH ada open sesame"), auth("ada", "open sesame"));
        assert_eq!(parsed("auth  ada  secret \r"), auth("ada", "secret"));
        assert_eq!(parsed("AUTH ada.00"), Some(Ok(Order::AuthToken(Secret("ada.00".into())))));
        assert!(!format!("{:?}", parsed("AUTH ada sesame")).contains("sesame"));
        for (line, order) in
            [("stats", Order::Stats), ("NODES", Order::Nodes), ("quit", Order::Quit), ("Exit", Order::Quit)]
        {
            assert_eq!(parsed(line), Some(Ok(order)));
        }
        assert_eq!(parsed("help"), Some(Ok(Order::Help)));
        assert_eq!(parsed(" \t "), None);
    }

    #[test]
    fn what_is_wrong_is_said_with_what_is_right() {
        for (line, says) in [
            ("SET", "usage: SET <id> <message>"),
            ("SET 7", "usage: SET <id> <message>"),
            ("GET", "usage: GET <id>"),
            ("GET 1 2", "usage: GET <id>"),
            ("AUTH", "usage: AUTH <name> <password>"),
            ("QUIT now", "usage: QUIT"),
            ("help me", "usage: HELP"),
            ("PUT 1 2", "unknown command \"PUT\": SET <id>"),
            ("Host: localhost:6666", "unknown command \"Host:\""),
            ("ADD 1 2", "unknown command \"ADD\": SET <id>"),
        ] {
            let told = parsed(line).unwrap().unwrap_err();
            assert!(told.starts_with(says), "{line}: {told}");
        }
        let told = parse(&Bytes::from_static(b"SET 7 \xff")).unwrap().unwrap_err();
        assert!(told.contains("not UTF-8"), "{told}");
        let told = parse(&Bytes::from_static(b"SET \xff 7")).unwrap().unwrap_err();
        assert!(told.contains("the id is not UTF-8"), "{told}");
        let told = parsed("SET 7 one\rtwo\r").unwrap().unwrap_err();
        assert!(told.contains("carriage return"), "{told}");
    }

    #[test]
    fn what_an_http_client_says_is_no_command() {
        for line in
            ["POST / HTTP/1.1", "GET / HTTP/1.1", "delete /a HTTP/1.0", "PUT /k HTTP/2", "PRI * HTTP/2.0"]
        {
            assert_eq!(parsed(line), Some(Ok(Order::Http)), "{line}");
        }
        assert_eq!(parsed("GET HTTP/"), Some(Ok(Order::Get("HTTP/".into()))));
        assert_eq!(parsed("SET 7 GET / HTTP/1.1"), Some(Ok(Order::Set("7".into(), "GET / HTTP/1.1".into()))));
    }

    #[test]
    fn an_answer_has_one_line() {
        assert_eq!(shown(b"a b\tc"), Ok(&b"a b\tc"[..]));
        assert!(shown(b"a\nb").is_err() && shown(b"\xff").is_err());
        assert_eq!(one_line("a\r\nb"), "a  b");
    }
}
