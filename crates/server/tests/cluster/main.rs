//! Real nodes over gRPC, all in this process: a cluster of one, and of three.

mod log;
mod nodes;
mod one_node;
mod opening;
mod three_nodes;
mod writes;
