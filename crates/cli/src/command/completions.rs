//! `ringfort completions SHELL`

use clap::{Args, ValueEnum};
use clap_complete::{Shell as Writer, generate};

use crate::out::Out;
use crate::stop::Stop;

/// Print a script that completes commands and flags in your shell
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
    ringfort completions bash > ~/.local/share/bash-completion/completions/ringfort\n  \
    ringfort completions zsh > ~/.zfunc/_ringfort        with ~/.zfunc in $fpath\n  \
    ringfort completions fish > ~/.config/fish/completions/ringfort.fish")]
pub(crate) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// `definition` is the whole command line's.
pub(crate) fn run(completions: &Completions, definition: &clap::Command) -> Result<(), Stop> {
    let writer = match completions.shell {
        Shell::Bash => Writer::Bash,
        Shell::Zsh => Writer::Zsh,
        Shell::Fish => Writer::Fish,
    };
    let mut script = Vec::new();
    generate(writer, &mut offered(definition), "ringfort", &mut script);
    let mut out = Out::new();
    out.write(&script)?;
    out.flush()
}

/// The definition without hidden flags, which the generators would offer.
fn offered(command: &clap::Command) -> clap::Command {
    clap::Command::new(command.get_name().to_owned())
        .about(command.get_about().cloned().unwrap_or_default())
        .version(env!("CARGO_PKG_VERSION"))
        .disable_help_subcommand(true)
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .groups(command.get_groups().cloned())
        .subcommands(command.get_subcommands().map(|inner| offered(inner).disable_version_flag(true)))
}
