//! The reads of one replica, from when they come in until its table may be read for them.
//!
//! Where the replica leads, a read goes `fresh` → `rounds` (until a majority has confirmed the term) → `confirmed`
//! (until the table is there). Where it follows, `fresh` → `asking` (until the leader has told it an index, after a round
//! of its own) → `confirmed`. A lease read of a leader whose lease holds is confirmed at once. A follower whose table does not get
//! on to the index (its disk takes nothing, so no entry reaches it) gives the read to the leader, which answers it from its own.
//!
//! **Leases** (Raft thesis, 6.4.1). Whoever confirms a leader's term stands for no election, and grants no vote, for the
//! shortest election timeout afterwards (`Group::heard_leader`), also if it is started anew meanwhile. So for that long
//! after a round's question was *sent*, nobody else leads. The lease takes less of it ([`LEASE_MS`]), because clocks
//! may run at different speeds. Handing leadership over is the one way around: who has begun to do that has no lease
//! for the rest of the term. A change of the group's configuration ends it, too: whoever decides from then on need not have
//! confirmed anything. The index is taken first, then the lease is looked at, and the value is read at that
//! index or later: whatever time passes after that does no harm.
//!
//! Invariants: a round counts only while this replica leads at the term, and in the configuration, at which it began, and an index from the leader
//! only at the term at which it was told (PITFALLS 11); a question covers the reads that were there when it was sent,
//! and no later ones.

use std::collections::{BTreeMap, VecDeque};

use ringfort_types::limits::LEASE_MS;
use ringfort_types::planted::{self, Bug};
use ringfort_types::{Configuration, Index, NodeId, PeerId, ReadIndexReply, Replica, Request, ShardId, Term};

use crate::ReadJob;
use crate::pending::Pending;

const LEASE_US: u64 = LEASE_MS * 1_000;

/// A table that reads wait for and that takes nothing for so long is not waited for any more, as far as the leader can answer.
const TABLE_STUCK_US: u64 = 150_000;

/// Reads that wait for a majority's word.
#[derive(Debug)]
struct Round {
    number: u64,
    began_us: u64,
    term: Term,
    /// The configuration in force when it began.
    configured: Index,
    index: Index,
    /// Other replicas that have confirmed the term.
    confirmed_by: Vec<PeerId>,
    asked: Vec<Pending>,
    questions: BTreeMap<NodeId, u64>,
}

/// Reads that wait for the leader's word.
#[derive(Debug)]
struct Asking {
    number: u64,
    leader: NodeId,
    since_us: u64,
    asked: Vec<Pending>,
}

/// What its replica is, while reads are settled.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<'a> {
    /// Which replica it is.
    pub(crate) me: PeerId,
    /// Whether it leads.
    pub(crate) leads: bool,
    /// Its term.
    pub(crate) term: Term,
    /// Its group.
    pub(crate) configuration: &'a Configuration,
}

/// One replica's reads.
#[derive(Debug)]
pub(crate) struct Reads {
    shard: ShardId,
    fresh: Vec<Pending>,
    /// Other nodes that want to know an index, with the number of each one's latest question.
    questions: BTreeMap<NodeId, u64>,
    rounds: VecDeque<Round>,
    /// Answers to such questions, to be sent.
    told: Vec<(NodeId, ReadIndexReply)>,
    asking: Option<Asking>,
    confirmed: Vec<(Index, Pending)>,
    /// Where the table was when a read was first seen to wait for it there, and when that was.
    waits_at: Option<(Index, u64)>,
    /// The table has stayed here for too long while reads waited for it.
    stuck_at: Option<Index>,
    /// The term in which nobody else leads, and until when.
    lease: Option<(Term, u64)>,
    /// In this term leadership has been, or may have been, handed over.
    handed_over: Option<Term>,
}

impl Reads {
    pub(crate) fn new(shard: ShardId) -> Reads {
        Reads {
            shard,
            fresh: Vec::new(),
            questions: BTreeMap::new(),
            rounds: VecDeque::new(),
            told: Vec::new(),
            asking: None,
            confirmed: Vec::new(),
            waits_at: None,
            stuck_at: None,
            lease: None,
            handed_over: None,
        }
    }

    pub(crate) fn add(&mut self, asked: Pending) {
        self.fresh.push(asked);
    }

    /// A read at an index that is known; it waits for the table only.
    pub(crate) fn add_at(&mut self, at: Index, asked: Pending) {
        self.confirmed.push((at, asked));
    }

    /// Another node's question. An earlier one of the same node has been given up by now.
    pub(crate) fn add_question(&mut self, from: NodeId, number: u64) {
        self.questions.insert(from, number);
    }

    /// Whether anything waits that no question covers.
    pub(crate) fn are_fresh(&self) -> bool {
        !self.fresh.is_empty() || !self.questions.is_empty()
    }

    /// Reads that are here.
    pub(crate) fn count(&self) -> usize {
        let asking = self.rounds.iter().map(|round| round.asked.len()).sum::<usize>();
        let following = self.asking.as_ref().map_or(0, |asking| asking.asked.len());
        self.fresh.len() + asking + following + self.confirmed.len()
    }

    /// Whether a read waits for the table only.
    pub(crate) fn await_table(&self) -> bool {
        !self.confirmed.is_empty()
    }

    /// Hands over the reads that the table, which has this index, can answer.
    pub(crate) fn release(&mut self, applied: Index, ready: &mut Vec<ReadJob>) {
        if self.confirmed.iter().all(|(at, _)| *at > applied) {
            return;
        }
        for (at, asked) in self.confirmed.extract_if(.., |(at, _)| *at <= applied) {
            ready.push(read_job(self.shard, at, applied, asked));
        }
    }

    /// Takes out what is past its deadline.
    pub(crate) fn expire(&mut self, now_us: u64) -> Vec<Pending> {
        let is_late = |asked: &mut Pending| asked.deadline_us <= now_us;
        let mut late: Vec<Pending> = self.fresh.extract_if(.., is_late).collect();
        for round in &mut self.rounds {
            late.extend(round.asked.extract_if(.., is_late));
        }
        if let Some(asking) = &mut self.asking {
            late.extend(asking.asked.extract_if(.., is_late));
        }
        late.extend(self.confirmed.extract_if(.., |(_, asked)| is_late(asked)).map(|(_, asked)| asked));
        late
    }
}

/// Where the replica leads.
impl Reads {
    /// Begins a round for all that is fresh: this index is what they have to see, if this is still the leader.
    pub(crate) fn begin_round(&mut self, number: u64, now_us: u64, index: Index, standing: Standing<'_>) {
        let (asked, questions) = (std::mem::take(&mut self.fresh), std::mem::take(&mut self.questions));
        self.rounds.push_back(Round {
            number,
            began_us: now_us,
            term: standing.term,
            configured: standing.configuration.at,
            index,
            confirmed_by: Vec::new(),
            asked,
            questions,
        });
        self.settle_rounds(now_us, standing);
    }

    /// Another replica has confirmed the term that it was asked about in this round. Its word counts once, however often it
    /// arrives.
    pub(crate) fn confirm(&mut self, number: u64, by: PeerId, now_us: u64, standing: Standing<'_>) {
        let Some(round) = self.rounds.iter_mut().find(|round| round.number == number) else { return };
        if !round.confirmed_by.contains(&by) {
            round.confirmed_by.push(by);
            self.settle_rounds(now_us, standing);
        }
    }

    /// Whether anything still waits for this round.
    pub(crate) fn wait_for(&self, number: u64) -> bool {
        self.rounds.iter().any(|round| round.number == number)
    }

    fn settle_rounds(&mut self, now_us: u64, standing: Standing<'_>) {
        let Standing { me, leads, term, configuration } = standing;
        let is_confirmed = |round: &Round| {
            is_quorum(configuration, |peer| peer == me || round.confirmed_by.contains(&peer))
                || planted::is(Bug::ReadWithoutQuorum)
        };
        let counts = |round: &Round| leads && round.term == term && round.configured == configuration.at;
        let Some(last) = self.rounds.iter().rposition(is_confirmed) else { return };
        let (settled_us, is_settled) = (self.rounds[last].began_us, counts(&self.rounds[last]));
        for round in self.rounds.drain(..=last) {
            if counts(&round) {
                self.confirmed.extend(round.asked.into_iter().map(|asked| read_at(round.index, asked)));
                let told = |(node, number)| {
                    (node, ReadIndexReply { shard: self.shard, number, told: Some((term, round.index)) })
                };
                self.told.extend(round.questions.into_iter().map(told));
            } else {
                self.fresh.extend(round.asked);
                self.questions.extend(round.questions);
            }
        }
        if is_settled && (self.handed_over != Some(term) || planted::is(Bug::LeaseSurvivesTransfer)) {
            let since_us = if planted::is(Bug::LeaseFromAnswer) { now_us } else { settled_us };
            self.lease = self.lease.max(Some((term, since_us + LEASE_US)));
        }
    }

    /// Gives up rounds up to this one: what waits for them is asked about again.
    pub(crate) fn abandon_rounds(&mut self, through: u64) {
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= through) {
            self.fresh.extend(round.asked);
            for (node, number) in round.questions {
                self.questions.entry(node).or_insert(number);
            }
        }
    }

    /// Whether nobody else leads now, as long as this replica leads at this term.
    pub(crate) fn lease_holds(&self, term: Term, now_us: u64) -> bool {
        self.lease.is_some_and(|(leased, until_us)| leased == term && now_us < until_us)
    }

    /// Leadership is about to be handed over.
    pub(crate) fn end_lease(&mut self, term: Term) {
        if !planted::is(Bug::LeaseSurvivesTransfer) {
            (self.lease, self.handed_over) = (None, Some(term));
        }
    }

    /// For [`Bug::RoundSurvivesReconfiguration`]: the lease ends, and rounds that are on their way give another one.
    pub(crate) fn drop_lease(&mut self) {
        self.lease = None;
    }

    /// Another configuration is in force: rounds and the lease are of the one before. What waits for them is asked about
    /// again.
    pub(crate) fn void(&mut self) {
        self.abandon_rounds(u64::MAX);
        self.lease = None;
    }

    /// Answers to other nodes' questions.
    pub(crate) fn take_told(&mut self) -> Vec<(NodeId, ReadIndexReply)> {
        std::mem::take(&mut self.told)
    }
}

/// Whether those of whom this is true are enough.
fn is_quorum(configuration: &Configuration, holds: impl Fn(PeerId) -> bool) -> bool {
    let count = |of: &[Replica]| of.iter().filter(|replica| holds(replica.peer)).count();
    let Configuration { voters, learners, .. } = configuration;
    configuration.is_quorum(&holds)
        || (planted::is(Bug::JointCountsNewHalf) && 2 * count(voters) > voters.len())
        || (planted::is(Bug::LearnerCounts) && 2 * (count(voters) + count(learners)) > voters.len())
}

/// Where it follows, or nobody leads.
impl Reads {
    /// It does not lead (any more): its rounds are void, and other nodes have to ask elsewhere.
    pub(crate) fn step_down(&mut self) {
        self.abandon_rounds(u64::MAX);
        let refused = |(node, number)| (node, ReadIndexReply { shard: self.shard, number, told: None });
        self.told.extend(std::mem::take(&mut self.questions).into_iter().map(refused));
    }

    /// Takes out what is fresh, because there is nobody to ask.
    pub(crate) fn take_fresh(&mut self) -> Vec<Pending> {
        std::mem::take(&mut self.fresh)
    }

    /// Whether the leader may be asked a question for what is fresh; else that waits for the answer to the last one.
    pub(crate) fn may_ask(&self) -> bool {
        self.asking.is_none()
    }

    /// The leader is being asked for an index, for all that is fresh.
    pub(crate) fn begin_asking(&mut self, number: u64, leader: NodeId, now_us: u64) {
        let asked = std::mem::take(&mut self.fresh);
        self.asking = Some(Asking { number, leader, since_us: now_us, asked });
    }

    /// The leader has told an index, or that it does not lead: then the reads come back that were asked for.
    pub(crate) fn hear(&mut self, from: NodeId, reply: &ReadIndexReply, now: Term) -> Vec<Pending> {
        let is_it = |asking: &mut Asking| asking.number == reply.number && asking.leader == from;
        let Some(asking) = self.asking.take_if(is_it) else { return Vec::new() };
        match reply.told {
            Some((term, index)) if term == now => {
                self.confirmed.extend(asking.asked.into_iter().map(|asked| read_at(index, asked)));
                Vec::new()
            }
            Some(_) => {
                self.fresh.extend(asking.asked);
                Vec::new()
            }
            None => asking.asked,
        }
    }

    /// Whether the leader was asked, and there is no answer since this time.
    pub(crate) fn asked_in_vain(&self, since_us: u64) -> bool {
        self.asking.as_ref().is_some_and(|asking| asking.since_us < since_us)
    }

    /// Looks, with each tick, whether the table gets on, which has this index now.
    pub(crate) fn look_at_table(&mut self, applied: Index, now_us: u64) {
        if self.confirmed.is_empty() {
            self.waits_at = None;
            return;
        }
        let since_us =
            self.waits_at.filter(|(at, _)| *at == applied).map_or(now_us, |(_, since_us)| since_us);
        self.waits_at = Some((applied, since_us));
        if now_us - since_us >= TABLE_STUCK_US {
            self.stuck_at = Some(applied);
        }
    }

    /// Whether the table, which has this index, took nothing for too long the last time that reads waited for it.
    pub(crate) fn is_stuck(&self, applied: Index) -> bool {
        self.stuck_at == Some(applied)
    }

    /// Takes out what waits for the table and can be asked of the leader instead. A digest is of this replica.
    pub(crate) fn take_unserved(&mut self) -> Vec<Pending> {
        let is_movable = |(_, asked): &mut (Index, Pending)| !asked.is_of_one_replica();
        self.confirmed.extract_if(.., is_movable).map(|(_, asked)| asked).collect()
    }

    /// What the leader was asked for is asked about again.
    pub(crate) fn ask_again(&mut self) {
        if let Some(asking) = self.asking.take() {
            self.fresh.extend(asking.asked);
        }
    }
}

/// Where a read is done that has to see this index. A digest is of the index that it names, which is looked for there if it is a
/// later one: then the log does not have it.
fn read_at(index: Index, asked: Pending) -> (Index, Pending) {
    match asked.call.request {
        Request::DigestAt { index: named, .. } => (named.min(index), asked),
        _ => (index, asked),
    }
}

/// A scan or digest that names its index is read there; everything else as late as the table allows.
fn read_job(shard: ShardId, at: Index, applied: Index, asked: Pending) -> ReadJob {
    let named = match &asked.call.request {
        Request::Scan(scan) => scan.at.is_some(),
        Request::DigestAt { .. } => true,
        _ => false,
    };
    ReadJob { token: asked.token, shard, at: if named { at } else { applied }, request: asked.call.request }
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Consistency, Replica, Token};

    use super::*;

    const NODE: NodeId = NodeId(2);
    const PEER: PeerId = PeerId(12);

    /// The first of so many replicas, on nodes 1, 2 and so on, whose peers are 11, 12 and so on.
    fn group(replicas: u64) -> Configuration {
        let replica = |node| Replica { node: NodeId(node), peer: PeerId(10 + node) };
        Configuration::born((1..=replicas).map(replica).collect())
    }

    fn leads(group: &Configuration) -> Standing<'_> {
        Standing { me: PeerId(11), leads: true, term: Term(5), configuration: group }
    }

    fn asked(id: u64) -> Pending {
        let request = Request::Get { key: "k".into(), consistency: Consistency::Lease };
        let token = Token { origin: NodeId(1), id };
        let call = request.into();
        Pending { token, call, deadline_us: 9_000_000, retry_at_us: 0, in_doubt: false }
    }

    fn released(reads: &mut Reads, applied: u64) -> Vec<u64> {
        let mut jobs = Vec::new();
        reads.release(Index(applied), &mut jobs);
        jobs.iter().map(|job| job.token.id).collect()
    }

    #[test]
    fn a_table_is_stuck_if_it_takes_nothing_while_reads_wait_and_until_it_takes_something() {
        let mut reads = Reads::new(ShardId(1));
        reads.look_at_table(Index(3), 1_000);
        reads.add_at(Index(5), asked(1));
        reads.look_at_table(Index(3), 500_000);
        assert!(!reads.is_stuck(Index(3)), "nobody waited before");
        reads.look_at_table(Index(4), 600_000);
        reads.look_at_table(Index(4), 600_000 + TABLE_STUCK_US - 1);
        assert!(!reads.is_stuck(Index(4)), "it has got on meanwhile");
        reads.look_at_table(Index(4), 600_000 + TABLE_STUCK_US);
        assert!(reads.is_stuck(Index(4)) && !reads.is_stuck(Index(5)));
        assert_eq!(reads.take_unserved().len(), 1);
        reads.look_at_table(Index(4), 900_000);
        assert!(reads.is_stuck(Index(4)), "the next read need not wait to learn it");
    }

    #[test]
    fn a_lease_runs_from_the_question_that_a_majority_confirms() {
        let (group, mut reads) = (group(3), Reads::new(ShardId(1)));
        reads.begin_round(1, 1_000, Index(7), leads(&group));
        assert!(!reads.lease_holds(Term(5), 1_000));
        reads.confirm(1, PEER, 151_000, leads(&group));
        assert!(reads.lease_holds(Term(5), 1_000 + LEASE_US - 1));
        assert!(!reads.lease_holds(Term(5), 1_000 + LEASE_US));
        assert!(!reads.lease_holds(Term(6), 1_001));
    }

    #[test]
    fn who_hands_over_has_no_lease_for_the_rest_of_the_term() {
        let (group, mut reads) = (group(3), Reads::new(ShardId(1)));
        reads.begin_round(1, 0, Index(7), leads(&group));
        reads.confirm(1, PEER, 1, leads(&group));
        reads.end_lease(Term(5));
        assert!(!reads.lease_holds(Term(5), 2));
        reads.begin_round(2, 3, Index(7), leads(&group));
        reads.confirm(2, PEER, 4, leads(&group));
        assert!(!reads.lease_holds(Term(5), 5));
        let later = Standing { term: Term(8), ..leads(&group) };
        reads.begin_round(3, 6, Index(9), later);
        reads.confirm(3, PEER, 7, later);
        assert!(reads.lease_holds(Term(8), 8));
    }

    #[test]
    fn a_round_of_an_earlier_term_confirms_nothing() {
        let (group, mut reads) = (group(3), Reads::new(ShardId(1)));
        reads.add(asked(1));
        reads.add_question(NODE, 9);
        reads.begin_round(1, 0, Index(7), leads(&group));
        reads.confirm(1, PEER, 1, Standing { term: Term(6), ..leads(&group) });
        assert!(reads.are_fresh() && reads.take_told().is_empty() && !reads.lease_holds(Term(6), 2));
        assert_eq!(released(&mut reads, 100), Vec::<u64>::new());
        reads.step_down();
        let refused = ReadIndexReply { shard: ShardId(1), number: 9, told: None };
        assert_eq!(reads.take_told(), [(NODE, refused)]);
    }

    #[test]
    fn a_round_counts_in_the_configuration_in_which_it_began_and_with_a_majority_of_both_sets() {
        let (old, mut reads) = (group(3), Reads::new(ShardId(1)));
        reads.add(asked(1));
        reads.begin_round(1, 0, Index(7), leads(&old));
        let next = group(5);
        let joint =
            Configuration { at: Index(8), voters: next.voters[2..].to_vec(), outgoing: old.voters, ..next };
        reads.confirm(1, PEER, 1, leads(&joint));
        reads.confirm(1, PeerId(13), 1, leads(&joint));
        reads.confirm(1, PeerId(14), 2, leads(&joint));
        assert!(reads.are_fresh() && !reads.lease_holds(Term(5), 3), "it began before");
        reads.begin_round(2, 3, Index(9), leads(&joint));
        for peer in [14, 15] {
            reads.confirm(2, PeerId(peer), 4, leads(&joint));
            assert!(!reads.lease_holds(Term(5), 5), "a majority of the incoming voters alone");
        }
        reads.confirm(2, PEER, 6, leads(&joint));
        assert_eq!(released(&mut reads, 9), [1]);
        assert!(reads.lease_holds(Term(5), 7));
    }

    #[test]
    fn another_configuration_ends_the_lease_and_begins_all_rounds_anew() {
        let (old, mut reads) = (group(3), Reads::new(ShardId(1)));
        reads.begin_round(1, 0, Index(7), leads(&old));
        reads.confirm(1, PEER, 1, leads(&old));
        reads.add(asked(1));
        reads.add_question(NODE, 9);
        reads.begin_round(2, 2, Index(7), leads(&old));
        assert!(reads.lease_holds(Term(5), 3) && !reads.are_fresh());
        reads.void();
        assert!(!reads.lease_holds(Term(5), 3) && reads.are_fresh() && !reads.wait_for(2));
        let new = Configuration { at: Index(8), ..old };
        reads.begin_round(3, 4, Index(8), leads(&new));
        reads.confirm(2, PEER, 5, leads(&new));
        assert_eq!(released(&mut reads, 8), Vec::<u64>::new(), "an answer from before");
        reads.confirm(3, PEER, 6, leads(&new));
        assert_eq!((released(&mut reads, 8), reads.take_told().len()), (vec![1], 1));
        assert!(reads.lease_holds(Term(5), 7));
    }

    #[test]
    fn a_follower_reads_at_the_index_that_it_was_told_and_not_before() {
        let mut reads = Reads::new(ShardId(1));
        reads.add(asked(1));
        reads.begin_asking(3, NODE, 0);
        reads.add(asked(2));
        let told = |number, told| ReadIndexReply { shard: ShardId(1), number, told };
        assert!(reads.hear(NODE, &told(2, Some((Term(5), Index(1)))), Term(5)).is_empty());
        assert!(reads.hear(NodeId(3), &told(3, Some((Term(5), Index(1)))), Term(5)).is_empty());
        assert!(!reads.await_table());
        reads.hear(NODE, &told(3, Some((Term(5), Index(7)))), Term(5));
        assert_eq!(released(&mut reads, 6), Vec::<u64>::new());
        assert_eq!(released(&mut reads, 7), [1]);
        assert!(reads.are_fresh() && reads.may_ask());
    }

    #[test]
    fn an_index_of_another_term_is_thrown_away_and_a_refusal_gives_the_reads_back() {
        let mut reads = Reads::new(ShardId(1));
        reads.add(asked(1));
        reads.begin_asking(1, NODE, 0);
        let told = |number, told| ReadIndexReply { shard: ShardId(1), number, told };
        reads.hear(NODE, &told(1, Some((Term(5), Index(7)))), Term(6));
        assert!(reads.are_fresh() && !reads.await_table());
        reads.begin_asking(2, NODE, 0);
        assert!(reads.asked_in_vain(1));
        assert_eq!(reads.hear(NODE, &told(2, None), Term(6)).len(), 1);
    }
}
