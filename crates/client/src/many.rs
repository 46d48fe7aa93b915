//! Reading several keys: one request for each shard that has some of them, side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use ringfort_types::limits::GET_MANY_KEYS_MAX;
use ringfort_types::{Code, Consistency, Failure, Reply, Request, Row, slot_of};
use tokio::task::JoinSet;

use crate::call::Inner;

/// A request's keys are closed once they have this many bytes (a key may be larger by itself).
const KEYS_BYTES_SOFT: usize = 1024 * 1024;

/// Some keys of one shard, and their places among all that were asked for.
#[derive(Default)]
struct Group {
    keys: Vec<Bytes>,
    places: Vec<usize>,
    bytes: usize,
}

impl Inner {
    /// Reads all keys. The rows come in the order of the keys; those of one shard are of one moment if they fit into
    /// one request.
    pub(crate) async fn get_many(
        self: &Arc<Inner>,
        keys: Vec<Bytes>,
        consistency: Consistency,
    ) -> Result<Vec<Option<Row>>, Failure> {
        let begun = Instant::now();
        let mut rows = vec![None; keys.len()];
        let mut asked = JoinSet::new();
        for Group { keys, places, .. } in self.grouped(keys, begun + self.options.timeout).await {
            let inner = self.clone();
            asked.spawn(async move {
                (places, inner.call_since(begun, Request::GetMany { keys, consistency }, 0).await)
            });
        }
        // What fails ends it: the rest is dropped, and with it no longer waited for.
        while let Some(answer) = asked.join_next().await {
            let (places, reply) = answer.map_err(|error| {
                Failure::unknown(Code::Unavailable, format!("the task that asked ended: {error}"))
            })?;
            let found = match reply? {
                Reply::Values { rows, .. } if rows.len() == places.len() => rows,
                other => return Err(other.into_failure()),
            };
            for (place, row) in places.into_iter().zip(found) {
                rows[place] = row;
            }
        }
        Ok(rows)
    }

    /// The keys by shard; by slot, as long as it is not known which shard has which: what has one slot has one shard.
    async fn grouped(&self, keys: Vec<Bytes>, deadline: Instant) -> Vec<Group> {
        if self.cluster.routes().is_empty() {
            let _ = self.cluster.look(deadline).await;
        }
        let routes = self.cluster.routes();
        let mut full = Vec::new();
        let mut open: BTreeMap<(bool, u16), Group> = BTreeMap::new();
        for (place, key) in keys.into_iter().enumerate() {
            let slot = slot_of(&key);
            let shard = routes.place_of(slot).map_or((false, slot.0), |shard| (true, shard));
            let group = open.entry(shard).or_default();
            if group.keys.len() == GET_MANY_KEYS_MAX || group.bytes > KEYS_BYTES_SOFT {
                full.push(std::mem::take(group));
            }
            group.bytes += key.len();
            group.keys.push(key);
            group.places.push(place);
        }
        full.into_iter().chain(open.into_values()).collect()
    }
}
