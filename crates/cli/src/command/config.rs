//! `ringfort config [COMMAND [FLAGS]]`

use std::ffi::OsString;
use std::io::Write;

use clap::{ArgMatches, Args};

use crate::connection::Connect;
use crate::json::Object;
use crate::out::{Out, Output};
use crate::refusal::refused;
use crate::settings::{self, InForce, Layers, Origin, Setting};
use crate::show;
use crate::stop::Stop;

/// Print the settings in force, and where each comes from
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort config\n  ringfort config --config ringfort.toml\n  \
    ringfort config start --cache-mb 256          those of one command, with its flags\n\n\
    A flag beats the environment, the environment the file (--config), the file the default. The file is TOML: \
    what commands have in common at its top (addr, timeout, user, consistency, reads-from, copies, json), then a table for \
    each command:\n\n    \
    timeout = \"5s\"\n    [start]\n    data-dir = \"d1\"\n\n\
    A switch that is on can be switched off: --no-json for --json, and so on.")]
pub(crate) struct Config {
    /// A command, and flags of it
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    line: Vec<OsString>,
    #[command(flatten)]
    output: Output,
    // Taken from clap's matches, with where it comes from.
    #[command(flatten)]
    connect: Connect,
}

/// `definition` is the whole command line's.
pub(crate) fn run(config: &Config, definition: clap::Command) -> Result<(), Stop> {
    let root = settings::with_twins(asking(definition));
    let matches = |line: Vec<OsString>| {
        root.clone().try_get_matches_from(&line).map_err(|error| refused(&error, &line, &root))
    };
    let outer = matches(std::env::args_os().collect())?;
    let mut layers = Layers::read(&root, &outer)?;
    let mut flags = vec![&outer];
    flags.extend(outer.subcommand().map(|(_, here)| here));
    flags.reverse();
    let mut out = Out::new();
    let mut shown = Vec::new();
    if config.line.is_empty() {
        for setting in Setting::of_all(&root) {
            shown.push((setting.name(), layers.find(setting, &flags)?));
        }
        for command in root.get_subcommands() {
            for setting in Setting::of_command(&root, command) {
                let in_force = layers.find(setting, if setting.is_common() { &flags } else { &[] })?;
                // What all have in common is shown once, and where a command differs.
                if !setting.is_common() {
                    shown.push((setting.name(), in_force));
                } else if shown.iter().all(|(name, common)| *name != setting.name() || *common != in_force) {
                    shown.push((format!("{}.{}", command.get_name(), setting.name()), in_force));
                }
            }
        }
    } else {
        let inner = matches(std::iter::once("ringfort".into()).chain(config.line.iter().cloned()).collect())?;
        if inner.get_raw("config").is_some() {
            layers = Layers::read(&root, &inner)?;
        }
        let Some((name, here)) = inner.subcommand() else {
            return Err(Stop::usage("config: name a command, with its flags after it"));
        };
        let command = root.find_subcommand(name).expect("clap knows it");
        for setting in Setting::of_command(&root, command) {
            let mut places: Vec<&ArgMatches> = vec![here];
            if setting.is_common() {
                places.extend(&flags);
            }
            shown.push((setting.name(), layers.find(setting, &places)?));
        }
    }
    print(&mut out, &shown, config.output.json)?;
    for (name, near) in settings::unknown_variables(&root) {
        let meant = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
        let _ = writeln!(std::io::stderr(), "ringfort: {name} is set, but is no setting{meant}");
    }
    Ok(())
}

/// The definition for asking about: nothing is required.
fn asking(root: clap::Command) -> clap::Command {
    root.mut_subcommands(|command| {
        let groups: Vec<_> = command.get_groups().map(|group| group.get_id().clone()).collect();
        let command = command.mut_args(|arg| arg.required(false));
        groups.into_iter().fold(command, |command, id| command.mut_group(id, |group| group.required(false)))
    })
}

fn print(out: &mut Out, shown: &[(String, InForce)], json: bool) -> Result<(), Stop> {
    if !json {
        let rows: Vec<_> = shown
            .iter()
            .map(|(name, InForce { text, origin })| {
                let text = text.as_ref().map_or("(none)".into(), |text| text.to_string_lossy().into_owned());
                let origin = match origin {
                    Origin::Flag => "flag".to_owned(),
                    Origin::Environment(variable) => format!("environment {variable}"),
                    Origin::File { path, line } => format!("file {path}:{line}"),
                    Origin::Default => "default".to_owned(),
                };
                vec![name.clone(), text, origin]
            })
            .collect();
        return out.line(show::table(&["setting", "value", "from"], &rows).trim_end());
    }
    for (name, InForce { text, origin }) in shown {
        let object = Object::new().field("setting", name);
        let object = match text {
            Some(text) => object.bytes("value", text.as_encoded_bytes()),
            None => object.field("value", ()),
        };
        let object = match origin {
            Origin::Flag => object.field("from", "flag"),
            Origin::Environment(variable) => object.field("from", "environment").field("variable", variable),
            Origin::File { path, line } => {
                object.field("from", "file").field("file", path).field("line", line)
            }
            Origin::Default => object.field("from", "default"),
        };
        out.line(object.finish())?;
    }
    Ok(())
}
