//! The front doors.

mod family;
mod kv;
mod kvstore;
mod proto;
mod stream;
pub(crate) mod tolerance;
mod utf8;
pub(crate) mod v1;

use tonic::Status;

/// What is said to a node that wants to join.
const JOIN: &str = "a cluster's nodes are listed when it is born: start every node of a new cluster with --peers naming the \
                    others (ringfort start --help), and with as many as it will have";

/// A key that is not there, to those who are told so by a status.
fn not_there(key: &str) -> Status {
    Status::not_found(format!("there is no key \"{}\"", key.escape_debug()))
}
