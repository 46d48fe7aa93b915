//! What clients remember of their requests, for the judges: each answer as what was seen of each key, and when.

use bytes::Bytes;
use ringfort_types::{
    Change, Code, Condition, Consistency, Index, Outcome, Page, Part, Reply, Request, Row, Scan, ShardId,
};

use crate::clients::Asker;
use crate::history::{Action, Operation};
use crate::judges::ANSWERED_ONCE;
use crate::judges::lost_writes::LAST_READER;
use crate::sessions::Pending;
use crate::world::World;

impl World {
    /// A request is over.
    pub(crate) fn remember(&mut self, id: u64, reply: Option<Reply>, outcome: Outcome) {
        let asked = self.clients.asked(id);
        let (request, by, invoked_us, floor) =
            (asked.request.clone(), asked.by, asked.invoked_us, asked.floor);
        let shard = self.shard_of(&request);
        match (&request, reply) {
            (
                Request::Digest { .. }
                | Request::DigestAt { .. }
                | Request::ClusterState
                | Request::ChangeLayout(_),
                _,
            ) => {}
            (Request::Scan(scan), Some(Reply::Page(page))) => {
                self.remember_page(id, by, invoked_us, floor, scan.clone(), page);
            }
            (Request::Get { key, consistency }, Some(Reply::Value { row, at, .. })) => {
                let shard = shard.expect("an answer comes from a born cluster");
                let read = [(key.clone(), row)];
                self.remember_read(id, by, invoked_us, shard, *consistency, &read, (at, floor));
            }
            (Request::GetMany { keys, consistency }, Some(Reply::Values { rows, at, .. })) => {
                let shard = shard.expect("an answer comes from a born cluster");
                let read: Vec<(Bytes, Option<Row>)> = keys.iter().cloned().zip(rows).collect();
                self.remember_read(id, by, invoked_us, shard, *consistency, &read, (at, floor));
            }
            (Request::OpenSession { shard }, Some(Reply::Opened { clock })) => {
                let broken = self.judges.reads.opened(*shard, clock, floor);
                self.find_all(broken.into_iter().collect());
                if let Asker::Client(client) = by {
                    self.session_opened(client, *shard, clock);
                }
                self.clients.count(Some(true));
            }
            (request, reply) if request.is_write() => {
                if matches!(reply, None | Some(Reply::Failed(_))) {
                    if outcome == Outcome::Rejected {
                        return self.clients.count(Some(false));
                    }
                    return self.remember_write(id, invoked_us, request, None);
                }
                self.remember_write(id, invoked_us, request, reply.as_ref());
            }
            (_, Some(Reply::Failed(_)) | None) => self.clients.count(Some(false)),
            (request, Some(other)) => {
                let what = format_args!("{other:?} answers {request:?}");
                self.find(ANSWERED_ONCE, what);
            }
        }
    }

    /// A stamped write whose outcome its client knows at last, or will never know.
    pub(crate) fn remember_stamped(&mut self, id: u64, pending: &Pending, reply: Option<&Reply>) {
        let Some(Reply::Failed(failure)) = reply else {
            return self.remember_write(id, pending.invoked_us, &pending.request, reply);
        };
        self.clients.count(Some(false));
        let was_sent_again = failure.code == Code::SessionExpired && pending.was_sent_again();
        if was_sent_again || failure.outcome == Outcome::Unknown {
            // Not this time. But perhaps when it came before, from its client or from a node that passed it on again.
            self.record_write(id, pending.invoked_us, &pending.request, None);
        }
    }

    fn remember_write(&mut self, id: u64, invoked_us: u64, request: &Request, reply: Option<&Reply>) {
        self.clients.count(reply.map(|_| true));
        self.record_write(id, invoked_us, request, reply);
    }

    fn record_write(&mut self, id: u64, invoked_us: u64, request: &Request, reply: Option<&Reply>) {
        let shard = self.shard_of(request);
        if let (Some(shard), Some(reply)) = (shard, reply)
            && let Some(at) = index_of(reply)
        {
            self.judges.reads.known(shard, at);
        }
        let returned_us = reply.map(|_| self.now_us);
        self.judges.versions.wrote(request, reply, invoked_us, returned_us);
        for (key, action) in self.actions(request, reply) {
            // What a get tells of an unknown outcome is nothing.
            if returned_us.is_none() && matches!(action, Action::Get(_)) {
                continue;
            }
            self.history.push(Operation { client: id, key, action, invoked_us, returned_us });
        }
        self.learn(request, reply);
    }

    /// What a write has done and seen; if its outcome is unknown, what it may have.
    fn actions(&self, request: &Request, reply: Option<&Reply>) -> Vec<(Bytes, Action)> {
        match (request, reply) {
            (Request::Write { parts }, Some(Reply::NotMet { part, revision, .. })) => {
                let (part, met) = (&parts[*part as usize], &parts[..*part as usize]);
                let met =
                    met.iter().filter_map(|met| Some((met.key.clone(), Action::Get(self.demanded(met)?))));
                let found = match revision {
                    None => Some(None),
                    Some(revision) => self.clients.keys.value(&part.key, *revision).map(Some),
                };
                let found = found.map(|found| (part.key.clone(), Action::Get(found)));
                met.chain(found).collect()
            }
            (Request::Write { parts }, reply) => {
                let sums = if let Some(Reply::Written(receipt)) = reply { &receipt.sums[..] } else { &[] };
                let mut sums = sums.iter();
                let mut actions = Vec::new();
                for part in parts {
                    let put = match part.change.clone() {
                        Change::Put(new) => Some(new.value),
                        Change::Delete { .. } => None,
                        Change::Keep => {
                            actions
                                .extend(self.demanded(part).map(|saw| (part.key.clone(), Action::Get(saw))));
                            continue;
                        }
                        Change::Add(by) => {
                            let add = Action::Add { by, gave: sums.next().copied() };
                            actions.push((part.key.clone(), add));
                            continue;
                        }
                    };
                    let action = match (self.demanded(part), put) {
                        (Some(saw), put) => Action::Swap { saw, put },
                        (None, Some(value)) => Action::Put(value),
                        (None, None) => Action::Delete,
                    };
                    actions.push((part.key.clone(), action));
                }
                actions
            }
            (other, _) => unreachable!("{other:?} is not a write of keys"),
        }
    }

    /// What a part's condition says that its key is; `None` if it does not say that much.
    #[expect(
        clippy::option_option,
        reason = "whether it says anything, and then a value or that there is none"
    )]
    fn demanded(&self, part: &Part) -> Option<Option<Bytes>> {
        match part.condition.as_ref()? {
            Condition::Absent => Some(None),
            // That the key is not newer is for `judges::versions`.
            Condition::Present | Condition::NotNewerThan(_) => None,
            Condition::Value(value) => Some(Some(value.clone())),
            Condition::Revision(revision) => self.clients.keys.value(&part.key, *revision).map(Some),
        }
    }

    /// What everybody knows from now on.
    fn learn(&mut self, request: &Request, reply: Option<&Reply>) {
        let Some(Reply::Written(receipt)) = reply else { return };
        let mut learn = |key: &Bytes, value: Option<&Bytes>| {
            let row = value.map(|value| Row { value: value.clone(), revision: receipt.revision });
            self.clients.keys.saw(key, row.as_ref());
        };
        let Request::Write { parts } = request else { return };
        for part in parts {
            match &part.change {
                Change::Put(new) => learn(&part.key, Some(&new.value)),
                Change::Delete { .. } => learn(&part.key, None),
                Change::Add(_) | Change::Keep => {}
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "all that there is to say about a read")]
    fn remember_read(
        &mut self,
        id: u64,
        by: Asker,
        invoked_us: u64,
        shard: ShardId,
        consistency: Consistency,
        read: &[(Bytes, Option<Row>)],
        (at, floor): (Index, Index),
    ) {
        let is_stale = consistency == Consistency::Stale;
        let floor = if is_stale { Index(0) } else { floor };
        for (key, row) in read {
            let broken = self.judges.reads.got(shard, key, row.as_ref(), at, floor);
            self.find_all(broken.into_iter().collect());
        }
        if is_stale {
            return;
        }
        self.clients.count(Some(true));
        self.judges.reads.known(shard, at);
        let client = if by == Asker::Judge { LAST_READER } else { id };
        for (key, row) in read {
            self.clients.keys.saw(key, row.as_ref());
            let value = row.as_ref().map(|row| &row.value);
            if self.clients.keys.is_versioned(key) {
                self.judges.versions.read(key, value, invoked_us, self.now_us);
            }
            if by == Asker::Judge {
                let broken = self.judges.program_order.read_at_the_end(key, value);
                self.find_all(broken.into_iter().collect());
            }
            let action = Action::Get(row.as_ref().map(|row| row.value.clone()));
            let returned_us = Some(self.now_us);
            self.history.push(Operation { client, key: key.clone(), action, invoked_us, returned_us });
        }
    }

    /// A list is a get of every key at one time: of those that it finds, and of those of its shard and prefix that it
    /// doesn't. (That the gets are of one and the same time is for `judges::reads`.)
    fn remember_page(&mut self, id: u64, by: Asker, invoked_us: u64, floor: Index, scan: Scan, page: Page) {
        // Later pages are of the first one's index.
        let floor = if scan.at.is_none() { floor } else { Index(0) };
        let broken = self.judges.reads.listed(scan.shard, &scan, &page, floor);
        self.find_all(broken.into_iter().collect());
        self.clients.count(Some(true));
        if scan.at.is_none() {
            self.judges.reads.known(scan.shard, page.at);
        }
        if let (Some(next), Asker::Client(client)) = (page.next, by) {
            // What was too large for this page is asked for however large it is.
            let bytes_max = if page.rows.is_empty() { u32::MAX } else { scan.bytes_max };
            let rest = Scan { at: Some(page.at), from: next, bytes_max, ..scan };
            self.clients.next.insert(client, rest);
            return;
        }
        if scan.at.is_some() {
            return;
        }
        for key in self.clients.keys.all() {
            let found = page.rows.iter().find(|(found, _)| *found == key);
            let is_listed = key.starts_with(&scan.prefix) && self.shard_of_key(&key) == Some(scan.shard);
            if found.is_none() && !is_listed {
                continue;
            }
            let action = Action::Get(found.map(|(_, row)| row.value.clone()));
            let returned_us = Some(self.now_us);
            self.history.push(Operation { client: id, key, action, invoked_us, returned_us });
        }
    }
}

/// The index that whoever hears this knows the shard to have come to.
fn index_of(reply: &Reply) -> Option<Index> {
    match reply {
        Reply::Written(receipt) => Some(receipt.index),
        Reply::NotMet { at, .. } => Some(*at),
        _ => None,
    }
}
