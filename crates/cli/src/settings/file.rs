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

use super::{Setting, nearest};
use crate::stop::Stop;

/// Nobody writes more by hand.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What it says.
#[derive(Debug)]
pub(super) struct SettingsFile {
    path: String,
    /// By table (empty for the top) and name: the value as its flag would have it, and its line.
    values: BTreeMap<(String, String), (String, usize)>,
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
        let values = parse(&text, root)
            .map_err(|Wrong { at, why }| Stop::usage(format!("{name}:{}: {why}", line(&text, at))))?;
        let values =
            values.into_iter().map(|(place, (value, at))| (place, (value, line(&text, at)))).collect();
        Ok(SettingsFile { path: name, values })
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

type Values = BTreeMap<(String, String), (String, usize)>;

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

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Values, (usize, String)> {
        parse(text, &crate::args::command()).map_err(|wrong| (line(text, wrong.at), wrong.why))
    }

    #[test]
    fn every_kind_of_value_is_as_its_flag_would_have_it() {
        let text = "timeout = '5s'\njson = true\naddr = ['a:1', 'b:2']\n[start]\nshards = 1_6\n\
            peers = ['n2=b:2', 'c:3']\n[check]\ntimeout = '1m'\n";
        let values = read(text).expect("all of it is right");
        let get = |table: &str, key: &str| values[&(table.to_owned(), key.to_owned())].0.clone();
        assert_eq!(get("", "timeout") + " " + &get("", "json") + " " + &get("", "addr"), "5s true a:1,b:2");
        assert_eq!(get("start", "shards") + " " + &get("start", "peers"), "16 n2=b:2,c:3");
        assert_eq!(get("check", "timeout"), "1m");
    }

    #[test]
    fn the_book_shows_a_file_that_can_be_read() {
        let book = include_str!("../../../../docs/book/cli.md");
        let shown = book.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
        let values = read(shown.expect("it shows one")).expect("it can be read");
        assert_eq!(values[&("start".to_owned(), "cache-mb".to_owned())].0, "256");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line_and_what_was_meant() {
        for (text, at, says) in [
            ("timeout = '5s'\ntiemout = '5s'", 2, "no setting `tiemout` at the top; did you mean `timeout`?"),
            ("[start]\ndata_dir = 'd'", 2, "no setting `data_dir` in [start]; did you mean `data-dir`?"),
            ("\nbase-port = 1", 2, "no setting `base-port` at the top; it belongs in [dev]"),
            ("[strat]\nshards = 1", 1, "no command `strat` that has settings; did you mean [start]?"),
            ("[list]\nlimit = 3", 2, "no setting `limit` in [list]"),
            (
                "timeout = 5",
                1,
                "`timeout`: invalid value '5' for '--timeout <TIME>': a duration needs a unit",
            ),
            ("[dev]\nnodes = 0", 2, "`nodes`: invalid value '0'"),
            ("json = 'maybe'", 1, "`json`: \"maybe\" is neither"),
            ("addr = 'localhost'", 1, "has no port"),
            ("addr = 1.5", 1, "`addr` is a string, a number"),
            ("json = true\njson = false", 2, "duplicate key"),
            ("a b", 1, "expected"),
        ] {
            let (line, why) = read(text).expect_err(text);
            assert!(why.contains(says), "{text:?}: {why}");
            assert_eq!(line, at, "{text:?}: {why}");
        }
    }
}
