//! Who is let in, with a CA of the test's own.

use ringfort_tls::{Certified, NodeFiles, node_uri};
use tokio::net::TcpListener;

use super::*;

const SOON: Duration = Duration::from_secs(5);

struct World {
    guard: Guard,
    listener: TcpListener,
    connector: tokio_rustls::TlsConnector,
    _files: tempfile::TempDir,
}

/// A port of a node, and a client that has a certificate of the user alice.
async fn world() -> World {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
    let files = tempfile::tempdir().unwrap();
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let root = ca.self_signed(&key).unwrap();
    let issuer = Issuer::new(ca, key);
    let issue = |name: &str, san: Option<String>| {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names.extend(san.map(|uri| SanType::URI(uri.try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &issuer).unwrap(), key)
    };
    let at = |name: &str, text: &str| {
        let path = files.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (node, node_key) = issue("n1", Some(node_uri("n1")));
    let files_of_node = NodeFiles {
        cert: at("cert", &node.pem()),
        key: at("key", &node_key.serialize_pem()),
        ca: at("ca", &root.pem()),
    };
    let tls = NodeTls::load(files_of_node, "n1").unwrap();
    let (alice, alice_key) = issue("alice", None);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(vec![alice.der().clone()], alice_key.serialize_der().try_into().unwrap())
        .unwrap();
    World {
        guard: Guard::new("test", tls, Protocol::Text, b"TLS only\n", Arc::default()),
        listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
        connector: tokio_rustls::TlsConnector::from(Arc::new(config)),
        _files: files,
    }
}

impl World {
    /// A client that has only connected, and what comes of greeting it.
    async fn arrives(&self) -> (TcpStream, impl Future<Output = io::Result<Socket>> + use<>) {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = self.listener.accept().await.unwrap();
        let guard = self.guard.clone();
        (client, async move { guard.greet(stream, peer).await })
    }

    async fn handshake(&self, client: TcpStream) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        self.connector.connect("localhost".try_into().unwrap(), client).await
    }
}

#[tokio::test]
async fn who_shows_a_certificate_is_known_and_who_speaks_no_tls_is_told() {
    let world = world().await;
    let (client, greeting) = world.arrives().await;
    let (client, socket) = tokio::join!(world.handshake(client), greeting);
    let alice = Certified { user: Some("alice".to_owned()), node: None };
    assert_eq!(socket.unwrap().certified(), Some(alice));
    client.unwrap();

    let (mut client, greeting) = world.arrives().await;
    client.write_all(b"GET key\n").await.unwrap();
    let mut said = String::new();
    let (refused, read) = tokio::join!(greeting, client.read_to_string(&mut said));
    assert!(refused.is_err() && read.is_ok());
    assert_eq!(said, "TLS only\n");
    let handshakes = &world.guard.0.handshakes;
    assert_eq!((handshakes.done.get(), handshakes.failed.get()), (1, 1));
}

#[tokio::test]
async fn one_address_has_a_part_of_the_handshakes_and_each_has_its_time() {
    let world = world().await;
    // They begin, and say no more.
    let mut begun = Vec::new();
    for _ in 0..HANDSHAKES_OF_ADDRESS_MAX {
        let (mut client, greeting) = world.arrives().await;
        client.write_all(&[TLS_HANDSHAKE, 3, 1]).await.unwrap();
        begun.push((client, tokio::spawn(greeting)));
    }
    let at_port = world.guard.0.clone();
    timeout(SOON, async {
        while at_port.free.available_permits() > HANDSHAKES_MAX - HANDSHAKES_OF_ADDRESS_MAX {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("all of them have a turn");
    // One more of this address waits; another address does not.
    let other =
        timeout(SOON, at_port.turn("10.0.0.1".parse().unwrap())).await.expect("there is room for others");
    assert_eq!(at_port.free.available_permits(), HANDSHAKES_MAX - HANDSHAKES_OF_ADDRESS_MAX - 1);
    drop(other);
    let (client, greeting) = world.arrives().await;
    let waiting = async { tokio::join!(world.handshake(client), greeting) };
    let whole = Duration::from_millis(HANDSHAKE_MS) + SOON;
    let (_client, socket) = timeout(whole, waiting).await.expect("the others' time is over by then");
    assert!(socket.is_ok());
    for (_client, greeting) in begun {
        assert!(greeting.await.unwrap().is_err_and(|error| error.to_string().contains("too long")));
    }
    assert!(at_port.of_addresses.lock().unwrap().is_empty(), "nothing is kept of addresses");
}
