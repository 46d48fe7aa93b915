//! Raft's messages as bytes, in a format of our own.
//!
//! Not the `raft` crate's protobuf: its version-2 parser has an advisory against it, and ours is shorter on
//! the wire and shares the entries' buffers. There is one format and no optional field: the message between nodes that
//! carries these bytes has a number (`ringfort-types`, `message`), and another format would have another one.
//!
//! ```text
//! message = type u8 | flags u8 (1: reject) | to | from | term | log_term | index | commit | commit_term
//!         | reject_hint | request_snapshot | priority | context bytes | count | entry × count
//! entry   = kind u8 (0 normal, 1 configuration) | term | data bytes          (integers: varints)
//! ```
//! An entry's index is the message's index, plus one, plus its place. The data of one of kind 1 is a
//! [`ConfigurationChange`]. Of a snapshot only its index and its term travel, as `index` and `log_term`: its data goes its own
//! way, and the configuration as of that index with it.

use bytes::{BufMut, Bytes, BytesMut};
use raft::eraftpb::{Entry, EntryType, Message, MessageType, Snapshot};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint, put_varints, varint_bytes, varint_of};
use ringfort_types::{ConfigurationChange, EntryKind, Index, LogEntry, PeerId, Term};

/// Type and flags.
const HEAD_BYTES: usize = 2;
const REJECT: u8 = 1;
const CONTEXT_BYTES_MAX: usize = 64;
const DATA_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Whether an encoded message carries entries for a follower.
pub fn is_append(message: &[u8]) -> bool {
    message.first() == Some(&(MessageType::MsgAppend as u8))
}

/// Who a message is for, and who has sent it.
pub fn ends(message: &[u8]) -> Option<(PeerId, PeerId)> {
    let (to, length) = varint_of(message.get(HEAD_BYTES..)?).ok()?;
    let (from, _) = varint_of(message.get(HEAD_BYTES + length..)?).ok()?;
    Some((PeerId(to), PeerId(from)))
}

/// For a message that tells its receiver to go on from a snapshot: the snapshot's index and term.
pub fn snapshot(message: &Bytes) -> Option<(Index, Term)> {
    if message.first() != Some(&(MessageType::MsgSnapshot as u8)) {
        return None;
    }
    decode(message.clone()).ok().map(|message| (Index(message.index), Term(message.log_term)))
}

/// Whether a message of this type speaks of entries in its sender's log, or gives a vote: it must not leave
/// before everything that the sender took in earlier is synced. The others (answers to heartbeats,
/// pre-votes, questions to the leader) speak of the term at most.
pub(crate) fn waits_for_entries(message: &Message) -> bool {
    !matches!(
        message.get_msg_type(),
        MessageType::MsgHeartbeatResponse
            | MessageType::MsgRequestPreVote
            | MessageType::MsgRequestPreVoteResponse
            | MessageType::MsgTransferLeader
    )
}

pub(crate) fn encode(message: &Message) -> Bytes {
    let (log_term, index) = if message.get_msg_type() == MessageType::MsgSnapshot {
        let metadata = message.get_snapshot().get_metadata();
        (metadata.term, metadata.index)
    } else {
        (message.log_term, message.index)
    };
    let numbers = [
        message.to,
        message.from,
        message.term,
        log_term,
        index,
        message.commit,
        message.commit_term,
        message.reject_hint,
        message.request_snapshot,
        message.priority as u64,
    ];
    // What fits exactly need not be counted by who else has it: nobody else ever has.
    let sized = |bytes: usize| varint_bytes(bytes as u64) + bytes;
    let of_entry = |entry: &Entry| 1 + varint_bytes(entry.term) + sized(entry.data.len());
    let bytes = HEAD_BYTES
        + numbers.iter().map(|number| varint_bytes(*number)).sum::<usize>()
        + sized(message.context.len())
        + varint_bytes(message.entries.len() as u64)
        + message.entries.iter().map(of_entry).sum::<usize>();
    let mut out = BytesMut::with_capacity(bytes);
    out.put_slice(&[message.get_msg_type() as u8, if message.reject { REJECT } else { 0 }]);
    put_varints(&mut out, numbers);
    put_bytes(&mut out, &message.context);
    put_varint(&mut out, message.entries.len() as u64);
    for (place, entry) in message.entries.iter().enumerate() {
        // Only terms travel, so a gap would put entries at other indexes than the leader has them.
        assert_eq!(entry.index, message.index + 1 + place as u64, "entries follow the message's index");
        out.put_u8(u8::from(entry.get_entry_type() != EntryType::EntryNormal));
        put_varint(&mut out, entry.term);
        put_bytes(&mut out, &entry.data);
    }
    debug_assert_eq!(out.len(), bytes, "it is as long as it was said to be");
    out.freeze()
}

pub(crate) fn decode(bytes: Bytes) -> Result<Message, Malformed> {
    let mut reader = Reader::new(bytes);
    let mut message = Message::default();
    message.set_msg_type(message_type(reader.u8()?)?);
    message.reject = match reader.u8()? {
        0 => false,
        REJECT => true,
        _ => return Err(Malformed("unknown flag on a Raft message")),
    };
    message.to = reader.varint()?;
    message.from = reader.varint()?;
    message.term = reader.varint()?;
    message.log_term = reader.varint()?;
    message.index = reader.varint()?;
    message.commit = reader.varint()?;
    message.commit_term = reader.varint()?;
    message.reject_hint = reader.varint()?;
    message.request_snapshot = reader.varint()?;
    message.priority = reader.varint()? as i64;
    message.context = reader.bytes(CONTEXT_BYTES_MAX)?;
    let count = reader.count(3)?;
    let mut entries = Vec::with_capacity(count);
    for place in 0..count as u64 {
        let kind = match reader.u8()? {
            0 => EntryType::EntryNormal,
            1 => EntryType::EntryConfChangeV2,
            _ => return Err(Malformed("unknown kind of Raft entry")),
        };
        let mut entry = Entry::default();
        entry.set_entry_type(kind);
        entry.term = reader.varint()?;
        let index = message.index.checked_add(1 + place).ok_or(Malformed("index overflows"))?;
        entry.index = index;
        entry.data = reader.bytes(DATA_BYTES_MAX)?;
        if kind != EntryType::EntryNormal {
            // Once it is committed it is too late to refuse it.
            ConfigurationChange::decode(entry.data.clone())?;
        }
        entries.push(entry);
    }
    message.set_entries(entries.into());
    reader.finish()?;
    if message.get_msg_type() == MessageType::MsgSnapshot {
        let mut snapshot = Snapshot::default();
        (snapshot.mut_metadata().index, snapshot.mut_metadata().term) = (message.index, message.log_term);
        message.set_snapshot(snapshot);
    }
    Ok(message)
}

/// Only what one replica may say to another; what the crate uses for itself is refused.
fn message_type(number: u8) -> Result<MessageType, Malformed> {
    use MessageType as T;
    const TYPES: [T; 11] = [
        T::MsgSnapshot,
        T::MsgAppend,
        T::MsgAppendResponse,
        T::MsgRequestVote,
        T::MsgRequestVoteResponse,
        T::MsgHeartbeat,
        T::MsgHeartbeatResponse,
        T::MsgTransferLeader,
        T::MsgTimeoutNow,
        T::MsgRequestPreVote,
        T::MsgRequestPreVoteResponse,
    ];
    TYPES.iter().find(|t| **t as u8 == number).copied().ok_or(Malformed("not a message between replicas"))
}

pub(crate) fn into_log_entry(entry: Entry) -> LogEntry {
    let kind = match entry.get_entry_type() {
        EntryType::EntryNormal => EntryKind::Normal,
        _ => EntryKind::Configuration,
    };
    LogEntry { index: Index(entry.index), term: Term(entry.term), kind, payload: entry.data }
}

pub(crate) fn from_log_entry(entry: &LogEntry) -> Entry {
    let mut raft =
        Entry { index: entry.index.0, term: entry.term.0, data: entry.payload.clone(), ..Entry::default() };
    raft.set_entry_type(match entry.kind {
        EntryKind::Normal => EntryType::EntryNormal,
        EntryKind::Configuration => EntryType::EntryConfChangeV2,
    });
    raft
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message with entries of which none, one or several have data, some of it of a length that takes two bytes to say.
    fn append(entries: &[usize]) -> Message {
        let mut message = Message { to: 3, from: 1 << 40, index: 300, commit: 299, ..Message::default() };
        message.set_msg_type(MessageType::MsgAppend);
        let entry = |(place, bytes): (usize, &usize)| Entry {
            index: 301 + place as u64,
            term: 7 << (20 * place),
            data: vec![1; *bytes].into(),
            ..Entry::default()
        };
        message.set_entries(entries.iter().enumerate().map(entry).collect::<Vec<_>>().into());
        message
    }

    #[test]
    fn messages_come_back_and_have_no_more_memory_than_they_take() {
        for entries in [&[][..], &[0], &[5, 127, 128]] {
            let message = append(entries);
            let bytes = encode(&message);
            assert_eq!(ends(&bytes), Some((PeerId(3), PeerId(1 << 40))));
            assert_eq!(decode(bytes.clone()).unwrap(), message);
            let whole = bytes.len();
            assert_eq!(BytesMut::from(bytes).capacity(), whole);
        }
        assert_eq!((ends(b""), ends(&[3, 0, 0x80])), (None, None));
    }
}
