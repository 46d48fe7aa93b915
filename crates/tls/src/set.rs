//! Files that are in use, and are read again when they change.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore, ServerConfig,
    SignatureScheme, WantsVerifier,
};

use crate::files::{Stamp, certificates, key, malformed, roots};
use crate::{Certified, ClientFiles, NodeFiles, TlsError, certified};

/// What is spoken on a port, as ALPN names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/2.
    Grpc,
    /// HTTP/1.1.
    Http,
    /// The text protocol, for which there is no name.
    Text,
}

/// When certificates end, in seconds since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// The node's own; with those between it and the CA, the first that ends.
    pub own: Option<i64>,
    /// The CA's; of several, the last that ends.
    pub ca: Option<i64>,
}

/// Something made of files, and made again when they change.
#[derive(Debug)]
struct Kept<T> {
    now: RwLock<(Vec<Stamp>, Arc<T>)>,
}

impl<T> Kept<T> {
    fn new(stamps: Vec<Stamp>, made: T) -> Kept<T> {
        Kept { now: RwLock::new((stamps, Arc::new(made))) }
    }

    fn get(&self) -> Arc<T> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Makes it again, if the files have changed; what was made before stays if that fails, until they change once more. Whether it is another.
    fn refresh(&self, files: &[&Path], make: impl FnOnce() -> Result<T, TlsError>) -> Result<bool, TlsError> {
        let stamps: Vec<Stamp> = files.iter().map(|path| Stamp::of(path)).collect();
        if self.now.read().unwrap_or_else(PoisonError::into_inner).0 == stamps {
            return Ok(false);
        }
        let result = make();
        let mut now = self.now.write().unwrap_or_else(PoisonError::into_inner);
        now.0 = stamps;
        now.1 = Arc::new(result?);
        Ok(true)
    }
}

/// A node's files. A clone has the same.
#[derive(Clone, Debug)]
pub struct NodeTls(Arc<Node>);

#[derive(Debug)]
struct Node {
    files: NodeFiles,
    name: String,
    kept: Kept<NodeSet>,
}

#[derive(Debug)]
struct NodeSet {
    grpc: Arc<ServerConfig>,
    http: Arc<ServerConfig>,
    text: Arc<ServerConfig>,
    /// For connections with other nodes.
    peer: Arc<ClientConfig>,
    lifetime: Lifetime,
}

impl NodeTls {
    /// Reads the files of the node with this name.
    pub fn load(files: NodeFiles, name: &str) -> Result<NodeTls, TlsError> {
        let stamps = files.all().map(Stamp::of).into();
        let kept = Kept::new(stamps, NodeSet::read(&files, name)?);
        Ok(NodeTls(Arc::new(Node { files, name: name.to_owned(), kept })))
    }

    /// Reads them again, if they have changed: whether they have. If they can't be used, those from before are.
    pub fn refresh(&self) -> Result<bool, TlsError> {
        let Node { files, name, kept } = &*self.0;
        kept.refresh(&files.all(), || NodeSet::read(files, name))
    }

    /// How connections to a port are taken.
    pub fn server(&self, protocol: Protocol) -> Arc<ServerConfig> {
        let set = self.0.kept.get();
        match protocol {
            Protocol::Grpc => set.grpc.clone(),
            Protocol::Http => set.http.clone(),
            Protocol::Text => set.text.clone(),
        }
    }

    /// How other nodes are connected with. Whoever is there has a certificate of a node; of which one is to be asked.
    pub fn peer(&self) -> Arc<ClientConfig> {
        self.0.kept.get().peer.clone()
    }

    /// When the certificates in use end.
    pub fn lifetime(&self) -> Lifetime {
        self.0.kept.get().lifetime
    }
}

impl NodeFiles {
    fn all(&self) -> [&Path; 3] {
        [&self.cert, &self.key, &self.ca]
    }
}

impl NodeSet {
    fn read(files: &NodeFiles, name: &str) -> Result<NodeSet, TlsError> {
        let chain = certificates(&files.cert)?;
        let found = Certified::of(&chain[0]).node;
        match found {
            None => return Err(TlsError::NoNode { path: files.cert.clone(), name: name.to_owned() }),
            Some(found) if found != name => {
                let (path, name) = (files.cert.clone(), name.to_owned());
                return Err(TlsError::OtherNode { path, found, name });
            }
            Some(_) => {}
        }
        let key = key(&files.key)?;
        let (roots, ca) = roots(&files.ca)?;
        let roots = Arc::new(roots);
        if is_strangers(&chain, &roots) {
            return Err(TlsError::Stranger { cert: files.cert.clone(), ca: files.ca.clone() });
        }
        let lifetime = Lifetime { own: chain.iter().filter_map(|der| certified::ends(der)).min(), ca };
        let server = |alpn: &[&[u8]]| server_config(files, &chain, &key, &roots, alpn).map(Arc::new);
        let verifier = Arc::new(NodeVerifier { roots: roots.clone(), provider: provider() });
        let builder = client_builder().dangerous().with_custom_certificate_verifier(verifier);
        let peer = builder.with_client_auth_cert(chain.clone(), key.clone_key());
        let peer = for_grpc(peer.map_err(|error| unfit(&files.cert, &files.key, &error))?);
        Ok(NodeSet {
            grpc: server(&[b"h2"])?,
            http: server(&[b"http/1.1"])?,
            text: server(&[])?,
            peer: Arc::new(peer),
            lifetime,
        })
    }
}

fn server_config(
    files: &NodeFiles,
    chain: &[CertificateDer<'static>],
    key: &PrivateKeyDer<'static>,
    roots: &Arc<RootCertStore>,
    alpn: &[&[u8]],
) -> Result<ServerConfig, TlsError> {
    let clients = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| malformed(&files.ca, "CA's certificate", &error))?;
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
        .with_client_cert_verifier(clients);
    let made = builder.with_single_cert(chain.to_vec(), key.clone_key());
    let mut config = made.map_err(|error| unfit(&files.cert, &files.key, &error))?;
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

/// Whether nobody of these has issued it. When it ends is another matter.
fn is_strangers(chain: &[CertificateDer<'static>], roots: &RootCertStore) -> bool {
    let Ok(certificate) = ParsedCertificate::try_from(&chain[0]) else { return true };
    let algorithms = provider().signature_verification_algorithms.all;
    let verified = verify_server_cert_signed_by_trust_anchor(
        &certificate,
        roots,
        &chain[1..],
        UnixTime::now(),
        algorithms,
    );
    let known = [CertificateError::UnknownIssuer, CertificateError::BadSignature];
    matches!(verified, Err(Error::InvalidCertificate(why)) if known.contains(&why))
}

/// A certificate and a key that can't be used together.
fn unfit(cert: &Path, key: &Path, error: &Error) -> TlsError {
    match error {
        Error::InconsistentKeys(_) => TlsError::Mismatch { cert: cert.to_owned(), key: key.to_owned() },
        Error::InvalidCertificate(_) => malformed(cert, "certificate", error),
        other => malformed(key, "private key", other),
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// Takes nodes of this CA, whatever they are called and wherever they are.
#[derive(Debug)]
struct NodeVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        if Certified::of(end_entity).node.is_none() {
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A client's files. A clone has the same.
#[derive(Clone, Debug)]
pub struct ClientTls(Arc<Client>);

#[derive(Debug)]
struct Client {
    files: ClientFiles,
    kept: Kept<Arc<ClientConfig>>,
    /// Names under which addresses were found.
    found: RwLock<BTreeMap<String, String>>,
}

/// Equal files.
impl PartialEq for ClientTls {
    fn eq(&self, other: &ClientTls) -> bool {
        self.0.files == other.0.files
    }
}

impl Eq for ClientTls {}

impl ClientTls {
    /// Reads them.
    pub fn load(files: ClientFiles) -> Result<ClientTls, TlsError> {
        let stamps = files.all().into_iter().map(Stamp::of).collect();
        let kept = Kept::new(stamps, Arc::new(client_config(&files)?));
        Ok(ClientTls(Arc::new(Client { files, kept, found: RwLock::default() })))
    }

    /// How nodes are connected with; read again if the files have changed, and as before if they can't be used.
    pub fn config(&self) -> Arc<ClientConfig> {
        let Client { files, kept, .. } = &*self.0;
        let _as_before = kept.refresh(&files.all(), || client_config(files).map(Arc::new));
        Arc::clone(&kept.get())
    }
}

impl ClientTls {
    /// Says that an address was found under a name: the certificate there has to be for that. Both with a port.
    pub fn found(&self, address: &str, name: &str) {
        let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
        let mut found = self.0.found.write().unwrap_or_else(PoisonError::into_inner);
        found.insert(address.to_owned(), host.to_owned());
    }

    /// The name that the certificate at this address has to be for, if it is another than the address itself.
    pub(crate) fn name_of(&self, address: &str) -> Option<String> {
        self.0.found.read().unwrap_or_else(PoisonError::into_inner).get(address).cloned()
    }
}

impl ClientFiles {
    fn all(&self) -> Vec<&Path> {
        let own = self.own.iter().flat_map(|(cert, key)| [cert, key]);
        [&self.ca].into_iter().chain(own).map(AsRef::as_ref).collect()
    }
}

fn client_config(files: &ClientFiles) -> Result<ClientConfig, TlsError> {
    let (roots, _) = roots(&files.ca)?;
    let builder = client_builder().with_root_certificates(roots);
    let config = match &files.own {
        None => builder.with_no_client_auth(),
        Some((cert, key_file)) => builder
            .with_client_auth_cert(certificates(cert)?, key(key_file)?)
            .map_err(|error| unfit(cert, key_file, &error))?,
    };
    Ok(for_grpc(config))
}

fn client_builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .expect("ring has TLS 1.2 and 1.3")
}

/// As every connection to a node is: HTTP/2, and a full handshake each time.
fn for_grpc(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    config
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};

    use super::*;
    use crate::node_uri;

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        pem: String,
    }

    fn authority() -> Authority {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Authority { issuer: Issuer::new(params, key), pem }
    }

    impl Authority {
        /// A certificate with this alternative name, and the key to it.
        fn issue(&self, uri: Option<String>) -> (String, String) {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, "n1");
            params.subject_alt_names.extend(uri.map(|uri| SanType::URI(uri.try_into().unwrap())));
            let key = KeyPair::generate().unwrap();
            (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
        }
    }

    /// A node's files in a directory.
    struct Place(tempfile::TempDir);

    impl Place {
        fn with(cert: &str, key: &str, ca: &str) -> Place {
            let place = Place(tempfile::tempdir().unwrap());
            place.put("cert", cert);
            place.put("key", key);
            place.put("ca", ca);
            place
        }

        fn put(&self, name: &str, text: &str) {
            // As whoever replaces a file does it: written beside, and renamed.
            let beside = self.0.path().join("beside");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(beside, self.at(name)).unwrap();
        }

        fn at(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn files(&self) -> NodeFiles {
            NodeFiles { cert: self.at("cert"), key: self.at("key"), ca: self.at("ca") }
        }

        fn refusal(&self) -> String {
            NodeTls::load(self.files(), "n1").expect_err("they are bad").to_string()
        }
    }

    #[test]
    fn what_is_wrong_with_files_is_said_with_the_file() {
        let (ours, theirs) = (authority(), authority());
        let (cert, key) = ours.issue(Some(node_uri("n1")));
        let says = |place: &Place, parts: &[&str]| {
            let said = place.refusal();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}: {parts:?}");
        };
        let good = Place::with(&cert, &key, &ours.pem);
        let tls = NodeTls::load(good.files(), "n1").expect("they are good");
        assert!(tls.lifetime().own.is_some() && tls.lifetime().ca.is_some());
        says(&Place::with("", &key, &ours.pem), &["/cert has no certificate"]);
        says(&Place::with(&cert, "", &ours.pem), &["/key has no private key"]);
        says(&Place::with(&cert, &cert, &ours.pem), &["/key has no private key"]);
        says(
            &Place::with(&cert, &ours.issue(None).1, &ours.pem),
            &["/key is not that of the certificate in", "/cert"],
        );
        says(&Place::with(&cert, &key, &theirs.pem), &["/cert was issued by nobody in", "/ca"]);
        let (users, users_key) = ours.issue(None);
        says(&Place::with(&users, &users_key, &ours.pem), &["is no node's", "ringfort://node/n1"]);
        let (other, other_key) = ours.issue(Some(node_uri("n2")));
        says(&Place::with(&other, &other_key, &ours.pem), &["that of the node n2", "this one is n1"]);
        let damaged = cert.replacen("MII", "@@@", 1);
        says(&Place::with(&damaged, &key, &ours.pem), &["/cert is no certificate that can be read"]);
        let missing = Place::with(&cert, &key, &ours.pem);
        std::fs::remove_file(missing.at("ca")).unwrap();
        says(&missing, &["can't read", "/ca"]);
    }

    /// Of X.509's version 1: what openssl makes if it is given no extensions.
    const VERSION_1: &str = "-----BEGIN CERTIFICATE-----\n\
        MIIBHzCBxgIUTGAQUt0oZ+MiJ+jeQVK88SsgXNgwCgYIKoZIzj0EAwIwFTETMBEG\n\
        A1UEAwwKRXhhbXBsZSBDQTAeFw0yNjEyMDEwMjQ4MjFaFw0yNzEyMDEwMjQ4MjFa\n\
        MBAxDjAMBgNVBAMMBWFsaWNlMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE+kFm\n\
        JciD45q7nQ4pxtdqcLZISl09/5HLgLAawBYSosw0+YvpqHrBGV89fugkXwW9SaOg\n\
        GYJQYjnvp7YftCljuzAKBggqhkjOPQQDAgNIADBFAiEAvFxEK3SboSXLiu3j9zUP\n\
        ZtjiBG69S6qLyxZNUqG0vAoCIDjnqGqOmd4xNkJA0VBUksiDM17gysFlIbNmg5Gb\n\
        8B9J\n\
        -----END CERTIFICATE-----\n";

    #[test]
    fn a_certificate_that_can_not_be_used_is_named_and_not_its_key() {
        let ours = authority();
        let place = Place::with(VERSION_1, &ours.issue(None).1, &ours.pem);
        let files = ClientFiles { ca: place.at("ca"), own: Some((place.at("cert"), place.at("key"))) };
        let said = ClientTls::load(files).expect_err("it is too old").to_string();
        assert!(
            said.contains("/cert is no certificate that can be read") && said.contains("Version"),
            "{said}"
        );
    }

    #[test]
    fn files_are_read_again_when_they_change_and_stay_as_they_were_if_they_are_bad() {
        let ours = authority();
        let (cert, key) = ours.issue(Some(node_uri("n1")));
        let place = Place::with(&cert, &key, &ours.pem);
        let tls = NodeTls::load(place.files(), "n1").unwrap();
        let first = tls.server(Protocol::Grpc);
        assert!(!tls.refresh().unwrap());
        assert!(Arc::ptr_eq(&first, &tls.server(Protocol::Grpc)));

        // Between two files of a new set nothing changes.
        let (next, next_key) = ours.issue(Some(node_uri("n1")));
        place.put("cert", &next);
        assert!(matches!(tls.refresh(), Err(TlsError::Mismatch { .. })));
        assert!(!tls.refresh().unwrap(), "it is said once");
        assert!(Arc::ptr_eq(&first, &tls.server(Protocol::Grpc)));
        place.put("key", &next_key);
        assert!(tls.refresh().unwrap());
        assert!(!Arc::ptr_eq(&first, &tls.server(Protocol::Grpc)));
    }
}
