//! `ringfort man`

use std::fs;
use std::path::PathBuf;

use clap::Args;
use clap_mangen::Man as Page;

use crate::json::Object;
use crate::out::{self, Out, Output};
use crate::show;
use crate::stop::Stop;

/// Print this man page, or write all of them, a page a command
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ringfort man | man -l -\n  ringfort man --out ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write all pages into this directory, which is made if need be
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// `root` is the whole command line's definition.
pub(crate) fn run(man: &Man, root: clap::Command) -> Result<(), Stop> {
    let Some(directory) = &man.out else {
        let page = Page::new(root);
        let mut text = Vec::new();
        page.render(&mut text).expect("a page can be written to memory");
        if man.output.json {
            let text = String::from_utf8_lossy(&text);
            return out::line(Object::new().field("file", page.get_filename()).field("page", text).finish());
        }
        let mut out = Out::new();
        out.write(&text)?;
        return out.flush();
    };
    let pages = pages_of(&root);
    fs::create_dir_all(directory).and_then(|()| clap_mangen::generate_to(root, directory)).map_err(
        |error| {
            let directory = directory.display();
            Stop::usage(format!(
                "can't write man pages to {directory}: {error}; choose another place with --out"
            ))
        },
    )?;
    let written = directory.display().to_string();
    out::line(if man.output.json {
        Object::new().field("pages", pages).field("directory", written).finish()
    } else {
        format!("wrote {} to {written}", show::count(pages, "page", "pages")).into_bytes()
    })
}

/// A page for a command, and one for each below it.
fn pages_of(command: &clap::Command) -> u64 {
    1 + command.get_subcommands().map(pages_of).sum::<u64>()
}
