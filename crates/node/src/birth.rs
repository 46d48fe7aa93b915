//! How a cluster comes into being from nodes that were started with the same list.
//!
//! Nodes tell each other who they are ([`Hello`]). Three stages, each entered for good:
//!
//! 1. *Waiting*: not every listed node has been seen. Nothing is decided; a listed address may still turn out
//!    to be another directory.
//! 2. *Mapped*: every listed node has been seen once, and the full map (names, addresses, incarnations) is
//!    synced here. From now on another incarnation under a known address is refused.
//! 3. *Born*: the map is known to be synced on every listed node. Only now may Raft groups start.
//!
//! Why two steps. If a group could start while some listed node has not synced the map, that node could lose
//! its disk, come back empty with the same flags, and take part as a voter that has forgotten its votes and
//! entries (PITFALLS 16a). Once the map is synced everywhere, its empty successor is told apart by its
//! incarnation, by everybody.

mod agree;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ringfort_ring::{Layout, Member, RingError};
use ringfort_types::limits::{ADDRESS_BYTES_MAX, LAYOUT_BYTES_MAX, NAME_BYTES_MAX};
use ringfort_types::planted::{self, Bug};
use ringfort_types::wire::{Malformed, Reader, put_bytes, put_varint};
use ringfort_types::{BirthStage, Hello, Incarnation, Level, NodeId, Standing};
use xxhash_rust::xxh3::xxh3_64;

use crate::{Config, Identity, NodeError};
use agree::{agree, agree_on_numbers};

const VERSION: u8 = 2;
/// The stage of a map alone.
const MAPPED: u8 = 1;
/// The stage of a map and the layout that was made of it.
const BORN: u8 = 2;
/// The stage of a node that has joined.
const JOINED: u8 = 3;

/// One node in the map.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listed {
    name: String,
    address: String,
    incarnation: Incarnation,
}

/// The record of a node that has joined a cluster: its number there, and what the cluster was born with. Drawn in
/// `docs/formats/identity.md`: `version u8 (2) | stage u8 (3 joined) | node varint | layout bytes`
pub fn joined(node: NodeId, born: &Layout) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&[VERSION, JOINED]);
    put_varint(&mut out, node.0);
    put_bytes(&mut out, &born.encode());
    out.freeze()
}

/// Whether this is a record of one that has joined.
pub fn is_joined(bytes: &Bytes) -> bool {
    bytes.get(..2) == Some(&[VERSION, JOINED])
}

/// Whether this is a record of a member of a cluster that is born: of one that has joined, or of a birth that is done.
pub fn is_member(bytes: &Bytes) -> bool {
    is_joined(bytes) || bytes.get(..2) == Some(&[VERSION, BORN])
}

/// What [`joined`] wrote; `None` if it is the record of a birth.
pub fn read_joined(bytes: &Bytes) -> Result<Option<(NodeId, Layout)>, Malformed> {
    if !is_joined(bytes) {
        return Ok(None);
    }
    let mut reader = Reader::new(bytes.slice(2..));
    let node = NodeId(reader.varint()?);
    let born = Layout::decode(reader.bytes(LAYOUT_BYTES_MAX)?)?;
    reader.finish()?;
    if node == NodeId(0) || born.member(node).is_some() {
        return Err(Malformed("a node that has joined under the number of one that was there"));
    }
    Ok(Some((node, born)))
}

/// How many shards a cluster is born with by a node's birth record, and how many copies of each were asked for.
pub fn born_numbers(bytes: &Bytes) -> Result<(u32, u32), NodeError> {
    let damaged = |_| NodeError::BirthRecord;
    if let Some((_, born)) = read_joined(bytes).map_err(damaged)? {
        return Ok((born.shards.len() as u32 - 1, born.copies));
    }
    let (map, _) = Map::decode(bytes.clone()).map_err(damaged)?;
    Ok((map.shards, map.replicas))
}

/// Which node of a cluster that is born a directory of this incarnation belongs to, by its birth record, and what the cluster was born
/// with. `None` if the cluster is not born, as far as it knows.
pub fn read_birth(bytes: &Bytes, incarnation: Incarnation) -> Result<Option<(NodeId, Layout)>, NodeError> {
    let damaged = |_| NodeError::BirthRecord;
    if let Some(joined) = read_joined(bytes).map_err(damaged)? {
        return Ok(Some(joined));
    }
    let (map, born) = Map::decode(bytes.clone()).map_err(damaged)?;
    let place = map.nodes.iter().position(|node| node.incarnation == incarnation);
    let place = place.ok_or(NodeError::BirthRecord)?;
    Ok(born.map(|born| (NodeId(place as u64 + 1), born)))
}

/// The record of a new cluster of one node, which begins with what is left of the cluster that had this layout, and the layout that it is born
/// with.
pub fn begun_anew(
    old: &Layout,
    name: &str,
    address: &str,
    incarnation: Incarnation,
) -> Result<(Bytes, Layout), RingError> {
    let node = Listed { name: name.to_owned(), address: address.to_owned(), incarnation };
    let map = Map { nodes: vec![node], shards: old.shards.len() as u32 - 1, replicas: old.copies };
    let members = map.members(old.level);
    let born = old.begun_anew(members, map.hash())?;
    Ok((map.encode(Some(&born)), born))
}

/// The full map. Drawn in `docs/formats/identity.md`:
/// `version u8 (2) | stage u8 (1 mapped, 2 born) | shards | replicas | count | (name, address, incarnation u64) … |
/// first layout, if born (`ringfort-ring`)`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Map {
    nodes: Vec<Listed>,
    shards: u32,
    replicas: u32,
}

impl Map {
    /// The record of the map alone, or of the map and the layout that was made of it.
    fn encode(&self, born: Option<&Layout>) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(&[VERSION, if born.is_some() { BORN } else { MAPPED }]);
        self.encode_body(&mut out);
        if let Some(layout) = born {
            put_bytes(&mut out, &layout.encode());
        }
        out.freeze()
    }

    fn encode_body(&self, out: &mut BytesMut) {
        put_varint(out, self.shards.into());
        put_varint(out, self.replicas.into());
        put_varint(out, self.nodes.len() as u64);
        for node in &self.nodes {
            put_bytes(out, node.name.as_bytes());
            put_bytes(out, node.address.as_bytes());
            out.put_u64_le(node.incarnation.0);
        }
    }

    fn decode(bytes: Bytes) -> Result<(Map, Option<Layout>), Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != VERSION {
            return Err(Malformed("unknown version of a birth record"));
        }
        let is_born = match reader.u8()? {
            MAPPED => false,
            BORN => true,
            _ => return Err(Malformed("unknown stage in a birth record")),
        };
        let (shards, replicas) = (reader.varint()? as u32, reader.varint()? as u32);
        let count = reader.count(10)?;
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(Listed {
                name: reader.string(NAME_BYTES_MAX)?,
                address: reader.string(ADDRESS_BYTES_MAX)?,
                incarnation: Incarnation(reader.u64()?),
            });
        }
        let born = if is_born { Some(Layout::decode(reader.bytes(LAYOUT_BYTES_MAX)?)?) } else { None };
        reader.finish()?;
        let map = Map { nodes, shards, replicas };
        if born.as_ref().is_some_and(|born| born.cluster != map.hash()) {
            return Err(Malformed("a layout of another cluster in a birth record"));
        }
        Ok((map, born))
    }

    fn members(&self, level: Level) -> Vec<Member> {
        members(self.nodes.iter().map(|node| (&*node.name, &*node.address, node.incarnation)), level)
    }

    /// The layout that follows from it. Made for the birth alone: how it follows may change from one version to another.
    fn first_layout(&self, level: Level) -> Layout {
        let first = Layout::first(self.members(level), self.hash(), self.shards, self.replicas);
        first.expect("the same numbers have made a layout when the node was made")
    }

    /// The map's hash is the cluster's number: two clusters differ in their incarnations at least.
    fn hash(&self) -> u64 {
        if planted::is(Bug::WipedNodeVotes) {
            return 1;
        }
        let mut out = BytesMut::new();
        self.encode_body(&mut out);
        xxh3_64(&out).max(1)
    }
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: somebody has to speak first.
    Wait,
    /// Make this durable, then call [`Birth::saved`].
    Save(Bytes),
    /// The cluster is born.
    Born,
}

pub(crate) struct Birth {
    config: Config,
    me: NodeId,
    /// This node's place in the list.
    place: usize,
    /// By place in the list; this node itself is always seen.
    seen: Vec<Option<(String, Incarnation)>>,
    /// By place in the list: whose map is synced.
    mapped: Vec<bool>,
    map: Option<Map>,
    /// The stage that is durable here.
    stage: BirthStage,
    /// The stage that is being made durable.
    saving: Option<BirthStage>,
    /// What the cluster is born with: made once, when all nodes are known to have the map, and read from then on.
    born: Option<Arc<Layout>>,
    /// Whether this is its directory's first start.
    is_first: bool,
}

impl Birth {
    pub(crate) fn new(config: Config, identity: &Identity) -> Result<Birth, NodeError> {
        let listed = config.addresses.iter().position(|address| *address == config.address);
        if let Some(bytes) = &identity.birth
            && let Some((me, born)) = read_joined(bytes).map_err(|_| NodeError::BirthRecord)?
        {
            return Ok(Birth {
                seen: Vec::new(),
                mapped: Vec::new(),
                map: None,
                stage: BirthStage::Born,
                saving: None,
                born: Some(Arc::new(born)),
                is_first: false,
                config,
                me,
                place: 0,
            });
        }
        if let Some(bytes) = &identity.birth
            && let (map, Some(born)) = Map::decode(bytes.clone()).map_err(|_| NodeError::BirthRecord)?
        {
            return Birth::done(config, identity.incarnation, map, born);
        }
        let place = listed.ok_or_else(|| NodeError::NotListed(config.address.clone()))?;
        let me = NodeId(place as u64 + 1);
        // A number of shards or copies that can't be should be known now, not once all nodes have met.
        let nodes = config.addresses.iter().map(|address| ("", &**address, Incarnation(0)));
        Layout::first(members(nodes, config.levels.min), 1, config.shards, config.replicas)?;
        let mut seen = vec![None; config.addresses.len()];
        seen[place] = Some((config.names[place].clone(), identity.incarnation));
        let mut mapped = vec![false; config.addresses.len()];
        let (mut map, mut stage) = (None, BirthStage::Waiting);
        if let Some(bytes) = &identity.birth {
            let (stored, _) = Map::decode(bytes.clone()).map_err(|_| NodeError::BirthRecord)?;
            agree(&stored, &config, identity.incarnation)?;
            if stored.nodes[place].incarnation != identity.incarnation {
                return Err(NodeError::BirthRecord);
            }
            mapped[place] = true;
            (map, stage) = (Some(stored), BirthStage::Mapped);
        }
        let is_first = identity.boot == 1 && identity.birth.is_none();
        Ok(Birth { config, me, place, seen, mapped, map, stage, saving: None, born: None, is_first })
    }

    /// Of a node whose cluster is born: who the others are is known, and where they were. Where this one is its flags say.
    fn done(config: Config, incarnation: Incarnation, map: Map, born: Layout) -> Result<Birth, NodeError> {
        agree_on_numbers(&map, &config, incarnation)?;
        let place = map.nodes.iter().position(|node| node.incarnation == incarnation);
        let place = place.ok_or(NodeError::BirthRecord)?;
        let (addresses, names) =
            map.nodes.iter().map(|node| (node.address.clone(), node.name.clone())).unzip();
        Ok(Birth {
            config: Config { addresses, names, ..config },
            me: NodeId(place as u64 + 1),
            place,
            seen: Vec::new(),
            mapped: vec![true; map.nodes.len()],
            map: Some(map),
            stage: BirthStage::Born,
            saving: None,
            born: Some(Arc::new(born)),
            is_first: false,
        })
    }

    pub(crate) fn id(&self) -> NodeId {
        self.me
    }

    pub(crate) fn is_born(&self) -> bool {
        self.stage == BirthStage::Born
    }

    /// Where this node listens.
    pub(crate) fn address(&self) -> &str {
        &self.config.address
    }

    /// Whether it has joined a cluster that was there, and knows of no birth.
    pub(crate) fn has_joined(&self) -> bool {
        self.is_born() && self.map.is_none()
    }

    /// Whether what a node says of itself is of interest here. Once this node's cluster is born, only what those say that may not
    /// know it; before, what those say that it is to be born with, or want to be.
    pub(crate) fn listens_to(&self, incarnation: Incarnation, hello: &Hello) -> bool {
        let says_born = hello.stage == BirthStage::Born;
        if self.is_born() {
            !says_born && !self.has_joined()
        } else {
            !says_born || self.lists(&hello.address) || self.place_of(incarnation).is_some()
        }
    }

    /// The place in the list of the node with this data directory, once that is known.
    fn place_of(&self, incarnation: Incarnation) -> Option<usize> {
        self.map.as_ref()?.nodes.iter().position(|node| node.incarnation == incarnation)
    }

    /// Whether the list has this address.
    pub(crate) fn lists(&self, address: &str) -> bool {
        self.config.addresses.iter().any(|listed| listed == address)
    }

    /// The nodes of the list, by number; this node alone if it has joined.
    pub(crate) fn listed(&self) -> Vec<NodeId> {
        let count = if self.has_joined() { 0 } else { self.config.addresses.len() as u64 };
        (1..=count).map(NodeId).chain(self.has_joined().then_some(self.me)).collect()
    }

    /// What this node says of itself.
    pub(crate) fn hello(&self) -> Hello {
        Hello {
            name: self.config.names[self.place].clone(),
            address: self.config.address.clone(),
            addresses: self.config.addresses.clone(),
            names: self.config.names.clone(),
            shards: self.config.shards,
            replicas: self.config.replicas,
            stage: self.stage,
            map_hash: self.map.as_ref().map_or(0, Map::hash),
            levels: self.config.levels,
        }
    }

    /// Takes in what another node says of itself. An error is the reason to refuse it.
    pub(crate) fn handle_hello(&mut self, incarnation: Incarnation, hello: &Hello) -> Result<NodeId, String> {
        self.compare_lists(hello)?;
        // Since its cluster was born it may have moved.
        let at = || self.config.addresses.iter().position(|address| *address == hello.address);
        let place = self.place_of(incarnation).or_else(at);
        let place =
            place.ok_or_else(|| format!("{} is not in this cluster's list of nodes", hello.address))?;
        let id = NodeId(place as u64 + 1);
        if id == self.me {
            return Err(format!(
                "two nodes say that they are at {}: give each its own --addr (or --advertise)",
                hello.address
            ));
        }
        let given = &self.config.names[place];
        if self.map.is_none() && !given.is_empty() && *given != hello.name {
            return Err(format!(
                "the node at {} calls itself {}, but it is listed as {given}: start all nodes with the same names",
                hello.address, hello.name
            ));
        }
        if self.map.is_some() {
            self.compare_to_map(place, incarnation, hello)?;
        } else {
            let called_so = |seen: &Option<(String, Incarnation)>| {
                seen.as_ref().is_some_and(|(name, _)| *name == hello.name)
            };
            let other =
                self.seen.iter().enumerate().position(|(other, seen)| other != place && called_so(seen));
            if let Some(other) = other {
                return Err(format!(
                    "{} and {} are both called {}: give each node its own --id",
                    self.config.addresses[other], hello.address, hello.name
                ));
            }
            self.seen[place] = Some((hello.name.clone(), incarnation));
        }
        Ok(id)
    }

    /// Once there is a map, only who is in it may speak, from the directory that is in it.
    fn compare_to_map(
        &mut self,
        place: usize,
        incarnation: Incarnation,
        hello: &Hello,
    ) -> Result<(), String> {
        let map = self.map.as_ref().expect("the caller has looked");
        let known = &map.nodes[place];
        if known.incarnation != incarnation && !planted::is(Bug::WipedNodeVotes) {
            return Err(self.another_directory(&known.name, &known.address));
        }
        if known.name != hello.name {
            return Err(format!(
                "{} was born as {}: start it with --id {}",
                hello.address, known.name, known.name
            ));
        }
        if hello.stage >= BirthStage::Mapped {
            if hello.map_hash != map.hash() {
                return Err(format!(
                    "{} ({}) belongs to another cluster: its data directory was born with other nodes",
                    hello.name, hello.address
                ));
            }
            self.mapped[place] = true;
        }
        if hello.stage == BirthStage::Born {
            self.mapped.fill(true);
        }
        Ok(())
    }

    /// What a node is told that has the name or the address of one that was here with another data directory.
    pub(crate) fn another_directory(&self, name: &str, address: &str) -> String {
        format!(
            "{name} ({address}) was part of this cluster with another data directory than it has now (it was wiped or replaced): start it \
             again with its old data directory; an empty one can't vote under an old name, or acknowledged writes could be lost. The other \
             nodes serve on without it. If the old one is lost for good, the node gets all its replicas from the others: ringfort start \
             --id {name} --addr {address} --data-dir DIR --join {} --replace",
            self.config.address
        )
    }

    fn compare_lists(&self, hello: &Hello) -> Result<(), String> {
        let (ours, theirs) = (&self.config.addresses, &hello.addresses);
        if ours != theirs {
            let only = |a: &[String], b: &[String]| {
                let only: Vec<_> = a.iter().filter(|address| !b.contains(address)).cloned().collect();
                if only.is_empty() { "nothing more".to_owned() } else { only.join(", ") }
            };
            return Err(format!(
                "the nodes were started with lists that differ: only {} lists {}; only {} lists {}: start all of \
                 them with the same list",
                self.config.address,
                only(ours, theirs),
                hello.address,
                only(theirs, ours),
            ));
        }
        for (what, ours, theirs) in [
            ("--shards", self.config.shards, hello.shards),
            ("--replicas", self.config.replicas, hello.replicas),
        ] {
            if ours != theirs {
                return Err(format!(
                    "the nodes were started with flags that differ: {} has {what} {ours}, {} has {what} {theirs}: \
                     start all of them with the same",
                    self.config.address, hello.address
                ));
            }
        }
        // The level that the cluster begins with.
        if self.config.levels.min != hello.levels.min {
            return Err(format!(
                "the nodes run versions of Ringfort that are too far apart to begin a cluster with: {} knows {}, {} knows {}: start all \
                 of them with the same version",
                self.config.address, self.config.levels, hello.address, hello.levels
            ));
        }
        Ok(())
    }

    /// Whether there can be no cluster without the node at this address.
    pub(crate) fn awaits(&self, address: &str) -> bool {
        self.map.is_none() && *address != self.config.address && self.lists(address)
    }

    /// What has to happen next, after a hello or a save.
    pub(crate) fn step(&mut self) -> Step {
        if self.saving.is_some() || self.is_born() {
            return Step::Wait;
        }
        let (stage, map) = if let Some(map) = &self.map {
            if !self.mapped.iter().all(|mapped| *mapped) {
                return Step::Wait;
            }
            (BirthStage::Born, map.clone())
        } else {
            let Some(nodes) = self
                .seen
                .iter()
                .zip(&self.config.addresses)
                .map(|(seen, address)| {
                    let (name, incarnation) = seen.clone()?;
                    Some(Listed { name, address: address.clone(), incarnation })
                })
                .collect::<Option<Vec<_>>>()
            else {
                return Step::Wait;
            };
            let (shards, replicas) = (self.config.shards, self.config.replicas);
            (BirthStage::Mapped, Map { nodes, shards, replicas })
        };
        if stage == BirthStage::Born {
            self.born = Some(Arc::new(map.first_layout(self.config.levels.min)));
        }
        let bytes = map.encode(self.born.as_deref());
        self.saving = Some(stage);
        self.map = Some(map);
        Step::Save(bytes)
    }

    /// What [`Step::Save`] gave out is durable.
    pub(crate) fn saved(&mut self) -> Step {
        let Some(stage) = self.saving.take() else { return Step::Wait };
        self.stage = stage;
        self.mapped[self.place] = true;
        if self.is_born() { Step::Born } else { self.step() }
    }

    /// Whom this node waits for.
    pub(crate) fn missing(&self) -> Vec<String> {
        let arrived: Vec<bool> = match &self.map {
            None => self.seen.iter().map(Option::is_some).collect(),
            Some(_) => self.mapped.clone(),
        };
        arrived
            .iter()
            .enumerate()
            .filter(|(place, arrived)| !**arrived && *place != self.place)
            .map(|(place, _)| match self.config.names[place].as_str() {
                "" => self.config.addresses[place].clone(),
                name => format!("{name} ({})", self.config.addresses[place]),
            })
            .collect()
    }

    /// Whether its directory is new, and can be done without if a cluster that is born refuses it: all of that one's nodes have synced
    /// the map, which has other directories, so no other cluster will ever be born with this one.
    pub(crate) fn is_dispensable(&self) -> bool {
        self.is_first && !self.is_born()
    }

    /// Whether this process has made a cluster of this node alone, in a new directory.
    pub(crate) fn is_upstart(&self) -> bool {
        self.is_first && self.is_born() && self.config.addresses.len() == 1
    }

    /// What people call a node: by its name if that is known, else by its address.
    pub(crate) fn called(&self, node: NodeId) -> String {
        let place = (node.0 as usize).wrapping_sub(1);
        let mapped = self.map.as_ref().and_then(|map| map.nodes.get(place)).map(|node| &node.name);
        let names = [mapped, self.config.names.get(place), self.config.addresses.get(place)];
        let known = names.into_iter().flatten().find(|name| !name.is_empty());
        known.cloned().unwrap_or_else(|| format!("node {node}"))
    }

    /// Whether this is the data directory that the map knows under this number.
    pub(crate) fn knows(&self, id: NodeId, incarnation: Incarnation) -> bool {
        let place = (id.0 as usize).wrapping_sub(1);
        self.map
            .as_ref()
            .and_then(|map| map.nodes.get(place))
            .is_some_and(|node| node.incarnation == incarnation || planted::is(Bug::WipedNodeVotes))
    }

    /// The first layout. Once born.
    pub(crate) fn layout(&self) -> Arc<Layout> {
        Arc::clone(self.born.as_ref().expect("a born cluster has a layout"))
    }
}

/// The members of a cluster that is born with nodes of these names, addresses and incarnations.
fn members<'a>(nodes: impl Iterator<Item = (&'a str, &'a str, Incarnation)>, level: Level) -> Vec<Member> {
    let member = |((name, address, incarnation), id): ((&str, &str, Incarnation), u64)| Member {
        id: NodeId(id),
        name: name.to_owned(),
        address: address.to_owned(),
        incarnation,
        weight: 1,
        zone: String::new(),
        standing: Standing::Active,
        // What more each of them knows they say once they are members.
        max: level,
    };
    nodes.zip(1..).map(member).collect()
}
