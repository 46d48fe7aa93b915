//! Addresses as people type them: `host:port`, several of them separated by commas.
//!
//! `http://` in front is accepted and dropped, since that is how the address is written for other gRPC
//! clients. Everything else that is not `host:port` is refused at once, with what is wrong with it: a mistyped
//! address should not look like a node that is down.

use ringfort_types::{Code, Failure, check_address};

/// The addresses in `text`, in order, without repetition.
pub fn parse_addresses(text: &str) -> Result<Vec<String>, Failure> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = parse_address(part)?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(invalid("no address given: write host:port, for example 127.0.0.1:50051"));
    }
    Ok(addresses)
}

/// One address as `host:port`.
pub fn parse_address(text: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Err(invalid(&format!("address \"{text}\" {why}")));
    if text.starts_with("https://") {
        return wrong(
            "asks for TLS, for which a client needs the CA of the cluster (--ca): give it, and leave https:// out",
        );
    }
    let bare = text.strip_prefix("http://").unwrap_or(text);
    let bare = bare.strip_suffix('/').unwrap_or(bare);
    if let Err(why) = check_address(bare) {
        return wrong(&format!("{why}: write host:port, for example 127.0.0.1:50051"));
    }
    Ok(bare.to_owned())
}

fn invalid(message: &str) -> Failure {
    Failure::rejected(Code::InvalidArgument, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port_with_or_without_http() {
        for good in ["127.0.0.1:50051", "node1:1", "[::1]:50051", "a-b.c_d:65535"] {
            assert_eq!(parse_address(good), Ok(good.to_owned()));
            assert_eq!(parse_address(&format!("http://{good}/")), Ok(good.to_owned()));
        }
    }

    #[test]
    fn a_mistyped_address_is_told_what_is_wrong_with_it() {
        for (bad, why) in [
            ("localhost", "no port: write host:port"),
            ("localhost:0", "outside"),
            ("::1:50051", "brackets"),
            ("https://a:1", "TLS"),
        ] {
            let failure = parse_address(bad).expect_err(bad);
            assert!(failure.message.contains(why), "{bad}: {}", failure.message);
            assert_eq!(failure.code, Code::InvalidArgument);
        }
    }

    #[test]
    fn several_are_separated_by_commas() {
        assert_eq!(parse_addresses("a:1, b:2,a:1,"), Ok(vec!["a:1".into(), "b:2".into()]));
        assert!(parse_addresses(" , ").is_err());
        assert!(parse_addresses("a:1,b").is_err());
    }
}
