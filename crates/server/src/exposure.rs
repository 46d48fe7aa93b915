//! Who may reach a port that this node opens.
//!
//! Without TLS, whoever reaches a port can read and write everything, and on the gRPC port pass for a node. So such a port is opened on
//! loopback, or by an operator who says that the network keeps others away (`--insecure`). Every door's address goes through [`resolve`], with the flag that it came from.
//!
//! What is checked is what is bound: a name is looked up once, and counts as loopback only if *every* address that it
//! stands for is, so that it does not depend on their order whether a node starts. Not checked is who can reach loopback:
//! other users of this machine, and whatever forwards to it, can.

use std::net::{IpAddr, SocketAddr};

use ringfort_types::split_address;
use tokio::net::lookup_host;

use crate::StartError;

/// The address to bind for what `flag` says, or why that one is not opened.
pub(crate) async fn resolve(
    flag: &'static str,
    address: &str,
    is_open: bool,
) -> Result<SocketAddr, StartError> {
    let unusable = |reason: String| StartError::Address {
        flag,
        address: address.to_owned(),
        purpose: "listen on",
        reason,
    };
    split_address(address).map_err(|why| unusable(format!("it {why}")))?;
    let addresses: Vec<_> =
        lookup_host(address).await.map_err(|error| unusable(error.to_string()))?.collect();
    let first = *addresses.first().ok_or_else(|| unusable("no such host".into()))?;
    if !is_open && !addresses.iter().all(|address| is_loopback(address.ip())) {
        return Err(StartError::Exposed { flag, address: address.to_owned() });
    }
    Ok(first)
}

/// Also of IPv4 written as IPv6, which the system binds as such.
fn is_loopback(ip: IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(address: &str) -> bool {
        match resolve("--addr", address, false).await {
            Ok(_) => false,
            Err(StartError::Exposed { flag: "--addr", .. }) => true,
            Err(other) => panic!("{address}: {other}"),
        }
    }

    #[tokio::test]
    async fn loopback_is_opened_and_nothing_else_without_a_word() {
        for address in ["127.0.0.1:1", "127.9.9.9:0", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
            assert!(!refused(address).await, "{address}");
        }
        for address in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[fe80::1]:1"] {
            assert!(refused(address).await, "{address}");
            let bound = resolve("--addr", address, true).await.expect("the operator has said so");
            assert_eq!(bound.to_string(), address);
        }
    }

    #[tokio::test]
    async fn the_refusal_says_why_and_what_helps() {
        let error = resolve("--text-addr", "0.0.0.0:6666", false).await.expect_err("anybody could reach it");
        let line = error.to_string();
        assert!(line.starts_with("--text-addr 0.0.0.0:6666 "), "{line}");
        for part in ["without TLS", "can do anything", "127.0.0.1", "--insecure", "--tls-cert", "certs init"]
        {
            assert!(line.contains(part), "{line}");
        }
        assert!(!line.contains('\n') && error.exit_code() == 2, "{line}");
    }

    #[tokio::test]
    async fn what_is_no_address_is_said_of_the_right_flag() {
        let error = resolve("--text-addr", "localhost", true).await.expect_err("it has no port");
        assert!(error.to_string().starts_with("--text-addr \"localhost\" is not an address"), "{error}");
        let error = resolve("--addr", "::1:5", true).await.expect_err("which colon is the port's?");
        assert!(error.to_string().contains("in brackets, as in [::1]:50051"), "{error}");
    }
}
