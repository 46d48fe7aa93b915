//! Where a node listens: `HOST:PORT`.

use std::net::IpAddr;

/// Takes an address apart. An error says what is wrong with it, after "it" or its name. IPv6 stands in brackets, so that its colons
/// are none before a port; ports count from 0, which only who listens may ask for.
pub fn split_address(text: &str) -> Result<(&str, u16), &'static str> {
    if text.contains("://") {
        return Err("is a URL: leave out what is before the host");
    }
    let (host, port) = text.rsplit_once(':').ok_or("has no port")?;
    if port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("has no number after the last colon");
    }
    let port = port.parse().map_err(|_| "has a port outside 1 to 65535")?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if let Some(inner) = inner {
        // With a scope, as in `fe80::1%eth0`, too.
        let address = inner.split_once('%').map_or(inner, |(address, _)| address);
        if address.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("has no IPv6 address between the brackets");
        }
    } else if host.is_empty() {
        return Err("has no host before the colon");
    } else if host.contains(':') {
        return Err("looks like IPv6, which is written in brackets, as in [::1]:50051");
    } else if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_')) {
        return Err("has a host with characters that no host name has");
    }
    Ok((host, port))
}

/// Checks an address that others are to connect to.
pub fn check_address(text: &str) -> Result<(), &'static str> {
    match split_address(text)? {
        (_, 0) => Err("has a port outside 1 to 65535"),
        _ => Ok(()),
    }
}

/// Whether a host is `0.0.0.0` or `::`, in any of the ways in which resolvers take it.
pub fn is_every_address(host: &str) -> bool {
    let is_zeroes = |host: &str| host.bytes().all(|byte| matches!(byte, b'0' | b'.')) && host.contains('0');
    let is_unspecified = |ip: IpAddr| ip.to_canonical().is_unspecified();
    host.parse().map_or_else(|_| is_zeroes(host), is_unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_ports_and_ipv6_has_brackets() {
        for good in ["127.0.0.1:50051", "node1:1", "[::1]:50051", "[fe80::1%eth0]:1", "a-b.c_d:65535"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "no port"),
            ("localhost", "no port"),
            ("localhost:", "no number"),
            ("localhost:http", "no number"),
            ("localhost:+1", "no number"),
            ("localhost:0", "outside"),
            ("localhost:70000", "outside"),
            (":50051", "no host"),
            ("::1:50051", "brackets"),
            ("[::g]:50051", "no IPv6"),
            ("http://host:1", "URL"),
            ("a b:1", "characters"),
            ("a/b:1", "characters"),
        ] {
            assert!(
                check_address(bad).is_err_and(|told| told.contains(why)),
                "{bad}: {:?}",
                check_address(bad)
            );
        }
        assert_eq!(split_address("[::1]:0"), Ok(("[::1]", 0)));
    }
}
