//! Settings: what a flag says once, the environment for a session, and a file for good.
//!
//! A setting is a flag that says how a command works, not what it is to do this once (`OF_ONE_CALL`). Its other names
//! follow from its flag's, by one rule: `--data-dir` of `start` is `data-dir` in the file's table `[start]`, and
//! `RINGFORT_START_DATA_DIR` in the environment. What commands have in common (`--addr` of nodes to talk to, `--timeout`,
//! `--consistency` and `--reads-from` of reads, `--copies` of writes, `--json`) stands at the top of the file and has no command in its variable; set for one
//! command, it holds there. So a new flag is a setting as soon as it is a flag.
//!
//! A flag beats the environment, the environment the file, the file the default. The winner is handed to clap as the
//! flag's default: whatever its origin, a value is read and refused by the same code. No file is read unless one is
//! named, and an empty variable counts as none. A variable that is no setting is left alone, since others make such
//! names too (a service called ringfort in Kubernetes makes a dozen); `ringfort config` points it out.

mod file;
mod nearest;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::refusal::one_line;
use crate::stop::Stop;
use file::SettingsFile;
pub(crate) use nearest::nearest;

/// Flags that say what to do this once.
const OF_ONE_CALL: [(&str, &str); 21] = [
    ("put", "if-absent"),
    ("put", "if-present"),
    ("put", "if-revision"),
    ("put", "if-value"),
    ("get", "raw"),
    // Short for a value of --consistency, which is the setting.
    ("get", "stale"),
    ("delete", "if-present"),
    ("delete", "if-revision"),
    ("delete", "if-value"),
    ("write", "file"),
    ("list", "prefix"),
    ("list", "from"),
    ("list", "limit"),
    ("list", "keys-only"),
    ("health", "service"),
    ("import", "file"),
    ("import", "format"),
    ("import", "skip"),
    ("export", "file"),
    ("export", "format"),
    ("man", "out"),
];
/// Commands that have nothing to set but what all have.
const WITHOUT_TABLE: [&str; 4] = ["config", "version", "completions", "man"];
const PREFIX: &str = "RINGFORT_";
/// Names the file.
const FILE_VARIABLE: &str = "RINGFORT_CONFIG";

/// Something that can be set, of one command or of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// The command; none for what stands before all commands.
    command: Option<&'a str>,
    arg: &'a Arg,
    /// Whether all commands have it.
    common: bool,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Flag,
    /// A variable of this name.
    Environment(String),
    File {
        path: String,
        line: usize,
    },
    Default,
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// As it would be written after the flag; none if it has no default that could be.
    pub(crate) text: Option<OsString>,
    /// Who said so.
    pub(crate) origin: Origin,
}

impl<'a> Setting<'a> {
    /// The settings of one of `root`'s commands.
    pub(crate) fn of_command(root: &'a Command, command: &'a Command) -> Vec<Setting<'a>> {
        let name = command.get_name();
        let is_setting = |arg: &&Arg| is_setting(arg) && !OF_ONE_CALL.contains(&(name, long(arg)));
        let common = |arg: &Arg| root.get_arguments().any(|known| known.get_id() == arg.get_id());
        let settings = command.get_arguments().filter(is_setting);
        settings.map(|arg| Setting { command: Some(name), arg, common: common(arg) }).collect()
    }

    /// The settings that all commands have.
    pub(crate) fn of_all(root: &'a Command) -> Vec<Setting<'a>> {
        let settings = root.get_arguments().filter(|arg| is_setting(arg));
        settings.map(|arg| Setting { command: None, arg, common: true }).collect()
    }

    /// Whether all commands have it.
    pub(crate) fn is_common(&self) -> bool {
        self.common
    }

    /// Its name in a table of the file, which is its flag's.
    fn key(&self) -> &'a str {
        long(self.arg)
    }

    fn is_switch(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::SetTrue)
    }

    /// Tables of the file where it may stand, the nearer first; none is the top.
    fn tables(&self) -> impl Iterator<Item = Option<&'a str>> {
        let own = self.command.filter(|command| !WITHOUT_TABLE.contains(command)).map(Some);
        own.into_iter().chain(self.common.then_some(None))
    }

    /// Its name among all: `timeout`, `start.addr`.
    pub(crate) fn name(&self) -> String {
        match self.command {
            Some(command) if !self.common => format!("{command}.{}", self.key()),
            _ => self.key().to_owned(),
        }
    }

    /// Its name in the environment.
    pub(crate) fn variable(&self) -> String {
        variable(if self.common { None } else { self.command }, self.key())
    }

    /// What holds if nobody says anything, if that can be written after the flag.
    fn default(&self) -> Option<OsString> {
        if self.is_switch() {
            return Some("false".into());
        }
        let defaults = self.arg.get_default_values();
        (!defaults.is_empty()).then(|| defaults.join(OsStr::new(",")))
    }

    /// Refuses a value that its flag would refuse.
    fn check(&self, text: &OsStr) -> Result<(), String> {
        if self.is_switch() {
            return switch(text).map(drop);
        }
        let mut flag = Arg::new("value").long(self.key().to_owned()).action(ArgAction::Append);
        flag = flag.value_parser(self.arg.get_value_parser().clone());
        if let Some(names) = self.arg.get_value_names() {
            flag = flag.value_names(names.to_vec());
        }
        if let Some(delimiter) = self.arg.get_value_delimiter() {
            flag = flag.value_delimiter(delimiter);
        }
        let mut said = OsString::from(format!("--{}=", self.key()));
        said.push(text);
        let alone = Command::new("ringfort").no_binary_name(true).disable_help_flag(true).arg(flag);
        let refused = |error: clap::Error| {
            let text = one_line(&error.render().to_string());
            text.split("; usage: ").next().unwrap_or_default().to_owned()
        };
        alone.try_get_matches_from([said]).map(drop).map_err(refused)
    }
}

/// The layers below the flags.
#[derive(Debug)]
pub(crate) struct Layers {
    file: Option<SettingsFile>,
}

impl Layers {
    /// Reads the file, if `matches` or the environment names one, and refuses it if it says what can't be set.
    pub(crate) fn read(root: &Command, matches: &ArgMatches) -> Result<Layers, Stop> {
        let named = matches.get_one::<PathBuf>("config").cloned();
        let path = named.or_else(|| from_environment(FILE_VARIABLE).map(PathBuf::from));
        Ok(Layers { file: path.map(|path| SettingsFile::read(&path, root)).transpose()? })
    }

    /// What is in force, given these places where its flag may stand, the nearer first.
    pub(crate) fn find(&self, setting: Setting<'_>, flags: &[&ArgMatches]) -> Result<InForce, Stop> {
        if let Some(text) = flags.iter().find_map(|flags| said(flags, setting)) {
            return Ok(InForce { text: Some(text), origin: Origin::Flag });
        }
        for table in setting.tables() {
            let name = variable(table, setting.key());
            if let Some(text) = from_environment(&name) {
                setting.check(&text).map_err(|why| Stop::usage(format!("{name}: {why}")))?;
                return Ok(InForce { text: Some(text), origin: Origin::Environment(name) });
            }
        }
        if let Some(file) = &self.file {
            for table in setting.tables() {
                if let Some((text, line)) = file.get(table, setting.key()) {
                    let origin = Origin::File { path: file.path().to_owned(), line };
                    return Ok(InForce { text: Some(text.into()), origin });
                }
            }
        }
        Ok(InForce { text: setting.default(), origin: Origin::Default })
    }
}

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
                let text = if setting.is_switch() { switch_text(&text) } else { text };
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
    let mut known = vec![FILE_VARIABLE.to_owned()];
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

/// Takes our variables from a process that is given everything by flags.
pub(crate) fn forget_environment(process: &mut std::process::Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(PREFIX) {
            process.env_remove(name);
        }
    }
}

fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !matches!(long, "help" | "version" | "config")) && !arg.is_hide_set()
}

fn is_switch_setting(arg: &Arg) -> bool {
    is_setting(arg) && matches!(arg.get_action(), ArgAction::SetTrue)
}

fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}

fn twin(long: &str) -> String {
    format!("no-{long}")
}

/// A setting's name in the environment, for one command or for all.
fn variable(command: Option<&str>, key: &str) -> String {
    let name = command.map(|command| format!("{command}_")).unwrap_or_default() + key;
    format!("{PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

fn from_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|text| !text.to_string_lossy().trim().is_empty())
}

/// Whether the flag or its twin is on the command line here.
fn says(flags: &ArgMatches, setting: Setting<'_>) -> bool {
    said(flags, setting).is_some()
}

/// What the command line says here.
fn said(flags: &ArgMatches, setting: Setting<'_>) -> Option<OsString> {
    let here = |id: &str| {
        flags.try_contains_id(id).unwrap_or(false) && flags.value_source(id) == Some(ValueSource::CommandLine)
    };
    let id = setting.arg.get_id().as_str();
    if setting.is_switch() {
        let off = here(&twin(setting.key()));
        return (here(id) || off).then(|| if off { "false" } else { "true" }.into());
    }
    let texts: Vec<_> = if here(id) { flags.get_raw(id)?.collect() } else { return None };
    Some(texts.join(OsStr::new(",")))
}

/// Reads a switch as people write it in an environment.
fn switch(text: &OsStr) -> Result<bool, String> {
    let said = text.to_string_lossy().trim().to_ascii_lowercase();
    match said.as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err(format!("{:?} is neither yes nor no: write true or false", text.to_string_lossy())),
    }
}

fn switch_text(text: &OsStr) -> OsString {
    if switch(text) == Ok(true) { "true".into() } else { "false".into() }
}
