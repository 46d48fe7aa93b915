//! Another version of Ringfort beside this one: `cargo xtask upgrade [COMMIT]`, and data directories for those that come: `fixture`.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Builds the binary of a commit, the one before the last if none is named, and has it and the one of the working tree take each
/// other's place in a cluster under load. Its sources and what is made of them are in `target/upgrade`.
pub fn run(root: &Path, args: &[String]) -> Result<()> {
    let commit = match args {
        [] => "HEAD~1",
        [commit] => commit,
        [_, extra, ..] => bail!("unexpected argument {extra}: upgrade takes one commit"),
    };
    let place = root.join("target/upgrade");
    let source = place.join("source");
    if source.exists() {
        fs::remove_dir_all(&source).context("can't remove the sources of the last time")?;
    }
    fs::create_dir_all(&source).context("can't make a directory for the sources")?;
    let mut archive = Command::new("git");
    archive.args(["archive", commit]).current_dir(root).stdout(Stdio::piped());
    let mut archive = archive.spawn().context("can't start git")?;
    let files = archive.stdout.take().context("git's output was not taken")?;
    // With the time of now: cargo would take older files for ones that it has compiled.
    let unpacked =
        Command::new("tar").arg("-xmC").arg(&source).stdin(files).status().context("can't start tar")?;
    if !archive.wait().context("git can't be waited for")?.success() || !unpacked.success() {
        bail!("{commit} can't be unpacked (see above)");
    }
    let target = place.join("target");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--workspace", "--bins", "--target-dir"]).arg(&target).current_dir(&source);
    if !build.status().context("can't start cargo")?.success() {
        bail!("{commit} can't be built (see above)");
    }
    test(root, "two_versions", "RINGFORT_TEST_OTHER", &target.join("debug/ringfort"))
}

/// Makes the data directories of the present level.
pub fn fixture(root: &Path, args: &[String]) -> Result<()> {
    if let Some(extra) = args.first() {
        bail!("unexpected argument {extra}: fixture takes none");
    }
    test(root, "what_every_level_has_written", "RINGFORT_WRITE_FIXTURE", Path::new("1"))
}

fn test(root: &Path, name: &str, variable: &str, value: &Path) -> Result<()> {
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--workspace", "--test", "binary", name, "--", "--nocapture"]);
    let status = test.env(variable, value).current_dir(root).status().context("can't start cargo")?;
    if !status.success() {
        bail!("the test failed (see above)");
    }
    Ok(())
}
