//! A real server on loopback, clients with real certificates, and files that change.

use std::{io, net::SocketAddr, path::PathBuf};

use envoy_types::pb::envoy::{
    config::core::v3::Node,
    service::discovery::v3::{DiscoveryRequest, aggregated_discovery_service_client::AggregatedDiscoveryServiceClient},
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_stream::once;
use tonic::transport::{Channel, Endpoint};

use super::*;
use crate::snapshot::{Snapshot, TypeUrl};

const SHOP: &str = "spiffe://cluster.local/ns/shop/sa/cart";

/// Signs certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Certificate and key for names and URIs.
    fn sign(&self, names: &[&str], uris: &[&str]) -> (String, String) {
        let mut params = CertificateParams::new(names.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())));
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }
}

/// A server whose files are in a folder.
struct Bench {
    folder: TempDir,
    store: Arc<Store>,
    address: SocketAddr,
}

impl Bench {
    async fn new(client_ca: Option<&Authority>, peers: &[&str], server: Option<&(String, String)>) -> Self {
        let folder = TempDir::new().unwrap();
        let store = Store::new();
        store.publish(Snapshot::default(), Vec::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bench = Self { folder, store, address };
        let path = |name: &str| bench.folder.path().join(name);
        if let Some(server) = server {
            bench.write(server);
        }
        if let Some(authority) = client_ca {
            bench.put("ca.pem", &authority.pem);
        }
        let files =
            Files { cert: path("cert.pem"), key: path("key.pem"), client_ca: client_ca.map(|_| path("ca.pem")) };
        let peers = peers.iter().map(|peer| peer.parse().unwrap()).collect();
        let settings = Settings { files, peers };
        tokio::spawn(super::super::serve(listener, Some(settings), bench.store.clone(), std::future::pending()));
        if server.is_some() {
            bench.until(|transport| matches!(transport, Transport::Tls { ready: true, .. })).await;
        }
        bench
    }

    /// As agents do: whole files, one after the other.
    fn write(&self, (cert, key): &(String, String)) {
        self.put("key.pem", key);
        self.put("cert.pem", cert);
    }

    fn put(&self, name: &str, text: &str) -> PathBuf {
        let (partial, path) = (self.folder.path().join("partial"), self.folder.path().join(name));
        std::fs::write(&partial, text).unwrap();
        std::fs::rename(partial, &path).unwrap();
        path
    }

    async fn until(&self, condition: impl Fn(&Transport) -> bool) {
        let waiting = async {
            while !condition(&self.store.transport()) {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("the transport to be so");
    }

    fn problem(&self) -> Option<String> {
        match self.store.transport() {
            Transport::Tls { problem, .. } => problem,
            Transport::Plain => None,
        }
    }

    fn refused(&self) -> u64 {
        self.store.refused_connections.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Asks for clusters, as a proxy that trusts `root` and shows `identity`; the server's certificate if it is served.
    async fn call(&self, root: &Authority, identity: Option<&(String, String)>) -> Result<Vec<u8>, String> {
        let (address, config) = (self.address, client(root, identity));
        let (seen, mut certificate) = watch::channel(Vec::new());
        let connect = tower::service_fn(move |_| {
            let (connector, seen) = (TlsConnector::from(config.clone()), seen.clone());
            async move {
                let stream = TcpStream::connect(address).await?;
                let stream = connector.connect(ServerName::try_from("meltemi.test").unwrap(), stream).await?;
                seen.send_replace(stream.get_ref().1.peer_certificates().unwrap()[0].to_vec());
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        });
        let channel = Endpoint::from_static("http://meltemi.test").connect_with_connector(connect).await;
        served(channel.map_err(|error| format!("{error:?}"))?).await?;
        Ok(certificate.borrow_and_update().clone())
    }
}

/// A stream of discovery that gets an answer.
async fn served(channel: Channel) -> Result<(), String> {
    let node = Some(Node { id: "envoy".to_owned(), ..Node::default() });
    let ask = DiscoveryRequest { node, type_url: TypeUrl::Cluster.as_str().to_owned(), ..DiscoveryRequest::default() };
    let requests = tokio_stream::StreamExt::chain(once(ask), tokio_stream::pending());
    let stream = AggregatedDiscoveryServiceClient::new(channel).stream_aggregated_resources(requests).await;
    let first = stream.map_err(|status| format!("{status:?}"))?.into_inner().message().await;
    first.map_err(|status| format!("{status:?}"))?.map(|_| ()).ok_or_else(|| "the end".to_owned())
}

fn client(root: &Authority, identity: Option<&(String, String)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(der(&root.pem)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(roots);
    let mut config = match identity {
        Some((cert, key)) => builder
            .with_client_auth_cert(vec![der(cert)], PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap())
            .unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[tokio::test]
async fn only_proxies_of_the_mesh_are_served() {
    let (mesh, other) = (Authority::new("mesh"), Authority::new("other"));
    let server = mesh.sign(&["meltemi.test"], &[]);
    let bench = Bench::new(Some(&mesh), &["spiffe://cluster.local/ns/shop/*"], Some(&server)).await;
    bench.call(&mesh, Some(&mesh.sign(&[], &[SHOP]))).await.unwrap();
    assert_eq!(bench.refused(), 0);
    let wrong = [
        ("no certificate", None),
        ("another CA", Some(other.sign(&[], &[SHOP]))),
        ("another namespace", Some(mesh.sign(&[], &["spiffe://cluster.local/ns/bank/sa/cart"]))),
        ("another trust domain", Some(mesh.sign(&[], &["spiffe://cluster.local.evil/ns/shop/sa/cart"]))),
        ("no identity", Some(mesh.sign(&["cart.shop"], &[]))),
        ("two identities", Some(mesh.sign(&[], &["spiffe://cluster.local/ns/bank/sa/x", SHOP]))),
    ];
    for (index, (what, identity)) in wrong.iter().enumerate() {
        assert!(bench.call(&mesh, identity.as_ref()).await.is_err(), "{what}");
        let seen = async {
            while bench.refused() <= u64::try_from(index).unwrap() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.unwrap_or_else(|_| panic!("{what} to be counted"));
    }
    assert!(bench.store.proxies().len() <= 1, "none of them got as far as a stream");
}

#[tokio::test]
async fn a_certificate_of_the_ca_is_enough_without_identities() {
    let mesh = Authority::new("mesh");
    let bench = Bench::new(Some(&mesh), &[], Some(&mesh.sign(&["meltemi.test"], &[]))).await;
    bench.call(&mesh, Some(&mesh.sign(&["cart.shop"], &[]))).await.unwrap();
    assert!(bench.call(&mesh, None).await.is_err());
}

#[tokio::test]
async fn plain_text_is_refused() {
    let mesh = Authority::new("mesh");
    let bench = Bench::new(None, &[], Some(&mesh.sign(&["meltemi.test"], &[]))).await;
    bench.call(&mesh, None).await.unwrap();
    let plain = Endpoint::from_shared(format!("http://{}", bench.address)).unwrap().connect().await;
    let plain = match plain {
        Ok(channel) => served(channel).await,
        Err(error) => Err(error.to_string()),
    };
    assert!(plain.is_err());
    assert_eq!(bench.refused(), 1);
    // Who only looks whether there is a listener is no news.
    drop(TcpStream::connect(bench.address).await.unwrap());
    bench.call(&mesh, None).await.unwrap();
    assert_eq!(bench.refused(), 1);
}

#[tokio::test]
async fn new_files_are_for_new_connections_and_bad_ones_for_nobody() {
    let (mesh, next) = (Authority::new("mesh"), Authority::new("next"));
    let first = mesh.sign(&["meltemi.test"], &[]);
    let bench = Bench::new(Some(&mesh), &["spiffe://cluster.local/*"], Some(&first)).await;
    let me = mesh.sign(&[], &[SHOP]);
    assert_eq!(bench.call(&mesh, Some(&me)).await.unwrap(), der(&first.0).to_vec());
    let changes = async |expected: &(String, String), root: &Authority, me: &(String, String)| {
        let seen = async {
            while bench.call(root, Some(me)).await != Ok(der(&expected.0).to_vec()) {
                sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), seen).await.expect("the new certificate");
    };

    let second = mesh.sign(&["meltemi.test"], &[]);
    bench.write(&second);
    changes(&second, &mesh, &me).await;
    assert_eq!(bench.problem(), None);

    for (name, text, words) in [
        ("cert.pem", "nonsense", "cert.pem has no certificate"),
        ("key.pem", "nonsense", "key.pem has no private key"),
        ("key.pem", first.1.as_str(), "do not go together"),
        ("ca.pem", "", "ca.pem has no certificate"),
    ] {
        let path = bench.folder.path().join(name);
        let good = std::fs::read_to_string(&path).unwrap();
        bench.put(name, text);
        bench.until(|transport| format!("{transport:?}").contains(words)).await;
        assert_eq!(bench.call(&mesh, Some(&me)).await.unwrap(), der(&second.0).to_vec(), "the last good one: {words}");
        bench.put(name, &good);
        bench.until(|transport| matches!(transport, Transport::Tls { problem: None, .. })).await;
    }
    std::fs::remove_file(bench.folder.path().join("key.pem")).unwrap();
    bench.until(|transport| format!("{transport:?}").contains("cannot read")).await;
    bench.call(&mesh, Some(&me)).await.unwrap();

    // Another root for both sides: who has a certificate of the old one is not let in any more.
    let third = next.sign(&["meltemi.test"], &[]);
    bench.put("ca.pem", &next.pem);
    bench.write(&third);
    changes(&third, &next, &next.sign(&[], &[SHOP])).await;
    assert!(bench.call(&next, Some(&me)).await.is_err());
}

#[tokio::test]
async fn files_may_come_later() {
    let mesh = Authority::new("mesh");
    let bench = Bench::new(None, &[], None).await;
    bench.until(|transport| format!("{transport:?}").contains("cannot read")).await;
    assert!(matches!(bench.store.transport(), Transport::Tls { ready: false, .. }));
    assert!(bench.call(&mesh, None).await.is_err());
    bench.write(&mesh.sign(&["meltemi.test"], &[]));
    bench.until(|transport| matches!(transport, Transport::Tls { ready: true, problem: None, .. })).await;
    bench.call(&mesh, None).await.unwrap();
}
