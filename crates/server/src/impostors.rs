//! Who speaks as a node: with TLS, whoever shows the certificate of that one.
//!
//! Without TLS there is nothing to look at, and whoever reaches the port passes for a node.

use std::sync::Arc;

use ringfort_types::{NodeId, shown};
use tonic::{Request, Status};

use crate::doors::places::Standing;
use crate::doors::throttle::Throttle;
use crate::shared::Shared;

/// Tells of those who are refused.
#[derive(Debug)]
pub(crate) struct Impostors {
    /// Who is no node.
    nobodies: Arc<Throttle>,
    /// Who is another node.
    others: Arc<Throttle>,
}

impl Default for Impostors {
    fn default() -> Impostors {
        Impostors {
            nobodies: Throttle::new("attempts to speak as a node were refused"),
            others: Throttle::new("attempts to speak as another node were refused"),
        }
    }
}

impl Impostors {
    /// The name of the node whose certificate was shown on the connection; none where there is no TLS. Nobody else is listened to.
    pub(crate) fn certified<T>(
        &self,
        shared: &Shared,
        request: &Request<T>,
    ) -> Result<Option<String>, Status> {
        if shared.tls().is_none() {
            return Ok(None);
        }
        let standing = request.extensions().get::<Arc<Standing>>();
        let certified = standing.and_then(|standing| standing.certified());
        if let Some(node) = certified.and_then(|certified| certified.node.clone()) {
            return Ok(Some(node));
        }
        let who = match certified.and_then(|certified| certified.user.as_deref()) {
            Some(user) => format!("who shows the certificate of {}", shown(user.as_bytes())),
            None => "who shows no certificate".to_owned(),
        };
        self.nobodies.warn(|| format!("somebody {who} spoke as a node, and was refused"));
        Err(Status::permission_denied(format!("only nodes are listened to here, and not somebody {who}")))
    }

    /// Whether whoever has this certificate may speak as this node. One that is not known here is taken at its word: its certificate is a node's.
    pub(crate) fn is_its_own(&self, shared: &Shared, speaks: Option<&String>, from: NodeId) -> bool {
        let Some(speaks) = speaks else { return true };
        let Some(name) = shared.name_of(from).filter(|name| name != speaks) else { return true };
        self.others.warn(|| {
            format!("somebody with the certificate of the node {speaks} spoke as {name}, and was refused")
        });
        false
    }
}
