//! `ringfort version`

use clap::Args;

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
        return out::line(
            FACTS.iter().fold(object, |object, (name, fact)| object.field(name, fact)).finish(),
        );
    }
    let lines: Vec<_> = FACTS[1..].iter().map(|(name, fact)| format!("{name}: {fact}")).collect();
    out::line(format!("ringfort {}\n{}", FACTS[0].1, lines.join("\n")))
}
