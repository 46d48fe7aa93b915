//! How fresh reads have to be, as people name it.
//!
//! One table: a kind of read that nodes learn is one line more here, and help, completions, the environment and the file
//! know it.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use ringfort_types::Consistency;

/// Every kind of read.
const KINDS: &[Kind] = &[
    Kind { name: "linearizable", consistency: Consistency::Linearizable },
    Kind { name: "stale", consistency: Consistency::Stale },
];

/// A kind of read, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    name: &'static str,
    consistency: Consistency,
}

impl ValueEnum for Kind {
    fn value_variants<'a>() -> &'a [Kind] {
        KINDS
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name))
    }
}

/// How to read.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How fresh a read has to be: it sees all that was acknowledged, or takes what the asked node has
    #[arg(long, value_name = "KIND", value_enum, default_value = "linearizable")]
    consistency: Kind,
}

impl Reading {
    /// What to ask for.
    pub(crate) fn consistency(self) -> Consistency {
        self.consistency.consistency
    }
}
