//! How clap refuses a command line, said our way: one line on stderr, exit code 2. Help and version go to stdout and are no
//! failure.

use std::io::Write;

use clap::error::ErrorKind;

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
        _ => Stop::usage(one_line(&text.to_string())),
    }
}

/// The paragraphs of clap's message that say something, on one line.
pub(crate) fn one_line(text: &str) -> String {
    let mut parts = Vec::new();
    for paragraph in text.split("\n\n") {
        let line = paragraph.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(usage) = line.strip_prefix("Usage: ") {
            parts.push(format!("usage: {usage}"));
        } else if !line.is_empty() && !line.starts_with("For more information") {
            parts.push(line.strip_prefix("error: ").unwrap_or(&line).to_owned());
        }
    }
    parts.join("; ")
}
