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
    let v1::ListRequest { prefix, from, limit, keys_only } = asked;
    let rows = gate.rows(Listing { prefix, from, limit, keys_only, within_ms })?;
    Ok(stream_rows(gate, rows, |rows| {
        let row = |(key, Row { value, revision })| v1::ListRow { key, value, revision: revision.0 };
        iter::once(Ok(v1::ListResponse { rows: rows.into_iter().map(row).collect() }))
    }))
}
