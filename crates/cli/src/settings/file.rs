//! The file of settings: TOML, a table for each command, what all commands have in common at the top.
//!
//! It is read whole and strictly, also where the present command has no use for it: a mistyped name, or a value that
//! its flag would refuse, is found by the first command that is given the file, not by the one that needs it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::setting::Setting;
use crate::stop::Stop;

/// Nobody writes more by hand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What it says.
#[derive(Debug)]
pub(super) struct SettingsFile {
    path: String,
    /// The numbers are lines.
    values: Values,
}

impl SettingsFile {
    /// Reads and checks it.
    pub(super) fn read(path: &Path, root: &Command) -> Result<SettingsFile, Stop> {
        let name = path.display().to_string();
        let unreadable = |why: &dyn std::fmt::Display| {
            Stop::usage(format!("can't read the settings in {name}: {why}; name another file with --config"))
        };
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
            .map_err(|error| unreadable(&error))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(&format!("it has more than {FILE_BYTES_MAX} bytes")));
        }
        let text = String::from_utf8(bytes).map_err(|_| unreadable(&"it is not UTF-8"))?;
        let values = SettingsFile::values(&text, root)
            .map_err(|(line, why)| Stop::usage(format!("{name}:{line}: {why}")))?;
        Ok(SettingsFile { path: name, values })
    }

    /// What a text says, with lines; else the line that is wrong, and why.
    pub(super) fn values(text: &str, root: &Command) -> Result<Values, (usize, String)> {
        let values = parse(text, root).map_err(|Wrong { at, why }| (line(text, at), why))?;
        Ok(values.into_iter().map(|(place, (value, at))| (place, (value, line(text, at)))).collect())
    }

    /// Its name, as it was given.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// What it says there, and in which line.
    pub(super) fn get(&self, table: Option<&str>, key: &str) -> Option<(&str, usize)> {
        let place = (table.unwrap_or_default().to_owned(), key.to_owned());
        self.values.get(&place).map(|(text, line)| (text.as_str(), *line))
    }
}

/// What is wrong, and at which byte.
#[derive(Debug)]
struct Wrong {
    at: usize,
    why: String,
}

/// By table (empty for the top) and name: the value as its flag would have it, and where it stands.
pub(super) type Values = BTreeMap<(String, String), (String, usize)>;

fn parse(text: &str, root: &Command) -> Result<Values, Wrong> {
    let table = DeTable::parse(text).map_err(|error| Wrong {
        at: error.span().map_or(0, |span| span.start),
        why: error.message().to_owned(),
    })?;
    let mut tables = BTreeMap::from([("", Setting::of_all(root))]);
    for command in root.get_subcommands() {
        let settings = Setting::of_command(root, command);
        if settings.iter().any(|setting| setting.tables().any(|table| table.is_some())) {
            tables.insert(command.get_name(), settings);
        }
    }
    let mut values = Values::new();
    for (key, value) in table.get_ref() {
        match (value.get_ref(), tables.get(key.get_ref().as_ref())) {
            (DeValue::Table(inner), Some(settings)) => {
                for (inner_key, value) in inner {
                    put(&mut values, key.get_ref(), settings, &tables, inner_key, value)?;
                }
            }
            (DeValue::Table(_), None) => {
                let near = nearest(key.get_ref(), tables.keys().copied().filter(|name| !name.is_empty()));
                let hint = near.map(|near| format!("; did you mean [{near}]?")).unwrap_or_default();
                let why = format!("there is no command `{}` that has settings{hint}", key.get_ref());
                return Err(Wrong { at: key.span().start, why });
            }
            _ => put(&mut values, "", &tables[""], &tables, key, value)?,
        }
    }
    Ok(values)
}

type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

/// Enters one value of one table.
fn put(
    values: &mut Values,
    table: &str,
    settings: &[Setting<'_>],
    tables: &BTreeMap<&str, Vec<Setting<'_>>>,
    key: &Key<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Result<(), Wrong> {
    let (name, at) = (key.get_ref().as_ref(), key.span().start);
    let Some(setting) = settings.iter().find(|setting| setting.key() == name) else {
        return Err(Wrong { at, why: unknown(table, name, settings, tables) });
    };
    let text = text_of(value.get_ref()).ok_or_else(|| Wrong {
        at,
        why: format!("`{name}` is a string, a number, true or false, or an array of strings"),
    })?;
    setting.check(OsStr::new(&text)).map_err(|why| Wrong { at, why: format!("`{name}`: {why}") })?;
    values.insert((table.to_owned(), name.to_owned()), (text, at));
    Ok(())
}

/// What to say about a name that nothing has.
fn unknown(
    table: &str,
    name: &str,
    settings: &[Setting<'_>],
    tables: &BTreeMap<&str, Vec<Setting<'_>>>,
) -> String {
    let place = if table.is_empty() { "at the top".to_owned() } else { format!("in [{table}]") };
    let has = |settings: &Vec<Setting<'_>>| settings.iter().any(|setting| setting.key() == name);
    let elsewhere: Vec<_> = tables
        .iter()
        .filter(|(table, settings)| !table.is_empty() && has(settings))
        .map(|(table, _)| format!("[{table}]"))
        .collect();
    let hint = if !elsewhere.is_empty() {
        format!("; it belongs in {}", elsewhere.join(" or "))
    } else if let Some(near) = nearest(name, settings.iter().map(Setting::key)) {
        format!("; did you mean `{near}`?")
    } else {
        let names: Vec<_> = settings.iter().map(Setting::key).collect();
        format!("; there are {}", names.join(", "))
    };
    format!("there is no setting `{name}` {place}{hint}")
}

/// A value as it would be written after its flag: elements of an array with commas between them.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    Some(match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Integer(number) => number.to_string().replace('_', ""),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Array(elements) => {
            let texts: Option<Vec<_>> = elements
                .iter()
                .map(|element| match element.get_ref() {
                    DeValue::String(text) if !text.contains(',') => Some(text.as_ref()),
                    _ => None,
                })
                .collect();
            texts?.join(",")
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => return None,
    })
}

/// The line of this byte, from 1.
fn line(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}
