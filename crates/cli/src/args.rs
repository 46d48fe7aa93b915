//! The command line: what can be said, and who does it. The one file that knows every command.
//!
//! `--addr`, `--timeout`, `--user`, `--consistency`, `--reads-from`, `--copies`, `--json` and `--config` may stand before or after the command. `start` has an `--addr` of its
//! own (where to listen), which is why only the last of them is one of clap's global arguments. What is not said here
//! comes from the environment, a file, or the defaults; see `settings`. What makes no sense is refused; see `refusal`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::command::{
    bench, certs, check, cluster, completions, config, delete, dev, export, get, health, import, incr, list,
    locate, log_level, man, put, rebuild, recover, safe_to_stop, shell, start, status, user, version, write,
};
use crate::connection::Connect;
use crate::out::Output;
use crate::reading::Reading;
use crate::refusal::refused;
use crate::settings;
use crate::stop::Stop;
use crate::writing::Writing;

const EXAMPLES: &str = "\
Examples:
  ringfort dev                                  three nodes on this machine, and a shell
  ringfort put name Ada && ringfort get name
  ringfort put name Grace --if-value Ada        only if it still is
  ringfort import rows.tsv.gz
  ringfort --addr 10.0.0.1:50051,10.0.0.2:50051 status
  ringfort config                               what is set, and where

`ringfort help COMMAND` tells more about a command, and so does `ringfort COMMAND --help`.

Exit codes: 0 done; 1 not found, a condition not met, not safe (`safe-to-stop`), or a shard without a copy (`recover`); 2 wrong usage, over a limit, or not allowed; 3 not available, outcome unknown, or fewer copies than asked for.";

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

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    Start(Box<start::Start>),
    Dev(dev::Dev),
    #[command(alias = "set")]
    Put(put::Put),
    Get(get::Get),
    #[command(alias = "del")]
    Delete(delete::Delete),
    Incr(incr::Incr),
    Write(write::Write),
    List(list::List),
    Import(import::Import),
    Export(export::Export),
    Status(status::Status),
    Cluster(cluster::Cluster),
    User(user::User),
    Rebuild(rebuild::Rebuild),
    Recover(recover::Recover),
    Where(locate::Where),
    SafeToStop(safe_to_stop::SafeToStop),
    Health(health::Health),
    LogLevel(log_level::LogLevel),
    Check(check::Check),
    Certs(certs::Certs),
    Shell(shell::Shell),
    Bench(bench::Bench),
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    Version(version::Version),
}

/// Does what this process's command line says, to its end.
pub(crate) fn run() -> Result<(), Stop> {
    match read(&std::env::args_os().collect::<Vec<_>>())? {
        Command::Start(start) => start::run(*start),
        Command::Dev(dev) => dev::run(&dev),
        Command::Put(put) => put::run(&put),
        Command::Get(get) => get::run(&get),
        Command::Delete(delete) => delete::run(&delete),
        Command::Incr(incr) => incr::run(&incr),
        Command::Write(write) => write::run(&write),
        Command::List(list) => list::run(&list),
        Command::Import(import) => import::run(&import),
        Command::Export(export) => export::run(&export),
        Command::Status(status) => status::run(&status),
        Command::Cluster(cluster) => cluster::run(&cluster),
        Command::User(user) => user::run(&user),
        Command::Rebuild(rebuild) => rebuild::run(&rebuild),
        Command::Recover(recover) => recover::run(&recover),
        Command::Where(asked) => locate::run(&asked),
        Command::LogLevel(asked) => log_level::run(&asked),
        Command::SafeToStop(asked) => safe_to_stop::run(&asked),
        Command::Health(health) => health::run(&health),
        Command::Certs(asked) => certs::run(&asked),
        Command::Check(check) => check::run(&check),
        Command::Shell(shell) => shell::run(&shell),
        Command::Bench(bench) => bench::run(&bench),
        Command::Config(config) => config::run(&config, definition()),
        Command::Completions(completions) => completions::run(&completions, &definition()),
        Command::Man(man) => man::run(&man, definition()),
        Command::Version(version) => version::run(&version),
    }
}

/// The command line's definition, as its help, its man pages and its completions show it.
pub(crate) fn definition() -> clap::Command {
    let root = Cli::command().mut_subcommand("check", |check| {
        check.mut_arg("timeout", |timeout| timeout.default_value(check::TIMEOUT_DEFAULT))
    });
    let root =
        root.mut_subcommand("health", |health| health.mut_arg("addr", |addr| addr.help(health::ADDRESSES)));
    settings::with_variables(root)
}

/// Reads a command line twice: once for what it says, then with what the other layers say where it is silent.
fn read(line: &[OsString]) -> Result<Command, Stop> {
    let line = &help_asked_in_words(line);
    let known = settings::with_twins(definition());
    let refused = |error: clap::Error| refused(&error, line, &known);
    let said = known.clone().try_get_matches_from(line).map_err(refused)?;
    let whole = settings::applied(known.clone(), &said)?.try_get_matches_from(line).map_err(refused)?;
    Cli::from_arg_matches(&whole).map(|cli| cli.command).map_err(refused)
}

/// `ringfort help put` as `ringfort put --help`.
fn help_asked_in_words(line: &[OsString]) -> Vec<OsString> {
    let mut line = line.to_vec();
    if line.get(1).is_some_and(|word| word == "help") {
        line.remove(1);
        line.push("--help".into());
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hints::{HINTS, Hint};
    use crate::refusal::{dashed_value, meant, one_line};

    fn error(line: &[&str]) -> clap::Error {
        definition().try_get_matches_from(line).expect_err("should be refused")
    }

    fn refusal(line: &[&str]) -> String {
        one_line(&error(line).render().to_string())
    }

    fn hint(line: &[&str]) -> Option<String> {
        let words: Vec<OsString> = line.iter().map(OsString::from).collect();
        meant(&error(line), &words, &definition())
    }

    #[test]
    fn the_definition_holds_together() {
        settings::with_twins(definition()).debug_assert();
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

    /// Whatever an option takes: a value that begins with a dash is refused in the option's name, and not taken for a key.
    #[test]
    fn a_value_that_begins_with_a_dash_is_refused_in_its_options_name() {
        let root = settings::with_twins(definition());
        let said = |line: &[&str]| {
            let words: Vec<OsString> = line.iter().map(OsString::from).collect();
            let error = root.clone().try_get_matches_from(&words).expect_err("should be refused");
            dashed_value(&error, &words, &root).unwrap_or_else(|| one_line(&error.render().to_string()))
        };
        let (mut options, mut durations) = (0, 0);
        for command in root.get_subcommands() {
            let with_values = command.get_arguments().filter(|arg| arg.get_action().takes_values());
            for arg in with_values.filter(|arg| !arg.is_allow_hyphen_values_set()) {
                let Some(long) = arg.get_long() else { continue };
                let is_path =
                    arg.get_value_parser().type_id() == std::any::TypeId::of::<std::path::PathBuf>();
                // After it comes any command's line, so a file may be called so.
                if command.get_name() == "config" && is_path {
                    continue;
                }
                let option = format!("--{long}");
                let said = said(&["ringfort", command.get_name(), &option, "-1s"]);
                assert!(said.contains(&option), "{said}");
                options += 1;
                if arg.get_value_parser().type_id() == std::any::TypeId::of::<std::time::Duration>() {
                    assert!(said.contains("not negative"), "{said}");
                    durations += 1;
                }
            }
        }
        assert!(options > 80 && durations > 15, "{options} options, {durations} of them durations");
        assert!(said(&["ringfort", "--timeout", "-1s", "get", "k"]).contains("--timeout"));
        assert!(said(&["ringfort", "get", "k", "--endpoints", "-1"]).contains("--addr"));
        assert!(said(&["ringfort", "list", "--limit", "-1"]).contains("'-1' for '--limit <N>'"));
        assert!(said(&["ringfort", "list", "--prefix", "-a"]).contains("write --prefix=-a"));
    }

    /// The words of `line`, without what only a shell would see.
    fn words(line: &str) -> Vec<OsString> {
        let line = line.split("   ").next().expect("before the remark");
        let line = line.split([';', '>', '<']).next().expect("before what a shell does");
        line.split_whitespace().map(|word| word.trim_matches('\'').into()).collect()
    }

    #[test]
    fn every_example_in_help_is_understood() {
        let root = settings::with_twins(definition());
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

    /// A command line in which this word of the table is refused.
    fn refused_line<'a>(hint: &'a Hint, word: &'a str) -> Vec<&'a str> {
        let mut line = vec!["ringfort"];
        line.extend(hint.after.or(word.starts_with('-').then_some("version")));
        // What comes before is there, so that it is this word that is one too many.
        let keys: &[&str] = match (hint.after, word.starts_with('-')) {
            (Some("put"), false) => &["k", "v"],
            _ => &[],
        };
        line.extend(keys);
        line.extend(word.split(' '));
        line
    }

    #[test]
    fn every_word_of_other_tools_is_refused_with_its_hint() {
        for told in HINTS {
            for word in told.words {
                let line = refused_line(told, word);
                assert_eq!(hint(&line).as_deref(), Some(told.says), "{line:?}");
            }
        }
        for (line, says) in [
            (&["ringfort", "SET", "k", "v"][..], "lower case: `ringfort put`"),
            (&["ringfort", "INFO"], "`ringfort status`"),
            (&["ringfort", "--json", "SNAPSHOT", "restore", "f"], "`ringfort import rows.tsv.gz` reads"),
            (&["ringfort", "--json", "del", "--prefix", "k"], "one key at a time"),
            (&["ringfort", "get", "k", "--write-out=json"], "`--json`"),
            (&["ringfort", "put", "-a", "b"], "`ringfort put -- -a`"),
            (&["ringfort", "put", "k", "v", "NX"], "--if-absent"),
        ] {
            assert!(hint(line).is_some_and(|hint| hint.contains(says)), "{line:?}: {:?}", hint(line));
        }
        assert_eq!(hint(&["ringfort", "fly"]), None);
        assert_eq!(hint(&["ringfort", "status", "-x"]), None);
    }

    #[test]
    fn a_hint_names_only_what_there_is() {
        let root = settings::with_twins(definition());
        let flags: Vec<String> = root
            .get_subcommands()
            .flat_map(clap::Command::get_arguments)
            .filter_map(|arg| Some(format!("--{}", arg.get_long()?)))
            .collect();
        for says in HINTS.iter().map(|hint| hint.says) {
            for named in says.split('`').skip(1).step_by(2) {
                let words = words(named.split(" | ").next().expect("before the pipe"));
                if words[0] == "ringfort" {
                    // Without its arguments, a command's name stands for it.
                    let found = words.len() == 2
                        && root.get_subcommands().any(|command| words[1] == command.get_name());
                    assert!(found || root.clone().try_get_matches_from(&words).is_ok(), "{named}");
                } else if named.starts_with('-') {
                    assert!(flags.iter().any(|flag| words[0] == flag.as_str()), "{named}");
                } else {
                    assert_eq!(named, "kill PID");
                }
            }
        }
    }

    #[test]
    fn help_can_be_asked_for_in_words() {
        let line = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
        let asked = |words: &[&str]| help_asked_in_words(&line(words));
        assert_eq!(asked(&["ringfort", "help", "put"]), line(&["ringfort", "put", "--help"]));
        assert_eq!(asked(&["ringfort", "help"]), line(&["ringfort", "--help"]));
        assert_eq!(asked(&["ringfort", "get", "help"]), line(&["ringfort", "get", "help"]));
    }
}
