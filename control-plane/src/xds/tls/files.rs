//! From files to what rustls wants.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    version::{TLS12, TLS13},
};

use super::{Settings, peers::Verifier};

/// PEM files.
#[derive(Debug, Clone)]
pub struct Files {
    /// Our certificate, and those between it and the root.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Roots that sign certificates of proxies; without it proxies need none.
    pub client_ca: Option<PathBuf>,
}

/// What the files say.
#[derive(PartialEq, Eq)]
pub(super) struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

type Result<T> = std::result::Result<T, String>;

impl Files {
    fn read(&self) -> Result<Contents> {
        Ok(Contents {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

impl Settings {
    /// Reads the files; nothing if they say what is used already.
    pub(super) fn load(&self, used: Option<&Contents>) -> Result<Option<(Contents, ServerConfig)>> {
        let read = self.files.read()?;
        if used == Some(&read) {
            return Ok(None);
        }
        let config = self.config(&read)?;
        Ok(Some((read, config)))
    }

    fn config(&self, read: &Contents) -> Result<ServerConfig> {
        let Files { cert, key, .. } = &self.files;
        let chain = certificates(&read.cert, cert)?;
        let secret = PrivateKeyDer::from_pem_slice(&read.key)
            .map_err(|error| format!("{} has no private key: {error}", key.display()))?;
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| error.to_string())?;
        let builder = match self.verifier(read)? {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder
            .with_single_cert(chain, secret)
            .map_err(|error| format!("{} and {} do not go together: {error}", cert.display(), key.display()))?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // A session that goes on would not be looked at again, whatever became of its certificate or the root.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }

    fn verifier(&self, read: &Contents) -> Result<Option<Arc<dyn ClientCertVerifier>>> {
        let (Some(path), Some(pem)) = (&self.files.client_ca, &read.client_ca) else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for root in certificates(pem, path)? {
            roots.add(root).map_err(|error| format!("a certificate of {}: {error}", path.display()))?;
        }
        let inner = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
            .build()
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Some(if self.peers.is_empty() { inner } else { Arc::new(Verifier::new(inner, self.peers.clone())) }))
    }
}

fn certificates(pem: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all: std::result::Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(all) if !all.is_empty() => Ok(all),
        Ok(_) => Err(format!("{} has no certificate", path.display())),
        Err(error) => Err(format!("{} is no file of certificates: {error}", path.display())),
    }
}
