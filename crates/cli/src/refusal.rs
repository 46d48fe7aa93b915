//! How clap refuses a command line, said our way: one line on stderr, exit code 2. Help and version go to stdout and are no
//! failure.

use std::io::Write;

use clap::error::{ContextKind, ErrorKind};

use crate::stop::Stop;

/// Prints help, or makes one line of clap's many.
pub(crate) fn refused(error: &clap::Error) -> Stop {
    let text = error.render();
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = write!(std::io::stdout(), "{text}");
            Stop::silent(0)
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = write!(std::io::stderr(), "{text}");
            Stop::silent(2)
        }
        kind => {
            let said = one_line(&text.to_string());
            let word = match kind {
                ErrorKind::UnknownArgument => error.get(ContextKind::InvalidArg),
                ErrorKind::InvalidSubcommand => error.get(ContextKind::InvalidSubcommand),
                _ => None,
            };
            let foreign = word.and_then(|word| foreign(&word.to_string()));
            Stop::usage(match foreign {
                None => said,
                Some(hint) => format!("{}: {hint}", first_part(&said)),
            })
        }
    }
}

/// What those mean here who know another store's words.
fn foreign(word: &str) -> Option<&'static str> {
    Some(match word {
        "--prefix" | "--range-end" | "range" | "scan" | "keys" => {
            "`ringfort list --prefix P` prints all keys that begin with P"
        }
        "watch" => "there is no watch yet",
        "--lease" | "--ttl" | "--ex" | "--px" | "lease" | "expire" | "ttl" => "keys have no time to live yet",
        "member" | "members" | "endpoint" | "nodes" | "info" => "`ringfort status` lists the nodes",
        "txn" | "multi" => "`ringfort write` changes several keys of a shard at once",
        "ping" => "`ringfort health` asks whether a node serves",
        _ => return None,
    })
}

fn first_part(said: &str) -> &str {
    said.split("; ").next().unwrap_or(said)
}

/// The paragraphs of clap's message that say something, on one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut parts = Vec::new();
    for paragraph in text.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(usage) = line.strip_prefix("Usage: ") {
            parts.push(format!("usage: {usage}"));
        } else if !line.is_empty()
            && !line.starts_with("For more information")
            && !line.contains("as a value, use")
        {
            parts.push(line.strip_prefix("error: ").unwrap_or(&line).to_owned());
        }
    }
    parts.join("; ")
}
