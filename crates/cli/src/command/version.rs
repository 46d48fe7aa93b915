//! `ringfort version`

use clap::Args;
use ringfort_types::Levels;

use crate::json::Object;
use crate::out::{self, Output};
use crate::stop::Stop;

/// Print the version, and how this binary was built
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort version\n  ringfort version --json\n\n\
    `ringfort --version` prints the version alone.")]
pub(crate) struct Version {
    #[command(flatten)]
    output: Output,
}

/// The levels that it knows, as a range (docs/upgrading.md).
fn levels() -> String {
    format!("{} to {}", Levels::KNOWN.min, Levels::KNOWN.max)
}

/// The same for every build of one source by one compiler for one target and profile.
const FACTS: [(&str, &str); 4] = [
    ("version", env!("CARGO_PKG_VERSION")),
    ("target", env!("BUILD_TARGET")),
    ("profile", env!("BUILD_PROFILE")),
    ("rustc", env!("BUILD_RUSTC")),
];

pub(crate) fn run(version: &Version) -> Result<(), Stop> {
    if version.output.json {
        let object = Object::new().field("name", "ringfort");
        let object = FACTS.iter().fold(object, |object, (name, fact)| object.field(name, fact));
        let Levels { min, max } = Levels::KNOWN;
        return out::line(object.field("level_min", min.0).field("level_max", max.0).finish());
    }
    let lines: Vec<_> = FACTS[1..].iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    out::line(format!("ringfort {}\n{}\nlevels: {}", FACTS[0].1, lines.join("\n"), levels()))
}
