//! How fresh reads have to be, and whom they are asked of, as people name it.
//!
//! Two tables: a kind of read that nodes learn is one line more in the first, and help, completions, the environment and the
//! file know it.

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};
use ringfort_client::{Consistency, Options, ReadsFrom};

/// Every kind of read.
const KINDS: &[Kind] = &[
    Kind { name: "linearizable", consistency: Consistency::Linearizable },
    Kind { name: "lease", consistency: Consistency::Lease },
    Kind { name: "stale", consistency: Consistency::Stale },
];

/// Everybody who can be asked.
const SOURCES: &[Source] = &[
    Source { name: "leader", reads_from: ReadsFrom::Leader },
    Source { name: "replicas", reads_from: ReadsFrom::Replicas },
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

/// Who is asked, and how that is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Source {
    name: &'static str,
    reads_from: ReadsFrom,
}

impl ValueEnum for Source {
    fn value_variants<'a>() -> &'a [Source] {
        SOURCES
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name))
    }
}

/// How to read.
#[derive(Args, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// How fresh a read has to be: it sees all that was acknowledged, the same by the leader's lease (which rests on
    /// clocks), or takes what the asked node has
    #[arg(long, value_name = "KIND", value_enum, default_value = "linearizable")]
    consistency: Kind,
    /// Who is asked for rows: the key's leader, or all nodes that have it, in turn (but lease reads are the leader's)
    #[arg(long, value_name = "WHO", value_enum, default_value = "leader")]
    reads_from: Source,
}

impl Reading {
    /// What to ask for.
    pub(crate) fn consistency(self) -> Consistency {
        self.consistency.consistency
    }

    /// Has a client read so.
    pub(crate) fn apply(self, options: &mut Options) {
        options.consistency = self.consistency.consistency;
        options.reads_from = self.reads_from.reads_from;
    }

    /// The name of the kind, unless it is the default.
    pub(crate) fn unusual_kind(self) -> Option<&'static str> {
        (self.consistency() != Consistency::Linearizable).then_some(self.consistency.name)
    }

    /// The name of who is asked, unless it is the default; what the leader has to answer is not spread.
    pub(crate) fn unusual_source(self) -> Option<&'static str> {
        let is_unusual =
            self.reads_from.reads_from != ReadsFrom::Leader && self.consistency() != Consistency::Lease;
        is_unusual.then_some(self.reads_from.name)
    }
}
