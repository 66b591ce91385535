//! Options of the xDS server's TLS.

use std::path::PathBuf;

use clap::Args;

use crate::xds::tls::{Files, Pattern, Settings};

/// TLS of the xDS server. Files are read again when they change.
#[derive(Debug, Args)]
pub struct XdsTls {
    /// Certificate of the xDS server, with those between it and its root (PEM). Without it xDS is plain text.
    #[arg(long, value_name = "FILE", requires = "xds_key")]
    xds_cert: Option<PathBuf>,
    /// Its private key (PEM).
    #[arg(long, value_name = "FILE", requires = "xds_cert")]
    xds_key: Option<PathBuf>,
    /// Root certificates (PEM): proxies must show a certificate that one of them has signed.
    #[arg(long, value_name = "FILE", requires = "xds_cert")]
    xds_client_ca: Option<PathBuf>,
    /// SPIFFE identity that a proxy must have, or all below a `/`, as in `spiffe://cluster.local/*`. Can be given
    /// several times.
    #[arg(long, value_name = "ID", requires = "xds_client_ca")]
    xds_client_id: Vec<Pattern>,
}

impl XdsTls {
    pub fn settings(self) -> Option<Settings> {
        let (cert, key) = self.xds_cert.zip(self.xds_key)?;
        Some(Settings { files: Files { cert, key, client_ca: self.xds_client_ca }, peers: self.xds_client_id })
    }
}
