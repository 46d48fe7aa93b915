//! What went wrong with TLS, in words that say what to do.

use std::io;

use rustls::{AlertDescription, CertificateError, Error};

/// The same error, with words of its own if it is one of TLS.
pub fn explained(error: io::Error) -> io::Error {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) else { return error };
    let words = words(inner);
    io::Error::new(error.kind(), words)
}

fn words(error: &Error) -> String {
    let theirs = "its certificate";
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(
                "{theirs} was issued by nobody in the CA's file given here: give the CA of that cluster (--ca, --tls-ca)"
            )
        }
        Error::InvalidCertificate(
            why @ (CertificateError::Expired | CertificateError::ExpiredContext { .. }),
        ) => {
            format!("{theirs} has ended, or the clock here is wrong: {why}")
        }
        Error::InvalidCertificate(
            why @ (CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }),
        ) => {
            format!("{theirs} does not hold yet, or the clock here is wrong: {why}")
        }
        Error::InvalidCertificate(
            why @ (CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }),
        ) => {
            format!("{theirs} is for another name or address than it was asked under: {why}")
        }
        Error::InvalidCertificate(CertificateError::Other(why)) => format!("{theirs} {why}"),
        Error::InvalidCertificate(why) => format!("{theirs} is refused: {why}"),
        Error::InvalidMessage(_) => "it speaks no TLS there".to_owned(),
        Error::AlertReceived(AlertDescription::UnknownCA) => {
            "it knows nobody who has issued the certificate shown to it: another cluster's CA".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "the certificate shown to it has ended".to_owned()
        }
        Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it wants a certificate (--cert, --key)".to_owned()
        }
        Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked),
        ) => format!("it refuses the certificate shown to it ({alert:?})"),
        other => format!("TLS: {other}"),
    }
}
