//! Bugs on purpose, to see that they are found.
//!
//! A test that never fails proves nothing. So each promise has a bug that breaks it, written down in the code at
//! the place where it would be made: `if planted::is(Bug::AckBeforeSync)`. The simulator switches one on and must
//! find it (`docs/simulation.md`).
//!
//! Only a build with the feature `planted` *and* debug assertions contains them; in every other [`is`] is a
//! constant, and what it guards is not compiled. The feature is for `ringfort-sim` alone (`cargo xtask tidy`
//! sees to it), and a release build has no debug assertions.

use std::fmt;
use std::str::FromStr;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])* $name:ident => $text:literal,)*) => {
        /// One bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Bug {
            $($(#[doc = $doc])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Bug] = &[$(Bug::$name),*];

            /// Its name on a command line.
            pub fn name(self) -> &'static str {
                match self {
                    $(Bug::$name => $text,)*
                }
            }
        }
    };
}

bugs! {
    /// A replica takes its entries for durable before they are synced, and says so.
    AckBeforeSync => "ack-before-sync",
    /// A replica that starts has forgotten whom it voted for.
    VoteNotPersisted => "vote-not-persisted",
    /// A term or vote is spoken of before it is synced.
    TermSentBeforeSync => "term-sent-before-sync",
    /// A leader answers reads without asking anybody whether it still leads.
    ReadWithoutQuorum => "read-without-quorum",
    /// A replica confirms a leader's term to it although it is in a later one.
    ReadNotBoundToTerm => "read-not-bound-to-term",
    /// A replica that is made anew keeps the number of the one before it, and has forgotten what that one said.
    RebuiltUnderOldId => "rebuilt-under-old-id",
    /// A new leader answers reads before it has committed an entry of its own term.
    ReadBeforeOwnEntry => "read-before-own-entry",
    /// A table's applied index is not kept together with its data.
    AppliedApartFromData => "applied-apart-from-data",
    /// What a table has lost in a crash is not applied again.
    TableNotReplayed => "table-not-replayed",
    /// A bad batch in the middle of the log is cut away, with all good ones after it.
    TornMiddleCut => "torn-middle-cut",
    /// A write is acknowledged when any entry commits at its index.
    ReplyForOverwritten => "reply-for-overwritten",
    /// A node with an empty directory is let in under an old name.
    WipedNodeVotes => "wiped-node-votes",
    /// One node's replicas lose some rows.
    RowsLost => "rows-lost",
    /// A condition is judged as if the earlier commands of its entry had not been.
    ConditionBeforeEntry => "condition-before-entry",
    /// Of an atomic write, only the first change is made.
    WriteAppliedHalf => "write-applied-half",
    /// A write that comes again is done again.
    OutcomeNotRemembered => "outcome-not-remembered",
    /// A write of a session that was forgotten is taken for the first of a new one.
    ForgottenSessionExecuted => "forgotten-session-executed",
    /// A log lets go of entries that its node's table does not hold durably.
    LogCutTooFar => "log-cut-too-far",
    /// A leader has nothing to offer to a follower that needs what was let go of.
    LogCutWithoutSnapshot => "log-cut-without-snapshot",
    /// A snapshot counts as complete before all of it has arrived.
    SnapshotInstalledHalf => "snapshot-installed-half",
    /// A snapshot has all of a table but the sessions.
    SnapshotWithoutSessions => "snapshot-without-sessions",
    /// A lease runs from when a majority's word arrives, not from when it was asked for.
    LeaseFromAnswer => "lease-from-answer",
    /// A leader that hands over goes on reading under its lease.
    LeaseSurvivesTransfer => "lease-survives-transfer",
    /// A follower that starts again numbers its questions from the beginning, and takes old answers for new ones.
    QuestionNumberReused => "question-number-reused",
    /// The calls of one connection are not kept in order.
    ProgramOrderIgnored => "program-order-ignored",
    /// A deleted key leaves no tombstone, and so forgets its caller's version.
    TombstoneNotKept => "tombstone-not-kept",
    /// A write that was asked again after its node was lost is told to be rejected when that comes to nothing.
    DoubtForgotten => "doubt-forgotten",
    /// A row that can't be read is told to be absent.
    DamageReadAsAbsent => "damage-read-as-absent",
    /// A replica goes on although its table is damaged.
    DamagedReplicaGoesOn => "damaged-replica-goes-on",
    /// A leader whose table is damaged falls silent, and does not hand over.
    DamagedLeaderFallsSilent => "damaged-leader-falls-silent",
    /// A node whose disk hangs goes on leading.
    HungDiskLeads => "hung-disk-leads",
    /// What is known of how far a log went is not compared with how far it goes.
    LogEndNotChecked => "log-end-not-checked",
    /// Learners count in a majority.
    LearnerCounts => "learner-counts",
    /// A write on a learner is told to be one more copy.
    LearnerIsACopy => "learner-is-a-copy",
    /// A replica ends, or is made anew, as soon as the layout says so, and not when its group can do without it.
    ReplicaEndsTooEarly => "replica-ends-too-early",
    /// Whoever was removed is listened to.
    RemovedNodeSpeaks => "removed-node-speaks",
    /// A node that asks twice to join becomes another member.
    JoinedTwice => "joined-twice",
    /// A disk that is older than it was is let in with what it has.
    OldImageAccepted => "old-image-accepted",
    /// In a joint configuration a majority of the new half is enough.
    JointCountsNewHalf => "joint-counts-new-half",
    /// A leader that its group's change leaves out hands over and goes on reading under its lease.
    LeaseSurvivesReconfiguration => "lease-survives-reconfiguration",
    /// Such a leader gives up its lease, and has another one by a round that was on its way.
    RoundSurvivesReconfiguration => "round-survives-reconfiguration",
    /// How much is committed is recorded with a term or a vote only, and not with entries.
    CommitNotRecorded => "commit-not-recorded",
    /// A new replica has an empty configuration, of which it is a majority by itself.
    EmptyConfigurationStands => "empty-configuration-stands",
    /// A replica begins because somebody speaks to it, and not because the layout says so.
    ReplicaFromAMessage => "replica-from-a-message",
    /// A node confirms a leader's term for a replica that it does not have.
    ProbeCountsTheNode => "probe-counts-the-node",
    /// A layout that is older than a replica says that it ends.
    DestroyedByOldEpoch => "destroyed-by-old-epoch",
    /// Who was a member when the cluster was born is one, whatever has come since.
    GoneForgotten => "gone-forgotten",
    /// Where a member has said first that it is counts, and not where it says later.
    OlderMoveWins => "older-move-wins",
    /// Whoever is passed a call by another node does not judge whether it is allowed.
    ForwardsNotJudged => "forwards-not-judged",
    /// A node that is to stop waits for others to lead what it leads, however long that takes.
    StopWaitsForOthers => "stop-waits-for-others",
    /// A report is a difference to the one before it, whether that has arrived or not.
    ReportNotAcknowledged => "report-not-acknowledged",
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Bug {
    type Err = String;

    fn from_str(text: &str) -> Result<Bug, String> {
        let found = Bug::ALL.iter().find(|bug| bug.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<&str> = Bug::ALL.iter().map(|bug| bug.name()).collect();
            format!("there is no planted bug {text:?}; there are {}", names.join(", "))
        })
    }
}

#[cfg(all(feature = "planted", debug_assertions))]
mod switch {
    use std::cell::Cell;

    use super::Bug;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// Whether this build can have bugs on purpose.
    pub fn is_possible() -> bool {
        true
    }

    /// Plants a bug in all that this thread runs from now on, instead of the one that was there.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    /// Whether this bug is there.
    #[inline]
    pub fn is(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(not(all(feature = "planted", debug_assertions)))]
mod switch {
    use super::Bug;

    /// Whether this build can have bugs on purpose.
    pub fn is_possible() -> bool {
        false
    }

    /// Does nothing: this build has no bugs on purpose.
    pub fn plant(_: Option<Bug>) {}

    /// Whether this bug is there: it is not.
    #[inline]
    pub const fn is(_: Bug) -> bool {
        false
    }
}

pub use switch::{is, is_possible, plant};
