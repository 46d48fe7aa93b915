//! How a member invites a node that waits (`invited`): for the doors whose clients know a call by which somebody is made a member.
//!
//! Such a call names an address, and a data directory's number is what makes a member; so the member asked goes there and has the node join by
//! itself. The call is answered when this node's layout has the new member. Nothing is kept of an invitation: it is redeemed while its
//! caller waits, or void. Asked again, the same comes of it, since a member is known by its data directory.
//!
//! Bounds: so many nodes at once ([`INVITATIONS_MAX`]), each until the call's deadline.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use ringfort_proto::internal::peer_client::PeerClient;
use ringfort_proto::internal::{InviteRequest, InviteResponse};
use ringfort_proto::reason::reason;
use ringfort_proto::status::{OUTCOME, to_failure};
use ringfort_ring::{Layout, Member};
use ringfort_tls::{Connector, Way};
use ringfort_types::limits::{INVITATION_MS, INVITATIONS_MAX};
use ringfort_types::{
    Code, Failure, Incarnation, NodeId, Outcome, Presence, check_address, is_every_address, is_name,
};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;
use tonic::transport::Endpoint;

use crate::audit::Act;
use crate::gate::Gate;
use crate::invitation::check_name;
use crate::shared::Shared;

/// How long one attempt to connect may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// Between two attempts.
const AGAIN: Duration = Duration::from_millis(250);
/// How long a name may take to be looked up.
const LOOK_UP: Duration = Duration::from_secs(1);

/// Makes the node at this address a member, under this name or else under its own. Nothing is to be done of one that is.
pub(crate) async fn invite(
    gate: &Gate,
    name: Option<&str>,
    address: &str,
    timeout_ms: u32,
) -> Result<(), Failure> {
    gate.recorded(Act::Invite(name, address), made_a_member(gate, name, address, timeout_ms)).await
}

async fn made_a_member(
    gate: &Gate,
    name: Option<&str>,
    address: &str,
    timeout_ms: u32,
) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_millis(timeout_ms.into());
    check(name, address)?;
    // A node without a cluster says why it has none.
    let state = gate.cluster(timeout_ms).await?;
    let unborn = || Failure::rejected(Code::Unavailable, "this node's cluster is not born yet");
    let layout = gate.layout().ok_or_else(unborn)?;
    gate.may_change_cluster()?;
    let member = find(&layout, name, address).await?;
    let is_up = |id| state.nodes.iter().any(|node| node.id == id && node.presence == Presence::Up);
    if member.is_some_and(|member| is_up(member.id)) {
        return Ok(());
    }
    let Some(_place) = gate.place_to_invite() else {
        let why = format!("{INVITATIONS_MAX} nodes are being invited by this one: try again in a moment");
        return Err(Failure::rejected(Code::ResourceExhausted, why));
    };
    let request =
        request(&layout, gate.node(), name.unwrap_or_default(), member.map(|member| member.incarnation));
    let way = gate.way(name.filter(|name| !name.is_empty()));
    let mut outcome = Outcome::Rejected;
    let invited = loop {
        match ask(address, &request, deadline, &way).await {
            Ok(invited) => break invited,
            // A member whose process is down.
            Err(Refusal::Nobody(failure)) if member.is_some() && failure.outcome == Outcome::Rejected => {
                return Ok(());
            }
            Err(Refusal::ForGood(failure)) => return Err(failure),
            Err(Refusal::Nobody(failure) | Refusal::NotNow(failure)) => {
                if failure.outcome == Outcome::Unknown {
                    outcome = Outcome::Unknown;
                }
                if Instant::now() + AGAIN >= deadline {
                    return Err(Failure { outcome, ..failure });
                }
            }
        }
        sleep(AGAIN).await;
    };
    heard(gate, Incarnation(invited.incarnation), deadline).await
}

/// Invites a member that waits there: it has ended before it knew that it is one. Of another node there nothing comes.
pub(crate) async fn remind(shared: &Shared, node: NodeId, address: &str) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_millis(INVITATION_MS);
    let Some(layout) = shared.layout() else { return Ok(()) };
    let Some(member) = layout.member(node) else { return Ok(()) };
    let request = request(&layout, shared.header.from, &member.name, Some(member.incarnation));
    let way = shared.way(Some(member.name.clone()));
    match ask(address, &request, deadline, &way).await {
        Ok(_joined) => Ok(()),
        Err(Refusal::ForGood(failure) | Refusal::NotNow(failure) | Refusal::Nobody(failure)) => Err(failure),
    }
}

/// An invitation by this member, which is asked first: it is up.
fn request(layout: &Layout, by: NodeId, name: &str, incarnation: Option<Incarnation>) -> InviteRequest {
    let (own, others): (Vec<&Member>, Vec<&Member>) =
        layout.members.iter().partition(|member| member.id == by);
    InviteRequest {
        cluster: layout.cluster,
        name: name.to_owned(),
        incarnation: incarnation.map_or(0, |incarnation| incarnation.0),
        members: own.into_iter().chain(others).map(|member| member.address.clone()).collect(),
    }
}

/// Answers an invitation that has come to this node.
pub(crate) async fn answer(shared: &Shared, request: InviteRequest) -> Result<InviteResponse, Failure> {
    if let Some(waiting) = &shared.waiting {
        return waiting.redeem(request).await;
    }
    let refused = |why: String| Failure::rejected(Code::FailedPrecondition, why);
    let Some(layout) = shared.layout() else {
        return Err(match shared.header.cluster() {
            0 => refused(
                "the node there does not wait for an invitation: its cluster is about to be born".to_owned(),
            ),
            _ => Failure::rejected(Code::Unavailable, "the node there is starting"),
        });
    };
    let me = layout
        .member(shared.header.from)
        .ok_or_else(|| refused("the node there has been removed from its cluster".to_owned()))?;
    if layout.cluster != request.cluster {
        return Err(refused(format!(
            "the node there, {}, is a member of another cluster: start one with an empty --data-dir and --invited",
            me.name
        )));
    }
    check_name(&me.name, &request.name)?;
    Ok(InviteResponse { name: me.name.clone(), incarnation: me.incarnation.0 })
}

fn check(name: Option<&str>, address: &str) -> Result<(), Failure> {
    let invalid = |why: String| Err(Failure::rejected(Code::InvalidArgument, why));
    if let Some(name) = name
        && !is_name(name)
    {
        return invalid(format!(
            "{name:?} is no name for a node: use 1 to 64 letters, digits, '-', '_' or '.'"
        ));
    }
    if let Err(why) = check_address(address) {
        return invalid(format!("{address:?} is no address of a node: it {why}"));
    }
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    if is_every_address(host.trim_start_matches('[').trim_end_matches(']')) {
        return invalid(format!("{address} is every address of whoever uses it: give the node's own"));
    }
    Ok(())
}

/// The member that is meant, if it is one. Refuses what another member has.
async fn find<'a>(
    layout: &'a Layout,
    name: Option<&str>,
    address: &str,
) -> Result<Option<&'a Member>, Failure> {
    let refused = |why: String| Err(Failure::rejected(Code::FailedPrecondition, why));
    if let Some(name) = name
        && let Some(member) = layout.members.iter().find(|member| member.name == name)
    {
        if is_same_place(address, &member.address).await {
            return Ok(Some(member));
        }
        return refused(format!(
            "{name} is a member, at {}: invite the node under another name; {name} itself moves by being started with its data directory at {address}",
            member.address
        ));
    }
    for member in &layout.members {
        if is_same_place(address, &member.address).await {
            return match name {
                None => Ok(Some(member)),
                Some(_) => refused(format!(
                    "{other} is at {address}: choose another address, or remove {other} first: ringfort cluster remove {other}",
                    other = member.name
                )),
            };
        }
    }
    Ok(None)
}

/// Whether two addresses are of one place, though one of them may have a name where the other has a number.
async fn is_same_place(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    let look_up = |address: &str| {
        let address = address.to_owned();
        async move {
            let found = timeout(LOOK_UP, tokio::net::lookup_host(address)).await;
            found.ok().and_then(Result::ok).map_or_else(Vec::new, Iterator::collect::<Vec<_>>)
        }
    };
    let (one, other) = tokio::join!(look_up(one), look_up(other));
    one.iter().any(|address| other.contains(address))
}

enum Refusal {
    ForGood(Failure),
    /// There is a node, and later it may be invited.
    NotNow(Failure),
    /// There is none, yet.
    Nobody(Failure),
}

/// Invites whoever is there, once.
async fn ask(
    address: &str,
    request: &InviteRequest,
    deadline: Instant,
    way: &Way,
) -> Result<InviteResponse, Refusal> {
    let nobody = |why: String, outcome| {
        Refusal::Nobody(Failure {
            outcome,
            code: Code::FailedPrecondition,
            message: absent(address, &request.name, &why),
        })
    };
    let unreachable = |error: &(dyn Error + 'static)| nobody(reason(error), Outcome::Rejected);
    let endpoint = Endpoint::from_shared(format!("{}://{address}", way.scheme()));
    let endpoint = endpoint.map_err(|error| unreachable(&error))?.connect_timeout(CONNECT_MAX);
    let connecting = endpoint.connect_with_connector(Connector::new(way.clone()));
    let channel = timeout_at(deadline, connecting).await;
    let channel = channel
        .map_err(|_late| nobody("it does not answer".to_owned(), Outcome::Rejected))?
        .map_err(|error| unreachable(&error))?;
    let answer = timeout_at(deadline, PeerClient::new(channel).invite(request.clone())).await;
    let late = |_late| {
        let why =
            format!("{address} has been invited, and has not said in time whether it has joined: ask again");
        Refusal::ForGood(Failure::unknown(Code::DeadlineExceeded, why))
    };
    answer.map_err(late)?.map(tonic::Response::into_inner).map_err(|status| judged(address, &status, nobody))
}

/// What to think of an answer that is no good one.
fn judged(address: &str, status: &Status, nobody: impl Fn(String, Outcome) -> Refusal) -> Refusal {
    let failure = to_failure(status);
    if status.code() == tonic::Code::Unimplemented {
        let why = format!("{address} is no Ringfort node, or one of an older version");
        return Refusal::ForGood(Failure::rejected(Code::FailedPrecondition, why));
    }
    // Only a node says what came of a call.
    if !status.metadata().contains_key(OUTCOME) {
        let why = if status.source().is_some() { reason(status) } else { failure.message };
        return nobody(why, failure.outcome);
    }
    match failure.code {
        Code::Unavailable | Code::ResourceExhausted => Refusal::NotNow(failure),
        _ => Refusal::ForGood(failure),
    }
}

/// How a node comes to be there.
fn absent(address: &str, name: &str, why: &str) -> String {
    let name = if name.is_empty() { "NAME" } else { name };
    format!(
        "no node waits at {address} ({why}): start it there with `ringfort start --id {name} --addr {address} --invited` and ask again; or have it \
         join by itself, with --join naming one of this cluster's nodes"
    )
}

/// Waits until this node knows the new member.
async fn heard(gate: &Gate, incarnation: Incarnation, deadline: Instant) -> Result<(), Failure> {
    let mut layouts = gate.watch_layout();
    let is_member = |layout: &Option<Arc<Layout>>| {
        layout.iter().any(|layout| layout.members.iter().any(|member| member.incarnation == incarnation))
    };
    match timeout_at(deadline, layouts.wait_for(is_member)).await {
        Ok(Ok(_there)) => Ok(()),
        _ => Err(Failure::unknown(
            Code::Unavailable,
            "the node has joined, and this one has not heard of it yet: ask again",
        )),
    }
}

#[cfg(test)]
mod tests {
    use ringfort_proto::status::refused;
    use ringfort_types::NodeId;

    use super::*;
    use crate::whereabouts::tests::three_at;

    #[tokio::test]
    async fn a_name_is_the_same_place_as_its_address() {
        assert!(is_same_place("localhost:7", "127.0.0.1:7").await);
        assert!(is_same_place("n1:7", "n1:7").await);
        assert!(!is_same_place("localhost:7", "127.0.0.1:8").await);
        assert!(!is_same_place("no port", "127.0.0.1:8").await);
    }

    #[tokio::test]
    async fn who_is_meant_is_a_member_or_nobody_and_never_somebody_else() {
        let layout = three_at("127.0.0.1");
        let found = async |name, address: &str| match find(&layout, name, address).await {
            Ok(member) => Ok(member.map(|member| member.id.0)),
            Err(failure) => Err((failure.code, failure.message)),
        };
        assert_eq!(found(Some("n2"), "localhost:2").await, Ok(Some(2)));
        assert_eq!(found(None, "127.0.0.1:3").await, Ok(Some(3)));
        assert_eq!(found(Some("n4"), "127.0.0.1:4").await, Ok(None));
        assert_eq!(found(None, "127.0.0.1:4").await, Ok(None));
        for (name, address, says) in
            [("n2", "127.0.0.1:4", "at 127.0.0.1:2"), ("n4", "127.0.0.1:1", "n1 is at")]
        {
            let (code, why) = found(Some(name), address).await.expect_err(name);
            assert!(code == Code::FailedPrecondition && why.contains(says), "{why}");
        }
    }

    #[test]
    fn the_member_that_invites_is_asked_first() {
        let InviteRequest { members, incarnation, .. } =
            request(&three_at("127.0.0.1"), NodeId(2), "n4", None);
        assert_eq!((members.join(" ").as_str(), incarnation), ("127.0.0.1:2 127.0.0.1:1 127.0.0.1:3", 0));
    }

    #[test]
    fn what_no_node_can_be_called_or_found_at_is_refused_before_anybody_is_asked() {
        assert_eq!(check(Some("n4"), "127.0.0.1:4"), Ok(()));
        assert_eq!(check(None, "[::1]:4"), Ok(()));
        for (name, address) in [
            (Some(""), "127.0.0.1:4"),
            (Some("a b"), "127.0.0.1:4"),
            (None, ""),
            (None, "127.0.0.1:0"),
            (None, "127.0.0.1"),
            (None, "0.0.0.0:4"),
            (None, "[::]:4"),
        ] {
            assert_eq!(check(name, address).expect_err(address).code, Code::InvalidArgument);
        }
    }

    #[test]
    fn only_what_a_node_has_said_is_its_answer() {
        let judged = |status: Status| {
            let nobody = |why, outcome| {
                Refusal::Nobody(Failure { outcome, code: Code::FailedPrecondition, message: why })
            };
            match judged("h:1", &status, nobody) {
                Refusal::ForGood(failure) => ("for good", failure.outcome),
                Refusal::NotNow(failure) => ("not now", failure.outcome),
                Refusal::Nobody(failure) => ("nobody", failure.outcome),
            }
        };
        let said = |code| refused(code, "why");
        assert_eq!(judged(said(tonic::Code::FailedPrecondition)), ("for good", Outcome::Rejected));
        assert_eq!(judged(said(tonic::Code::Unavailable)), ("not now", Outcome::Rejected));
        assert_eq!(judged(Status::unimplemented("what?")), ("for good", Outcome::Rejected));
        // The connection broke: it may have joined.
        assert_eq!(judged(Status::unavailable("broke")), ("nobody", Outcome::Unknown));
        assert_eq!(judged(Status::internal("no HTTP/2")), ("nobody", Outcome::Unknown));
    }
}
