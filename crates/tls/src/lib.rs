//! TLS: a node's and a client's files, what certificates say, and connections that are made with them.
//!
//! A node has one set of files for all its ports and for its connections with other nodes ([`NodeTls`]): its certificate, the key to it,
//! and the certificates of those who may issue others' (the CA). A client has the CA's and may have a certificate of its own
//! ([`ClientTls`]). Both read their files again when these change; connections that are open go on with what they began with.
//!
//! What a certificate says of its holder is [`Certified`]: a node's has its name in an alternative name of the subject, as the URI
//! `ringfort://node/NAME`, beside the names and addresses under which clients find it; any other one is a user's, whose name is the
//! subject's common name. So a user's certificate never passes for a node's, although one CA has issued both. Between nodes it does
//! not count from which address a certificate comes, only whose it is.
//!
//! TLS 1.2 and 1.3 (RFC 5246, RFC 8446) by rustls with ring, HTTP/2 agreed on by ALPN (RFC 7301). Sessions are not resumed: a full handshake
//! looks at the certificate each time.

mod certified;
mod connector;
mod explained;
mod files;
mod set;
mod stream;

pub use certified::{Certified, node_uri};
pub use connector::{Connector, Way};
pub use explained::explained;
pub use files::{ClientFiles, NodeFiles};
pub use set::{ClientTls, Lifetime, NodeTls, Protocol};
pub use stream::Stream;

use std::path::PathBuf;

/// Why files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// One can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// One has something else in it.
    #[error("{} has no {wanted}: it should be a PEM file with one", path.display())]
    Empty {
        /// Which.
        path: PathBuf,
        /// What it should have.
        wanted: &'static str,
    },
    /// One is damaged.
    #[error("{} is no {wanted} that can be read: {why}", path.display())]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// A key of another certificate.
    #[error("the key in {} is not that of the certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's.
        key: PathBuf,
    },
    /// A certificate that others will not take.
    #[error(
        "the certificate in {} was issued by nobody in {}: no other node would take it; give the CA that issued it, or one that this CA has issued",
        cert.display(),
        ca.display()
    )]
    Stranger {
        /// The certificate's file.
        cert: PathBuf,
        /// The CA's.
        ca: PathBuf,
    },
    /// A node with a certificate that is no node's.
    #[error(
        "the certificate in {} is no node's: it needs the alternative name {} for the node {name} (make one with `ringfort certs node {name}`)",
        path.display(),
        node_uri(name)
    )]
    NoNode {
        /// The certificate's file.
        path: PathBuf,
        /// The node's name.
        name: String,
    },
    /// A node with another one's certificate.
    #[error("the certificate in {} is that of the node {found}, and this one is {name}", path.display())]
    OtherNode {
        /// The certificate's file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// The node's name.
        name: String,
    },
}
