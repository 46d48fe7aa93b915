//! `ringfort write [--file FILE]`

use std::fs::File;
use std::io::{self, BufReader};
use std::path::PathBuf;

use clap::Args;
use ringfort_client::Decision;

use crate::connection::{Connect, with_options};
use crate::json::Object;
use crate::out::Output;
use crate::rows::BadInput;
use crate::stop::Stop;
use crate::writing::Writing;
use crate::{changes, condition};

/// Change several keys of one shard, all or none: a line for each, from stdin or a file
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  printf 'put\\t{u1}name\\tAda\\ndelete\\t{u1}draft\\n' | ringfort write\n  \
    ringfort write --file changes.tsv\n  ringfort write --file changes.tsv --json\n\n\
    Lines, with tabs between the fields:\n  put     KEY  VALUE [CONDITION]\n  delete  KEY  [CONDITION]\n  \
    add     KEY  NUMBER [CONDITION]      adds to the number that the key has; not there counts as 0\n  \
    check   KEY  CONDITION               changes nothing; the write depends on it\n\
    CONDITION is if-absent, if-present, if-revision=N or if-value=V. In keys and values, tabs, newlines, carriage returns \
    and backslashes are written \\t, \\n, \\r and \\\\, as in the files of `import`.\n\n\
    At most 1,024 lines and 8 MiB, each key once. All keys must be of one shard: keys with the same part in braces are. If a \
    condition is not met, nothing is changed, and the exit code is 1. JSON: done (true) and the receipt, as `put --json` \
    prints it; condition not met: line (from 1), key, done (false), revision (the key's; null if it is not there) and index."
)]
pub(crate) struct Write {
    /// Read the lines from this file; without it, or with `-`, from stdin
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    #[command(flatten)]
    writing: Writing,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

pub(crate) fn run(write: &Write) -> Result<(), Stop> {
    let changes = read(write)?;
    let mut options = write.connect.options()?;
    write.writing.apply(&mut options);
    with_options(options, async |client| {
        let decision = client.write(changes).await?;
        let object = write.output.json.then(|| match &decision {
            Decision::Done(_) => Object::new(),
            Decision::NotMet(not_met) => {
                Object::new().field("line", not_met.part + 1).bytes("key", &not_met.key)
            }
        });
        condition::answer(&decision, object, write.writing)
    })
}

/// All lines, or what is wrong with one of them.
fn read(write: &Write) -> Result<ringfort_client::Write, Stop> {
    let (name, read) = match write.file.as_ref().filter(|file| file.as_os_str() != "-") {
        None => ("stdin".to_owned(), changes::read(&mut io::stdin().lock())),
        Some(path) => {
            let name = path.display().to_string();
            let file =
                File::open(path).map_err(|error| Stop::usage(format!("can't read {name}: {error}")))?;
            (name, changes::read(&mut BufReader::new(file)))
        }
    };
    match read {
        Ok(Some(changes)) => Ok(changes),
        Ok(None) => Err(Stop::usage(format!("nothing to write: there is no line in {name}"))),
        Err(BadInput::Line(line, why)) => {
            Err(Stop::usage(format!("line {line}: {why}; nothing was written")))
        }
        Err(BadInput::Io(line, error)) => {
            Err(Stop::usage(format!("can't read {name} from line {line} on: {error}")))
        }
    }
}
