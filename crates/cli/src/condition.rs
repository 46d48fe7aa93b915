//! Conditions of writes: their flags, and what is said when one is not met.
//!
//! A condition that is not met is an answer, not a failure: exit code 1, as for a key that is not there, and one line
//! that says what was found, so that a script can decide and try again under that revision.

use std::ffi::OsString;
use std::io::Write;

use clap::Args;
use ringfort_client::{Condition, Decision, NotMet};
use ringfort_types::Revision;

use crate::connection::argument;
use crate::escape::escape_into;
use crate::json::Object;
use crate::out;
use crate::stop::Stop;
use crate::writing::Writing;

/// What a key that is there can be asked to be.
#[derive(Args, Debug)]
#[group(id = "if_there", multiple = false)]
pub(crate) struct IfThere {
    /// Only if the key is there, whatever its value
    #[arg(id = "if-present", long = "if-present")]
    present: bool,
    /// Only if the key's revision is this, as --json prints it
    #[arg(id = "if-revision", long = "if-revision", value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    revision: Option<u64>,
    /// Only if the key has this value
    #[arg(id = "if-value", long = "if-value", value_name = "VALUE", allow_hyphen_values = true)]
    value: Option<OsString>,
}

impl IfThere {
    /// The condition, if there is one.
    pub(crate) fn condition(&self) -> Option<Condition> {
        let IfThere { present, revision, value } = self;
        let revision = revision.map(|revision| Condition::Revision(Revision(revision)));
        let value = value.as_ref().map(|value| Condition::Value(argument(value)));
        present.then_some(Condition::Present).or(revision).or(value)
    }
}

/// `name has revision 7`, `name is not there`; the key as `list` prints it.
fn found(not_met: &NotMet) -> String {
    let mut key = Vec::new();
    escape_into(&mut key, &not_met.key);
    let key = String::from_utf8_lossy(&key);
    match not_met.revision {
        Some(revision) => format!("{key} has revision {revision}"),
        None => format!("{key} is not there"),
    }
}

/// Prints what came of a write that was to be done so: as JSON if there is an object, which has what is to be said before
/// that.
pub(crate) fn answer(decision: &Decision, object: Option<Object>, writing: Writing) -> Result<(), Stop> {
    match (decision, object) {
        (Decision::Done(receipt), object) => {
            let printed = match object {
                Some(object) => out::line(object.done(receipt).finish()),
                None => out::line("OK"),
            };
            // Also if nobody has read what is printed.
            writing.judge(receipt).and(printed)
        }
        (Decision::NotMet(not_met), Some(object)) => {
            out::line(object.not_met(not_met).finish())?;
            Err(Stop::not_met())
        }
        (Decision::NotMet(not_met), None) => {
            let _ = writeln!(std::io::stderr(), "not done: {}", found(not_met));
            Err(Stop::not_met())
        }
    }
}
