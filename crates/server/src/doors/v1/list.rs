//! `List`: rows in key order, as a stream of frames.

use ringfort_proto::{sized, v1};
use ringfort_types::{Failure, Row};

use crate::doors::frames::Elsewhere;
use crate::doors::stream::stream_rows;
use crate::gate::{Batch, Gate, Listing};

/// Starts a stream.
pub(super) fn stream(
    gate: &Gate,
    asked: v1::ListRequest,
    within_ms: Option<u32>,
) -> Result<tonic::Response<Elsewhere<v1::ListResponse>>, Failure> {
    let v1::ListRequest { prefix, from, limit, keys_only, max_message_bytes, indexes } = asked;
    let bytes_max = sized::bytes_max(max_message_bytes)?;
    let rows = gate.rows(Listing { prefix, from, limit, keys_only, indexes, within_ms })?;
    Ok(stream_rows(gate, rows, move |Batch { rows, is_last, indexes, .. }| {
        let row =
            |(key, Row { value, revision })| v1::ListRow { key, value, revision: revision.0, error: None };
        let indexes = indexes.into_iter().map(|index| index.0).collect();
        sized::list_frames(rows.into_iter().map(row), indexes, is_last, bytes_max).into_iter().map(Ok)
    }))
}
