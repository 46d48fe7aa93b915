//! What clients ask for, and how a trace says it.

use bytes::Bytes;
use ringfort_types::{
    Change, Condition, Consistency, Copies, Durability, LayoutChange, LeaderPreference, NewValue, Part,
    Receipt, Reply, Request, Row, Scan, ShardId, Version, slot_of,
};

use crate::keys::GROUP_KEYS;
use crate::world::World;

/// How far behind the newest version a late write may be.
const VERSIONS_LATE: u64 = 5;

impl World {
    /// What a client does next, if it has nothing to go on with.
    pub(crate) fn draw(&mut self, client: usize) -> Request {
        let key = self.draw_key();
        match self.random.below(100) {
            0..19 => Request::put(key, self.draw_value(client)),
            19 => {
                let preference = self.random.pick(&LeaderPreference::ALL);
                Request::ChangeLayout(LayoutChange::Prefer(preference))
            }
            20..25 => Request::delete(key),
            25..37 => self.draw_write(client),
            37..45 => self.draw_sum(client),
            45..52 => self.draw_versioned(client),
            52..58 => Request::Get { key, consistency: Consistency::Stale },
            58..65 => Request::Scan(self.list(&key)),
            65..74 => self.draw_many(),
            _ => {
                let all = self.clients.keys.all();
                let key = all[self.random.below(all.len() as u64) as usize].clone();
                Request::Get { key, consistency: self.draw_fresh() }
            }
        }
    }

    /// How many copies a write is to have before it is acknowledged, and how long it waits for those beyond a majority.
    pub(crate) fn draw_durability(&mut self, replicas: u64) -> Durability {
        if self.random.chance(50) {
            return Copies::AtLeast(self.random.between(2, replicas) as u32).into();
        }
        Durability { copies: Copies::All, patience_ms: self.random.pick(&[0, 50, 500, 2_000]) }
    }

    /// How a read is asked for that has to see everything before it.
    pub(crate) fn draw_fresh(&mut self) -> Consistency {
        if self.random.chance(40) { Consistency::Lease } else { Consistency::Linearizable }
    }

    /// A key that may have any value.
    fn draw_key(&mut self) -> Bytes {
        if self.random.chance(20) {
            let group = self.draw_group();
            return group[self.random.below(group.len() as u64) as usize].clone();
        }
        let plain = &self.clients.keys.plain;
        plain[self.random.below(plain.len() as u64) as usize].clone()
    }

    fn draw_group(&mut self) -> Vec<Bytes> {
        let luck = self.random.next();
        self.clients.keys.group(luck).to_vec()
    }

    /// Unlike any other, and now and then large.
    pub(crate) fn draw_value(&mut self, client: usize) -> Bytes {
        let mut value = format!("c{client}-{}", self.clients.next_value()).into_bytes();
        if self.random.chance(5) {
            value.resize(self.random.between(1_000, 20_000) as usize, b'.');
        }
        value.into()
    }

    /// A put or delete under a condition, or several of one shard.
    fn draw_write(&mut self, client: usize) -> Request {
        if self.random.chance(50) {
            let key = self.draw_key();
            let condition = Some(self.draw_condition(&key));
            return Request::Write { parts: vec![self.draw_part(client, key, condition)] };
        }
        let mut keys = self.draw_group();
        if self.random.chance(30) {
            keys.remove(self.random.below(GROUP_KEYS as u64) as usize);
        }
        let mut parts = Vec::new();
        for key in keys {
            let condition = if self.random.chance(25) { Some(self.draw_condition(&key)) } else { None };
            parts.push(self.draw_part(client, key, condition));
        }
        Request::Write { parts }
    }

    fn draw_part(&mut self, client: usize, key: Bytes, condition: Option<Condition>) -> Part {
        let change = match self.random.below(100) {
            0..20 => Change::DELETE,
            20..35 if condition.is_some() => Change::Keep,
            _ => Change::put(self.draw_value(client)),
        };
        Part { key, condition, change }
    }

    /// Often one that is met: what somebody has seen last.
    fn draw_condition(&mut self, key: &Bytes) -> Condition {
        let seen = self.clients.keys.seen(key);
        match (seen, self.random.below(100)) {
            (Some(row), 0..40) => Condition::Value(row.value),
            (Some(row), 40..80) => Condition::Revision(row.revision),
            (_, 80..90) => Condition::Present,
            _ => Condition::Absent,
        }
    }

    /// Raises one counter, or several at once, with something of another kind between them.
    fn draw_sum(&mut self, client: usize) -> Request {
        let counters = self.clients.keys.counters() as u64;
        let first = self.random.below(counters);
        let count = if self.random.chance(50) { 1 } else { self.random.between(2, counters) };
        let mut parts = Vec::new();
        for number in first..first + count {
            let (key, by) = self.clients.keys.raise((number % counters) as usize);
            let Some(by) = by else { return Request::Get { key, consistency: Consistency::Linearizable } };
            parts.push(Part::new(key, Change::Add(by)));
        }
        if count > 1 && self.random.chance(40) {
            let beside = self.clients.keys.group_of_counters().to_vec();
            let key = beside[self.random.below(GROUP_KEYS as u64) as usize].clone();
            let condition = if self.random.chance(50) { Some(self.draw_condition(&key)) } else { None };
            let part = self.draw_part(client, key, condition);
            parts.insert(1, part);
        }
        Request::Write { parts }
    }

    /// A put or delete in an order of the clients' own, of which many come late.
    fn draw_versioned(&mut self, client: usize) -> Request {
        let value = if self.random.chance(65) { Some(self.draw_value(client)) } else { None };
        let (luck, late) = (self.random.next(), self.random.below(VERSIONS_LATE + 1));
        let is_late = self.random.chance(50);
        let (key, newest) = self.clients.keys.versioned(luck);
        let number = if is_late { newest.saturating_sub(late).max(1) } else { *newest + 1 };
        *newest = number.max(*newest);
        let version = Some(Version(number));
        let change = match value {
            Some(value) => Change::Put(NewValue { value, version }),
            None => Change::Delete { version },
        };
        let condition = Some(Condition::NotNewerThan(Version(number)));
        Request::Write { parts: vec![Part { key, condition, change }] }
    }

    fn draw_many(&mut self) -> Request {
        let keys = self.draw_group();
        let consistency = if self.random.chance(20) { Consistency::Stale } else { self.draw_fresh() };
        Request::GetMany { keys, consistency }
    }

    /// A list of the shard that has this key, in pages or at once.
    fn list(&mut self, key: &Bytes) -> Scan {
        let shard = self.layout.as_ref().map_or(ShardId(1), |layout| layout.shard_of_slot(slot_of(key)));
        Scan {
            shard,
            at: None,
            from: Bytes::new(),
            prefix: Bytes::from_static(b"key"),
            rows_max: self.random.pick(&[1, 2, 1_000]),
            bytes_max: self.random.pick(&[u32::MAX, u32::MAX, 200, 5_000]),
            keys_only: false,
        }
    }
}

fn text(bytes: &Bytes) -> String {
    bytes[..bytes.len().min(20)].escape_ascii().to_string()
}

pub(crate) fn show(request: &Request) -> String {
    match request {
        Request::Get { key, consistency } => format!("{consistency:?} get {}", text(key)),
        Request::GetMany { keys, consistency } => {
            format!("{consistency:?} get {}", keys.iter().map(text).collect::<Vec<_>>().join(", "))
        }
        Request::Write { parts } if parts.len() == 1 => show_part(&parts[0]),
        Request::Write { parts } => {
            format!("write {}", parts.iter().map(show_part).collect::<Vec<_>>().join(", "))
        }
        Request::Scan(scan) => {
            let Scan { shard, at, from, rows_max, bytes_max, .. } = scan;
            format!("list shard {shard} at {at:?} from {from:?}, {rows_max} rows, {bytes_max} bytes")
        }
        other => format!("{other:?}"),
    }
}

fn show_part(part: &Part) -> String {
    let condition = match &part.condition {
        None => String::new(),
        Some(Condition::Value(value)) => format!(" if it is {}", text(value)),
        Some(other) => format!(" if {other:?}"),
    };
    match &part.change {
        Change::Put(new) => format!("put {} {}{condition}", text(&part.key), text(&new.value)),
        Change::Delete { .. } => format!("delete {}{condition}", text(&part.key)),
        Change::Add(by) => format!("raise {} by {by}{condition}", text(&part.key)),
        Change::Keep => format!("keep {}{condition}", text(&part.key)),
    }
}

pub(crate) fn show_reply(reply: &Reply) -> String {
    let row = |row: &Option<Row>| row.as_ref().map_or_else(|| "absent".to_owned(), |row| text(&row.value));
    match reply {
        Reply::Value { row: found, at, .. } => format!("{} at {at}", row(found)),
        Reply::Values { rows, at, .. } => {
            format!("{} at {at}", rows.iter().map(row).collect::<Vec<_>>().join(", "))
        }
        Reply::Written(receipt) => {
            let Receipt { shard, index, copies, lacking, sums, .. } = receipt;
            format!("written in shard {shard} at {index} by {copies}, lacking {lacking:?}, sums {sums:?}")
        }
        Reply::NotMet { part, revision, at, .. } => format!("part {part} not met by {revision:?} at {at}"),
        Reply::Page(page) => format!("{} rows at {}, next {:?}", page.rows.len(), page.at, page.next),
        Reply::Failed(failure) => format!("{:?}: {}", failure.outcome, failure.message),
        other => format!("{other:?}"),
    }
}
