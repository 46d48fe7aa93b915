//! Something that can be set: which flags are, and under which names.

use std::ffi::{OsStr, OsString};

use clap::{Arg, ArgAction, Command};

use super::environment::variable;
use super::switch;
use crate::refusal::one_line;

/// Flags that say what to do this once.
const OF_ONE_CALL: [(&str, &str); 39] = [
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
    ("list", "resume"),
    ("health", "service"),
    ("import", "file"),
    ("import", "format"),
    ("import", "skip"),
    ("rebuild", "shard"),
    ("recover", "data-dir"),
    ("recover", "out"),
    ("recover", "id"),
    ("recover", "addr"),
    ("recover", "confirm"),
    ("recover", "empty-lost-shards"),
    ("start", "replace"),
    ("user", "new-password-file"),
    ("user", "token"),
    ("user", "no-password"),
    ("cluster", "force"),
    ("cluster", "no-wait"),
    ("cluster", "weight"),
    ("cluster", "zone"),
    ("export", "file"),
    ("export", "format"),
    ("export", "resume"),
    ("bench", "clean"),
    ("man", "out"),
];
/// Commands that have nothing to set but what all have.
const WITHOUT_TABLE: [&str; 5] = ["config", "recover", "version", "completions", "man"];

/// Something that can be set, of one command or of all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    /// The command; none for what stands before all commands.
    pub(super) command: Option<&'a str>,
    pub(super) arg: &'a Arg,
    /// Whether all commands have it.
    pub(super) common: bool,
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
    pub(super) fn key(&self) -> &'a str {
        long(self.arg)
    }

    pub(super) fn is_switch(&self) -> bool {
        matches!(self.arg.get_action(), ArgAction::SetTrue)
    }

    /// Tables of the file where it may stand, the nearer first; none is the top.
    pub(super) fn tables(&self) -> impl Iterator<Item = Option<&'a str>> {
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
    pub(super) fn default(&self) -> Option<OsString> {
        if self.is_switch() {
            return Some("false".into());
        }
        let defaults = self.arg.get_default_values();
        (!defaults.is_empty()).then(|| defaults.join(OsStr::new(",")))
    }

    /// Refuses a value that its flag would refuse.
    pub(super) fn check(&self, text: &OsStr) -> Result<(), String> {
        if self.is_switch() {
            return switch::read(text).map(drop);
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

fn is_setting(arg: &Arg) -> bool {
    arg.get_long().is_some_and(|long| !matches!(long, "help" | "version" | "config")) && !arg.is_hide_set()
}

/// Whether it is a setting, and is on or off.
pub(super) fn is_switch_setting(arg: &Arg) -> bool {
    is_setting(arg) && matches!(arg.get_action(), ArgAction::SetTrue)
}

/// A flag's name.
pub(super) fn long(arg: &Arg) -> &str {
    arg.get_long().unwrap_or_default()
}
