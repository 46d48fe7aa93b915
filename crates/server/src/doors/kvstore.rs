//! The package `kvstore.v1`: `KVStore` with Put, Get and List, and `Replicator`.
//!
//! A Put is acknowledged when all replicas have it, or, once it is committed, when some have lagged for [`PATIENCE_MS`]: then
//! its message names them.

use bytes::Bytes;
use ringfort_proto::kvstore::kv_store_server::KvStore;
use ringfort_proto::kvstore::replicator_server::Replicator;
use ringfort_proto::kvstore::{Ack, Key, KeyValue, Value};
use ringfort_proto::status::{from_failure, from_write_failure, stream_timeout_ms, timeout_ms};
use ringfort_types::limits::KVSTORE_LAG_MS;
use ringfort_types::{Change, Copies, Durability, Failure, Part, Receipt, Row};
use tonic::{Request, Response, Status};

use super::authenticated::asked_by;
use super::frames::Elsewhere;
use super::held::response;
use super::not_there;
use super::stream::stream_rows;
use super::utf8::{key_text, text};
use crate::gate::{Gate, Listing};

/// How long replicas may lag before a committed Put is acknowledged without them.
const PATIENCE_MS: u32 = KVSTORE_LAG_MS;

/// Both services.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
}

impl Service {
    async fn store(&self, call: Request<KeyValue>) -> Result<Response<Ack>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let KeyValue { key, value } = call.into_inner();
        if key.is_empty() {
            return Ok(Response::new(Ack { ok: false, message: "empty key".into() }));
        }
        let part = Part::new(key, Change::put(value));
        let durability = Durability { copies: Copies::All, patience_ms: PATIENCE_MS };
        let receipt = gate.write(part, durability, timeout_ms).await.map_err(from_write_failure)?;
        let message = receipt.map_or_else(String::new, |receipt| self.message(&receipt));
        Ok(Response::new(Ack { ok: true, message }))
    }

    fn message(&self, receipt: &Receipt) -> String {
        let layout = self.gate.layout();
        let shard = layout.as_ref().and_then(|layout| layout.shard(receipt.shard));
        let replicas = shard.map_or(0, |shard| shard.replicas.len());
        if receipt.copies as usize >= replicas {
            return "Stored and replicated".into();
        }
        let name = |node| {
            let mut members = layout.iter().flat_map(|layout| &layout.members);
            members.find(|member| member.id == node).map(|member| member.name.as_str())
        };
        let lagging: Vec<&str> = receipt.lacking.iter().filter_map(|node| name(*node)).collect();
        let stored = format!("Stored on {} of {replicas} replicas", receipt.copies);
        if lagging.is_empty() { stored } else { format!("{stored}; lagging: {}", lagging.join(", ")) }
    }
}

#[tonic::async_trait]
impl KvStore for Service {
    type ListStream = Elsewhere<KeyValue>;

    async fn put(&self, call: Request<KeyValue>) -> Result<Response<Ack>, Status> {
        self.store(call).await
    }

    async fn get(&self, call: Request<Key>) -> Result<Response<Value>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let key = call.into_inner().key;
        let (row, room) = gate.get(key.clone(), timeout_ms).await.map_err(from_failure)?;
        let row = row.ok_or_else(|| not_there(&key))?;
        let value = text(key.as_bytes(), &row.value).map_err(from_failure)?;
        Ok(response(Value { value }, room))
    }

    async fn list(&self, call: Request<()>) -> Result<Response<Self::ListStream>, Status> {
        let gate = asked_by(&call, &self.gate);
        let listing = Listing { within_ms: stream_timeout_ms(call.metadata()), ..Listing::default() };
        let rows = gate.rows(listing).map_err(from_failure)?;
        Ok(stream_rows(&gate, rows, |batch| batch.rows.into_iter().map(message_of)))
    }
}

#[tonic::async_trait]
impl Replicator for Service {
    async fn replicate(&self, call: Request<KeyValue>) -> Result<Response<Ack>, Status> {
        self.store(call).await
    }
}

fn message_of((key, row): (Bytes, Row)) -> Result<KeyValue, Failure> {
    Ok(KeyValue { key: key_text(&key)?, value: text(&key, &row.value)? })
}
