//! How the shell's answers look: as the small key-value shells that people know, or as JSON, an object each.

use ringfort_client::{Counted, Read};
use ringfort_types::{ClusterState, Failure, Receipt, Row};

use crate::administration::Answer;
use crate::cluster;
use crate::json::{self, Object};
use crate::out::Out;
use crate::stop::Stop;

/// Writes answers. Those that are worth an exit code return it.
#[derive(Debug)]
pub(super) struct Answers {
    out: Out,
    json: bool,
}

impl Answers {
    pub(super) fn new(json: bool) -> Answers {
        Answers { out: Out::new(), json }
    }

    /// A put is acknowledged.
    pub(super) fn stored(&mut self, key: &[u8], receipt: &Receipt) -> Result<(), Stop> {
        self.written("Stored and replicated", key, receipt)
    }

    /// A delete is acknowledged.
    pub(super) fn deleted(&mut self, key: &[u8], receipt: &Receipt) -> Result<(), Stop> {
        self.written("Deleted", key, receipt)
    }

    fn written(&mut self, text: &str, key: &[u8], receipt: &Receipt) -> Result<(), Stop> {
        if self.json {
            return self.out.line(Object::new().bytes("key", key).done(receipt).finish());
        }
        self.out.line(text)
    }

    /// An increment is acknowledged.
    pub(super) fn counted(&mut self, key: &[u8], counted: &Counted) -> Result<(), Stop> {
        if self.json {
            return self.out.line(Object::new().bytes("key", key).counted(counted).finish());
        }
        self.out.line(counted.value.to_string())
    }

    /// What a get found.
    pub(super) fn read(&mut self, key: &[u8], read: &Read) -> Result<(), Stop> {
        match &read.row {
            _ if self.json => self.out.line(Object::new().bytes("key", key).read(read).finish()),
            Some(row) => self.pair(key, &row.value).and_then(|()| self.out.flush()),
            None => self.out.line("(not found)"),
        }
    }

    /// One row of a list; it may wait for the end of the list.
    pub(super) fn row(&mut self, key: &[u8], row: &Row) -> Result<(), Stop> {
        if self.json {
            let mut line = Vec::new();
            json::row_into(&mut line, key, Some(&row.value), row.revision);
            return self.out.write(&line);
        }
        self.pair(key, &row.value)
    }

    /// A list is over after so many rows.
    pub(super) fn end_of_rows(&mut self, count: u64) -> Result<(), Stop> {
        if self.json {
            return self.out.line(Object::new().field("rows", count).finish());
        }
        self.out.flush()
    }

    pub(super) fn status(&mut self, state: &ClusterState) -> Result<(), Stop> {
        if self.json {
            return self.out.line(ringfort_view::json(state).to_string());
        }
        self.out.line(cluster::render(state).trim_end())
    }

    /// What a command of `ringfort` prints, too.
    pub(super) fn either(
        &mut self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> Vec<u8>,
    ) -> Result<(), Stop> {
        if self.json { self.out.line(json()) } else { self.out.line(text()) }
    }

    /// What `ringfort cluster` prints, too.
    pub(super) fn lines(&mut self, Answer { text, json }: Answer) -> Result<(), Stop> {
        if self.json {
            return json.iter().try_for_each(|line| self.out.line(line));
        }
        self.out.line(text.trim_end())
    }

    /// Anything else there is to say.
    pub(super) fn said(&mut self, text: &str) -> Result<(), Stop> {
        if self.json {
            return self.out.line(Object::new().field("message", text).finish());
        }
        self.out.line(text)
    }

    /// A line that made no sense, and how it would.
    pub(super) fn wrong(&mut self, usage: &str) -> Result<u8, Stop> {
        if self.json {
            self.out.line(Object::new().field("error", usage).field("exit_code", 2).finish())?;
        } else {
            self.out.line(usage)?;
        }
        Ok(2)
    }

    /// A request failed, which is worth this exit code.
    pub(super) fn failed(&mut self, failure: &Failure, code: u8) -> Result<u8, Stop> {
        if self.json {
            self.out.line(Object::new().failure(failure, code).finish())?;
        } else {
            self.out.line(format!("error: {failure}"))?;
        }
        Ok(code)
    }

    /// Something that was asked of this process could not be done.
    pub(super) fn stopped(&mut self, Stop { code, message }: &Stop) -> Result<u8, Stop> {
        if self.json {
            self.out.line(Object::new().field("error", message).field("exit_code", code).finish())?;
        } else {
            self.out.line(format!("error: {message}"))?;
        }
        Ok(*code)
    }

    fn pair(&mut self, key: &[u8], value: &[u8]) -> Result<(), Stop> {
        self.out.write(key)?;
        self.out.write(b" = ")?;
        self.out.write(value)?;
        self.out.write(b"\n")
    }
}
