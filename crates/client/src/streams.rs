//! A list's stream from one node, page after page.

use std::sync::Arc;

use ringfort_proto::status::refused;
use ringfort_proto::v1::{ListRequest, ListResponse};
use tonic::{Status, Streaming};

use crate::link::Connection;
use crate::unary;

/// Why a stream that has ended did not end well: some libraries between here and the node take a cut stream for a whole one.
const CUT: &str = "it ended before its last rows";

/// The next page and the stream that it came from.
pub(crate) type Told = Result<(Streaming<ListResponse>, ListResponse), Status>;

/// Asks for a list, and waits for its first page.
pub(crate) async fn opened(connection: Arc<Connection>, wanted: ListRequest) -> Told {
    let mut client = unary::kv(&connection.channel);
    next_of(client.list(tonic::Request::new(wanted)).await?.into_inner()).await
}

/// The next page.
pub(crate) async fn next_of(mut stream: Streaming<ListResponse>) -> Told {
    let page = stream.message().await?.ok_or_else(|| refused(tonic::Code::Unavailable, CUT))?;
    Ok((stream, page))
}
