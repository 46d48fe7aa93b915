//! The command line: what can be said, and how it is refused.
//!
//! `--addr`, `--timeout`, `--consistency`, `--reads-from`, `--copies`, `--json` and `--config` may stand before or after the command. `start` has an `--addr` of its
//! own (where to listen), which is why only the last of them is one of clap's global arguments. What is not said here
//! comes from the environment, a file, or the defaults; see `settings`.
//!
//! A refusal is one line on stderr and exit code 2; help and version go to stdout and are no failure.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use ringfort_client::{Options, parse_addresses};

use crate::command::{
    bench, check, completions, config, delete, dev, export, get, health, import, incr, list, man, put, shell,
    start, status, version, write,
};
use crate::reading::Reading;
use crate::settings;
use crate::stop::Stop;
use crate::writing::Writing;

/// Where a node listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:50051";

const EXAMPLES: &str = "\
Examples:
  ringfort dev                                  three nodes on this machine, and a shell
  ringfort put name Ada && ringfort get name
  ringfort put name Grace --if-value Ada        only if it still is
  ringfort import packages.tsv.gz
  ringfort --addr 10.0.0.1:50051,10.0.0.2:50051 status
  ringfort config                               what is set, and where

Exit codes: 0 done; 1 not found, or a condition not met; 2 wrong usage, or over a limit; 3 not available, outcome unknown, or fewer copies than asked for.";

/// A distributed key-value store that keeps every write it has acknowledged.
#[derive(Debug, Parser)]
#[command(name = "ringfort", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
struct Cli {
    /// Read settings from this TOML file; flags and the environment beat it
    // Read from clap's matches, before there is a `Cli`.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    // What of these stands before the command is handed on to it by `settings`.
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
    #[command(subcommand)]
    command: Command,
}

/// Which cluster to talk to.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Connect {
    /// Addresses of some nodes, separated by commas; the others are learnt from them
    #[arg(long, value_name = "HOST:PORT,…", default_value = ADDRESS_DEFAULT, value_parser = addresses)]
    addr: Addresses,
    /// How long to keep trying: 500ms, 3s, 1m
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = crate::duration::parse)]
    timeout: Duration,
}

/// How to print.
#[derive(Args, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Output {
    /// Print JSON, one object a line
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Addresses(Vec<String>);

fn addresses(text: &str) -> Result<Addresses, String> {
    parse_addresses(text).map(Addresses).map_err(|failure| failure.to_string())
}

impl Connect {
    /// The client's settings.
    pub(crate) fn options(&self) -> Options {
        let mut options = Options::new(self.addr.0.clone());
        options.timeout = self.timeout;
        options
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Start(start::Start),
    Dev(dev::Dev),
    Put(put::Put),
    Get(get::Get),
    Delete(delete::Delete),
    Incr(incr::Incr),
    Write(write::Write),
    List(list::List),
    Import(import::Import),
    Export(export::Export),
    Status(status::Status),
    Health(health::Health),
    Check(check::Check),
    Shell(shell::Shell),
    Bench(bench::Bench),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    Version(version::Version),
}

/// The command line's definition, as its help, its man pages and its completions show it.
pub(crate) fn command() -> clap::Command {
    let root = Cli::command().mut_subcommand("check", |check| {
        check.mut_arg("timeout", |timeout| timeout.default_value(check::TIMEOUT_DEFAULT))
    });
    settings::with_variables(root)
}

/// Reads this process's command line, and what else there is to go by.
pub(crate) fn read() -> Result<Command, Stop> {
    interpret(&std::env::args_os().collect::<Vec<_>>())
}

/// Reads a command line twice: once for what it says, then with what the other layers say where it is silent.
fn interpret(line: &[OsString]) -> Result<Command, Stop> {
    let root = settings::with_twins(command());
    let said = root.clone().try_get_matches_from(line).map_err(|error| refused(&error))?;
    let root = settings::applied(root, &said)?;
    let whole = root.try_get_matches_from(line).map_err(|error| refused(&error))?;
    Cli::from_arg_matches(&whole).map(|cli| cli.command).map_err(|error| refused(&error))
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(line: &[&str]) -> String {
        one_line(&command().try_get_matches_from(line).expect_err("should be refused").render().to_string())
    }

    #[test]
    fn the_definition_holds_together() {
        settings::with_twins(command()).debug_assert();
    }

    #[test]
    fn a_refusal_is_one_line() {
        for line in [
            &["ringfort", "get"][..],
            &["ringfort", "gt", "a"],
            &["ringfort", "put", "a"],
            &["ringfort", "get", "a", "--timeout", "3"],
            &["ringfort", "list", "--limit", "-1"],
            &["ringfort", "bench", "--workload", "fly"],
        ] {
            let refusal = refusal(line);
            assert!(!refusal.is_empty() && !refusal.contains('\n'), "{refusal}");
            assert!(!refusal.starts_with("error"), "{refusal}");
        }
        assert!(refusal(&["ringfort", "get"]).contains("usage: ringfort get"));
    }

    /// The words of `line`, without what only a shell would see.
    fn words(line: &str) -> Vec<OsString> {
        let line = line.split("   ").next().expect("before the remark");
        let line = line.split([';', '>', '<']).next().expect("before what a shell does");
        line.split_whitespace().map(|word| word.trim_matches('\'').into()).collect()
    }

    #[test]
    fn every_example_in_help_is_understood() {
        let root = settings::with_twins(command());
        let mut examples = 0;
        let helps = std::iter::once(&root).chain(root.get_subcommands());
        for help in helps.filter_map(clap::Command::get_after_help) {
            let help = help.to_string().replace("\\\n", " ");
            let lines = help.lines().filter(|line| line.starts_with("  "));
            for part in lines.flat_map(|line| line.trim().split(" | ").flat_map(|part| part.split(" && "))) {
                let words = words(part);
                if words.first().is_some_and(|word| word == "ringfort") {
                    let read = root.clone().try_get_matches_from(&words);
                    assert!(read.is_ok(), "{part}: {}", read.expect_err("refused").render());
                    examples += 1;
                }
            }
        }
        assert!(examples > 20, "{examples} examples found");
    }
}
