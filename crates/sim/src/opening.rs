//! How a process opens its log and its tables, shard after shard: what the server's opening thread does.
//!
//! The replay goes on in small steps, at a pace that is drawn anew for each start, while the shards that are ready are
//! asked and written to, and the log lets go of what is old under it. Once nothing goes wrong any more, it does not
//! dawdle.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use ringfort_node::Event;
use ringfort_node::recovery::{Begun, Ready, RecoveryError, Replay, Step, Wanted, begin};
use ringfort_ring::Layout;
use ringfort_storage::LogOptions;
use ringfort_types::{Configuration, LogEntry, NodeId, ShardId};

use crate::host::{Opening, Rot, Work};
use crate::judges::{NODE_GOES_ON, ROT_IS_REFUSED};
use crate::sessions::LIMITS;
use crate::world::{Next, World};

/// Small, so that the log has several segments.
pub(crate) const SEGMENT_BYTES: u64 = 4 * 1024;
/// How long a replay may be dawdled over, in microseconds.
const DAWDLES_US: [u64; 4] = [0, 50_000, 500_000, 4_000_000];
/// Most entries in one step, while it is dawdled.
const STEP_ENTRIES_MAX: u64 = 12;

impl World {
    pub(crate) fn open(&mut self, at: usize, born: &Arc<Layout>, shards: &BTreeMap<ShardId, Configuration>) {
        let host = &mut self.hosts[at];
        let process = host.process.as_mut().expect("only processes open");
        let me = NodeId(at as u64 + 1);
        let options = LogOptions { segment_bytes: SEGMENT_BYTES, budget_bytes: self.plan.log_bytes };
        let wanted = Wanted { me, born, shards };
        let found = begin(&process.dir, &host.tables, &wanted, options, LIMITS);
        let rot = host.rot.take();
        match (found, rot) {
            (Ok(Begun { log, replicas, ready, replay, damaged }), None) => {
                let broken = self.judges.found(at, &replicas);
                self.find_of(at, broken);
                self.hear(at, Event::Replicas { replicas, batch: log.last_batch() });
                for (shard, error) in damaged {
                    self.can_not_open_shard(at, shard, &error);
                }
                self.hosts[at].process.as_mut().expect("just looked at").log = Some(log);
                let until_us = self.now_us + self.random.pick(&DAWDLES_US);
                let opening = Opening { replay, until_us, replayed: Vec::new() };
                self.hand_over(at, ready, &[]);
                self.go_on_later(at, opening);
            }
            (Ok(_), Some(Rot { path, changes })) => {
                let from = changes.first().map_or(0, |(offset, _)| *offset);
                let what =
                    format_args!("n{} did not notice what has changed from byte {from} of {path} on", at + 1);
                self.find(ROT_IS_REFUSED, what);
            }
            (Err(error), Some(rot)) => {
                self.log(format_args!("n{} refuses to start: {error}", at + 1));
                rot.turn_over(&self.hosts[at].disk.disk);
                self.restart_after(at, false, 100_000);
            }
            (Err(error), None) => self.can_not_open(at, &error),
        }
    }

    fn can_not_open(&mut self, at: usize, error: &RecoveryError) {
        match error {
            RecoveryError::Storage(error) => self.can_not_start(at, error),
            error => self.find(NODE_GOES_ON, format_args!("n{} can't open its data: {error}", at + 1)),
        }
    }

    /// Its table is damaged, or it was found out in an earlier life that its log had lost its end.
    fn can_not_open_shard(&mut self, at: usize, shard: ShardId, error: &RecoveryError) {
        let reason = error.to_string();
        match error {
            RecoveryError::Lost { .. } => self.hear(at, Event::Damaged { shard, reason, is_readable: false }),
            _ => self.meet_damage(at, shard, reason, false),
        }
    }

    /// A step of the replay is due, unless it is done.
    fn go_on_later(&mut self, at: usize, opening: Opening) {
        if opening.replay.is_done() {
            return;
        }
        let left_us = opening.until_us.saturating_sub(self.now_us);
        // Some shards come much later than others.
        let after_us = self.random.below(left_us / 2 + 1);
        self.hosts[at].process.as_mut().expect("only processes open").opening = Some(opening);
        let life = self.hosts[at].life;
        self.schedule(after_us, Next::Work { host: at, life, work: Work::Replay });
    }

    /// Replays a few entries, or all that are left.
    pub(crate) fn replay(&mut self, at: usize) {
        let process = self.hosts[at].process.as_mut().expect("only processes open");
        let mut opening = process.opening.take().expect("it goes on while there is something left");
        let dawdles = !self.is_calm && self.now_us < opening.until_us;
        let most = if dawdles { self.random.between(1, STEP_ENTRIES_MAX) } else { u64::MAX };
        let (mut ready, mut damaged) = (Vec::new(), Vec::new());
        match replay(&mut opening.replay, most, &mut opening.replayed, &mut ready, &mut damaged) {
            Ok(()) => {
                for (shard, error) in damaged {
                    opening.replayed.retain(|(of, _)| *of != shard);
                    self.meet_damage(at, shard, error.to_string(), false);
                }
                // Each is the others' as soon as it is ready.
                for shard in ready {
                    let id = shard.shard.id();
                    let replayed: Vec<_> = opening.replayed.extract_if(.., |(of, _)| *of == id).collect();
                    self.hand_over(at, vec![shard], &replayed);
                }
                self.go_on_later(at, opening);
            }
            Err(error) => self.can_not_open(at, &error),
        }
    }

    /// These shards are ready; such entries have been replayed for them.
    fn hand_over(&mut self, at: usize, ready: Vec<Ready>, replayed: &[(ShardId, LogEntry)]) {
        let process = self.hosts[at].process.as_mut().expect("only processes open");
        let (mut opened, mut layout) = (BTreeMap::new(), None);
        for Ready { shard, opened: found } in ready {
            process.generations.insert(shard.id(), found.base.generation);
            opened.insert(shard.id(), found);
            layout = shard.layout().cloned().or(layout);
            process.shards.insert(shard.id(), shard);
        }
        self.log(format_args!("n{} has opened {opened:?}", at + 1));
        let broken = self.judges.opened(at, &opened, replayed);
        self.find_of(at, broken);
        self.hear(at, Event::Opened(opened));
        if let Some(layout) = layout {
            self.hear(at, Event::Layout(layout));
        }
    }
}

/// Goes on for so many entries: the shards that are ready then.
fn replay(
    replay: &mut Replay,
    most: u64,
    replayed: &mut Vec<(ShardId, LogEntry)>,
    ready: &mut Vec<Ready>,
    damaged: &mut Vec<(ShardId, RecoveryError)>,
) -> Result<(), RecoveryError> {
    let mut count = 0;
    replay.go_on(&mut |step| {
        match step {
            Step::Applied(progress) => {
                count += 1;
                replayed.push((progress.shard, progress.entry.clone()));
            }
            Step::Ready(shard) => ready.push(*shard),
            Step::Damaged(shard, error) => damaged.push((shard, error)),
        }
        if count < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })
}
