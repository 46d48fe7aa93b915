//! The messages of single calls, to requests and from replies, and the other way round.

use ringfort_types::limits::{BIRTH_NODES_MAX, GET_MANY_KEYS_MAX};
use ringfort_types::{
    Call, Code, Consistency, Failure, HybridClock, Index, LayoutChange, LevelLimit, NodeId, PeerId, Receipt,
    Replica, Reply, Request, Revision, Row, ShardId, Term,
};

use crate::state::{leader_preference, standing};
use crate::users::{change_message, change_of};
use crate::v1;

impl TryFrom<v1::GetRequest> for Call {
    type Error = Failure;

    fn try_from(get: v1::GetRequest) -> Result<Call, Failure> {
        Ok(Request::Get { key: get.key, consistency: from_wire(get.consistency)? }.into())
    }
}

impl TryFrom<v1::GetManyRequest> for Call {
    type Error = Failure;

    fn try_from(many: v1::GetManyRequest) -> Result<Call, Failure> {
        let v1::GetManyRequest { keys, consistency, surplus } = many;
        if surplus > 0 {
            let count = keys.len() + surplus;
            let why = format!("{count} keys to read at once: the limit is {GET_MANY_KEYS_MAX}");
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        Ok(Request::GetMany { keys, consistency: from_wire(consistency)? }.into())
    }
}

impl From<v1::OpenSessionRequest> for Call {
    fn from(open: v1::OpenSessionRequest) -> Call {
        Request::OpenSession { shard: ShardId(open.shard) }.into()
    }
}

impl From<v1::DigestRequest> for Call {
    fn from(digest: v1::DigestRequest) -> Call {
        Request::Digest { shard: ShardId(digest.shard) }.into()
    }
}

impl TryFrom<v1::ChangeLayoutRequest> for Call {
    type Error = Failure;

    fn try_from(mut request: v1::ChangeLayoutRequest) -> Result<Call, Failure> {
        if let Some(users) = change_of(&mut request.change) {
            return Ok(Request::ChangeLayout(users?).into());
        }
        let invalid = |why: &str| Failure::rejected(Code::InvalidArgument, why);
        let change = match request.change {
            Some(v1::change_layout_request::Change::LeaderPreference(said)) => {
                let preference = leader_preference(said);
                LayoutChange::Prefer(preference.ok_or_else(|| {
                    invalid("there is no such leader preference on this node: 1 is ring, 2 is highest-id")
                })?)
            }
            Some(v1::change_layout_request::Change::Renew(v1::RenewReplica { shard, node, peer })) => {
                if node == 0 || peer == 0 {
                    return Err(invalid(
                        "renew: set node and peer, as GetClusterState says them of the replica",
                    ));
                }
                let replica = Replica { node: NodeId(node), peer: PeerId(peer) };
                LayoutChange::Renew { shard: ShardId(shard), replica }
            }
            Some(v1::change_layout_request::Change::Stand(v1::Stand { node, standing: said })) => {
                let said = standing(said).filter(|_| node != 0);
                let said = said.ok_or_else(|| {
                    invalid("stand: set node, and standing: 1 is active, 2 is draining, 3 is leaving")
                })?;
                LayoutChange::Stand(NodeId(node), said)
            }
            Some(v1::change_layout_request::Change::Copies(copies)) => {
                if copies == 0 || copies as usize > BIRTH_NODES_MAX {
                    return Err(invalid(&format!("copies: give a number from 1 to {BIRTH_NODES_MAX}")));
                }
                LayoutChange::Copies(copies)
            }
            Some(v1::change_layout_request::Change::LevelAtMost(number)) => {
                let number = u16::try_from(number);
                let number =
                    number.map_err(|_| invalid("level_at_most: give a number up to 65535, or 0 for none"))?;
                LayoutChange::Limit(LevelLimit::from_number(number))
            }
            _ => {
                return Err(invalid(
                    "nothing to change: set leader_preference, renew, stand, copies, level_at_most, or a change of users",
                ));
            }
        };
        Ok(Request::ChangeLayout(change).into())
    }
}

/// The message that asks for a change of the layout; `None` for those that only nodes ask for.
pub fn change_layout(change: &LayoutChange) -> Option<v1::ChangeLayoutRequest> {
    let change = match *change {
        LayoutChange::Users(ref change) => change_message(change),
        LayoutChange::Prefer(preference) => {
            let preference = v1::LeaderPreference::from(preference);
            v1::change_layout_request::Change::LeaderPreference(preference.into())
        }
        LayoutChange::Renew { shard, replica } => {
            let renew = v1::RenewReplica { shard: shard.0, node: replica.node.0, peer: replica.peer.0 };
            v1::change_layout_request::Change::Renew(renew)
        }
        LayoutChange::Stand(node, standing) => {
            let standing = v1::Standing::from(standing).into();
            v1::change_layout_request::Change::Stand(v1::Stand { node: node.0, standing })
        }
        LayoutChange::Copies(copies) => v1::change_layout_request::Change::Copies(copies),
        LayoutChange::Limit(limit) => v1::change_layout_request::Change::LevelAtMost(limit.number().into()),
        LayoutChange::Join(_)
        | LayoutChange::Place { .. }
        | LayoutChange::Reached { .. }
        | LayoutChange::Knows(..)
        | LayoutChange::Raise(_)
        | LayoutChange::Move(_) => return None,
    };
    Some(v1::ChangeLayoutRequest { change: Some(change) })
}

impl From<v1::ListUsersRequest> for Call {
    fn from(_: v1::ListUsersRequest) -> Call {
        Request::Users.into()
    }
}

impl From<v1::TransferLeadershipRequest> for Call {
    fn from(transfer: v1::TransferLeadershipRequest) -> Call {
        Request::Transfer { shard: ShardId(transfer.shard), to: NodeId(transfer.node) }.into()
    }
}

impl From<v1::DigestAtRequest> for Call {
    fn from(digest: v1::DigestAtRequest) -> Call {
        let (node, shard, index) = (NodeId(digest.node), ShardId(digest.shard), Index(digest.index));
        Request::DigestAt { node, shard, index }.into()
    }
}

fn from_wire(consistency: i32) -> Result<Consistency, Failure> {
    match v1::Consistency::try_from(consistency) {
        Ok(v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Ok(v1::Consistency::Lease) => Ok(Consistency::Lease),
        Err(_) => Err(Failure::rejected(
            Code::InvalidArgument,
            format!(
                "there is no consistency {consistency} on this node: 0 is linearizable, 1 stale, 2 lease"
            ),
        )),
    }
}

/// The wire's number for a consistency.
pub fn consistency(consistency: Consistency) -> i32 {
    match consistency {
        Consistency::Linearizable => v1::Consistency::Linearizable as i32,
        Consistency::Stale => v1::Consistency::Stale as i32,
        Consistency::Lease => v1::Consistency::Lease as i32,
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
            lacking: receipt.lacking.into_iter().map(|node| node.0).collect(),
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
            lacking: receipt.lacking.into_iter().map(NodeId).collect(),
            sums: Vec::new(),
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

/// The message for a [`Reply::Values`].
pub fn get_many_response(rows: Vec<Option<Row>>, at: Index, revision: Revision) -> v1::GetManyResponse {
    let row = |row: Option<Row>| {
        let found = row.is_some();
        let (value, revision) = row.map_or_else(Default::default, |row| (row.value, row.revision.0));
        v1::GetManyRow { found, value, revision }
    };
    v1::GetManyResponse { rows: rows.into_iter().map(row).collect(), index: at.0, shard_revision: revision.0 }
}

impl From<v1::GetManyResponse> for Reply {
    fn from(many: v1::GetManyResponse) -> Reply {
        let row = |row: v1::GetManyRow| {
            row.found.then_some(Row { value: row.value, revision: Revision(row.revision) })
        };
        let rows = many.rows.into_iter().map(row).collect();
        Reply::Values { rows, at: Index(many.index), revision: Revision(many.shard_revision) }
    }
}

impl From<v1::OpenSessionResponse> for Reply {
    fn from(opened: v1::OpenSessionResponse) -> Reply {
        Reply::Opened { clock: HybridClock(opened.clock) }
    }
}

impl From<v1::DigestResponse> for Reply {
    fn from(digest: v1::DigestResponse) -> Reply {
        Reply::Written(digest.receipt.unwrap_or_default().into())
    }
}

impl From<v1::ChangeLayoutResponse> for Reply {
    fn from(changed: v1::ChangeLayoutResponse) -> Reply {
        Reply::Written(changed.receipt.unwrap_or_default().into())
    }
}

impl From<v1::TransferLeadershipResponse> for Reply {
    fn from(transferred: v1::TransferLeadershipResponse) -> Reply {
        Reply::Leads { term: Term(transferred.term) }
    }
}

impl From<v1::DigestAtResponse> for Reply {
    fn from(digest: v1::DigestAtResponse) -> Reply {
        Reply::Digest { at: Index(digest.index), hash: digest.hash, rows: digest.rows }
    }
}

/// The message that answers `Get`.
pub fn into_get(reply: Reply) -> Result<v1::GetResponse, Failure> {
    match reply {
        Reply::Value { row, at, revision } => Ok(get_response(row, at, revision)),
        other => Err(other.into_failure()),
    }
}

/// The message that answers `GetMany`.
pub fn into_get_many(reply: Reply) -> Result<v1::GetManyResponse, Failure> {
    match reply {
        Reply::Values { rows, at, revision } => Ok(get_many_response(rows, at, revision)),
        other => Err(other.into_failure()),
    }
}

/// The message that answers `OpenSession`.
pub fn into_open_session(reply: Reply) -> Result<v1::OpenSessionResponse, Failure> {
    match reply {
        Reply::Opened { clock } => Ok(v1::OpenSessionResponse { clock: clock.0 }),
        other => Err(other.into_failure()),
    }
}

/// The receipt that answers `Digest` and `ChangeLayout`.
pub fn into_receipt(reply: Reply) -> Result<v1::Receipt, Failure> {
    match reply {
        Reply::Written(receipt) => Ok(receipt.into()),
        other => Err(other.into_failure()),
    }
}

/// The message that answers `TransferLeadership`.
pub fn into_transfer_leadership(reply: Reply) -> Result<v1::TransferLeadershipResponse, Failure> {
    match reply {
        Reply::Leads { term } => Ok(v1::TransferLeadershipResponse { term: term.0 }),
        other => Err(other.into_failure()),
    }
}

/// The message that answers `DigestAt`.
pub fn into_digest_at(reply: Reply) -> Result<v1::DigestAtResponse, Failure> {
    match reply {
        Reply::Digest { at, hash, rows } => Ok(v1::DigestAtResponse { index: at.0, hash, rows }),
        other => Err(other.into_failure()),
    }
}

/// The message that answers `GetClusterState`.
pub fn into_cluster_state(reply: Reply) -> Result<v1::GetClusterStateResponse, Failure> {
    match reply {
        Reply::Cluster(state) => Ok((*state).into()),
        other => Err(other.into_failure()),
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

        let receipt = Receipt {
            shard: ShardId(3),
            term: Term(2),
            index: Index(9),
            revision: Revision(8),
            copies: 2,
            ..Receipt::default()
        };
        let sent = into_receipt(Reply::Written(receipt.clone())).unwrap();
        assert_eq!(Reply::from(v1::DigestResponse { receipt: Some(sent) }), Reply::Written(receipt));

        let row = Row { value: Bytes::new(), revision: Revision(2) };
        let values = Reply::Values { rows: vec![None, Some(row)], at: Index(3), revision: Revision(4) };
        assert_eq!(Reply::from(into_get_many(values.clone()).unwrap()), values);
        let opened = Reply::Opened { clock: HybridClock(u64::MAX) };
        assert_eq!(Reply::from(into_open_session(opened.clone()).unwrap()), opened);

        let leads = Reply::Leads { term: Term(4) };
        assert_eq!(Reply::from(into_transfer_leadership(leads.clone()).unwrap()), leads);
        let digest = Reply::Digest { at: Index(4), hash: u64::MAX, rows: 12 };
        assert_eq!(Reply::from(into_digest_at(digest.clone()).unwrap()), digest);
    }

    #[test]
    fn a_consistency_that_is_not_known_is_refused() {
        for consistency in [3, -1, i32::MAX] {
            let get = v1::GetRequest { key: "k".into(), consistency };
            let many = v1::GetManyRequest { keys: vec!["k".into()], consistency, surplus: 0 };
            for refused in [Call::try_from(get), Call::try_from(many)] {
                assert_eq!(refused.unwrap_err().code, Code::InvalidArgument);
            }
        }
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
        let failure = Failure::rejected(ringfort_types::Code::Unavailable, "no quorum");
        assert_eq!(into_get(Reply::Failed(failure.clone())), Err(failure.clone()));
        assert_eq!(into_receipt(Reply::Failed(failure.clone())), Err(failure));
        assert!(into_receipt(Reply::Digest { at: Index(0), hash: 0, rows: 0 }).is_err());
    }
}
