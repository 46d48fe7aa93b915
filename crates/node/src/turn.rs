//! A turn: what all the events since the last one come to.

use ringfort_consensus::Outgoing;
use ringfort_types::limits::HEARTBEAT_MS;
use ringfort_types::{
    Call, Code, Command, Failure, Now, PeerMessage, RaftMessage, Reply, Request, ShardId, Stamped,
};

use crate::node::{Node, Out};
use crate::pending::{Pending, Waiter, after_attempts};
use crate::replica::Outcome;
use crate::{Answered, Effect};

/// A follower whose table is this far behind takes in no more entries until it has caught up.
pub(crate) const APPLYING_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Node {
    /// Everything that is to be done about what was handled since the last call, in order.
    pub fn take_effects(&mut self, now: Now) -> Vec<Effect> {
        self.now = now;
        // Releasing one shard's work can give another something to do (a request that moves on).
        while !self.dirty.is_empty() {
            for shard in std::mem::take(&mut self.dirty) {
                self.slots[shard.0 as usize].dirty = false;
                self.take_turn_of(shard);
            }
        }
        self.begin_round();
        let Out { mut first, send, apply, read, reply, last } = std::mem::take(&mut self.out);
        first.extend(send.into_iter().map(|(to, messages)| Effect::Send { to, messages }));
        if let Some(batch) = self.commit.take_batch() {
            self.slow_disk.begins(now.monotonic_us);
            first.push(batch);
        }
        if !apply.is_empty() {
            first.push(Effect::Apply(apply));
        }
        if !read.is_empty() {
            first.push(Effect::Read(read));
        }
        if !reply.is_empty() {
            first.push(Effect::Reply(reply));
        }
        first.extend(last);
        first
    }

    fn take_turn_of(&mut self, shard: ShardId) {
        let now = self.now;
        let mut outcome = Outcome::default();
        let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else {
            return self.take_turn_of_abdicating(shard);
        };
        let mut unproposed = replica.propose(now);
        let mut leader_changed = replica.notice_leader();
        loop {
            let Some(replica) = self.slots[shard.0 as usize].replica.as_mut() else { return };
            let mut turn = std::mem::take(&mut self.turn);
            replica.group.take_turn_into(&mut turn);
            if replica.group.is_outrun() == Some(true) {
                self.slow_disk.is_outrun(now.monotonic_us);
            }
            let (records, ticket) = (turn.records.drain(..), turn.unsynced.take());
            self.commit.add(shard, records, ticket, &mut replica.last_batch);
            replica.emit(turn.committed.drain(..), now.monotonic_us, &mut outcome);
            if outcome.unread.is_some() {
                break;
            }
            leader_changed |= replica.notice_leader();
            if let Some(fetch) = turn.fetch.take() {
                let (from, to, bytes_max) = (fetch.from, fetch.to, fetch.bytes_max);
                self.out.last.push(Effect::Fetch { shard, from, to, bytes_max });
            }
            let again = replica.group.has_turn();
            if !turn.behind.is_empty() {
                self.send_snapshots(shard, std::mem::take(&mut turn.behind));
            }
            self.send_raft(shard, turn.send.drain(..));
            self.turn = turn;
            if !again {
                break;
            }
        }
        self.pending -= outcome.done;
        self.pending_bytes -= outcome.done_bytes;
        self.out.apply.extend(outcome.apply);
        for waiter in outcome.lost {
            self.answer_lost(waiter);
        }
        if let Some(reason) = outcome.unread {
            for (waiter, command) in unproposed.drain(..) {
                self.route(from_command(shard, waiter, command, now));
            }
            return self.stand_still(shard, reason, false);
        }
        let replica = self.slots[shard.0 as usize].replica.as_mut().expect("looked at above");
        if leader_changed {
            replica.reads.ask_again();
            if replica.group.leader().is_some() {
                self.tally.counts.leader_changes += 1;
                self.tally.led_anew.insert(shard);
            }
            self.tally.counts.elections_won += u64::from(replica.leads());
        }
        if !replica.leads() {
            replica.reads.step_down();
        }
        self.reads_fresh |= replica.reads.are_fresh();
        let moved = replica.takes_writes() && !self.slots[shard.0 as usize].waiting.is_empty();
        self.tell_indexes(shard);
        self.release_held(shard);
        for (waiter, command) in unproposed.drain(..) {
            let asked = from_command(shard, waiter, command, now);
            self.wait(shard, asked, HEARTBEAT_MS);
        }
        if leader_changed {
            self.go_on_with_transfers(shard);
            self.take_back_forwards(shard);
        }
        if leader_changed || moved {
            self.retry_waiting_of(shard, true);
        }
    }

    /// Puts the outgoing Raft messages of a shard to their nodes.
    pub(crate) fn send_raft(&mut self, shard: ShardId, outgoing: impl IntoIterator<Item = Outgoing>) {
        for (peer, message) in outgoing {
            if let Some(node) = self.slots[shard.0 as usize].node_of(peer) {
                self.send(node, PeerMessage::Raft(RaftMessage { shard, message }));
            }
        }
    }

    /// Answers what is past its deadline.
    pub(crate) fn expire(&mut self) {
        let now_us = self.now.monotonic_us;
        for number in 0..self.slots.len() {
            let shard = ShardId(number as u32);
            let late: Vec<_> =
                self.slots[number].waiting.extract_if(.., |asked| asked.deadline_us <= now_us).collect();
            for asked in late {
                let failure = self.why_late(shard, asked.call.request.is_write());
                self.fail(asked, failure);
            }
            let Some(replica) = self.slots[number].replica.as_mut() else { continue };
            let (writes, reads) = replica.expire(now_us);
            self.release_held(shard);
            if writes.is_empty() && reads.is_empty() {
                continue;
            }
            let message = format!("{}; the write may still take effect", self.why_late(shard, true).message);
            for waiter in writes {
                let reply = Reply::Failed(Failure::unknown(Code::DeadlineExceeded, message.clone()));
                self.answer_waiter(waiter, reply);
            }
            let failure = self.why_late(shard, false);
            for asked in reads {
                self.fail(asked, failure.clone());
            }
        }
        for asked in self.forwards.take_expired(now_us) {
            let message = "the shard's leader did not answer in time";
            let failure = if asked.call.request.is_transfer() {
                crate::transfer::late("the node that was asked has not taken over yet")
            } else if asked.call.request.is_write() {
                Failure::unknown(
                    Code::DeadlineExceeded,
                    format!("{message}; the write may still take effect"),
                )
            } else {
                Failure::rejected(Code::Unavailable, message)
            };
            self.fail(asked, failure);
        }
    }

    /// Answers who waits for a write of which nobody here will hear what became of it.
    pub(crate) fn leave_in_doubt(&mut self, waiter: Waiter) {
        let message = "another leader took over, and its state came without the history; the write may have taken effect";
        let failure = Failure::unknown(Code::Unavailable, message);
        self.answer_waiter(waiter, Reply::Failed(failure));
    }

    /// Answers who waits for a write that will surely not be committed.
    pub(crate) fn answer_lost(&mut self, waiter: Waiter) {
        let message = "another leader took over before it was stored: try again";
        self.answer_waiter(waiter, Reply::Failed(Failure::rejected(Code::Unavailable, message)));
    }

    /// Answers who waits for a write, which is no longer pending here.
    pub(crate) fn answer_waiter(&mut self, waiter: Waiter, reply: Reply) {
        let reply = after_attempts(reply, waiter.in_doubt);
        self.pending -= 1;
        self.pending_bytes -= waiter.weight;
        self.out.reply.push(Answered { token: waiter.token, reply, leader: None });
    }

    fn why_late(&self, shard: ShardId, is_write: bool) -> Failure {
        let leads = self.slots[shard.0 as usize].replica.as_ref().is_some_and(crate::replica::Replica::leads);
        let refusal = if is_write { self.refusal_by_disk() } else { self.refusal_of_reads_by_disk(shard) };
        if let Some(refusal) = refusal.filter(|_| leads) {
            return refusal;
        }
        if self.is_opening(shard) {
            return self.still_opening(shard, ", and no other node could take this");
        }
        self.not_taken(shard)
    }

    /// Answers a request that is pending here with a failure.
    pub(crate) fn fail(&mut self, asked: Pending, failure: Failure) {
        let reply = after_attempts(Reply::Failed(failure), asked.in_doubt);
        self.answer(asked, reply);
    }

    /// Answers a request that is pending here.
    #[expect(clippy::needless_pass_by_value, reason = "a request is answered once: it ends here")]
    pub(crate) fn answer(&mut self, asked: Pending, reply: Reply) {
        self.pending -= 1;
        self.pending_bytes -= asked.call.weight();
        self.out.reply.push(Answered { token: asked.token, reply, leader: None });
    }
}

/// Back to the request that it was made from.
pub(crate) fn from_command(shard: ShardId, waiter: Waiter, stamped: Stamped, now: Now) -> Pending {
    let request = match stamped.command {
        Command::Write { parts } => Request::Write { parts },
        Command::Digest => Request::Digest { shard },
        Command::Layout(change) => Request::ChangeLayout(change),
    };
    let Waiter { token, deadline_us, durability, who, door, in_doubt, .. } = waiter;
    let call = Call { stamp: stamped.stamp, durability, who, door, ..request.into() };
    Pending { token, call, deadline_us, retry_at_us: now.monotonic_us, in_doubt }
}
