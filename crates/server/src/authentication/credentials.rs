//! What a client shows: `authorization: Basic …` or `Bearer …` in a call's metadata (RFC 7617, RFC 6750), or the words after `AUTH` on
//! a line of the text protocol.
//!
//! A token is `NAME.` and 64 hexadecimal digits, so it names its user by itself.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ringfort_types::limits::{AUTH_PASSWORD_BYTES_MAX, NAME_BYTES_MAX};
use ringfort_types::{Code, Failure};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Of a name, a colon and a password. Some more is needed while base64 is decoded.
const DECODED_BYTES_MAX: usize = NAME_BYTES_MAX + 1 + AUTH_PASSWORD_BYTES_MAX;
/// Hexadecimal digits of a token's secret.
const DIGITS: usize = 64;

/// Room for what is decoded, so that nothing is allocated for it.
pub(crate) struct Decoded([u8; DECODED_BYTES_MAX + 3]);

impl Default for Decoded {
    fn default() -> Decoded {
        Decoded([0; DECODED_BYTES_MAX + 3])
    }
}

/// Says who asks, and proves it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credentials<'a> {
    Password { name: &'a str, password: &'a [u8] },
    Token { name: &'a str, secret: [u8; 32] },
}

/// Without the secret.
impl fmt::Debug for Credentials<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Credentials::Password { name, .. } => write!(f, "Password({name:?})"),
            Credentials::Token { name, .. } => write!(f, "Token({name:?})"),
        }
    }
}

impl<'a> Credentials<'a> {
    /// What a call's metadata says.
    pub(crate) fn of_header(header: &'a [u8], decoded: &'a mut Decoded) -> Result<Credentials<'a>, Failure> {
        let space = header.iter().position(|byte| *byte == b' ').ok_or_else(no_credentials)?;
        let (scheme, rest) = (&header[..space], header[space..].trim_ascii());
        if scheme.eq_ignore_ascii_case(b"basic") {
            let length = BASE64.decode_slice(rest, &mut decoded.0).map_err(|_| no_credentials())?;
            let said = &decoded.0[..length];
            let colon = said.iter().position(|byte| *byte == b':').ok_or_else(no_credentials)?;
            return Credentials::of_password(&said[..colon], &said[colon + 1..]);
        }
        if scheme.eq_ignore_ascii_case(b"bearer") {
            return Credentials::of_token(rest).ok_or_else(no_credentials);
        }
        Err(no_credentials())
    }

    /// Whose they are said to be.
    pub(crate) fn name(&self) -> &'a str {
        match self {
            Credentials::Password { name, .. } | Credentials::Token { name, .. } => name,
        }
    }

    /// A name and a password.
    pub(crate) fn of_password(name: &'a [u8], password: &'a [u8]) -> Result<Credentials<'a>, Failure> {
        if password.len() > AUTH_PASSWORD_BYTES_MAX {
            let bytes = password.len();
            let why = format!("a password of {bytes} bytes: the limit is {AUTH_PASSWORD_BYTES_MAX}");
            return Err(Failure::rejected(Code::Unauthenticated, why));
        }
        let name = std::str::from_utf8(name).map_err(|_| no_credentials())?;
        Ok(Credentials::Password { name, password })
    }

    /// A token; none if it has another form.
    pub(crate) fn of_token(token: &'a [u8]) -> Option<Credentials<'a>> {
        let (name, digits) = std::str::from_utf8(token).ok()?.rsplit_once('.')?;
        if digits.len() != DIGITS {
            return None;
        }
        let value = |digit: u8| (digit as char).to_digit(16);
        let mut secret = [0; 32];
        for (byte, pair) in secret.iter_mut().zip(digits.as_bytes().chunks(2)) {
            *byte = (value(pair[0])? << 4 | value(pair[1])?) as u8;
        }
        Some(Credentials::Token { name, secret })
    }
}

fn no_credentials() -> Failure {
    let why = "authorization: give Basic with the base64 of NAME:PASSWORD, or Bearer with a token, NAME. and 64 hexadecimal digits";
    Failure::rejected(Code::Unauthenticated, why)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(header: &str) -> Result<String, String> {
        let mut decoded = Decoded::default();
        match Credentials::of_header(header.as_bytes(), &mut decoded) {
            Ok(Credentials::Password { name, password }) => {
                Ok(format!("{name} {}", String::from_utf8_lossy(password)))
            }
            Ok(Credentials::Token { name, secret }) => Ok(format!("{name} {secret:02x?}")),
            Err(failure) => Err(failure.message),
        }
    }

    #[test]
    fn both_schemes_are_read() {
        let basic = |said: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(said));
        assert_eq!(read(&basic("ada:secret")), Ok("ada secret".into()));
        assert_eq!(read(&basic("ada:a:b ")), Ok("ada a:b ".into()));
        assert_eq!(read(&basic("ada:")), Ok("ada ".into()));
        // Without padding, and in any case.
        assert_eq!(read("bASIC YWRhOmI"), Ok("ada b".into()));
        let longest = format!("{}:{}", "n".repeat(NAME_BYTES_MAX), "p".repeat(AUTH_PASSWORD_BYTES_MAX));
        assert!(read(&basic(&longest)).is_ok());
        let token = format!("Bearer a.b.{}", "0fA1".repeat(16));
        assert!(read(&token).is_ok_and(|said| said.starts_with("a.b [0f, a1, 0f,")), "{:?}", read(&token));
    }

    #[test]
    fn what_is_neither_is_refused_with_what_is_right() {
        let short = format!("Bearer ada.{}", "0".repeat(63));
        let no_digit = format!("Bearer ada.{}g", "0".repeat(63));
        let nameless = format!("Bearer {}", "0".repeat(64));
        let endless = format!("Basic {}", "QUJD".repeat(1000));
        for header in [
            "",
            "Basic",
            "Basic ?",
            "Basic YWRh",
            "Digest x",
            "Bearer ",
            &short,
            &no_digit,
            &nameless,
            &endless,
        ] {
            let why = read(header).expect_err(header);
            assert!(why.contains("Basic with the base64 of NAME:PASSWORD"), "{header}: {why}");
        }
        let long = vec![b'p'; AUTH_PASSWORD_BYTES_MAX + 1];
        let why = Credentials::of_password(b"ada", &long).unwrap_err().message;
        assert!(why.contains("the limit is"), "{why}");
    }

    #[test]
    fn secrets_are_not_shown() {
        let password = Credentials::Password { name: "ada", password: b"opensesame" };
        let token = Credentials::Token { name: "ada", secret: [0xab; 32] };
        let shown = format!("{password:?} {token:?}");
        assert_eq!(shown, "Password(\"ada\") Token(\"ada\")");
    }
}
