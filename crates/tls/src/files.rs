//! PEM files (RFC 7468), and whether they have changed.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::TlsError;

/// The largest file that is read: some hundred certificates.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Where a node's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeFiles {
    /// Its certificate, and those between it and the CA's, if there are any.
    pub cert: PathBuf,
    /// The key to it.
    pub key: PathBuf,
    /// The certificates of those who may issue others'.
    pub ca: PathBuf,
}

/// Where a client's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificates of those who may issue nodes'.
    pub ca: PathBuf,
    /// Its own certificate and the key to it, if it has one.
    pub own: Option<(PathBuf, PathBuf)>,
}

/// By which it is noticed that a file is another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stamp(Option<(SystemTime, u64, u64)>);

impl Stamp {
    pub(crate) fn of(path: &Path) -> Stamp {
        let of = |data: std::fs::Metadata| Some((data.modified().ok()?, data.len(), inode(&data)));
        Stamp(std::fs::metadata(path).ok().and_then(of))
    }
}

#[cfg(unix)]
fn inode(data: &std::fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(data)
}

#[cfg(not(unix))]
fn inode(_: &std::fs::Metadata) -> u64 {
    0
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > FILE_BYTES_MAX {
        let why = format!("it has {size} bytes, and {FILE_BYTES_MAX} are read at most");
        return Err(TlsError::Malformed { path: path.to_owned(), wanted: "PEM file", why });
    }
    std::fs::read(path).map_err(unreadable)
}

/// The certificates in this file, at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    const WANTED: &str = "certificate";
    let text = read(path)?;
    let all: Result<Vec<_>, PemError> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| malformed(path, WANTED, &error))?;
    if all.is_empty() {
        return Err(TlsError::Empty { path: path.to_owned(), wanted: WANTED });
    }
    Ok(all)
}

/// The first key in this file.
pub(crate) fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    const WANTED: &str = "private key";
    PrivateKeyDer::from_pem_slice(&read(path)?).map_err(|error| match error {
        PemError::NoItemsFound => TlsError::Empty { path: path.to_owned(), wanted: WANTED },
        other => malformed(path, WANTED, &other),
    })
}

/// Those who may issue others' certificates, and when the last of their own ends, in seconds since 1970.
pub(crate) fn roots(path: &Path) -> Result<(RootCertStore, Option<i64>), TlsError> {
    let mut roots = RootCertStore::empty();
    let mut ends = None;
    for certificate in certificates(path)? {
        ends = ends.max(crate::certified::ends(&certificate));
        roots.add(certificate).map_err(|error| malformed(path, "CA's certificate", &error))?;
    }
    Ok((roots, ends))
}

pub(crate) fn malformed(path: &Path, wanted: &'static str, error: &dyn std::error::Error) -> TlsError {
    TlsError::Malformed { path: path.to_owned(), wanted, why: error.to_string() }
}
