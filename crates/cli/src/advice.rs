//! Advice that exists: every command of `ringfort`, every flag of one, and every flag by itself that a message of any crate or a page of the
//! documentation names is one that the command line's own definition has; and what a message has between backticks is read by it whole. Test
//! only.
//!
//! Caveat: values are not looked at in pages, nor outside of backticks, and so is what a message is put together from at run time.

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
        ErrorKind::DisplayHelp
            | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
            | ErrorKind::DisplayVersion
            | ErrorKind::MissingRequiredArgument
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

/// What the definition has, by name.
struct Known<'a>(&'a clap::Command);

impl Known<'_> {
    fn has_flag(command: &clap::Command, flag: &str) -> bool {
        let is_it = |arg: &clap::Arg| {
            arg.get_long() == Some(flag) || arg.get_all_aliases().is_some_and(|names| names.contains(&flag))
        };
        ["help", "version", "config"].contains(&flag) || command.get_arguments().any(is_it)
    }

    /// Whether it is a flag of any command, or before all.
    fn is_flag(&self, flag: &str) -> bool {
        fn anywhere(command: &clap::Command, flag: &str) -> bool {
            Known::has_flag(command, flag) || command.get_subcommands().any(|inner| anywhere(inner, flag))
        }
        anywhere(self.0, flag)
    }

    /// What of the words after `ringfort`, or of those that begin with a command, there is not. `None` also if they are no command line.
    fn lacks(&self, words: &[&str]) -> Option<String> {
        let mut words = words.iter().map(|word| word.trim_matches(|char| "[](),.'\":!?".contains(char)));
        let mut before = Vec::new();
        let command = loop {
            let word = words.next()?;
            let Some(flag) = flag_in(word) else { break word };
            let arg = self.0.get_arguments().find(|arg| arg.get_long() == Some(flag));
            if arg.is_some_and(|arg| arg.get_action().takes_values()) && !word.contains('=') {
                words.next();
            }
            before.push(flag);
        };
        let is_word = |word: &str| {
            !word.is_empty() && word.chars().all(|char| char.is_ascii_lowercase() || char == '-')
        };
        if !is_word(command) || command == "help" {
            return None;
        }
        let find = |name: &str| self.0.find_subcommand(name);
        let Some(mut command) = find(command) else { return Some(format!("no command `{command}`")) };
        let mut words: Vec<&str> = words.collect();
        // It shows what another command would take.
        if command.get_name() == "config" {
            command = words.first().and_then(|word| find(word)).unwrap_or(command);
        }
        if let Some(action) = words.first().filter(|word| command.has_subcommands() && !word.starts_with('-'))
        {
            let Some(found) = command.find_subcommand(action) else {
                return Some(format!("`{}` has no `{action}`", command.get_name()));
            };
            command = found;
            words.remove(0);
        }
        let first = command.get_positionals().next().map(clap::Arg::get_possible_values).unwrap_or_default();
        if let Some(action) = words.first().filter(|word| is_word(word) && !word.starts_with('-'))
            && !first.is_empty()
            && first.iter().all(|value| value.get_name() != *action)
        {
            return Some(format!("`{}` has no `{action}`", command.get_name()));
        }
        let after = words.into_iter().take_while(|word| *word != "--").filter_map(flag_in);
        let lacking = before.into_iter().chain(after).find(|flag| !Known::has_flag(command, flag));
        lacking.map(|flag| format!("`{}` has no --{flag}", command.get_name()))
    }
}

/// `--flag` or `--flag=value` without its dashes and its value.
fn flag_in(word: &str) -> Option<&str> {
    let name = word.strip_prefix("--")?.split('=').next()?;
    let end = name.find(|char: char| !char.is_ascii_lowercase() && char != '-').unwrap_or(name.len());
    // `--if-…` stands for several.
    if name[end..].starts_with('…') {
        return None;
    }
    Some(name[..end].trim_end_matches('-')).filter(|name| !name.is_empty())
}

/// The command lines in a text that is to be typed: what follows `ringfort ` up to where a shell's line, or a sentence, goes on with something
/// else.
fn lines_in(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let begins = |at: usize| {
        text[..at].chars().next_back().is_none_or(|char| !char.is_alphanumeric() && !"-_/.".contains(char))
    };
    let found = text.match_indices("ringfort ").filter(move |(at, _)| begins(*at));
    found.map(|(at, word)| {
        let rest = &text[at + word.len()..];
        let ends = [" | ", " \\| ", ";", " && ", " #", " >", "\n", ". ", ": ", "`", " (", ", "];
        let end = ends.iter().filter_map(|end| rest.find(end)).min().unwrap_or(rest.len());
        rest[..end].split_whitespace().collect()
    })
}

/// Flags that a text names by themselves.
fn flags_in(text: &str) -> impl Iterator<Item = &str> {
    let begins = |at: usize| text[..at].chars().next_back().is_none_or(|char| " \n`\"'(/,=".contains(char));
    text.match_indices("--").filter(move |(at, _)| begins(*at)).filter_map(|(at, _)| flag_in(&text[at..]))
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
    // The simulator has a command line of its own.
    files.retain(|file| !file.ends_with("sim/src/main.rs"));
    let (mut whole, mut flags, mut refused) = (0, 0, Vec::new());
    let known = Known(&root);
    for file in &files {
        let source = fs::read_to_string(file).expect("it is text");
        for text in literals(&source).iter().filter(|text| text.contains(' ')) {
            for words in
                lines_in(text).filter(|words| words.first().is_some_and(|word| !word.starts_with('{')))
            {
                refused.extend(known.lacks(&words).map(|why| format!("{}: {why}: {text}", file.display())));
            }
            for flag in flags_in(text) {
                flags += 1;
                if !known.is_flag(flag) && !OF_OTHERS.contains(&flag) {
                    refused.push(format!("{}: no command has --{flag}: {text}", file.display()));
                }
            }
        }
        for line in literals(&source).iter().flat_map(|text| named(text)) {
            whole += usize::from(line.len() > 2);
            if let Some(why) = wrong(&root, &line) {
                refused.push(format!("{}: `{}`: {why}", file.display(), line.join(" ")));
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(files.len() > 200 && whole > 50, "{} files, {whole} command lines", files.len());
    assert!(flags > 100, "{flags} flags");
}

/// Flags of other programs that messages and pages name.
const OF_OTHERS: [&str; 3] = ["profile", "rounds", "csharp"];
/// Pages, and parts of pages by their titles, that show what is said elsewhere beside what is said here.
const ELSEWHERE: [&str; 2] = ["coming-from/", "From etcdctl and redis-cli"];

fn pages(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it can be listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// What of a page is to be typed: lines of its blocks of commands, and what is between backticks, each with whether it is a whole
/// command line.
fn typed(section: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, part) in section.split("\n```").enumerate() {
        if at % 2 == 0 {
            for paragraph in part.split("\n\n") {
                let paragraph = paragraph.replace('\n', " ");
                found.extend(paragraph.split('`').skip(1).step_by(2).map(str::to_owned));
            }
            continue;
        }
        let Some((language, block)) = part.split_once('\n') else { continue };
        let block = block.replace("\\\n", " ");
        let is_typed = |line: &str| language == "sh" || (language == "console" && line.starts_with("$ "));
        found.extend(block.lines().filter(|line| is_typed(line)).map(str::to_owned));
    }
    found
}

#[test]
fn every_command_and_flag_that_a_page_names_exists() {
    let root = settings::with_twins(definition());
    let known = Known(&root);
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = ["README.md", "CHANGELOG.md", "docs/upgrading.md"].map(|page| top.join(page)).to_vec();
    pages(&top.join("docs/book"), &mut files);
    let (mut lines, mut flags, mut refused) = (0, 0, Vec::new());
    for file in &files {
        let page = fs::read_to_string(file).expect("it is text");
        let is_elsewhere = file.display().to_string().contains(ELSEWHERE[0]);
        for section in page.split("\n## ") {
            let is_elsewhere = is_elsewhere || section.starts_with(ELSEWHERE[1]);
            for text in typed(section) {
                let mut refuse = |why: String| refused.push(format!("{}: {why}: {text}", file.display()));
                for words in lines_in(&text) {
                    lines += 1;
                    known.lacks(&words).into_iter().for_each(&mut refuse);
                }
                if is_elsewhere {
                    continue;
                }
                let words: Vec<&str> = text.split_whitespace().collect();
                if words.len() > 1 && words.first().is_some_and(|word| root.find_subcommand(word).is_some()) {
                    known.lacks(&words).into_iter().for_each(&mut refuse);
                } else if let Some(flag) = words.first().and_then(|word| flag_in(word)) {
                    flags += 1;
                    if !known.is_flag(flag) && !OF_OTHERS.contains(&flag) {
                        refuse(format!("no command has --{flag}"));
                    }
                }
            }
        }
    }
    assert!(refused.is_empty(), "{}", refused.join("\n"));
    assert!(
        files.len() > 15 && lines > 100 && flags > 50,
        "{} pages, {lines} lines, {flags} flags",
        files.len()
    );
}

#[test]
fn what_a_text_names_and_nobody_has_is_found() {
    let root = settings::with_twins(definition());
    let known = Known(&root);
    let lacking = |text: &str| lines_in(text).find_map(|words| known.lacks(&words));
    for (text, why) in [
        ("run ringfort fly away", "no command `fly`"),
        ("ringfort start --id a --fly, or not", "`start` has no --fly"),
        ("until ringfort safe-to-stop $node --fly; do sleep 1; done", "`safe-to-stop` has no --fly"),
        ("ringfort --fly get k", "`get` has no --fly"),
        ("ringfort cluster fly node1", "`cluster` has no `fly`"),
        ("ringfort certs fly", "`certs` has no `fly`"),
        ("ringfort certs init --host a", "`init` has no --host"),
    ] {
        assert_eq!(lacking(text).as_deref(), Some(why), "{text}");
    }
    for text in [
        "ringfort --addr 127.0.0.1:1 get k | tr a b --fly",
        "ringfort rebuild NODE [--shard N]",
        "ringfort certs node a --host b",
        "ringfort put k v && fly --high",
        "ringfort get k -- --fly",
        "DIR/ringfort fly",
        "ringfort list --no-json",
    ] {
        assert_eq!(lacking(text), None, "{text}");
    }
    assert_eq!(flags_in("say --zone=a, (or --weight): a--b").collect::<Vec<_>>(), ["zone", "weight"]);
    let page = "Run `ringfort\nget k`.\n\n```sh\nringfort put \\\n  k v\n```\n\n```text\nringfort fly\n```\n";
    assert_eq!(typed(page), ["ringfort get k", "ringfort put    k v"]);
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
