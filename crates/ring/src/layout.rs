//! The cluster's map.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ringfort_types::limits::{BIRTH_NODES_MAX, GROUP_REPLICAS_MAX, SHARDS_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::{
    Configuration, Epoch, Incarnation, LayoutChange, LeaderPreference, Level, LevelLimit, Newcomer, NodeId,
    PeerId, Replica, SLOTS, ShardId, Slot, Standing, UserChange, Users,
};

use crate::place::{place, place_one};
use crate::{META_NODES_MAX, WEIGHT_MAX, effective_copies};

/// A node that belongs to the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number; not 0.
    pub id: NodeId,
    /// Its operator's name for it.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Its data directory's number.
    pub incarnation: Incarnation,
    /// How much it takes compared to others, 1 to [`WEIGHT_MAX`].
    pub weight: u32,
    /// Copies of a shard are spread over zones; nodes without one (empty) are one zone together.
    pub zone: String,
    /// Whether it is given replicas.
    pub standing: Standing,
    /// The highest level that it is known to know; not below the one in force.
    pub max: Level,
}

/// What one shard owns and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLayout {
    /// Which shard.
    pub shard: ShardId,
    /// Its slots, as inclusive ranges, ascending. The meta group has none.
    pub slots: Vec<(Slot, Slot)>,
    /// Its replicas, on distinct nodes; the preferred leader first.
    pub replicas: Vec<Replica>,
}

impl ShardLayout {
    /// The group that it is born with.
    pub fn born(&self) -> Configuration {
        Configuration::born(self.replicas.clone())
    }
}

/// The cluster's map. Every slot belongs to exactly one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its version; the first one has 1.
    pub epoch: Epoch,
    /// The version in which some replica was last put somewhere else.
    pub placed: Epoch,
    /// The cluster's number.
    pub cluster: u64,
    /// In the order of their numbers.
    pub members: Vec<Member>,
    /// In the order of their numbers; the meta group first.
    pub shards: Vec<ShardLayout>,
    /// The next member's number. Greater than all that are or were in use.
    pub next_node: NodeId,
    /// The next replica's identity. Greater than all that are or were in use.
    pub next_peer: PeerId,
    /// Copies of each shard that were asked for; how many there are is `effective_copies` of this.
    pub copies: u32,
    /// Who should lead.
    pub leader_preference: LeaderPreference,
    /// What nodes may say and write. Never falls.
    pub level: Level,
    /// How far it may rise.
    pub level_limit: LevelLimit,
    /// Who may do what.
    pub users: Arc<Users>,
    pub(crate) owners: Owners,
}

/// Why a node can't become a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlace {
    /// A member has its name.
    Name,
    /// A member, called so, has its address.
    Address(String),
    /// It wants to take the place of a member that has its name, and there is none.
    NobodyToReplace,
    /// There are as many members as there can be.
    Full,
    /// A weight out of bounds.
    Weight(u32),
    /// It does not know this level, which is in force.
    Level(Level),
}

/// A layout that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// No nodes, or too many.
    #[error("{0} nodes: a cluster is born from 1 to {BIRTH_NODES_MAX}")]
    Nodes(usize),
    /// No shards, or too many.
    #[error("{0} shards: a cluster has 1 to {SHARDS_MAX}; choose another number with --shards")]
    Shards(u32),
    /// No copies.
    #[error("0 copies: each shard has at least one; choose another number with --replicas")]
    Copies,
    /// Two nodes of one number, or one with number 0.
    #[error("node number {0} is used twice or is 0")]
    Node(NodeId),
    /// Two nodes of one address.
    #[error("two nodes have the address {0}: each needs its own")]
    Address(String),
    /// A weight out of bounds.
    #[error("node {0} has weight {1}: weights go from 1 to {WEIGHT_MAX}")]
    Weight(NodeId, u32),
}

impl Layout {
    /// The layout that a cluster is born with: epoch 1, fresh peers for all replicas, and the lowest level that its members are known to
    /// know.
    pub fn first(
        mut members: Vec<Member>,
        cluster: u64,
        shards: u32,
        copies: u32,
    ) -> Result<Layout, RingError> {
        members.sort_by_key(|member| member.id);
        check(&members, shards, copies)?;
        let nodes = members.len() as u32;
        let meta = place_one(&members, ShardId::META, effective_copies(META_NODES_MAX, nodes).0, &[]);
        let placed = place(&members, shards, effective_copies(copies, nodes).0);

        let mut next_peer = PeerId(1);
        let mut replicas = |nodes: Vec<NodeId>| -> Vec<Replica> {
            let fresh = |node| {
                let peer = next_peer;
                next_peer = PeerId(peer.0 + 1);
                Replica { node, peer }
            };
            nodes.into_iter().map(fresh).collect()
        };
        let mut all = vec![ShardLayout { shard: ShardId::META, slots: Vec::new(), replicas: replicas(meta) }];
        for (number, nodes) in (1..=shards).zip(placed) {
            let start = |shard: u32| (u64::from(SLOTS) * u64::from(shard) / u64::from(shards)) as u16;
            let slots = vec![(Slot(start(number - 1)), Slot(start(number) - 1))];
            all.push(ShardLayout { shard: ShardId(number), slots, replicas: replicas(nodes) });
        }
        let owners = Owners::new(&all).expect("consecutive ranges cover every slot once");
        let next_node = NodeId(members.last().map_or(0, |last| last.id.0) + 1);
        let level = known_to_all(&members).expect("a cluster has members");
        Ok(Layout {
            epoch: Epoch(1),
            placed: Epoch(1),
            cluster,
            members,
            shards: all,
            next_node,
            next_peer,
            copies,
            leader_preference: LeaderPreference::default(),
            level,
            level_limit: LevelLimit::default(),
            users: Arc::default(),
            owners,
        })
    }

    /// The first layout of a new cluster of these members that begins with what is left of this one: the same shards with the same slots,
    /// the same settings and users, and all other numbers from the beginning.
    pub fn begun_anew(&self, members: Vec<Member>, cluster: u64) -> Result<Layout, RingError> {
        let mut next = Layout::first(members, cluster, self.shards.len() as u32 - 1, self.copies)?;
        for (shard, was) in next.shards.iter_mut().zip(&self.shards) {
            (shard.shard, shard.slots) = (was.shard, was.slots.clone());
        }
        next.owners = self.owners.clone();
        next.leader_preference = self.leader_preference;
        (next.level, next.level_limit) = (self.level, self.level_limit);
        next.users = Arc::clone(&self.users);
        Ok(next)
    }

    /// The layout after this one in which what is wanted is so; `None` if it is so already.
    pub fn after(&self, change: &LayoutChange) -> Option<Layout> {
        let mut next = self.clone();
        match change {
            LayoutChange::Prefer(preference) => next.leader_preference = *preference,
            LayoutChange::Renew { shard, replica } => next.renew(*shard, *replica),
            LayoutChange::Join(new) => next.join(new),
            LayoutChange::Stand(node, standing) => next.stand(*node, *standing),
            LayoutChange::Copies(copies) => next.copies = *copies,
            LayoutChange::Place { epoch, places } if *epoch == self.epoch => next.place(places),
            LayoutChange::Reached { epoch } if *epoch == self.epoch => next.forget_those_who_left(),
            LayoutChange::Place { .. } | LayoutChange::Reached { .. } => {}
            LayoutChange::Knows(node, max) => next.know(*node, *max),
            LayoutChange::Limit(limit) => next.level_limit = *limit,
            LayoutChange::Raise(level) => next.raise(*level),
            LayoutChange::Move(moves) => next.move_members(moves),
            LayoutChange::Users(change) => {
                if let Ok(Some(users)) = self.users_after(change) {
                    next.users = Arc::new(users);
                }
            }
        }
        if next == *self {
            return None;
        }
        next.epoch.0 += 1;
        if next.shards != self.shards {
            next.placed = next.epoch;
        }
        Some(next)
    }

    /// Why this change is void, and what to do, for those of which whoever asks is told that. None if it has an effect, or is so already.
    pub fn void(&self, change: &LayoutChange) -> Option<String> {
        match change {
            LayoutChange::Users(change) => self.users_after(change).err(),
            _ => None,
        }
    }

    /// Why a change must not even be logged yet: a member may not know it. None if it may.
    pub fn too_early(&self, change: &LayoutChange) -> Option<String> {
        if matches!(change, LayoutChange::Users(_)) { self.without_users() } else { None }
    }

    fn without_users(&self) -> Option<String> {
        (self.level < Level::USERS).then(|| {
            format!(
                "users need level {}, and level {} is in force: all nodes must run a version that knows it, and the level must not be \
                 held back (ringfort cluster set level=auto)",
                Level::USERS,
                self.level
            )
        })
    }

    fn users_after(&self, change: &UserChange) -> Result<Option<Users>, String> {
        self.without_users().map_or_else(|| self.users.after(change), Err)
    }

    /// A member runs another version than before, perhaps. One that does not know the level in force is no member to reckon with: it is
    /// refused until it does.
    fn know(&mut self, node: NodeId, max: Level) {
        let Ok(place) = self.members.binary_search_by_key(&node, |member| member.id) else { return };
        if max >= self.level {
            self.members[place].max = max;
        }
    }

    fn raise(&mut self, level: Level) {
        if level <= self.level_allowed() {
            self.level = self.level.max(level);
        }
    }

    /// The highest level that may be in force: all members know it, and it is not held back. Not below the one that is.
    pub fn level_allowed(&self) -> Level {
        let known = known_to_all(&self.members).unwrap_or(self.level);
        let allowed = match self.level_limit {
            LevelLimit::Auto => known,
            LevelLimit::AtMost(limit) => known.min(limit),
        };
        allowed.max(self.level)
    }

    /// Puts a fresh peer in a replica's place, if there is that replica and another one to make it from.
    fn renew(&mut self, shard: ShardId, old: Replica) {
        let Ok(place) = self.shards.binary_search_by_key(&shard, |shard| shard.shard) else { return };
        let replicas = &mut self.shards[place].replicas;
        if replicas.len() < 2 {
            return;
        }
        if let Some(replica) = replicas.iter_mut().find(|replica| **replica == old) {
            replica.peer = self.next_peer;
            self.next_peer.0 += 1;
        }
    }

    /// Takes a node in, if its name and address are free. One that takes another's place is given that one's replicas, as fresh peers.
    fn join(&mut self, new: &Newcomer) {
        // Who has asked before is a member under the number that it was given then.
        let is_member = self.members.iter().any(|member| member.incarnation == new.incarnation);
        if is_member && !planted::is(Bug::JoinedTwice) || self.refusal(new).is_some() {
            return;
        }
        let id = self.next_node;
        self.next_node.0 += 1;
        let gone = self.members.iter().position(|member| member.name == new.name);
        if let Some(gone) = gone {
            let gone = self.members.remove(gone).id;
            let replicas = self.shards.iter_mut().flat_map(|shard| &mut shard.replicas);
            for replica in replicas.filter(|replica| replica.node == gone) {
                *replica = Replica { node: id, peer: self.next_peer };
                self.next_peer.0 += 1;
            }
        }
        // Numbers rise, so it is the last.
        self.members.push(Member {
            id,
            name: new.name.clone(),
            address: new.address.clone(),
            incarnation: new.incarnation,
            weight: new.weight,
            zone: new.zone.clone(),
            standing: Standing::Active,
            max: new.max,
        });
    }

    /// Why this node can't become a member. None if it can, or is one.
    pub fn refusal(&self, new: &Newcomer) -> Option<NoPlace> {
        if self.members.iter().any(|member| member.incarnation == new.incarnation) {
            return None;
        }
        let named = self.members.iter().find(|member| member.name == new.name);
        if named.is_some() && !new.replaces {
            return Some(NoPlace::Name);
        }
        if named.is_none() && new.replaces {
            return Some(NoPlace::NobodyToReplace);
        }
        let replaced = named.map(|member| member.id);
        let others = || self.members.iter().filter(|member| Some(member.id) != replaced);
        if let Some(other) = others().find(|member| member.address == new.address) {
            return Some(NoPlace::Address(other.name.clone()));
        }
        if others().count() >= BIRTH_NODES_MAX {
            return Some(NoPlace::Full);
        }
        if new.weight == 0 || new.weight > WEIGHT_MAX {
            return Some(NoPlace::Weight(new.weight));
        }
        if new.max < self.level {
            return Some(NoPlace::Level(self.level));
        }
        None
    }

    /// Nobody moves if two members would have one address.
    fn move_members(&mut self, moves: &[(NodeId, String)]) {
        let before = self.members.clone();
        for (node, address) in moves {
            if let Ok(place) = self.members.binary_search_by_key(node, |member| member.id) {
                self.members[place].address.clone_from(address);
            }
        }
        let distinct: BTreeSet<&str> = self.members.iter().map(|member| &*member.address).collect();
        if distinct.len() < self.members.len() {
            self.members = before;
        }
    }

    /// Those of these members that can be where they say: nobody else has that address who does not say that it is elsewhere. Who is
    /// there already is left out.
    pub fn moves(&self, said: &BTreeMap<NodeId, String>) -> Vec<(NodeId, String)> {
        let is_elsewhere = |(node, address): &(NodeId, String)| {
            self.member(*node).is_some_and(|member| member.address != *address)
        };
        let said = said.iter().map(|(node, address)| (*node, address.clone()));
        let mut moves: Vec<(NodeId, String)> = said.filter(is_elsewhere).collect();
        loop {
            let holds = |node: NodeId, address: &str| {
                let elsewhere = moves.iter().find(|(other, _)| *other == node);
                elsewhere.map_or_else(
                    || self.member(node).is_some_and(|member| member.address == address),
                    |(_, there)| there == address,
                )
            };
            let is_free = |(node, address): &(NodeId, String)| {
                self.members.iter().all(|other| other.id == *node || !holds(other.id, address))
            };
            let good: Vec<(NodeId, String)> = moves.iter().filter(|one| is_free(one)).cloned().collect();
            if good.len() == moves.len() {
                return good;
            }
            moves = good;
        }
    }

    /// The last one that is given replicas goes on being given them.
    fn stand(&mut self, node: NodeId, standing: Standing) {
        let is_active = |member: &&Member| member.standing == Standing::Active;
        let is_last = self.members.iter().filter(is_active).all(|member| member.id == node);
        let Ok(place) = self.members.binary_search_by_key(&node, |member| member.id) else { return };
        if standing == Standing::Active || !is_last {
            self.members[place].standing = standing;
        }
    }

    /// Whoever keeps a replica of a shard keeps its peer.
    fn place(&mut self, places: &[(ShardId, Vec<NodeId>)]) {
        for (shard, nodes) in places {
            let distinct: BTreeSet<NodeId> = nodes.iter().copied().collect();
            let is_good = !nodes.is_empty()
                && nodes.len() <= GROUP_REPLICAS_MAX
                && distinct.len() == nodes.len()
                && nodes.iter().all(|node| self.member(*node).is_some());
            let Ok(place) = self.shards.binary_search_by_key(shard, |shard| shard.shard) else { continue };
            if !is_good {
                continue;
            }
            let before = std::mem::take(&mut self.shards[place].replicas);
            let kept = |node| before.iter().find(|replica| replica.node == node).copied();
            for node in nodes {
                let replica = kept(*node).unwrap_or_else(|| {
                    let fresh = Replica { node: *node, peer: self.next_peer };
                    self.next_peer.0 += 1;
                    fresh
                });
                self.shards[place].replicas.push(replica);
            }
        }
    }

    /// No group has a replica that is not in the layout, so who has no place there has none at all.
    fn forget_those_who_left(&mut self) {
        let mut members = std::mem::take(&mut self.members);
        members.retain(|member| member.standing != Standing::Leaving || self.has_replica_on(member.id));
        self.members = members;
    }

    /// Who owns the slot. One look into a table.
    pub fn shard_of_slot(&self, slot: Slot) -> ShardId {
        self.owners.0[usize::from(slot.0 % SLOTS)]
    }

    /// The shard with this number.
    pub fn shard(&self, id: ShardId) -> Option<&ShardLayout> {
        let place = self.shards.binary_search_by_key(&id, |shard| shard.shard).ok()?;
        Some(&self.shards[place])
    }

    /// The node with this number.
    pub fn member(&self, id: NodeId) -> Option<&Member> {
        let place = self.members.binary_search_by_key(&id, |member| member.id).ok()?;
        Some(&self.members[place])
    }
}

/// The highest level that all of them know; `None` if there are none.
fn known_to_all(members: &[Member]) -> Option<Level> {
    members.iter().map(|member| member.max).min()
}

fn check(members: &[Member], shards: u32, copies: u32) -> Result<(), RingError> {
    if members.is_empty() || members.len() > BIRTH_NODES_MAX {
        return Err(RingError::Nodes(members.len()));
    }
    if shards == 0 || shards > SHARDS_MAX {
        return Err(RingError::Shards(shards));
    }
    if copies == 0 {
        return Err(RingError::Copies);
    }
    let mut before = NodeId(0);
    let mut addresses = BTreeSet::new();
    for member in members {
        if member.id <= before {
            return Err(RingError::Node(member.id));
        }
        before = member.id;
        if !addresses.insert(&member.address) {
            return Err(RingError::Address(member.address.clone()));
        }
        if member.weight == 0 || member.weight > WEIGHT_MAX {
            return Err(RingError::Weight(member.id, member.weight));
        }
    }
    Ok(())
}

/// Slot to shard, by index. Follows from the shards' ranges.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Owners(Box<[ShardId]>);

impl Owners {
    /// `None` if a slot has no owner or two.
    pub(crate) fn new(shards: &[ShardLayout]) -> Option<Owners> {
        let mut owners = vec![ShardId::META; usize::from(SLOTS)];
        for shard in shards {
            for &(first, last) in &shard.slots {
                for slot in owners.get_mut(usize::from(first.0)..=usize::from(last.0))? {
                    if *slot != ShardId::META {
                        return None;
                    }
                    *slot = shard.shard;
                }
            }
        }
        (!owners.contains(&ShardId::META)).then(|| Owners(owners.into_boxed_slice()))
    }
}

impl fmt::Debug for Owners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Owners(..)")
    }
}
