//! What nodes tell each other until their cluster is born, and each time that they connect.

use bytes::{BufMut, BytesMut};

use super::Wire;
use crate::limits::{ADDRESS_BYTES_MAX, BIRTH_NODES_MAX, NAME_BYTES_MAX};
use crate::wire::{Malformed, Reader, put_bytes, put_varint};
use crate::{Levels, is_name};

/// How far a node is with its cluster's birth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BirthStage {
    /// Has not seen every listed node yet.
    Waiting,
    /// Has seen every listed node, and the full map is synced on its disk.
    Mapped,
    /// Knows that the map is synced on every listed node.
    Born,
}

/// Who a node is, and how it was told to be born. Sent when a connection opens, and each second until birth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Its operator's name for it.
    pub name: String,
    /// Its advertised address.
    pub address: String,
    /// All addresses that it was started with, its own included, sorted.
    pub addresses: Vec<String>,
    /// Names that it was started with, for those of `addresses` that had one; empty where none was given.
    pub names: Vec<String>,
    /// Number of shards that it was started with.
    pub shards: u32,
    /// Copies of each shard that it was started with.
    pub replicas: u32,
    /// How far it is.
    pub stage: BirthStage,
    /// Hash of the full map (names, addresses, incarnations, shards, replicas) once it has one, else 0.
    pub map_hash: u64,
    /// The levels that it knows.
    pub levels: Levels,
}

impl Wire for Hello {
    const KIND: u8 = 1;

    fn encode(&self, out: &mut BytesMut) {
        put_bytes(out, self.name.as_bytes());
        put_bytes(out, self.address.as_bytes());
        put_varint(out, self.addresses.len() as u64);
        for (address, name) in self.addresses.iter().zip(&self.names) {
            put_bytes(out, address.as_bytes());
            put_bytes(out, name.as_bytes());
        }
        put_varint(out, self.shards.into());
        put_varint(out, self.replicas.into());
        out.put_u8(match self.stage {
            BirthStage::Waiting => 0,
            BirthStage::Mapped => 1,
            BirthStage::Born => 2,
        });
        out.put_u64_le(self.map_hash);
        self.levels.put(out);
    }

    fn decode(reader: &mut Reader) -> Result<Hello, Malformed> {
        let name = reader.string(NAME_BYTES_MAX)?;
        if !is_name(&name) {
            return Err(Malformed("not a node's name"));
        }
        let address = reader.string(ADDRESS_BYTES_MAX)?;
        let count = reader.count(2)?;
        if count > BIRTH_NODES_MAX {
            return Err(Malformed("too many nodes in a list"));
        }
        let (mut addresses, mut names) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for _ in 0..count {
            addresses.push(reader.string(ADDRESS_BYTES_MAX)?);
            names.push(reader.string(NAME_BYTES_MAX)?);
        }
        Ok(Hello {
            name,
            address,
            addresses,
            names,
            shards: reader.varint()? as u32,
            replicas: reader.varint()? as u32,
            stage: match reader.u8()? {
                0 => BirthStage::Waiting,
                1 => BirthStage::Mapped,
                2 => BirthStage::Born,
                _ => return Err(Malformed("unknown stage of birth")),
            },
            map_hash: reader.u64()?,
            levels: Levels::read(reader)?,
        })
    }

    fn weight(&self) -> usize {
        64 + self.name.len() + self.address.len() + 64 * self.addresses.len()
    }
}
