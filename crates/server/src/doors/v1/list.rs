//! `List`: rows in key order, as a stream of frames.

use ringfort_proto::{sized, v1};
use ringfort_types::{Failure, Row};

use crate::doors::stream::{Messages, stream_rows};
use crate::gate::{Gate, Listing};

/// Starts a stream.
pub(super) fn stream(
    gate: &Gate,
    asked: v1::ListRequest,
    within_ms: Option<u32>,
) -> Result<Messages<v1::ListResponse>, Failure> {
    let v1::ListRequest { prefix, from, limit, keys_only, max_message_bytes } = asked;
    let bytes_max = sized::bytes_max(max_message_bytes)?;
    let rows = gate.rows(Listing { prefix, from, limit, keys_only, within_ms })?;
    Ok(stream_rows(gate, rows, move |rows, is_last| {
        let row =
            |(key, Row { value, revision })| v1::ListRow { key, value, revision: revision.0, error: None };
        sized::list_frames(rows.into_iter().map(row), is_last, bytes_max).into_iter().map(Ok)
    }))
}
