//! Passwords as argon2id hashes, and new tokens.

use std::fmt::{self, Write};

use argon2::Argon2;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use ring::digest;
use ringfort_types::limits::AUTH_PASSWORD_BYTES_MAX;

/// A hash that no password has, at the default cost: what a password is checked against if there is no such user.
const NOBODYS: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const SALT_BYTES: usize = 16;

/// Whether it is the password with this hash; nobody's, without one. Takes some 20 ms either way.
pub(super) fn is_right(password: &[u8], hash: Option<&str>) -> bool {
    let right = Argon2::default().verify_password(password, hash.unwrap_or(NOBODYS)).is_ok();
    right && hash.is_some()
}

/// The hash of a password as a cluster keeps it: argon2id at the default cost (m=19456, t=2, p=1), as a PHC string.
///
/// # Errors
/// Why it can be no password.
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    if password.is_empty() {
        return Err("a password is not empty".to_owned());
    }
    if password.len() > AUTH_PASSWORD_BYTES_MAX {
        return Err(format!(
            "a password of {} bytes: the limit is {AUTH_PASSWORD_BYTES_MAX}",
            password.len()
        ));
    }
    let mut salt = [0; SALT_BYTES];
    getrandom::fill(&mut salt).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let hash = Argon2::default().hash_password_with_salt(password, &salt);
    Ok(hash.map_err(|error| format!("it can't be hashed: {error}"))?.to_string())
}

/// A new token: 32 random bytes, of which the cluster keeps the SHA-256.
#[derive(Clone)]
pub struct Token([u8; 32]);

impl Token {
    /// One that nobody has seen.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new() -> Result<Token, String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        Ok(Token(secret))
    }

    /// What the cluster keeps.
    pub fn sha256(&self) -> [u8; 32] {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        hash
    }

    /// What the user of this name shows.
    pub fn of(&self, name: &str) -> String {
        let mut token = format!("{name}.");
        for byte in self.0 {
            let _never_fails = write!(token, "{byte:02x}");
        }
        token
    }
}

/// Without the secret.
impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Token").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_passwords_and_salted() {
        let (one, other) = (hash_password(b"secret").unwrap(), hash_password(b"secret").unwrap());
        assert!(one != other && one.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{one}");
        assert!(is_right(b"secret", Some(&one)) && is_right(b"secret", Some(&other)));
        assert!(
            !is_right(b"Secret", Some(&one)) && !is_right(b"secret", None) && !is_right(b"", Some(NOBODYS))
        );
        assert!(!is_right(b"secret", Some("nonsense")));
        assert!(hash_password(b"").is_err() && hash_password(&[b'p'; AUTH_PASSWORD_BYTES_MAX + 1]).is_err());
    }

    /// An unknown user costs what a known one does: the same work for the same parameters.
    #[test]
    fn nobodys_hash_is_one_like_any_other() {
        let shape = |hash: &str| hash.split('$').map(str::to_owned).collect::<Vec<_>>();
        let (nobodys, known) = (shape(NOBODYS), shape(&hash_password(b"secret").unwrap()));
        assert_eq!(nobodys[..4], known[..4]);
        assert_eq!((nobodys[4].len(), nobodys[5].len()), (known[4].len(), known[5].len()));
        assert!(argon2::password_hash::phc::PasswordHash::new(NOBODYS).is_ok());
    }

    #[test]
    fn a_token_shows_itself_to_its_user_only() {
        let token = Token([0xab; 32]);
        assert_eq!(token.of("ada"), format!("ada.{}", "ab".repeat(32)));
        assert!(!format!("{token:?}").contains("ab"));
        assert_ne!(Token::new().unwrap().sha256(), Token::new().unwrap().sha256());
    }
}
