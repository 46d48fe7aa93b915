//! The shell: lines in, answers out. What `ringfort shell` and `ringfort dev` share.
//!
//! Answers follow the small key-value shells that people know: `Stored and replicated`, `k = v`, `(not found)`. On a
//! terminal there is a prompt, line editing, a history and completion (`input`); from a pipe nothing but answers is
//! printed, and the exit code is that of the worst failure: 3 if something was not available or its outcome is
//! unknown, else 2 if a line made no sense, else 0. `(not found)` is an answer, not a failure.

mod input;
mod order;

use bytes::Bytes;
use ringfort_client::{Client, List};
use tokio_stream::StreamExt;

use crate::command::dev::Nodes;
use crate::command::status;
use crate::out::Out;
use crate::signals::{Asked, Signals};
use crate::stop::{Stop, code_of};
use input::{Input, Line};
use order::Order;

const COMMANDS: &str = "Commands: put/get/list/exit, also delete/status/help";
const COMMANDS_DEV: &str = "Commands: put/get/list/exit, also delete/status/help and kill/start";
const HELP: &str = "\
put <key> <value>         set a key; the value is the rest of the line
get <key>                 print a key and its value
delete <key>              remove a key
list [<prefix>] [<n>]     print rows in key order, at most n
status                    nodes, who leads what, lag, keys, bytes
help                      this
exit                      leave (so do quit and Ctrl+D)";
const HELP_DEV: &str = "\
kill <node>               end a node's process at once, as kill -9 does
start <node>              start it again";

/// Reads and answers lines until there are no more. `nodes` are those that this process has started.
pub(crate) async fn talk(client: &Client, mut nodes: Option<&mut Nodes>) -> Result<(), Stop> {
    let mut signals = Signals::new()?;
    let mut input = Input::open(nodes.is_some())?;
    let interactive = input.interactive();
    let mut out = Out::new();
    let mut worst = 0;
    loop {
        let line = tokio::select! {
            line = input.next() => line?,
            asked = signals.next() => return Err(asked.stop()),
        };
        let line = match line {
            Line::End => break,
            Line::Abandoned => continue,
            Line::Text(line) => line,
        };
        if let Some(nodes) = &mut nodes {
            for notice in nodes.look() {
                out.line(notice)?;
            }
        }
        let order = order::parse(&line);
        if matches!(order, Order::Exit) {
            break;
        }
        let code = tokio::select! {
            code = obey(client, nodes.as_deref_mut(), order, &mut out) => code?,
            asked = signals.next() => {
                if !interactive || asked == Asked::End {
                    return Err(asked.stop());
                }
                out.line("(interrupted)")?;
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
    nodes: Option<&mut Nodes>,
    order: Order<'_>,
    out: &mut Out,
) -> Result<u8, Stop> {
    let own = |bytes: &[u8]| Bytes::copy_from_slice(bytes);
    let done = match order {
        Order::Nothing | Order::Exit => Ok(()),
        Order::Put { key, value } => match client.put(own(key), own(value)).await {
            Ok(_) => return out.line("Stored and replicated").map(|()| 0),
            Err(failure) => Err(failure),
        },
        Order::Get { key } => match client.get(own(key)).await {
            Ok(Some(row)) => return pair(out, key, &row.value).and_then(|()| out.flush()).map(|()| 0),
            Ok(None) => return out.line("(not found)").map(|()| 0),
            Err(failure) => Err(failure),
        },
        Order::Delete { key } => match client.delete(own(key)).await {
            Ok(_) => return out.line("Deleted").map(|()| 0),
            Err(failure) => Err(failure),
        },
        Order::List { prefix, limit } => {
            let wanted = List { prefix: own(prefix), limit, ..List::default() };
            list(client, wanted, out).await?
        }
        Order::Status => match client.cluster_state().await {
            Ok(state) => return out.line(status::render(&state).trim_end()).map(|()| 0),
            Err(failure) => Err(failure),
        },
        Order::Help => {
            out.line(HELP)?;
            if nodes.is_some() {
                out.line(HELP_DEV)?;
            }
            return Ok(0);
        }
        Order::Kill { node } | Order::Start { node } => {
            let Some(nodes) = nodes else { return out.line(COMMANDS).map(|()| 2) };
            let told =
                if matches!(order, Order::Kill { .. }) { nodes.kill(node) } else { nodes.start_again(node) };
            return match told {
                Ok(answer) => out.line(answer).map(|()| 0),
                Err(stop) => out.line(format!("error: {}", stop.message)).map(|()| stop.code),
            };
        }
        Order::Usage(usage) => return out.line(usage).map(|()| 2),
        Order::Unknown => {
            return out.line(if nodes.is_some() { COMMANDS_DEV } else { COMMANDS }).map(|()| 2);
        }
    };
    match done {
        Ok(()) => Ok(0),
        Err(failure) => out.line(format!("error: {failure}")).map(|()| code_of(&failure)),
    }
}

async fn list(
    client: &Client,
    wanted: List,
    out: &mut Out,
) -> Result<Result<(), ringfort_types::Failure>, Stop> {
    let mut rows = match client.list(wanted).await {
        Ok(rows) => rows,
        Err(failure) => return Ok(Err(failure)),
    };
    while let Some(row) = rows.next().await {
        match row {
            Ok((key, value)) => pair(out, &key, &value)?,
            Err(failure) => return Ok(Err(failure)),
        }
    }
    out.flush().map(Ok)
}

fn pair(out: &mut Out, key: &[u8], value: &[u8]) -> Result<(), Stop> {
    out.write(key)?;
    out.write(b" = ")?;
    out.write(value)?;
    out.write(b"\n")
}
