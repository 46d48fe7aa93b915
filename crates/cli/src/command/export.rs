//! `ringfort export FILE|-`

use std::io::{self, Write};
use std::time::Instant;

use clap::Args;
use ringfort_client::{Client, List};

use crate::connection::{Connect, with_client};
use crate::format::{Format, Place};
use crate::listing::{Listing, Resume};
use crate::out::{self, Out, Output};
use crate::part::Part;
use crate::progress::Progress;
use crate::runtimes::Beside;
use crate::show::{self, Transfer};
use crate::signals::Signals;
use crate::stop::Stop;

/// Most rows and bytes between two looks around: at how far it is, and whether it should end.
const LOOK_ROWS: u64 = 1024;
const LOOK_BYTES: u64 = 256 * 1024;

/// Write all rows to a file or stdout, one a line, in key order, as `import` reads them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort export rows.tsv\n  ringfort export rows.jsonl.gz\n  \
    ringfort export - --format jsonl | head\n\n\
    A file appears under its name only when it is complete and on disk; until then, an older one stays. With --json, \
    rows on stdout are JSON lines unless --format says otherwise. At the end it prints how much it was (on stderr, if the \
    rows are on stdout); JSON: rows, bytes, seconds, resumed (how often it broke off and went on; 0 without --resume).\n\n\
    The rows of each shard are of one moment, however long it takes. What is overwritten meanwhile takes room on the nodes' \
    disks; if that passes a bound (--held-reads-mb of `ringfort start`), or both nodes that keep it are lost, the export ends with \
    exit code 3. With --resume it goes on, and is no longer of one moment.")]
pub(crate) struct Export {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    resume: Resume,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    connect: Connect,
}

/// What has been copied.
struct Copied {
    rows: u64,
    bytes: u64,
    resumed: u64,
}

pub(crate) fn run(export: &Export) -> Result<(), Stop> {
    let begun = Instant::now();
    let to_stdout = export.place.is_standard();
    let format = if to_stdout {
        export.place.format_or(Format::of_output(export.output.json))
    } else {
        export.place.format()?
    };
    let Copied { rows, bytes, resumed } = if to_stdout {
        with_client(&export.connect, async |client| {
            let mut out = Out::new();
            let copied = copy(&client, export.resume, format, |line| out.write(line)).await?;
            out.flush()?;
            Ok(copied)
        })?
    } else {
        to_file(export, format)?
    };
    let moved = Transfer { rows, bytes, time: begun.elapsed() };
    let summary = if export.output.json {
        moved.object().field("resumed", resumed).finish()
    } else {
        let moments = match resumed {
            0 => String::new(),
            _ => format!(", of {} moments", resumed + 1),
        };
        format!("{}{moments}", moved.text("exported")).into_bytes()
    };
    if to_stdout {
        let _ = io::stderr().write_all(&[&summary[..], b"\n"].concat());
        Ok(())
    } else {
        out::line(summary)
    }
}

/// Writes the file, whole or not at all; counts rows and bytes.
fn to_file(export: &Export, format: Format) -> Result<Copied, Stop> {
    Beside::new()?.block_on(async {
        // Before there is a file, and before anybody is waited for: an unfinished one does not stay behind.
        let mut signals = Signals::new()?;
        let mut part = Part::create(export.place.path())?;
        let copying = async {
            let client = Client::connect(export.connect.options()?).await?;
            copy(&client, export.resume, format, |line| part.write(line)).await
        };
        let copied = tokio::select! {
            copied = copying => copied?,
            asked = signals.next() => return Err(asked.stop()),
        };
        part.finish().map(|()| copied)
    })
}

/// Gives every row's line to `write`; counts rows and bytes.
async fn copy(
    client: &Client,
    resume: Resume,
    format: Format,
    mut write: impl FnMut(&[u8]) -> Result<(), Stop>,
) -> Result<Copied, Stop> {
    let mut listing = Listing::new(client, List::default(), resume).await?;
    let progress = Progress::new(None);
    let mut line = Vec::new();
    let (mut count, mut bytes, mut looked) = (0, 0, 0);
    let stopped = |stop: Stop, count: u64| {
        let rows = show::count(count, "row", "rows");
        Stop { message: format!("export stopped after {rows}: {}", stop.message), ..stop }
    };
    while let Some((key, row)) = listing.next().await.map_err(|stop| stopped(stop, count))? {
        line.clear();
        format.row_into(&mut line, &key, &row, false);
        write(&line)?;
        count += 1;
        bytes += (key.len() + row.value.len()) as u64;
        if count % LOOK_ROWS == 0 || bytes - looked > LOOK_BYTES {
            progress.set(bytes, count);
            looked = bytes;
            // If rows come faster than they are written, nothing else would make room for a signal.
            tokio::task::yield_now().await;
        }
    }
    Ok(Copied { rows: count, bytes, resumed: listing.resumed() })
}
