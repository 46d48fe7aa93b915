//! Levels, as a node sees to them: it has the layout say which ones it knows, and can't be in one cluster with whoever does not know the
//! one in force. What levels are stands in `ringfort-types`; when the one in force rises, in `ringfort-ring`.
//!
//! Invariant: a node goes by no layout whose level it does not know. It ends where it comes to see one: at its start, in the file in which
//! it keeps the layout, also if it can't read the rest of that; later, in what other nodes send it. They do so when they refuse it, and hear
//! nothing of it any more.

use bytes::Bytes;
use ringfort_ring::{Layout, LayoutHead};
use ringfort_types::{Hello, LayoutChange, LayoutSent, Level, NodeId, Refusal, RefusalKind};

use crate::leave::Phase;
use crate::node::Node;
use crate::{Effect, NodeError};

impl Node {
    /// Why this node can't be in a cluster where this level is in force.
    fn level_refusal(&self, level: Level) -> Option<String> {
        Some(format!("this node {}", self.levels.refusal(level)?))
    }

    /// Refuses to begin with what was kept, if its level is not known here. It need not be readable otherwise.
    pub(crate) fn check_kept(&self, kept: &Bytes) -> Result<(), NodeError> {
        let head = LayoutHead::read(kept).filter(|head| head.cluster == self.cluster());
        head.and_then(|head| self.level_refusal(head.level)).map_or(Ok(()), |why| Err(NodeError::Level(why)))
    }

    /// The same of what another node has sent, and ends if so. Whether it is known.
    pub(crate) fn knows_level_of(&mut self, sent: &Bytes) -> bool {
        match self.check_kept(sent) {
            Err(NodeError::Level(why)) => self.end_for_level(why),
            _ => return true,
        }
        false
    }

    /// Whether this node can go by a layout; ends if not.
    pub(crate) fn knows_level(&mut self, layout: &Layout) -> bool {
        let Some(why) = self.level_refusal(layout.level) else { return true };
        self.end_for_level(why);
        false
    }

    fn end_for_level(&mut self, why: String) {
        self.out.last.push(Effect::Refused(why));
    }

    /// Whether another node of this cluster, which says what it knows, can be in it. If not it is told why, and shown the layout,
    /// which it may have missed.
    pub(crate) fn goes_with(&mut self, link: u64, from: NodeId, hello: &Hello) -> bool {
        let Some(layout) = &self.layout else { return true };
        let Some(why) = hello.levels.refusal(layout.level) else { return true };
        // It reads no more of it than where the level stands, and is not to see who the users are.
        let whole = layout.encode();
        let bytes = whole.slice(..whole.len().min(LayoutHead::BYTES_MAX));
        self.send(from, LayoutSent { bytes }.into());
        self.out.last.push(Effect::Notice(format!("refused {}: it {why}", self.called(from))));
        let refusal = Refusal { kind: RefusalKind::Stranger, reason: format!("this node {why}") };
        self.out.first.push(Effect::Refuse { link, with: refusal.into() });
        false
    }

    /// Now and then: has the layout say which levels this node knows, if it says something else.
    pub(crate) fn ask_to_be_known(&mut self) {
        let member = self.layout.as_ref().and_then(|layout| layout.member(self.id));
        let max = self.levels.max;
        if self.phase == Phase::Running && member.is_some_and(|member| member.max != max) {
            self.ask_for(LayoutChange::Knows(self.id, max));
        }
    }

    /// As the leader of the meta group, now and then: puts the highest level in force that all members know, unless it is held back.
    pub(crate) fn raise_level(&mut self) {
        let Some(layout) = self.layout.as_ref().filter(|_| self.leads_cluster()) else { return };
        let allowed = layout.level_allowed();
        if allowed > layout.level {
            self.ask_for(LayoutChange::Raise(allowed));
        }
    }
}
