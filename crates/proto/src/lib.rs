//! Bytes to requests and back: the gRPC services, and what their messages mean in Ringfort's own types.
//!
//! The protos under `proto/` are the public contract and say what each field means; this crate compiles
//! them ([`v1`], [`internal`], and those that other systems' clients speak: [`family`], [`proto_kv`], [`kvstore`],
//! [`kv`], and gRPC's own [`health`]) and translates in both directions, so that the server and the client
//! library can't disagree:
//! - [`codec`]: messages in buffers that fit;
//! - [`session`]: operations and results of the pipelined stream;
//! - [`unary`]: the messages of single calls;
//! - [`writes`]: conditions, atomic writes and stamps, for both;
//! - [`sized`]: frames of answers that are no larger than their client takes;
//! - [`state`]: the cluster's state; [`users`]: its users;
//! - [`reason`]: why a connection failed;
//! - [`status`]: failures as gRPC statuses with an outcome, time-outs and the leader hint as metadata.
//!
//! Invariants: a failure keeps its outcome over every path, and what lacks one is *unknown*; keys and
//! values are slices of the message that they came in, never copied here.
//!
//! Deliberately absent: sockets, and judging requests. An empty key passes through here; the node refuses it. What has
//! no meaning at all is refused here: a condition that says nothing.

pub mod codec;
mod frame;
pub mod reason;
pub mod session;
pub mod sized;
pub mod state;
pub mod status;
pub mod unary;
pub mod users;
pub mod writes;

/// The public services `KV` and `Cluster`, as generated from `proto/ringfort/v1`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod v1 {
    pub use crate::frame::{FRAME_OPS_MAX, FRAME_SURPLUS_MAX, GetManyRequest, SessionRequest, WriteRequest};

    tonic::include_proto!("ringfort.v1");
}

/// The service that nodes use among themselves, as generated from `proto/ringfort/internal/v1`.
#[expect(clippy::pedantic, reason = "generated")]
pub mod internal {
    tonic::include_proto!("ringfort.internal.v1");
}

/// The disk register's services `FamilyService` and `StorageService`, as generated from `proto/family`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod family {
    tonic::include_proto!("family");
}

/// The service `KV` of the package that is named `proto`, as generated from `proto/proto`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod proto_kv {
    tonic::include_proto!("proto");
}

/// The services `KVStore` and `Replicator` of the package `kvstore.v1`, as generated from `proto/kvstore/v1`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod kvstore {
    tonic::include_proto!("kvstore.v1");
}

/// The services `KeyValue` and `Cluster` of the package `kv`, as generated from `proto/kv`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod kv {
    tonic::include_proto!("kv");
}

/// The service `Health`, as generated from `proto/grpc/health/v1`.
#[expect(missing_docs, clippy::pedantic, reason = "generated from the protos, which document what needs it")]
pub mod health {
    tonic::include_proto!("grpc.health.v1");
}

/// Descriptors of all services for clients, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
