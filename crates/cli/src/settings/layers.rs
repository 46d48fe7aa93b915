//! Who says what of a setting: a flag, the environment, the file, or nobody but the default.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, Command};

use super::environment::{FILE_VARIABLE, from_environment, variable};
use super::file::SettingsFile;
use super::setting::Setting;
use super::switch::twin;
use crate::stop::Stop;

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

/// Whether the flag or its twin is on the command line here.
pub(super) fn says(flags: &ArgMatches, setting: Setting<'_>) -> bool {
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
