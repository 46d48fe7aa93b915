//! What may happen to a file of a stopped node.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// `SplitMix64`.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// The kinds of files that a node has.
pub(crate) fn kind(path: &Path) -> &'static str {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    match (&*parent, &*name) {
        (_, "identity") => "identity",
        (_, "lock") => "lock",
        (_, "reached") => "reached",
        (_, "layout") => "layout",
        (_, "owner") => "owner of tables",
        ("log", _) if path.extension().is_some_and(|found| found == "log") => "log segment",
        ("log", _) => "spare segment",
        ("tables", _) => "table",
        (_, "current") => "current",
        _ => "list of tables",
    }
}

pub(crate) fn files(dir: &Path, found: &mut BTreeMap<&'static str, Vec<PathBuf>>) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.entry(kind(&path)).or_default().push(path);
        }
    }
}

/// Puts a file in the place of another one of its kind, or each of them in the other's.
fn exchange(path: &Path, other: &Path, is_swap: bool) -> String {
    let (bytes, others) = (fs::read(path).expect("a file"), fs::read(other).expect("a file"));
    fs::write(path, others).expect("written");
    if is_swap {
        fs::write(other, bytes).expect("written");
    }
    format!("{} {}", if is_swap { "swapped with" } else { "replaced by" }, other.display())
}

/// Does one thing to a file, or two, and says what. `like` it are all of its kind.
pub(crate) fn damage(path: &Path, like: &[PathBuf], random: &mut Random) -> (String, Option<PathBuf>) {
    let other = &like[random.below(like.len())];
    match random.below(10) {
        0 | 1 if other != path => {
            let is_swap = random.below(2) == 0;
            return (exchange(path, other, is_swap), is_swap.then(|| other.clone()));
        }
        2 => {
            let length = fs::metadata(path).expect("a file").len();
            let longer = length + [1, 4096, 20 << 30][random.below(3)];
            fs::File::options().write(true).open(path).and_then(|file| file.set_len(longer)).expect("longer");
            return (format!("made {longer} bytes long, instead of {length}"), None);
        }
        _ => {}
    }
    (damage_one(path, random), None)
}

fn damage_one(path: &Path, random: &mut Random) -> String {
    let mut bytes = fs::read(path).expect("a file");
    // Most of a segment was never written; all of a spare one.
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(bytes.len(), |last| last + 1);
    match random.below(8) {
        _ if used == 0 => {
            fs::remove_file(path).expect("removed");
            "removed (it was empty)".into()
        }
        0 => {
            fs::remove_file(path).expect("removed");
            "removed".into()
        }
        1 | 2 => {
            let at = random.below(used);
            bytes.truncate(at);
            fs::write(path, bytes).expect("written");
            format!("cut to {at} bytes")
        }
        3 | 4 => {
            let at = random.below(used) / 4096 * 4096;
            let end = (at + 4096).min(bytes.len());
            bytes[at..end].fill(0);
            fs::write(path, bytes).expect("written");
            format!("zeroed from {at} to {end}")
        }
        _ => {
            let bits: Vec<_> = (0..=random.below(3)).map(|_| (random.below(used), random.below(8))).collect();
            for (at, bit) in &bits {
                bytes[*at] ^= 1 << bit;
            }
            fs::write(path, bytes).expect("written");
            format!("bits changed: {bits:?}")
        }
    }
}

/// Whether a text names the file, or the one beside it that says what it should be.
pub(crate) fn names(text: &str, path: &Path) -> bool {
    // A spare segment has another name when it is used.
    let beside = matches!(kind(path), "current" | "list of tables" | "spare segment");
    let path = if beside { path.parent().expect("a directory") } else { path };
    // Who has lost the identity is told of the directory.
    let is_identity = path.file_name().is_some_and(|name| name == "identity");
    // Who has lost the only segment of the log is told of where it was.
    let of_log = path.parent().map(|of| format!("{} has no segment of the log", of.display()));
    text.contains(&path.display().to_string())
        || (is_identity && text.contains("has no `identity` file"))
        || of_log.is_some_and(|of| text.contains(&of))
}
