//! Nodes that do as they are told: real sockets, no storage.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ringfort_proto::session::{call_of, result_of};
use ringfort_proto::status::{from_failure, insert_leader};
use ringfort_proto::unary::{
    into_get, into_get_many, into_open_session, into_receipt, into_transfer_leadership,
};
use ringfort_proto::v1::cluster_server::{Cluster, ClusterServer};
use ringfort_proto::v1::kv_server::{Kv, KvServer};
use ringfort_proto::v1::{self, SessionRequest, SessionResponse};
use ringfort_proto::writes::{into_delete, into_increment, into_put, into_write};
use ringfort_types::{
    Call, Change, ClusterState, Failure, HybridClock, Index, NodeId, NodeState, Part, Presence, Receipt,
    Reply, Request, Revision, Row, ShardId, ShardState, Slot, Stamp, Term,
};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Response, Status, Streaming};

/// What a node does about a request.
pub(crate) enum Act {
    Reply(Reply),
    /// Replies, and says that this node leads the key's shard.
    Hint(Reply, NodeId),
    /// Never answers.
    Silence,
    /// Breaks the stream off.
    Break,
    /// Ends the stream with this, and answers nothing.
    End(Failure),
}

/// How a node sends a list of six rows.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Listed {
    /// Rows before it breaks off, if it does.
    pub(crate) breaks_after: Option<u32>,
    /// Rows before it falls silent, if it does.
    pub(crate) silent_after: Option<u32>,
    /// Whether the first message names the indexes.
    pub(crate) indexes: bool,
    /// Whether it can't read at indexes that are named to it.
    pub(crate) gone: bool,
}

/// How a node behaves; gets the number of earlier requests for the same node.
type Behave = Box<dyn Fn(usize, &Request) -> Act + Send + Sync>;

pub(crate) struct Shared {
    behave: Behave,
    state: Mutex<ClusterState>,
    /// Requests seen.
    pub(crate) seen: AtomicUsize,
    /// Session frames seen.
    pub(crate) frames: AtomicUsize,
    /// Most requests of one frame or unanswered by [`Act::Silence`].
    pub(crate) unanswered: AtomicUsize,
    /// Of the requests that had one.
    stamps: Mutex<Vec<Stamp>>,
    /// Whether a list that does not break off ends without saying that it is whole.
    pub(crate) list_is_cut: AtomicBool,
    /// Does not even say how the cluster looks.
    pub(crate) hangs: AtomicBool,
    /// Wants to know who asks, whatever is asked.
    pub(crate) asks_who: AtomicBool,
    /// How a list goes.
    pub(crate) list: Mutex<Listed>,
    /// What lists were asked for.
    pub(crate) lists: Mutex<Vec<v1::ListRequest>>,
}

/// A node; ends when it is dropped.
pub(crate) struct Node {
    pub(crate) address: String,
    pub(crate) shared: Arc<Shared>,
    /// Of its own, so that its connections end with it.
    runtime: Option<Runtime>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

impl Node {
    pub(crate) async fn start(behave: impl Fn(usize, &Request) -> Act + Send + Sync + 'static) -> Node {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.spawn(TcpListener::bind("127.0.0.1:0")).await.unwrap().unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            behave: Box::new(behave),
            state: Mutex::default(),
            seen: AtomicUsize::new(0),
            frames: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
            stamps: Mutex::default(),
            list_is_cut: AtomicBool::new(false),
            hangs: AtomicBool::new(false),
            asks_who: AtomicBool::new(false),
            list: Mutex::default(),
            lists: Mutex::default(),
        });
        let service = Service(shared.clone());
        let server = Server::builder()
            .add_service(KvServer::new(service.clone()))
            .add_service(ClusterServer::new(service))
            .serve_with_incoming(TcpIncoming::from(listener));
        runtime.spawn(async move { server.await.unwrap() });
        Node { address, shared, runtime: Some(runtime) }
    }

    pub(crate) fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::Relaxed)
    }

    /// The stamps that have come here, in order.
    pub(crate) fn stamps(&self) -> Vec<Stamp> {
        self.shared.stamps.lock().unwrap().clone()
    }
}

/// Tells all nodes of one cluster of which they are a part: node n leads the n-th part of all slots.
pub(crate) fn acquaint(nodes: &[&Node]) {
    let share = 16_384 / nodes.len() as u16;
    let mut state = ClusterState::default();
    for (at, node) in nodes.iter().enumerate() {
        let number = at as u16;
        let last = if at + 1 == nodes.len() { 16_383 } else { (number + 1) * share - 1 };
        let id = NodeId(u64::from(number) + 1);
        let address = node.address.clone();
        state.nodes.push(NodeState { id, address, presence: Presence::Up, ..NodeState::default() });
        state.shards.push(ShardState {
            shard: ShardId(u32::from(number) + 1),
            slots: vec![(Slot(number * share), Slot(last))],
            leader: Some(id),
            term: Term(1),
            is_moving: false,
            replicas: Vec::new(),
        });
    }
    for node in nodes {
        *node.shared.state.lock().unwrap() = state.clone();
    }
}

/// A fitting answer.
pub(crate) fn fine(request: &Request) -> Reply {
    match request {
        Request::Get { key, .. } => {
            let row = Some(Row { value: key.clone(), revision: Revision(1) });
            Reply::Value { row, at: Index(1), revision: Revision(1) }
        }
        Request::GetMany { keys, .. } => {
            let row = |key: &bytes::Bytes| Some(Row { value: key.clone(), revision: Revision(1) });
            Reply::Values { rows: keys.iter().map(row).collect(), at: Index(1), revision: Revision(1) }
        }
        Request::Write { parts } => {
            let sum = |part: &Part| if let Change::Add(by) = part.change { Some(by) } else { None };
            let sums = parts.iter().filter_map(sum).collect();
            Reply::Written(Receipt { copies: 2, sums, ..Receipt::default() })
        }
        _ => Reply::Written(Receipt { copies: 2, ..Receipt::default() }),
    }
}

pub(crate) fn failed(failure: Failure) -> Act {
    Act::Reply(Reply::Failed(failure))
}

#[derive(Clone)]
struct Service(Arc<Shared>);

impl Service {
    /// Whoever asks for a shard's clock is told it, and not counted.
    fn act(&self, call: &Call) -> Act {
        let Call { stamp, request, .. } = call;
        if matches!(request, Request::OpenSession { .. }) {
            return Act::Reply(Reply::Opened { clock: HybridClock(1) });
        }
        self.0.stamps.lock().unwrap().extend(stamp);
        let before = self.0.seen.fetch_add(1, Ordering::Relaxed);
        (self.0.behave)(before, request)
    }

    async fn answer<RequestMessage, ResponseMessage>(
        &self,
        asked: RequestMessage,
        told: impl FnOnce(Reply) -> Result<ResponseMessage, Failure>,
    ) -> Result<Response<ResponseMessage>, Status>
    where
        Call: TryFrom<RequestMessage>,
        Failure: From<<Call as TryFrom<RequestMessage>>::Error>,
    {
        let call = Call::try_from(asked).map_err(|failure| from_failure(failure.into()))?;
        let (reply, leader) = self.single(call).await?;
        Ok(respond(told(reply).map_err(from_failure)?, leader))
    }

    async fn single(&self, call: Call) -> Result<(Reply, Option<NodeId>), Status> {
        match self.act(&call) {
            Act::Reply(Reply::Failed(failure)) | Act::End(failure) => Err(from_failure(failure)),
            Act::Reply(reply) => Ok((reply, None)),
            Act::Hint(reply, leader) => Ok((reply, Some(leader))),
            Act::Silence => std::future::pending().await,
            Act::Break => Err(Status::internal("broke")),
        }
    }
}

fn respond<T>(message: T, leader: Option<NodeId>) -> Response<T> {
    let mut response = Response::new(message);
    if let Some(leader) = leader {
        insert_leader(response.metadata_mut(), leader);
    }
    response
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Kv for Service {
    async fn get(
        &self,
        request: tonic::Request<v1::GetRequest>,
    ) -> Result<Response<v1::GetResponse>, Status> {
        self.answer(request.into_inner(), into_get).await
    }

    async fn put(
        &self,
        request: tonic::Request<v1::PutRequest>,
    ) -> Result<Response<v1::PutResponse>, Status> {
        self.answer(request.into_inner(), into_put).await
    }

    async fn delete(
        &self,
        request: tonic::Request<v1::DeleteRequest>,
    ) -> Result<Response<v1::DeleteResponse>, Status> {
        self.answer(request.into_inner(), into_delete).await
    }

    async fn get_many(
        &self,
        request: tonic::Request<v1::GetManyRequest>,
    ) -> Result<Response<v1::GetManyResponse>, Status> {
        self.answer(request.into_inner(), into_get_many).await
    }

    async fn write(
        &self,
        request: tonic::Request<v1::WriteRequest>,
    ) -> Result<Response<v1::WriteResponse>, Status> {
        self.answer(request.into_inner(), into_write).await
    }

    async fn increment(
        &self,
        request: tonic::Request<v1::IncrementRequest>,
    ) -> Result<Response<v1::IncrementResponse>, Status> {
        self.answer(request.into_inner(), into_increment).await
    }

    async fn open_session(
        &self,
        request: tonic::Request<v1::OpenSessionRequest>,
    ) -> Result<Response<v1::OpenSessionResponse>, Status> {
        self.answer(request.into_inner(), into_open_session).await
    }

    type ListStream = Responses<v1::ListResponse>;

    async fn list(
        &self,
        request: tonic::Request<v1::ListRequest>,
    ) -> Result<Response<Self::ListStream>, Status> {
        let asked = request.into_inner();
        self.0.lists.lock().unwrap().push(asked.clone());
        let Listed { breaks_after, silent_after, indexes, gone } = *self.0.list.lock().unwrap();
        if gone && !asked.indexes.is_empty() {
            return Err(Status::failed_precondition("shard 1 can't be read at index 7 any more"));
        }
        let row = |n: u32| v1::ListRow {
            key: format!("key{n}").into(),
            value: format!("value{n}").into(),
            revision: u64::from(n) + 1,
            error: None,
        };
        let rows = (0..6).map(row).filter(|row| row.key >= asked.from);
        let limit = if asked.limit == 0 { 6 } else { asked.limit as usize };
        let rows: Vec<_> =
            rows.take(limit.min(breaks_after.or(silent_after).unwrap_or(6) as usize)).collect();
        let mut pages: Vec<_> = rows
            .chunks(2)
            .map(|rows| Ok(v1::ListResponse { rows: rows.to_vec(), ..v1::ListResponse::default() }))
            .collect();
        if let Some(Ok(first)) = pages.first_mut().filter(|_| indexes) {
            first.indexes = vec![7, 9];
        }
        if let Some(Ok(last)) = pages.last_mut() {
            last.last = breaks_after.is_none()
                && silent_after.is_none()
                && !self.0.list_is_cut.load(Ordering::Relaxed);
        }
        if breaks_after.is_some() {
            pages.push(Err(Status::unavailable("stopping")));
        }
        let pages = tokio_stream::iter(pages);
        Ok(Response::new(if silent_after.is_some() {
            Box::pin(pages.chain(tokio_stream::pending()))
        } else {
            Box::pin(pages)
        }))
    }

    type SessionStream = Responses<SessionResponse>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut incoming = request.into_inner();
        let (outgoing, responses) = mpsc::unbounded_channel();
        let service = self.clone();
        tokio::spawn(async move {
            while let Some(Ok(frame)) = incoming.next().await {
                service.0.frames.fetch_add(1, Ordering::Relaxed);
                let mut results = Vec::new();
                for op in frame.ops {
                    let (kind, call) = call_of(op.request, op.timeout_ms).unwrap();
                    match service.act(&call) {
                        Act::Reply(reply) => results.push(result_of(op.id, kind, None, reply)),
                        Act::Hint(reply, leader) => results.push(result_of(op.id, kind, Some(leader), reply)),
                        Act::Silence => {
                            service.0.unanswered.fetch_add(1, Ordering::Relaxed);
                        }
                        Act::Break => {
                            let _ = outgoing.send(Err(Status::internal("broke")));
                            return;
                        }
                        Act::End(failure) => {
                            let _ = outgoing.send(Err(from_failure(failure)));
                            return;
                        }
                    }
                }
                let _ = outgoing.send(Ok(SessionResponse { results }));
            }
        });
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(responses))))
    }
}

#[tonic::async_trait]
impl Cluster for Service {
    async fn get_cluster_state(
        &self,
        _: tonic::Request<v1::GetClusterStateRequest>,
    ) -> Result<Response<v1::GetClusterStateResponse>, Status> {
        while self.0.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if self.0.asks_who.load(Ordering::Relaxed) {
            return Err(from_failure(Failure::rejected(ringfort_types::Code::Unauthenticated, "who asks?")));
        }
        Ok(Response::new(self.0.state.lock().unwrap().clone().into()))
    }

    async fn digest(
        &self,
        request: tonic::Request<v1::DigestRequest>,
    ) -> Result<Response<v1::DigestResponse>, Status> {
        let told = |reply| Ok(v1::DigestResponse { receipt: Some(into_receipt(reply)?) });
        self.answer(request.into_inner(), told).await
    }

    async fn digest_at(
        &self,
        request: tonic::Request<v1::DigestAtRequest>,
    ) -> Result<Response<v1::DigestAtResponse>, Status> {
        let request = request.into_inner();
        self.0.seen.fetch_add(1, Ordering::Relaxed);
        Ok(Response::new(v1::DigestAtResponse { index: request.index, hash: request.node, rows: 7 }))
    }

    async fn change_layout(
        &self,
        request: tonic::Request<v1::ChangeLayoutRequest>,
    ) -> Result<Response<v1::ChangeLayoutResponse>, Status> {
        let told = |reply| Ok(v1::ChangeLayoutResponse { receipt: Some(into_receipt(reply)?) });
        self.answer(request.into_inner(), told).await
    }

    async fn transfer_leadership(
        &self,
        request: tonic::Request<v1::TransferLeadershipRequest>,
    ) -> Result<Response<v1::TransferLeadershipResponse>, Status> {
        self.answer(request.into_inner(), into_transfer_leadership).await
    }

    async fn list_users(
        &self,
        _: tonic::Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersResponse>, Status> {
        Ok(Response::new(v1::ListUsersResponse { enforced: true, users: Vec::new() }))
    }

    async fn set_log_level(
        &self,
        _: tonic::Request<v1::SetLogLevelRequest>,
    ) -> Result<Response<v1::SetLogLevelResponse>, Status> {
        Err(Status::unimplemented("it logs nothing"))
    }
}
