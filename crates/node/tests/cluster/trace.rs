//! What nodes do, as lines for people to read.
//!
//! Left out are heartbeats, greetings and reports, and whatever is about the meta group (shard 0), which does as any
//! shard does. Entries are written as `index@term`.

use std::collections::BTreeMap;

use ringfort_consensus::inspect::{Seen, SeenKind, inspect};
use ringfort_node::{ApplyJob, Effect, ReadJob};
use ringfort_types::{
    Answer, Change, Command, Consistency, Entry, LogEntry, NodeId, Outcome, Part, PeerId, PeerMessage,
    RaftMessage, ReadIndexReply, Record, Reply, Request, ShardId, Stamped,
};

use crate::world::World;

/// Lines, each with the time in milliseconds, and what clients have asked.
#[derive(Default)]
pub(crate) struct Trace {
    pub(crate) lines: Vec<(u64, String)>,
    asked: BTreeMap<u64, String>,
}

impl World {
    pub(crate) fn tell(&mut self, line: String) {
        let now_ms = self.now.monotonic_us / 1_000;
        if let Some(trace) = self.trace.as_mut() {
            trace.lines.push((now_ms, line));
        }
    }

    pub(crate) fn tell_asked(&mut self, n: usize, id: u64, request: &Request) {
        let shown = request_shown(request);
        if let Some(trace) = self.trace.as_mut() {
            trace.asked.insert(id, format!("node{} answers {shown}", n + 1));
        }
    }

    pub(crate) fn tell_answer(&mut self, id: u64, reply: &Reply) {
        if let Some(asked) = self.trace.as_mut().and_then(|trace| trace.asked.remove(&id)) {
            self.tell(format!("{asked}: {}", reply_shown(reply)));
        }
    }

    /// Tells of an effect that is about to be carried out. Answers and reads are told where they are made.
    pub(crate) fn tell_effect(&mut self, n: usize, effect: &Effect) {
        if self.trace.is_none() {
            return;
        }
        let me = n + 1;
        match effect {
            Effect::Persist { number, records } => {
                let lines: Vec<String> =
                    records.iter().filter_map(|record| self.record_shown(n, record)).collect();
                if !lines.is_empty() {
                    let verb = if self.stuck.contains(&n) { "writes" } else { "writes and syncs" };
                    self.tell(format!("node{me} {verb} batch {number}:"));
                    for line in lines {
                        self.tell(format!("  {line}"));
                    }
                }
            }
            Effect::Send { to, messages } => self.tell_messages(n, *to, messages),
            Effect::Apply(jobs) => {
                for ApplyJob { shard, entry, .. } in jobs.iter().filter(|job| job.shard != ShardId::META) {
                    self.tell(format!("node{me} applies {} of shard {shard}", entry_shown(entry)));
                }
            }
            Effect::Notice(line) => self.tell(format!("node{me} notes: {line}")),
            Effect::Refuse { link, with: PeerMessage::LogRecall(recall) } => {
                self.tell(format!("node{me} → node{}: your log had batch {} once", link + 1, recall.synced));
            }
            Effect::Refused(reason) => self.tell(format!("node{me} ends: {reason}")),
            _ => {}
        }
    }

    pub(crate) fn tell_messages(&mut self, n: usize, to: NodeId, messages: &[PeerMessage]) {
        let lost = if self.is_cut(n, to.0 as usize - 1) { ", lost" } else { "" };
        for message in messages {
            if let Some(says) = message_shown(message) {
                self.tell(format!("node{} → node{to}: {says}{lost}", n + 1));
            }
        }
    }

    pub(crate) fn tell_read(&mut self, n: usize, job: &ReadJob) {
        self.tell(format!("node{} reads shard {} at entry {}", n + 1, job.shard, job.at));
    }

    fn record_shown(&self, n: usize, record: &Record) -> Option<String> {
        match record {
            Record::Entry(ShardId::META, _) | Record::HardState(ShardId::META, _) | Record::Installed(..) => {
                None
            }
            Record::Entry(shard, entry) => Some(format!("shard {shard}: entry {}", entry_shown(entry))),
            Record::Base(..) => unreachable!("nothing is let go of in these worlds"),
            Record::Lost(shard, index) => Some(format!("shard {shard}: has lost what it had up to {index}")),
            Record::Gone(shard, peer) => Some(format!("shard {shard}: peer {peer} is no more")),
            Record::Replica(shard, peer) => {
                Some(format!("shard {shard}: from now on peer {peer}, with nothing"))
            }
            Record::HardState(shard, state) => {
                let vote = self.voted_for(n, *shard, state.vote);
                Some(format!("shard {shard}: term {}, {vote}, commit {}", state.term, state.commit))
            }
        }
    }

    fn voted_for(&self, n: usize, shard: ShardId, peer: PeerId) -> String {
        let layout = self.nodes[n].as_ref().and_then(|node| node.layout()?.shard(shard));
        let place = layout.and_then(|layout| layout.replicas.iter().find(|place| place.peer == peer));
        place.map_or("no vote".to_owned(), |place| format!("vote for node{}", place.node))
    }
}

fn message_shown(message: &PeerMessage) -> Option<String> {
    match message {
        PeerMessage::Raft(RaftMessage { shard: ShardId::META, .. })
        | PeerMessage::Hello(_)
        | PeerMessage::Report(_)
        | PeerMessage::ReportChanges(_)
        | PeerMessage::ReportReply(_)
        | PeerMessage::SnapshotChunk(_)
        | PeerMessage::SnapshotReply(_)
        | PeerMessage::LayoutWanted(_)
        | PeerMessage::LayoutSent(_)
        | PeerMessage::GroupWanted(_)
        | PeerMessage::GroupTold(_)
        | PeerMessage::LogRecall(_)
        | PeerMessage::Unknown(_)
        | PeerMessage::Refused { .. } => None,
        PeerMessage::Raft(RaftMessage { shard, message }) => match inspect(message) {
            Ok(Seen { kind: SeenKind::Heartbeat | SeenKind::HeartbeatReply, .. }) => None,
            Ok(Seen { kind: SeenKind::Append, term, index, log_term, commit, entries, .. }) => {
                let entries = if entries == 1 { "1 entry".to_owned() } else { format!("{entries} entries") };
                let after = format!("after {index}@{log_term}");
                Some(format!("shard {shard}: append in term {term}: {entries} {after}, commit {commit}"))
            }
            Ok(seen) => Some(format!("shard {shard}: {seen}")),
            Err(error) => Some(format!("shard {shard}: {error}")),
        },
        PeerMessage::Forward(forward) => Some(format!("please {}", request_shown(&forward.call.request))),
        PeerMessage::Answer(Answer { reply, .. }) => Some(format!("answer: {}", reply_shown(reply))),
        PeerMessage::ReadProbe(probe) => {
            let terms: Vec<String> =
                probe.shards.iter().map(|(shard, _, term)| format!("shard {shard} in term {term}")).collect();
            Some(format!("do you still follow me? {}", terms.join(", ")))
        }
        PeerMessage::ReadIndex(question) => {
            Some(format!("shard {}: at which index may I read?", question.shard))
        }
        PeerMessage::ReadIndexReply(ReadIndexReply { shard, told, .. }) => Some(match told {
            Some((term, index)) => format!("shard {shard}: at {index}, in term {term}"),
            None => format!("shard {shard}: I do not lead it"),
        }),
        PeerMessage::ReadProbeReply(reply) if reply.refused.is_empty() => Some("I do".to_owned()),
        PeerMessage::ReadProbeReply(reply) => {
            let refused: Vec<String> = reply.refused.iter().map(|shard| format!("shard {shard}")).collect();
            Some(format!("not in {}", refused.join(", ")))
        }
    }
}

fn request_shown(request: &Request) -> String {
    let text = String::from_utf8_lossy;
    match request {
        Request::Write { parts } => parts_shown(parts),
        Request::Get { key, consistency: Consistency::Linearizable } => format!("get {}", text(key)),
        Request::Get { key, consistency: Consistency::Lease } => format!("leased get {}", text(key)),
        Request::Get { key, consistency: Consistency::Stale } => format!("stale get {}", text(key)),
        other => format!("{other:?}"),
    }
}

fn reply_shown(reply: &Reply) -> String {
    match reply {
        Reply::Written(receipt) => {
            let (place, copies) = (format!("{}@{}", receipt.index, receipt.term), receipt.copies);
            format!("stored as {place} of shard {}, synced on {copies}", receipt.shard)
        }
        Reply::Value { row: Some(row), .. } => String::from_utf8_lossy(&row.value).into_owned(),
        Reply::Value { row: None, .. } => "no such key".to_owned(),
        Reply::Failed(failure) => match failure.outcome {
            Outcome::Unknown => format!("UNKNOWN: {}", failure.message),
            Outcome::Rejected => format!("REJECTED: {}", failure.message),
        },
        other => format!("{other:?}"),
    }
}

pub(crate) fn entry_shown(entry: &LogEntry) -> String {
    let place = format!("{}@{}", entry.index, entry.term);
    if entry.payload.is_empty() {
        return format!("{place} (empty)");
    }
    let commands = Entry::decode(entry.payload.clone()).expect("our own encoding").commands;
    let shown = |stamped: &Stamped| match &stamped.command {
        Command::Write { parts } => parts_shown(parts),
        Command::Digest => "digest".to_owned(),
        Command::Layout(change) => format!("{change:?}"),
    };
    format!("{place} ({})", commands.iter().map(shown).collect::<Vec<_>>().join(", "))
}

fn parts_shown(parts: &[Part]) -> String {
    let text = String::from_utf8_lossy;
    let shown = |part: &Part| match &part.change {
        Change::Put(new) => format!("put {}={}", text(&part.key), text(&new.value)),
        Change::Delete { .. } => format!("delete {}", text(&part.key)),
        other => format!("{other:?} {}", text(&part.key)),
    };
    parts.iter().map(shown).collect::<Vec<_>>().join(", ")
}
