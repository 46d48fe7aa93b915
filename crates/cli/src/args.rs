//! The command line: what can be said, and how it is refused.
//!
//! `--addr` and `--timeout` may stand before or after the command. `start` has an `--addr` of its own (where to
//! listen), which is why they are not clap's global arguments.
//!
//! A refusal is one line on stderr and exit code 2; help and version go to stdout and are no failure.

use std::io::Write;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use ringfort_client::{Options, parse_addresses};

use crate::command::{bench, check, delete, dev, export, get, import, list, put, shell, start, status};
use crate::stop::Stop;

/// Where a node listens if nobody says otherwise.
pub(crate) const ADDRESS_DEFAULT: &str = "127.0.0.1:50051";
const ADDRESS_VARIABLE: &str = "RINGFORT_ADDR";
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);

const ADDR_HELP: &str = "Addresses of some nodes, separated by commas; the others are learnt from them \
    [env: RINGFORT_ADDR] [default: 127.0.0.1:50051]";

const EXAMPLES: &str = "\
Examples:
  ringfort dev                                  three nodes on this machine, and a shell
  ringfort put name Ada && ringfort get name
  zcat packages.tsv.gz | ringfort import -
  ringfort --addr 10.0.0.1:50051,10.0.0.2:50051 status

Exit codes: 0 done; 1 not found; 2 wrong usage, or over a limit; 3 not available, or outcome unknown.";

/// A distributed key-value store that keeps every write it has acknowledged.
#[derive(Debug, Parser)]
#[command(name = "ringfort", version, about, after_help = EXAMPLES, max_term_width = 100)]
#[command(arg_required_else_help = true, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) connect: Connect,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster to talk to.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Connect {
    /// Addresses of some nodes, separated by commas
    #[arg(long, value_name = "HOST:PORT,…", help = ADDR_HELP)]
    pub(crate) addr: Option<String>,
    /// How long to keep trying: 500ms, 3s, 1m [default: 3s]
    #[arg(long, value_name = "TIME", value_parser = crate::duration::parse)]
    pub(crate) timeout: Option<Duration>,
}

impl Connect {
    /// What was said here, or else there.
    fn or(self, other: Connect) -> Connect {
        Connect { addr: self.addr.or(other.addr), timeout: self.timeout.or(other.timeout) }
    }

    /// The client's settings, from these, the environment, and the defaults.
    pub(crate) fn options(&self) -> Result<Options, Stop> {
        let from_environment = || match std::env::var(ADDRESS_VARIABLE) {
            Ok(text) if !text.trim().is_empty() => Some((text, format!("{ADDRESS_VARIABLE}: "))),
            _ => None,
        };
        let (text, origin) = match &self.addr {
            Some(text) => (text.clone(), String::new()),
            None => from_environment().unwrap_or_else(|| (ADDRESS_DEFAULT.into(), String::new())),
        };
        let addresses =
            parse_addresses(&text).map_err(|failure| Stop::usage(format!("{origin}{failure}")))?;
        let mut options = Options::new(addresses);
        options.timeout = self.timeout();
        Ok(options)
    }

    /// How long to keep trying.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout.unwrap_or(TIMEOUT_DEFAULT)
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
    List(list::List),
    Import(import::Import),
    Export(export::Export),
    Status(status::Status),
    Check(check::Check),
    Shell(shell::Shell),
    Bench(bench::Bench),
}

impl Cli {
    /// Reads the command line.
    pub(crate) fn read() -> Result<Cli, Stop> {
        let mut cli = Cli::try_parse().map_err(|error| refused(&error))?;
        let before = std::mem::take(&mut cli.connect);
        if let Some(connect) = cli.command.connect() {
            *connect = std::mem::take(connect).or(before);
        } else if before.addr.is_some() {
            return Err(Stop::usage(
                "--addr before the command names nodes to talk to: write `ringfort start --addr HOST:PORT`",
            ));
        }
        Ok(cli)
    }
}

impl Command {
    /// Where this command keeps which cluster to talk to, if it talks to one.
    fn connect(&mut self) -> Option<&mut Connect> {
        Some(match self {
            Command::Start(_) | Command::Dev(_) => return None,
            Command::Put(put) => &mut put.connect,
            Command::Get(get) => &mut get.connect,
            Command::Delete(delete) => &mut delete.connect,
            Command::List(list) => &mut list.connect,
            Command::Import(import) => &mut import.connect,
            Command::Export(export) => &mut export.connect,
            Command::Status(status) => &mut status.connect,
            Command::Check(check) => &mut check.connect,
            Command::Shell(shell) => &mut shell.connect,
            Command::Bench(bench) => &mut bench.connect,
        })
    }
}

/// Prints help, or makes one line of clap's many.
fn refused(error: &clap::Error) -> Stop {
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
fn one_line(text: &str) -> String {
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
    use clap::CommandFactory;

    use super::*;

    fn refusal(line: &[&str]) -> String {
        one_line(&Cli::try_parse_from(line).expect_err("should be refused").render().to_string())
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
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

    #[test]
    fn addr_stands_before_or_after_and_after_wins() {
        let near = Connect { addr: Some("a:1".into()), timeout: None };
        let far = Connect { addr: Some("b:1".into()), timeout: Some(Duration::from_secs(9)) };
        let both = near.or(far);
        assert_eq!(both.addr.as_deref(), Some("a:1"));
        assert_eq!(both.timeout(), Duration::from_secs(9));
        assert_eq!(both.options().map(|options| options.addresses), Ok(vec!["a:1".into()]));
        assert_eq!(Connect::default().timeout(), TIMEOUT_DEFAULT);
        let mistyped = Connect { addr: Some("localhost".into()), timeout: None };
        assert_eq!(mistyped.options().map_err(|stop| stop.code), Err(2));
    }
}
