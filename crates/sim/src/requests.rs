//! What clients ask for.
//!
//! Most keys are put, deleted, and written under conditions, each value unlike any other; some share a part in braces,
//! so that several of them can be written and read at once; and a few are only raised, each time by another power of
//! two.

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_types::{
    Change, Condition, Consistency, Part, Reply, Request, Revision, Row, Scan, ShardId, slot_of,
};

use crate::world::World;

/// Groups of keys with one part in braces, and the keys of each.
const GROUPS: usize = 2;
const GROUP_KEYS: usize = 3;
const COUNTERS: usize = 3;
/// An i64 has no more powers of two.
const RAISES_MAX: u32 = 62;

/// The keys of a run, and what clients have come to know of them.
#[derive(Debug)]
pub(crate) struct Keys {
    plain: Vec<Bytes>,
    groups: Vec<Vec<Bytes>>,
    /// Each with how often it was raised.
    counters: Vec<(Bytes, u32)>,
    /// What a key was when somebody last heard of it.
    seen: BTreeMap<Bytes, Option<Row>>,
    /// The value that a key had at a revision.
    values: BTreeMap<(Bytes, Revision), Bytes>,
}

impl Keys {
    pub(crate) fn new(plain: usize) -> Keys {
        let group = |group| (0..GROUP_KEYS).map(|n| Bytes::from(format!("key{{t{group}}}{n}"))).collect();
        Keys {
            plain: (0..plain).map(|n| Bytes::from(format!("key{n}"))).collect(),
            groups: (0..GROUPS).map(group).collect(),
            counters: (0..COUNTERS).map(|n| (Bytes::from(format!("keys{n}")), 0)).collect(),
            seen: BTreeMap::new(),
            values: BTreeMap::new(),
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Bytes> {
        let counters = self.counters.iter().map(|(key, _)| key);
        self.plain.iter().chain(self.groups.iter().flatten()).chain(counters).cloned().collect()
    }

    /// Those that may have any value.
    pub(crate) fn settable(&self) -> impl Iterator<Item = &Bytes> {
        self.plain.iter().chain(self.groups.iter().flatten())
    }

    /// Somebody has seen what a key is.
    pub(crate) fn saw(&mut self, key: &Bytes, row: Option<&Row>) {
        if let Some(row) = row {
            self.values.insert((key.clone(), row.revision), row.value.clone());
        }
        self.seen.insert(key.clone(), row.cloned());
    }

    /// The value that a key had at this revision, if anybody has seen that.
    pub(crate) fn value(&self, key: &Bytes, revision: Revision) -> Option<Bytes> {
        self.values.get(&(key.clone(), revision)).cloned()
    }
}

impl World {
    /// What a client does next, if it has nothing to go on with.
    pub(crate) fn draw(&mut self, client: usize) -> Request {
        let key = self.draw_key();
        match self.random.below(100) {
            0..24 => Request::Put { key, value: self.draw_value(client) },
            24..30 => Request::Delete { key },
            30..44 => self.draw_write(client),
            44..52 => self.draw_increment(),
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

    /// How a read is asked for that has to see everything before it.
    pub(crate) fn draw_fresh(&mut self) -> Consistency {
        if self.random.chance(40) { Consistency::Lease } else { Consistency::Linearizable }
    }

    /// A key that is not a counter.
    fn draw_key(&mut self) -> Bytes {
        if self.random.chance(20) {
            let group = self.draw_group();
            return group[self.random.below(group.len() as u64) as usize].clone();
        }
        let plain = &self.clients.keys.plain;
        plain[self.random.below(plain.len() as u64) as usize].clone()
    }

    fn draw_group(&mut self) -> Vec<Bytes> {
        self.clients.keys.groups[self.random.below(GROUPS as u64) as usize].clone()
    }

    /// Unlike any other, and now and then large.
    fn draw_value(&mut self, client: usize) -> Bytes {
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
            0..20 => Change::Delete,
            20..35 if condition.is_some() => Change::Keep,
            _ => Change::Put(self.draw_value(client)),
        };
        Part { key, condition, change }
    }

    /// Often one that is met: what somebody has seen last.
    fn draw_condition(&mut self, key: &Bytes) -> Condition {
        let seen = self.clients.keys.seen.get(key).cloned().flatten();
        match (seen, self.random.below(100)) {
            (Some(row), 0..40) => Condition::Value(row.value),
            (Some(row), 40..80) => Condition::Revision(row.revision),
            (_, 80..90) => Condition::Present,
            _ => Condition::Absent,
        }
    }

    fn draw_increment(&mut self) -> Request {
        let at = self.random.below(COUNTERS as u64) as usize;
        let (key, raises) = &mut self.clients.keys.counters[at];
        let key = key.clone();
        if *raises == RAISES_MAX {
            return Request::Get { key, consistency: Consistency::Linearizable };
        }
        *raises += 1;
        Request::Increment { key, by: 1 << (*raises - 1) }
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
            bytes_max: u32::MAX,
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
        Request::Put { key, value } => format!("put {} {}", text(key), text(value)),
        Request::Delete { key } => format!("delete {}", text(key)),
        Request::Write { parts } => {
            format!("write {}", parts.iter().map(show_part).collect::<Vec<_>>().join(", "))
        }
        Request::Increment { key, by } => format!("raise {} by {by}", text(key)),
        Request::Scan(scan) => {
            format!("list shard {} at {:?} from {:?}, {} rows", scan.shard, scan.at, scan.from, scan.rows_max)
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
        Change::Put(value) => format!("put {} {}{condition}", text(&part.key), text(value)),
        Change::Delete => format!("delete {}{condition}", text(&part.key)),
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
            format!("written in shard {} at {} by {}", receipt.shard, receipt.index, receipt.copies)
        }
        Reply::Counted { value, receipt } => {
            format!("{value}, in shard {} at {}", receipt.shard, receipt.index)
        }
        Reply::NotMet { part, revision, at, .. } => format!("part {part} not met by {revision:?} at {at}"),
        Reply::Page(page) => format!("{} rows at {}, next {:?}", page.rows.len(), page.at, page.next),
        Reply::Failed(failure) => format!("{:?}: {}", failure.outcome, failure.message),
        other => format!("{other:?}"),
    }
}
