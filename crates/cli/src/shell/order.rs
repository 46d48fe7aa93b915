//! What a line of the shell means.
//!
//! The verb in any case, then words. A value is the rest of the line, spaces inside it included; spaces around it are
//! not part of it.

use std::str::FromStr;

/// One line, understood or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    Put {
        key: &'a [u8],
        value: &'a [u8],
    },
    Get {
        key: &'a [u8],
    },
    Delete {
        key: &'a [u8],
    },
    Incr {
        key: &'a [u8],
        by: i64,
    },
    /// A limit of 0 is none.
    List {
        prefix: &'a [u8],
        limit: u64,
    },
    Status,
    Help,
    Exit,
    /// In `dev` only.
    Kill {
        node: &'a str,
    },
    /// In `dev` only.
    Start {
        node: &'a str,
    },
    /// An empty line.
    Nothing,
    /// A known verb with the wrong words after it: how it is used.
    Usage(&'static str),
    Unknown,
}

/// Every verb, for completion.
pub(crate) const VERBS: [&str; 9] =
    ["put", "get", "list", "delete", "incr", "status", "help", "exit", "quit"];
/// Verbs that only `dev` has.
pub(crate) const VERBS_DEV: [&str; 2] = ["kill", "start"];

/// What `line` says.
pub(crate) fn parse(line: &[u8]) -> Order<'_> {
    let (verb, rest) = word(line);
    let (first, after) = word(rest);
    let (second, more) = word(after);
    let verb = verb.to_ascii_lowercase();
    match &verb[..] {
        b"" => Order::Nothing,
        b"put" | b"set" => {
            if second.is_empty() {
                return Order::Usage("Usage: put <key> <value>");
            }
            Order::Put { key: first, value: after.trim_ascii() }
        }
        b"get" if first.is_empty() || !second.is_empty() => Order::Usage("Usage: get <key>"),
        b"get" => Order::Get { key: first },
        b"delete" | b"del" if first.is_empty() || !second.is_empty() => Order::Usage("Usage: delete <key>"),
        b"delete" | b"del" => Order::Delete { key: first },
        b"incr" => {
            let by = if second.is_empty() { Some(1) } else { number(second) };
            match by {
                Some(by) if !first.is_empty() && more.trim_ascii().is_empty() => {
                    Order::Incr { key: first, by }
                }
                _ => Order::Usage("Usage: incr <key> [<n>]"),
            }
        }
        b"list" => {
            let limit =
                if second.is_empty() { Some(0) } else { number(second).filter(|limit: &u64| *limit > 0) };
            match limit {
                Some(limit) if more.trim_ascii().is_empty() => Order::List { prefix: first, limit },
                _ => Order::Usage("Usage: list [<prefix>] [<n>]"),
            }
        }
        b"status" => Order::Status,
        b"help" | b"?" => Order::Help,
        b"exit" | b"quit" => Order::Exit,
        b"kill" | b"start" => match std::str::from_utf8(first) {
            Ok(node) if !node.is_empty() && second.is_empty() => {
                if verb == b"kill" {
                    Order::Kill { node }
                } else {
                    Order::Start { node }
                }
            }
            _ if verb == b"kill" => Order::Usage("Usage: kill <node>"),
            _ => Order::Usage("Usage: start <node>"),
        },
        _ => Order::Unknown,
    }
}

/// The first word, and what follows it.
fn word(text: &[u8]) -> (&[u8], &[u8]) {
    let text = text.trim_ascii_start();
    let end = text.iter().position(u8::is_ascii_whitespace).unwrap_or(text.len());
    text.split_at(end)
}

fn number<N: FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_the_rest_of_the_line() {
        assert_eq!(parse(b"put name Ada"), Order::Put { key: b"name", value: b"Ada" });
        assert_eq!(parse(b"  PUT  k   a  b c \r"), Order::Put { key: b"k", value: b"a  b c" });
        assert_eq!(parse(b"put \xff \xfe"), Order::Put { key: b"\xff", value: b"\xfe" });
    }

    #[test]
    fn wrong_words_are_told_how() {
        assert_eq!(parse(b"put k"), Order::Usage("Usage: put <key> <value>"));
        assert_eq!(parse(b"put"), Order::Usage("Usage: put <key> <value>"));
        assert_eq!(parse(b"get"), Order::Usage("Usage: get <key>"));
        assert_eq!(parse(b"get a b"), Order::Usage("Usage: get <key>"));
        assert_eq!(parse(b"delete"), Order::Usage("Usage: delete <key>"));
        assert_eq!(parse(b"list a b"), Order::Usage("Usage: list [<prefix>] [<n>]"));
        for line in [&b"incr"[..], b"incr k 1.5", b"incr k 1 2", b"incr k 9223372036854775808"] {
            assert_eq!(parse(line), Order::Usage("Usage: incr <key> [<n>]"));
        }
        assert_eq!(parse(b"kill"), Order::Usage("Usage: kill <node>"));
    }

    #[test]
    fn the_other_orders() {
        assert_eq!(parse(b"get k"), Order::Get { key: b"k" });
        assert_eq!(parse(b"del k"), Order::Delete { key: b"k" });
        assert_eq!(parse(b"incr k"), Order::Incr { key: b"k", by: 1 });
        assert_eq!(parse(b"INCR k -5 \r"), Order::Incr { key: b"k", by: -5 });
        assert_eq!(parse(b"list"), Order::List { prefix: b"", limit: 0 });
        assert_eq!(parse(b"list a 5"), Order::List { prefix: b"a", limit: 5 });
        assert_eq!((parse(b"exit"), parse(b"Quit")), (Order::Exit, Order::Exit));
        assert_eq!((parse(b"help"), parse(b"status")), (Order::Help, Order::Status));
        assert_eq!(parse(b"kill node1"), Order::Kill { node: "node1" });
        assert_eq!((parse(b" \r"), parse(b"fly away")), (Order::Nothing, Order::Unknown));
    }
}
