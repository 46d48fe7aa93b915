//! What a line of the shell means.
//!
//! The verb in any case, then words, which may be quoted (`words`). A value is the rest of the line, spaces inside it included;
//! spaces around it are not part of it, unless they are quoted.

use std::str::FromStr;

use super::words::{self, BadQuote, Quotes, Word, rest_of_line, word};
use crate::hints;

/// One line, understood or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order<'a> {
    Put {
        key: Word<'a>,
        value: Word<'a>,
    },
    Get {
        key: Word<'a>,
    },
    Delete {
        key: Word<'a>,
    },
    Incr {
        key: Word<'a>,
        by: i64,
    },
    /// A limit of 0 is none.
    List {
        prefix: Word<'a>,
        limit: u64,
    },
    Status,
    Where {
        key: Word<'a>,
    },
    SafeToStop {
        node: String,
    },
    Transfer {
        shard: String,
        node: String,
    },
    /// The words after `cluster`.
    Cluster {
        words: Vec<String>,
    },
    Help,
    Exit,
    /// In `dev` only.
    AddNode {
        name: Option<String>,
    },
    /// In `dev` only.
    Kill {
        node: String,
    },
    /// In `dev` only.
    Start {
        node: String,
    },
    /// An empty line.
    Nothing,
    /// A known verb with the wrong words after it: how it is used.
    Usage(&'static str),
    Unknown {
        verb: String,
        next: String,
    },
}

/// Every verb, for completion.
pub(crate) const VERBS: [&str; 13] = [
    "put",
    "get",
    "list",
    "delete",
    "incr",
    "status",
    "where",
    "safe-to-stop",
    "transfer",
    "cluster",
    "help",
    "exit",
    "quit",
];
/// Verbs that only `dev` has.
pub(crate) const VERBS_DEV: [&str; 3] = ["kill", "start", "node"];
/// Commands of `ringfort` that are no verbs here.
const COMMANDS: [&str; 17] = [
    "bench",
    "certs",
    "check",
    "completions",
    "config",
    "dev",
    "export",
    "health",
    "import",
    "man",
    "log-level",
    "rebuild",
    "recover",
    "shell",
    "user",
    "version",
    "write",
];
/// Verbs of other stores' shells, and what does the same here.
const FOREIGN: [(&[&str], &str); 10] = [
    (&["keys", "scan", "range", "ls"], "list [<prefix>] [<n>] prints rows in key order"),
    (&["mget"], "get takes one key at a time"),
    (&["decr", "decrby"], "incr <key> -1 subtracts"),
    (&["incrby", "add"], "incr <key> <n> adds"),
    (&["exists", "has"], "get <key> says (not found) if it is not there"),
    (&["rm", "unset", "unlink"], "delete <key> removes a key"),
    (&["remove"], "delete <key> removes a key, cluster remove <node> a node"),
    (
        &["drain", "undrain", "plan"],
        "cluster drain <node> empties a node, cluster plan drain <node> shows what would move",
    ),
    (
        &["info", "nodes", "members", "member", "ping", "endpoint"],
        "status shows the nodes, where <key> a key's shard; transfer <shard> <node> moves a leadership",
    ),
    (&["ringfort"], "a line begins with the command itself, without `ringfort` before it"),
];
const OF_DEV: &str =
    "kill <node> ends a node as kill -9 does, start <node> starts it again, node add has one more join";
const ONLY_OF_DEV: &str = "kill, start and node are commands of the shell of `ringfort dev`, whose nodes are its own; status shows the nodes";
const CLUSTER: &str =
    "Usage: cluster nodes|shards|set|transfer|remove|drain|undrain|plan, as `ringfort cluster` in a terminal";
const NODE: &str = "Usage: node add [<name>], node kill <node>, node start <node>";

/// What `line` says.
pub(crate) fn parse(line: &[u8], quotes: Quotes) -> Order<'_> {
    let (verb, rest) = word(line);
    let verb = String::from_utf8_lossy(verb).to_ascii_lowercase();
    match parse_after(&verb, rest, quotes) {
        Ok(order) => order,
        Err(why) => Order::Usage(why),
    }
}

fn parse_after<'a>(verb: &str, rest: &'a [u8], quotes: Quotes) -> Result<Order<'a>, BadQuote> {
    let argument = |text: &'a [u8]| words::argument(text, quotes);
    if verb == "put" || verb == "set" {
        let (key, rest) = argument(rest)?;
        return Ok(match (key, rest_of_line(rest, quotes)?) {
            (Some(key), Some(value)) => Order::Put { key, value },
            _ => Order::Usage("Usage: put <key> <value>"),
        });
    }
    if verb == "cluster" {
        let words = all_words(rest, quotes)?;
        return Ok(if words.is_empty() { Order::Usage(CLUSTER) } else { Order::Cluster { words } });
    }
    if verb == "node" {
        let words = all_words(rest, quotes)?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        return Ok(match words[..] {
            ["add"] => Order::AddNode { name: None },
            ["add", name] => Order::AddNode { name: Some(name.to_owned()) },
            ["kill", node] => Order::Kill { node: node.to_owned() },
            ["start", node] => Order::Start { node: node.to_owned() },
            _ => Order::Usage(NODE),
        });
    }
    if !VERBS.contains(&verb) && !VERBS_DEV.contains(&verb) && !["", "del", "?"].contains(&verb) {
        // Its words may be quoted in ways that only it knows.
        let next = String::from_utf8_lossy(word(rest).0).into_owned();
        return Ok(Order::Unknown { verb: verb.to_owned(), next });
    }
    let (first, rest) = argument(rest)?;
    let (second, rest) = argument(rest)?;
    let is_over = rest.trim_ascii().is_empty();
    Ok(match (verb, first, second) {
        ("", ..) => Order::Nothing,
        ("get", Some(key), None) => Order::Get { key },
        ("get", ..) => Order::Usage("Usage: get <key>"),
        ("delete" | "del", Some(key), None) => Order::Delete { key },
        ("delete" | "del", ..) => Order::Usage("Usage: delete <key>"),
        ("incr", Some(key), by) if is_over => match by.map_or(Some(1), |by| number(&by)) {
            Some(by) => Order::Incr { key, by },
            None => Order::Usage("Usage: incr <key> [<n>]"),
        },
        ("incr", ..) => Order::Usage("Usage: incr <key> [<n>]"),
        ("list", prefix, limit) if is_over => {
            let limit = limit.map_or(Some(0), |limit| number(&limit).filter(|limit: &u64| *limit > 0));
            match limit {
                Some(limit) => Order::List { prefix: prefix.unwrap_or_default(), limit },
                None => Order::Usage("Usage: list [<prefix>] [<n>]"),
            }
        }
        ("list", ..) => Order::Usage("Usage: list [<prefix>] [<n>]"),
        ("status", None, _) => Order::Status,
        ("status", ..) => Order::Usage("Usage: status"),
        ("where", Some(key), None) => Order::Where { key },
        ("where", ..) => Order::Usage("Usage: where <key>"),
        ("safe-to-stop", Some(node), None) => Order::SafeToStop { node: text(&node) },
        ("safe-to-stop", ..) => Order::Usage("Usage: safe-to-stop <node>"),
        ("transfer", Some(shard), Some(node)) if is_over => {
            Order::Transfer { shard: text(&shard), node: text(&node) }
        }
        ("transfer", ..) => Order::Usage("Usage: transfer <shard> <node>"),
        ("help" | "?", ..) => Order::Help,
        ("exit" | "quit", None, _) => Order::Exit,
        ("exit" | "quit", ..) => Order::Usage("Usage: exit"),
        ("kill", Some(node), None) => Order::Kill { node: text(&node) },
        ("kill", ..) => Order::Usage("Usage: kill <node>"),
        ("start", Some(node), None) => Order::Start { node: text(&node) },
        _ => Order::Usage("Usage: start <node>"),
    })
}

/// What is said of a verb that there is not, if it means something elsewhere.
pub(crate) fn hint(verb: &str, next: &str, dev: bool) -> Option<String> {
    if VERBS_DEV.contains(&verb) {
        return Some(ONLY_OF_DEV.to_owned());
    }
    if dev && ["stop", "restart", "down", "shutdown"].contains(&verb) {
        return Some(OF_DEV.to_owned());
    }
    if COMMANDS.contains(&verb) {
        return Some(format!("{verb} is no command of this shell: run `ringfort {verb}` in a terminal"));
    }
    let foreign = FOREIGN.iter().find(|(verbs, _)| verbs.contains(&verb)).map(|(_, says)| *says);
    foreign.or_else(|| hints::hint(None, verb, Some(next))).map(str::to_owned)
}

/// All words that are left.
fn all_words(mut rest: &[u8], quotes: Quotes) -> Result<Vec<String>, BadQuote> {
    let mut words = Vec::new();
    while let (Some(word), after) = words::argument(rest, quotes)? {
        words.push(text(&word));
        rest = after;
    }
    Ok(words)
}

fn text(word: &[u8]) -> String {
    String::from_utf8_lossy(word).into_owned()
}

fn number<N: FromStr>(text: &[u8]) -> Option<N> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args;

    fn parse(line: &[u8]) -> Order<'_> {
        super::parse(line, Quotes::Around)
    }

    fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Order<'a> {
        Order::Put { key: key.into(), value: value.into() }
    }

    #[test]
    fn quotes_are_a_part_of_words_where_that_is_asked_for() {
        let parse = |line| super::parse(line, Quotes::Part);
        assert_eq!(parse(br#"put q "a b""#), put(b"q", br#""a b""#));
        assert_eq!(parse(b"put q 'tis fine "), put(b"q", b"'tis fine"));
        assert_eq!(parse(br#"put "k k" v"#), put(br#""k"#, br#"k" v"#));
        assert_eq!(parse(br#"get "k"#), Order::Get { key: br#""k"#[..].into() });
    }

    #[test]
    fn a_value_is_the_rest_of_the_line() {
        assert_eq!(parse(b"put name Ada"), put(b"name", b"Ada"));
        assert_eq!(parse(b"  PUT  k   a  b c \r"), put(b"k", b"a  b c"));
        assert_eq!(parse(b"put \xff \xfe"), put(b"\xff", b"\xfe"));
        assert_eq!(parse(br#"put "my key" "two\nlines""#), put(b"my key", b"two\nlines"));
        assert_eq!(parse(b"put k it's \"so\""), put(b"k", b"it's \"so\""));
        assert_eq!(parse(b"put k ''"), put(b"k", b""));
    }

    #[test]
    fn wrong_words_are_told_how() {
        assert_eq!(parse(b"put k"), Order::Usage("Usage: put <key> <value>"));
        assert_eq!(parse(b"put"), Order::Usage("Usage: put <key> <value>"));
        assert_eq!(parse(b"get"), Order::Usage("Usage: get <key>"));
        assert_eq!(parse(b"get a b"), Order::Usage("Usage: get <key>"));
        assert_eq!(parse(b"delete"), Order::Usage("Usage: delete <key>"));
        assert_eq!(parse(b"list a b"), Order::Usage("Usage: list [<prefix>] [<n>]"));
        assert_eq!(parse(b"list a 1 b"), Order::Usage("Usage: list [<prefix>] [<n>]"));
        for line in [&b"incr"[..], b"incr k 1.5", b"incr k 1 2", b"incr k 9223372036854775808"] {
            assert_eq!(parse(line), Order::Usage("Usage: incr <key> [<n>]"));
        }
        assert_eq!(parse(b"kill"), Order::Usage("Usage: kill <node>"));
        assert_eq!(parse(b"start a b"), Order::Usage("Usage: start <node>"));
        assert_eq!(
            (parse(b"quit now"), parse(b"exit 0")),
            (Order::Usage("Usage: exit"), Order::Usage("Usage: exit"))
        );
        assert_eq!(parse(b"status of node1"), Order::Usage("Usage: status"));
        assert_eq!(parse(b"where"), Order::Usage("Usage: where <key>"));
        assert_eq!(parse(b"safe-to-stop"), Order::Usage("Usage: safe-to-stop <node>"));
        for line in [&b"transfer 3"[..], b"transfer 3 node2 now"] {
            assert_eq!(parse(line), Order::Usage("Usage: transfer <shard> <node>"));
        }
        assert_eq!(parse(b"cluster"), Order::Usage(CLUSTER));
        for line in [&b"node"[..], b"node stop node1", b"node kill", b"node add a b"] {
            assert_eq!(parse(line), Order::Usage(NODE));
        }
        let Order::Usage(why) = parse(b"get \"a") else { panic!("a quote is open") };
        assert!(why.contains("not closed"), "{why}");
    }

    #[test]
    fn the_other_orders() {
        let key = || b"k"[..].into();
        assert_eq!(parse(b"get k"), Order::Get { key: key() });
        assert_eq!(parse(b"get 'k'"), Order::Get { key: key() });
        assert_eq!(parse(b"del k"), Order::Delete { key: key() });
        assert_eq!(parse(b"incr k"), Order::Incr { key: key(), by: 1 });
        assert_eq!(parse(b"INCR k -5 \r"), Order::Incr { key: key(), by: -5 });
        assert_eq!(parse(b"list"), Order::List { prefix: b""[..].into(), limit: 0 });
        assert_eq!(parse(b"list 3"), Order::List { prefix: b"3"[..].into(), limit: 0 });
        assert_eq!(parse(b"list \"\" 3"), Order::List { prefix: b""[..].into(), limit: 3 });
        assert_eq!(parse(b"list a 5"), Order::List { prefix: b"a"[..].into(), limit: 5 });
        assert_eq!((parse(b"exit"), parse(b"Quit \r")), (Order::Exit, Order::Exit));
        assert_eq!((parse(b"help put"), parse(b"status")), (Order::Help, Order::Status));
        assert_eq!(parse(b"kill node1"), Order::Kill { node: "node1".into() });
        assert_eq!(parse(b"where k"), Order::Where { key: key() });
        assert_eq!(parse(b"safe-to-stop node1"), Order::SafeToStop { node: "node1".into() });
        let transfer = Order::Transfer { shard: "3".into(), node: "node2".into() };
        assert_eq!(parse(b"TRANSFER 3 node2 \r"), transfer);
        let words = ["remove", "node 4", "--force"].map(str::to_owned).to_vec();
        assert_eq!(parse(b"cluster remove 'node 4' --force \r"), Order::Cluster { words });
        assert_eq!(parse(b"node add"), Order::AddNode { name: None });
        assert_eq!(parse(b"node add n9 \r"), Order::AddNode { name: Some("n9".into()) });
        assert_eq!(parse(b"node kill n9"), Order::Kill { node: "n9".into() });
        assert_eq!(parse(b"node start n9"), Order::Start { node: "n9".into() });
        assert_eq!(parse(b" \r"), Order::Nothing);
        assert_eq!(parse(b"Fly \"away"), Order::Unknown { verb: "fly".into(), next: "\"away".into() });
    }

    #[test]
    fn words_of_others_get_a_hint() {
        let hint = |verb: &str, dev| hint(verb, "", dev).unwrap_or_default();
        for (verb, dev, says) in [
            ("keys", false, "list [<prefix>]"),
            ("decr", true, "incr <key> -1"),
            ("stop", true, "kill <node>"),
            ("restart", true, "start <node>"),
            ("stop", false, "Ctrl+C"),
            ("kill", false, "`ringfort dev`"),
            ("node", false, "`ringfort dev`"),
            ("remove", true, "cluster remove <node>"),
            ("drain", false, "cluster drain <node>"),
            ("watch", false, "no watch yet"),
            ("import", true, "run `ringfort import`"),
            ("fly", true, ""),
        ] {
            assert!(hint(verb, dev).contains(says), "{verb}: {}", hint(verb, dev));
        }
        // Every command of the command line is a verb, or is said to be none.
        for command in args::definition().get_subcommands() {
            let name = command.get_name();
            assert!(VERBS.contains(&name) || !hint(name, false).is_empty(), "{name}");
        }
        for verb in FOREIGN.iter().flat_map(|(verbs, _)| *verbs).chain(&COMMANDS) {
            assert!(matches!(parse(verb.as_bytes()), Order::Unknown { .. }), "{verb}");
        }
    }
}
