//! The settings of the command line as it is.

use std::ffi::OsStr;

use super::file::{SettingsFile, Values};
use super::*;

#[test]
fn every_name_follows_from_the_flag() {
    let root = crate::args::definition();
    let names = |command: &str| -> Vec<_> {
        let command = root.find_subcommand(command).expect("there is one");
        let settings = Setting::of_command(&root, command);
        settings.iter().map(|setting| (setting.name(), setting.variable())).collect()
    };
    let pair = |name: &str, variable: &str| (name.to_owned(), variable.to_owned());
    assert!(names("start").contains(&pair("start.data-dir", "RINGFORT_START_DATA_DIR")));
    assert!(names("start").contains(&pair("start.addr", "RINGFORT_START_ADDR")));
    assert!(names("get").contains(&pair("addr", "RINGFORT_ADDR")));
    assert!(!names("import").iter().any(|(name, _)| name.ends_with("skip")));
    assert!(!names("start").iter().any(|(name, _)| name.contains("eof")), "hidden flags are not for people");
}

#[test]
fn no_two_settings_share_a_variable() {
    let root = crate::args::definition();
    let mut seen = std::collections::BTreeMap::from([(FILE_VARIABLE.to_owned(), "the file".to_owned())]);
    for command in root.get_subcommands() {
        for setting in Setting::of_command(&root, command) {
            for table in setting.tables() {
                let place = format!("{table:?} {}", setting.key());
                let earlier = seen.insert(variable(table, setting.key()), place.clone());
                assert!(earlier.as_ref().is_none_or(|earlier| *earlier == place), "{earlier:?} and {place}");
            }
        }
    }
}

#[test]
fn the_book_has_every_setting_as_it_is() {
    let book = include_str!("../../../../docs/book/cli.md");
    let root = crate::args::definition();
    let mut settings = Setting::of_all(&root);
    let defaults: Vec<_> = settings.iter().map(|setting| (setting.key(), setting.default())).collect();
    for command in root.get_subcommands() {
        let mut own = Setting::of_command(&root, command);
        // What all have in common has a row of its own where its default differs.
        own.retain(|own| !own.common || !defaults.contains(&(own.key(), own.default())));
        settings.extend(own);
    }
    for setting in &settings {
        let table = setting.command.map(|command| format!("`[{command}]` ")).unwrap_or_default();
        let variable = variable(setting.command, setting.key());
        let default = setting.default().map(|text| format!("`{}`", text.to_string_lossy()));
        let row = format!("| {table}`{}` | `{variable}` | {} |", setting.key(), default.unwrap_or_default());
        assert!(book.contains(&row), "the book lacks {row}");
    }
    let rows = settings.len();
    assert_eq!(
        book.lines().filter(|line| line.contains("| `RINGFORT_")).count(),
        rows,
        "settings that are none"
    );
}

#[test]
fn switches_are_read_as_people_write_them() {
    for (text, on) in [("1", true), ("Yes", true), (" true ", true), ("0", false), ("off", false)] {
        assert_eq!(switch::read(OsStr::new(text)), Ok(on), "{text}");
    }
    assert!(switch::read(OsStr::new("maybe")).is_err());
}

/// What a file says, or in which line it is wrong, and how.
fn read(text: &str) -> Result<Values, (usize, String)> {
    SettingsFile::values(text, &crate::args::definition())
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
        ("timeout = 5", 1, "`timeout`: invalid value '5' for '--timeout <TIME>': a duration needs a unit"),
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
