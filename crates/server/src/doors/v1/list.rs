//! `List`: rows in key order, as a stream of frames.

use std::iter;

use ringfort_proto::v1;
use ringfort_types::{Failure, Row};

use crate::doors::stream::{Messages, stream_rows};
use crate::gate::{Gate, Listing};

/// Starts a stream.
pub(super) fn stream(
    gate: &Gate,
    asked: v1::ListRequest,
    within_ms: Option<u32>,
) -> Result<Messages<v1::ListResponse>, Failure> {
    let v1::ListRequest { prefix, from, limit, keys_only, indexes } = asked;
    let rows = gate.rows(Listing { prefix, from, limit, keys_only, indexes, within_ms })?;
    Ok(stream_rows(gate, rows, |rows, indexes| {
        let row = |(key, Row { value, revision })| v1::ListRow { key, value, revision: revision.0 };
        let rows = rows.into_iter().map(row).collect();
        let indexes = indexes.into_iter().map(|index| index.0).collect();
        iter::once(Ok(v1::ListResponse { rows, indexes }))
    }))
}
