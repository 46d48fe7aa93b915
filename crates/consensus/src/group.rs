//! A replica's side of one Raft group: events in, turns out.

mod change;
mod snapshot;

use std::collections::VecDeque;

use bytes::Bytes;
use raft::eraftpb::{Entry, HardState as RaftHardState, Message, MessageType};
use raft::{Config, RawNode, StateRole};
use ringfort_types::limits::{APPEND_BYTES_MAX, APPENDS_IN_FLIGHT_MAX, HEARTBEAT_MS, TICK_MS};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::Malformed;
use ringfort_types::{Base, Configuration, HardState, Index, LogEntry, PeerId, Record, Role, ShardId, Term};

use crate::codec;
use crate::election::{ELECTION_TICKS, TICKS_BOUND, timeout_ticks};
use crate::log::{MemoryLog, Wanted};
use change::{Changes, conf_state, is_among};

/// A message for another replica of the group, in [`codec`]'s encoding.
pub type Outgoing = (PeerId, Bytes);

/// What a group is and who this replica is in it.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Which group.
    pub shard: ShardId,
    /// This replica.
    pub me: PeerId,
    /// All replicas as of [`Restored::applied`]. Somebody decides. This one is among them, unless it is new: then it learns
    /// from the log that it belongs to them.
    pub configuration: Configuration,
}

/// What this replica left on disk.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// The last hard state.
    pub hard_state: HardState,
    /// What comes before the log's first entry. Not above `applied`.
    pub base: Base,
    /// First index of each term, ascending, from the base on.
    pub terms: Vec<(Index, Term)>,
    /// The log's last index.
    pub last: Index,
    /// The table's applied index.
    pub applied: Index,
    /// All entries after `applied`.
    pub tail: Vec<LogEntry>,
}

/// Proof that a batch of the log has been synced. Made where the driver's report of it comes in, nowhere
/// else.
#[derive(Debug)]
pub struct Synced(());

impl Synced {
    /// The driver has reported that everything handed to it up to the batch in question is durable.
    pub fn reported_by_driver() -> Synced {
        Synced(())
    }
}

/// Messages that must not leave before this group's records so far are synced.
#[derive(Debug)]
#[must_use = "the group stands still until its ticket is released"]
pub struct Unsynced {
    ready: u64,
    messages: Vec<Outgoing>,
}

/// Old entries to be read from the log on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// The first one.
    pub from: Index,
    /// One past the last one.
    pub to: Index,
    /// At most about so many bytes.
    pub bytes_max: usize,
}

/// What is to be done after a group has taken in events.
#[derive(Debug, Default)]
pub struct Turn {
    /// May go at once.
    pub send: Vec<Outgoing>,
    /// To be made durable, in order.
    pub records: Vec<Record>,
    /// To be released once `records`, and all earlier ones of this group, are synced.
    pub unsynced: Option<Unsynced>,
    /// Committed, to be applied in order; those that change the configuration also here ([`Group::apply_change`]).
    pub committed: Vec<LogEntry>,
    /// To be read for a follower that lags.
    pub fetch: Option<Fetch>,
    /// Followers that need what is gone: each must be given a table, and then [`Group::snapshot_delivered`] says so. Named again
    /// for as long as they need it.
    pub behind: Vec<PeerId>,
}

impl Turn {
    /// Whether all of it is taken out.
    fn is_done(&self) -> bool {
        let Turn { send, records, unsynced, committed, fetch, behind } = self;
        let is_empty = send.is_empty() && records.is_empty() && committed.is_empty() && behind.is_empty();
        is_empty && unsynced.is_none() && fetch.is_none()
    }
}

/// One replica of one Raft group.
pub struct Group {
    raw: RawNode<MemoryLog>,
    config: GroupConfig,
    /// How often this replica has stood for election; parts the ways of two that collide.
    attempt: u64,
    /// Readies whose records are not synced yet.
    unsynced: VecDeque<UnsyncedReady>,
    /// The term and vote in the last record that was handed out.
    recorded: (Term, PeerId),
    /// The commit index has moved since the last record that holds it.
    commit_unrecorded: bool,
    changes: Changes,
    /// See [`Group::lost`].
    lost: Option<Index>,
    fetching: Option<Wanted>,
    /// Does not stand for election, and does not take over when asked to.
    abstains: bool,
    /// The generation of the table that the snapshot which is about to be taken in goes with.
    generation: u64,
    /// The last snapshot whose record is synced.
    installed: Option<Base>,
    /// Ticks in which it grants no vote yet: it may have told a leader, before it was started anew, that it would not.
    no_vote_ticks: usize,
}

#[derive(Debug)]
struct UnsyncedReady {
    number: u64,
    term_or_vote: bool,
    installs: Option<Base>,
}

impl Group {
    /// Brings a replica up from what it left on disk.
    pub fn new(config: GroupConfig, restored: &Restored) -> Group {
        let has_voters = !config.configuration.voters.is_empty();
        assert!(has_voters || planted::is(Bug::EmptyConfigurationStands), "a group has a voter");
        let mut hard_state = RaftHardState::default();
        hard_state.term = restored.hard_state.term.0;
        hard_state.vote = restored.hard_state.vote.0;
        hard_state.commit = restored.hard_state.commit.max(restored.applied).0;
        let store = MemoryLog::new(
            hard_state,
            conf_state(&config.configuration),
            (restored.base.index, restored.base.term),
            &restored.terms,
            restored.last,
            restored.tail.iter().map(codec::from_log_entry).collect(),
        );
        let raft = Config {
            id: config.me.0,
            election_tick: ELECTION_TICKS,
            heartbeat_tick: (HEARTBEAT_MS / TICK_MS) as usize,
            min_election_tick: ELECTION_TICKS,
            max_election_tick: TICKS_BOUND,
            applied: restored.applied.0,
            max_size_per_msg: APPEND_BYTES_MAX as u64,
            max_inflight_msgs: APPENDS_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: true,
            skip_bcast_commit: true,
            // With it the crate (0.7) adds entries to any append to that peer which is still in its outbox, also to
            // an empty one whose index is not the one before theirs (after `report_unreachable`, say). Appends
            // of one turn travel in one frame anyway.
            batch_append: false,
            max_committed_size_per_ready: 16 * APPEND_BYTES_MAX as u64,
            ..Config::default()
        };
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&raft, store, &logger).expect("the configuration is a constant and valid");
        let mut group = Group {
            raw,
            config,
            attempt: 0,
            unsynced: VecDeque::new(),
            recorded: (restored.hard_state.term, restored.hard_state.vote),
            commit_unrecorded: false,
            changes: Changes::restored(restored),
            lost: None,
            fetching: None,
            abstains: false,
            generation: restored.base.generation,
            installed: None,
            // In term 0 nobody can have led.
            no_vote_ticks: if restored.hard_state.term == Term(0) { 0 } else { ELECTION_TICKS },
        };
        group.set_timeout();
        group
    }

    /// Stands for election without waiting, if it is one of those who decide. For a lone voter, and for the first in line of
    /// a new group.
    pub fn campaign(&mut self) {
        // The crate does not ask (`hup`): a learner would ask for votes, and could get them.
        let decides = self.config.configuration.decides(self.config.me);
        let may_stand = decides || planted::is(Bug::EmptyConfigurationStands);
        if !may_stand || self.is_alone_and_unsynced() {
            return;
        }
        // The only error is that a voter may not campaign now, and then it will in its own time.
        let _ = self.raw.campaign();
    }

    /// Whether it leaves leading to others: it does not stand for election while its process is about to end, or
    /// can't write.
    pub fn abstain(&mut self, abstains: bool) {
        self.abstains = abstains;
    }

    /// A tick has passed.
    pub fn tick(&mut self) {
        self.no_vote_ticks = self.no_vote_ticks.saturating_sub(1);
        if self.stands_for_nothing() && self.raw.raft.state != StateRole::Leader {
            return;
        }
        self.set_timeout();
        let before = self.raw.raft.state;
        self.raw.tick();
        if before != StateRole::Leader && self.raw.raft.election_elapsed == 0 {
            // It has just stood; the next attempt waits another time.
            self.attempt += 1;
        }
    }

    /// A snapshot has been taken in, and its table is not in place. Until then it does not stand for election: the crate
    /// looks at the entries after the applied one before it does, and some of those are in the table.
    fn awaits_table(&self) -> bool {
        self.raw.raft.raft_log.applied < self.raw.store().base().0
    }

    fn stands_for_nothing(&self) -> bool {
        self.abstains || self.awaits_table() || self.is_alone_and_unsynced()
    }

    fn set_timeout(&mut self) {
        let (shard, me) = (self.config.shard, self.config.me);
        // Whoever leads does not stand against its followers, so those behind it in line move up by one.
        let line = || self.config.configuration.deciding().map(|replica| replica.peer);
        let rank = line().take_while(|peer| *peer != me).count();
        let ahead = |leader| line().take(rank).any(|peer| peer == leader);
        let rank = rank - usize::from(self.leader().is_some_and(ahead));
        let ticks = timeout_ticks(shard, me, rank as u32, self.term(), self.attempt);
        self.raw.raft.set_randomized_election_timeout(ticks);
    }

    /// Takes in a message from another replica. It need not be of the configuration that is in force here, which may be an old
    /// one: whoever asks for a vote is answered, and whoever leads is followed.
    pub fn step(&mut self, message: Bytes) -> Result<(), Malformed> {
        let mut message = codec::decode(message)?;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            let state = conf_state(&self.config.configuration);
            message.mut_snapshot().mut_metadata().set_conf_state(state);
        }
        self.step_decoded(message);
        Ok(())
    }

    fn step_decoded(&mut self, message: Message) {
        if message.to != self.config.me.0 {
            return;
        }
        if self.stands_for_nothing() && message.get_msg_type() == MessageType::MsgTimeoutNow {
            return;
        }
        let is_heartbeat = message.get_msg_type() == MessageType::MsgHeartbeat;
        if is_heartbeat && message.term >= self.raw.raft.term && message.commit > self.last().0 {
            // The crate would end the process.
            self.lost = Some(Index(message.commit));
            return;
        }
        let asks_for_vote =
            matches!(message.get_msg_type(), MessageType::MsgRequestVote | MessageType::MsgRequestPreVote);
        // Who was asked by the leader itself to stand is not kept waiting: that leader has given up its lease.
        if asks_for_vote && self.no_vote_ticks > 0 && message.context != CAMPAIGN_TRANSFER {
            return;
        }
        // What the crate refuses here (an answer of a peer that it doesn't know) has no effect.
        let _ = self.raw.step(message);
    }

    /// Appends an entry, if this replica leads and is not handing over. Says where it will be if it lasts.
    pub fn propose(&mut self, payload: Bytes) -> Option<(Index, Term)> {
        if self.raw.raft.state != StateRole::Leader {
            return None;
        }
        let entry = Entry { data: payload, ..Entry::default() };
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgPropose);
        message.from = self.config.me.0;
        message.set_entries(vec![entry].into());
        self.raw.step(message).ok()?;
        Some((self.last(), self.term()))
    }

    /// Whether [`Group::take_turn`] has anything to say.
    pub fn has_turn(&self) -> bool {
        self.raw.has_ready()
    }

    /// Everything that is to be done about the events taken in so far.
    pub fn take_turn(&mut self) -> Turn {
        let mut turn = Turn::default();
        self.take_turn_into(&mut turn);
        turn
    }

    /// The same, in a turn of which nothing is left to be done: with many groups, its memory serves them all.
    pub fn take_turn_into(&mut self, turn: &mut Turn) {
        debug_assert!(turn.is_done(), "what another group wanted done is lost");
        self.changes.assert_applied();
        if self.raw.has_ready() {
            self.take_ready(turn);
        }
        self.take_fetch(turn);
        if self.raw.raft.state != StateRole::Leader {
            self.raw.mut_store().forget_delivered();
        }
        turn.behind.extend(self.raw.mut_store().take_behind().into_iter().map(PeerId));
    }

    fn take_ready(&mut self, turn: &mut Turn) {
        let shard = self.config.shard;
        let mut ready = self.raw.ready();
        let mut term_or_vote = false;
        if let Some(state) = ready.hs() {
            term_or_vote = (Term(state.term), PeerId(state.vote)) != self.recorded;
            self.recorded = (Term(state.term), PeerId(state.vote));
            self.commit_unrecorded = true;
        }
        let mut installs = None;
        if !ready.snapshot().is_empty() {
            let metadata = ready.snapshot().get_metadata();
            let (index, term, generation) = (Index(metadata.index), Term(metadata.term), self.generation);
            installs = Some(Base { index, term, generation });
            self.raw.mut_store().install(index.0, term.0);
            self.changes.installed(index);
        }
        turn.records.extend(installs.map(|base| Record::Installed(shard, base)));
        let entries = ready.take_entries();
        self.raw.mut_store().append(&entries);
        let has_entries = !entries.is_empty();
        for entry in entries {
            let entry = codec::into_log_entry(entry);
            self.changes.appended(entry.index, entry.kind);
            turn.records.push(Record::Entry(shard, entry));
        }
        let commit_moves = self.commit_unrecorded && !planted::is(Bug::CommitNotRecorded);
        if term_or_vote || (!turn.records.is_empty() && commit_moves) {
            turn.records.push(self.record_hard_state());
        }
        if has_entries && !planted::is(Bug::CommitNotRecorded) {
            self.changes.assert_recorded(self.config.configuration.at);
        }
        turn.committed.extend(ready.take_committed_entries().into_iter().map(codec::into_log_entry));
        if let Some(last) = turn.committed.last() {
            self.changes.handed_out(last.index);
        }

        let mut messages = ready.take_messages();
        let leads = !messages.is_empty();
        messages.extend(ready.take_persisted_messages());
        let number = ready.number();
        let needs_sync = !turn.records.is_empty() && (term_or_vote || !planted::is(Bug::AckBeforeSync));
        let entries_wait = needs_sync || !self.unsynced.is_empty();
        let term_waits = term_or_vote || self.unsynced.iter().any(|earlier| earlier.term_or_vote);
        let mut held = Vec::new();
        for message in messages {
            let mut waits = term_waits || (!leads && entries_wait && codec::waits_for_entries(&message));
            if planted::is(Bug::TermSentBeforeSync) {
                waits &= message.get_msg_type() == MessageType::MsgAppendResponse;
            }
            let outgoing = (PeerId(message.to), codec::encode(&message));
            if waits { held.push(outgoing) } else { turn.send.push(outgoing) }
        }
        self.raw.advance_append_async(ready);
        if entries_wait {
            self.unsynced.push_back(UnsyncedReady { number, term_or_vote, installs });
            turn.unsynced = Some(Unsynced { ready: number, messages: held });
        } else {
            assert!(held.is_empty(), "nothing waits where nothing is unsynced");
            self.raw.on_persist_ready(number);
        }
    }

    fn take_fetch(&mut self, turn: &mut Turn) {
        if self.fetching.is_some() {
            return;
        }
        let mut wanted = self.raw.mut_store().take_wanted();
        if wanted.is_empty() {
            return;
        }
        // The others are asked for again by the next answer to a heartbeat.
        let first = wanted.swap_remove(0);
        turn.fetch =
            Some(Fetch { from: Index(first.low), to: Index(first.high), bytes_max: APPENDS_FETCHED_BYTES });
        self.fetching = Some(first);
    }

    /// The records of this ticket and all before it are durable: what waited for them may go.
    pub fn release(&mut self, ticket: Unsynced, _proof: &Synced) -> Vec<Outgoing> {
        while let Some(earlier) = self.unsynced.pop_front_if(|earlier| earlier.number <= ticket.ready) {
            self.installed = earlier.installs.or(self.installed);
        }
        self.raw.on_persist_ready(ticket.ready);
        ticket.messages
    }

    /// The table has reached this index.
    pub fn applied(&mut self, index: Index) {
        if index.0 > self.raw.raft.raft_log.applied {
            self.raw.advance_apply_to(index.0);
            self.raw.mut_store().forget_applied(index.0);
        }
    }

    /// Entries that [`Turn::fetch`] asked for, from the first one on.
    pub fn fetched(&mut self, entries: &[LogEntry]) {
        let Some(wanted) = self.fetching.take() else { return };
        if entries.first().is_none_or(|entry| entry.index.0 != wanted.low) {
            return;
        }
        self.raw.mut_store().set_fetched(entries.iter().map(codec::from_log_entry).collect());
        self.raw.on_entries_fetched(wanted.context);
        self.raw.mut_store().set_fetched(Vec::new());
    }

    /// A record of the commit index, if it has moved since the last one. For when nothing else is written.
    pub fn take_commit_record(&mut self) -> Option<Record> {
        self.commit_unrecorded.then(|| self.record_hard_state())
    }

    fn record_hard_state(&mut self) -> Record {
        let state = self.hard_state();
        self.commit_unrecorded = false;
        self.changes.recorded(state.commit);
        Record::HardState(self.config.shard, state)
    }

    /// Messages to this peer may have been lost, also what it was told about a snapshot.
    pub fn report_unreachable(&mut self, peer: PeerId) {
        self.raw.report_unreachable(peer.0);
        if self.awaits_snapshot(peer).is_some() {
            self.snapshot_failed(peer);
        }
    }

    /// Begins to hand leadership to another voter, one that stays if the configuration is joint. New entries are refused until
    /// it is done or has failed.
    pub fn transfer_to(&mut self, peer: PeerId) {
        let stays = is_among(&self.config.configuration.voters, peer);
        if self.role() == Role::Leader && peer != self.config.me && stays {
            self.raw.transfer_leader(peer.0);
        }
    }

    /// The leader of this term has just asked whether this replica is with it, and is told that it is: so for the
    /// shortest election timeout from now it neither stands for election nor votes for another.
    pub fn heard_leader(&mut self) {
        if self.raw.raft.state == StateRole::Follower {
            self.raw.raft.election_elapsed = 0;
        }
    }

    /// The leader of this term says that this index is committed. Believed as far as the entries here are of that term,
    /// because then they are the leader's, and synced: what its next heartbeat would say.
    pub fn learn_commit(&mut self, term: Term, index: Index) {
        let raft = &self.raw.raft;
        let index = index.0.min(raft.raft_log.persisted);
        if raft.state != StateRole::Follower
            || raft.term != term.0
            || index <= raft.raft_log.committed
            || raft.raft_log.term(index) != Ok(term.0)
        {
            return;
        }
        let mut message = Message::default();
        message.set_msg_type(MessageType::MsgHeartbeat);
        (message.to, message.from) = (self.config.me.0, raft.leader_id);
        (message.term, message.commit) = (term.0, index);
        let _ = self.raw.step(message);
    }

    /// The index up to which a leader knows this replica to have everything, if that is beyond the end of its log: what it has
    /// acknowledged is lost, and it must not take part any more.
    pub fn lost(&self) -> Option<Index> {
        self.lost
    }

    /// Which replica this is.
    pub fn me(&self) -> PeerId {
        self.config.me
    }

    /// Who belongs to the group: the configuration in force.
    pub fn configuration(&self) -> &Configuration {
        &self.config.configuration
    }

    /// Raft's role.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        }
    }

    /// Whether it can take a write now.
    pub fn can_propose(&self) -> bool {
        self.raw.raft.state == StateRole::Leader && self.raw.raft.lead_transferee.is_none()
    }

    /// The current term.
    pub fn term(&self) -> Term {
        Term(self.raw.raft.term)
    }

    /// The current term's leader, if it is known.
    pub fn leader(&self) -> Option<PeerId> {
        (self.raw.raft.leader_id != 0).then_some(PeerId(self.raw.raft.leader_id))
    }

    /// The log's last index.
    pub fn last(&self) -> Index {
        Index(self.raw.raft.raft_log.last_index())
    }

    /// The last index known to be committed.
    pub fn committed(&self) -> Index {
        Index(self.raw.raft.raft_log.committed)
    }

    /// If this replica leads and has entries that are not durable here yet: whether some of them are committed, so that a majority
    /// without it was faster.
    pub fn is_outrun(&self) -> Option<bool> {
        let log = &self.raw.raft.raft_log;
        let waits = self.role() == Role::Leader && log.last_index() > log.persisted;
        waits.then_some(log.committed > log.persisted)
    }

    /// The index that a read which begins now has to see, if this replica leads and has committed an entry in
    /// its term (Raft thesis, 6.4, step 1; before that a new leader may not know how much is committed). The
    /// read may be answered once a majority has confirmed [`Group::term`] *afterwards*.
    pub fn read_index(&self) -> Option<Index> {
        let may_know = self.raw.raft.commit_to_current_term() || planted::is(Bug::ReadBeforeOwnEntry);
        (self.raw.raft.state == StateRole::Leader && may_know).then(|| self.committed())
    }

    /// How many of those that decide are known to have synced this index. A learner's copy may go without a trace.
    pub fn copies(&self, index: Index) -> u32 {
        if self.role() != Role::Leader {
            return 0;
        }
        let has = |peer| self.matched(peer).is_some_and(|matched| matched >= index);
        let copies = self.config.configuration.deciding().filter(|replica| has(replica.peer)).count();
        let learners = &self.config.configuration.learners;
        let counted = if planted::is(Bug::LearnerIsACopy) { &learners[..] } else { &[] };
        (copies + counted.iter().filter(|replica| has(replica.peer)).count()) as u32
    }

    /// For a leader: the last index known to be on this peer.
    pub fn matched(&self, peer: PeerId) -> Option<Index> {
        Some(Index(self.raw.raft.prs().get(peer.0)?.matched))
    }

    fn hard_state(&self) -> HardState {
        let state = self.raw.raft.hard_state();
        HardState { term: Term(state.term), vote: PeerId(state.vote), commit: Index(state.commit) }
    }
}

/// What the crate writes into a request for a vote if the leader itself has asked its sender to stand.
const CAMPAIGN_TRANSFER: &[u8] = b"CampaignTransfer";

/// Old entries are read in pieces of this many bytes.
const APPENDS_FETCHED_BYTES: usize = 2 * APPEND_BYTES_MAX;
