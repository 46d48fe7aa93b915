//! How a node becomes a member of a cluster that is there: it asks any member, before it is a node at all, and is told its number.
//!
//! What it is told is synced before its first word to a peer, so that it never speaks as somebody else. If it ends before that, it asks
//! again, as the same data directory, and is told the same number.

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use ringfort_proto::internal::peer_client::PeerClient;
use ringfort_proto::internal::{JoinRequest, JoinResponse};
use ringfort_proto::reason::reason;
use ringfort_proto::status::to_failure;
use ringfort_ring::{Layout, NoPlace};
use ringfort_tls::{Connector, Way};
use ringfort_types::limits::{BIRTH_NODES_MAX, CALL_TIMEOUT_DEFAULT_MS};
use ringfort_types::{
    Call, Code, Door, Failure, Incarnation, LayoutChange, Level, Levels, Newcomer, NodeId, Presence,
    Principal, Reply, Request, check_address, is_name,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;
use tonic::{Code as Status, Request as Message};

use crate::StartError;
use crate::gate::{Asker, Gate};
use crate::outbox::FRAME_BYTES_MAX;
use crate::shared::Shared;

/// How long one member is waited for.
const ASK_MAX: Duration = Duration::from_secs(10);
/// Between two rounds of questions.
const AGAIN: Duration = Duration::from_secs(1);
/// It is said that nobody can be asked when it has lasted so long, and again each time.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// A node that has ended is known to be down after so long, and this is how often it is looked.
const SUSPECT: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(250);

/// What a node is told that is a member now.
pub(crate) struct Joined {
    pub(crate) node: NodeId,
    /// What the cluster was born with.
    pub(crate) born: Layout,
    /// What it is now.
    pub(crate) layout: Layout,
}

/// Asks these members in turn, until one can be reached. An error is a refusal.
pub(crate) async fn join(members: &[&str], newcomer: &Newcomer, way: &Way) -> Result<Joined, StartError> {
    let mut said = Instant::now();
    loop {
        let mut whys = Vec::new();
        for member in members {
            match ask(member, newcomer, way).await {
                Ok(joined) => return Ok(joined),
                Err(Refusal::ForGood(reason)) => return Err(StartError::Refused(reason)),
                Err(Refusal::NotNow(reason)) => whys.push(format!("{member}: {reason}")),
            }
        }
        if said.elapsed() >= TOLD_EVERY {
            tracing::warn!("can't join the cluster yet: {}", whys.join("; "));
            said = Instant::now();
        }
        sleep(AGAIN).await;
    }
}

enum Refusal {
    ForGood(String),
    NotNow(String),
}

async fn ask(member: &str, newcomer: &Newcomer, way: &Way) -> Result<Joined, Refusal> {
    let not_now = |error: &(dyn std::error::Error + 'static)| Refusal::NotNow(reason(error));
    let endpoint = Endpoint::from_shared(format!("{}://{member}", way.scheme()));
    let endpoint = endpoint.map_err(|error| not_now(&error))?.connect_timeout(ASK_MAX);
    let asking = async {
        let connected = endpoint.connect_with_connector(Connector::new(way.clone())).await;
        let channel = connected.map_err(|error| not_now(&error))?;
        let request = JoinRequest {
            name: newcomer.name.clone(),
            address: newcomer.address.clone(),
            incarnation: newcomer.incarnation.0,
            weight: newcomer.weight,
            zone: newcomer.zone.clone(),
            replace: newcomer.replaces,
            level_min: Level::MIN.0.into(),
            level_max: newcomer.max.0.into(),
        };
        let mut client = PeerClient::new(channel).max_decoding_message_size(FRAME_BYTES_MAX);
        client.join(Message::new(request)).await.map_err(|status| match status.code() {
            Status::FailedPrecondition | Status::InvalidArgument => {
                Refusal::ForGood(status.message().to_owned())
            }
            Status::Unimplemented => {
                Refusal::ForGood(format!("{member} is no Ringfort node, or one of an older version"))
            }
            _ => Refusal::NotNow(to_failure(&status).message),
        })
    };
    let answer = timeout(ASK_MAX, asking).await;
    let answer = answer.map_err(|_late| Refusal::NotNow("no answer".to_owned()))??;
    let JoinResponse { node, born, layout } = answer.into_inner();
    let read = |bytes: Bytes| {
        Layout::decode(bytes).map_err(|malformed| {
            Refusal::ForGood(format!("{member} has sent a layout that this version can't read: {malformed}"))
        })
    };
    Ok(Joined { node: NodeId(node), born: read(born)?, layout: read(layout)? })
}

async fn is_up(gate: &Gate, name: &str) -> Result<bool, Failure> {
    let state = gate.cluster(CALL_TIMEOUT_DEFAULT_MS).await?;
    Ok(state.nodes.iter().any(|node| node.name == name && node.presence != Presence::Down))
}

/// Makes somebody a member, as a member of the cluster.
pub(crate) async fn admit(
    shared: &std::sync::Arc<Shared>,
    request: JoinRequest,
    from: Option<IpAddr>,
) -> Result<JoinResponse, Failure> {
    let (newcomer, levels) = check(request)?;
    let unborn = || Failure::rejected(Code::Unavailable, "this node's cluster is not born yet");
    let (Some(born), Some(layout)) = (shared.born_layout(), shared.layout()) else { return Err(unborn()) };
    let response = |layout: &Layout| {
        let member = layout.members.iter().find(|member| member.incarnation == newcomer.incarnation)?;
        Some(JoinResponse { node: member.id.0, born: born.encode(), layout: layout.encode() })
    };
    if let Some(why) = levels.refusal(layout.level) {
        return Err(Failure::rejected(Code::FailedPrecondition, format!("{} {why}", newcomer.name)));
    }
    if let Some(response) = response(&layout) {
        return Ok(response);
    }
    if let Some(no_place) = layout.refusal(&newcomer) {
        return Err(refused(&no_place, &newcomer));
    }
    let gate = Gate::new(shared.clone(), Door::V1).by(Asker { who: Principal::NODE, from });
    if newcomer.replaces {
        // One that has just ended is not known to be down yet.
        let begun = Instant::now();
        while is_up(&gate, &newcomer.name).await? {
            if begun.elapsed() > SUSPECT {
                return Err(Failure::rejected(
                    Code::FailedPrecondition,
                    format!("{} is up: stop it before another data directory takes its place", newcomer.name),
                ));
            }
            sleep(LOOK).await;
        }
    }
    let change = Request::ChangeLayout(LayoutChange::Join(newcomer.clone()));
    match gate.ask(Call::from(change).within(CALL_TIMEOUT_DEFAULT_MS)).await.reply {
        Reply::Written(_) => {}
        other => return Err(other.into_failure()),
    }
    // It is committed; this node hears of it as all others do.
    let mut layouts = shared.watch_layout();
    let heard = async {
        loop {
            let layout = layouts.borrow_and_update().clone();
            let layout = layout.ok_or_else(unborn)?;
            if let Some(response) = response(&layout) {
                return Ok(response);
            }
            if let Some(no_place) = layout.refusal(&newcomer) {
                return Err(refused(&no_place, &newcomer));
            }
            if layouts.changed().await.is_err() {
                return Err(unborn());
            }
        }
    };
    let late = |_late| Failure::rejected(Code::Unavailable, "this node has not heard of the new member yet");
    timeout(Duration::from_millis(CALL_TIMEOUT_DEFAULT_MS.into()), heard).await.map_err(late)?
}

fn check(request: JoinRequest) -> Result<(Newcomer, Levels), Failure> {
    let invalid = |why: String| Err(Failure::rejected(Code::InvalidArgument, why));
    let JoinRequest { name, address, incarnation, weight, zone, replace, level_min, level_max } = request;
    if !is_name(&name) {
        return invalid(format!(
            "{name:?} is no name for a node: use 1 to 64 letters, digits, '-', '_' or '.'"
        ));
    }
    if !zone.is_empty() && !is_name(&zone) {
        return invalid(format!(
            "{zone:?} is no name for a zone: use 1 to 64 letters, digits, '-', '_' or '.'"
        ));
    }
    if let Err(why) = check_address(&address) {
        return invalid(format!("{address:?} is no address of a node: it {why}"));
    }
    let level = |number: u32| Level(u16::try_from(number.max(1)).unwrap_or(u16::MAX));
    let levels = Levels { min: level(level_min), max: level(level_max) };
    let incarnation = Incarnation(incarnation);
    Ok((Newcomer { name, address, incarnation, weight, zone, replaces: replace, max: levels.max }, levels))
}

fn refused(why: &NoPlace, newcomer: &Newcomer) -> Failure {
    let Newcomer { name, address, weight, max, .. } = newcomer;
    let message = match why {
        NoPlace::Name => format!(
            "a member of the cluster is called {name}, and has another data directory: choose another --id; or, if that directory is \
             lost for good, say --replace"
        ),
        NoPlace::Address(other) => {
            format!(
                "{other} is at {address}: choose another address, or remove {other} first: ringfort cluster remove {other}"
            )
        }
        NoPlace::NobodyToReplace => format!("no member of the cluster is called {name}: leave --replace out"),
        NoPlace::Full => format!("the cluster has {BIRTH_NODES_MAX} nodes, and there can be no more"),
        NoPlace::Level(level) => {
            let why = Levels { min: *max, max: *max }.refusal(*level).unwrap_or_default();
            format!("{name} {why}")
        }
        NoPlace::Weight(_) => format!("--weight {weight}: give a number from 1 to 100"),
    };
    Failure::rejected(Code::FailedPrecondition, message)
}
