//! The formats of rows outside of a cluster, and how a file's name tells which is meant.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use ringfort_types::Row;
use ringfort_types::limits::{KEY_BYTES_MAX, VALUE_BYTES_MAX};

use crate::stop::Stop;
use crate::{escape, json};

const ROW_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX;

/// How a row is written as a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    // Not doc comments: clap would print them, and make a page of the help.
    // Key, tab, value; tabs, newlines, returns and backslashes escaped.
    Tsv,
    // A JSON object: key and value, or `key_base64` and `value_base64` if they are not UTF-8, and the revision.
    Jsonl,
}

impl Format {
    /// How rows are printed.
    pub(crate) fn of_output(json: bool) -> Format {
        if json { Format::Jsonl } else { Format::Tsv }
    }

    /// What a file's name says, `.gz` aside: `.jsonl` and `.ndjson` are JSON lines, what says nothing is tab-separated. A name
    /// that says something else is refused, rather than read as what it is not.
    pub(crate) fn of_file(name: &Path) -> Result<Format, Stop> {
        let inner = if is_gzip(name) { Path::new(name.file_stem().unwrap_or_default()) } else { name };
        let extension = inner.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        let refused = |what: &str, remedy: &str| {
            let name = name.display();
            Err(Stop::usage(format!(
                "{name} is {what} by its name, which import and export do not know: {remedy}"
            )))
        };
        match &*extension {
            "jsonl" | "ndjson" => Ok(Format::Jsonl),
            "csv" => refused(
                "comma-separated",
                "make it a file of key, tab, value a line (.tsv), or of JSON objects with key and value (.jsonl); if it is one \
                 of these already, say --format tsv or --format jsonl",
            ),
            "json" => refused(
                "one JSON document",
                "make it a file of an object a line with key and value (.jsonl); if it is that already, say --format jsonl",
            ),
            _ => Ok(Format::Tsv),
        }
    }

    /// Appends one row as a line, its end included; without its value if `keys_only`.
    pub(crate) fn row_into(self, out: &mut Vec<u8>, key: &[u8], row: &Row, keys_only: bool) {
        let value = (!keys_only).then_some(&row.value[..]);
        match self {
            Format::Tsv => escape::row_into(out, key, value),
            Format::Jsonl => json::row_into(out, key, value, row.revision),
        }
    }

    /// The longest line that a row within its limits can be.
    pub(crate) const fn line_bytes_max(self) -> usize {
        match self {
            // Every byte may be written as two.
            Format::Tsv => 2 * ROW_BYTES_MAX + 1,
            // Every byte may be written as six (\u0000), and there are names and spaces around it.
            Format::Jsonl => 6 * ROW_BYTES_MAX + 1024,
        }
    }
}

/// Where rows are read from or written to, and how they look there.
#[derive(Args, Debug)]
pub(crate) struct Place {
    #[command(flatten)]
    named: Named,
    /// Key, tab, value; or JSON objects [default: jsonl if the name ends in .jsonl or .ndjson, before a .gz if there is one; else
    /// tsv]
    #[arg(long, value_enum)]
    format: Option<Format>,
}

/// A file, named in one of two ways.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Named {
    /// The file, gzip-compressed if its name ends in .gz; `-` for stdin or stdout
    #[arg(value_name = "FILE")]
    positional: Option<PathBuf>,
    /// The same, as a flag
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Place {
    /// The file's name.
    pub(crate) fn path(&self) -> &Path {
        let Named { positional, file } = &self.named;
        positional.as_ref().or(file.as_ref()).map_or(Path::new("-"), PathBuf::as_path)
    }

    /// Whether it is stdin or stdout.
    pub(crate) fn is_standard(&self) -> bool {
        self.path().as_os_str() == "-"
    }

    /// What was asked for, or what its name says.
    pub(crate) fn format(&self) -> Result<Format, Stop> {
        compressed_as_we_do(self.path())?;
        self.format.map_or_else(|| Format::of_file(self.path()), Ok)
    }

    /// What was asked for, or else this.
    pub(crate) fn format_or(&self, otherwise: Format) -> Format {
        self.format.unwrap_or(otherwise)
    }
}

/// Whether the file of this name is, or is to be, compressed.
pub(crate) fn is_gzip(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "gz")
}

/// Refuses a file that is compressed, by its name, in a way that is none of ours.
fn compressed_as_we_do(name: &Path) -> Result<(), Stop> {
    let extension = name.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let tool = match &*extension {
        "zst" => "zstd",
        "xz" => "xz",
        "bz2" => "bzip2",
        "lz4" => "lz4",
        "zip" => "zip",
        _ => return Ok(()),
    };
    let way = if tool == "zip" {
        "unpack it first".to_owned()
    } else {
        format!(
            "`{tool} -dc FILE | ringfort import -` reads it, `ringfort export - | {tool} > FILE` writes it"
        )
    };
    Err(Stop::usage(format!(
        "{} is compressed by {tool}, by its name; here only .gz is: {way}",
        name.display()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_in_it() {
        for (name, format, gzip) in [
            ("rows.tsv", Format::Tsv, false),
            ("rows.tsv.gz", Format::Tsv, true),
            ("rows.jsonl", Format::Jsonl, false),
            ("a.b/rows.ndjson.gz", Format::Jsonl, true),
            ("rows.jsonl/rows", Format::Tsv, false),
            ("rows.gz", Format::Tsv, true),
            (".gz", Format::Tsv, false),
            ("-", Format::Tsv, false),
        ] {
            assert_eq!(
                (Format::of_file(Path::new(name)), is_gzip(Path::new(name))),
                (Ok(format), gzip),
                "{name}"
            );
            assert_eq!(compressed_as_we_do(Path::new(name)), Ok(()), "{name}");
        }
    }

    #[test]
    fn a_name_that_says_something_else_is_refused_with_a_way() {
        for (name, says) in [
            ("rows.csv", "--format tsv"),
            ("rows.CSV.gz", "comma-separated"),
            ("rows.json", "--format jsonl"),
        ] {
            let stop = Format::of_file(Path::new(name)).expect_err(name);
            assert!(stop.code == 2 && stop.message.contains(says), "{stop:?}");
        }
        for (name, says) in
            [("rows.tsv.zst", "`zstd -dc FILE | ringfort import -`"), ("rows.zip", "unpack it")]
        {
            let stop = compressed_as_we_do(Path::new(name)).expect_err(name);
            assert!(stop.code == 2 && stop.message.contains(says), "{stop:?}");
        }
    }
}
