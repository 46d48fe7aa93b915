//! Frames of answers that are no larger than their client takes. A gRPC client takes messages of 4 MiB unless it is told otherwise,
//! and a larger one ends the whole stream for it.

use std::collections::VecDeque;

use prost::Message;
use prost::encoding::message;
use ringfort_types::limits::{CLIENT_MESSAGE_BYTES_MIN, GRPC_MESSAGE_BYTES_MAX};
use ringfort_types::{Code, Failure};

use crate::v1;
use v1::session_result::Result as Told;

/// The number of the one field that matters here: `ListResponse.rows`, `SessionResponse.results`.
const ITEMS: u32 = 1;
/// What `ListResponse.last` adds to a frame.
const LAST_BYTES: usize = 2;

/// The largest frame for a client that takes so much; 0 if it does not say.
pub fn bytes_max(asked: u32) -> Result<usize, Failure> {
    match asked as usize {
        0 => Ok(GRPC_MESSAGE_BYTES_MAX),
        asked if asked < CLIENT_MESSAGE_BYTES_MIN => Err(Failure::rejected(
            Code::InvalidArgument,
            format!(
                "max_message_bytes of {asked}: give {CLIENT_MESSAGE_BYTES_MIN} or more, or 0 for \
                 {GRPC_MESSAGE_BYTES_MAX}"
            ),
        )),
        asked => Ok(asked.min(GRPC_MESSAGE_BYTES_MAX)),
    }
}

fn too_large(what: &str, bytes: usize, bytes_max: usize) -> v1::Error {
    let why = format!(
        "{what} takes {bytes} bytes, and the client takes messages of {bytes_max}: raise its limit and max_message_bytes"
    );
    Failure::rejected(Code::FailedPrecondition, why).into()
}

/// Rows in frames of at most so many bytes, the first of which names these indexes. A row that does not fit into any comes without its
/// value. There is one frame at least if these are the last rows.
pub fn list_frames(
    rows: impl IntoIterator<Item = v1::ListRow>,
    indexes: Vec<u64>,
    is_last: bool,
    bytes_max: usize,
) -> Vec<v1::ListResponse> {
    let mut frame = v1::ListResponse { indexes, ..v1::ListResponse::default() };
    let (mut frames, mut bytes) = (Vec::new(), LAST_BYTES + frame.encoded_len());
    for mut row in rows {
        let mut row_bytes = message::encoded_len(ITEMS, &row);
        if LAST_BYTES + row_bytes > bytes_max {
            row.error = Some(too_large("the row", row_bytes, bytes_max));
            row.value.clear();
            row_bytes = message::encoded_len(ITEMS, &row);
        }
        if bytes + row_bytes > bytes_max {
            frames.push(std::mem::take(&mut frame));
            bytes = LAST_BYTES;
        }
        bytes += row_bytes;
        frame.rows.push(row);
    }
    frame.last = is_last;
    if is_last || !frame.rows.is_empty() {
        frames.push(frame);
    }
    frames
}

/// Answers in frames of at most so many bytes; what was read and does not fit into any is an error. They have been collected up to a
/// bound that leaves room for one more in a message, so only a client that takes less than that has them in several.
pub fn session_frames(results: Vec<v1::SessionResult>, bytes_max: usize) -> VecDeque<v1::SessionResponse> {
    if bytes_max == GRPC_MESSAGE_BYTES_MAX {
        return VecDeque::from([v1::SessionResponse { results }]);
    }
    let (mut frames, mut frame, mut bytes) = (VecDeque::new(), v1::SessionResponse::default(), 0);
    for mut result in results {
        let mut result_bytes = message::encoded_len(ITEMS, &result);
        if result_bytes > bytes_max
            && let Some(Told::Get(_) | Told::GetMany(_)) = result.result
        {
            result.result = Some(Told::Error(too_large("the answer", result_bytes, bytes_max)));
            result_bytes = message::encoded_len(ITEMS, &result);
        }
        if bytes + result_bytes > bytes_max && !frame.results.is_empty() {
            frames.push_back(std::mem::take(&mut frame));
            bytes = 0;
        }
        bytes += result_bytes;
        frame.results.push(result);
    }
    frames.push_back(frame);
    frames
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    const MAX: usize = CLIENT_MESSAGE_BYTES_MIN;

    fn row(bytes: usize) -> v1::ListRow {
        v1::ListRow { key: "k".into(), value: vec![7; bytes].into(), revision: 1, error: None }
    }

    #[test]
    fn rows_come_in_frames_that_fit_and_one_that_fits_nowhere_without_its_value() {
        // With exactly so many bytes a row fills a frame.
        let full = (MAX - 100..MAX)
            .find(|bytes| LAST_BYTES + message::encoded_len(ITEMS, &row(*bytes)) == MAX)
            .unwrap();
        let sizes = [10, full, full + 1, 10, 30_000, 30_000, 30_000, MAX * 100];
        let frames = list_frames(sizes.map(row), Vec::new(), true, MAX);
        assert!(frames.iter().all(|frame| frame.encoded_len() <= MAX));
        assert!(frames.iter().any(|frame| frame.encoded_len() > MAX - LAST_BYTES - 1));
        let came: Vec<_> = frames.iter().flat_map(|frame| &frame.rows).collect();
        assert_eq!(came.len(), sizes.len());
        for (row, size) in came.iter().zip(sizes) {
            assert_eq!(row.key, "k");
            assert_eq!(row.error.is_some(), size > full, "{size}");
            assert_eq!(row.value.len(), if size > full { 0 } else { size });
        }
        let last: Vec<_> = frames.iter().map(|frame| frame.last).collect();
        assert!(last.iter().rev().skip(1).all(|last| !last) && *last.last().unwrap(), "{last:?}");
        assert_eq!(
            list_frames([], Vec::new(), true, MAX),
            [v1::ListResponse { rows: Vec::new(), last: true, indexes: Vec::new() }]
        );
        assert!(list_frames([], Vec::new(), false, MAX).is_empty());
    }

    #[test]
    fn an_answer_that_fits_into_no_frame_is_an_error_and_takes_no_others_with_it() {
        let result = |(id, bytes): (u64, usize)| {
            let value = Bytes::from(vec![7; bytes]);
            let get = v1::GetResponse { found: true, value, ..v1::GetResponse::default() };
            v1::SessionResult { id, result: Some(Told::Get(get)), ..v1::SessionResult::default() }
        };
        let sizes = [(1, 5), (2, MAX), (3, MAX - 100), (4, 40_000), (5, 40_000)];
        let frames = session_frames(sizes.map(result).into(), MAX);
        assert!(frames.iter().all(|frame| frame.encoded_len() <= MAX && !frame.results.is_empty()));
        let came: Vec<_> = frames.iter().flat_map(|frame| &frame.results).collect();
        assert_eq!(came.iter().map(|result| result.id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let failed = came.iter().filter(|result| matches!(result.result, Some(Told::Error(_))));
        assert_eq!(failed.map(|result| result.id).collect::<Vec<_>>(), [2]);
        assert_eq!(session_frames(sizes.map(result).into(), GRPC_MESSAGE_BYTES_MAX).len(), 1);
    }

    #[test]
    fn what_a_client_takes_has_a_lower_bound() {
        assert_eq!(bytes_max(0), Ok(GRPC_MESSAGE_BYTES_MAX));
        assert_eq!(bytes_max(u32::MAX), Ok(GRPC_MESSAGE_BYTES_MAX));
        assert_eq!(bytes_max(MAX as u32), Ok(MAX));
        assert_eq!(bytes_max(MAX as u32 - 1).unwrap_err().code, Code::InvalidArgument);
    }
}
