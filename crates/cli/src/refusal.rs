//! How clap refuses a command line, said our way: one line on stderr, exit code 2. Help and version go to stdout and are no
//! failure.

use std::ffi::OsString;
use std::io::Write;

use clap::error::{ContextKind, ErrorKind};

use crate::hints::hint;
use crate::stop::Stop;

/// Commands whose first word is a key, which may begin with a dash.
const KEYED: [&str; 5] = ["put", "get", "delete", "incr", "where"];

/// Prints help, or makes one line of clap's many. `line` is what was refused, `root` what it was read by.
pub(crate) fn refused(error: &clap::Error, line: &[OsString], root: &clap::Command) -> Stop {
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
        _ => {
            if let Some(said) = dashed_value(error, line, root) {
                return Stop::usage(said);
            }
            let said = one_line(&text.to_string());
            Stop::usage(match meant(error, line, root) {
                None => said,
                Some(hint) => format!("{}: {hint}", first_part(&said)),
            })
        }
    }
}

/// A value that begins with a dash, behind an option that takes one: clap takes it for an option. What is said of it is what
/// would be said if it stood behind `=`, where it can be nothing but a value.
pub(crate) fn dashed_value(error: &clap::Error, line: &[OsString], root: &clap::Command) -> Option<String> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let refused = error.get(ContextKind::InvalidArg)?.to_string();
    let at = line.windows(2).position(|words| {
        let [option, value] = words else { return false };
        value.to_string_lossy().starts_with(&refused) && takes_value(&option.to_string_lossy(), line, root)
    })?;
    let (option, value) = (line[at].to_string_lossy(), line[at + 1].to_string_lossy());
    let mut joined = line.to_vec();
    joined.splice(at..at + 2, [OsString::from(format!("{option}={value}"))]);
    match root.clone().try_get_matches_from(joined) {
        Err(error) if matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
            Some(one_line(&error.render().to_string()))
        }
        _ => Some(format!(
            "{option} takes a value, and {value} reads as an option: write {option}={value} if it is the value"
        )),
    }
}

/// Whether this word is an option that takes a value, before a command or after it.
fn takes_value(word: &str, line: &[OsString], root: &clap::Command) -> bool {
    let Some(name) = word.strip_prefix("--") else { return false };
    let commands = line.iter().filter_map(|word| root.find_subcommand(word));
    let mut arguments = commands.chain([root]).flat_map(clap::Command::get_arguments);
    arguments.any(|arg| {
        let is_it =
            arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|names| names.contains(&name));
        is_it && arg.get_action().takes_values()
    })
}

/// What does here what the refused word does elsewhere.
pub(crate) fn meant(error: &clap::Error, line: &[OsString], root: &clap::Command) -> Option<String> {
    let words: Vec<_> = line.iter().skip(1).map(|word| word.to_string_lossy()).collect();
    let find = |word: &str| root.find_subcommand(word).map(|command| command.get_name().to_owned());
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = error.get(ContextKind::InvalidSubcommand)?.to_string();
            if let Some(command) = find(&word.to_ascii_lowercase()) {
                return Some(format!("commands are written in lower case: `ringfort {command}`"));
            }
            let at = words.iter().position(|other| *other == word);
            let next = at.and_then(|at| words.get(at + 1));
            hint(None, &word, next.map(AsRef::as_ref)).map(str::to_owned)
        }
        ErrorKind::UnknownArgument => {
            let word = error.get(ContextKind::InvalidArg)?.to_string();
            let command = words.iter().find_map(|word| find(word))?;
            if let Some(hint) = hint(Some(&command), &word, None) {
                return Some(hint.to_owned());
            }
            let is_key = word.starts_with('-') && !word.starts_with("--") && KEYED.contains(&&*command);
            is_key.then(|| {
                format!("a key that begins with a dash goes after --: `ringfort {command} -- {word}`")
            })
        }
        ErrorKind::InvalidValue => {
            let word = error.get(ContextKind::InvalidValue)?.to_string();
            let command = words.iter().find_map(|word| find(word))?;
            hint(Some(&command), &word, None).map(str::to_owned)
        }
        _ => None,
    }
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
