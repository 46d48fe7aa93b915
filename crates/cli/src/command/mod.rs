//! One file a command.

pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod delete;
pub(crate) mod dev;
pub(crate) mod export;
pub(crate) mod get;
pub(crate) mod health;
pub(crate) mod import;
pub(crate) mod incr;
pub(crate) mod list;
pub(crate) mod man;
pub(crate) mod put;
pub(crate) mod shell;
pub(crate) mod start;
pub(crate) mod status;
pub(crate) mod version;
pub(crate) mod write;

use crate::args::Command;
use crate::stop::Stop;

/// Runs a command to its end.
pub(crate) fn run(command: Command) -> Result<(), Stop> {
    match command {
        Command::Start(start) => start::run(start),
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
        Command::Health(health) => health::run(&health),
        Command::Check(check) => check::run(&check),
        Command::Shell(shell) => shell::run(&shell),
        Command::Bench(bench) => bench::run(&bench),
        Command::Config(config) => config::run(&config),
        Command::Completions(completions) => completions::run(&completions),
        Command::Man(man) => man::run(&man),
        Command::Version(version) => version::run(&version),
    }
}
