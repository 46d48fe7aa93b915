//! Who a client is to the nodes: what it sends with every call, in the metadata entry `authorization`.
//!
//! A secret goes to another machine only where nobody on the way can read it ([`is_guarded`]), unless the client is told otherwise. A node
//! that was learnt and that it may not go to is not asked; others pass on to it.

use std::fmt;
use std::net::IpAddr;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use ringfort_types::limits::AUTH_PASSWORD_BYTES_MAX;
use ringfort_types::{Code, Failure, is_name};
use tonic::body::Body;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderValue, Request};
use tonic::transport::Channel;
use tower_service::Service;

/// What a client says of who it is.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user's name and password.
    Password {
        /// The name.
        name: String,
        /// The password.
        password: String,
    },
    /// A user's token, as `ringfort user token` prints it: it names the user by itself.
    Token(String),
}

/// Without the secret.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { name, .. } => write!(f, "Password({name:?})"),
            Credentials::Token(token) => write!(f, "Token({:?})", user_of(token).unwrap_or_default()),
        }
    }
}

/// The user that a token names, if it is one.
fn user_of(token: &str) -> Option<&str> {
    let (name, digits) = token.rsplit_once('.')?;
    (is_name(name) && digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
        .then_some(name)
}

impl Credentials {
    /// The user's name; none if this is no token.
    pub fn user(&self) -> Option<&str> {
        match self {
            Credentials::Password { name, .. } => Some(name),
            Credentials::Token(token) => user_of(token),
        }
    }

    fn header(&self) -> Result<HeaderValue, Failure> {
        let invalid = |why: String| Failure::rejected(Code::InvalidArgument, why);
        let text = match self {
            Credentials::Password { name, .. } if !is_name(name) => {
                let why =
                    format!("{name:?} is no name for a user: use 1 to 64 letters, digits, '-', '_' or '.'");
                return Err(invalid(why));
            }
            Credentials::Password { password, .. } if password.len() > AUTH_PASSWORD_BYTES_MAX => {
                let bytes = password.len();
                return Err(invalid(format!(
                    "a password of {bytes} bytes: the limit is {AUTH_PASSWORD_BYTES_MAX}"
                )));
            }
            Credentials::Password { name, password } => {
                format!("Basic {}", BASE64.encode(format!("{name}:{password}")))
            }
            Credentials::Token(token) => {
                user_of(token).ok_or_else(|| {
                    invalid(
                        "this is no token: one is a user's name, a dot and 64 hexadecimal digits".to_owned(),
                    )
                })?;
                format!("Bearer {token}")
            }
        };
        let mut header = HeaderValue::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        // It is not shown, and not kept in a table that compression has.
        header.set_sensitive(true);
        Ok(header)
    }
}

/// What goes with every call, and where it may go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Authorization {
    header: Option<HeaderValue>,
    anywhere: bool,
}

impl Authorization {
    pub(crate) fn new(credentials: Option<&Credentials>, anywhere: bool) -> Result<Authorization, Failure> {
        Ok(Authorization { header: credentials.map(Credentials::header).transpose()?, anywhere })
    }

    /// Refuses to go to an address on the way to which somebody may read it.
    pub(crate) fn check(&self, address: &str) -> Result<(), Failure> {
        if self.header.is_none() || self.anywhere || is_guarded(address) {
            return Ok(());
        }
        let why = format!(
            "the password or token would go to {address} in the clear, for everybody on the way to read: speak TLS (--ca), or say that it may \
             (--insecure-password)"
        );
        Err(Failure::rejected(Code::InvalidArgument, why))
    }
}

/// Whether nobody can read what is sent to this address: it is this machine's own.
pub(crate) fn is_guarded(address: &str) -> bool {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
}

/// A channel whose calls say who makes them.
#[derive(Clone, Debug)]
pub(crate) struct Authorized {
    channel: Channel,
    header: Option<HeaderValue>,
}

impl Authorized {
    pub(crate) fn new(channel: Channel, authorization: &Authorization) -> Authorized {
        Authorized { channel, header: authorization.header.clone() }
    }
}

impl Service<Request<Body>> for Authorized {
    type Response = <Channel as Service<Request<Body>>>::Response;
    type Error = <Channel as Service<Request<Body>>>::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<Body>>::poll_ready(&mut self.channel, cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(header) = &self.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.channel.call(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn password(name: &str, password: &str) -> Credentials {
        Credentials::Password { name: name.into(), password: password.into() }
    }

    #[test]
    fn credentials_are_what_nodes_read_and_are_not_shown() {
        let ada = password("ada", "open sesame");
        assert_eq!(ada.header().unwrap(), "Basic YWRhOm9wZW4gc2VzYW1l");
        let token = format!("ada.b.{}", "0f".repeat(32));
        let bearer = Credentials::Token(token.clone());
        assert_eq!(bearer.header().unwrap(), format!("Bearer {token}").as_str());
        assert_eq!((ada.user(), bearer.user()), (Some("ada"), Some("ada.b")));
        let shown = format!("{ada:?} {bearer:?} {:?}", Authorization::new(Some(&bearer), false));
        assert!(!shown.contains("sesame") && !shown.contains("0f0f") && shown.contains("ada.b"), "{shown}");
    }

    #[test]
    fn what_no_node_would_take_is_refused_here() {
        for (credentials, says) in [
            (password("a:b", "secret"), "no name for a user"),
            (password("", "secret"), "no name for a user"),
            (password("ada", &"p".repeat(AUTH_PASSWORD_BYTES_MAX + 1)), "the limit is"),
            (Credentials::Token("ada".into()), "64 hexadecimal digits"),
            (Credentials::Token(format!(".{}", "0".repeat(64))), "64 hexadecimal digits"),
            (Credentials::Token(format!("ada.{}", "g".repeat(64))), "64 hexadecimal digits"),
        ] {
            let why = credentials.header().unwrap_err().message;
            assert!(why.contains(says) && !why.contains("secret"), "{why}");
        }
    }

    #[test]
    fn a_secret_goes_to_this_machine_only_unless_it_may_go_anywhere() {
        for (address, guarded) in [
            ("127.0.0.1:50051", true),
            ("127.8.8.8:1", true),
            ("[::1]:1", true),
            ("localhost:1", true),
            ("10.0.0.1:1", false),
            ("[2001:db8::1]:1", false),
            ("localhost.example:1", false),
            ("node1:1", false),
        ] {
            assert_eq!(is_guarded(address), guarded, "{address}");
        }
        let ada = password("ada", "sesame");
        let may =
            |credentials, anywhere| Authorization::new(credentials, anywhere).unwrap().check("10.0.0.1:1");
        assert!(may(None, false).is_ok(), "there is no secret");
        assert!(may(Some(&ada), true).is_ok());
        let why = may(Some(&ada), false).unwrap_err().message;
        assert!(
            why.contains("10.0.0.1:1") && why.contains("--insecure-password") && !why.contains("sesame"),
            "{why}"
        );
    }
}
