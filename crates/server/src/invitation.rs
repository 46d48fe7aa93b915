//! An invitation, from a member's call to the node that waits for it.

use ringfort_proto::internal::{InviteRequest, InviteResponse};
use ringfort_types::limits::BIRTH_NODES_MAX;
use ringfort_types::{Code, Failure, Incarnation, Newcomer, check_address};
use tokio::sync::{mpsc, oneshot};

/// A node that waits, as its doors see it.
#[derive(Debug)]
pub(crate) struct Waiting {
    name: String,
    address: String,
    incarnation: Incarnation,
    invitations: mpsc::Sender<Invitation>,
}

/// One that is to be redeemed.
#[derive(Debug)]
pub(crate) struct Invitation {
    pub(crate) members: Vec<String>,
    /// Closed once its sender does not wait any more.
    pub(crate) answer: oneshot::Sender<Result<(), Failure>>,
}

impl Waiting {
    /// For this one to be, and its invitations as they come, one at a time.
    pub(crate) fn new(newcomer: &Newcomer) -> (Waiting, mpsc::Receiver<Invitation>) {
        let (sender, invitations) = mpsc::channel(1);
        let Newcomer { name, address, incarnation, .. } = newcomer.clone();
        (Waiting { name, address, incarnation, invitations: sender }, invitations)
    }

    /// What it waits for, and how that comes.
    pub(crate) fn line(&self) -> String {
        let Waiting { name, address, .. } = self;
        format!(
            "{name} waits at {address} to be invited into a cluster: have one of its members told to, by proto.KV/Join with node_id {name} \
             and grpc_address {address}, or by family.FamilyService/Join with that host and port; or start it with --join instead"
        )
    }

    /// What whoever asks it for anything else is told.
    pub(crate) fn not_yet(&self) -> Failure {
        Failure::rejected(Code::Unavailable, self.line())
    }

    /// Answers an invitation.
    pub(crate) async fn redeem(&self, request: InviteRequest) -> Result<InviteResponse, Failure> {
        let InviteRequest { name, incarnation, members, .. } = request;
        check_name(&self.name, &name)?;
        if incarnation != 0 && incarnation != self.incarnation.0 {
            let why = format!(
                "the node that waits there has another data directory than the member {}: start it with that one, or, if that is lost for good, \
                 with --join and --replace instead of --invited",
                self.name
            );
            return Err(Failure::rejected(Code::FailedPrecondition, why));
        }
        if members.is_empty() || members.len() > BIRTH_NODES_MAX {
            let why = format!("an invitation names 1 to {BIRTH_NODES_MAX} members, not {}", members.len());
            return Err(Failure::rejected(Code::InvalidArgument, why));
        }
        for member in &members {
            if let Err(why) = check_address(member) {
                let why = format!("{member:?} is no address of a member: it {why}");
                return Err(Failure::rejected(Code::InvalidArgument, why));
            }
        }
        let (answer, answered) = oneshot::channel();
        let busy =
            |_full| Failure::rejected(Code::Unavailable, format!("{} is being invited already", self.name));
        self.invitations.try_send(Invitation { members, answer }).map_err(busy)?;
        let gone = |_dropped| {
            Failure::unknown(Code::Unavailable, format!("{} has ended, or joins already", self.name))
        };
        answered.await.map_err(gone)??;
        Ok(InviteResponse { name: self.name.clone(), incarnation: self.incarnation.0 })
    }
}

/// Refuses an invitation of somebody else. An empty name means whoever is there.
pub(crate) fn check_name(own: &str, invited: &str) -> Result<(), Failure> {
    if invited.is_empty() || invited == own {
        return Ok(());
    }
    let why = format!(
        "the node there is called {own}, not {invited}: invite it under its name, or start it with --id {invited}"
    );
    Err(Failure::rejected(Code::FailedPrecondition, why))
}
