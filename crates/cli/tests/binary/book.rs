//! The book's commands, run as they stand there, by a shell against a new cluster: they print what the book says.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Dev, stdout};

/// Commands (after `$ `), each with what it prints, of all blocks of commands in this text.
fn commands(text: &str) -> Vec<(String, String)> {
    let blocks = text.split("```console\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    let mut commands: Vec<(String, String)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), String::new())),
            (None, Some((_, printed))) => printed.extend([line, "\n"]),
            (None, None) => panic!("printed by no command: {line}"),
        }
    }
    commands
}

/// Runs them one after the other; returns how many there are.
fn run_all(text: &str) -> usize {
    let directory = tempfile::tempdir().expect("a directory");
    // As a reader would start it, but for the ports.
    let mut dev = Dev::start_as(directory.path(), &[]);
    assert_eq!(dev.say("get nothing"), "(not found)");
    let programs = Path::new(env!("CARGO_BIN_EXE_ringfort")).parent().expect("it lies somewhere");
    let commands = commands(text);
    for (command, printed) in &commands {
        let mut shell = Command::new("bash");
        shell.args(["--norc", "-c", &format!("exec 2>&1; {command}")]).stdin(Stdio::null());
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(programs.to_owned()).chain(std::env::split_paths(&path));
        shell.env("PATH", std::env::join_paths(path).expect("plain paths"));
        // What a command in the test's own environment would be told.
        let like = dev.command(&[]);
        for (name, value) in like.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        let output = shell.output().expect("there is a shell");
        assert_eq!(&stdout(&output), printed, "{command}");
    }
    assert_eq!(dev.leave(), Some(0));
    commands.len()
}

#[test]
fn conditions_are_as_the_book_shows_them() {
    assert!(run_all(include_str!("../../../../docs/book/conditions.md")) > 15);
}

#[test]
fn the_command_line_is_as_the_book_shows_it() {
    let page = include_str!("../../../../docs/book/cli.md");
    for (title, count) in [
        ("Writes with conditions", 4),
        ("Copies", 3),
        ("Does it serve?", 3),
        ("Settings of the cluster", 2),
        ("Where a key is", 2),
        ("Transferring a leadership", 1),
        ("Stopping a node", 1),
        ("Members", 2),
        ("The shell", 1),
    ] {
        let section = page.split("\n## ").find(|section| section.starts_with(title));
        assert_eq!(run_all(section.expect("there is one")), count, "{title}");
    }
}
