//! Levels: what the nodes of a cluster may say to each other and write to their disks, counted apart from releases.
//!
//! Nodes are upgraded one by one, so for a while two versions of Ringfort are in one cluster. A version knows the levels of a range
//! ([`Levels`]); the cluster has one level in force, which stands in its layout. Whoever knows a later level waits with what that
//! allows until the level is in force, which it is once every member knows it and the operator does not hold it back
//! ([`LevelLimit`]). It never falls. So no node is sent, or has to read on its own disk, what it can't read; and until the
//! level rises, the version before can take the node's place again.
//!
//! | level | what it allows |
//! |---|---|
//! | 1 | all there was when levels began |
//! | 2 | users and their rights, in the layout |
//!
//! A change to one of these waits for a level of its own, and is put in this table: a command, a layout change, a record of the log, a
//! flag of a row, a request that is forwarded, a field in the middle of a message between nodes. What does not: a new kind of
//! message between nodes, or a field at the end of one, which older versions skip (`message`); what a node writes for itself alone and
//! can do without.

use std::fmt;
use std::str::FromStr;

use bytes::BytesMut;

use crate::wire::{Malformed, Reader, put_varint};

/// What may be said and written. Not 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Level(pub u16);

impl Level {
    /// The lowest that this version knows. New clusters begin with it.
    pub const MIN: Level = Level(1);
    /// The highest.
    pub const MAX: Level = Level(2);
    /// From this one on a cluster has users.
    pub const USERS: Level = Level(2);

    /// Appends its bytes.
    pub fn put(self, out: &mut BytesMut) {
        put_varint(out, self.0.into());
    }

    /// Reads them.
    pub fn read(reader: &mut Reader) -> Result<Level, Malformed> {
        let level = u16::try_from(reader.varint()?).ok().filter(|level| *level > 0);
        level.map(Level).ok_or(Malformed("a level that can't be"))
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The levels that a node knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Levels {
    /// The lowest.
    pub min: Level,
    /// The highest; not below the lowest.
    pub max: Level,
}

impl Levels {
    /// Those of this version.
    pub const KNOWN: Levels = Levels { min: Level::MIN, max: Level::MAX };

    /// Whether a node that knows these can be in a cluster where this one is in force.
    pub fn contain(self, level: Level) -> bool {
        (self.min..=self.max).contains(&level)
    }

    /// Why a node that knows these can't be where this level is in force, and what to do; after "it" or its name.
    pub fn refusal(self, level: Level) -> Option<String> {
        if level > self.max {
            return Some(format!(
                "knows {self}, and level {level} is in force in this cluster: install a Ringfort that knows level {level} \
                 (`ringfort version` says which ones a binary knows)"
            ));
        }
        (level < self.min).then(|| {
            format!(
                "knows {self}, and level {level} is in force in this cluster: install a Ringfort that knows levels {level} and {} \
                 (`ringfort version` says which ones a binary knows), and go on from there once all nodes run it",
                self.min
            )
        })
    }

    /// Appends their bytes.
    pub fn put(self, out: &mut BytesMut) {
        self.min.put(out);
        self.max.put(out);
    }

    /// Reads them.
    pub fn read(reader: &mut Reader) -> Result<Levels, Malformed> {
        let levels = Levels { min: Level::read(reader)?, max: Level::read(reader)? };
        if levels.min <= levels.max { Ok(levels) } else { Err(Malformed("a range of levels that is none")) }
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Levels { min, max } = self;
        if min == max { write!(f, "level {min}") } else { write!(f, "levels {min} to {max}") }
    }
}

/// How far the level in force may rise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LevelLimit {
    /// As far as all members know it.
    #[default]
    Auto,
    /// No further than this, so that the version before can still take its place again. What is in force stays so.
    AtMost(Level),
}

impl LevelLimit {
    /// As a number, as it is stored and sent: 0 is [`LevelLimit::Auto`].
    pub fn number(self) -> u16 {
        match self {
            LevelLimit::Auto => 0,
            LevelLimit::AtMost(level) => level.0,
        }
    }

    /// From that number.
    pub fn from_number(number: u16) -> LevelLimit {
        if number == 0 { LevelLimit::Auto } else { LevelLimit::AtMost(Level(number)) }
    }

    /// Appends its bytes.
    pub fn put(self, out: &mut BytesMut) {
        put_varint(out, self.number().into());
    }

    /// Reads them.
    pub fn read(reader: &mut Reader) -> Result<LevelLimit, Malformed> {
        let number = u16::try_from(reader.varint()?).map_err(|_| Malformed("a level that can't be"))?;
        Ok(LevelLimit::from_number(number))
    }
}

impl fmt::Display for LevelLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LevelLimit::Auto => f.write_str("auto"),
            LevelLimit::AtMost(level) => level.fmt(f),
        }
    }
}

impl FromStr for LevelLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<LevelLimit, String> {
        let at_most =
            || text.parse().ok().filter(|level| *level > 0).map(|level| LevelLimit::AtMost(Level(level)));
        let limit = if text == "auto" { Some(LevelLimit::Auto) } else { at_most() };
        limit.ok_or_else(|| format!("{text:?} is no level: say auto, or a number from 1 to {}", u16::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_refused_on_both_sides_of_its_range() {
        let known = Levels { min: Level(2), max: Level(3) };
        for (level, says) in [(1, Some("levels 1 and 2")), (2, None), (3, None), (4, Some("knows level 4"))] {
            let refusal = known.refusal(Level(level));
            assert_eq!(refusal.is_none(), known.contain(Level(level)));
            assert_eq!(refusal.is_some(), says.is_some(), "{refusal:?}");
            assert!(says.is_none_or(|says| refusal.is_some_and(|refusal| refusal.contains(says))));
        }
    }

    #[test]
    fn limits_are_read_as_they_are_shown() {
        for limit in [LevelLimit::Auto, LevelLimit::AtMost(Level(1)), LevelLimit::AtMost(Level(u16::MAX))] {
            assert_eq!(limit.to_string().parse(), Ok(limit));
            assert_eq!(LevelLimit::from_number(limit.number()), limit);
        }
        for bad in ["", "0", "-1", "65536", "latest"] {
            assert!(bad.parse::<LevelLimit>().is_err(), "{bad}");
        }
    }
}
