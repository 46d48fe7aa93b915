//! A replica and its disk: it writes, and syncs at once or when told to.

use ringfort_consensus::{Group, GroupConfig, Outgoing, Restored, Synced, Turn, Unsynced};
use ringfort_types::{
    Configuration, ConfigurationChange, EntryKind, HardState, Index, LogEntry, NodeId, PeerId, Record,
    Replica as Place, ShardId, Term,
};

/// A replica, alone on the node of its number.
pub(crate) fn place(me: u64) -> Place {
    Place { node: NodeId(me), peer: PeerId(me) }
}

/// A group that is born with so many voters, counted from 1.
pub(crate) fn born(voters: u64) -> Configuration {
    Configuration::born((1..=voters).map(place).collect())
}

pub(crate) struct Replica {
    pub(crate) group: Group,
    tickets: Vec<Unsynced>,
    /// All that was written, in order.
    pub(crate) records: Vec<Record>,
    /// How many of them are synced.
    pub(crate) synced: usize,
    pub(crate) committed: Vec<LogEntry>,
    /// Whether its disk answers.
    pub(crate) syncs: bool,
}

impl Replica {
    /// As its disk has it, with the configuration as of what is applied.
    pub(crate) fn new(me: u64, configuration: Configuration, restored: &Restored) -> Replica {
        let config = GroupConfig { shard: ShardId(1), me: PeerId(me), configuration };
        Replica {
            group: Group::new(config, restored),
            tickets: Vec::new(),
            records: Vec::new(),
            synced: 0,
            committed: Vec::new(),
            syncs: true,
        }
    }

    /// Starts again from what is synced; its group was born with this configuration.
    pub(crate) fn restart(me: u64, born: &Configuration, records: Vec<Record>) -> Replica {
        let OnDisk { hard_state, log } = OnDisk::of(&records);
        let mut configuration = born.clone();
        let mut restored = Restored { hard_state, applied: hard_state.commit, ..Restored::default() };
        for entry in log {
            restored.last = entry.index;
            if restored.terms.last().is_none_or(|(_, term)| *term != entry.term) {
                restored.terms.push((entry.index, entry.term));
            }
            if entry.index > restored.applied {
                restored.tail.push(entry);
            } else if entry.kind == EntryKind::Configuration {
                let change = ConfigurationChange::decode(entry.payload).expect("our own encoding");
                configuration = configuration.after(&change, entry.index).expect("it is committed");
            }
        }
        Replica { synced: records.len(), records, ..Replica::new(me, configuration, &restored) }
    }

    /// One turn; what may go at once.
    pub(crate) fn turn(&mut self) -> Vec<Outgoing> {
        let mut sent = Vec::new();
        loop {
            sent.extend(self.half_turn());
            if self.syncs {
                sent.extend(self.sync());
            }
            if !self.group.has_turn() {
                return sent;
            }
        }
    }

    /// A turn up to where its records are handed to the disk. Old entries are read from there at once, one by one.
    pub(crate) fn half_turn(&mut self) -> Vec<Outgoing> {
        let Turn { send, records, unsynced, committed, fetch, .. } = self.group.take_turn();
        self.records.extend(records);
        self.tickets.extend(unsynced);
        for entry in committed.iter().filter(|entry| entry.kind == EntryKind::Configuration) {
            self.group.apply_change(entry).unwrap();
        }
        if let Some(last) = committed.last() {
            self.group.applied(last.index);
        }
        self.committed.extend(committed);
        if let Some(fetch) = fetch {
            let log = OnDisk::of(&self.records).log;
            let wanted = |entry: &&LogEntry| (fetch.from..fetch.to).contains(&entry.index);
            let first: Vec<LogEntry> = log.iter().filter(wanted).take(1).cloned().collect();
            self.group.fetched(&first);
        }
        send
    }

    /// The disk is done; what has waited for it.
    pub(crate) fn sync(&mut self) -> Vec<Outgoing> {
        self.synced = self.records.len();
        let proof = Synced::reported_by_driver();
        let tickets = std::mem::take(&mut self.tickets);
        tickets.into_iter().flat_map(|ticket| self.group.release(ticket, &proof)).collect()
    }

    /// Whether something waits for the disk.
    pub(crate) fn waits(&self) -> bool {
        !self.tickets.is_empty()
    }
}

/// What records add up to.
#[derive(Default)]
pub(crate) struct OnDisk {
    pub(crate) hard_state: HardState,
    pub(crate) log: Vec<LogEntry>,
}

impl OnDisk {
    /// The last record about something wins.
    pub(crate) fn of(records: &[Record]) -> OnDisk {
        let mut disk = OnDisk::default();
        for record in records {
            match record {
                Record::HardState(_, state) => disk.hard_state = *state,
                Record::Entry(_, entry) => {
                    disk.log.retain(|earlier| earlier.index < entry.index);
                    disk.log.push(entry.clone());
                }
                Record::Installed(..) => disk.log.clear(),
                Record::Base(..) => unreachable!("only the log on disk writes it"),
                Record::Replica(..) | Record::Lost(..) | Record::Gone(..) => {
                    unreachable!("a group knows one replica")
                }
            }
        }
        disk
    }

    /// The log as places and terms, `1@1 2@3`.
    pub(crate) fn places(&self) -> Vec<(Index, Term)> {
        self.log.iter().map(|entry| (entry.index, entry.term)).collect()
    }
}
