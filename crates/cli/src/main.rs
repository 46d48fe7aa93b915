//! `ringfort`: the one binary. Runs nodes, and talks to them.
//!
//! Arrows between its files point down only. `args` is the command line, and the one file that knows every command;
//! each command has a file of its own under `command/`. Below them lie the pieces that several share:
//! - of the command line: `settings` (what the environment and a file say where it is silent), `refusal` and `hints` (words of other tools), `duration`,
//!   `connection` (which cluster, and a client of it), `credentials` (who asks), `terminal` (a password that is typed), `runtimes` (the threads under that), `waiting` (for its first answer), `reading` (how fresh reads are, and whom they
//!   are asked of), `writing` (how many copies writes have), `membership` (how a node joins), `condition` (flags of conditional writes, and their answers);
//! - of what is read and printed: `escape`, `json`, `format`, `lines` and `rows` (the formats of list, import and
//!   export), `changes` (the lines of an atomic write), `ledger` (what came of each imported line), `part` (a file that
//!   appears when it is complete), `out` (stdout, which may be closed early), `progress` and `show` (numbers and tables for
//!   people), `cluster` (how a cluster's state looks), `moves` (what nodes are being given), `whereabouts` (of a key), `safety` (whether a node can be
//!   stopped), `transfer` (of leaderships), `standing` (nodes that leave or are drained), `layout` (of a state) and `plan` (what would
//!   move), and over them `administration` (all that `ringfort cluster` does, for the shell, too);
//! - of what goes on meanwhile: `shell` (lines in, answers out), `nodes` (a cluster of processes on this machine), `leftovers` (their
//!   temporary directories),
//!   `signals`, `sink` (lines of a node that runs), and `stop` (exit codes and error lines).
//!
//! What is for programs goes to stdout, what is for people (progress, summaries beside data, errors) to stderr. An
//! error is one line that begins with `ringfort: ` and says what is wrong and what to do.

mod administration;
#[cfg(test)]
mod advice;
mod args;
mod audited;
mod authority;
mod changes;
mod cluster;
mod command;
mod condition;
mod connection;
mod credentials;
mod duration;
mod escape;
mod format;
mod hints;
mod json;
mod layout;
mod ledger;
mod leftovers;
mod lines;
mod listing;
mod logging;
mod membership;
mod moves;
mod nodes;
mod out;
mod part;
mod plan;
mod progress;
mod reading;
mod refusal;
mod report;
mod rows;
mod runtimes;
mod safety;
mod settings;
mod shell;
mod show;
mod signals;
mod sink;
mod standing;
mod stop;
mod terminal;
mod text_door;
mod tolerance;
mod transfer;
mod users;
mod waiting;
mod watched;
mod whereabouts;
mod writing;

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match args::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            if !stop.message.is_empty() {
                // If nobody reads it, the exit code has to do.
                ringfort_server::last_words(format!("ringfort: {}", stop.message));
            }
            ExitCode::from(stop.code)
        }
    }
}
