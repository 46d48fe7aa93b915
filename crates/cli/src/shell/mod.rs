//! The shell: lines in, answers out. What `ringfort shell` and `ringfort dev` share.
//!
//! Answers follow the small key-value shells that people know: `Stored and replicated`, `k = v`, `(not found)`. On a
//! terminal there is a prompt, line editing, a history and completion (`input`); from a pipe nothing but answers is
//! printed, and the exit code is that of the worst failure: 3 if something was not available or its outcome is
//! unknown, or a write has fewer copies than asked for, else 2 if a line made no sense, else 0. `(not found)` is an answer, not a failure. How answers look, for
//! people and as JSON, is in `answer`; what a line means, in `order`, and how its words are quoted, in `words`.

mod answer;
mod input;
mod order;
mod words;

use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use clap::ValueEnum;
use ringfort_client::{Client, List};
use ringfort_types::{Consistency, Failure, Receipt};
use tokio_stream::StreamExt;

use crate::administration::{self, Action, Answer, Flags, carry_out};
use crate::cluster;
use crate::nodes::Nodes;
use crate::plan::Joining;
use crate::safety::safety;
use crate::signals::{Signals, StopSignal};
use crate::stop::{Stop, code_by_what_is_there, code_of};
use crate::transfer::transfer;
use crate::whereabouts::Whereabouts;
use crate::writing::Writing;
use answer::Answers;
use input::{Input, Line, PROMPT};
use order::Order;
pub(crate) use words::Quotes;

const COMMANDS: &str =
    "Commands: put/get/list/exit, also delete/incr/status/where/safe-to-stop/transfer/cluster/help";
const COMMANDS_DEV: &str = "Commands: put/get/list/exit, also delete/incr/status/where/safe-to-stop/transfer/cluster/help and \
                            kill/start/node";
const HELP: &str = "\
put <key> <value>         set a key; the value is the rest of the line
get <key>                 print a key and its value
delete <key>              remove a key
incr <key> [<n>]          add to a number, and print the sum; without n, 1
list [<prefix>] [<n>]     print rows in key order, at most n; without a prefix: list \"\" <n>
status                    nodes, who leads what, lag, keys, bytes
where <key>               a key's slot, its shard, the replicas, and who leads
safe-to-stop <node>       whether every shard goes on without a node
transfer <shard> <node>   have a node lead a shard
cluster ...               nodes, shards, set, transfer, remove, drain, undrain or plan, as after `ringfort cluster`
help                      this
exit                      leave (so do quit and Ctrl+D)";
const HELP_QUOTES: &str = "\
What has spaces, or begins with a quote, goes in quotes: \"...\" with \\n \\r \\t \\\\ \\\" \\xHH, or '...' as it is.";
const HELP_DEV: &str = "\
kill <node>               end a node's process at once, as kill -9 does (`node kill` too)
start <node>              start it again (`node start` too)
node add [<name>]         start one more node, which joins";

/// How long `safe-to-stop` looks at the cluster.
const TIMEOUT: Duration = Duration::from_secs(3);

const NOT_UTF8: &str = "that is not UTF-8: the line is forgotten; in quotes, \\xHH stands for any byte";

/// Reads and answers lines until there are no more. `nodes` are those that this process has started.
pub(crate) async fn talk(
    client: &Client,
    consistency: Consistency,
    writing: Writing,
    mut nodes: Option<&mut Nodes>,
    quotes: Quotes,
    json: bool,
) -> Result<(), Stop> {
    let mut signals = Signals::new()?;
    let mut input = Input::open(nodes.is_some())?;
    let interactive = input.interactive();
    let mut answers = Answers::new(json);
    let mut worst = 0;
    loop {
        let line = tokio::select! {
            line = input.next() => line?,
            asked = signals.next() => {
                if let Some(nodes) = &nodes {
                    nodes.say_stopping();
                }
                return Err(asked.stop());
            }
        };
        let line = match line {
            Line::End => break,
            Line::Abandoned => continue,
            Line::NotUtf8 => {
                answers.stopped(&Stop::usage(NOT_UTF8.to_owned()))?;
                continue;
            }
            Line::Text(line) => line,
            Line::Pasted(line) => {
                answers.said(&format!("{PROMPT}{line}"))?;
                line.into_bytes()
            }
        };
        if let Some(nodes) = &mut nodes {
            for notice in nodes.look() {
                answers.said(&notice)?;
            }
        }
        let order = order::parse(&line, quotes);
        if matches!(order, Order::Exit) {
            break;
        }
        let code = tokio::select! {
            code = obey(client, consistency, writing, nodes.as_deref_mut(), order, quotes, &mut answers) => code?,
            asked = signals.next() => {
                if !interactive || asked == StopSignal::End {
                    if let Some(nodes) = &nodes {
                        nodes.say_stopping();
                    }
                    return Err(asked.stop());
                }
                answers.said("(interrupted)")?;
                3
            }
        };
        worst = worst.max(code);
    }
    if interactive || worst == 0 { Ok(()) } else { Err(Stop::silent(worst)) }
}

/// Carries one order out and prints its answer; returns the exit code that it is worth.
async fn obey(
    client: &Client,
    consistency: Consistency,
    writing: Writing,
    nodes: Option<&mut Nodes>,
    order: Order<'_>,
    quotes: Quotes,
    answers: &mut Answers,
) -> Result<u8, Stop> {
    let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let done = match order {
        Order::Nothing | Order::Exit => Ok(()),
        Order::Put { key, value } => match client.put(own(&key), own(&value)).await {
            Ok(receipt) => {
                answers.stored(&key, &receipt)?;
                return Ok(judge(writing, &receipt));
            }
            Err(failure) => Err(failure),
        },
        Order::Get { key } => match client.get_with(own(&key), consistency).await {
            Ok(read) => answers.read(&key, &read).map(Ok)?,
            Err(failure) => Err(failure),
        },
        Order::Delete { key } => match client.delete(own(&key)).await {
            Ok(receipt) => {
                answers.deleted(&key, &receipt)?;
                return Ok(judge(writing, &receipt));
            }
            Err(failure) => Err(failure),
        },
        Order::Incr { key, by } => match client.increment(own(&key), by).await {
            Ok(counted) => {
                answers.counted(&key, &counted)?;
                return Ok(judge(writing, &counted.receipt));
            }
            Err(failure) => return answers.failed(&failure, code_by_what_is_there(&failure)),
        },
        Order::List { prefix, limit } => {
            let wanted = List { prefix: own(&prefix), limit, ..List::default() };
            list(client, wanted, answers).await?
        }
        Order::Status => match client.cluster_state().await {
            Ok(state) => {
                answers.status(&state)?;
                return match cluster::judge(&state) {
                    Ok(()) => Ok(0),
                    Err(stop) => answers.stopped(&stop),
                };
            }
            Err(failure) => Err(failure),
        },
        Order::Where { key } => match client.cluster_state().await {
            Ok(state) => {
                return match Whereabouts::of(&state, &key) {
                    Ok(found) => answers.either(|| found.text(), || found.json()).map(|()| 0),
                    Err(stop) => answers.stopped(&stop),
                };
            }
            Err(failure) => Err(failure),
        },
        Order::SafeToStop { node } => {
            return match safety(client, &node, TIMEOUT).await {
                Ok(found) => answers.either(|| found.text(), || found.json()).map(|()| 0),
                Err(stop) => answers.stopped(&stop),
            };
        }
        Order::Transfer { shard, node } => {
            return match transfer(client, &shard, &node).await {
                Ok(done) => answers.either(|| done.text(), || done.json()).map(|()| 0),
                Err(stop) => answers.stopped(&stop),
            };
        }
        Order::Cluster { words } => {
            return match administer(client, &words).await {
                Ok(answer) => answers.lines(answer).map(|()| 0),
                Err(stop) => answers.stopped(&stop),
            };
        }
        Order::Help => {
            answers.said(HELP)?;
            if quotes == Quotes::Around {
                answers.said(HELP_QUOTES)?;
            }
            if nodes.is_some() {
                answers.said(HELP_DEV)?;
            }
            Ok(())
        }
        Order::AddNode { name } => {
            return of_nodes(nodes, "node", answers, |nodes| nodes.add(name.as_deref()));
        }
        Order::Kill { node } => return of_nodes(nodes, "kill", answers, |nodes| nodes.kill(&node)),
        Order::Start { node } => return of_nodes(nodes, "start", answers, |nodes| nodes.start_again(&node)),
        Order::Usage(usage) => return answers.wrong(usage),
        Order::Unknown { verb, next } => {
            let commands = if nodes.is_some() { COMMANDS_DEV } else { COMMANDS };
            let hint = order::hint(&verb, &next, nodes.is_some());
            return answers.wrong(hint.as_deref().unwrap_or(commands));
        }
    };
    match done {
        Ok(()) => Ok(0),
        Err(failure) => answers.failed(&failure, code_of(&failure)),
    }
}

/// Does what `ringfort cluster` would, given these words after it.
async fn administer(client: &Client, words: &[String]) -> Result<Answer, Stop> {
    let mut flags = Flags { force: false, wait: true, joining: Joining::default() };
    let mut plain = Vec::new();
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let no_value =
            || Stop::usage(format!("{word} has no value: as in `cluster plan join 1 --weight 2 --zone b`"));
        match word {
            "--force" => flags.force = true,
            "--no-wait" => flags.wait = false,
            "--weight" => {
                let weight = words.next().and_then(|word| word.parse().ok()).ok_or_else(no_value)?;
                flags.joining.weight = Some(weight);
            }
            "--zone" => flags.joining.zone = Some(words.next().ok_or_else(no_value)?),
            word => plain.push(word),
        }
    }
    let (what, words) = plain.split_first().unwrap_or((&"", &[]));
    let what = Action::from_str(what, true).map_err(|_| {
        let all: Vec<String> = Action::value_variants().iter().map(|what| what.word()).collect();
        Stop::usage(format!("there is no `cluster {what}`: there are {}", all.join(", ")))
    })?;
    let order = administration::Order::read(what, words, flags)?;
    carry_out(client, &order).await
}

/// Carries out what only a shell with nodes of its own can, and prints what came of it.
fn of_nodes(
    nodes: Option<&mut Nodes>,
    verb: &str,
    answers: &mut Answers,
    order: impl FnOnce(&mut Nodes) -> Result<String, Stop>,
) -> Result<u8, Stop> {
    match nodes.map(order) {
        None => answers.wrong(&order::hint(verb, "", false).unwrap_or_default()),
        Some(Ok(answer)) => answers.said(&answer).map(|()| 0),
        Some(Err(stop)) => answers.stopped(&stop),
    }
}

/// Says on stderr, beside its answer, if a write that was done has fewer copies than asked for; its exit code.
fn judge(writing: Writing, receipt: &Receipt) -> u8 {
    match writing.judge(receipt) {
        Ok(()) => 0,
        Err(stop) => {
            let _ = writeln!(std::io::stderr(), "ringfort: {}", stop.message);
            stop.code
        }
    }
}

async fn list(client: &Client, wanted: List, answers: &mut Answers) -> Result<Result<(), Failure>, Stop> {
    let mut rows = match client.list(wanted).await {
        Ok(rows) => rows,
        Err(failure) => return Ok(Err(failure)),
    };
    let mut count = 0;
    while let Some(row) = rows.next().await {
        match row {
            Ok((key, row)) => answers.row(&key, &row)?,
            Err(failure) => return Ok(Err(failure)),
        }
        count += 1;
    }
    answers.end_of_rows(count).map(Ok)
}
