//! Identities of proxies: the URI of a SPIFFE certificate.

use std::{fmt, str::FromStr, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    pki_types::{CertificateDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use webpki::EndEntityCert;

/// Longest identity that a log line shows.
const SHOWN: usize = 256;

/// One identity, or all below a `/` as in `spiffe://cluster.local/ns/shop/*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    below: bool,
}

impl FromStr for Pattern {
    type Err = String;

    fn from_str(pattern: &str) -> Result<Self, String> {
        let (text, below) = match pattern.strip_suffix('*') {
            Some(text) => (text, true),
            None => (pattern, false),
        };
        let path = text.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/'));
        let Some((domain, path)) = path.filter(|(domain, _)| !domain.is_empty()) else {
            return Err(format!(
                "`{pattern}`: expected spiffe://<trust domain>/<path>, or the beginning of one with `/*` behind it"
            ));
        };
        if domain.contains('*') || path.contains('*') || (below && !text.ends_with('/')) || (!below && path.is_empty())
        {
            return Err(format!("`{pattern}`: a `*` stands for all that is below a `/`, and at the end"));
        }
        Ok(Self { text: text.to_owned(), below })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.text, if self.below { "*" } else { "" })
    }
}

impl Pattern {
    fn admits(&self, id: &str) -> bool {
        if self.below { id.len() > self.text.len() && id.starts_with(&self.text) } else { id == self.text }
    }
}

/// Looks at a certificate's identity after its signature.
#[derive(Debug)]
pub(super) struct Verifier {
    inner: Arc<dyn ClientCertVerifier>,
    allowed: Vec<Pattern>,
}

impl Verifier {
    pub(super) fn new(inner: Arc<dyn ClientCertVerifier>, allowed: Vec<Pattern>) -> Self {
        Self { inner, allowed }
    }

    fn admit(&self, certificate: &CertificateDer<'_>) -> Result<(), Refused> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|error| Refused(error.to_string()))?;
        // What is a SPIFFE identity has one URI: another could be taken for it.
        let ids: Vec<&str> = certificate.valid_uri_names().collect();
        match ids.as_slice() {
            [id] if self.allowed.iter().any(|pattern| pattern.admits(id)) => Ok(()),
            [id] => Err(Refused(format!("`{}` is none of the identities that may call", shown(id)))),
            [] => Err(Refused("its certificate has no SPIFFE identity".to_owned())),
            [first, ..] => Err(Refused(format!(
                "its certificate has {} URIs, such as `{}`, where a SPIFFE identity has one",
                ids.len(),
                shown(first)
            ))),
        }
    }
}

/// Text of a peer for a log line.
fn shown(id: &str) -> String {
    id.chars().take(SHOWN).flat_map(char::escape_default).collect()
}

/// Why a peer with a good certificate is not served.
pub(super) struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(end_entity, intermediates, now)?;
        match self.admit(end_entity) {
            Ok(()) => Ok(verified),
            Err(refused) => Err(Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(refused))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let admits = |pattern: &str, id: &str| pattern.parse::<Pattern>().unwrap().admits(id);
        let shop = "spiffe://cluster.local/ns/shop/sa/cart";
        assert!(admits(shop, shop));
        assert!(!admits(shop, "spiffe://cluster.local/ns/shop/sa/cart2"));
        assert!(admits("spiffe://cluster.local/*", shop) && admits("spiffe://cluster.local/ns/shop/*", shop));
        assert!(!admits("spiffe://cluster.local/*", "spiffe://cluster.local.evil/ns/shop/sa/cart"));
        assert!(!admits("spiffe://cluster.local/ns/shop/*", "spiffe://cluster.local/ns/shop2/sa/cart"));
        assert!(!admits("spiffe://cluster.local/*", "spiffe://cluster.local/"));
    }

    #[test]
    fn patterns_that_would_admit_others_are_refused() {
        for bad in [
            "",
            "*",
            "spiffe://*",
            "spiffe://cluster.local",
            "spiffe://cluster.local*",
            "spiffe://cluster.local/",
            "spiffe://cluster.local/ns/shop*",
            "spiffe://*/ns/shop/*",
            "spiffe://a/*/sa/*",
            "spiffe:///ns/*",
            "https://a/*",
        ] {
            assert!(bad.parse::<Pattern>().is_err(), "{bad}");
        }
        let all: Pattern = "spiffe://cluster.local/*".parse().unwrap();
        assert_eq!(all.to_string(), "spiffe://cluster.local/*");
    }
}
