//! `ringfort`: the one binary. Runs nodes, and talks to them.
//!
//! Every command has a file of its own under `command/`; beside it lie the pieces that several of them share:
//! `args` and `duration` (the command line), `settings` (what the environment and a file say where it is silent),
//! `stop` (exit codes and error lines), `condition` (flags of conditional writes, and their answers), `reading` (how fresh
//! reads are, and whom they are asked of), `writing` (how many copies writes have), `escape`, `json`, `format`, `lines` and `rows` (the formats of list, import and export), `changes` (the lines
//! of an atomic write), `ledger` (what came of each imported line), `out` (stdout, which may be closed early), `part` (a
//! file that appears when it is complete), `progress` and `show` (numbers and tables for people), `shell` (lines in,
//! answers out), `signals`, and `connection` (a client and the runtime under it).
//!
//! What is for programs goes to stdout, what is for people (progress, summaries beside data, errors) to stderr. An
//! error is one line that begins with `ringfort: ` and says what is wrong and what to do.

mod args;
mod changes;
mod command;
mod condition;
mod connection;
mod duration;
mod escape;
mod format;
mod json;
mod ledger;
mod lines;
mod out;
mod part;
mod progress;
mod reading;
mod report;
mod rows;
mod settings;
mod shell;
mod show;
mod signals;
mod stop;
mod text_door;
mod tolerance;
mod writing;

use std::io::Write;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::read().and_then(command::run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if !stop.message.is_empty() {
                // If stderr is closed too, the exit code has to do.
                let _ = writeln!(std::io::stderr(), "ringfort: {}", stop.message);
            }
            ExitCode::from(stop.code)
        }
    }
}
