//! Advice that exists: every command line of `ringfort` that a message of any crate names is one that the command line's own definition
//! reads. Test only.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use clap::error::ErrorKind;

use crate::args::definition;
use crate::settings;

/// The texts of all string literals of a Rust source, as a program has them. Comments are passed over.
fn literals(source: &str) -> Vec<String> {
    let (mut found, mut at) = (Vec::new(), 0);
    let bytes = source.as_bytes();
    while at < bytes.len() {
        let rest = &source[at..];
        if rest.starts_with("//") {
            at += rest.find('\n').unwrap_or(rest.len());
        } else if rest.starts_with("/*") {
            at += rest.find("*/").map_or(rest.len(), |end| end + 2);
        } else if let Some((text, length)) = raw(rest) {
            // `r` may be the end of a name, but then no quote follows it.
            found.push(text.to_owned());
            at += length;
        } else if bytes[at] == b'"' {
            let (text, length) = plain(rest);
            found.push(text);
            at += length;
        } else if bytes[at] == b'\'' {
            at += character(rest);
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    found
}

/// A raw string at the beginning of `rest`, and its length with all quotes.
fn raw(rest: &str) -> Option<(&str, usize)> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.len() - after.trim_start_matches('#').len();
    let text = after[hashes..].strip_prefix('"')?;
    let end = text.find(&format!("\"{}", "#".repeat(hashes)))?;
    Some((&text[..end], rest.len() - text.len() + end + 1 + hashes))
}

/// The string at the beginning of `rest`, and its length with its quotes. Escapes that no advice has stand for a space.
fn plain(rest: &str) -> (String, usize) {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (text, at + 1),
            '\\' => match chars.next() {
                Some((_, '\n')) => {
                    let skipped = chars.clone().take_while(|(_, char)| char.is_whitespace()).count();
                    chars.by_ref().take(skipped).for_each(drop);
                }
                Some((_, 'n')) => text.push('\n'),
                Some((_, char @ ('"' | '\\' | '\''))) => text.push(char),
                _ => text.push(' '),
            },
            char => text.push(char),
        }
    }
    panic!("a string without an end: {}", &rest[..rest.len().min(80)]);
}

/// How long the character at the beginning of `rest` is, or the mark of a lifetime.
fn character(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => {
            // What is escaped may be a quote itself.
            chars.next();
            chars.find(|(_, char)| *char == '\'').map_or(1, |(end, _)| end + 1)
        }
        Some(_) => chars.next().filter(|(_, char)| *char == '\'').map_or(1, |(end, _)| end + 1),
        None => 1,
    }
}

/// Every command line of ours that a text names: whole ones between backticks, with what they are told; others only as far as the
/// command's name.
fn named(text: &str) -> Vec<Vec<String>> {
    let mut lines = Vec::new();
    for (at, part) in text.split('`').enumerate() {
        let quoted = at % 2 == 1;
        for line in part.split('\n').flat_map(|line| line.split(" | ")).flat_map(|line| line.split(" && ")) {
            if quoted && line.starts_with("ringfort ") {
                let line = line.split([';', '>', '<']).next().unwrap_or_default();
                lines.push(line.split_whitespace().map(meant).collect());
            } else if let Some((_, rest)) = line.split_once("ringfort ") {
                let word: String =
                    rest.chars().take_while(|char| char.is_ascii_lowercase() || *char == '-').collect();
                // Flags before a command are not told from those after it here.
                if !word.is_empty() && !word.starts_with('-') {
                    lines.push(vec!["ringfort".to_owned(), word]);
                }
            }
        }
    }
    lines
}

/// A word of a command line, with something that could stand there for what people put in themselves.
fn meant(word: &str) -> String {
    match word.trim_matches('\'') {
        "HOST:PORT" | "{here}" => "127.0.0.1:50051".to_owned(),
        word => word.to_owned(),
    }
}

/// Why a command line is none.
fn wrong(root: &clap::Command, line: &[String]) -> Option<String> {
    // What is put in there is the name of a command that the definition has.
    if line.get(1).is_none_or(|word| word.starts_with('{')) {
        return None;
    }
    let words: Vec<OsString> = line.iter().map(OsString::from).collect();
    let error = root.clone().try_get_matches_from(words).err()?;
    // What `help` says of any command is no command itself.
    let is_help_in_words = ["help", "COMMAND"].contains(&line[1].as_str());
    // Without its arguments, a command stands for itself.
    let is_understood = matches!(
        error.kind(),
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion | ErrorKind::MissingRequiredArgument
    );
    (!is_understood && !is_help_in_words).then(|| error.render().to_string())
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn every_command_that_a_message_names_exists() {
    let root = settings::with_twins(definition());
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("beside the others");
    let mut files = Vec::new();
    for of in fs::read_dir(crates).expect("it can be listed") {
        sources(&of.expect("a crate").path().join("src"), &mut files);
    }
    // What is wrong here is so on purpose.
    files.retain(|file| !file.ends_with("cli/src/advice.rs"));
    let (mut whole, mut refused) = (0, Vec::new());
    for file in &files {
        let source = fs::read_to_string(file).expect("it is text");
        for line in literals(&source).iter().flat_map(|text| named(text)) {
            whole += usize::from(line.len() > 2);
            if let Some(why) = wrong(&root, &line) {
                refused.push(format!("{}: `{}`: {why}", file.display(), line.join(" ")));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(files.len() > 200 && whole > 50, "{} files, {whole} command lines", files.len());
}

#[test]
fn advice_is_found_wherever_it_stands() {
    let source = r##"
        // "`ringfort comment`"
        fn a<'a>(quote: char) -> bool { quote == '"' || quote == '\'' || quote == '\\' }
        const A: &str = "run `ringfort \
                         check --timeout 2m`, or \"ringfort fly away\"";
        const B: &str = r#"a "quoted" `ringfort put k v && ringfort get k`"#;
        const C: &str = "ringfort: an error line, `zcat FILE | ringfort import -`";
    "##;
    let lines: Vec<String> =
        literals(source).iter().flat_map(|text| named(text)).map(|line| line.join(" ")).collect();
    assert_eq!(
        lines,
        [
            "ringfort check --timeout 2m",
            "ringfort fly",
            "ringfort put k v",
            "ringfort get k",
            "ringfort import -"
        ]
    );
    let root = settings::with_twins(definition());
    let wrong = |line: &str| wrong(&root, &line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    for line in ["ringfort fly", "ringfort get k --fly", "ringfort cluster fly", "ringfort list --limit many"]
    {
        assert!(wrong(line).is_some(), "{line}");
    }
    for line in &lines[2..] {
        assert_eq!(wrong(line), None, "{line}");
    }
}
