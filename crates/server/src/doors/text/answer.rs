//! What is said to a command.
//!
//! | command | answer |
//! |---|---|
//! | `SET` | `OK` |
//! | `GET` | the message, or `OK` and the message, as the operator wants it; `NOT_FOUND` |
//! | `DEL` | `OK`; `NOT_FOUND` |
//! | `STATS`, `NODES` | one line of `name=value` words, and of nodes |
//! | anything that failed | `ERROR rejected: …` if surely nothing happened, `ERROR unknown: …` if it may have, `ERROR stored …` if a message is kept by fewer than were wanted |

use std::fmt::Write;

use bytes::{BufMut, BytesMut};
use ringfort_types::{ClusterState, Code, Failure, Outcome, Presence, Receipt, Reply};

use super::line::{one_line, shown};
use crate::doors::tolerance::Wanted;
use crate::gate::Answer;

/// What answers a `GET`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GetReply {
    /// The message.
    #[default]
    Bare,
    /// `OK`, a space, and the message.
    Ok,
}

/// What is said where rights are enforced and no user asks.
const NOBODY: &str = "it is not known who asks, or they have been removed, and this node answers users only: say AUTH <name> <password> first";

/// What a command wants to be told.
#[derive(Debug)]
pub(super) enum Expected {
    Set(Wanted),
    Get,
    Del,
    Stats,
    Nodes,
    /// This.
    Said(&'static str),
    /// Why it failed.
    Failed,
}

impl Expected {
    /// Appends the line of answer.
    pub(super) fn answer(self, answer: Answer, get_reply: GetReply, out: &mut BytesMut) {
        let reply = answer.reply;
        match (self, reply) {
            (Expected::Said(text), _) => out.put_slice(text.as_bytes()),
            (Expected::Failed, Reply::Failed(failure)) => failed(&failure, out),
            (_, Reply::Failed(failure)) if failure.code == Code::Unauthenticated => {
                error("rejected", NOBODY, out);
            }
            (_, Reply::Failed(failure)) => failed(&failure, out),
            (Expected::Set(wanted), Reply::Written(receipt)) => stored(wanted, &receipt, out),
            (Expected::Del, Reply::Written(_)) => out.put_slice(b"OK"),
            (Expected::Del, Reply::NotMet { .. }) | (Expected::Get, Reply::Value { row: None, .. }) => {
                out.put_slice(b"NOT_FOUND");
            }
            (Expected::Get, Reply::Value { row: Some(row), .. }) => match shown(&row.value) {
                Ok(value) => {
                    if get_reply == GetReply::Ok {
                        out.put_slice(b"OK ");
                    }
                    out.put_slice(value);
                }
                Err(why) => error("rejected", &why, out),
            },
            (Expected::Stats, Reply::Cluster(state)) => stats(&state, out),
            (Expected::Nodes, Reply::Cluster(state)) => nodes(&state, out),
            (asked, _) => {
                error("unknown", &format!("the node's answer is of another kind than {asked:?}"), out);
            }
        }
        out.put_u8(b'\n');
    }
}

fn error(fate: &str, why: &str, out: &mut BytesMut) {
    let _never_fails = write!(out, "ERROR {fate}: {}", one_line(why));
}

fn failed(failure: &Failure, out: &mut BytesMut) {
    let fate = match failure.outcome {
        Outcome::Rejected => "rejected",
        Outcome::Unknown => "unknown",
    };
    error(fate, &failure.message, out);
}

fn stored(wanted: Wanted, receipt: &Receipt, out: &mut BytesMut) {
    match wanted.judge(receipt) {
        Ok(()) => out.put_slice(b"OK"),
        Err(told) => {
            let _never_fails = write!(out, "ERROR {told}");
        }
    }
}

fn stats(state: &ClusterState, out: &mut BytesMut) {
    // The meta group holds no keys.
    let shards = state.shards.iter().filter(|shard| !shard.slots.is_empty());
    let (mut count, mut led, mut keys, mut bytes) = (0, 0, 0, 0);
    for shard in shards {
        count += 1;
        led += usize::from(shard.leader.is_some());
        let most = |of: fn(&ringfort_types::ReplicaReport) -> u64| {
            shard.replicas.iter().map(|(_, report)| of(report)).max().unwrap_or(0)
        };
        keys += most(|report| report.keys_estimate);
        bytes += most(|report| report.bytes_estimate);
    }
    let up = state.nodes.iter().filter(|node| node.presence == Presence::Up).count();
    let nodes = state.nodes.len();
    let _never_fails =
        write!(out, "keys=~{keys} bytes=~{bytes} shards={count} led={led} nodes={nodes} up={up}");
}

fn nodes(state: &ClusterState, out: &mut BytesMut) {
    for (at, node) in state.nodes.iter().enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let is = node.presence.name();
        let holds_keys = |shard: &&ringfort_types::ShardState| !shard.slots.is_empty();
        let led = state.shards.iter().filter(holds_keys).filter(|shard| shard.leader == Some(node.id));
        let leads = led.count();
        let _never_fails =
            write!(out, "{separator}{} {} {is} leads={leads}", one_line(&node.name), node.address);
    }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Index, Revision, Row};

    use super::*;

    fn line(asked: Expected, reply: Reply) -> String {
        let mut out = BytesMut::new();
        asked.answer(Answer::from(reply), GetReply::Ok, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn every_answer_is_one_line_that_tells_the_fate() {
        let value = |value: &'static [u8]| Reply::Value {
            row: Some(Row { value: value.into(), revision: Revision(1) }),
            at: Index(1),
            revision: Revision(1),
        };
        assert_eq!(line(Expected::Get, value(b"a b")), "OK a b\n");
        assert!(line(Expected::Get, value(b"a\nb")).starts_with("ERROR rejected: the value has line breaks"));
        let late = Failure::unknown(Code::DeadlineExceeded, "late\r\nand odd");
        assert_eq!(line(Expected::Del, Reply::Failed(late)), "ERROR unknown: late  and odd\n");
        let nobody = Failure::rejected(Code::Unauthenticated, "name a user");
        assert!(
            line(Expected::Get, Reply::Failed(nobody.clone())).contains("say AUTH <name> <password> first\n")
        );
        assert_eq!(line(Expected::Failed, Reply::Failed(nobody)), "ERROR rejected: name a user\n");
        let refused = Failure::rejected(Code::Unavailable, "no quorum");
        assert_eq!(line(Expected::Failed, Reply::Failed(refused)), "ERROR rejected: no quorum\n");
        assert_eq!(
            line(Expected::Said("Bye"), Reply::Failed(Failure::rejected(Code::InvalidArgument, ""))),
            "Bye\n"
        );
        assert!(line(Expected::Get, Reply::Written(Receipt::default())).starts_with("ERROR unknown"));
    }
}
