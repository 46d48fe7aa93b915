//! The package `family`: the disk register's `FamilyService` and `StorageService`.
//!
//! A message's key is its id in decimal, as the text protocol's `SET 7` has it; `007` is another key.

use ringfort_proto::family::family_service_server::FamilyService;
use ringfort_proto::family::storage_service_server::StorageService;
use ringfort_proto::family::{Empty, FamilyView, MessageId, NodeInfo, StoreResult, StoredMessage};
use ringfort_proto::status::{from_failure, from_write_failure, timeout_ms};
use ringfort_types::{Change, Part};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use super::authenticated::asked_by;
use super::held::response;
use super::tolerance::Tolerance;
use super::utf8::text;
use super::{inviting_ms, not_there};
use crate::gate::Gate;
use crate::invite::invite;

/// Both services.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) gate: Gate,
    pub(super) tolerance: Tolerance,
}

impl Service {
    async fn view(gate: &Gate, metadata: &MetadataMap) -> Result<FamilyView, Status> {
        let state = gate.cluster(timeout_ms(metadata)).await.map_err(from_failure)?;
        let members = state.nodes.iter().filter_map(|node| info_of(&node.address)).collect();
        Ok(FamilyView { members })
    }

    async fn put(&self, call: Request<StoredMessage>) -> Result<Response<StoreResult>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let StoredMessage { id, text } = call.into_inner();
        let part = Part::new(id.to_string(), Change::put(text));
        let tolerance = self.tolerance.now();
        if let Some(error) = tolerance.impossible_for(&part.key, &gate) {
            return Ok(Response::new(StoreResult { success: false, error }));
        }
        let written = gate.write(part, tolerance.durability(timeout_ms), timeout_ms).await;
        let receipt = written.map_err(from_write_failure)?.unwrap_or_default();
        let error = tolerance.judge(&receipt).err().unwrap_or_default();
        Ok(Response::new(StoreResult { success: error.is_empty(), error }))
    }

    async fn read(&self, call: Request<MessageId>) -> Result<Response<StoredMessage>, Status> {
        let (gate, timeout_ms) = (asked_by(&call, &self.gate), timeout_ms(call.metadata()));
        let id = call.into_inner().id;
        let key = id.to_string();
        let (row, room) = gate.get(key.clone(), timeout_ms).await.map_err(from_failure)?;
        let row = row.ok_or_else(|| not_there(&key))?;
        let text = text(key.as_bytes(), &row.value).map_err(from_failure)?;
        Ok(response(StoredMessage { id, text }, room))
    }
}

/// `HOST:PORT` in two.
fn info_of(address: &str) -> Option<NodeInfo> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(NodeInfo { host: host.to_owned(), port: port.parse().ok()? })
}

/// The same, put together.
fn address_of(NodeInfo { host, port }: &NodeInfo) -> String {
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    if is_bare_ipv6 { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[tonic::async_trait]
impl FamilyService for Service {
    async fn join(&self, call: Request<NodeInfo>) -> Result<Response<FamilyView>, Status> {
        let (gate, address) = (asked_by(&call, &self.gate), address_of(call.get_ref()));
        let invited = invite(&gate, None, &address, inviting_ms(call.metadata())).await;
        invited.map_err(from_failure)?;
        Service::view(&gate, call.metadata()).await.map(Response::new)
    }

    async fn get_family(&self, call: Request<Empty>) -> Result<Response<FamilyView>, Status> {
        Service::view(&asked_by(&call, &self.gate), call.metadata()).await.map(Response::new)
    }

    async fn store(&self, call: Request<StoredMessage>) -> Result<Response<StoreResult>, Status> {
        self.put(call).await
    }

    async fn retrieve(&self, call: Request<MessageId>) -> Result<Response<StoredMessage>, Status> {
        self.read(call).await
    }
}

#[tonic::async_trait]
impl StorageService for Service {
    async fn store(&self, call: Request<StoredMessage>) -> Result<Response<StoreResult>, Status> {
        self.put(call).await
    }

    async fn retrieve(&self, call: Request<MessageId>) -> Result<Response<StoredMessage>, Status> {
        self.read(call).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_in_two_and_goes_in_one() {
        let info = |host: &str, port| Some(NodeInfo { host: host.into(), port });
        assert_eq!(info_of("10.0.0.1:5555"), info("10.0.0.1", 5555));
        assert_eq!(info_of("[::1]:1"), info("::1", 1));
        assert_eq!(info_of("nowhere"), None);
        for address in ["10.0.0.1:5555", "[::1]:1"] {
            assert_eq!(address_of(&info_of(address).unwrap()), address);
        }
    }
}
