//! `ringfort shell`

use clap::Args;

use crate::connection::{Connect, with_options};
use crate::out::Output;
use crate::reading::Reading;
use crate::shell::{self, Quotes};
use crate::stop::Stop;
use crate::writing::Writing;

/// Type commands: put, get, delete, incr, list, status, where, safe-to-stop, transfer, cluster, help, exit
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort shell\n  printf 'put name Ada\\nget name\\n' | ringfort shell\n\n\
    What has spaces, or begins with a quote, goes in quotes: \"...\" with \\n \\r \\t \\\\ \\\" \\xHH, or '...' as it is; a value is the \
    rest of the line, and needs none for its spaces.\n\n\
    From a pipe, nothing but answers is printed. Exit code: 3 if something was not available, its outcome is \
    unknown, or it has fewer copies than asked for, else 2 if a line made no sense, else 0. JSON: an object for each answer (for list: one a row, and \
    {\"rows\":N} at its end), failures with error, outcome and exit_code."
)]
pub(crate) struct Shell {
    /// Quotes are a part of words, and go around none: for lines that were typed for a shell without quotes
    #[arg(long)]
    literal_quotes: bool,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
}

pub(crate) fn run(command: &Shell) -> Result<(), Stop> {
    let consistency = command.reading.consistency();
    let mut options = command.connect.options()?;
    command.reading.apply(&mut options);
    command.writing.apply(&mut options);
    with_options(options, async |client| {
        let quotes = if command.literal_quotes { Quotes::Part } else { Quotes::Around };
        shell::talk(&client, consistency, command.writing, None, quotes, command.output.json).await
    })
}
