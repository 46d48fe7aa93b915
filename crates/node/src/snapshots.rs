//! Tables on their way between nodes, for replicas whose logs can't be brought up to date any more.
//!
//! A leader hears from its group that a follower needs entries that are gone. It has its table read at one index and
//! sends it in chunks, a few at a time; the follower's driver makes a new table of them, beside the one in use. Only
//! when that table is complete and on disk does the group tell the follower to go on from there (a Raft snapshot,
//! which is an index and a term here); the follower's record of that in the log is the commit point, and once it is
//! synced its driver is told to put the new table in place.
//!
//! So nothing that goes wrong on the way concerns Raft: chunks that are lost with a connection are sent again from the
//! last one that was stored; a transfer whose end is gone is given up, and begun anew when the group asks again. What
//! was told to a follower and came to nothing is reported to the group, which then asks again too.
//!
//! Invariants: chunks are stored in order, each once; a table that is not complete is never put in place; both ends hold
//! a bounded part of a snapshot, whatever its size; a replica makes one new table at a time.
//!
//! Deliberately absent: a pace. The driver that reads chunks keeps to what its operator allows.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ringfort_types::limits::{SNAPSHOT_WINDOW_BYTES, SNAPSHOT_WINDOW_CHUNKS, SNAPSHOTS_SENT_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Base, Configuration, Index, NodeId, PeerId, PeerMessage, ShardId, SnapshotChunk, SnapshotProgress,
    SnapshotReply, SnapshotVerdict,
};

use crate::node::Node;
use crate::replica::Replica;
use crate::{Effect, Stored};

/// Chunks without an answer for this long are sent again.
const RESEND_US: u64 = 1_000_000;
/// A transfer that gets nowhere for this long is given up.
const GIVE_UP_US: u64 = 15_000_000;
/// A follower whose transfer was given up waits this long for the next.
const AGAIN_US: u64 = 500_000;
/// What a follower was told about a snapshot counts as lost after this long.
const TOLD_US: u64 = 3_000_000;
/// A table that nobody adds to, nor wants, is removed after this long.
const STALE_US: u64 = 60_000_000;

/// A snapshot that this node sends.
#[derive(Debug)]
struct Sent {
    shard: ShardId,
    to: NodeId,
    peer: PeerId,
    /// Once the table was looked at.
    index: Option<Index>,
    /// Chunks that are read and not known to be stored, from the first of these on.
    chunks: VecDeque<SnapshotChunk>,
    /// The next chunk to be sent: all before it are under way.
    next: u64,
    is_reading: bool,
    /// Bytes of the chunks that are stored at the other end.
    stored_bytes: u64,
    began_us: u64,
    /// When something last went forward.
    moved_us: u64,
    /// When chunks were last sent.
    chunks_us: u64,
}

/// A snapshot that arrives here.
#[derive(Debug)]
struct Arriving {
    from: NodeId,
    transfer: u64,
    index: Index,
    generation: u64,
    /// Chunks that are stored.
    stored: u64,
    /// Those that follow them and are here. The first one is being stored.
    chunks: VecDeque<Bytes>,
    /// Once all of it is stored: who belonged to the group at its index.
    complete: Option<Configuration>,
    heard_us: u64,
}

/// All snapshots on their way.
#[derive(Debug)]
pub(crate) struct Snapshots {
    boot: u64,
    last: u64,
    sent: BTreeMap<u64, Sent>,
    arriving: BTreeMap<ShardId, Arriving>,
    /// Followers whose last transfer was given up, with when the next may begin.
    rests: BTreeMap<(ShardId, PeerId), u64>,
    /// Followers that were told to go on from a snapshot and have not answered, with when that was seen first. Not when
    /// their table was complete: a follower that is away is told later, and may have lost it by then.
    told: BTreeMap<(ShardId, PeerId), u64>,
}

impl Snapshots {
    /// Numbers begin anew with every boot, far from those of the last one.
    pub(crate) fn new(boot: u64) -> Snapshots {
        Snapshots {
            boot,
            last: 0,
            sent: BTreeMap::new(),
            arriving: BTreeMap::new(),
            rests: BTreeMap::new(),
            told: BTreeMap::new(),
        }
    }

    pub(crate) fn sent(&self) -> usize {
        self.sent.len()
    }

    /// Bytes of chunks held here, of the fullest one.
    pub(crate) fn bytes(&self) -> usize {
        let sent = self.sent.values().map(|sent| sent.chunks.iter().map(|chunk| chunk.bytes.len()).sum());
        let arriving = self.arriving.values().map(|arriving| arriving.chunks.iter().map(Bytes::len).sum());
        sent.chain(arriving).max().unwrap_or(0)
    }
}

fn has_room<'a>(chunks: impl Iterator<Item = &'a Bytes>) -> bool {
    let (mut count, mut bytes) = (0, 0);
    for chunk in chunks {
        count += 1;
        bytes += chunk.len();
    }
    count < SNAPSHOT_WINDOW_CHUNKS && bytes < SNAPSHOT_WINDOW_BYTES
}

/// The sender's side.
impl Node {
    /// These followers of a shard need what is gone.
    pub(crate) fn send_snapshots(&mut self, shard: ShardId, peers: Vec<PeerId>) {
        for peer in peers {
            let replica = self.slots[shard.0 as usize].replica.as_ref();
            let Some(to) = replica.and_then(|replica| replica.node_of(peer)) else { continue };
            let snapshots = &mut self.snapshots;
            let now_us = self.now.monotonic_us;
            let rests = snapshots.rests.get(&(shard, peer)).is_some_and(|until_us| *until_us > now_us);
            let has_one = snapshots.sent.values().any(|sent| (sent.shard, sent.peer) == (shard, peer));
            let takes_it = self.peers.is_up(to) && !self.peers.is_damaged(to, shard);
            if rests || has_one || snapshots.sent.len() >= SNAPSHOTS_SENT_MAX || !takes_it {
                continue;
            }
            snapshots.last += 1;
            let transfer = (snapshots.boot << 32) | snapshots.last;
            let sent = Sent {
                shard,
                to,
                peer,
                index: None,
                chunks: VecDeque::new(),
                next: 0,
                is_reading: false,
                stored_bytes: 0,
                began_us: now_us,
                moved_us: now_us,
                chunks_us: now_us,
            };
            snapshots.sent.insert(transfer, sent);
            self.out.last.push(Effect::TakeSnapshot { shard, transfer });
        }
    }

    pub(crate) fn handle_snapshot_taken(&mut self, transfer: u64, index: Index) {
        let Some(sent) = self.snapshots.sent.get_mut(&transfer) else {
            // It was given up before the driver came to it.
            return self.out.last.push(Effect::DropSnapshot { transfer });
        };
        sent.index = Some(index);
        self.go_on_sending(transfer);
    }

    pub(crate) fn handle_chunk_read(&mut self, transfer: u64, number: u64, chunk: Option<(Bytes, bool)>) {
        let Some(sent) = self.snapshots.sent.get_mut(&transfer) else { return };
        sent.is_reading = false;
        let (Some((bytes, is_last)), Some(index)) = (chunk, sent.index) else {
            return self.give_up_sending(transfer);
        };
        sent.chunks.push_back(SnapshotChunk { shard: sent.shard, transfer, index, number, is_last, bytes });
        self.go_on_sending(transfer);
    }

    /// Sends what is read, and has more read if there is room.
    fn go_on_sending(&mut self, transfer: u64) {
        let Some(sent) = self.snapshots.sent.get_mut(&transfer) else { return };
        if self.peers.is_up(sent.to) {
            let ready: Vec<_> =
                sent.chunks.iter().filter(|chunk| chunk.number >= sent.next).cloned().collect();
            if let Some(last) = ready.last() {
                (sent.next, sent.chunks_us) = (last.number + 1, self.now.monotonic_us);
            }
            let messages = self.out.send.entry(sent.to).or_default();
            messages.extend(ready.into_iter().map(PeerMessage::SnapshotChunk));
        }
        let is_read = sent.chunks.back().is_some_and(|chunk| chunk.is_last);
        if !sent.is_reading && !is_read && has_room(sent.chunks.iter().map(|chunk| &chunk.bytes)) {
            sent.is_reading = true;
            self.out.last.push(Effect::ReadChunk { transfer });
        }
    }

    pub(crate) fn handle_snapshot_reply(&mut self, from: NodeId, reply: SnapshotReply) {
        let now_us = self.now.monotonic_us;
        let Some(sent) = self.snapshots.sent.get_mut(&reply.transfer).filter(|sent| sent.to == from) else {
            return;
        };
        match reply.verdict {
            SnapshotVerdict::Refused => self.give_up_sending(reply.transfer),
            SnapshotVerdict::More => {
                while let Some(chunk) = sent.chunks.pop_front_if(|chunk| chunk.number < reply.stored) {
                    sent.stored_bytes += chunk.bytes.len() as u64;
                    self.tally.counts.snapshot_bytes_sent += chunk.bytes.len() as u64;
                    sent.moved_us = now_us;
                }
                self.go_on_sending(reply.transfer);
            }
            SnapshotVerdict::Complete => {
                let (shard, peer, index) = (sent.shard, sent.peer, sent.index.unwrap_or_default());
                let last = sent.chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>();
                self.end_sending(reply.transfer);
                self.tally.counts.snapshot_bytes_sent += last;
                self.tally.counts.snapshots_sent += 1;
                if let Some(replica) = self.slots[shard.0 as usize].replica.as_mut()
                    && replica.group.snapshot_delivered(peer, index)
                {
                    self.mark(shard);
                }
            }
        }
    }

    /// How far each is that this node sends.
    pub(crate) fn snapshots_progress(&self) -> Vec<SnapshotProgress> {
        let now_us = self.now.monotonic_us;
        let progress = |sent: &Sent| SnapshotProgress {
            shard: sent.shard,
            to: sent.to,
            bytes: sent.stored_bytes,
            bytes_estimate: self.slots[sent.shard.0 as usize]
                .replica
                .as_ref()
                .map_or(0, |replica| replica.stats.bytes_estimate),
            elapsed_ms: now_us.saturating_sub(sent.began_us) / 1_000,
        };
        self.snapshots.sent.values().map(progress).collect()
    }

    fn end_sending(&mut self, transfer: u64) -> Option<Sent> {
        let sent = self.snapshots.sent.remove(&transfer)?;
        self.out.last.push(Effect::DropSnapshot { transfer });
        Some(sent)
    }

    fn give_up_sending(&mut self, transfer: u64) {
        if let Some(sent) = self.end_sending(transfer) {
            self.tally.counts.snapshots_given_up += 1;
            self.snapshots.rests.insert((sent.shard, sent.peer), self.now.monotonic_us + AGAIN_US);
        }
    }

    /// A node can be reached again: whatever was under way to it is sent once more.
    pub(crate) fn resend_chunks(&mut self, to: NodeId) {
        let all: Vec<u64> = self
            .snapshots
            .sent
            .iter()
            .filter(|(_, sent)| sent.to == to)
            .map(|(transfer, _)| *transfer)
            .collect();
        for transfer in all {
            if let Some(sent) = self.snapshots.sent.get_mut(&transfer) {
                sent.next = 0;
            }
            self.go_on_sending(transfer);
        }
    }

    /// Now and then: what got lost, what takes too long, what nobody wants any more.
    pub(crate) fn look_after_snapshots(&mut self) {
        let now_us = self.now.monotonic_us;
        let late = |since_us: u64, us: u64| now_us.saturating_sub(since_us) > us;
        let (mut ended, mut resent) = (Vec::new(), Vec::new());
        for (transfer, sent) in &mut self.snapshots.sent {
            let replica = self.slots[sent.shard.0 as usize].replica.as_ref();
            let is_for = |replica: &Replica| {
                replica.leads() && replica.group.configuration().node_of(sent.peer).is_some()
            };
            let is_wanted = replica.is_some_and(is_for) && !self.peers.is_damaged(sent.to, sent.shard);
            if !is_wanted || late(sent.moved_us, GIVE_UP_US) {
                ended.push(*transfer);
            } else if !sent.chunks.is_empty() && late(sent.chunks_us.max(sent.moved_us), RESEND_US) {
                sent.next = 0;
                resent.push(*transfer);
            }
        }
        for transfer in ended {
            self.give_up_sending(transfer);
        }
        for transfer in resent {
            self.go_on_sending(transfer);
        }
        self.snapshots.rests.retain(|_, until_us| *until_us > now_us);
        let mut told = BTreeMap::new();
        let mut lost = Vec::new();
        for replica in self.slots.iter_mut().filter_map(|slot| slot.replica.as_mut()) {
            for place in replica.group.configuration().replicas().collect::<Vec<_>>() {
                if replica.group.awaits_snapshot(place.peer).is_none() {
                    continue;
                }
                let key = (replica.shard, place.peer);
                let since_us = self.snapshots.told.get(&key).copied().unwrap_or(now_us);
                if late(since_us, TOLD_US) {
                    replica.group.snapshot_failed(place.peer);
                    lost.push(replica.shard);
                } else {
                    told.insert(key, since_us);
                }
            }
        }
        self.snapshots.told = told;
        for shard in lost {
            self.mark(shard);
        }
        let slots = &self.slots;
        let is_of_use = |shard: &ShardId, arriving: &Arriving| {
            let replica = slots[shard.0 as usize].replica.as_ref();
            replica.is_some_and(|replica| replica.group.committed() < arriving.index)
                && !late(arriving.heard_us, STALE_US)
        };
        let useless = |shard: &ShardId, arriving: &mut Arriving| !is_of_use(shard, arriving);
        let useless: Vec<_> = self.snapshots.arriving.extract_if(.., useless).collect();
        for (shard, arriving) in useless {
            self.out.last.push(Effect::DropTable { shard, generation: arriving.generation });
        }
    }
}

/// The receiver's side.
impl Node {
    pub(crate) fn handle_snapshot_chunk(&mut self, from: NodeId, chunk: SnapshotChunk) {
        let SnapshotChunk { shard, transfer, index, number, bytes, .. } = chunk;
        let now_us = self.now.monotonic_us;
        let Some(slot) = self.slots.get_mut(shard.0 as usize) else { return };
        let (Some(replica), Some(own)) = (&mut slot.replica, &mut slot.own) else { return };
        // Only from the leader, so that two senders do not undo each other's work.
        if replica.leader_node() != Some(from) || replica.group.is_installing() || replica.is_installing() {
            return;
        }
        if index <= replica.group.committed() {
            // The log has come so far in another way: so much of it may be taken for done.
            let verdict = SnapshotVerdict::Complete;
            return self.reply_to_chunk(from, SnapshotReply { shard, transfer, stored: number, verdict });
        }
        // Two leaders may have given the same number to theirs.
        let is_it = |known: &Arriving| (known.from, known.transfer, known.index) == (from, transfer, index);
        let known = self.snapshots.arriving.get(&shard).is_some_and(is_it);
        if !known {
            if number > 0 {
                let verdict = SnapshotVerdict::Refused;
                return self.reply_to_chunk(from, SnapshotReply { shard, transfer, stored: 0, verdict });
            }
            let generation = own.next_generation();
            let arriving = Arriving {
                from,
                transfer,
                index,
                generation,
                stored: 0,
                chunks: VecDeque::new(),
                complete: None,
                heard_us: now_us,
            };
            if let Some(old) = self.snapshots.arriving.insert(shard, arriving) {
                self.out.last.push(Effect::DropTable { shard, generation: old.generation });
            }
        }
        let arriving = self.snapshots.arriving.get_mut(&shard).expect("it was there or was just made");
        arriving.heard_us = now_us;
        let expected = arriving.stored + arriving.chunks.len() as u64;
        if number == expected && arriving.complete.is_none() && has_room(arriving.chunks.iter()) {
            arriving.chunks.push_back(bytes);
            if arriving.chunks.len() == 1 {
                self.store_next_chunk(shard);
            }
        } else {
            self.answer_chunks(shard);
        }
    }

    /// A table that arrives here is of no use any more.
    pub(crate) fn forget_arriving(&mut self, shard: ShardId) {
        if let Some(arriving) = self.snapshots.arriving.remove(&shard) {
            self.out.last.push(Effect::DropTable { shard, generation: arriving.generation });
        }
    }

    fn store_next_chunk(&mut self, shard: ShardId) {
        if let Some(arriving) = self.snapshots.arriving.get(&shard)
            && let Some(chunk) = arriving.chunks.front()
        {
            let (generation, chunk) = (arriving.generation, chunk.clone());
            self.out.last.push(Effect::StoreChunk { shard, generation, chunk });
        }
    }

    /// Tells the sender how far its snapshot is.
    fn answer_chunks(&mut self, shard: ShardId) {
        let Some(arriving) = self.snapshots.arriving.get(&shard) else { return };
        let verdict =
            if arriving.complete.is_some() { SnapshotVerdict::Complete } else { SnapshotVerdict::More };
        let (from, transfer, stored) = (arriving.from, arriving.transfer, arriving.stored);
        self.reply_to_chunk(from, SnapshotReply { shard, transfer, stored, verdict });
    }

    fn reply_to_chunk(&mut self, to: NodeId, reply: SnapshotReply) {
        self.send(to, PeerMessage::SnapshotReply(reply));
    }

    pub(crate) fn handle_chunk_stored(&mut self, shard: ShardId, generation: u64, outcome: Stored) {
        let Some(arriving) = self.snapshots.arriving.get_mut(&shard) else { return };
        if arriving.generation != generation {
            return;
        }
        let me = self.slots[shard.0 as usize].own.map(|own| own.peer);
        // One that was begun for the replica that was here before is nothing for this one.
        let is_mine = |configuration: &Configuration| {
            me.is_some_and(|me| configuration.node_of(me).is_some())
                || planted::is(Bug::SnapshotInstalledHalf)
        };
        let complete = match outcome {
            Stored::More => Some(None),
            Stored::Complete { index, configuration }
                if index == arriving.index && is_mine(&configuration) =>
            {
                Some(Some(configuration))
            }
            Stored::Complete { .. } | Stored::Refused => None,
        };
        let Some(complete) = complete else {
            let (from, transfer, stored) = (arriving.from, arriving.transfer, arriving.stored);
            self.snapshots.arriving.remove(&shard);
            self.out.last.push(Effect::DropTable { shard, generation });
            let verdict = SnapshotVerdict::Refused;
            return self.reply_to_chunk(from, SnapshotReply { shard, transfer, stored, verdict });
        };
        arriving.stored += 1;
        arriving.chunks.pop_front();
        arriving.complete = complete;
        self.answer_chunks(shard);
        self.store_next_chunk(shard);
    }

    /// The leader says to go on from a snapshot. Counts only if that table is here, whole.
    pub(crate) fn step_snapshot(&mut self, shard: ShardId, message: Bytes, index: Index) {
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
        if index <= replica.group.committed() {
            if replica.group.step(message).is_ok() {
                self.mark(shard);
            }
            return;
        }
        if replica.group.is_installing() || replica.is_installing() {
            return;
        }
        let arriving = self.snapshots.arriving.get(&shard).filter(|arriving| arriving.index == index);
        let Some((generation, configuration)) =
            arriving.and_then(|arriving| Some((arriving.generation, arriving.complete.as_ref()?)))
        else {
            return;
        };
        // Of a half table nothing is known.
        let known = planted::is(Bug::SnapshotInstalledHalf).then(|| replica.group.configuration().clone());
        match replica.group.step_snapshot(message, generation, known.as_ref().unwrap_or(configuration)) {
            Ok(true) => drop(self.snapshots.arriving.remove(&shard)),
            // Of an earlier term, or its entries are here: the table waits, or is removed in time.
            Ok(false) => {}
            Err(_) => return,
        }
        self.mark(shard);
    }

    /// The record of a snapshot is durable: its table takes its place before anything more is applied.
    pub(crate) fn install(&mut self, shard: ShardId, base: Base) {
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
        let overtaken = replica.install(base);
        if let Some(own) = &mut self.slots[shard.0 as usize].own {
            own.in_use = Some(base.generation);
        }
        self.out.first.push(Effect::Install { shard, base });
        for waiter in overtaken.in_doubt {
            self.leave_in_doubt(waiter);
        }
        for waiter in overtaken.lost {
            self.answer_lost(waiter);
        }
    }
}
