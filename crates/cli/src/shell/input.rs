//! Where the shell's lines come from: a terminal, with editing, or a pipe.
//!
//! Both block, so they live on a thread of their own, which reads a line only when it is asked for one: the prompt
//! must not appear before the last answer does.

use std::collections::VecDeque;
use std::io::{BufReader, ErrorKind, IsTerminal};
use std::path::PathBuf;
use std::sync::mpsc as threads;

use ringfort_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};
use rustix::termios::{OptionalActions, QueueSelector, Termios, tcflush, tcgetattr, tcsetattr};
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Context, Editor, Helper, Highlighter, Hinter, Validator};
use tokio::sync::mpsc;

use super::order::{VERBS, VERBS_DEV};
use crate::lines::read_line;
use crate::stop::Stop;

pub(super) const PROMPT: &str = "> ";
/// Lines kept in the history.
const HISTORY_LINES: usize = 1000;
/// A verb, a key, a value, and some spaces.
const LINE_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 1024;

/// What came.
#[derive(Debug)]
pub(crate) enum Line {
    Text(Vec<u8>),
    /// One more of several that were pasted at once: it is to be shown, since nobody has typed it.
    Pasted(String),
    /// Ctrl+C: the line is forgotten.
    Abandoned,
    /// A byte that is not UTF-8's was typed or pasted. The line is forgotten, and whatever was pasted with it: the rest of a line is
    /// no command.
    NotUtf8,
    /// The input is over.
    End,
}

/// The lines.
#[derive(Debug)]
pub(crate) struct Input {
    ask: threads::Sender<()>,
    lines: mpsc::Receiver<Result<Line, Stop>>,
    /// How the terminal was; put back at the end, since the thread may be in the middle of a line.
    terminal: Option<Termios>,
}

impl Input {
    /// Stdin; `dev` adds its verbs to the completion.
    pub(crate) fn open(dev: bool) -> Result<Input, Stop> {
        let (ask, asked) = threads::channel();
        let (tell, lines) = mpsc::channel(1);
        let terminal = if std::io::stdin().is_terminal() && std::io::stdout().is_terminal() {
            tcgetattr(std::io::stdin()).ok()
        } else {
            None
        };
        if terminal.is_some() {
            let editor = editor(dev)?;
            std::thread::spawn(move || edit(editor, &asked, &tell));
        } else {
            std::thread::spawn(move || read(&asked, &tell));
        }
        Ok(Input { ask, lines, terminal })
    }

    /// Whether a person is typing.
    pub(crate) fn interactive(&self) -> bool {
        self.terminal.is_some()
    }

    /// The next line.
    pub(crate) async fn next(&mut self) -> Result<Line, Stop> {
        if self.ask.send(()).is_err() {
            return Ok(Line::End);
        }
        self.lines.recv().await.unwrap_or(Ok(Line::End))
    }
}

impl Drop for Input {
    fn drop(&mut self) {
        if let Some(terminal) = &self.terminal {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, terminal);
        }
    }
}

fn read(asked: &threads::Receiver<()>, tell: &mpsc::Sender<Result<Line, Stop>>) {
    let mut input = BufReader::new(std::io::stdin());
    while asked.recv().is_ok() {
        let mut line = Vec::new();
        let told = match read_line(&mut input, &mut line, LINE_BYTES_MAX) {
            Ok(false) => Ok(Line::End),
            Ok(true) if line.len() > LINE_BYTES_MAX => Err(Stop::usage(format!(
                "a line of more than {LINE_BYTES_MAX} bytes: no command is that long"
            ))),
            Ok(true) => Ok(Line::Text(line)),
            Err(error) => Err(Stop::usage(format!("can't read commands from stdin: {error}"))),
        };
        if tell.blocking_send(told).is_err() {
            return;
        }
    }
}

type LineEditor = Editor<Verbs, DefaultHistory>;

fn editor(dev: bool) -> Result<LineEditor, Stop> {
    let failed = |error: ReadlineError| Stop::unavailable(format!("can't use this terminal: {error}"));
    let config =
        Config::builder().max_history_size(HISTORY_LINES).map_err(failed)?.auto_add_history(true).build();
    let mut editor = Editor::with_config(config).map_err(failed)?;
    let mut verbs = VERBS.to_vec();
    if dev {
        verbs.extend(VERBS_DEV);
    }
    editor.set_helper(Some(Verbs { verbs }));
    Ok(editor)
}

fn edit(mut editor: LineEditor, asked: &threads::Receiver<()>, tell: &mpsc::Sender<Result<Line, Stop>>) {
    let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".ringfort_history"));
    if let Some(history) = &history {
        let _ = editor.load_history(history);
    }
    // The lines behind the first one of what was pasted at once: a terminal gives that as one line.
    let mut pasted = VecDeque::new();
    while asked.recv().is_ok() {
        if let Some(line) = pasted.pop_front() {
            if tell.blocking_send(Ok(Line::Pasted(line))).is_err() {
                return;
            }
            continue;
        }
        let told = match editor.readline(PROMPT) {
            Ok(line) => {
                if let Some(history) = &history {
                    // A shell without a memory is still a shell.
                    let _ = editor.append_history(history);
                }
                pasted.extend(line.split(['\n', '\r']).filter(|line| !line.is_empty()).map(str::to_owned));
                Ok(Line::Text(pasted.pop_front().unwrap_or_default().into_bytes()))
            }
            Err(ReadlineError::Eof) => Ok(Line::End),
            Err(ReadlineError::Interrupted) => Ok(Line::Abandoned),
            Err(ReadlineError::Io(error)) if error.kind() == ErrorKind::InvalidData => {
                // What can't be forgotten is an unknown command at worst.
                let _ = tcflush(std::io::stdin(), QueueSelector::IFlush);
                Ok(Line::NotUtf8)
            }
            Err(error) => Err(Stop::unavailable(format!("can't read from the terminal: {error}"))),
        };
        if tell.blocking_send(told).is_err() {
            return;
        }
    }
}

/// Completes the first word of a line.
#[derive(Helper, Highlighter, Hinter, Validator)]
struct Verbs {
    verbs: Vec<&'static str>,
}

impl Completer for Verbs {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _context: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = &line[..pos];
        if typed.contains(' ') {
            // A tab is part of what is typed, or pasted into a terminal that does not say what was.
            return Ok((pos, vec!["\t".to_owned()]));
        }
        let verbs = self.verbs.iter().filter(|verb| verb.starts_with(typed) && !typed.is_empty());
        Ok((0, verbs.map(|verb| format!("{verb} ")).collect()))
    }
}
