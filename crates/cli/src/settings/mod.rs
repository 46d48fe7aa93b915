//! Settings: what a flag says once, the environment for a session, and a file for good.
//!
//! A setting is a flag that says how a command works, not what it is to do this once (`OF_ONE_CALL`). Its other names
//! follow from its flag's, by one rule: `--data-dir` of `start` is `data-dir` in the file's table `[start]`, and
//! `RINGFORT_START_DATA_DIR` in the environment. What commands have in common (`--addr` of nodes to talk to, `--timeout`, `--user` and where its password or token is,
//! `--consistency` and `--reads-from` of reads, `--copies` of writes, `--json`) stands at the top of the file and has no command in its variable; set for one
//! command, it holds there. So a new flag is a setting as soon as it is a flag.
//!
//! A flag beats the environment, the environment the file, the file the default. The winner is handed to clap as the
//! flag's default: whatever its origin, a value is read and refused by the same code. No file is read unless one is
//! named, and an empty variable counts as none. A variable that is no setting is left alone, since others make such
//! names too (a service called ringfort in Kubernetes makes a dozen); `ringfort config` points it out.
//!
//! Here is what settings make of the command line's definition; below, what a `setting` is, the `layers` that say something of
//! it, and their parts.

mod environment;
mod file;
mod layers;
mod nearest;
mod setting;
mod switch;
#[cfg(test)]
mod tests;

use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::stop::Stop;
use environment::{FILE_VARIABLE, PREFIX, variable};
use layers::says;
use nearest::nearest;
use setting::{is_switch_setting, long};
use switch::twin;

pub(crate) use environment::{PASSWORD_VARIABLE, TOKEN_VARIABLE, forget_environment, secret_variable};
pub(crate) use layers::{InForce, Layers, Origin};
pub(crate) use setting::Setting;

/// The command line's definition with what the environment and the file say as defaults, for the command in `matches`.
pub(crate) fn applied(root: Command, matches: &ArgMatches) -> Result<Command, Stop> {
    let Some((name, flags)) = matches.subcommand() else { return Ok(root) };
    let layers = Layers::read(&root, matches)?;
    let mut said = Vec::new();
    if let Some(command) = root.find_subcommand(name) {
        let settings = Setting::of_command(&root, command);
        useless_before(name, &settings, matches, &root)?;
        for setting in settings {
            let here = says(flags, setting);
            let flags: &[&ArgMatches] = if setting.common { &[flags, matches] } else { &[flags] };
            let InForce { text, origin } = layers.find(setting, flags)?;
            if let Some(text) = text.filter(|_| !here && origin != Origin::Default) {
                let text = if setting.is_switch() { switch::text(&text) } else { text };
                said.push((setting.arg.get_id().clone(), text));
            }
        }
    }
    Ok(said.into_iter().fold(root, |root, (id, text)| {
        root.mut_subcommand(name, |command| command.mut_arg(id, |arg| arg.default_value(text)))
    }))
}

/// Refuses a common flag before a command that has no use for it.
fn useless_before(
    name: &str,
    settings: &[Setting<'_>],
    matches: &ArgMatches,
    root: &Command,
) -> Result<(), Stop> {
    for common in Setting::of_all(root) {
        let known = settings.iter().any(|setting| setting.common && setting.key() == common.key());
        if !known && says(matches, common) {
            return Err(Stop::usage(match (name, common.key()) {
                ("start", "addr") => {
                    "--addr before the command names nodes to talk to: write `ringfort start --addr HOST:PORT`"
                        .to_owned()
                }
                (_, key) => format!("--{key} before the command: `ringfort {name}` has no use for it, leave it out"),
            }));
        }
    }
    Ok(())
}

/// Says in the help of every setting how it is called in the environment.
pub(crate) fn with_variables(root: Command) -> Command {
    let mut hints = vec![(None, "config".into(), FILE_VARIABLE.to_owned())];
    for setting in Setting::of_all(&root) {
        hints.push((None, setting.arg.get_id().clone(), setting.variable()));
    }
    for command in root.get_subcommands() {
        for setting in Setting::of_command(&root, command) {
            let command = command.get_name().to_owned();
            hints.push((Some(command), setting.arg.get_id().clone(), setting.variable()));
        }
    }
    let hinted = |arg: Arg, variable: String| {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        arg.help(format!("{help} [env: {variable}]"))
    };
    hints.into_iter().fold(root, |root, (command, id, variable)| match command {
        None => root.mut_arg(id, |arg| hinted(arg, variable)),
        Some(name) => root.mut_subcommand(name, |command| command.mut_arg(id, |arg| hinted(arg, variable))),
    })
}

/// Gives every switch that is a setting a twin, `--no-json` to `--json`, for when the environment or the file has it on.
pub(crate) fn with_twins(root: Command) -> Command {
    let common: Vec<Arg> = root.get_arguments().filter(|arg| is_switch_setting(arg)).cloned().collect();
    let root = common.iter().fold(root, add_twin);
    root.mut_subcommands(|command| {
        let switches: Vec<Arg> =
            command.get_arguments().filter(|arg| is_switch_setting(arg)).cloned().collect();
        switches.iter().fold(command, add_twin)
    })
}

fn add_twin(command: Command, switch: &Arg) -> Command {
    let (id, twin) = (switch.get_id().clone(), twin(long(switch)));
    command
        .mut_arg(&id, |arg| arg.overrides_with(twin.clone()))
        .arg(Arg::new(twin.clone()).long(twin).action(ArgAction::SetTrue).hide(true).overrides_with(id))
}

/// Variables with our prefix that are no setting, each with the nearest that is.
pub(crate) fn unknown_variables(root: &Command) -> Vec<(String, Option<String>)> {
    let mut known = [FILE_VARIABLE, PASSWORD_VARIABLE, TOKEN_VARIABLE].map(str::to_owned).to_vec();
    let mut settings = Setting::of_all(root);
    for command in root.get_subcommands() {
        settings.extend(Setting::of_command(root, command));
    }
    for setting in settings {
        known.extend(setting.tables().map(|table| variable(table, setting.key())));
    }
    let set = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut unknown: Vec<_> = set.filter(|name| name.starts_with(PREFIX) && !known.contains(name)).collect();
    unknown.sort();
    unknown
        .into_iter()
        .map(|name| {
            let near = nearest(&name, known.iter().map(String::as_str)).map(str::to_owned);
            (name, near)
        })
        .collect()
}
