//! Which hashes of passwords are taken: PHC strings of argon2id, with bounds on what it costs to check a password against one.
//!
//! ```text
//! $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>      salt and hash in base64 without padding
//! ```
//!
//! Whoever sends one has hashed the password already, so the bounds keep a single one from holding up every node that checks it.

use crate::limits::PASSWORD_HASH_BYTES_MAX;

/// The most memory that checking a password may take, in KiB.
const MEMORY_KIB_MAX: u32 = 64 * 1024;
/// The most passes over it.
const PASSES_MAX: u32 = 10;
/// The most lanes.
const LANES_MAX: u32 = 4;
/// The shortest and longest salt, in bytes.
const SALT_BYTES: std::ops::RangeInclusive<usize> = 8..=48;
/// The shortest and longest hash, in bytes.
const HASH_BYTES: std::ops::RangeInclusive<usize> = 16..=64;

/// Why this is no hash of a password that is taken; after "it".
pub(super) fn check_password_hash(hash: &str) -> Result<(), String> {
    if hash.len() > PASSWORD_HASH_BYTES_MAX {
        return Err(format!("has {} bytes: the limit is {PASSWORD_HASH_BYTES_MAX}", hash.len()));
    }
    let shape = || "is no PHC string of argon2id: $argon2id$v=19$m=…,t=…,p=…$SALT$HASH".to_owned();
    let mut fields = hash.strip_prefix('$').ok_or_else(shape)?.split('$');
    let mut field = || fields.next().ok_or_else(shape);
    let (kind, version, costs, salt, digest) = (field()?, field()?, field()?, field()?, field()?);
    if kind != "argon2id" || version != "v=19" || fields.next().is_some() {
        return Err(shape());
    }
    let mut costs = costs.split(',');
    let mut cost = |name: &str| {
        let digits = costs.next().and_then(|cost| cost.strip_prefix(name)).ok_or_else(shape)?;
        // As it is written, and in no other way.
        let number: Option<u32> = digits.parse().ok().filter(|number: &u32| number.to_string() == digits);
        number.ok_or_else(shape)
    };
    let (memory_kib, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
    if costs.next().is_some() {
        return Err(shape());
    }
    if !(1..=LANES_MAX).contains(&lanes)
        || !(1..=PASSES_MAX).contains(&passes)
        || !(8 * lanes..=MEMORY_KIB_MAX).contains(&memory_kib)
    {
        return Err(format!(
            "costs m={memory_kib},t={passes},p={lanes}: m goes from 8 for each lane to {MEMORY_KIB_MAX}, t from 1 to {PASSES_MAX}, \
             p from 1 to {LANES_MAX}"
        ));
    }
    for (what, text, bounds) in [("salt", salt, SALT_BYTES), ("hash", digest, HASH_BYTES)] {
        let bytes = base64_bytes(text).ok_or_else(shape)?;
        if !bounds.contains(&bytes) {
            let (least, most) = (bounds.start(), bounds.end());
            return Err(format!("has a {what} of {bytes} bytes: it has {least} to {most}"));
        }
    }
    Ok(())
}

/// How many bytes this stands for; `None` if it is no base64 without padding, with nothing left over.
fn base64_bytes(text: &str) -> Option<usize> {
    let value = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let mut last = 0;
    for byte in text.bytes() {
        last = value(byte)?;
    }
    let unused = match text.len() % 4 {
        0 => 0,
        2 => 0b1111,
        3 => 0b11,
        _ => return None,
    };
    (last & unused == 0).then_some(text.len() * 3 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "c29tZXNhbHRvZjE2Ynl0";
    const HASH: &str = "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI";

    fn hash(costs: &str, salt: &str, hash: &str) -> Result<(), String> {
        check_password_hash(&format!("$argon2id$v=19${costs}${salt}${hash}"))
    }

    #[test]
    fn hashes_within_the_bounds_are_taken() {
        for costs in ["m=19456,t=2,p=1", "m=8,t=1,p=1", "m=65536,t=10,p=4"] {
            assert_eq!(hash(costs, SALT, HASH), Ok(()), "{costs}");
        }
        assert_eq!(base64_bytes(HASH), Some(32));
    }

    #[test]
    fn whatever_else_there_is_is_refused() {
        for costs in [
            "",
            "m=19456,t=2",
            "t=2,m=19456,p=1",
            "m=19456,t=2,p=1,x=1",
            "m=019456,t=2,p=1",
            "m=+9,t=2,p=1",
            "m=65537,t=2,p=1",
            "m=19456,t=11,p=1",
            "m=19456,t=0,p=1",
            "m=19456,t=2,p=5",
            "m=19456,t=2,p=0",
            "m=31,t=2,p=4",
            "m=4294967296,t=2,p=1",
        ] {
            assert!(hash(costs, SALT, HASH).is_err(), "{costs}");
        }
        let costs = "m=19456,t=2,p=1";
        let long = "A".repeat(88);
        for (salt, digest) in [
            ("", HASH),
            ("c2hvcnQ", HASH),
            (&long, HASH),
            (SALT, ""),
            (SALT, "c2hvcnQ"),
            (SALT, &long),
            ("c29tZXNhbHRvZjE2Ynl0==", HASH),
            ("c29tZXNhbHRvZjE2Yn_0", HASH),
            ("c29tZXNhbHRvZjE2Ynl0c", HASH),
            ("c29tZXNhbHRvZjE2Ynl0cd", HASH),
        ] {
            assert!(hash(costs, salt, digest).is_err(), "{salt} {digest}");
        }
        for other in [
            "secret",
            "$argon2i$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Ng",
            "$argon2id$v=16$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Ng",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0",
            "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRvZjE2Ynl0$MTIzNDU2Nzg5MDEyMzQ1Ng$",
        ] {
            assert!(check_password_hash(other).is_err(), "{other}");
        }
        let why = check_password_hash(&"$".repeat(PASSWORD_HASH_BYTES_MAX + 1)).unwrap_err();
        assert!(why.contains("257 bytes"), "{why}");
    }
}
