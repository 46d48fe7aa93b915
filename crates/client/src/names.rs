//! Names of nodes: one that has several addresses stands for as many nodes, any of which may hang.

use std::net::SocketAddr;
use std::time::Duration;

use ringfort_tls::Way;
use tokio::time::timeout;

/// Most addresses of one name that are tried.
const ADDRESSES_MAX: usize = 32;

/// Whether it has to be looked up.
pub(crate) fn is_name(address: &str) -> bool {
    address.parse::<SocketAddr>().is_err()
}

/// The addresses that `address` stands for, in the system's order; itself if it is one, stands for one, or is not known in
/// time.
pub(crate) async fn addresses_of(address: &str, way: &Way, patience: Duration) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    if is_name(address)
        && let Ok(Ok(resolved)) = timeout(patience, tokio::net::lookup_host(address)).await
    {
        for one in resolved.map(|one| one.to_string()) {
            if found.len() < ADDRESSES_MAX && !found.contains(&one) {
                found.push(one);
            }
        }
    }
    if found.len() < 2 {
        return vec![address.to_owned()];
    }
    if let Way::Client(tls) = way {
        for one in &found {
            tls.found(one, address);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_stands_for_itself() {
        for address in ["127.0.0.1:1", "[::1]:1", "no-such-host.invalid:1"] {
            assert_eq!(addresses_of(address, &Way::Plain, Duration::from_millis(50)).await, [address]);
        }
        assert!(is_name("localhost:1") && !is_name("[::1]:1"));
    }
}
