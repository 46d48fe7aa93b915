//! Every read is the shard at one index: the one that its answer names. What a get, a page of a list, or a stale
//! get shows is what the entries up to that index have made (DESIGN §5: a shard at one index for a whole list, and for
//! several keys that are read at once; `stale` with its index). A read that is to be linearizable names none before the last one that had been
//! acknowledged or read when it was asked.
//!
//! This looks into the order of entries and so says at once what is wrong; that the histories which clients see are
//! linearizable is judged apart from it, by nothing but them (`linearizable`).

use std::collections::BTreeMap;

use bytes::Bytes;
use ringfort_ring::Layout;
use ringfort_types::{HybridClock, Index, LogEntry, Page, Reply, Revision, Row, Scan, ShardId, Stamp};

use super::replay::{Found, Replay, bare};
use super::{Broken, broken};

const NAME: &str = "a read is the shard at one index, and not an old one";
const REPLIES: &str = "a command is answered what its place in the log makes of it";

/// One shard as its committed entries have made it.
#[derive(Debug, Default)]
struct History {
    applied: Index,
    replay: Replay,
    /// What each entry's commands must be answered, and the clock after it.
    entries: BTreeMap<Index, (Vec<Reply>, HybridClock)>,
    keys: BTreeMap<Bytes, Vec<(Index, Found)>>,
    /// The highest index that a client knows to be there.
    known: Index,
}

impl History {
    fn at(&self, key: &Bytes, index: Index) -> Found {
        let versions = self.keys.get(key)?;
        let after = versions.partition_point(|(set, _)| *set <= index);
        versions[..after].last()?.1.clone()
    }
}

#[derive(Debug, Default)]
pub(crate) struct Reads {
    shards: BTreeMap<ShardId, History>,
}

impl Reads {
    /// The cluster is born with this layout.
    pub(crate) fn born(&mut self, layout: &Layout) {
        self.shards.entry(ShardId::META).or_default().replay.layout = Some(layout.clone());
    }

    /// An entry has been applied for the first time anywhere. They come in order. The stamps of those of its commands that
    /// have changed something.
    pub(crate) fn committed(&mut self, shard: ShardId, entry: &LogEntry) -> Vec<Stamp> {
        let history = self.shards.entry(shard).or_default();
        history.applied = entry.index;
        let (replies, changes) = history.replay.apply(shard, entry);
        history.entries.insert(entry.index, (replies, history.replay.clock));
        for (key, version) in changes {
            history.keys.entry(key).or_default().push((entry.index, version));
        }
        history.replay.take_done()
    }

    /// A replica has applied an entry, and would tell this to those who wait for its commands.
    pub(crate) fn replied(
        &self,
        host: usize,
        shard: ShardId,
        index: Index,
        replies: &[Reply],
    ) -> Option<Broken> {
        let (expected, _) = self.shards.get(&shard)?.entries.get(&index)?;
        let replies: Vec<Reply> = replies.iter().map(bare).collect();
        let at = (0..replies.len().max(expected.len())).find(|at| replies.get(*at) != expected.get(*at))?;
        let (is, should) = (replies.get(at), expected.get(at));
        Some(broken!(
            REPLIES,
            "n{} answers command {at} of entry {index} in shard {shard} with {is:?}; it should be {should:?}",
            host + 1
        ))
    }

    /// A session is opened with this clock; `floor` is the index that it must not be before.
    pub(crate) fn opened(&self, shard: ShardId, clock: HybridClock, floor: Index) -> Option<Broken> {
        let history = self.shards.get(&shard)?;
        let least = history.entries.get(&floor).map_or(HybridClock(0), |(_, clock)| *clock);
        let most = history.replay.clock;
        (clock < least || clock > most).then(|| {
            broken!(
                NAME,
                "a session of shard {shard} is opened at {clock:?}, not from {least:?} ({floor}) to {most:?}"
            )
        })
    }

    /// The index that a read of this shard must not be before if it is asked now.
    pub(crate) fn floor(&self, shard: ShardId) -> Index {
        self.shards.get(&shard).map_or(Index(0), |history| history.known)
    }

    /// A client knows that the shard has come to this index.
    pub(crate) fn known(&mut self, shard: ShardId, index: Index) {
        let history = self.shards.entry(shard).or_default();
        history.known = history.known.max(index);
    }

    /// A get is answered as of `at`; `floor` is the index that it must not be before.
    pub(crate) fn got(
        &self,
        shard: ShardId,
        key: &Bytes,
        found: Option<&Row>,
        at: Index,
        floor: Index,
    ) -> Option<Broken> {
        let history = self.shards.get(&shard)?;
        if let Some(old) = early(history, shard, at, floor) {
            return Some(old);
        }
        let is = history.at(key, at);
        let found = found.map(|row| (row.value.clone(), row.revision));
        (found != is).then(|| {
            broken!(
                NAME,
                "{key:?} is read as {} at {at} of shard {shard}, where it is {}",
                show(found.as_ref()),
                show(is.as_ref())
            )
        })
    }

    /// A page of a list is answered.
    pub(crate) fn listed(&self, shard: ShardId, scan: &Scan, page: &Page, floor: Index) -> Option<Broken> {
        let history = self.shards.get(&shard)?;
        if let Some(old) = early(history, shard, page.at, floor) {
            return Some(old);
        }
        if let Some(what) = ends_badly(scan, page) {
            return Some(broken!(NAME, "a page of shard {shard} {what}: {scan:?}, next {:?}", page.next));
        }
        if scan.at.is_some_and(|at| at != page.at) {
            return Some(broken!(
                NAME,
                "a page at {:?} of shard {shard} is answered at {}",
                scan.at,
                page.at
            ));
        }
        let from = scan.from.clone().max(scan.prefix.clone());
        let rows = history.keys.range(from..).take_while(|(key, _)| key.starts_with(&scan.prefix));
        let rows = rows.filter_map(|(key, _)| Some((key, history.at(key, page.at)?)));
        let until = |key: &Bytes| page.next.as_ref().is_none_or(|next| key < next);
        let is: Vec<(&Bytes, (Bytes, Revision))> = rows.take_while(|(key, _)| until(key)).collect();
        let found: Vec<(&Bytes, (Bytes, Revision))> =
            page.rows.iter().map(|(key, row)| (key, (row.value.clone(), row.revision))).collect();
        (found != is).then(|| {
            let keys = |rows: &[(&Bytes, (Bytes, Revision))]| {
                let shown = rows.iter().map(|(key, version)| format!("{key:?} = {}", show(Some(version))));
                shown.collect::<Vec<_>>().join(", ")
            };
            broken!(
                NAME,
                "a list of shard {shard} at {} shows [{}], where there is [{}]",
                page.at,
                keys(&found),
                keys(&is)
            )
        })
    }
}

/// Why whoever goes on with what a page says would not come to an end.
fn ends_badly(scan: &Scan, page: &Page) -> Option<&'static str> {
    if page.rows.len() > scan.rows_max as usize {
        return Some("has more rows than were asked for");
    }
    let next = page.next.as_ref()?;
    if *next < scan.from {
        return Some("goes back");
    }
    (page.rows.is_empty()
        && scan.bytes_max == u32::MAX
        && *next <= scan.from.clone().max(scan.prefix.clone()))
    .then_some("does not go on")
}

fn early(history: &History, shard: ShardId, at: Index, floor: Index) -> Option<Broken> {
    if at > history.applied {
        return Some(broken!(
            NAME,
            "a read at {at} of shard {shard}, which has come to {} only",
            history.applied
        ));
    }
    (at < floor).then(|| {
        broken!(
            NAME,
            "a read of shard {shard} is answered as of {at}; {floor} had been acknowledged or read before"
        )
    })
}

fn show(version: Option<&(Bytes, Revision)>) -> String {
    version.map_or_else(
        || "absent".to_owned(),
        |(value, revision)| {
            format!("{:?} of revision {revision}", &value[..value.len().min(24)].escape_ascii().to_string())
        },
    )
}

#[cfg(test)]
mod tests {
    use ringfort_types::{Change, Command, Condition, Entry, EntryKind, Part, Receipt, Stamped, Term};

    use super::*;

    fn reads() -> Reads {
        let mut reads = Reads::default();
        let change = |key: &'static str, change| Command::Write { parts: vec![Part::new(key, change)] };
        let put = |key, value: &'static str| change(key, Change::put(value));
        let entries =
            [vec![put("a", "1"), put("b", "1")], vec![put("a", "2")], vec![change("b", Change::DELETE)]];
        for (index, commands) in (1..).zip(entries) {
            let commands = commands.into_iter().map(Into::into).collect();
            commit(&mut reads, index, commands);
        }
        reads
    }

    fn commit(reads: &mut Reads, index: u64, commands: Vec<Stamped>) {
        let payload = Entry { clock: HybridClock(index), commands }.encode();
        let entry = LogEntry { index: Index(index), term: Term(1), kind: EntryKind::Normal, payload };
        reads.committed(ShardId(1), &entry);
    }

    #[test]
    fn a_command_must_be_answered_what_the_log_makes_of_it() {
        let mut reads = reads();
        let stamp = Stamp { client: 1, sequence: 1, prev: 0, floor: 0, opened: HybridClock(0) };
        let add = Stamped {
            stamp: Some(stamp),
            command: Command::Write { parts: vec![Part::new("n", Change::Add(2))] },
        };
        let part = Part {
            key: Bytes::from_static(b"n"),
            condition: Some(Condition::Absent),
            change: Change::put("x"),
        };
        commit(&mut reads, 4, vec![add.clone(), add, Command::Write { parts: vec![part] }.into()]);
        let receipt = |revision| Receipt {
            shard: ShardId(1),
            term: Term(1),
            index: Index(4),
            revision: Revision(revision),
            copies: 3,
            ..Receipt::default()
        };
        let counted = |sum| Reply::Written(Receipt { sums: vec![sum], ..receipt(5) });
        let not_met =
            |revision| Reply::NotMet { part: 0, key: Bytes::from_static(b"n"), revision, at: Index(4) };
        let replied = |replies: &[Reply]| reads.replied(0, ShardId(1), Index(4), replies).is_none();
        let five = Some(Revision(5));
        assert!(replied(&[counted(2), counted(2), not_met(five)]));
        assert!(!replied(&[counted(2), counted(4), not_met(five)]), "done twice");
        assert!(!replied(&[counted(2), counted(2), not_met(None)]), "judged before");
        assert!(!replied(&[counted(2), counted(2), Reply::Written(receipt(6))]));
        assert!(!replied(&[counted(2), counted(2)]));
        assert!(reads.opened(ShardId(1), HybridClock(4), Index(3)).is_none());
        assert!(reads.opened(ShardId(1), HybridClock(2), Index(3)).is_some(), "too old");
        assert!(reads.opened(ShardId(1), HybridClock(5), Index(3)).is_some(), "of the future");
    }

    fn row(value: &'static str, revision: u64) -> Row {
        Row { value: Bytes::from_static(value.as_bytes()), revision: Revision(revision) }
    }

    #[test]
    fn a_get_must_show_what_its_index_has() {
        let reads = reads();
        let got = |found: Option<&Row>, at, floor| {
            reads.got(ShardId(1), &Bytes::from_static(b"a"), found, Index(at), Index(floor)).is_none()
        };
        assert!(got(Some(&row("1", 1)), 1, 0));
        assert!(got(Some(&row("2", 3)), 2, 2));
        assert!(got(Some(&row("2", 3)), 3, 2));
        assert!(got(None, 0, 0));
        assert!(!got(Some(&row("1", 1)), 1, 2), "an old index");
        assert!(!got(Some(&row("1", 1)), 2, 0), "another index's value");
        assert!(!got(Some(&row("2", 2)), 2, 0), "another revision");
        assert!(!got(None, 2, 0));
        assert!(!got(Some(&row("2", 3)), 4, 0), "an index that nobody has");
    }

    #[test]
    fn a_page_must_show_all_of_one_index() {
        let reads = reads();
        let listed = |at, rows: &[(&'static str, Row)], next: Option<&'static str>| {
            let scan = Scan {
                shard: ShardId(1),
                at: None,
                from: Bytes::new(),
                prefix: Bytes::new(),
                rows_max: 10,
                bytes_max: 1_000,
                keys_only: false,
            };
            let rows =
                rows.iter().map(|(key, row)| (Bytes::from_static(key.as_bytes()), row.clone())).collect();
            let next = next.map(|next| Bytes::from_static(next.as_bytes()));
            reads.listed(ShardId(1), &scan, &Page { at: Index(at), rows, next }, Index(0)).is_none()
        };
        assert!(listed(2, &[("a", row("2", 3)), ("b", row("1", 2))], None));
        assert!(listed(3, &[("a", row("2", 3))], None));
        assert!(listed(2, &[("a", row("2", 3))], Some("a\0")));
        assert!(!listed(2, &[("a", row("2", 3))], None), "b is missing");
        assert!(!listed(1, &[("a", row("2", 3)), ("b", row("1", 2))], None), "of two indexes");
        assert!(!listed(3, &[("a", row("2", 3)), ("b", row("1", 2))], None), "b was deleted");
    }

    #[test]
    fn an_empty_page_must_go_on() {
        let reads = reads();
        let listed = |from: &'static str, bytes_max, next: &'static str| {
            let scan = Scan {
                shard: ShardId(1),
                at: None,
                from: Bytes::from_static(from.as_bytes()),
                prefix: Bytes::new(),
                rows_max: 10,
                bytes_max,
                keys_only: false,
            };
            let next = Some(Bytes::from_static(next.as_bytes()));
            let page = Page { at: Index(2), rows: Vec::new(), next };
            reads.listed(ShardId(1), &scan, &page, Index(0)).is_none()
        };
        assert!(listed("", 1, "a") && listed("a", 1, "a"), "a is too large for it");
        assert!(!listed("a", u32::MAX, "a"), "there was room for it");
        assert!(!listed("b", 1, "a"), "backwards");
        assert!(!listed("", 1, "b"), "over a");
        assert!(listed("c", u32::MAX, "d"), "much was deleted there");
    }
}
