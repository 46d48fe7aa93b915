//! What a message says, for whoever looks on: traces, and those who judge whether what is said may be said.
//!
//! A message is opaque to those who carry it. This is the one window into it, and it looks only.

use std::fmt;

use bytes::Bytes;
use raft::eraftpb::MessageType;
use ringfort_types::wire::Malformed;
use ringfort_types::{Index, PeerId, Term};

use crate::codec;

/// The kinds of message that replicas exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SeenKind {
    /// Would you vote for me? (Raft thesis, 9.6)
    PreVote,
    /// An answer to that.
    PreVoteReply,
    /// Vote for me.
    Vote,
    /// An answer to that.
    VoteReply,
    /// Entries, and the one before them.
    Append,
    /// An answer to that.
    AppendReply,
    /// Go on from a snapshot.
    Snapshot,
    /// The leader lives.
    Heartbeat,
    /// An answer to that.
    HeartbeatReply,
    /// Stand for election at once (Raft thesis, 3.10).
    TimeoutNow,
    /// Anything else.
    Other,
}

/// A message as an onlooker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What kind of message.
    pub kind: SeenKind,
    /// Who says it.
    pub from: PeerId,
    /// To whom.
    pub to: PeerId,
    /// The sender's term; the one that it would stand in, in a pre-vote.
    pub term: Term,
    /// The entry before those that are sent, the last one that is acknowledged, or a snapshot's.
    pub index: Index,
    /// That entry's term.
    pub log_term: Term,
    /// The sender's commit index, as far as it concerns the receiver.
    pub commit: Index,
    /// How many entries come along.
    pub entries: u32,
    /// It is a refusal.
    pub reject: bool,
}

/// Looks at a message.
pub fn inspect(message: &Bytes) -> Result<Seen, Malformed> {
    let message = codec::decode(message.clone())?;
    Ok(Seen {
        kind: match message.get_msg_type() {
            MessageType::MsgRequestPreVote => SeenKind::PreVote,
            MessageType::MsgRequestPreVoteResponse => SeenKind::PreVoteReply,
            MessageType::MsgRequestVote => SeenKind::Vote,
            MessageType::MsgRequestVoteResponse => SeenKind::VoteReply,
            MessageType::MsgAppend => SeenKind::Append,
            MessageType::MsgAppendResponse => SeenKind::AppendReply,
            MessageType::MsgSnapshot => SeenKind::Snapshot,
            MessageType::MsgHeartbeat => SeenKind::Heartbeat,
            MessageType::MsgHeartbeatResponse => SeenKind::HeartbeatReply,
            MessageType::MsgTimeoutNow => SeenKind::TimeoutNow,
            _ => SeenKind::Other,
        },
        from: PeerId(message.from),
        to: PeerId(message.to),
        term: Term(message.term),
        index: Index(message.index),
        log_term: Term(message.log_term),
        commit: Index(message.commit),
        entries: message.entries.len() as u32,
        reject: message.reject,
    })
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Seen { term, index, log_term, commit, entries, .. } = self;
        let verdict = if self.reject { "refused" } else { "granted" };
        match self.kind {
            SeenKind::PreVote => {
                write!(f, "pre-vote for term {term}, log ends at {index} of term {log_term}")
            }
            SeenKind::PreVoteReply => write!(f, "pre-vote for term {term} {verdict}"),
            SeenKind::Vote => write!(f, "vote for term {term}, log ends at {index} of term {log_term}"),
            SeenKind::VoteReply => write!(f, "vote for term {term} {verdict}"),
            SeenKind::Append => {
                write!(f, "append in term {term} {entries} after {index} of term {log_term}, commit {commit}")
            }
            SeenKind::AppendReply if self.reject => write!(f, "append in term {term} refused after {index}"),
            SeenKind::AppendReply => write!(f, "append in term {term} taken up to {index}"),
            SeenKind::Snapshot => {
                write!(f, "go on in term {term} from the snapshot at {index} of term {log_term}")
            }
            SeenKind::Heartbeat => write!(f, "heartbeat of term {term}, commit {commit}"),
            SeenKind::HeartbeatReply => write!(f, "heartbeat of term {term} heard"),
            SeenKind::TimeoutNow => write!(f, "stand for election after term {term}"),
            SeenKind::Other => write!(f, "something of term {term}"),
        }
    }
}
