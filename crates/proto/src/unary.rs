//! The messages of single calls, to requests and from replies, and the other way round.

use ringfort_types::{
    Code, Consistency, Failure, Index, NodeId, Receipt, Reply, Request, Revision, Row, ShardId, Term,
};

use crate::v1;

impl From<v1::GetRequest> for Request {
    fn from(get: v1::GetRequest) -> Request {
        let consistency = if get.consistency == v1::Consistency::Stale as i32 {
            Consistency::Stale
        } else {
            Consistency::Linearizable
        };
        Request::Get { key: get.key, consistency }
    }
}

impl From<v1::PutRequest> for Request {
    fn from(put: v1::PutRequest) -> Request {
        Request::Put { key: put.key, value: put.value }
    }
}

impl From<v1::DeleteRequest> for Request {
    fn from(delete: v1::DeleteRequest) -> Request {
        Request::Delete { key: delete.key }
    }
}

impl From<v1::DigestRequest> for Request {
    fn from(digest: v1::DigestRequest) -> Request {
        Request::Digest { shard: ShardId(digest.shard) }
    }
}

impl From<v1::DigestAtRequest> for Request {
    fn from(digest: v1::DigestAtRequest) -> Request {
        Request::DigestAt {
            node: NodeId(digest.node),
            shard: ShardId(digest.shard),
            index: Index(digest.index),
        }
    }
}

/// The wire's number for a consistency.
pub fn consistency(consistency: Consistency) -> i32 {
    match consistency {
        Consistency::Linearizable => v1::Consistency::Linearizable as i32,
        Consistency::Stale => v1::Consistency::Stale as i32,
    }
}

impl From<Receipt> for v1::Receipt {
    fn from(receipt: Receipt) -> v1::Receipt {
        v1::Receipt {
            shard: receipt.shard.0,
            term: receipt.term.0,
            index: receipt.index.0,
            revision: receipt.revision.0,
            copies: receipt.copies,
        }
    }
}

impl From<v1::Receipt> for Receipt {
    fn from(receipt: v1::Receipt) -> Receipt {
        Receipt {
            shard: ShardId(receipt.shard),
            term: Term(receipt.term),
            index: Index(receipt.index),
            revision: Revision(receipt.revision),
            copies: receipt.copies,
        }
    }
}

/// The message for a [`Reply::Value`].
pub fn get_response(row: Option<Row>, at: Index, revision: Revision) -> v1::GetResponse {
    let found = row.is_some();
    let (value, row_revision) = row.map_or_else(Default::default, |row| (row.value, row.revision.0));
    v1::GetResponse { found, value, revision: row_revision, index: at.0, shard_revision: revision.0 }
}

impl From<v1::GetResponse> for Reply {
    fn from(get: v1::GetResponse) -> Reply {
        let row = get.found.then_some(Row { value: get.value, revision: Revision(get.revision) });
        Reply::Value { row, at: Index(get.index), revision: Revision(get.shard_revision) }
    }
}

impl From<v1::PutResponse> for Reply {
    fn from(put: v1::PutResponse) -> Reply {
        Reply::Written(put.receipt.unwrap_or_default().into())
    }
}

impl From<v1::DeleteResponse> for Reply {
    fn from(delete: v1::DeleteResponse) -> Reply {
        Reply::Written(delete.receipt.unwrap_or_default().into())
    }
}

impl From<v1::DigestResponse> for Reply {
    fn from(digest: v1::DigestResponse) -> Reply {
        Reply::Written(digest.receipt.unwrap_or_default().into())
    }
}

impl From<v1::DigestAtResponse> for Reply {
    fn from(digest: v1::DigestAtResponse) -> Reply {
        Reply::Digest { at: Index(digest.index), hash: digest.hash, rows: digest.rows }
    }
}

/// A reply of the wrong kind for its request: a defect in the node, said plainly instead of dropped.
fn mismatched(reply: Reply) -> Failure {
    match reply {
        Reply::Failed(failure) => failure,
        _ => Failure::unknown(Code::Unavailable, "the node's answer is of another kind than the question"),
    }
}

/// The message that answers `Get`.
pub fn into_get(reply: Reply) -> Result<v1::GetResponse, Failure> {
    match reply {
        Reply::Value { row, at, revision } => Ok(get_response(row, at, revision)),
        other => Err(mismatched(other)),
    }
}

/// The receipt that answers `Put`, `Delete` and `Digest`.
pub fn into_receipt(reply: Reply) -> Result<v1::Receipt, Failure> {
    match reply {
        Reply::Written(receipt) => Ok(receipt.into()),
        other => Err(mismatched(other)),
    }
}

/// The message that answers `DigestAt`.
pub fn into_digest_at(reply: Reply) -> Result<v1::DigestAtResponse, Failure> {
    match reply {
        Reply::Digest { at, hash, rows } => Ok(v1::DigestAtResponse { index: at.0, hash, rows }),
        other => Err(mismatched(other)),
    }
}

/// The message that answers `GetClusterState`.
pub fn into_cluster_state(reply: Reply) -> Result<v1::GetClusterStateResponse, Failure> {
    match reply {
        Reply::Cluster(state) => Ok((*state).into()),
        other => Err(mismatched(other)),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn replies_round_trip() {
        let found = Reply::Value {
            row: Some(Row { value: Bytes::from_static(b"Ada"), revision: Revision(3) }),
            at: Index(7),
            revision: Revision(5),
        };
        assert_eq!(Reply::from(into_get(found.clone()).unwrap()), found);
        let missing = Reply::Value { row: None, at: Index(7), revision: Revision(5) };
        assert_eq!(Reply::from(into_get(missing.clone()).unwrap()), missing);

        let receipt =
            Receipt { shard: ShardId(3), term: Term(2), index: Index(9), revision: Revision(8), copies: 2 };
        let sent = into_receipt(Reply::Written(receipt)).unwrap();
        assert_eq!(Reply::from(v1::PutResponse { receipt: Some(sent) }), Reply::Written(receipt));

        let digest = Reply::Digest { at: Index(4), hash: u64::MAX, rows: 12 };
        assert_eq!(Reply::from(into_digest_at(digest.clone()).unwrap()), digest);
    }

    #[test]
    fn an_empty_value_is_not_a_missing_key() {
        let empty = Reply::Value {
            row: Some(Row { value: Bytes::new(), revision: Revision(1) }),
            at: Index(1),
            revision: Revision(1),
        };
        assert_eq!(Reply::from(into_get(empty.clone()).unwrap()), empty);
    }

    #[test]
    fn a_failure_is_an_error_whatever_was_asked() {
        let failure = Failure::rejected(Code::Unavailable, "no quorum");
        assert_eq!(into_get(Reply::Failed(failure.clone())), Err(failure.clone()));
        assert_eq!(into_receipt(Reply::Failed(failure.clone())), Err(failure));
        assert!(into_receipt(Reply::Digest { at: Index(0), hash: 0, rows: 0 }).is_err());
    }
}
