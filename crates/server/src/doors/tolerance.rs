//! How many replicas besides the leader are to have a disk register's message before it is `OK`.
//!
//! A number that its operator sets, and may change while the node runs; without one a majority will do, as for any write.

use std::sync::Arc;

use ringfort_types::{Copies, Durability, Receipt, slot_of};
use tokio::sync::watch;

use crate::gate::Gate;

/// What stays of a call's time for the answer, in milliseconds, when it waits for copies.
const MARGIN_MS: u32 = 250;

/// The number in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tolerance(Arc<watch::Sender<Wanted>>);

impl Tolerance {
    /// Sets another number.
    pub(crate) fn set(&self, number: u32) {
        self.0.send_replace(Wanted { besides_leader: Some(number) });
    }

    /// What a write that comes now has to wait for.
    pub(crate) fn now(&self) -> Wanted {
        *self.0.borrow()
    }

    /// That, now and whenever it changes.
    pub(crate) fn changes(&self) -> watch::Receiver<Wanted> {
        self.0.subscribe()
    }
}

/// What one write has to wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    besides_leader: Option<u32>,
}

impl Wanted {
    /// So many replicas, the leader's own among them, within the call's time.
    pub(crate) fn durability(self, timeout_ms: u32) -> Durability {
        let copies = match self.besides_leader {
            None => Copies::Majority,
            Some(besides) => Copies::AtLeast(besides.saturating_add(1)),
        };
        Durability { copies, patience_ms: timeout_ms.saturating_sub(MARGIN_MS).max(timeout_ms / 2) }
    }

    /// Why a cluster that keeps so many replicas of a key can never do that; `None` if it can.
    pub(crate) fn impossible(self, replicas: u32) -> Option<String> {
        let besides = self.besides_leader.filter(|besides| *besides >= replicas)?;
        let needed = besides.saturating_add(1);
        // Of an even number of copies one would be for nothing.
        let replicas_then = needed | 1;
        let less = match replicas.saturating_sub(1) {
            0 => "start this node without --tolerance-file".to_owned(),
            most => format!("set TOLERANCE={most} at most"),
        };
        Some(format!(
            "TOLERANCE={besides} wants {needed} copies of each message and this cluster keeps {replicas}: nothing was \
             written; {less}, or, in a cluster of {replicas_then} nodes or more, have it keep more: ringfort cluster set \
             replicas={replicas_then}"
        ))
    }

    /// The same of the shard of this key, once the cluster is born.
    pub(crate) fn impossible_for(self, key: &[u8], gate: &Gate) -> Option<String> {
        let layout = gate.layout()?;
        let shard = layout.shard(layout.shard_of_slot(slot_of(key)))?;
        self.impossible(shard.replicas.len() as u32)
    }

    /// What its operator should know of a cluster that keeps so many replicas of a key.
    pub(crate) fn advice(self, replicas: u32, reads_fall_back: bool) -> Option<String> {
        let besides = self.besides_leader?;
        if let Some(impossible) = self.impossible(replicas) {
            return Some(format!("no message can be stored: {impossible}"));
        }
        let read_with = (replicas.max(1) - 1) / 2;
        let stored_with = (replicas - 1 - besides).min(read_with);
        let less = match read_with {
            read_with if read_with == stored_with => String::new(),
            read_with => format!(
                "with {read_with} down it is kept by a majority but answered ERROR, and reads go on; "
            ),
        };
        let wanted = 2 * besides + 1;
        let (beyond, or) = if reads_fall_back {
            ("nothing is written, and what is read may be old (--text-stale-after)", "")
        } else {
            (
                "nothing is read or written",
                ", or, for reads alone, let them fall back to what any replica has, which may be old (--text-stale-after)",
            )
        };
        (read_with < besides).then(|| {
            format!(
                "TOLERANCE={besides}: with {replicas} replicas, a SET is OK while {} up; {less}with more down {beyond}. To read and write \
                 with {besides} down, have a cluster of {wanted} nodes keep as many copies (ringfort cluster set replicas={wanted}){or}",
                match stored_with {
                    0 => "all of them are".to_owned(),
                    down => format!("{} of them are", replicas - down),
                }
            )
        })
    }

    /// Whether a write with this receipt is as safe as was wanted; else one line that says how safe it is.
    pub(crate) fn judge(self, receipt: &Receipt) -> Result<(), String> {
        let besides = receipt.copies.saturating_sub(1);
        match self.besides_leader {
            Some(wanted) if besides < wanted => Err(format!(
                "stored by {besides} besides the leader, TOLERANCE={wanted}: the message is kept, by a majority of its \
                 replicas"
            )),
            _ => Ok(()),
        }
    }
}

/// Says so if the cluster can't keep what the tolerance promises, whenever that changes, or how many copies the cluster keeps.
pub(super) async fn advise(gate: Gate, tolerance: Tolerance, reads_fall_back: bool) {
    gate.serving().await;
    let (mut numbers, mut layouts) = (tolerance.changes(), gate.watch_layout());
    let mut said = None;
    loop {
        layouts.mark_unchanged();
        let wanted = *numbers.borrow_and_update();
        let replicas = gate
            .layout()
            .map_or(0, |layout| layout.shards.iter().map(|shard| shard.replicas.len()).min().unwrap_or(0));
        let advice = wanted.advice(replicas as u32, reads_fall_back);
        if advice != said
            && let Some(advice) = &advice
        {
            gate.notice(advice.clone());
        }
        said = advice;
        let is_other = tokio::select! {
            number = numbers.changed() => number,
            layout = layouts.changed() => layout,
        };
        if is_other.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_counts_replicas_besides_the_leader() {
        let tolerance = Tolerance::default();
        assert_eq!(tolerance.now().durability(1_000).copies, Copies::Majority);
        assert_eq!(tolerance.now().judge(&Receipt { copies: 2, ..Receipt::default() }), Ok(()));
        tolerance.set(2);
        let wanted = tolerance.now();
        assert_eq!(wanted.durability(1_000), Durability { copies: Copies::AtLeast(3), patience_ms: 750 });
        assert_eq!(wanted.judge(&Receipt { copies: 3, ..Receipt::default() }), Ok(()));
        let told = wanted.judge(&Receipt { copies: 2, ..Receipt::default() }).unwrap_err();
        assert!(told.starts_with("stored by 1 besides the leader, TOLERANCE=2"), "{told}");
        assert_eq!(wanted.impossible(3), None);
        let told = wanted.impossible(2).unwrap();
        assert!(
            told.contains("set TOLERANCE=1 at most") && told.contains("cluster set replicas=3"),
            "{told}"
        );
        assert!(
            wanted.impossible(1).unwrap().contains("without --tolerance-file"),
            "0 is no number of the file's"
        );
    }

    #[test]
    fn an_operator_is_told_what_can_not_be_kept() {
        let wanted = |number| Wanted { besides_leader: Some(number) };
        assert_eq!(Wanted::default().advice(1, false), None);
        assert_eq!((wanted(1).advice(3, false), wanted(2).advice(5, false)), (None, None));
        let told = wanted(2).advice(3, false).unwrap();
        assert!(
            told.contains("a SET is OK while all of them are up; with 1 down it is kept by a majority"),
            "{told}"
        );
        assert!(told.contains("of 5 nodes") && told.contains("cluster set replicas=5"), "{told}");
        let told = wanted(2).advice(4, false).unwrap();
        assert!(told.contains("a SET is OK while 3 of them are up; with more down nothing"), "{told}");
        let told = wanted(2).advice(3, true).unwrap();
        assert!(
            told.contains("a SET is OK while all of them are up") && told.contains("may be old"),
            "{told}"
        );
        assert!(!told.contains("or, for reads alone"), "{told}");
        assert_eq!(wanted(1).advice(3, true), None);
        assert!(wanted(3).advice(3, true).unwrap().contains("no message can be stored"));
    }
}
