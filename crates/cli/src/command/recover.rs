//! `ringfort recover --data-dir DIR…`: what is left of a cluster that has lost its majorities for good, and a new cluster from it.
//!
//! The work is `ringfort_server::recover`'s. Here the operator is shown what there is, asked for the cluster's name, and told how to go on.

use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, Read, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;
use ringfort_server::recover::{Anew, Begun, Copy, Directory, Found, Loss, ShardFound, Survey};
use ringfort_types::is_name;
use ringfort_types::limits::BIRTH_NODES_MAX;
use rustix::fs::Mode;
use serde_json::json;

use crate::leftovers;
use crate::out::{Out, Output};
use crate::progress::Progress;
use crate::show;
use crate::stop::Stop;

/// Longest line that is read as a name.
const LINE_BYTES_MAX: u64 = 256;

/// Show what stopped nodes have of a cluster that has lost its majority for good, and begin a new cluster with it
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ringfort recover --data-dir d1 --data-dir d2              shows what there is, and changes nothing\n  \
    ringfort recover --data-dir d1 --data-dir d2 --out new    asks for the cluster's name, and makes a new cluster of one node\n  \
    ringfort start --id node1 --addr 10.0.0.1:50051 --data-dir new\n\n\
    Only where nodes are lost for good that made up a majority of a shard's replicas. Nodes that are down, or can't be reached, come back with all they \
    had: start them instead. Give the data directories of all nodes that are left; none of them may run. They are not changed.\n\n\
    Of each shard the best copy is taken: the whole one with the highest last term, and the highest last index. If a majority of the replicas that \
    decide is here, nothing acknowledged is lost; else what was written after the index shown may be. Entries that may not have been \
    committed are kept. The new cluster has a name of its own, so that nodes of the old one that turn up again are refused. Start it, then start other \
    nodes with empty directories and --join: copies are made by themselves.\n\n\
    It needs room for a copy of one node's log in the directory for temporary files (TMPDIR), and reads all tables.\n\n\
    Exit codes: 0 there is a whole copy of every shard, or the new directory is made; 1 there is none of some; 2 refused, and nothing was \
    written; 3 a disk or file failed.\n\n\
    JSON: an object for each directory (directory, node, name, address, cluster, epoch, damage), one for each shard (shard, best, copies: \
    directory, name, term, last, committed, keys, damage; lost: nothing, after or everything; after, committed, not_here), then one for all \
    (cluster, shards, complete, in_doubt, lost), and with --out one for what was made (cluster, directory, name, address, shards, replicas)."
)]
pub(crate) struct Recover {
    /// A stopped node's data directory; may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    data_dir: Vec<PathBuf>,
    /// Make the new cluster in this directory, which is empty or not there
    #[arg(long, value_name = "NEWDIR")]
    out: Option<PathBuf>,
    /// The new node's name [default: that of the first directory's node]
    #[arg(long, value_name = "NAME", requires = "out")]
    id: Option<String>,
    /// Where the new node will be found [default: the address of the first directory's node]
    // By another id than the client commands' `--addr`, of which it is none.
    #[arg(id = "found-at", long = "addr", value_name = "HOST:PORT", requires = "out")]
    addr: Option<String>,
    /// The old cluster's name, as it is shown, instead of typing it
    #[arg(long, value_name = "CLUSTER", requires = "out")]
    confirm: Option<String>,
    /// Go on without shards of which there is no whole copy: they begin empty
    #[arg(long, requires = "out")]
    empty_lost_shards: bool,
    #[command(flatten)]
    output: Output,
}

pub(crate) fn run(recover: &Recover) -> Result<(), Stop> {
    // What it makes is its owner's alone.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if recover.data_dir.len() > BIRTH_NODES_MAX {
        return Err(Stop::usage(format!(
            "{} data directories: a cluster has {BIRTH_NODES_MAX} nodes at most; give fewer",
            recover.data_dir.len()
        )));
    }
    let temporary = std::env::temp_dir();
    leftovers::clear(leftovers::RECOVER, &temporary);
    let (workspace, lock) = leftovers::claim_new(leftovers::RECOVER, &temporary).map_err(|error| {
        Stop::usage(format!(
            "can't make a directory in {}: {error}; name another place with TMPDIR",
            temporary.display()
        ))
    })?;
    let done = survey(recover, &workspace);
    let _stays = fs::remove_dir_all(&workspace);
    drop(lock);
    done
}

fn survey(recover: &Recover, workspace: &Path) -> Result<(), Stop> {
    let progress = Progress::new(None);
    let survey = Survey::of(&recover.data_dir, workspace, &|text| progress.say(text))?;
    drop(progress);
    let mut out = Out::new();
    if recover.output.json {
        for directory in &survey.directories {
            out.line(directory_json(&survey, directory).to_string())?;
        }
        for found in &survey.shards {
            out.line(shard_json(&survey, found).to_string())?;
        }
        out.line(summary_json(&survey).to_string())?;
    } else {
        out.write(text(&survey).as_bytes())?;
        out.flush()?;
    }
    match &recover.out {
        Some(directory) => begin_anew(recover, &survey, directory, &mut out),
        None if survey.without_copy().next().is_some() => Err(Stop::not_found()),
        None => Ok(()),
    }
}

fn begin_anew(recover: &Recover, survey: &Survey, directory: &Path, out: &mut Out) -> Result<(), Stop> {
    let first = &survey.directories[0];
    let address = recover.addr.clone().unwrap_or_else(|| first.address.clone());
    // Who has no name is called by the address.
    let unnamed = if is_name(&first.name) { first.name.clone() } else { address.clone() };
    let anew = Anew {
        out: directory.to_owned(),
        name: recover.id.clone().unwrap_or(unnamed),
        address,
        empty_lost_shards: recover.empty_lost_shards,
    };
    // Before anybody types anything.
    survey.check(&anew)?;
    let cluster = name_of(survey.cluster);
    let typed = match &recover.confirm {
        Some(name) => name.clone(),
        None => asked(directory)?,
    };
    if typed.trim() != cluster {
        return Err(Stop::usage(format!(
            "the cluster is called {cluster}, and not {:?}: nothing was written",
            typed.trim()
        )));
    }
    let progress = Progress::new(None);
    let begun = survey.begin_anew(&anew, &|text| progress.say(text))?;
    drop(progress);
    if recover.output.json {
        return out.line(
            json!({
                "cluster": name_of(begun.cluster),
                "directory": begun.directory,
                "name": anew.name,
                "address": anew.address,
                "shards": begun.shards,
                "replicas": begun.replicas,
            })
            .to_string(),
        );
    }
    out.line(next_steps(&anew, &begun))
}

/// Asks for the cluster's name.
fn asked(directory: &Path) -> Result<String, Stop> {
    let mut stderr = std::io::stderr();
    let question =
        format!("To make a new cluster of this in {}, type the cluster's name: ", directory.display());
    let _nobody_reads = stderr.write_all(question.as_bytes()).and_then(|()| stderr.flush());
    let mut line = Vec::new();
    let read = std::io::stdin().lock().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| {
        Stop::usage(format!("can't read the cluster's name from stdin: {error}; say it with --confirm"))
    })?;
    Ok(String::from_utf8_lossy(&line).into_owned())
}

/// As `status --json` shows it.
fn name_of(cluster: u64) -> String {
    format!("{cluster:016x}")
}

fn next_steps(anew: &Anew, begun: &Begun) -> String {
    let Begun { cluster, directory, .. } = begun;
    let mut flags = String::new();
    if is_name(&anew.name) {
        let _ = write!(flags, "--id {} ", anew.name);
    }
    let _ = write!(flags, "--addr {} --data-dir {directory}", anew.address);
    format!(
        "made cluster {} of one node in {directory}; start it, with its other flags (as --tls-cert) but without --peers:\n  ringfort start {flags}\n\
         then start the others with empty data directories and --join {}",
        name_of(*cluster),
        anew.address
    )
}

/// For people.
fn text(survey: &Survey) -> String {
    let mut text = format!("cluster {}\n", name_of(survey.cluster));
    for Directory { path, name, address, epoch, damage, .. } in &survey.directories {
        let state =
            damage.as_ref().map_or_else(|| format!("epoch {epoch}"), |why| format!("not to be used: {why}"));
        let _ = writeln!(text, "{name} at {address}, {path}: {state}");
    }
    let rows: Vec<Vec<String>> = survey.shards.iter().map(|found| row(survey, found)).collect();
    let heads = [
        ">shard",
        "best",
        ">term",
        ">last index",
        ">committed",
        ">keys",
        "other copies",
        "not here",
        "may be lost",
    ];
    text.push_str(&show::table(&heads, &rows));
    for found in &survey.shards {
        for Copy { directory, found: state } in &found.copies {
            if let Found::Damaged { reason, .. } = state {
                let name = &survey.directories[*directory].name;
                let _ = writeln!(text, "shard {} on {name} is damaged: {reason}", found.shard);
            }
        }
    }
    let Counts { complete, in_doubt, lost } = Counts::of(survey);
    let shards = |count: usize| show::count(count as u64, "shard", "shards");
    let _ = writeln!(
        text,
        "{}: of {complete} nothing acknowledged is lost; of {in_doubt} writes after the last index may be; of {lost} there is no whole copy",
        shards(survey.shards.len())
    );
    text
}

fn row(survey: &Survey, found: &ShardFound) -> Vec<String> {
    let name = |directory: usize| survey.directories[directory].name.clone();
    let others = found.copies.iter().enumerate().filter(|(place, _)| Some(*place) != found.best);
    let others = others.map(|(_, copy)| match &copy.found {
        Found::Whole { survivor, .. } => {
            format!("{} (term {}, index {})", name(copy.directory), survivor.term, survivor.last)
        }
        Found::Damaged { .. } => format!("{} (damaged)", name(copy.directory)),
    });
    let others = others.collect::<Vec<_>>().join(", ");
    let loss = match found.loss {
        Loss::Nothing => "nothing acknowledged".to_owned(),
        Loss::After { last, committed: None } => format!("writes after index {last}"),
        Loss::After { last, committed: Some(committed) } => {
            format!("writes after index {last}; {} to {committed} are", last.next())
        }
        Loss::Everything => "EVERYTHING".to_owned(),
    };
    let best = found.best_copy();
    let cell = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        found.shard.to_string(),
        cell(best.map(|(directory, ..)| name(directory))),
        cell(best.map(|(_, survivor, _)| survivor.term.to_string())),
        cell(best.map(|(_, survivor, _)| survivor.last.to_string())),
        cell(best.map(|(_, survivor, _)| survivor.commit.to_string())),
        cell(best.map(|(.., keys)| keys.to_string())),
        if others.is_empty() { "-".to_owned() } else { others },
        if found.missing.is_empty() { "-".to_owned() } else { found.missing.join(", ") },
        loss,
    ]
}

/// How many shards are how.
struct Counts {
    complete: usize,
    in_doubt: usize,
    lost: usize,
}

impl Counts {
    fn of(survey: &Survey) -> Counts {
        let lost = survey.without_copy().count();
        let complete = survey.shards.iter().filter(|found| found.loss == Loss::Nothing).count();
        Counts { complete, in_doubt: survey.shards.len() - complete - lost, lost }
    }
}

fn directory_json(survey: &Survey, directory: &Directory) -> serde_json::Value {
    json!({
        "directory": directory.path,
        "node": directory.node.0,
        "name": directory.name,
        "address": directory.address,
        "cluster": name_of(survey.cluster),
        "epoch": directory.epoch.0,
        "damage": directory.damage,
    })
}

fn shard_json(survey: &Survey, found: &ShardFound) -> serde_json::Value {
    let name = |directory: usize| &survey.directories[directory].name;
    let copy = |copy: &Copy| {
        let (directory, name) = (&survey.directories[copy.directory].path, name(copy.directory));
        match &copy.found {
            Found::Whole { survivor, keys } => json!({
                "directory": directory, "name": name, "term": survivor.term.0, "last": survivor.last.0,
                "committed": survivor.commit.0, "keys": keys, "damage": null,
            }),
            Found::Damaged { reason, commit } => json!({
                "directory": directory, "name": name, "committed": commit.0, "damage": reason,
            }),
        }
    };
    let (lost, after, committed) = match found.loss {
        Loss::Nothing => ("nothing", None, None),
        Loss::After { last, committed } => ("after", Some(last.0), committed.map(|index| index.0)),
        Loss::Everything => ("everything", None, None),
    };
    json!({
        "shard": found.shard.0,
        "best": found.best_copy().map(|(directory, ..)| name(directory)),
        "copies": found.copies.iter().map(copy).collect::<Vec<_>>(),
        "lost": lost,
        "after": after,
        "committed": committed,
        "not_here": found.missing,
    })
}

fn summary_json(survey: &Survey) -> serde_json::Value {
    let Counts { complete, in_doubt, lost } = Counts::of(survey);
    json!({
        "cluster": name_of(survey.cluster),
        "shards": survey.shards.len(),
        "complete": complete,
        "in_doubt": in_doubt,
        "lost": lost,
    })
}
