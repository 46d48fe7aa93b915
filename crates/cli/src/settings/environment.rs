//! Settings in the environment: how a variable is called, and what it says.

use std::ffi::OsString;
use std::process::Command;

use crate::stop::Stop;

/// What all our variables begin with.
pub(super) const PREFIX: &str = "RINGFORT_";
/// Names the file.
pub(super) const FILE_VARIABLE: &str = "RINGFORT_CONFIG";

/// A password, and a token: they are no flags, and in no file of settings.
pub(crate) const PASSWORD_VARIABLE: &str = "RINGFORT_PASSWORD";
pub(crate) const TOKEN_VARIABLE: &str = "RINGFORT_TOKEN";

/// The secret that a variable says, if it says one.
pub(crate) fn secret_variable(name: &str) -> Result<Option<String>, Stop> {
    let secret = from_environment(name).map(OsString::into_string).transpose();
    secret.map_err(|_| Stop::usage(format!("{name} is not UTF-8")))
}

/// A setting's name in the environment, for one command or for all.
pub(super) fn variable(command: Option<&str>, key: &str) -> String {
    let name = command.map(|command| format!("{command}_")).unwrap_or_default() + key;
    format!("{PREFIX}{}", name.replace('-', "_").to_ascii_uppercase())
}

/// What a variable says; an empty one says nothing.
pub(super) fn from_environment(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|text| !text.to_string_lossy().trim().is_empty())
}

/// Takes our variables from a process that is given everything by flags.
pub(crate) fn forget_environment(process: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with(PREFIX) {
            process.env_remove(name);
        }
    }
}
