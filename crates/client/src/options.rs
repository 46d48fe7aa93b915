//! What a client is told when it is made.

use std::time::Duration;

use ringfort_tls::{ClientTls, Way};
use ringfort_types::limits::CONNECTION_BYTES_MAX;
use ringfort_types::{Consistency, Failure};

use crate::credentials::{Authorization, Credentials};

/// How long one node may take before another one is asked, if it does no harm to ask twice.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);

/// How requests travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// One stream a node, requests batched into frames. The default, and several times faster under load.
    #[default]
    Session,
    /// One gRPC call a request, as clients in other languages do it.
    Unary,
}

/// Who is asked for rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadsFrom {
    /// The key's leader, which needs the fewest steps.
    #[default]
    Leader,
    /// The nodes that have a replica, in turn: the work of reading is spread over them, and so is what is sent. Linearizable
    /// reads cost the leader a small message for many of them; lease reads are the leader's business and go there.
    Replicas,
}

/// Settings of a [`Client`](crate::Client).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `host:port` of some nodes; the others are learnt from them. A name that has several addresses is that many nodes.
    pub addresses: Vec<String>,
    /// How long a request may take, retries included. For a list: until its first row, and from row to row.
    pub timeout: Duration,
    /// What TLS is spoken with; without it there is none.
    pub tls: Option<ClientTls>,
    /// Who asks; without it nobody in particular.
    pub credentials: Option<Credentials>,
    /// Whether these may go to other machines though somebody on the way could read them.
    pub insecure_password: bool,
    /// How requests travel.
    pub transport: Transport,
    /// Whom to ask for rows.
    pub reads_from: ReadsFrom,
    /// How fresh the rows have to be, unless a call says otherwise.
    pub consistency: Consistency,
    /// How many replicas are to have a write on disk before it is acknowledged, unless a call says otherwise; 0 for a
    /// majority. If the time is over before, the receipt says how many there are, and the write stands.
    pub copies: u32,
    /// Most requests in flight at once; further ones wait.
    pub in_flight_max: usize,
    /// Most bytes of keys and values in flight at once; further requests wait.
    pub in_flight_bytes_max: usize,
    /// Number writes, so that one that is sent again takes effect once. Without it, a write that may have been done is
    /// not sent again.
    pub exactly_once: bool,
}

impl Options {
    /// The defaults, for these addresses.
    pub fn new(addresses: Vec<String>) -> Options {
        Options {
            addresses,
            timeout: Duration::from_secs(3),
            tls: None,
            credentials: None,
            insecure_password: false,
            transport: Transport::Session,
            reads_from: ReadsFrom::Leader,
            consistency: Consistency::Linearizable,
            copies: 0,
            in_flight_max: 4096,
            in_flight_bytes_max: CONNECTION_BYTES_MAX,
            exactly_once: true,
        }
    }

    /// The way to a node.
    pub(crate) fn way(&self) -> Way {
        self.tls.clone().map_or(Way::Plain, Way::Client)
    }

    /// What goes with every call. With TLS it may go anywhere.
    pub(crate) fn authorization(&self) -> Result<Authorization, Failure> {
        Authorization::new(self.credentials.as_ref(), self.insecure_password || self.tls.is_some())
    }
}
